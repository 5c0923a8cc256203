/* The coordinator in numbers, in Prometheus' text format. */
#include <inttypes.h>

#include "daemon/coord_internal.h"

static void gauge(es_str *out, const char *name, const char *type, const char *help)
{
    es_str_addf(out, "# HELP espalier_%s %s\n# TYPE espalier_%s %s\n", name, help, name, type);
}

static void one(es_str *out, const char *name, const char *type, const char *help, double value)
{
    char number[32];
    gauge(out, name, type, help);
    es_str_addf(out, "espalier_%s %s\n", name, es_str_double(value, number));
}

static void workers(dm_coord *c, es_str *out)
{
    int64_t busy = 0, idle = 0, away = 0, drained = 0, oldest = 0;
    dm_worker *w;
    for (size_t i = 0; (w = dm_map_next(&c->workers, &i)) != NULL;) {
        drained += w->drained[0] != 0;
        away += !w->drained[0] && !w->online;
        busy += !w->drained[0] && w->online && w->held;
        idle += !w->drained[0] && w->online && !w->held;
        for (const dm_lease *l = w->leases; l; l = l->next)
            oldest = c->wall_ms - l->leased_ms > oldest ? c->wall_ms - l->leased_ms : oldest;
    }
    gauge(out, "workers", "gauge", "workers by state");
    es_str_addf(out,
                "espalier_workers{state=\"busy\"} %" PRId64 "\nespalier_workers{state=\"idle\"} %" PRId64
                "\nespalier_workers{state=\"away\"} %" PRId64 "\nespalier_workers{state=\"drained\"} %" PRId64 "\n",
                busy, idle, away, drained);
    one(out, "oldest_lease_seconds", "gauge", "age of the oldest lease", (double)oldest / 1000);
}

es_status dm_coord_metrics(dm_coord *c, es_str *out, es_error *err)
{
    int64_t searches[6], jobs[DM_JOB_STATES];
    if (!c->loaded)
        return es_fail(err, c->health, c->health_err.where, "%s", c->health_err.text);
    ES_RETURN(dm_search_counts(c->store, searches, err));
    ES_RETURN(dm_job_counts(c->store, jobs, err));
    gauge(out, "searches", "gauge", "searches by state");
    for (int i = DM_SEARCH_RUNNING; i <= DM_SEARCH_CANCELLED; i++)
        es_str_addf(out, "espalier_searches{state=\"%s\"} %" PRId64 "\n", dm_search_state_name((dm_search_state)i),
                    searches[i]);
    gauge(out, "jobs", "gauge", "jobs by state");
    for (int i = DM_JOB_WAITING; i < DM_JOB_STATES; i++)
        es_str_addf(out, "espalier_jobs{state=\"%s\"} %" PRId64 "\n", dm_job_state_name((dm_job_state)i), jobs[i]);
    workers(c, out);
    one(out, "leases", "gauge", "jobs leased now", (double)c->leases.live);
    one(out, "messages_total", "counter", "messages received", (double)c->messages);
    one(out, "turns_total", "counter", "transactions", (double)c->turns);
    one(out, "failed_turns_total", "counter", "transactions taken back", (double)c->failed_turns);
    one(out, "commit_seconds", "gauge", "duration of the last commit", (double)c->commit_ns / 1e9);
    return ES_OK;
}
