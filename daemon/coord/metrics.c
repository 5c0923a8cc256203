#include "daemon/coord/metrics.h"

#include <inttypes.h>

enum { WORKERS_SHOWN = 1000 };

static void head(es_str *out, const char *name, const char *type, const char *help)
{
    es_str_addf(out, "# HELP espalier_%s %s\n# TYPE espalier_%s %s\n", name, help, name, type);
}

static void one(es_str *out, const char *name, const char *type, const char *help, double value)
{
    char number[32];
    head(out, name, type, help);
    es_str_addf(out, "espalier_%s %s\n", name, es_str_double(value, number));
}

/* Upper ends in seconds. */
static const double commit_buckets[DM_COMMIT_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                         0.1,    0.25,  0.5,    1,     2.5,  5};

void dm_count_commit(dm_coord *c, int64_t ns)
{
    int i = 0;
    while (i < DM_COMMIT_BUCKETS && (double)ns > commit_buckets[i] * 1e9)
        i++;
    c->commits[i]++;
    c->commits_ns += ns;
    c->commit_ns = ns;
}

void dm_count_end(dm_coord *c, int kind, dm_end how)
{
    if (kind > 0 && kind < DM_KINDS)
        c->ended[kind][how]++;
}

static void commits(const dm_coord *c, es_str *out)
{
    uint64_t sum = 0;
    char number[32];
    head(out, "commit_seconds", "histogram", "Durations of the transactions' commits.");
    for (int i = 0; i < DM_COMMIT_BUCKETS; i++) {
        sum += c->commits[i];
        es_str_addf(out, "espalier_commit_seconds_bucket{le=\"%s\"} %" PRIu64 "\n",
                    es_str_double(commit_buckets[i], number), sum);
    }
    sum += c->commits[DM_COMMIT_BUCKETS];
    es_str_addf(out, "espalier_commit_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", sum);
    es_str_addf(out, "espalier_commit_seconds_sum %s\nespalier_commit_seconds_count %" PRIu64 "\n",
                es_str_double((double)c->commits_ns / 1e9, number), sum);
}

/* A text as a label's value: quotes, backslashes and line ends escaped. */
static void label(es_str *out, const char *text)
{
    for (; *text; text++)
        if (*text == '\n')
            es_str_add(out, "\\n");
        else
            es_str_addf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void worker_samples(dm_coord *c, es_str *out, const char *name, const char *type, const char *help,
                           double (*value)(const dm_coord *c, const dm_worker *w))
{
    dm_worker *w;
    char number[32];
    int n = 0;
    head(out, name, type, help);
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL && n < WORKERS_SHOWN;) {
        if (!w->online)
            continue;
        n++;
        es_str_addf(out, "espalier_%s{worker=\"%" PRId64 "\",name=\"", name, w->id);
        label(out, w->name);
        es_str_add(out, "\",device=\"");
        label(out, w->device);
        es_str_addf(out, "\"} %s\n", es_str_double(value(c, w), number));
    }
}

static double worker_busy(const dm_coord *c, const dm_worker *w)
{
    return (double)(w->busy_ms + (w->held ? c->now_ms - w->busy_since_ms : 0)) / 1000;
}
static double worker_held(const dm_coord *c, const dm_worker *w)
{
    (void)c;
    return w->held;
}
static double worker_done(const dm_coord *c, const dm_worker *w)
{
    (void)c;
    return (double)w->jobs_done;
}
static double worker_memory(const dm_coord *c, const dm_worker *w)
{
    (void)c;
    return w->memory_bytes ? (double)w->memory_used / (double)w->memory_bytes : 0;
}

/* Jobs that are not over by state and kind; ages of leases by kind. */
static es_status kinds(dm_coord *c, es_str *out, es_error *err)
{
    int64_t counts[4][DM_KINDS] = {0}, oldest[DM_KINDS] = {0}, silent = 0;
    char number[32];
    for (int i = 0; i < c->searches_n; i++) {
        dm_search_row r;
        if (c->searches[i]->file) { /* of a driver: few */
            ES_RETURN(dm_job_kinds(c->store, c->searches[i]->id, counts, err));
            continue;
        }
        ES_RETURN(dm_search_get(c->store, c->searches[i]->id, &r, err)); /* all of one kind, perhaps a million */
        for (int s = DM_JOB_WAITING; s <= DM_JOB_RUNNING; s++)
            counts[s][ESPALIER__WIRE__JOB_KIND__JOB_NOOP] += r.n[s];
        dm_search_row_free(&r);
    }
    const dm_lease *l;
    for (size_t i = 0; (l = es_map_next(&c->leases, &i)) != NULL;) {
        int64_t age = c->wall_ms - l->leased_ms, still = c->now_ms - l->heard_ms;
        if (l->kind > 0 && l->kind < DM_KINDS && age > oldest[l->kind])
            oldest[l->kind] = age;
        silent = still > silent ? still : silent;
    }
    head(out, "jobs_live", "gauge", "Jobs that are not over, by state and kind.");
    for (int s = DM_JOB_WAITING; s <= DM_JOB_RUNNING; s++)
        for (int k = 1; k <= ESPALIER__WIRE__JOB_KIND__JOB_NOOP; k++)
            es_str_addf(out, "espalier_jobs_live{state=\"%s\",kind=\"%s\"} %" PRId64 "\n",
                        dm_job_state_name((dm_job_state)s), dm_job_kind_name(k), counts[s][k]);
    head(out, "jobs_ended_total", "counter", "Attempts that ended since the start, by kind and outcome.");
    static const char *const outcomes[] = {"done", "failed", "retried"};
    for (int k = 1; k <= ESPALIER__WIRE__JOB_KIND__JOB_NOOP; k++)
        for (int e = 0; e < DM_ENDS; e++)
            es_str_addf(out, "espalier_jobs_ended_total{kind=\"%s\",outcome=\"%s\"} %" PRIu64 "\n", dm_job_kind_name(k),
                        outcomes[e], c->ended[k][e]);
    head(out, "lease_age_seconds", "gauge", "Age of the oldest lease of each kind of job.");
    for (int k = 1; k <= ESPALIER__WIRE__JOB_KIND__JOB_NOOP; k++)
        es_str_addf(out, "espalier_lease_age_seconds{kind=\"%s\"} %s\n", dm_job_kind_name(k),
                    es_str_double((double)oldest[k] / 1000, number));
    one(out, "lease_silence_seconds", "gauge", "The longest time that a lease has not been heard of.",
        (double)silent / 1000);
    return ES_OK;
}

static void workers(dm_coord *c, es_str *out)
{
    int64_t busy = 0, idle = 0, away = 0, drained = 0, oldest = 0;
    dm_worker *w;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;) {
        drained += w->drained[0] != 0;
        away += !w->drained[0] && !w->online;
        busy += !w->drained[0] && w->online && w->held;
        idle += !w->drained[0] && w->online && !w->held;
        for (const dm_lease *l = w->leases; l; l = l->next)
            oldest = c->wall_ms - l->leased_ms > oldest ? c->wall_ms - l->leased_ms : oldest;
    }
    head(out, "workers", "gauge", "workers by state");
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
    head(out, "searches", "gauge", "searches by state");
    for (int i = DM_SEARCH_RUNNING; i <= DM_SEARCH_CANCELLED; i++)
        es_str_addf(out, "espalier_searches{state=\"%s\"} %" PRId64 "\n", dm_search_state_name((dm_search_state)i),
                    searches[i]);
    head(out, "jobs", "gauge", "jobs by state");
    for (int i = DM_JOB_WAITING; i < DM_JOB_STATES; i++)
        es_str_addf(out, "espalier_jobs{state=\"%s\"} %" PRId64 "\n", dm_job_state_name((dm_job_state)i), jobs[i]);
    workers(c, out);
    one(out, "leases", "gauge", "jobs leased now", (double)c->leases.live);
    one(out, "messages_total", "counter", "messages received", (double)c->messages);
    one(out, "turns_total", "counter", "transactions", (double)c->turns);
    one(out, "failed_turns_total", "counter", "transactions taken back", (double)c->failed_turns);
    commits(c, out);
    worker_samples(c, out, "worker_leases", "gauge", "Jobs that a connected worker holds (of the first 1,000 workers).",
                   worker_held);
    worker_samples(c, out, "worker_busy_seconds_total", "counter",
                   "How long a worker's device has held at least one job: its rate is the device's use.", worker_busy);
    worker_samples(c, out, "worker_jobs_done_total", "counter", "Jobs that a worker has done since the start.",
                   worker_done);
    worker_samples(c, out, "worker_memory_share", "gauge",
                   "Share of its memory that a worker's jobs are predicted to use.", worker_memory);
    return kinds(c, out, err);
}
