#include "worker/compute.h"

#include "base/clock.h"
#include "base/log.h"
#include "worker/gang.h"
#include "worker/loglines.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RESULT_MAX = DM_CONTROL_MAX - (64 << 10), OFFER_REPEAT_MS = 500 };

typedef struct task {
    struct task *next;
    wk_compute *owner;
    uint64_t job, search;
    uint32_t attempt;
    Espalier__Wire__JobKind kind;
    uint8_t *spec;
    size_t spec_n;
    int rank, size;       /* of a gang */
    _Atomic int stop;     /* wk_stop */
    wk_progress progress; /* under the lock, as what follows */
    kn_gang_id offer, id; /* n 0: none yet */
    int64_t offered_ms;
} task;

struct wk_compute {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, met;
    const char *address;
    int event;
    kn_device *dev;
    wk_cache *cache;
    const dm_login *login;
    int sessions_max;
    /* under the lock */
    char *data_endpoint;
    task *running, *waiting;
    wk_finish *finished, **finished_end;
    bool ending;
    /* the compute thread's own */
    wk_sessions *sessions;
    dm_peer *data;
};

void wk_finish_free(wk_finish *f)
{
    if (!f)
        return;
    free(f->result.data);
    free(f->log);
    free(f);
}

static void task_free(task *t)
{
    free(t->spec);
    free(t);
}

/* ---- the compute thread ---- */

static wk_stop task_stop(void *ctx) { return (wk_stop)atomic_load(&((task *)ctx)->stop); }
static bool transfer_stop(void *ctx) { return task_stop(ctx) == WK_CANCEL; }

static void task_tell(void *ctx, uint64_t step, uint64_t steps, double loss, double per_second)
{
    task *t = ctx;
    pthread_mutex_lock(&t->owner->lock);
    t->progress.step = step;
    t->progress.steps = steps;
    t->progress.loss = loss;
    t->progress.per_second = per_second;
    pthread_mutex_unlock(&t->owner->lock);
}

static es_status task_gang_id(void *ctx, const kn_gang_id *offer, kn_gang_id *out, es_error *err)
{
    task *t = ctx;
    wk_compute *c = t->owner;
    es_status s = ES_OK;
    int64_t began = es_clock_mono_ms(es_clock_system());
    pthread_mutex_lock(&c->lock);
    if (offer) {
        uint64_t one = 1;
        t->offer = *out = *offer;
        if (write(c->event, &one, sizeof one) < 0) /* the control thread sends it */
            es_log(ES_LOG_WARN, "eventfd: cannot write");
    }
    while (!offer && t->id.n == 0 && s == ES_OK) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&c->met, &c->lock, &until);
        if (task_stop(t) == WK_CANCEL)
            s = es_fail(err, ES_CANCELLED, "gang", "stopped while waiting for rank 0");
        else if (es_clock_mono_ms(es_clock_system()) - began > WK_GANG_LIMIT_MS)
            s = es_fail(err, ES_TIMEOUT, "gang", "rank %d of %d: rank 0 was not heard of for %d s", t->rank, t->size,
                        WK_GANG_LIMIT_MS / 1000);
    }
    if (!offer && s == ES_OK)
        *out = t->id;
    pthread_mutex_unlock(&c->lock);
    return s;
}

/* The weights connection, to where the coordinator last said. */
static es_status open_data(wk_compute *c, es_error *err)
{
    pthread_mutex_lock(&c->lock);
    char *endpoint = es_xstrdup(c->data_endpoint ? c->data_endpoint : "");
    pthread_mutex_unlock(&c->lock);
    es_status s = ES_OK;
    if (c->data && strcmp(dm_peer_endpoint(c->data), endpoint) != 0)
        dm_peer_close(&c->data);
    if (!c->data)
        s = dm_peer_open(&(dm_peer_options){.endpoint = endpoint, .frame_max = DM_DATA_MAX, .login = c->login},
                         &c->data, err);
    free(endpoint);
    return s;
}

static es_status run_task(wk_compute *c, task *t, const dm_job_spec *spec, es_arena *arena, wk_finish *f, es_error *err)
{
    const wk_job_kind *kind = wk_job_find(t->kind);
    if (!kind)
        return es_fail(err, ES_UNSUPPORTED, NULL, "this worker knows no jobs of kind %d", (int)t->kind);
    ES_RETURN(open_data(c, err));
    wk_job j = {
        .id = t->job,
        .search = t->search,
        .attempt = t->attempt,
        .spec = spec,
        .dev = c->dev,
        .sessions = c->sessions,
        .data = c->data,
        .transfer = {.stop = transfer_stop, .ctx = t, .cache = wk_cache_chunks(c->cache)},
        .arena = arena,
        .rank = t->rank,
        .size = t->size,
        .address = c->address,
        .ctx = t,
        .stop = task_stop,
        .tell = task_tell,
        .gang_id = task_gang_id,
    };
    dm_job_result r = ESPALIER__WIRE__JOB_RESULT__INIT;
    /* A rank does not stay away from its gang: told to hand back, it joins, and all stop after one step. */
    if (task_stop(t) == WK_CANCEL || (task_stop(t) != WK_GO && t->size == 1))
        return es_fail(err, ES_CANCELLED, NULL, "stopped before it began");
    es_log(ES_LOG_INFO, "job begins job=%" PRIu64 " attempt=%u search=%" PRIu64 " kind=%s", t->job, t->attempt,
           t->search, dm_job_kind_name((int)kind->kind));
    if (t->size > 1)
        es_log(ES_LOG_INFO, "gang job=%" PRIu64 " attempt=%u rank=%d of %d", t->job, t->attempt, t->rank, t->size);
    es_status s = kind->run(&j, &r, err);
    f->lost_peer = j.lost_peer;
    ES_RETURN(s);
    ES_RETURN(dm_encode(&r.base, RESULT_MAX, &f->result, err));
    f->outcome = j.partial ? ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED : ESPALIER__WIRE__OUTCOME__OUTCOME_DONE;
    return ES_OK;
}

static wk_finish *do_task(wk_compute *c, task *t)
{
    wk_finish *f = es_xcalloc(1, sizeof *f);
    f->job = t->job;
    f->attempt = t->attempt;
    es_arena *arena = es_arena_new(16 << 10);
    ProtobufCMessage *spec = NULL;
    es_error *err = &f->error;
    int64_t began = es_clock_mono_ms(es_clock_system());
    es_log_context("job=%" PRIu64 " attempt=%u search=%" PRIu64, t->job, t->attempt, t->search);
    es_status s = dm_decode(&espalier__wire__job_spec__descriptor, t->spec, t->spec_n, &spec, err);
    if (s == ES_OK)
        s = run_task(c, t, (const dm_job_spec *)spec, arena, f, err);
    if (s != ES_OK) {
        char line[700];
        if (s == ES_CANCELLED) {
            f->outcome = task_stop(t) == WK_CANCEL ? ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED
                                                   : ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED;
        } else {
            f->outcome = ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED;
            es_log(ES_LOG_ERROR, "job failed job=%" PRIu64 " attempt=%u: %s", t->job, t->attempt,
                   es_error_line(err, line, sizeof line));
            f->log = wk_loglines_take();
        }
    }
    es_log(ES_LOG_INFO, "job ends job=%" PRIu64 " attempt=%u outcome=%d ms=%" PRId64, t->job, t->attempt,
           (int)f->outcome, es_clock_mono_ms(es_clock_system()) - began);
    es_log_context(NULL);
    dm_message_free(&spec);
    es_arena_destroy(&arena);
    return f;
}

static void *compute_main(void *arg)
{
    wk_compute *c = arg;
    es_error entered;
    if (kn_device_enter(c->dev, &entered) != ES_OK)
        es_log_error(ES_LOG_ERROR, "device", &entered); /* every job will say so too */
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->waiting && !c->ending)
            pthread_cond_wait(&c->wake, &c->lock);
        if (!c->waiting)
            break;
        task *t = c->waiting;
        c->waiting = t->next;
        t->next = NULL;
        c->running = t;
        pthread_mutex_unlock(&c->lock);
        wk_finish *f = do_task(c, t);
        pthread_mutex_lock(&c->lock);
        c->running = NULL;
        *c->finished_end = f;
        c->finished_end = &f->next;
        task_free(t);
        uint64_t one = 1;
        if (write(c->event, &one, sizeof one) < 0)
            es_log(ES_LOG_WARN, "eventfd: cannot write");
    }
    pthread_mutex_unlock(&c->lock);
    /* What the thread made, the thread frees. */
    wk_sessions_destroy(&c->sessions);
    dm_peer_close(&c->data);
    return NULL;
}

/* ---- the control thread's side ---- */

es_status wk_compute_start(const wk_compute_options *o, wk_compute **out, es_error *err)
{
    wk_compute *c = es_xcalloc(1, sizeof *c);
    c->dev = o->dev;
    c->cache = o->cache;
    c->login = o->login;
    c->finished_end = &c->finished;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->met, &monotonic);
    pthread_condattr_destroy(&monotonic);
    c->address = o->address;
    c->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    c->sessions = wk_sessions_new(o->dev, o->sessions > 0 ? o->sessions : 1);
    if (c->event < 0 || pthread_create(&c->thread, NULL, compute_main, c) != 0) {
        es_status s = es_fail_errno(err, "worker", "cannot start the compute thread");
        wk_sessions_destroy(&c->sessions);
        free(c);
        return s;
    }
    *out = c;
    return ES_OK;
}

void wk_compute_end(wk_compute **out)
{
    wk_compute *c = *out;
    if (!c)
        return;
    wk_compute_stop_all(c, WK_CANCEL);
    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    for (wk_finish *f; (f = wk_compute_take(c));)
        wk_finish_free(f);
    close(c->event);
    pthread_cond_destroy(&c->wake);
    pthread_cond_destroy(&c->met);
    pthread_mutex_destroy(&c->lock);
    free(c->data_endpoint);
    free(c);
    *out = NULL;
}

void wk_compute_data_endpoint(wk_compute *c, const char *endpoint)
{
    pthread_mutex_lock(&c->lock);
    free(c->data_endpoint);
    c->data_endpoint = es_xstrdup(endpoint);
    pthread_mutex_unlock(&c->lock);
}

void wk_compute_give(wk_compute *c, const Espalier__Wire__Granted *g)
{
    task *t = es_xcalloc(1, sizeof *t);
    t->owner = c;
    t->job = g->lease->job;
    t->attempt = g->lease->attempt;
    t->search = g->search;
    t->kind = g->kind;
    t->size = g->gang && g->gang->size > 1 && g->gang->size <= KN_GANG_MAX ? (int)g->gang->size : 1;
    t->rank = t->size > 1 && g->gang->rank < g->gang->size ? (int)g->gang->rank : 0;
    t->spec = es_xcalloc(1, g->spec.len + 1);
    memcpy(t->spec, g->spec.data, g->spec.len);
    t->spec_n = g->spec.len;
    t->progress = (wk_progress){.job = t->job, .attempt = t->attempt};
    pthread_mutex_lock(&c->lock);
    task **end = &c->waiting;
    while (*end)
        end = &(*end)->next;
    *end = t;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

bool wk_compute_offer(wk_compute *c, int64_t now_ms, uint64_t *job, uint32_t *attempt, kn_gang_id *id)
{
    bool due = false;
    pthread_mutex_lock(&c->lock);
    task *t = c->running;
    if (t && t->offer.n > 0 && t->id.n == 0 && (!t->offered_ms || now_ms - t->offered_ms >= OFFER_REPEAT_MS)) {
        t->offered_ms = now_ms;
        *job = t->job;
        *attempt = t->attempt;
        *id = t->offer;
        due = true;
    }
    pthread_mutex_unlock(&c->lock);
    return due;
}

void wk_compute_gang_id(wk_compute *c, uint64_t job, uint32_t attempt, const void *id, size_t n)
{
    pthread_mutex_lock(&c->lock);
    for (task *t = c->running ? c->running : c->waiting; t; t = t == c->running ? c->waiting : t->next) {
        if (t->job != job || t->attempt != attempt || n == 0 || n > sizeof t->id.data || t->id.n > 0)
            continue;
        memcpy(t->id.data, id, n);
        t->id.n = n;
        pthread_cond_broadcast(&c->met);
    }
    pthread_mutex_unlock(&c->lock);
}

int wk_compute_fd(const wk_compute *c) { return c->event; }

wk_finish *wk_compute_take(wk_compute *c)
{
    uint64_t n;
    if (read(c->event, &n, sizeof n) < 0)
        n = 0; /* nothing new since; what is there is taken all the same */
    pthread_mutex_lock(&c->lock);
    wk_finish *f = c->finished;
    if (f) {
        c->finished = f->next;
        if (!c->finished)
            c->finished_end = &c->finished;
        f->next = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    return f;
}

int wk_compute_jobs(wk_compute *c, wk_progress *out, int max)
{
    int n = 0;
    pthread_mutex_lock(&c->lock);
    if (c->running) {
        if (n < max)
            out[n] = c->running->progress;
        n++;
    }
    for (const task *t = c->waiting; t; t = t->next, n++)
        if (n < max)
            out[n] = t->progress;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static void stop_one(task *t, wk_stop how)
{
    if (how > (wk_stop)atomic_load(&t->stop))
        atomic_store(&t->stop, how);
}

bool wk_compute_stop(wk_compute *c, uint64_t job, uint32_t attempt, wk_stop how)
{
    bool there = false;
    pthread_mutex_lock(&c->lock);
    if (c->running && c->running->job == job && c->running->attempt == attempt) {
        stop_one(c->running, how);
        there = true;
    }
    for (task *t = c->waiting; t; t = t->next) {
        if (t->job == job && t->attempt == attempt) {
            stop_one(t, how);
            there = true;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return there;
}

void wk_compute_stop_all(wk_compute *c, wk_stop how)
{
    pthread_mutex_lock(&c->lock);
    if (c->running)
        stop_one(c->running, how);
    for (task *t = c->waiting; t; t = t->next)
        stop_one(t, how);
    pthread_mutex_unlock(&c->lock);
}
