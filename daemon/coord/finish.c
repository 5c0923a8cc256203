#include "daemon/coord/finish.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/driver.h"
#include "daemon/coord/failure.h"
#include "daemon/coord/gang.h"
#include "daemon/coord/metrics.h"
#include "daemon/coord/sched.h"
#include "daemon/coord/slice.h"
#include "daemon/coord/turn.h"
#include "daemon/coord/worker.h"

bool dm_kind_trains(int kind)
{
    return kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET || kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_MODULE ||
           kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUBNET;
}

es_status dm_job_event(dm_coord *c, const dm_lease *l, const char *state, const char *code, const char *text,
                       es_error *err)
{
    dm_event e;
    es_json *j = dm_event_begin(c, &e, "job.state", l->search, l->job, true);
    es_json_str(j, "job_kind", dm_job_kind_name(l->kind));
    es_json_str(j, "state", state);
    es_json_i64(j, "attempt", l->attempt);
    es_json_str(j, "worker", l->worker->name);
    es_json_str(j, "code", code);
    es_json_str(j, "error", text);
    dm_count_end(c, l->kind,
                 strcmp(state, "done") == 0     ? DM_END_DONE
                 : strcmp(state, "failed") == 0 ? DM_END_FAILED
                                                : DM_END_RETRIED);
    if (text)
        es_log(ES_LOG_WARN,
               "job failed job=%" PRId64 " attempt=%" PRId64 " search=%" PRId64 " worker=%" PRId64
               " code=%s state=%s: %s",
               l->job, l->attempt, l->search->id, l->worker->id, code, state, text);
    else
        es_log(ES_LOG_INFO, "job %s job=%" PRId64 " attempt=%" PRId64 " search=%" PRId64 " worker=%" PRId64, state,
               l->job, l->attempt, l->search->id, l->worker->id);
    return dm_event_end(c, &e, err);
}

/* ---- one finished lease */

es_status dm_job_done_release(dm_coord *c, dm_search *s, int64_t job, es_error *err)
{
    int64_t *ids = NULL;
    int n = 0;
    es_status status = dm_job_release(c->store, job, &ids, &n, err);
    for (int i = 0; i < n && status == ES_OK; i++) {
        dm_job_row row;
        status = dm_job_get(c->store, ids[i], &row, err);
        if (status != ES_OK)
            break;
        dm_bytes b = {0};
        ProtobufCMessage *base = NULL;
        if (s->driver->prepare) {
            status = dm_decode(&espalier__wire__job_spec__descriptor, row.spec, row.spec_bytes, &base, err);
            if (status == ES_OK) {
                dm_job_spec copy = *(dm_job_spec *)base;
                status = s->driver->prepare(s, &row, &copy, err);
                if (status == ES_OK)
                    status = dm_encode(&copy.base, DM_SPEC_TEXT_MAX, &b, err);
            }
            dm_message_free(&base);
        }
        dm_job_move_args m = {.id = row.id,
                              .search = s->id,
                              .from = DM_JOB_WAITING,
                              .to = DM_JOB_READY,
                              .why = "dependencies done",
                              .spec = b.data,
                              .spec_bytes = b.n};
        if (status == ES_OK)
            status = dm_job_move(c->store, &m, err);
        if (status == ES_OK)
            dm_sched_added(
                s,
                &(dm_ready){.id = row.id, .attempt = row.attempt, .memory_bytes = row.memory_bytes, .kind = row.kind});
        free(b.data);
        dm_job_row_free(&row);
    }
    free(ids);
    return status;
}

/* What a job made is needed from here on: a version that is there, whatever a worker may say. */
static es_status finish_uses(dm_coord *c, int64_t search, int64_t job, const char *version, es_error *err)
{
    if (!version || !version[0] || (c->env.has_version && !c->env.has_version(c->env.ctx, version)))
        return ES_OK;
    return dm_version_use(c->store, version, search, job, err);
}

static es_status finish_done(dm_coord *c, dm_lease *l, const dm_job_row *row, const Espalier__Wire__Finish *f,
                             const dm_job_result *r, es_error *why, es_error *err)
{
    dm_search *s = l->search;
    int64_t job = l->job;
    if (s->driver->done) {
        es_status status = s->driver->done(s, row, r, why);
        if (status == ES_INVALID)
            return ES_OK; /* why->code says so: a failed attempt */
        if (status != ES_OK) {
            if (err)
                *err = *why;
            return status;
        }
        why->code = ES_OK;
    }
    dm_job_move_args m = {.id = job,
                          .search = s->id,
                          .from = DM_JOB_RUNNING,
                          .to = DM_JOB_DONE,
                          .why = "result committed",
                          .now_ms = c->wall_ms,
                          .result = f->result.data,
                          .result_bytes = f->result.len};
    ES_RETURN(dm_job_move(c->store, &m, err));
    ES_RETURN(finish_uses(c, s->id, job, r->weights, err));
    for (size_t i = 0; i < r->n_exported; i++)
        ES_RETURN(finish_uses(c, s->id, job, r->exported[i], err));
    ES_RETURN(dm_job_event(c, l, "done", NULL, NULL, err));
    dm_worker_did_well(l->worker);
    l->worker->jobs_done++;
    dm_sched_took(l);
    dm_lease_drop(c, l);
    ES_RETURN(dm_job_done_release(c, s, job, err));
    s->busy = true; /* the driver looks at what it can do now */
    return ES_OK;
}

/* A message that is no answer to the job is a failed attempt. */
static es_status finish_with_result(dm_coord *c, dm_lease *l, const Espalier__Wire__Finish *f, es_error *err)
{
    ProtobufCMessage *base = NULL;
    dm_job_row row;
    es_error why = {.code = ES_OK};
    bool over = true;
    ES_RETURN(dm_job_get(c->store, l->job, &row, err));
    es_status s = ES_OK;
    if (dm_decode(&espalier__wire__job_result__descriptor, f->result.data, f->result.len, &base, &why) == ES_OK) {
        const dm_job_result *r = (const dm_job_result *)base;
        why.code = ES_OK;
        if (dm_kind_trains(row.kind))
            s = dm_slice_finish(c, &(dm_slice){l, &row, r, f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_DONE}, &over,
                                &why, err);
        if (s == ES_OK && why.code == ES_OK && over &&
            (f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_DONE || dm_kind_trains(row.kind)))
            s = finish_done(c, l, &row, f, r, &why, err);
    }
    if (s == ES_OK && why.code != ES_OK) {
        char text[640];
        s = dm_lease_failed(c, l, ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, es_status_name(ES_CORRUPT),
                            es_error_line(&why, text, sizeof text), f->log, err);
    }
    dm_message_free(&base);
    dm_job_row_free(&row);
    return s;
}

static es_status finish_noop(dm_coord *c, dm_lease *l, es_error *err)
{
    dm_job_move_args m = {.id = l->job,
                          .search = l->search->id,
                          .from = DM_JOB_RUNNING,
                          .to = DM_JOB_DONE,
                          .why = "result committed",
                          .now_ms = c->wall_ms};
    ES_RETURN(dm_job_move(c->store, &m, err));
    dm_worker_did_well(l->worker);
    dm_count_end(c, l->kind, DM_END_DONE);
    l->worker->jobs_done++;
    dm_sched_took(l);
    dm_lease_drop(c, l);
    return ES_OK;
}

static es_status finish_current(dm_coord *c, dm_lease *l, const Espalier__Wire__Finish *f, es_error *err)
{
    const char *code = f->error_code && f->error_code[0] ? f->error_code : es_status_name(ES_IO);
    bool handled = false;
    if (l->gang)
        ES_RETURN(dm_gang_finish(c, l, f, &handled, err));
    if (handled)
        return ES_OK;
    switch (f->outcome) {
    case ESPALIER__WIRE__OUTCOME__OUTCOME_DONE:
        return l->kind == ESPALIER__WIRE__JOB_KIND__JOB_NOOP ? finish_noop(c, l, err)
                                                             : finish_with_result(c, l, f, err);
    case ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED:
        l->losses = 0;
        if (f->result.len > 0 && dm_kind_trains(l->kind))
            return finish_with_result(c, l, f, err);
        ES_RETURN(dm_worker_handed_back(c, l, false, err));
        return dm_lease_return(c, l, ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED, "preempted", 0, err);
    case ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED:
        ES_RETURN(dm_worker_handed_back(c, l, false, err));
        return dm_lease_return(c, l, ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED, "the worker stopped it", 0, err);
    case ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED:
        return dm_lease_failed(c, l, ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, code,
                               f->error && f->error[0] ? f->error : "no reason given", f->log, err);
    case ESPALIER__WIRE__OUTCOME__OUTCOME_NONE:
    case _ESPALIER__WIRE__OUTCOME_IS_INT_SIZE: break;
    }
    return dm_lease_failed(c, l, ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, es_status_name(ES_CORRUPT),
                           "the worker named no outcome", f->log, err);
}

/* Whether this very result was accepted before: its answer was lost, and it is acknowledged again. Not so a success of an attempt that ended as failed, from a
 * worker to which the grant came twice, the second time late: it does not count, and is told so. */
static es_status finish_was_accepted(dm_coord *c, int64_t worker, const Espalier__Wire__Finish *f, bool *yes,
                                     es_error *err)
{
    const Espalier__Wire__Lease *lease = f->lease;
    int state;
    int64_t attempt, holder;
    *yes = false;
    es_status s = dm_job_peek(c->store, (int64_t)lease->job, &state, &attempt, &holder, err);
    if (s == ES_NOT_FOUND)
        return ES_OK;
    ES_RETURN(s);
    *yes = state == DM_JOB_DONE && attempt == (int64_t)lease->attempt && holder == worker;
    return *yes ? ES_OK
                : dm_attempt_ended_so(c->store, (int64_t)lease->job, lease->attempt, worker, (int)f->outcome, yes, err);
}

es_status dm_on_finish(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__FinishBatch *m,
                       es_error *err)
{
    dm_worker *w = dm_worker_by_uid(c, &m->worker_uid);
    int64_t worker = w ? w->id : 0;
    if (!w && m->worker_uid.len == 16) { /* not heard since a restart: what it finished before may have been accepted */
        es_status s = dm_worker_find(c->store, m->worker_uid.data, &worker, err);
        if (s != ES_OK && s != ES_NOT_FOUND)
            return s;
    }
    if (w)
        dm_worker_heard(c, w, from);
    Espalier__Wire__FinishReply fr = ESPALIER__WIRE__FINISH_REPLY__INIT;
    Espalier__Wire__Lease **accepted = es_xcalloc(2 * m->n_finish + 1, sizeof *accepted),
                          **stale = accepted + m->n_finish;
    es_status s = ES_OK;
    for (size_t i = 0; i < m->n_finish && s == ES_OK; i++) {
        const Espalier__Wire__Finish *f = m->finish[i];
        if (!f->lease)
            continue;
        dm_lease *l = w ? dm_lease_held(c, w, f->lease) : NULL;
        bool yes = l != NULL;
        if (yes)
            s = finish_current(c, l, f, err);
        else if (w && w->left_job == (int64_t)f->lease->job && w->left_attempt == (int64_t)f->lease->attempt)
            yes = true; /* a rank that gave its slot back says so again */
        else if (worker)
            s = finish_was_accepted(c, worker, f, &yes, err);
        if (yes)
            accepted[fr.n_accepted++] = f->lease;
        else
            stale[fr.n_stale++] = f->lease;
    }
    fr.accepted = accepted;
    fr.stale = stale;
    dm_to_peer reply = DM_TO_PEER(FINISHED, finished, &fr);
    if (s == ES_OK)
        dm_coord_reply(c, from, id, &reply);
    free(accepted);
    return s;
}
