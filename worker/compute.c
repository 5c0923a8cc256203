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
    struct lane *lane;    /* that does it; NULL: whichever is free first */
    int rank, size;       /* of a gang */
    _Atomic int stop;     /* wk_stop */
    wk_progress progress; /* under the lock, as what follows */
    kn_gang_id offer, id; /* n 0: none yet */
    int64_t offered_ms;
} task;

/* A thread with a device handle of its own: so many jobs run side by side as there are lanes. A search stays on its lane, where its trainer is. */
typedef struct lane {
    wk_compute *owner;
    pthread_t thread;
    kn_device *dev;
    bool busy;       /* or about to be; under the lock */
    uint64_t search; /* of its last job; under the lock */
    wk_sessions *sessions;
    dm_peer *data;
} lane;

struct wk_compute {
    lane *lanes;
    int lanes_n;
    pthread_mutex_t lock;
    pthread_cond_t wake, met;
    const char *address;
    int event;
    wk_cache *cache;
    const dm_login *login;
    /* under the lock */
    char *data_endpoint;
    task *running, *waiting;
    wk_finish *finished, **finished_end;
    bool ending;
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

/* ---- a compute thread ---- */

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
static es_status open_data(lane *l, es_error *err)
{
    wk_compute *c = l->owner;
    pthread_mutex_lock(&c->lock);
    char *endpoint = es_xstrdup(c->data_endpoint ? c->data_endpoint : "");
    pthread_mutex_unlock(&c->lock);
    es_status s = ES_OK;
    if (l->data && strcmp(dm_peer_endpoint(l->data), endpoint) != 0)
        dm_peer_close(&l->data);
    if (!l->data)
        s = dm_peer_open(&(dm_peer_options){.endpoint = endpoint, .frame_max = DM_DATA_MAX, .login = c->login},
                         &l->data, err);
    free(endpoint);
    return s;
}

static es_status run_task(lane *l, task *t, const dm_job_spec *spec, es_arena *arena, wk_finish *f, es_error *err)
{
    const wk_job_kind *kind = wk_job_find(t->kind);
    if (!kind)
        return es_fail(err, ES_UNSUPPORTED, NULL, "this worker knows no jobs of kind %d", (int)t->kind);
    ES_RETURN(open_data(l, err));
    wk_job j = {
        .id = t->job,
        .search = t->search,
        .attempt = t->attempt,
        .spec = spec,
        .dev = l->dev,
        .sessions = l->sessions,
        .data = l->data,
        .transfer = {.stop = transfer_stop, .ctx = t, .cache = wk_cache_chunks(l->owner->cache)},
        .arena = arena,
        .rank = t->rank,
        .size = t->size,
        .address = l->owner->address,
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

static wk_finish *do_task(lane *l, task *t)
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
        s = run_task(l, t, (const dm_job_spec *)spec, arena, f, err);
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

static task *list_find(task *list, uint64_t job, uint32_t attempt)
{
    while (list && (list->job != job || list->attempt != attempt))
        list = list->next;
    return list;
}

/* The oldest waiting task for this lane goes to the running ones. */
static task *take_task(lane *l)
{
    wk_compute *c = l->owner;
    for (task **at = &c->waiting; *at; at = &(*at)->next) {
        task *t = *at;
        if (t->lane && t->lane != l)
            continue;
        *at = t->next;
        t->next = c->running;
        c->running = t;
        l->busy = true;
        l->search = t->search;
        return t;
    }
    return NULL;
}

static void end_task(lane *l, task *t, wk_finish *f)
{
    wk_compute *c = l->owner;
    task **at = &c->running;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    task_free(t);
    l->busy = false;
    *c->finished_end = f;
    c->finished_end = &f->next;
    uint64_t one = 1;
    if (write(c->event, &one, sizeof one) < 0)
        es_log(ES_LOG_WARN, "eventfd: cannot write");
}

static void *lane_main(void *arg)
{
    lane *l = arg;
    wk_compute *c = l->owner;
    es_error entered;
    if (kn_device_enter(l->dev, &entered) != ES_OK)
        es_log_error(ES_LOG_ERROR, "device", &entered); /* every job will say so too */
    pthread_mutex_lock(&c->lock);
    for (;;) {
        task *t;
        while ((t = take_task(l)) == NULL && !c->ending)
            pthread_cond_wait(&c->wake, &c->lock);
        if (!t)
            break;
        pthread_mutex_unlock(&c->lock);
        wk_finish *f = do_task(l, t);
        pthread_mutex_lock(&c->lock);
        end_task(l, t, f);
    }
    pthread_mutex_unlock(&c->lock);
    /* What the thread made, the thread frees. */
    wk_sessions_destroy(&l->sessions);
    dm_peer_close(&l->data);
    return NULL;
}

/* ---- the control thread's side ---- */

static es_status lane_start(wk_compute *c, const wk_compute_options *o, es_error *err)
{
    lane *l = &c->lanes[c->lanes_n];
    l->owner = c;
    l->dev = o->dev;
    if (c->lanes_n > 0)
        ES_RETURN(kn_device_open(o->device, &l->dev, err));
    l->sessions = wk_sessions_new(l->dev, o->lanes > 1 || o->sessions < 1 ? 1 : o->sessions);
    if (pthread_create(&l->thread, NULL, lane_main, l) != 0) {
        wk_sessions_destroy(&l->sessions);
        if (l->dev != o->dev)
            kn_device_close(&l->dev);
        return es_fail_errno(err, "worker", "cannot start a compute thread");
    }
    c->lanes_n++;
    return ES_OK;
}

es_status wk_compute_start(const wk_compute_options *o, wk_compute **out, es_error *err)
{
    wk_compute *c = es_xcalloc(1, sizeof *c);
    es_status s = ES_OK;
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
    c->lanes = es_xcalloc((size_t)(o->lanes > 0 ? o->lanes : 1), sizeof *c->lanes);
    c->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (c->event < 0)
        s = es_fail_errno(err, "worker", "cannot make an eventfd");
    for (int i = 0; (i == 0 || i < o->lanes) && s == ES_OK; i++)
        s = lane_start(c, o, err);
    if (s != ES_OK)
        wk_compute_end(&c);
    *out = c;
    return s;
}

void wk_compute_end(wk_compute **out)
{
    wk_compute *c = *out;
    if (!c)
        return;
    wk_compute_stop_all(c, WK_CANCEL);
    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < c->lanes_n; i++) {
        pthread_join(c->lanes[i].thread, NULL);
        if (i > 0)
            kn_device_close(&c->lanes[i].dev);
    }
    for (wk_finish *f; (f = wk_compute_take(c));)
        wk_finish_free(f);
    if (c->event >= 0)
        close(c->event);
    pthread_cond_destroy(&c->wake);
    pthread_cond_destroy(&c->met);
    pthread_mutex_destroy(&c->lock);
    free(c->data_endpoint);
    free(c->lanes);
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

/* A free lane for a job of this search: where its trainer is, else one without any, else any. NULL: none is free. */
static lane *lane_for(wk_compute *c, uint64_t search)
{
    lane *best = NULL;
    for (int i = 0; i < c->lanes_n; i++) {
        lane *l = &c->lanes[i];
        if (l->busy)
            continue;
        if (l->search == search)
            return l;
        if (!best || (best->search && !l->search))
            best = l;
    }
    return best;
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
    t->lane = lane_for(c, t->search);
    if (t->lane)
        t->lane->busy = true;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

bool wk_compute_offer(wk_compute *c, int64_t now_ms, uint64_t *job, uint32_t *attempt, kn_gang_id *id)
{
    bool due = false;
    pthread_mutex_lock(&c->lock);
    for (task *t = c->running; t && !due; t = t->next) {
        if (t->offer.n == 0 || t->id.n > 0 || (t->offered_ms && now_ms - t->offered_ms < OFFER_REPEAT_MS))
            continue;
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
    task *t = list_find(c->running, job, attempt);
    if (!t)
        t = list_find(c->waiting, job, attempt);
    if (t && t->id.n == 0 && n > 0 && n <= sizeof t->id.data) {
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
    for (const task *t = c->running; t; t = t->next, n++)
        if (n < max)
            out[n] = t->progress;
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
    pthread_mutex_lock(&c->lock);
    task *t = list_find(c->running, job, attempt);
    if (!t)
        t = list_find(c->waiting, job, attempt);
    if (t)
        stop_one(t, how);
    pthread_mutex_unlock(&c->lock);
    return t != NULL;
}

void wk_compute_stop_all(wk_compute *c, wk_stop how)
{
    pthread_mutex_lock(&c->lock);
    for (task *t = c->running; t; t = t->next)
        stop_one(t, how);
    for (task *t = c->waiting; t; t = t->next)
        stop_one(t, how);
    pthread_mutex_unlock(&c->lock);
}
