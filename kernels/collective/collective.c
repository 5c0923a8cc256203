/* The thread of a collective, its queue, and the first failure. On a CPU the thread does everything; on a GPU it does the ring's share and watches the rest. */
#include "kernels/collective/collective.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/clock.h"
#include "kernels/collective/collective_internal.h"
#include "kernels/collective/collective_ring.h"

typedef enum task_kind { TASK_REDUCE, TASK_GATHER, TASK_SHARE } task_kind;

typedef struct task {
    struct task *next;
    task_kind kind;
    float *flat;
    kn_piece *pieces;
    int n;
    float scale;
    void *bytes; /* GATHER: size * each, the task's own; SHARE: the caller's */
    size_t each;
} task;

struct kn_collective {
    kn_device *dev;
    int rank, size;
    bool (*stop)(void *ctx);
    void *ctx;
    kn_ring *ring;
    kn_collective_gpu *gpu;
    pthread_t thread;
    bool started;
    float *pack; /* the thread's */
    int64_t pack_room;
    int64_t stop_asked_ms;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    /* under the lock */
    task *first, **end;
    bool busy, ending;
    void *gathered; /* of the gather under way */
    size_t gathered_each;
    bool gather_done;
    es_error failed; /* code ES_OK: nothing has */
};

#ifndef ES_HAVE_CUDA
es_status kn_gpu_collective_id(uint8_t id[KN_GPU_ID_BYTES], es_error *err)
{
    (void)id;
    return es_fail(err, ES_UNSUPPORTED, "gang", "this build has no CUDA");
}

es_status kn_gpu_collective_open(kn_device *dev, int rank, int size, const uint8_t id[KN_GPU_ID_BYTES],
                                 int64_t limit_ms, es_status (*idle)(void *ctx, es_error *err), void *ctx,
                                 kn_collective_gpu **out, es_error *err)
{
    (void)dev, (void)rank, (void)size, (void)id, (void)limit_ms, (void)idle, (void)ctx;
    *out = NULL;
    return es_fail(err, ES_UNSUPPORTED, "gang", "this build has no CUDA");
}
#endif

kn_piece kn_piece_of(const kn_param_def *d, const kn_box *b)
{
    kn_piece p = {.offset = d->offset, .count = 1};
    int n = 0;
    int32_t stride = 1;
    for (int i = d->shape.rank - 1; i >= 0; i--) { /* innermost first; what lies end to end becomes one loop */
        p.offset += (int64_t)b->start[i] * stride;
        p.count *= b->extent[i];
        if (n > 0 && (int64_t)p.extent[n - 1] * p.stride[n - 1] == stride) {
            p.extent[n - 1] *= b->extent[i];
        } else if (n == 0 || b->extent[i] > 1) {
            p.extent[n] = b->extent[i];
            p.stride[n++] = stride;
        }
        stride *= d->shape.d[i];
    }
    for (; n < KN_RANK_MAX; n++)
        p.extent[n] = 1;
    return p;
}

/* ---- failing ---- */

static void fail(kn_collective *c, const es_error *why)
{
    pthread_mutex_lock(&c->lock);
    bool first = c->failed.code == ES_OK;
    if (first)
        c->failed = *why;
    pthread_cond_broadcast(&c->done);
    pthread_mutex_unlock(&c->lock);
    if (!first)
        return;
    if (c->ring)
        kn_ring_break(c->ring);
    if (c->gpu)
        c->gpu->vt->abort(c->gpu);
}

es_status kn_collective_check(kn_collective *c, es_error *err)
{
    pthread_mutex_lock(&c->lock);
    es_status s = c->failed.code;
    if (s != ES_OK && err != NULL)
        *err = c->failed;
    pthread_mutex_unlock(&c->lock);
    return s;
}

void kn_collective_abort(kn_collective *c)
{
    es_error e;
    (void)es_fail(&e, ES_CANCELLED, "gang", "rank %d of %d left it", c->rank, c->size);
    fail(c, &e);
}

/* What is looked at while the ring waits, and between its operations. */
static es_status watch(void *ctx, es_error *err)
{
    kn_collective *c = ctx;
    int64_t now = es_clock_mono_ms(es_clock_system());
    ES_RETURN(kn_collective_check(c, err));
    if (c->stop != NULL && now - c->stop_asked_ms >= 4 * KN_RING_TICK_MS) {
        c->stop_asked_ms = now;
        if (c->stop(c->ctx))
            return es_fail(err, ES_CANCELLED, "gang", "rank %d of %d was told to stop", c->rank, c->size);
    }
    return c->gpu != NULL ? c->gpu->vt->tick(c->gpu, err) : ES_OK;
}

/* ---- the thread ---- */

/* Copies a piece to (or from) where the packed one lies; returns the end of it there. */
static float *move_piece(const kn_piece *p, float *flat, float *packed, bool packs, float scale)
{
    const int32_t *e = p->extent, *s = p->stride;
    for (int32_t a = 0; a < e[4]; a++)
        for (int32_t b = 0; b < e[3]; b++)
            for (int32_t c = 0; c < e[2]; c++)
                for (int32_t d = 0; d < e[1]; d++, packed += e[0]) {
                    float *row = flat + p->offset + (int64_t)a * s[4] + (int64_t)b * s[3] + (int64_t)c * s[2] +
                                 (int64_t)d * s[1];
                    for (int32_t i = 0; packs && i < e[0]; i++)
                        packed[i] = row[i] * scale;
                    if (!packs)
                        memcpy(row, packed, (size_t)e[0] * sizeof *row);
                }
    return packed;
}

static es_status run_reduce(kn_collective *c, const task *t, es_error *err)
{
    int64_t total = 0;
    for (int i = 0; i < t->n; i++)
        total += t->pieces[i].count;
    if (total > c->pack_room) {
        c->pack = es_xrealloc(c->pack, (size_t)total * sizeof *c->pack);
        c->pack_room = total;
    }
    float *at = c->pack;
    for (int i = 0; i < t->n; i++)
        at = move_piece(&t->pieces[i], t->flat, at, true, t->scale);
    ES_RETURN(kn_ring_sum(c->ring, c->pack, total, err));
    at = c->pack;
    for (int i = 0; i < t->n; i++)
        at = move_piece(&t->pieces[i], t->flat, at, false, 1);
    return ES_OK;
}

static es_status run_task(kn_collective *c, task *t, es_error *err)
{
    ES_RETURN(watch(c, err));
    switch (t->kind) {
    case TASK_REDUCE: return run_reduce(c, t, err);
    case TASK_GATHER: return kn_ring_gather(c->ring, t->bytes, t->each, err);
    case TASK_SHARE: return kn_ring_share(c->ring, t->bytes, t->each, err);
    }
    return ES_OK;
}

static void task_free(task *t)
{
    if (t == NULL)
        return;
    if (t->kind == TASK_GATHER)
        free(t->bytes);
    free(t->pieces);
    free(t);
}

/* Waits for work; between two looks at the neighbours a tick passes. NULL: the end. */
static task *next_task(kn_collective *c)
{
    task *t = NULL;
    pthread_mutex_lock(&c->lock);
    while (c->first == NULL && !c->ending) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += KN_RING_TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        if (pthread_cond_timedwait(&c->wake, &c->lock, &until) == 0)
            continue;
        bool ok = c->failed.code == ES_OK;
        pthread_mutex_unlock(&c->lock);
        es_error e;
        if (ok && (watch(c, &e) != ES_OK || kn_ring_check(c->ring, &e) != ES_OK))
            fail(c, &e);
        pthread_mutex_lock(&c->lock);
    }
    if (c->first != NULL) {
        t = c->first;
        c->first = t->next;
        if (c->first == NULL)
            c->end = &c->first;
        c->busy = true;
    }
    pthread_mutex_unlock(&c->lock);
    return t;
}

static void *collective_thread(void *arg)
{
    kn_collective *c = arg;
    for (task *t; (t = next_task(c)) != NULL; task_free(t)) {
        es_error e;
        bool ok = kn_collective_check(c, NULL) == ES_OK;
        if (ok && run_task(c, t, &e) != ES_OK)
            fail(c, &e);
        pthread_mutex_lock(&c->lock);
        c->busy = false;
        if (t->kind == TASK_GATHER) {
            if (c->failed.code == ES_OK)
                memcpy(c->gathered, t->bytes, (size_t)c->size * t->each);
            c->gather_done = true;
        }
        pthread_cond_broadcast(&c->done);
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

static void give(kn_collective *c, task *t)
{
    pthread_mutex_lock(&c->lock);
    *c->end = t;
    c->end = &t->next;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

/* Until the thread has done all it was given, or has failed and is not at work on the caller's memory. */
static es_status drain(kn_collective *c, es_error *err)
{
    pthread_mutex_lock(&c->lock);
    while (c->busy || c->first != NULL)
        pthread_cond_wait(&c->done, &c->lock);
    pthread_mutex_unlock(&c->lock);
    return kn_collective_check(c, err);
}

/* ---- opening and closing ---- */

static es_status open_gpu(kn_collective *c, int64_t limit_ms, es_error *err)
{
    uint8_t id[KN_GPU_ID_BYTES] = {0};
    if (c->rank == 0)
        ES_RETURN(kn_gpu_collective_id(id, err));
    ES_RETURN(kn_ring_share(c->ring, id, sizeof id, err));
    return kn_gpu_collective_open(c->dev, c->rank, c->size, id, limit_ms, watch, c, &c->gpu, err);
}

static es_status start_thread(kn_collective *c, es_error *err)
{
    if (pthread_create(&c->thread, NULL, collective_thread, c) != 0)
        return es_fail_errno(err, "gang", "cannot start its thread");
    c->started = true;
    return ES_OK;
}

es_status kn_collective_open(kn_device *dev, const kn_collective_options *o, kn_collective **out, es_error *err)
{
    kn_collective *c = es_xcalloc(1, sizeof *c);
    pthread_condattr_t clock;
    es_status s = ES_OK;
    int64_t limit_ms = o->limit_ms > 0 ? o->limit_ms : KN_COLLECTIVE_LIMIT_MS;
    *out = NULL;
    c->dev = dev;
    c->rank = o->rank;
    c->size = o->size;
    c->stop = o->stop;
    c->ctx = o->ctx;
    c->end = &c->first;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &clock);
    pthread_cond_init(&c->done, NULL);
    pthread_condattr_destroy(&clock);
    const kn_ring_options ring = {.rank = o->rank,
                                  .size = o->size,
                                  .id = o->id,
                                  .meet = o->meet,
                                  .address = o->address,
                                  .limit_ms = limit_ms,
                                  .idle = watch,
                                  .ctx = c};
    ES_GOTO(kn_ring_open(&ring, &c->ring, err));
    if (kn_device_backend(dev) == KN_BACKEND_CUDA)
        ES_GOTO(open_gpu(c, limit_ms, err));
    ES_GOTO(start_thread(c, err));
    *out = c;
    return ES_OK;
fail:
    if (c->ring)
        kn_ring_break(c->ring);
    kn_collective_close(&c);
    return s;
}

void kn_collective_close(kn_collective **cp)
{
    kn_collective *c = *cp;
    if (c == NULL)
        return;
    if (c->started) {
        /* Nobody takes its links or its memory away while another still needs them. */
        if (kn_collective_check(c, NULL) == ES_OK && kn_device_sync(c->dev, NULL) == ES_OK)
            (void)!kn_collective_barrier(c, NULL);
        pthread_mutex_lock(&c->lock);
        c->ending = true;
        pthread_cond_signal(&c->wake);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    if (c->gpu)
        c->gpu->vt->close(c->gpu);
    kn_ring_close(&c->ring);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake);
    pthread_cond_destroy(&c->done);
    free(c->gathered);
    free(c->pack);
    free(c);
    *cp = NULL;
}

int kn_collective_rank(const kn_collective *c) { return c->rank; }
int kn_collective_size(const kn_collective *c) { return c->size; }

/* ---- operations ---- */

es_status kn_collective_reserve(kn_collective *c, int64_t elements, es_error *err)
{
    return c->gpu != NULL ? c->gpu->vt->reserve(c->gpu, elements, err) : ES_OK;
}

/* Says the collective's own failure where there is one: the call's is often only its consequence. */
static es_status own(kn_collective *c, es_status s, es_error *err)
{
    if (s == ES_OK)
        return s;
    es_status first = kn_collective_check(c, err);
    if (first != ES_OK)
        return first;
    es_error e = {.code = s};
    if (err != NULL)
        e = *err;
    fail(c, &e);
    return s;
}

es_status kn_collective_reduce(kn_collective *c, float *flat, const kn_piece *pieces, int n, float scale, es_error *err)
{
    ES_RETURN(kn_collective_check(c, err));
    if (n == 0)
        return ES_OK;
    if (c->gpu != NULL)
        return own(c, c->gpu->vt->reduce(c->gpu, flat, pieces, n, scale, err), err);
    ES_RETURN(kn_device_sync(c->dev, err));
    task *t = es_xcalloc(1, sizeof *t);
    *t = (task){.kind = TASK_REDUCE, .flat = flat, .n = n, .scale = scale};
    t->pieces = es_xcalloc((size_t)n, sizeof *t->pieces);
    memcpy(t->pieces, pieces, (size_t)n * sizeof *pieces);
    give(c, t);
    return ES_OK;
}

es_status kn_collective_join(kn_collective *c, es_error *err)
{
    if (c->gpu == NULL)
        return drain(c, err);
    ES_RETURN(kn_collective_check(c, err));
    return own(c, c->gpu->vt->join(c->gpu, err), err);
}

es_status kn_collective_gather_begin(kn_collective *c, const void *mine, size_t bytes, es_error *err)
{
    ES_RETURN(kn_collective_check(c, err));
    ES_ASSERT(bytes > 0 && bytes <= KN_GATHER_MAX);
    task *t = es_xcalloc(1, sizeof *t);
    *t = (task){.kind = TASK_GATHER, .each = bytes, .bytes = es_xcalloc((size_t)c->size, bytes)};
    memcpy((char *)t->bytes + (size_t)c->rank * bytes, mine, bytes);
    pthread_mutex_lock(&c->lock);
    c->gathered = es_xrealloc(c->gathered, (size_t)c->size * bytes);
    c->gathered_each = bytes;
    c->gather_done = false;
    pthread_mutex_unlock(&c->lock);
    give(c, t);
    return ES_OK;
}

es_status kn_collective_gather_end(kn_collective *c, void *all, es_error *err)
{
    pthread_mutex_lock(&c->lock);
    while (!c->gather_done)
        pthread_cond_wait(&c->done, &c->lock);
    bool ok = c->failed.code == ES_OK;
    if (ok && all != NULL)
        memcpy(all, c->gathered, (size_t)c->size * c->gathered_each);
    pthread_mutex_unlock(&c->lock);
    return ok ? ES_OK : kn_collective_check(c, err);
}

es_status kn_collective_gather(kn_collective *c, const void *mine, size_t bytes, void *all, es_error *err)
{
    ES_RETURN(kn_collective_gather_begin(c, mine, bytes, err));
    return kn_collective_gather_end(c, all, err);
}

es_status kn_collective_barrier(kn_collective *c, es_error *err)
{
    uint32_t here = 0;
    return kn_collective_gather(c, &here, sizeof here, NULL, err);
}

es_status kn_collective_share(kn_collective *c, void *bytes, size_t n, es_error *err)
{
    ES_RETURN(kn_collective_check(c, err));
    task *t = es_xcalloc(1, sizeof *t);
    *t = (task){.kind = TASK_SHARE, .bytes = bytes, .each = n};
    give(c, t);
    return drain(c, err);
}

es_status kn_collective_broadcast(kn_collective *c, void *p, size_t bytes, es_error *err)
{
    if (c->gpu == NULL)
        return kn_collective_share(c, p, bytes, err);
    ES_RETURN(kn_collective_check(c, err));
    return own(c, c->gpu->vt->broadcast(c->gpu, p, bytes, err), err);
}
