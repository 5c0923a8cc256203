/* job_rows.h - jobs and what they wait for, as rows. What state a job may go to, and the going, is job.h's.
 *
 *     dm_job_new j = {.search = id, .kind = kind, .key = "train", .spec = bytes, .spec_bytes = n, .now_ms = now};
 *     dm_job_create(st, &j, &job, &created, err);                  // a key makes doing it twice the same as doing it once
 *     dm_job_ready(st, id, now, 16, window, &n, &next_due, err);   // what the scheduler may give out
 */
#ifndef DM_JOB_ROWS_H
#define DM_JOB_ROWS_H

#include "daemon/store/store.h"

typedef struct dm_job_row {
    int64_t id, search, worker, attempt, not_before_ms, created_ms, leased_ms, ended_ms;
    int kind, state, failures, losses, waits;
    int64_t memory_bytes; /* predicted; 0: unknown */
    char *key;
    uint8_t *spec, *result;
    size_t spec_bytes, result_bytes;
    char *error_code, *error;
} dm_job_row;
void dm_job_row_free(dm_job_row *r);

typedef struct dm_job_new {
    int64_t search;
    int kind;
    const char *key;
    const void *spec;
    size_t spec_bytes;
    const int64_t *needs; /* jobs that must be done first */
    int needs_count;
    int64_t now_ms, memory_bytes;
} dm_job_new;
/* Ready, or waiting when something it needs is not done. A key that exists already: ES_OK, *id is that job's, *created false. */
es_status dm_job_create(dm_store *st, const dm_job_new *j, int64_t *id, bool *created, es_error *err) ES_MUST_CHECK;
es_status dm_job_create_noops(dm_store *st, int64_t search, int64_t count, int64_t now_ms, int64_t *first,
                              es_error *err) ES_MUST_CHECK;
es_status dm_job_get(dm_store *st, int64_t id, dm_job_row *out, es_error *err) ES_MUST_CHECK;
es_status dm_job_by_key(dm_store *st, int64_t search, const char *key, dm_job_row *out, es_error *err) ES_MUST_CHECK;
/* state and attempt only. */
es_status dm_job_peek(dm_store *st, int64_t id, int *state, int64_t *attempt, int64_t *worker,
                      es_error *err) ES_MUST_CHECK;

/* What the scheduler holds of a ready job. */
typedef struct dm_ready {
    int64_t id, attempt, memory_bytes;
    int kind, failures, losses;
    uint32_t asked; /* in memory only: workers of this key have been asked (fit.h: dm_worker_key); 0: none */
} dm_ready;
/* Its next attempt, if any, is by this spec. */
es_status dm_job_set_spec(dm_store *st, int64_t id, const void *spec, size_t bytes, es_error *err) ES_MUST_CHECK;
/* The oldest ready jobs of a search that may start by now; *next_due_ms is when the next one may (INT64_MAX: none waits). */
es_status dm_job_ready(dm_store *st, int64_t search, int64_t now_ms, int limit, dm_ready *out, int *count,
                       int64_t *next_due_ms, es_error *err) ES_MUST_CHECK;
/* Jobs of a search in a state that is not over. Without the spec. */
es_status dm_job_each_live(dm_store *st, int64_t search, int state, int64_t limit,
                           bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err) ES_MUST_CHECK;
/* Every running job, of all searches. Without the spec. */
es_status dm_job_each_running(dm_store *st, bool (*fn)(void *ctx, const dm_job_row *r), void *ctx,
                              es_error *err) ES_MUST_CHECK;
/* Looks at the next `limit` jobs that have a key, by key, after `key`, which it moves on; those that failed go to ids. *more: there may be others. */
enum { DM_JOB_KEY_MAX = 64 };
es_status dm_job_failed_after(dm_store *st, int64_t search, char key[DM_JOB_KEY_MAX], int limit, int64_t *ids, int *n,
                              bool *more, es_error *err) ES_MUST_CHECK;
/* All jobs that have a key (drivers' jobs), in order of creation: for `show`. Without spec and result. */
es_status dm_job_each_keyed(dm_store *st, int64_t search, int64_t after, int64_t limit,
                            bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err) ES_MUST_CHECK;
/* Jobs that need `id`: after it is done, counts down; those that wait for nothing more come back in *ready (caller frees). */
es_status dm_job_release(dm_store *st, int64_t id, int64_t **ready, int *count, es_error *err) ES_MUST_CHECK;
/* All that wait on `id` (caller frees). */
es_status dm_job_dependents(dm_store *st, int64_t id, int64_t **jobs, int *count, es_error *err) ES_MUST_CHECK;
es_status dm_job_needs(dm_store *st, int64_t id, int64_t **jobs, int *count, es_error *err) ES_MUST_CHECK;

es_status dm_job_counts(dm_store *st, int64_t counts[7],
                        es_error *err) ES_MUST_CHECK; /* jobs of all searches, by dm_job_state */

/* Jobs of a search that are not over, by state (waiting, ready, running) and kind (below 16): reads each of them. */
es_status dm_job_kinds(dm_store *st, int64_t search, int64_t counts[4][16], es_error *err) ES_MUST_CHECK;

#endif
