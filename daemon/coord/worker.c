#include "daemon/coord/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/failure.h"
#include "daemon/coord/fair.h"
#include "daemon/coord/gang.h"
#include "daemon/coord/sched.h"
#include "daemon/coord/search.h"
#include "daemon/coord/turn.h"

enum { FORGET_MS = 600000 }; /* a worker silent for so long, holding nothing, is forgotten */

static uint64_t uid_key(const uint8_t uid[16])
{
    uint64_t k;
    memcpy(&k, uid, sizeof k);
    return k ? k : 1;
}

dm_worker *dm_worker_by_uid(dm_coord *c, const ProtobufCBinaryData *uid)
{
    if (uid->len != 16)
        return NULL;
    dm_worker *w = es_map_get(&c->worker_uids, uid_key(uid->data));
    return w && memcmp(w->uid, uid->data, 16) == 0 ? w : NULL;
}

void dm_worker_heard(dm_coord *c, dm_worker *w, const dm_addr *from)
{
    w->addr = *from; /* a connection that came back has a new address */
    w->heard_ms = c->now_ms;
    c->fleet_changed = c->fleet_changed || !w->online;
    w->online = true;
}

static void worker_unqueue(dm_coord *c, dm_worker *w)
{
    if (!w->wanting)
        return;
    *(w->want_prev ? &w->want_prev->want_next : &c->want_first) = w->want_next;
    *(w->want_next ? &w->want_next->want_prev : &c->want_last) = w->want_prev;
    w->want_prev = w->want_next = NULL;
    w->wanting = false;
}

void dm_worker_want(dm_coord *c, dm_worker *w, uint32_t want, uint64_t id)
{
    w->want = want;
    if (want == 0 || w->drained[0]) {
        worker_unqueue(c, w);
        return;
    }
    w->want_id = id;
    c->dirty = true;
    if (w->wanting)
        return;
    w->wanting = true;
    w->want_prev = c->want_last;
    w->want_next = NULL;
    *(c->want_last ? &c->want_last->want_next : &c->want_first) = w;
    c->want_last = w;
}

/* ---- leases in memory */

dm_lease *dm_lease_link(dm_coord *c, dm_search *s, dm_worker *w, const dm_ready *r, int64_t attempt)
{
    dm_lease *l = es_xcalloc(1, sizeof *l);
    l->job = r->id;
    l->attempt = attempt;
    l->kind = r->kind;
    l->failures = r->failures;
    l->losses = r->losses;
    l->memory_bytes = r->memory_bytes;
    l->search = s;
    l->worker = w;
    l->heard_ms = l->began_ms = c->now_ms;
    l->leased_ms = c->wall_ms;
    l->next = w->leases;
    if (w->leases)
        w->leases->prev = l;
    w->leases = l;
    if (w->held++ == 0)
        w->busy_since_ms = c->now_ms;
    w->memory_used += l->memory_bytes;
    s->running++;
    dm_fair_charge(l);
    return l;
}

void dm_lease_unlink(dm_coord *c, dm_lease *l)
{
    dm_fair_settle(l);
    *(l->prev ? &l->prev->next : &l->worker->leases) = l->next;
    if (l->next)
        l->next->prev = l->prev;
    if (--l->worker->held == 0)
        l->worker->busy_ms += c->now_ms - l->worker->busy_since_ms;
    l->worker->memory_used -= l->memory_bytes;
    l->search->running--;
    free(l);
    c->dirty = true;
}

dm_lease *dm_lease_add(dm_coord *c, dm_search *s, dm_worker *w, const dm_ready *r, int64_t attempt)
{
    dm_lease *l = dm_lease_link(c, s, w, r, attempt);
    es_map_put(&c->leases, (uint64_t)l->job, l);
    return l;
}

dm_lease *dm_lease_held(const dm_coord *c, const dm_worker *w, const dm_lease_id *id)
{
    dm_lease *l = es_map_get(&c->leases, id->job);
    if (l && l->gang && l->worker != w) {
        dm_gang *g = l->gang;
        l = NULL;
        for (int i = 0; i < g->size && !l; i++)
            if (g->rank[i] && g->rank[i]->worker == w)
                l = g->rank[i];
    }
    return l && l->worker == w && l->attempt == (int64_t)id->attempt ? l : NULL;
}

dm_ready dm_lease_ready(const dm_lease *l)
{
    return (dm_ready){.id = l->job,
                      .attempt = l->attempt,
                      .memory_bytes = l->memory_bytes,
                      .kind = l->kind,
                      .failures = l->failures,
                      .losses = l->losses};
}

void dm_lease_preempt(dm_lease *l, bool yes)
{
    l->preempt = yes;
    for (int i = 0; l->gang && i < l->gang->size; i++)
        if (l->gang->rank[i])
            l->gang->rank[i]->preempt = yes;
}

void dm_lease_drop(dm_coord *c, dm_lease *l)
{
    es_map_remove(&c->leases, (uint64_t)l->job);
    if (l->gang)
        dm_gang_drop(c, l->gang);
    else
        dm_lease_unlink(c, l);
}

es_status dm_lease_return(dm_coord *c, dm_lease *l, int outcome, const char *why, int64_t not_before_ms, es_error *err)
{
    dm_attempt_row a = {.job = l->job,
                        .attempt = l->attempt,
                        .worker = l->worker->id,
                        .outcome = outcome,
                        .leased_ms = l->leased_ms,
                        .ended_ms = c->wall_ms,
                        .error = why};
    dm_job_move_args m = {.id = l->job,
                          .search = l->search->id,
                          .from = DM_JOB_RUNNING,
                          .to = DM_JOB_READY,
                          .why = why,
                          .failures = l->failures,
                          .losses = l->losses,
                          .not_before_ms = not_before_ms};
    ES_RETURN(dm_attempt_insert(c->store, &a, err));
    ES_RETURN(dm_job_move(c->store, &m, err));
    dm_ready again = dm_lease_ready(l);
    dm_search *s = l->search;
    dm_lease_drop(c, l);
    if (not_before_ms > c->wall_ms)
        dm_sched_later(s, not_before_ms);
    else
        dm_sched_added(s, &again);
    return ES_OK;
}

/* ---- workers in memory */

static void worker_free(dm_coord *c, dm_worker *w)
{
    c->fleet_changed = true;
    worker_unqueue(c, w);
    es_map_remove(&c->workers, (uint64_t)w->id);
    es_map_remove(&c->worker_uids, uid_key(w->uid));
    free(w->log);
    free(w);
}

void dm_workers_free(dm_coord *c)
{
    dm_lease *l;
    dm_worker *w;
    for (size_t i = 0; (l = es_map_next(&c->leases, &i)) != NULL;)
        dm_lease_drop(c, l);
    es_map_free(&c->leases);
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;) {
        free(w->log);
        free(w);
    }
    es_map_free(&c->workers);
    es_map_free(&c->worker_uids);
    c->want_first = c->want_last = NULL;
}

static dm_worker *worker_new(dm_coord *c, const dm_worker_row *r)
{
    dm_worker *w = es_xcalloc(1, sizeof *w);
    w->id = r->id;
    memcpy(w->uid, r->uid, sizeof w->uid);
    snprintf(w->name, sizeof w->name, "%s", r->name);
    snprintf(w->device, sizeof w->device, "%s", r->device);
    snprintf(w->machine_kind, sizeof w->machine_kind, "%s", r->machine_kind);
    snprintf(w->drained, sizeof w->drained, "%s", r->drained ? r->drained : "");
    w->memory_bytes = (uint64_t)r->memory_bytes;
    w->heard_ms = c->now_ms;
    es_map_put(&c->workers, (uint64_t)w->id, w);
    es_map_put(&c->worker_uids, uid_key(w->uid), w);
    return w;
}

typedef struct load_context {
    dm_coord *c;
    es_error *err;
    es_status status;
    struct running {
        int64_t search, worker, leased_ms;
        dm_ready job;
    } * rows;
    int n, cap;
} load_context;

static bool load_row(void *ctx, const dm_job_row *r)
{
    load_context *x = ctx;
    if (x->n == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 64;
        x->rows = es_xrealloc(x->rows, (size_t)x->cap * sizeof *x->rows);
    }
    x->rows[x->n++] = (struct running){.search = r->search,
                                       .worker = r->worker,
                                       .leased_ms = r->leased_ms,
                                       .job = {.id = r->id,
                                               .attempt = r->attempt,
                                               .memory_bytes = r->memory_bytes,
                                               .kind = r->kind,
                                               .failures = r->failures,
                                               .losses = r->losses}};
    return true;
}

dm_worker *dm_worker_load(dm_coord *c, int64_t job, int64_t id, es_status *status, es_error *err)
{
    dm_worker_row row;
    dm_worker_text text;
    dm_worker *w = es_map_get(&c->workers, (uint64_t)id);
    *status = ES_OK;
    if (w)
        return w;
    *status = dm_worker_get(c->store, id, &row, &text, err);
    if (*status == ES_NOT_FOUND)
        *status = es_fail(err, ES_CORRUPT, c->state_path,
                          "job %" PRId64 " runs on worker %" PRId64 ", which does not exist", job, id);
    return *status == ES_OK ? worker_new(c, &row) : NULL;
}

/* Running jobs keep their leases over a restart: their workers have a whole lease time to be heard again. */
es_status dm_leases_load(dm_coord *c, es_error *err)
{
    load_context x = {.c = c, .err = err};
    es_status s = ES_OK;
    ES_GOTO(dm_job_each_running(c->store, load_row, &x, err));
    for (int i = 0; i < x.n; i++) {
        const struct running *r = &x.rows[i];
        dm_search *search = dm_search_find(c, r->search);
        if (!search || (search->state != DM_SEARCH_RUNNING && search->state != DM_SEARCH_PAUSED)) {
            /* It ended while it was read. A failed one may be retried: its job waits for that; of others the sweep cancels it. */
            dm_job_move_args m = {.id = r->job.id,
                                  .search = r->search,
                                  .from = DM_JOB_RUNNING,
                                  .to = DM_JOB_READY,
                                  .why = "its search ended",
                                  .failures = r->job.failures,
                                  .losses = r->job.losses};
            ES_GOTO(dm_job_move(c->store, &m, err));
            continue;
        }
        bool gang = false;
        if (dm_gang_size(search, r->job.kind) > 1)
            ES_GOTO(dm_gang_load(c, search, &r->job, r->leased_ms, &gang, err));
        if (gang)
            continue;
        dm_worker *w = dm_worker_load(c, r->job.id, r->worker, &s, err);
        if (!w)
            goto fail;
        dm_lease_add(c, search, w, &r->job, r->job.attempt)->leased_ms = r->leased_ms;
    }
fail:
    free(x.rows);
    return s;
}

static es_status worker_event(dm_coord *c, const dm_worker *w, const char *state, const char *why, es_error *err)
{
    dm_event e;
    es_json *j = dm_event_begin(c, &e, "worker", NULL, 0, true);
    es_json_i64(j, "worker", w->id);
    es_json_str(j, "name", w->name);
    es_json_str(j, "device", w->device);
    es_json_str(j, "state", state);
    es_json_str(j, "reason", why);
    return dm_event_end(c, &e, err);
}

es_status dm_worker_drain(dm_coord *c, dm_worker *w, const char *why, es_error *err)
{
    snprintf(w->drained, sizeof w->drained, "%s", why);
    c->fleet_changed = true;
    es_log(ES_LOG_WARN, "worker=%" PRId64 " drained: %s", w->id, w->drained);
    dm_worker_want(c, w, 0, 0);
    ES_RETURN(worker_event(c, w, "drained", w->drained, err));
    return dm_worker_set_drained(c->store, w->id, w->drained, err);
}

/* ---- messages */

static const char *field(const char *text) { return text ? text : ""; }

static bool hello_valid(const Espalier__Wire__Hello *m, es_error *why)
{
    if (m->worker_uid.len != 16)
        es_fail(why, ES_INVALID, "hello.worker_uid", "has %zu bytes, must have 16", m->worker_uid.len);
    else if (m->slots < 1 || m->slots > DM_SLOTS_MAX)
        es_fail(why, ES_INVALID, "hello.slots", "is %u, allowed are 1 to %d", m->slots, DM_SLOTS_MAX);
    else if (strlen(field(m->name)) > 120 || strlen(field(m->device)) > 30 || strlen(field(m->machine_kind)) > 120)
        es_fail(why, ES_INVALID, "hello", "name, device or machine_kind is too long (120, 30, 120 bytes)");
    else if (m->n_kinds == 0)
        es_fail(why, ES_INVALID, "hello.kinds", "is empty: the worker can do nothing");
    else
        return true;
    return false;
}

static void hello_answer(dm_coord *c, const dm_addr *from, uint64_t id, dm_worker *w, const Espalier__Wire__Hello *m)
{
    Espalier__Wire__Welcome wel = ESPALIER__WIRE__WELCOME__INIT;
    Espalier__Wire__Lease **lost = es_xcalloc(m->n_holding + 1, sizeof *lost);
    for (size_t i = 0; i < m->n_holding; i++) {
        dm_lease *l = dm_lease_held(c, w, m->holding[i]);
        if (l) {
            l->heard_ms = c->now_ms;
            l->confirmed = true;
        } else {
            lost[wel.n_lost++] = m->holding[i];
        }
    }
    wel.worker = (uint64_t)w->id;
    wel.heartbeat_ms = (uint32_t)c->o.heartbeat_ms;
    wel.lease_ms = (uint32_t)c->o.lease_ms;
    wel.data_endpoint = c->data_endpoint;
    wel.lost = lost;
    dm_coord_reply(c, from, id, &DM_TO_PEER(WELCOME, welcome, &wel));
    for (size_t i = 0; i < m->n_holding; i++) {
        const dm_lease *l = dm_lease_held(c, w, m->holding[i]);
        if (l)
            dm_gang_send_id(c, l);
    }
    free(lost);
}

es_status dm_on_hello(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Hello *m, es_error *err)
{
    es_error why;
    if (!hello_valid(m, &why))
        return dm_coord_refused(c, from, id, &why);
    dm_worker *w = dm_worker_by_uid(c, &m->worker_uid);
    if (!w) {
        char name[DM_KEY_NAME_MAX + 124]; /* whose worker it is comes first: the rest it says itself */
        snprintf(name, sizeof name, "%s%s%s", c->who.name, c->who.name[0] ? "/" : "", field(m->name));
        dm_worker_row r = {.name = name,
                           .device = field(m->device),
                           .machine_kind = field(m->machine_kind),
                           .memory_bytes = (int64_t)m->memory_bytes,
                           .first_seen_ms = c->wall_ms};
        memcpy(r.uid, m->worker_uid.data, 16);
        if (es_map_get(&c->worker_uids, uid_key(r.uid))) {
            es_fail(&why, ES_EXISTS, "hello.worker_uid", "looks like another worker's: choose 16 random bytes");
            return dm_coord_refused(c, from, id, &why);
        }
        ES_RETURN(dm_worker_upsert(c->store, &r, err));
        dm_worker_text text;
        ES_RETURN(dm_worker_get(c->store, r.id, &r, &text, err));
        w = worker_new(c, &r);
    }
    bool was_online = w->online;
    dm_worker_heard(c, w, from);
    w->slots = m->slots;
    c->fleet_changed = true;
    w->kinds = 0;
    for (size_t i = 0; i < m->n_kinds; i++)
        if ((int)m->kinds[i] > 0 && (int)m->kinds[i] < 32)
            w->kinds |= 1u << m->kinds[i];
    hello_answer(c, from, id, w, m);
    return was_online ? ES_OK : worker_event(c, w, "idle", "joined", err);
}

void dm_worker_tell_unknown(dm_coord *c, const dm_addr *to, uint64_t id)
{
    Espalier__Wire__HeartbeatReply h = ESPALIER__WIRE__HEARTBEAT_REPLY__INIT;
    h.unknown_worker = true;
    dm_coord_reply(c, to, id, &DM_TO_PEER(HEARTBEAT, heartbeat, &h));
}

static es_status progress_event(dm_coord *c, const dm_lease *l, es_error *err)
{
    dm_event e;
    es_json *j = dm_event_begin(c, &e, "progress", l->search, l->job, false);
    es_json_str(j, "job_kind", dm_job_kind_name(l->kind));
    es_json_str(j, "worker", l->worker->name);
    es_json_i64(j, "step", (int64_t)l->step);
    es_json_i64(j, "steps", (int64_t)l->steps);
    es_json_f64(j, "loss", l->loss);
    es_json_f64(j, "per_second", l->per_second);
    return dm_event_end(c, &e, err);
}

/* What a heartbeat says of one lease that its worker holds. */
static es_status lease_heard(dm_coord *c, dm_lease *l, const Espalier__Wire__Progress *p, es_error *err)
{
    bool moved = p->step != l->step;
    if (p->step == 0)
        dm_gang_send_id(c, l);
    l->step = p->step;
    l->steps = p->steps;
    l->loss = p->loss;
    l->per_second = p->per_second;
    return moved ? progress_event(c, l, err) : ES_OK;
}

es_status dm_on_heartbeat(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Heartbeat *m,
                          es_error *err)
{
    dm_worker *w = dm_worker_by_uid(c, &m->worker_uid);
    if (!w || w->slots == 0) { /* slots 0: known from its leases only, since a restart */
        dm_worker_tell_unknown(c, from, id);
        return ES_OK;
    }
    dm_worker_heard(c, w, from);
    if (m->log && m->log[0] && strlen(m->log) <= DM_BEAT_LOG_MAX) {
        free(w->log);
        w->log = es_xstrdup(m->log);
    }
    Espalier__Wire__HeartbeatReply h = ESPALIER__WIRE__HEARTBEAT_REPLY__INIT;
    h.stop = es_xcalloc(m->n_progress * 2 + 1, sizeof *h.stop);
    h.preempt = h.stop + m->n_progress;
    es_status s = ES_OK;
    for (size_t i = 0; i < m->n_progress && s == ES_OK; i++) {
        const Espalier__Wire__Progress *p = m->progress[i];
        if (!p->lease)
            continue;
        dm_lease *l = dm_lease_held(c, w, p->lease);
        if (l) {
            l->heard_ms = c->now_ms;
            l->confirmed = true;
        }
        if (!l || (l->gang && l->gang->broken)) {
            h.stop[h.n_stop++] = p->lease;
            continue;
        }
        if (l->preempt)
            h.preempt[h.n_preempt++] = p->lease;
        s = lease_heard(c, l, p, err);
    }
    if (s == ES_OK && (id != 0 || h.n_stop || h.n_preempt))
        dm_coord_reply(c, from, id, &DM_TO_PEER(HEARTBEAT, heartbeat, &h));
    free(h.stop);
    return s;
}

static es_status worker_return_all(dm_coord *c, dm_worker *w, int outcome, const char *why, es_error *err)
{
    while (w->leases)
        ES_RETURN(dm_lease_return(c, w->leases, outcome, why, 0, err));
    return ES_OK;
}

es_status dm_on_goodbye(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Goodbye *m, es_error *err)
{
    dm_worker *w = dm_worker_by_uid(c, &m->worker_uid);
    if (w) {
        ES_RETURN(worker_return_all(c, w, ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED, "the worker left", err));
        ES_RETURN(worker_event(c, w, "away", "said goodbye", err));
        ES_RETURN(dm_worker_seen(c->store, w->id, c->wall_ms, err));
        worker_free(c, w);
    }
    Espalier__Wire__Done d = ESPALIER__WIRE__DONE__INIT;
    dm_coord_reply(c, from, id, &DM_TO_PEER(DONE, done, &d));
    return ES_OK;
}

/* ---- silence */

static dm_lease *worker_expired_lease(const dm_coord *c, const dm_worker *w)
{
    dm_lease *l = w->leases;
    while (l && c->now_ms - l->heard_ms <= c->o.lease_ms)
        l = l->next;
    return l;
}

/* What is known of the end: how far it was, and the last lines of its worker. */
static es_status lease_vanished(dm_coord *c, dm_lease *l, es_error *err)
{
    char log[DM_BEAT_LOG_MAX + 100];
    snprintf(log, sizeof log, "%s[%s: at step %" PRIu64 " when last heard]\n", l->worker->log ? l->worker->log : "",
             l->worker->name, l->step);
    return dm_lease_failed(c, l, DM_OUTCOME_LOST, "lost", "the worker was not heard for the whole lease time", log,
                           err);
}

es_status dm_workers_expire(dm_coord *c, es_error *err)
{
    dm_worker *w;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;) {
        for (dm_lease *l; (l = worker_expired_lease(c, w)) != NULL;) {
            bool silent = c->now_ms - w->heard_ms > c->o.lease_ms;
            es_log(ES_LOG_WARN, "lease lost job=%" PRId64 " attempt=%" PRId64 " worker=%" PRId64, l->job, l->attempt,
                   w->id);
            if (silent) { /* the worker may have died of it; a lease it merely never got is nobody's fault */
                l->losses++;
                ES_RETURN(lease_vanished(c, l, err));
            } else {
                ES_RETURN(dm_lease_return(c, l, DM_OUTCOME_LOST, "the lease did not reach its worker", 0, err));
            }
        }
        if (w->online && c->now_ms - w->heard_ms > c->o.lease_ms) {
            w->online = false;
            c->fleet_changed = true;
            dm_worker_want(c, w, 0, 0);
            ES_RETURN(worker_event(c, w, "away", "silent for the whole lease time", err));
        }
        if (!w->leases && c->now_ms - w->heard_ms > FORGET_MS + c->o.lease_ms) {
            ES_RETURN(dm_worker_seen(c->store, w->id, c->wall_ms - (c->now_ms - w->heard_ms), err));
            worker_free(c, w);
        }
    }
    return ES_OK;
}

/* ---- asking for work */

es_status dm_on_want(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Want *m, es_error *err)
{
    dm_worker *w = dm_worker_by_uid(c, &m->worker_uid);
    if (!w || w->slots == 0) {
        dm_worker_tell_unknown(c, from, id);
        return ES_OK;
    }
    dm_worker_heard(c, w, from);
    if (w->drained[0]) {
        es_error why;
        es_fail(&why, ES_DENIED, w->name, "this worker gets no more work: %s", w->drained);
        return dm_coord_refused(c, from, id, &why);
    }
    /* A worker of k slots that wants n more holds at most k - n. What we count above that it never heard of: those answers were lost and are given again. */
    uint32_t n = m->slots < w->slots ? m->slots : w->slots, again = 0;
    if (w->held + n > w->slots)
        ES_RETURN(dm_sched_send_again(c, w, w->held + n - w->slots, id, &again, err));
    uint32_t room = w->slots > w->held ? w->slots - w->held : 0;
    n -= again < n ? again : n;
    dm_worker_want(c, w, n < room ? n : room, id);
    return ES_OK;
}
