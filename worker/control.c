#include "worker/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "worker/compute.h"
#include "worker/gang.h"
#include "worker/loglines.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

/* One loop, everything by timers that are looked at each turn:
 *
 *     not greeted --Hello every HELLO_MS--> Welcome --> greeted --Heartbeat every heartbeat_ms, Want while slots are free-->
 *          ^                                                |
 *          '-- the coordinator does not know us, or was silent for SILENT_BEATS heartbeats --'
 */
enum {
    HELLO_MS = 1000,
    FINISH_REPEAT_MS = 2000,
    SILENT_BEATS = 4,
    JOBS_MAX = 64,
    FRAMES_PER_TURN = 64,
    BEAT_LOG_BYTES = 2048
};

typedef struct control {
    const wk_options *o;
    kn_device *dev;
    wk_compute *compute;
    dm_peer *peer;
    es_clock *clock;
    uint8_t uid[16];
    char name[256];
    bool greeted, ever_greeted, told_away, draining;
    uint32_t heartbeat_ms;
    int64_t hello_at, heartbeat_at, want_at, heard_ms, drain_until;
    wk_finish *outbox; /* ended, not yet accepted */
} control;

wk_options wk_options_default(void)
{
    return (wk_options){.device = "cpu", .cache_bytes = (uint64_t)2 << 30, .slots = 1, .sessions = 2};
}

static int64_t now_ms(const control *c) { return es_clock_mono_ms(c->clock); }

/* A message that cannot leave now is repeated by its timer; every other failure is final. */
static es_status try_send(control *c, dm_from_peer *m, es_error *err)
{
    m->request_id = dm_peer_next_id(c->peer);
    es_status s = dm_peer_send(c->peer, m, err);
    return s == ES_BUSY ? ES_OK : s;
}

/* Leases held: running, waiting, and finished but not accepted. */
static int held(control *c, wk_progress *out)
{
    int n = wk_compute_jobs(c->compute, out, JOBS_MAX);
    n = n < JOBS_MAX ? n : JOBS_MAX;
    for (const wk_finish *f = c->outbox; f && n < JOBS_MAX; f = f->next)
        out[n++] = (wk_progress){.job = f->job, .attempt = f->attempt};
    return n;
}

static es_status send_hello(control *c, es_error *err)
{
    Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
    wk_progress jobs[JOBS_MAX];
    dm_lease_id lease[JOBS_MAX], *leases[JOBS_MAX];
    int n = held(c, jobs), kinds = 0;
    for (int i = 0; i < n; i++) {
        espalier__wire__lease__init(&lease[i]);
        lease[i].job = jobs[i].job;
        lease[i].attempt = jobs[i].attempt;
        leases[i] = &lease[i];
    }
    const wk_job_kind *table = wk_job_kinds(&kinds);
    Espalier__Wire__JobKind known[32];
    for (int i = 0; i < kinds; i++)
        known[i] = table[i].kind;
    size_t free_bytes = 0, total = 0;
    if (kn_device_memory(c->dev, &free_bytes, &total, NULL) != ES_OK)
        total = 0;
    h.worker_uid = (ProtobufCBinaryData){sizeof c->uid, c->uid};
    h.name = c->name;
    char device[64], model[256];
    snprintf(device, sizeof device, "%s", kn_device_name(c->dev));
    snprintf(model, sizeof model, "%s", kn_device_model(c->dev));
    h.device = device;
    h.machine_kind = model;
    h.memory_bytes = total;
    h.n_kinds = (size_t)kinds;
    h.kinds = known;
    h.n_holding = (size_t)n;
    h.holding = leases;
    h.slots = (uint32_t)c->o->slots;
    return try_send(c, &DM_FROM_PEER(HELLO, hello, &h), err);
}

static es_status send_heartbeat(control *c, es_error *err)
{
    Espalier__Wire__Heartbeat h = ESPALIER__WIRE__HEARTBEAT__INIT;
    wk_progress jobs[JOBS_MAX];
    dm_lease_id lease[JOBS_MAX];
    Espalier__Wire__Progress progress[JOBS_MAX], *list[JOBS_MAX];
    int n = held(c, jobs);
    for (int i = 0; i < n; i++) {
        espalier__wire__lease__init(&lease[i]);
        espalier__wire__progress__init(&progress[i]);
        lease[i].job = jobs[i].job;
        lease[i].attempt = jobs[i].attempt;
        progress[i].lease = &lease[i];
        progress[i].step = jobs[i].step;
        progress[i].steps = jobs[i].steps;
        progress[i].loss = jobs[i].loss;
        progress[i].per_second = jobs[i].per_second;
        list[i] = &progress[i];
    }
    h.worker_uid = (ProtobufCBinaryData){sizeof c->uid, c->uid};
    h.n_progress = (size_t)n;
    h.progress = list;
    char log[BEAT_LOG_BYTES + 1];
    wk_loglines_tail(log, sizeof log);
    h.log = log;
    return try_send(c, &DM_FROM_PEER(HEARTBEAT, heartbeat, &h), err);
}

static es_status send_want(control *c, uint32_t slots, es_error *err)
{
    Espalier__Wire__Want w = ESPALIER__WIRE__WANT__INIT;
    w.worker_uid = (ProtobufCBinaryData){sizeof c->uid, c->uid};
    w.slots = slots;
    return try_send(c, &DM_FROM_PEER(WANT, want, &w), err);
}

static es_status send_goodbye(control *c, es_error *err)
{
    Espalier__Wire__Goodbye g = ESPALIER__WIRE__GOODBYE__INIT;
    g.worker_uid = (ProtobufCBinaryData){sizeof c->uid, c->uid};
    return try_send(c, &DM_FROM_PEER(GOODBYE, goodbye, &g), err);
}

static es_status send_gang_offer(control *c, int64_t now, es_error *err)
{
    Espalier__Wire__GangOffer g = ESPALIER__WIRE__GANG_OFFER__INIT;
    dm_lease_id lease = ESPALIER__WIRE__LEASE__INIT;
    kn_gang_id id;
    if (!wk_compute_offer(c->compute, now, &lease.job, &lease.attempt, &id))
        return ES_OK;
    g.worker_uid = (ProtobufCBinaryData){sizeof c->uid, c->uid};
    g.lease = &lease;
    g.id = (ProtobufCBinaryData){id.n, id.data};
    return try_send(c, &DM_FROM_PEER(GANG_OFFER, gang_offer, &g), err);
}

/* One result a message: a result may be as large as a message. */
static es_status send_finish(control *c, wk_finish *f, es_error *err)
{
    Espalier__Wire__FinishBatch batch = ESPALIER__WIRE__FINISH_BATCH__INIT;
    Espalier__Wire__Finish finish = ESPALIER__WIRE__FINISH__INIT, *list[1] = {&finish};
    dm_lease_id lease = ESPALIER__WIRE__LEASE__INIT;
    char line[700], code[32];
    lease.job = f->job;
    lease.attempt = f->attempt;
    finish.lease = &lease;
    finish.outcome = f->outcome;
    finish.result = (ProtobufCBinaryData){f->result.n, f->result.data};
    if (f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED) {
        snprintf(code, sizeof code, "%s", f->lost_peer ? "lost-peer" : es_status_name(f->error.code));
        es_error_line(&f->error, line, sizeof line);
        finish.error_code = code;
        finish.error = line;
        finish.log = f->log;
    }
    batch.worker_uid = (ProtobufCBinaryData){sizeof c->uid, c->uid};
    batch.n_finish = 1;
    batch.finish = list;
    f->sent_ms = now_ms(c);
    return try_send(c, &DM_FROM_PEER(FINISH, finish, &batch), err);
}

/* ---- what comes in ---- */

static bool outbox_drop(control *c, const dm_lease_id *l)
{
    for (wk_finish **at = &c->outbox; *at; at = &(*at)->next) {
        if ((*at)->job == l->job && (*at)->attempt == l->attempt) {
            wk_finish *f = *at;
            *at = f->next;
            wk_finish_free(f);
            return true;
        }
    }
    return false;
}

static void lease_gone(control *c, const dm_lease_id *l, const char *why)
{
    /* Often an answer about a job whose result was accepted meanwhile: nothing to say then. */
    bool had = wk_compute_stop(c->compute, l->job, l->attempt, WK_CANCEL);
    if (outbox_drop(c, l) || had)
        es_log(ES_LOG_WARN, "lease gone (%s) job=%" PRIu64 " attempt=%u", why, l->job, l->attempt);
}

static void on_welcome(control *c, const Espalier__Wire__Welcome *w)
{
    char *data = dm_peer_data_endpoint(c->o->endpoint, w->data_endpoint);
    es_log(ES_LOG_INFO, "welcome worker=%" PRIu64 " heartbeat_ms=%u data=%s", w->worker, w->heartbeat_ms, data);
    wk_compute_data_endpoint(c->compute, data);
    free(data);
    for (size_t i = 0; i < w->n_lost; i++)
        lease_gone(c, w->lost[i], "lost while away");
    c->heartbeat_ms = w->heartbeat_ms ? w->heartbeat_ms : 1000;
    c->greeted = c->ever_greeted = true;
    c->told_away = false;
    c->heartbeat_at = c->want_at = 0;
    for (wk_finish *f = c->outbox; f; f = f->next)
        f->sent_ms = 0;
}

static void on_leases(control *c, const Espalier__Wire__LeaseBatch *b)
{
    wk_progress jobs[JOBS_MAX];
    for (size_t i = 0; i < b->n_granted; i++) {
        const Espalier__Wire__Granted *g = b->granted[i];
        int n = held(c, jobs);
        bool known = !g->lease;
        for (int k = 0; k < n && !known; k++)
            known = jobs[k].job == g->lease->job && jobs[k].attempt == g->lease->attempt;
        if (known || n >= JOBS_MAX)
            continue; /* heard twice, or more than was asked for: the latter runs out by itself */
        wk_compute_give(c->compute, g);
        if (c->draining)
            wk_compute_stop(c->compute, g->lease->job, g->lease->attempt, WK_PREEMPT);
    }
}

static es_status on_message(control *c, const dm_to_peer *m, es_error *err)
{
    c->heard_ms = now_ms(c);
    switch (m->what_case) {
    case ESPALIER__WIRE__TO_PEER__WHAT_ERROR: {
        es_error e;
        es_status s = dm_error_status(m->error, &e);
        if (s == ES_VERSION || s == ES_DENIED) { /* nothing that waiting would mend */
            *err = e;
            return s;
        }
        es_log_error(ES_LOG_WARN, "the coordinator refused a message", &e);
        return ES_OK;
    }
    case ESPALIER__WIRE__TO_PEER__WHAT_WELCOME: on_welcome(c, m->welcome); return ES_OK;
    case ESPALIER__WIRE__TO_PEER__WHAT_LEASES: on_leases(c, m->leases); return ES_OK;
    case ESPALIER__WIRE__TO_PEER__WHAT_GANG_ID:
        if (m->gang_id->lease)
            wk_compute_gang_id(c->compute, m->gang_id->lease->job, m->gang_id->lease->attempt, m->gang_id->id.data,
                               m->gang_id->id.len);
        return ES_OK;
    case ESPALIER__WIRE__TO_PEER__WHAT_HEARTBEAT:
        if (m->heartbeat->unknown_worker && c->greeted) {
            es_log(ES_LOG_INFO, "the coordinator does not know this worker (it was restarted): greeting again");
            c->greeted = false;
            c->hello_at = 0;
        }
        for (size_t i = 0; i < m->heartbeat->n_stop; i++)
            lease_gone(c, m->heartbeat->stop[i], "stopped by the coordinator");
        for (size_t i = 0; i < m->heartbeat->n_preempt; i++)
            wk_compute_stop(c->compute, m->heartbeat->preempt[i]->job, m->heartbeat->preempt[i]->attempt, WK_PREEMPT);
        return ES_OK;
    case ESPALIER__WIRE__TO_PEER__WHAT_FINISHED:
        for (size_t i = 0; i < m->finished->n_accepted; i++)
            outbox_drop(c, m->finished->accepted[i]);
        for (size_t i = 0; i < m->finished->n_stale; i++)
            lease_gone(c, m->finished->stale[i], "the result came too late");
        return ES_OK;
    default: return ES_OK; /* answers that only clients ask for */
    }
}

static es_status receive(control *c, es_error *err)
{
    for (int i = 0; i < FRAMES_PER_TURN; i++) {
        dm_to_peer *m = NULL;
        es_error e;
        es_status s = dm_peer_recv(c->peer, 0, &m, &e);
        if (s == ES_TIMEOUT)
            return ES_OK;
        if (s == ES_CORRUPT) {
            es_log_error(ES_LOG_WARN, "message dropped", &e);
            continue;
        }
        if (s != ES_OK) {
            *err = e;
            return s;
        }
        s = on_message(c, m, err);
        dm_to_peer_free(&m);
        ES_RETURN(s);
    }
    return ES_OK;
}

/* ---- timers ---- */

static es_status tick_greeting(control *c, int64_t now, es_error *err)
{
    es_error why;
    es_status refused = dm_peer_refused(c->peer, &why);
    if (refused == ES_DENIED && !c->ever_greeted) { /* nothing that waiting would mend; once welcome, it may be again */
        *err = why;
        return refused;
    }
    if (!c->told_away && refused != ES_OK) {
        c->told_away = true;
        es_log_error(ES_LOG_WARN, "not let in, still trying", &why);
    }
    if (!c->told_away && now - c->heard_ms > 5000) {
        c->told_away = true;
        es_log(ES_LOG_WARN, "no answer from %s: still trying", c->o->endpoint);
    }
    if (now < c->hello_at)
        return ES_OK;
    c->hello_at = now + HELLO_MS;
    return send_hello(c, err);
}

static es_status tick_greeted(control *c, int64_t now, es_error *err)
{
    if (now - c->heard_ms > (int64_t)c->heartbeat_ms * SILENT_BEATS) {
        es_log(ES_LOG_WARN, "the coordinator has been silent for %" PRId64 " ms: greeting again", now - c->heard_ms);
        c->greeted = false;
        c->hello_at = 0;
        return ES_OK;
    }
    if (now >= c->heartbeat_at) {
        c->heartbeat_at = now + c->heartbeat_ms;
        ES_RETURN(send_heartbeat(c, err));
    }
    ES_RETURN(send_gang_offer(c, now, err));
    for (wk_finish *f = c->outbox; f; f = f->next)
        if (!f->sent_ms || now - f->sent_ms >= FINISH_REPEAT_MS)
            ES_RETURN(send_finish(c, f, err));
    wk_progress jobs[JOBS_MAX];
    int busy = wk_compute_jobs(c->compute, jobs, JOBS_MAX), unsent = 0;
    for (const wk_finish *f = c->outbox; f; f = f->next)
        unsent++;
    /* Results go first: with more than a slot's worth waiting to be accepted, no new work is asked for. */
    if (!c->draining && busy < c->o->slots && unsent <= c->o->slots && now >= c->want_at) {
        c->want_at = now + c->heartbeat_ms;
        ES_RETURN(send_want(c, (uint32_t)(c->o->slots - busy), err));
    }
    return ES_OK;
}

static void take_finished(control *c)
{
    for (wk_finish *f; (f = wk_compute_take(c->compute));) {
        wk_finish **end = &c->outbox;
        while (*end)
            end = &(*end)->next;
        *end = f;
        c->want_at = 0;
    }
}

static es_status on_stop(control *c, int fd, es_error *err)
{
    uint64_t count;
    if (read(fd, &count, sizeof count) != (ssize_t)sizeof count)
        return ES_OK;
    if (c->draining || count > 1)
        return es_fail(err, ES_CANCELLED, "worker",
                       "ended by a second signal; the job in hand is given to another worker later");
    es_log(ES_LOG_INFO, "told to stop: handing back after the current step");
    c->draining = true;
    c->drain_until = now_ms(c) + WK_DRAIN_MS;
    wk_compute_stop_all(c->compute, WK_PREEMPT);
    return ES_OK;
}

static bool drained(control *c)
{
    wk_progress jobs[JOBS_MAX];
    return c->draining && !c->outbox && wk_compute_jobs(c->compute, jobs, JOBS_MAX) == 0;
}

static es_status loop(control *c, int stop, es_error *err)
{
    zmq_pollitem_t items[3] = {
        {.socket = dm_peer_socket(c->peer), .events = ZMQ_POLLIN},
        {.fd = wk_compute_fd(c->compute), .events = ZMQ_POLLIN},
        {.fd = stop, .events = ZMQ_POLLIN},
    };
    c->heard_ms = now_ms(c);
    while (!drained(c)) {
        int64_t now = now_ms(c);
        if (c->draining && now > c->drain_until && (!c->greeted || now > c->drain_until + WK_DRAIN_GREETED_MS)) {
            es_log(ES_LOG_WARN, "leaving without an answer: the job in hand is given to another worker later");
            return ES_OK;
        }
        ES_RETURN(c->greeted ? tick_greeted(c, now, err) : tick_greeting(c, now, err));
        if (zmq_poll(items, 3, 50) < 0 && errno != EINTR)
            return es_fail_errno(err, c->o->endpoint, "cannot wait for messages");
        if (items[2].revents)
            ES_RETURN(on_stop(c, stop, err));
        take_finished(c);
        ES_RETURN(receive(c, err));
    }
    return c->greeted ? send_goodbye(c, err) : ES_OK;
}

es_status wk_run(const wk_options *o, int stop, es_error *err)
{
    es_status s = ES_OK;
    wk_cache *cache = NULL;
    dm_login login;
    char address[64];
    control c = {.o = o, .clock = es_clock_system(), .heartbeat_ms = 1000};
    ES_GOTO(dm_endpoint_check(o->endpoint, err));
    ES_GOTO(kn_device_open(o->device, &c.dev, err));
    ES_GOTO(dm_login_find(o->endpoint, &(dm_keys_where){.role = DM_ROLE_WORKER, .key = o->key, .server = o->server_key},
                          o->insecure, &login, err));
    if (o->cache)
        ES_GOTO(wk_cache_open(o->cache, o->cache_bytes, &cache, err));
    ES_GOTO(wk_gang_address(o->address, o->endpoint, address, sizeof address, err));
    const wk_compute_options compute = {.dev = c.dev,
                                        .device = o->device,
                                        .lanes = o->slots,
                                        .cache = cache,
                                        .sessions = o->sessions,
                                        .login = &login,
                                        .address = address};
    ES_GOTO(wk_compute_start(&compute, &c.compute, err));
    ES_GOTO(dm_peer_open(&(dm_peer_options){.endpoint = o->endpoint, .login = &login}, &c.peer, err));
    randombytes_buf(c.uid, sizeof c.uid);
    char host[128] = "host";
    gethostname(host, sizeof host - 1);
    if (o->name)
        snprintf(c.name, sizeof c.name, "%s", o->name);
    else
        snprintf(c.name, sizeof c.name, "%s:%d:%s", host, (int)getpid(), kn_device_name(c.dev));
    es_log(ES_LOG_INFO, "worker %s on %s, coordinator %s", c.name, kn_device_model(c.dev), o->endpoint);
    ES_GOTO(loop(&c, stop, err));
fail:
    for (wk_finish *f; (f = c.outbox);) {
        c.outbox = f->next;
        wk_finish_free(f);
    }
    dm_peer_close(&c.peer);
    wk_compute_end(&c.compute);
    wk_cache_close(&cache);
    kn_device_close(&c.dev);
    return s;
}
