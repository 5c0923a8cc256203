#include "daemon/coord/failure.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/coord/driver.h"
#include "daemon/coord/finish.h"
#include "daemon/coord/sched.h"
#include "daemon/coord/search.h"
#include "daemon/coord/worker.h"

int64_t dm_backoff_ms(dm_coord *c, int failures)
{
    int64_t ms = c->o.backoff_ms;
    for (int i = 1; i < failures && ms < c->o.backoff_max_ms; i++)
        ms *= 2;
    if (ms > c->o.backoff_max_ms)
        ms = c->o.backoff_max_ms;
    return ms / 2 + (int64_t)(es_rng_uniform_f64(&c->rng) * (double)ms / 2); /* half of it is jitter */
}

/* What another attempt cannot change. */
static bool code_is_final(const char *code)
{
    static const es_status final[] = {ES_INVALID, ES_NOT_FOUND, ES_UNSUPPORTED, ES_INFEASIBLE, ES_VERSION};
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++)
        if (strcmp(code, es_status_name(final[i])) == 0)
            return true;
    return false;
}

static es_status worker_failed_again(dm_coord *c, const dm_lease *l, const char *code, es_error *err)
{
    dm_worker *w = l->worker;
    if (code_is_final(code)) /* the job's fault, not the worker's */
        return ES_OK;
    if (strcmp(code, "lost-peer") == 0) /* nobody knows which of them */
        return ES_OK;
    if (strcmp(code, "no-memory") == 0 && w->memory_bytes && (uint64_t)l->memory_bytes > w->memory_bytes)
        return ES_OK; /* nor is it to blame for a job that was predicted not to fit */
    w->fails_in_row++;
    if (c->o.drain_after == 0 || w->fails_in_row < c->o.drain_after || w->drained[0])
        return ES_OK;
    char why[256];
    snprintf(why, sizeof why, "%d jobs in a row failed on it, the last one with \"%s\"", w->fails_in_row, code);
    return dm_worker_drain(c, w, why, err);
}

/* Handing a job back costs it nothing, so a worker that does nothing else would keep it for ever. A worker that leaves hands back what its slots hold. */
es_status dm_worker_handed_back(dm_coord *c, const dm_lease *l, bool progress, es_error *err)
{
    dm_worker *w = l->worker;
    if (progress || l->preempt || l->search->state != DM_SEARCH_RUNNING)
        return ES_OK;
    w->idle_returns++;
    if (c->o.drain_after == 0 || w->idle_returns < (int)w->slots + c->o.drain_after || w->drained[0])
        return ES_OK;
    char why[256];
    snprintf(why, sizeof why, "it handed back %d jobs in a row, unasked and with nothing done", w->idle_returns);
    return dm_worker_drain(c, w, why, err);
}

void dm_worker_did_well(dm_worker *w) { w->fails_in_row = w->idle_returns = 0; }

static es_status job_failed_for_good(dm_coord *c, dm_lease *l, const char *code, const char *text, es_error *err)
{
    dm_search *s = l->search;
    dm_job_row row;
    bool survives = false;
    int64_t job = l->job;
    char why[400];
    dm_job_move_args m = {.id = job,
                          .search = s->id,
                          .from = DM_JOB_RUNNING,
                          .to = DM_JOB_FAILED,
                          .why = "attempts gone",
                          .now_ms = c->wall_ms,
                          .failures = l->failures,
                          .losses = l->losses,
                          .error_code = code,
                          .error = text};
    ES_RETURN(dm_job_move(c->store, &m, err));
    dm_lease_drop(c, l);
    ES_RETURN(dm_job_get(c->store, job, &row, err));
    snprintf(why, sizeof why, "job %" PRId64 " (%s%s%s) failed: %s: %s", job, dm_job_kind_name(row.kind),
             row.key ? " " : "", row.key ? row.key : "", code, text);
    es_status status = s->driver->failed ? s->driver->failed(s, &row, &survives, err) : ES_OK;
    dm_job_row_free(&row);
    ES_RETURN(status);
    if (survives)
        return ES_OK;
    return s->file ? dm_search_end(c, s, DM_SEARCH_FAILED, why, err) : ES_OK;
}

es_status dm_lease_failed(dm_coord *c, dm_lease *l, int outcome, const char *code, const char *text, const char *log,
                          es_error *err)
{
    dm_attempt_row a = {.job = l->job,
                        .attempt = l->attempt,
                        .worker = l->worker->id,
                        .outcome = outcome,
                        .leased_ms = l->leased_ms,
                        .ended_ms = c->wall_ms,
                        .error_code = code,
                        .error = text,
                        .log = log};
    bool lost = outcome == DM_OUTCOME_LOST;
    ES_RETURN(dm_attempt_insert(c->store, &a, err));
    if (!lost) {
        l->failures++;
        ES_RETURN(worker_failed_again(c, l, code, err));
    }
    bool gone = lost ? c->o.losses_max && l->losses >= c->o.losses_max
                     : l->failures >= c->o.failures_max || code_is_final(code);
    ES_RETURN(dm_job_event(c, l, gone ? "failed" : "ready", code, text, err));
    if (gone && lost) {
        char why[160];
        snprintf(why, sizeof why, "set aside: %d workers in a row died or fell silent while they had it", l->losses);
        return job_failed_for_good(c, l, code, why, err);
    }
    if (gone)
        return job_failed_for_good(c, l, code, text, err);
    int64_t due = lost ? 0 : c->wall_ms + dm_backoff_ms(c, l->failures);
    dm_search *s = l->search;
    dm_job_move_args m = {.id = l->job,
                          .search = s->id,
                          .from = DM_JOB_RUNNING,
                          .to = DM_JOB_READY,
                          .why = lost ? "worker lost" : "failed",
                          .failures = l->failures,
                          .losses = l->losses,
                          .not_before_ms = due,
                          .error_code = code,
                          .error = text};
    ES_RETURN(dm_job_move(c->store, &m, err));
    dm_ready again = dm_lease_ready(l);
    dm_lease_drop(c, l);
    if (due)
        dm_sched_later(s, due);
    else
        dm_sched_added(s, &again);
    return ES_OK;
}
