/* driver.h - what turns a search into jobs. To add a kind of search (and with it a job kind): one file
 * driver/<name>.c, one line in the table of driver/drivers.c.
 *
 * A driver's position is a function of its rows (jobs by key, candidates, results): `open` reads them, `advance` creates whatever is missing now and
 * may be called any number of times. Jobs are created through dm_driver_job, whose key makes doing it twice the same as doing it once.
 * Nothing depends on the clock, on the number of workers, or on the order in which results come in.
 */
#ifndef DM_DRIVER_H
#define DM_DRIVER_H

#include "supernet/searchfile/searchfile.h"

#include "daemon/coord/state.h"

struct dm_driver {
    const char *name;
    bool (*takes)(const sn_search_file *f); /* NULL: never by a search file */
    es_status (*open)(dm_search *s,
                      es_error *err); /* ES_INVALID, ES_INFEASIBLE, ES_NOT_FOUND ...: the search fails with this text */
    void (*close)(dm_search *s);      /* also after a failed open */
    es_status (*advance)(dm_search *s, es_error *err);
    /* The jobs it needs are done: completes the spec with what they made. NULL: nothing to complete. */
    es_status (*prepare)(dm_search *s, const dm_job_row *j, dm_job_spec *spec, es_error *err);
    /* A result, committed in this turn. ES_INVALID: it is no answer to the job (counts as a failed attempt; nothing may have been written). */
    es_status (*done)(dm_search *s, const dm_job_row *j, const dm_job_result *r, es_error *err);
    /* A job failed for good. *survives: the search can go on without it. */
    es_status (*failed)(dm_search *s, const dm_job_row *j, bool *survives, es_error *err);
    void (*show)(dm_search *s, es_json *j);   /* adds fields to `show` */
    void (*pareto)(dm_search *s, es_json *j); /* the front so far, as an array's elements */
};

/* driver/drivers.c: the coordinator knows drivers by this header only. */
const dm_driver *dm_driver_for(const sn_search_file *f); /* never NULL: a valid file has a driver */
const dm_driver *dm_driver_named(const char *name);

/* ---- what drivers call */
/* Database failures end the turn, everything else ends the search: which is it? */
bool dm_is_store_failure(es_status s);

/* Creates the job (once for each key). needs may be NULL. */
es_status dm_driver_job(dm_search *s, const char *key, const dm_job_spec *spec, const int64_t *needs, int n,
                        int64_t *id, es_error *err) ES_MUST_CHECK;
es_status dm_driver_job_result(dm_search *s, const char *key, dm_job_result **out,
                               es_error *err) ES_MUST_CHECK; /* ES_NOT_FOUND: not done yet */
void dm_job_result_free(dm_job_result **r);

#endif
