#include "daemon/coord/query.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "daemon/coord/driver.h"
#include "daemon/coord/fit.h"
#include "daemon/coord/gang.h"
#include "daemon/coord/search.h"
#include "daemon/coord/turn.h"

enum {
    LIST_DEFAULT = 50,
    LIST_MAX = 1000,
    SHOW_DEFAULT = 1000,
    SHOW_MAX = 4000,
    LOGS_MAX = 200,
    EVENTS_DEFAULT = 1000,
    EVENTS_MAX = 10000,
    CURVE_DEFAULT = 2000,
    CURVE_MAX = 10000,
    LOG_BYTES = 600 << 10
};

typedef struct query {
    dm_coord *c;
    es_json j;
    const dm_question *m;
    es_status status; /* of a row function */
    es_error *err;
} query;

/* ---- searches */

static void put_search(query *q, const char *key, const dm_search_row *r)
{
    es_json *j = &q->j;
    es_json_object(j, key);
    es_json_i64(j, "id", r->id);
    es_json_str(j, "name", r->name);
    es_json_str(j, "user", r->user);
    es_json_str(j, "state", dm_search_state_name(r->state));
    es_json_str(j, "phase", r->phase);
    es_json_i64(j, "priority", r->priority);
    es_json_i64(j, "submitted_ms", r->submitted_ms);
    if (r->ended_ms)
        es_json_i64(j, "ended_ms", r->ended_ms);
    else
        es_json_raw(j, "ended_ms", "null");
    es_json_str(j, "reason", r->reason);
    es_json_bool(j, "pinned", r->pinned);
    es_json_object(j, "jobs");
    for (int i = DM_JOB_WAITING; i <= DM_JOB_CANCELLED; i++)
        es_json_i64(j, dm_job_state_name((dm_job_state)i), r->n[i]);
    es_json_end(j);
    dm_search *live = dm_search_find(q->c, r->id);
    if (live && live->driver->show && live->driver_state) {
        es_json_object(j, "progress");
        live->driver->show(live, j);
        es_json_end(j);
    } else {
        es_json_raw(j, "progress", "null");
    }
    es_json_end(j);
}

static bool list_row(void *ctx, const dm_search_row *r)
{
    put_search(ctx, NULL, r);
    return true;
}

static int64_t limit_of(const query *q, int64_t normal, int64_t most)
{
    int64_t n = q->m->limit ? q->m->limit : normal;
    return n < most ? n : most;
}

static es_status query_list(query *q, es_error *why)
{
    (void)why;
    es_json_array(&q->j, "searches");
    ES_RETURN(
        dm_search_each(q->c->store, (int64_t)q->m->after, limit_of(q, LIST_DEFAULT, LIST_MAX), list_row, q, q->err));
    es_json_end(&q->j);
    return ES_OK;
}

/* ---- jobs of a search */

static void put_job_progress(query *q, const dm_job_row *r)
{
    es_json *j = &q->j;
    char weights[72];
    dm_checkpoint cp;
    double seconds = r->leased_ms && r->ended_ms ? (double)(r->ended_ms - r->leased_ms) / 1000 : 0;
    const dm_lease *l = es_map_get(&q->c->leases, (uint64_t)r->id);
    if (l)
        seconds = (double)(q->c->wall_ms - l->leased_ms) / 1000;
    es_status s = dm_checkpoint_last(q->c->store, r->id, &cp, weights, q->err);
    if (s == ES_OK) {
        double slices = 0;
        s = dm_checkpoint_seconds(q->c->store, r->id, &slices, q->err);
        seconds = slices + (l ? seconds : 0);
    }
    if (s != ES_OK && s != ES_NOT_FOUND)
        q->status = s;
    bool live = l && l->steps > 0, any = live || s == ES_OK;
    if (!any) {
        es_json_raw(j, "step", "null");
        es_json_raw(j, "steps", "null");
        es_json_raw(j, "loss", "null");
        es_json_raw(j, "per_second", "null");
    } else {
        es_json_i64(j, "step", live ? (int64_t)l->step : cp.step);
        es_json_i64(j, "steps", live ? (int64_t)l->steps : cp.steps);
        es_json_f64(j, "loss", live ? l->loss : cp.loss);
        es_json_f64(j, "per_second", live ? l->per_second : cp.per_second);
    }
    es_json_f64(j, "seconds", seconds);
}

static bool show_job(void *ctx, const dm_job_row *r)
{
    query *q = ctx;
    es_json *j = &q->j;
    int64_t *needs = NULL;
    int n = 0;
    es_json_object(j, NULL);
    es_json_i64(j, "id", r->id);
    es_json_str(j, "kind", dm_job_kind_name(r->kind));
    es_json_str(j, "key", r->key);
    es_json_str(j, "state", dm_job_state_name((dm_job_state)r->state));
    q->status = dm_job_needs(q->c->store, r->id, &needs, &n, q->err);
    es_json_array(j, "needs");
    for (int i = 0; i < n; i++)
        es_json_i64(j, NULL, needs[i]);
    es_json_end(j);
    free(needs);
    es_json_i64(j, "attempt", r->attempt);
    es_json_i64(j, "failures", r->failures);
    es_json_i64(j, "losses", r->losses);
    dm_worker *w = r->worker ? es_map_get(&q->c->workers, (uint64_t)r->worker) : NULL;
    es_json_str(j, "worker", w && r->state == DM_JOB_RUNNING ? w->name : NULL);
    put_job_progress(q, r);
    es_json_str(j, "error", r->error);
    es_json_end(j);
    return q->status == ES_OK;
}

static es_status query_show(query *q, es_error *why)
{
    dm_search_row r;
    es_status s = dm_search_get(q->c->store, (int64_t)q->m->search, &r, why);
    ES_RETURN(s);
    put_search(q, "search", &r);
    dm_search_row_free(&r);
    es_json_array(&q->j, "jobs");
    ES_RETURN(dm_job_each_keyed(q->c->store, (int64_t)q->m->search, (int64_t)q->m->after,
                                limit_of(q, SHOW_DEFAULT, SHOW_MAX), show_job, q, q->err));
    es_json_end(&q->j);
    return q->status;
}

static es_status query_pareto(query *q, es_error *why)
{
    int64_t id = (int64_t)q->m->search;
    dm_search *s = dm_search_find(q->c, id);
    char *result;
    if (s && s->driver->pareto && s->driver_state) {
        es_json_i64(&q->j, "search", id);
        es_json_array(&q->j, "objectives");
        for (int i = 0; i < s->file->objectives; i++) {
            es_json_object(&q->j, NULL);
            es_json_str(&q->j, "measure", sn_measure_name(s->file->objective[i].measure));
            es_json_str(&q->j, "goal", s->file->objective[i].maximise ? "max" : "min");
            es_json_end(&q->j);
        }
        es_json_end(&q->j);
        es_json_array(&q->j, "front");
        s->driver->pareto(s, &q->j);
        es_json_end(&q->j);
        return ES_OK;
    }
    ES_RETURN(dm_search_result(q->c->store, id, &result, why));
    if (!result)
        return es_fail(why, ES_NOT_FOUND, NULL, "search %" PRId64 " ended without a front", id);
    es_json_i64(&q->j, "search", id);
    es_json_raw(&q->j, "result", result);
    free(result);
    return ES_OK;
}

/* ---- workers, logs, why, status */

static es_status query_workers(query *q, es_error *why)
{
    (void)why;
    dm_worker *w;
    es_json *j = &q->j;
    es_json_array(j, "workers");
    for (size_t i = 0; (w = es_map_next(&q->c->workers, &i)) != NULL;) {
        es_json_object(j, NULL);
        es_json_i64(j, "id", w->id);
        es_json_str(j, "name", w->name);
        es_json_str(j, "device", w->device);
        es_json_str(j, "machine_kind", w->machine_kind);
        es_json_str(j, "state", w->drained[0] ? "drained" : !w->online ? "away" : w->held ? "busy" : "idle");
        es_json_array(j, "jobs");
        int n = 0;
        for (const dm_lease *l = w->leases; l && n < 16; l = l->next, n++)
            es_json_i64(j, NULL, l->job);
        es_json_end(j);
        es_json_i64(j, "seen_ms", q->c->wall_ms - (q->c->now_ms - w->heard_ms));
        es_json_i64(j, "jobs_done", w->jobs_done);
        es_json_str(j, "reason", w->drained[0] ? w->drained : NULL);
        es_json_end(j);
        if (j->out.len > LOG_BYTES)
            break;
    }
    es_json_end(j);
    return ES_OK;
}

static const char *outcome_name(int outcome)
{
    switch (outcome) {
    case ESPALIER__WIRE__OUTCOME__OUTCOME_DONE: return "done";
    case ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED: return "failed";
    case ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED: return "preempted";
    case ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED: return "cancelled";
    case DM_OUTCOME_LOST: return "lost";
    case DM_OUTCOME_SLICE: return "slice";
    default: return "unknown";
    }
}

static bool logs_row(void *ctx, const dm_attempt_row *r)
{
    query *q = ctx;
    es_json *j = &q->j;
    if (r->outcome == DM_OUTCOME_SLICE)
        return true;
    dm_worker *w = es_map_get(&q->c->workers, (uint64_t)r->worker);
    es_json_object(j, NULL);
    es_json_i64(j, "job", r->job);
    es_json_i64(j, "attempt", r->attempt);
    if (w)
        es_json_str(j, "worker", w->name);
    else
        es_json_i64(j, "worker", r->worker);
    es_json_str(j, "outcome", outcome_name(r->outcome));
    es_json_i64(j, "ended_ms", r->ended_ms);
    es_json_str(j, "error", r->error && r->error[0] ? r->error : NULL);
    es_json_str(j, "log", r->log && r->log[0] ? r->log : NULL);
    es_json_end(j);
    return j->out.len < LOG_BYTES;
}

static bool logs_job(void *ctx, const dm_job_row *r)
{
    query *q = ctx;
    q->status = dm_attempt_each(q->c->store, r->id, logs_row, q, q->err);
    return q->status == ES_OK && q->j.out.len < LOG_BYTES;
}

static es_status query_logs(query *q, es_error *why)
{
    dm_search_row r;
    if (!q->m->job) { /* no such search is an error, not an empty list */
        ES_RETURN(dm_search_get(q->c->store, (int64_t)q->m->search, &r, why));
        dm_search_row_free(&r);
    }
    es_json_array(&q->j, "logs");
    if (q->m->job)
        ES_RETURN(dm_attempt_each(q->c->store, (int64_t)q->m->job, logs_row, q, q->err));
    else
        ES_RETURN(dm_job_each_keyed(q->c->store, (int64_t)q->m->search, (int64_t)q->m->after, INT64_MAX, logs_job, q,
                                    q->err));
    es_json_end(&q->j);
    return q->status;
}

/* "3 of 4 free" and the like: what a gang lacks. */
static void why_gang(const dm_coord *c, const dm_search *s, const dm_ready *r, int ranks, char *text, size_t size)
{
    int most, free_now;
    int64_t whole_ms;
    dm_gang_outlook(c, r, ranks, &most, &free_now, &whole_ms);
    if (most < ranks)
        snprintf(text, size,
                 "needs %d free workers of one machine kind; at most %d of a kind are connected and can do it", ranks,
                 most);
    else if (s->hold.rest_until_ms > c->now_ms)
        snprintf(text, size,
                 "waits for %d free workers of one machine kind, %d are; lets smaller jobs go first for %.0f s", ranks,
                 free_now, (double)(s->hold.rest_until_ms - c->now_ms) / 1000);
    else
        snprintf(text, size, "waits for %d free workers of one machine kind; %d of %d are free%s", ranks, free_now,
                 ranks, s->hold.since_ms ? " and kept for it" : "");
}

typedef struct why_counts {
    int online, drained, able, small, full, asked;
    uint64_t memory_most;
} why_counts;

static why_counts why_count(const dm_coord *c, const dm_ready *r)
{
    why_counts n = {0};
    dm_worker *w;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;) {
        if (!w->online)
            continue;
        dm_fit fit = dm_fits(c, w, r);
        n.online++;
        n.drained += w->drained[0] != 0;
        n.able += fit != DM_NEVER_FITS;
        n.small += fit == DM_TOO_SMALL;
        n.full += fit == DM_NO_ROOM;
        n.asked += fit == DM_ASKED;
        if (fit != DM_NEVER_FITS && w->memory_bytes > n.memory_most)
            n.memory_most = w->memory_bytes;
    }
    return n;
}

static void why_no_worker(const dm_coord *c, const dm_search *s, const dm_job_row *row, char *text, size_t size)
{
    dm_ready r = {.id = row->id, .kind = row->kind, .memory_bytes = row->memory_bytes};
    for (int i = 0; i < s->window_n; i++)
        r.asked = s->window[s->window_at + i].id == r.id ? s->window[s->window_at + i].asked : r.asked;
    why_counts n = why_count(c, &r);
    int above = 0, ranks = dm_gang_size(s, row->kind);
    const dm_lease *l, *clearing = NULL;
    for (size_t i = 0; (l = es_map_next(&c->leases, &i)) != NULL;)
        if (l->preempt && l->search->priority < s->priority)
            clearing = l;
    for (int i = 0; i < c->searches_n; i++)
        above += c->searches[i]->priority > s->priority && c->searches[i]->running > 0;
    if (!n.online)
        snprintf(text, size, "no worker is connected");
    else if (!n.able && n.drained == n.online)
        snprintf(text, size, "all %d workers are drained: they get no more work", n.drained);
    else if (!n.able)
        snprintf(text, size, "none of the %d workers can do %s%s", n.online, dm_job_kind_name(row->kind),
                 n.drained ? " (some are drained)" : "");
    else if (ranks > 1)
        why_gang(c, s, &r, ranks, text, size);
    else if (clearing)
        snprintf(text, size, "job %" PRId64 " of lower priority is making room on %s at its next step", clearing->job,
                 clearing->worker->name);
    else if (n.small > 0)
        snprintf(text, size, "needs about %.1f GiB: %d of %d workers have less, the others are busy",
                 (double)r.memory_bytes / (1 << 30), n.small, n.able);
    else if (n.asked > 0)
        snprintf(text, size,
                 "how long the training is has one worker said: another, of another key, is to say it, too");
    else if (n.full == n.able && row->kind == ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY)
        snprintf(text, size, "measures latency alone on its device: all %d workers that can do it are busy%s", n.able,
                 above ? " with searches of higher priority" : "");
    else if (n.full == n.able && r.memory_bytes > 0)
        snprintf(text, size, "needs about %.1f GiB beside what is running: no worker has so much left",
                 (double)r.memory_bytes / (1 << 30));
    else
        snprintf(text, size, "all %d workers that can do it are busy%s", n.able,
                 above ? " with searches of higher priority" : "");
}

static void why_ready(query *q, const dm_job_row *r, char *text, size_t size)
{
    dm_coord *c = q->c;
    dm_search *s = dm_search_find(c, r->search);
    if (!s)
        snprintf(text, size, "its search is not running");
    else if (s->state == DM_SEARCH_PAUSED)
        snprintf(text, size, "its search is paused");
    else if (r->not_before_ms > c->wall_ms)
        snprintf(text, size, "attempt %" PRId64 " failed (%s); the next one starts in %.1f s", r->attempt,
                 r->error ? r->error : "", (double)(r->not_before_ms - c->wall_ms) / 1000);
    else
        why_no_worker(c, s, r, text, size);
}

static es_status query_why(query *q, es_error *why)
{
    dm_job_row r;
    char text[512];
    ES_RETURN(dm_job_get(q->c->store, (int64_t)q->m->job, &r, why));
    switch ((dm_job_state)r.state) {
    case DM_JOB_WAITING: {
        int64_t *needs, state = 0, attempt, worker, open = 0;
        int n = 0, st;
        if (dm_job_needs(q->c->store, r.id, &needs, &n, q->err) == ES_OK)
            for (int i = 0; i < n; i++)
                if (dm_job_peek(q->c->store, needs[i], &st, &attempt, &worker, q->err) == ES_OK && st != DM_JOB_DONE) {
                    open = needs[i];
                    state = st;
                }
        free(needs);
        snprintf(text, sizeof text, "waits for %d of %d jobs, among them job %" PRId64 ", which is %s", r.waits, n,
                 open, dm_job_state_name((dm_job_state)state));
        break;
    }
    case DM_JOB_READY: why_ready(q, &r, text, sizeof text); break;
    case DM_JOB_RUNNING: {
        const dm_worker *w = es_map_get(&q->c->workers, (uint64_t)r.worker);
        snprintf(text, sizeof text, "runs on %s since %.0f s, attempt %" PRId64,
                 w ? w->name : "a worker not heard since the restart", (double)(q->c->wall_ms - r.leased_ms) / 1000,
                 r.attempt);
        break;
    }
    case DM_JOB_DONE: snprintf(text, sizeof text, "is done"); break;
    case DM_JOB_FAILED:
        snprintf(text, sizeof text, "failed after %d attempts: %s", r.failures + r.losses, r.error ? r.error : "");
        break;
    case DM_JOB_CANCELLED: snprintf(text, sizeof text, "was cancelled with its search"); break;
    }
    es_json_i64(&q->j, "job", r.id);
    es_json_str(&q->j, "text", text);
    dm_job_row_free(&r);
    return ES_OK;
}

static es_status query_status(query *q, es_error *why)
{
    (void)why;
    dm_coord *c = q->c;
    int64_t counts[6];
    es_json *j = &q->j;
    ES_RETURN(dm_search_counts(c->store, counts, q->err));
    es_json_str(j, "version", es_version());
    es_json_f64(j, "uptime_s", (double)(c->now_ms - c->started_ms) / 1000);
    es_json_object(j, "endpoints");
    es_json_str(j, "control", c->o.endpoints[0]);
    es_json_str(j, "data", c->data_endpoint);
    es_json_str(j, "status", c->o.endpoints[1]);
    es_json_str(j, "http", c->o.endpoints[2]);
    es_json_end(j);
    int64_t online = 0;
    dm_worker *w;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;)
        online += w->online;
    es_json_i64(j, "workers", online);
    es_json_i64(j, "leases", (int64_t)c->leases.live);
    es_json_i64(j, "turns", (int64_t)c->turns);
    es_json_i64(j, "messages", (int64_t)c->messages);
    es_json_f64(j, "commit_s", (double)c->commit_ns / 1e9);
    es_json_object(j, "searches");
    for (int i = DM_SEARCH_RUNNING; i <= DM_SEARCH_CANCELLED; i++)
        es_json_i64(j, dm_search_state_name((dm_search_state)i), counts[i]);
    es_json_end(j);
    return ES_OK;
}

static es_status query_result(dm_coord *c, const dm_question *m, char **json, es_error *why)
{
    dm_search_row r;
    ES_RETURN(dm_search_get(c->store, (int64_t)m->search, &r, why));
    es_status s = dm_search_result(c->store, (int64_t)m->search, json, why);
    if (s == ES_OK && !*json) {
        bool over = r.state != DM_SEARCH_RUNNING && r.state != DM_SEARCH_PAUSED;
        s = es_fail(why, over ? ES_NOT_FOUND : ES_BUSY, NULL, "search %" PRId64 " %s%s%s", r.id,
                    over ? "has no result: it " : "is not done yet: ", over ? dm_search_state_name(r.state) : r.phase,
                    over && r.reason ? r.reason : "");
    }
    dm_search_row_free(&r);
    return s;
}

/* ---- for the page: one job, and curves */

static es_status query_job(query *q, es_error *why)
{
    dm_job_row r;
    ES_RETURN(dm_job_get(q->c->store, (int64_t)q->m->job, &r, why));
    es_json_i64(&q->j, "search", r.search);
    es_json_array(&q->j, "jobs"); /* of one: the same form as in `show` */
    show_job(q, &r);
    es_json_end(&q->j);
    dm_job_row_free(&r);
    ES_RETURN(q->status);
    ES_RETURN(query_why(q, why));
    es_json_array(&q->j, "logs");
    ES_RETURN(dm_attempt_each(q->c->store, (int64_t)q->m->job, logs_row, q, q->err));
    es_json_end(&q->j);
    return q->status;
}

static bool curve_loss(void *ctx, const dm_checkpoint *c)
{
    es_json *j = &((query *)ctx)->j;
    es_json_array(j, NULL);
    es_json_i64(j, NULL, c->job);
    es_json_i64(j, NULL, c->step);
    es_json_f64(j, NULL, c->loss);
    es_json_end(j);
    return true;
}

static bool curve_value(void *ctx, const dm_candidate *c, double accuracy)
{
    es_json *j = &((query *)ctx)->j;
    es_json_array(j, NULL);
    es_json_i64(j, NULL, c->ticket);
    es_json_f64(j, NULL, accuracy);
    es_json_i64(j, NULL, c->params);
    es_json_i64(j, NULL, c->macs);
    es_json_end(j);
    return true;
}

static es_status query_curves(query *q, es_error *why)
{
    dm_search_row r;
    int64_t id = (int64_t)q->m->search, most = limit_of(q, CURVE_DEFAULT, CURVE_MAX);
    ES_RETURN(dm_search_get(q->c->store, id, &r, why));
    dm_search_row_free(&r);
    es_json_i64(&q->j, "search", id);
    es_json_array(&q->j, "loss"); /* [job, step, loss] */
    ES_RETURN(dm_checkpoint_curve(q->c->store, id, most, curve_loss, q, q->err));
    es_json_end(&q->j);
    es_json_array(&q->j, "evaluations"); /* [ticket, accuracy, params, macs] */
    ES_RETURN(dm_candidate_curve(q->c->store, id, (int64_t)q->m->after, most, curve_value, q, q->err));
    es_json_end(&q->j);
    return ES_OK;
}

/* ---- what happened */

static bool event_row(void *ctx, int64_t id, const char *json)
{
    es_json *j = &((query *)ctx)->j;
    (void)id;
    es_json_raw(j, NULL, json);
    return j->out.len < LOG_BYTES;
}

static es_status query_events(query *q, es_error *why)
{
    dm_search_row r;
    int64_t oldest;
    if (q->m->search) { /* no such search is an error, not an empty list */
        ES_RETURN(dm_search_get(q->c->store, (int64_t)q->m->search, &r, why));
        dm_search_row_free(&r);
    }
    ES_RETURN(dm_event_first(q->c->store, &oldest, q->err));
    es_json_i64(&q->j, "oldest", oldest);
    es_json_array(&q->j, "events");
    ES_RETURN(dm_event_each(q->c->store, (int64_t)q->m->search, q->m->after, limit_of(q, EVENTS_DEFAULT, EVENTS_MAX),
                            event_row, q, q->err));
    es_json_end(&q->j);
    return ES_OK;
}

static const struct {
    const char *what;
    es_status (*fn)(query *q, es_error *why);
} queries[] = {{"list", query_list},     {"show", query_show},    {"pareto", query_pareto}, {"workers", query_workers},
               {"logs", query_logs},     {"why", query_why},      {"status", query_status}, {"job", query_job},
               {"curves", query_curves}, {"events", query_events}};

es_status dm_coord_ask(dm_coord *c, const dm_question *m, char **json, es_error *err)
{
    *json = NULL;
    if (!c->loaded)
        return es_fail(err, c->health, c->health_err.where, "%s", c->health_err.text);
    if (strcmp(m->what, "result") == 0)
        return query_result(c, m, json, err);
    for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
        if (strcmp(m->what, queries[i].what) != 0)
            continue;
        query q = {.c = c, .m = m, .err = err};
        es_json_begin(&q.j, 0);
        es_json_object(&q.j, NULL);
        es_status s = queries[i].fn(&q, err);
        if (s != ES_OK) {
            es_json_free(&q.j);
            return s;
        }
        es_json_end(&q.j);
        *json = es_json_finish(&q.j);
        return ES_OK;
    }
    return es_fail(
        err, ES_UNSUPPORTED, "query.what",
        "is \"%.40s\", allowed are list, show, pareto, workers, logs, why, result, status, job, curves, events",
        m->what);
}

/* Questions are for people: whatever goes wrong is the answer, and the turn goes on. */
es_status dm_on_query(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Query *m, es_error *err)
{
    (void)err;
    es_error why = {.code = ES_OK};
    char *json;
    dm_question q = {.what = m->what ? m->what : "",
                     .search = m->search,
                     .job = m->job,
                     .limit = m->limit,
                     .after = (int64_t)m->after};
    if (dm_coord_ask(c, &q, &json, &why) == ES_OK)
        dm_coord_json(c, from, id, json);
    else
        dm_coord_refuse(c, from, id, &why);
    return ES_OK;
}
