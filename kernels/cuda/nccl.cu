/* A gang's numbers on GPUs: summed by NCCL on a stream of its own, beside the one that computes. See collective_internal.h.
 *
 * Long pieces without gaps are summed where they lie; the others are packed, summed and unpacked: two more kernels, and four more passes over them. All of a reduction is one group, one kernel of NCCL's.
 * The scale is NCCL's to apply, to what each rank adds (a sum with a factor), so that it costs no pass.
 *
 * The communicator is non-blocking: its calls return ncclInProgress and are asked about, so that no thread is ever inside NCCL while a peer is gone. Every queued operation
 * ends with an event; the collective's thread looks whether the oldest is over within the limit, and ends everything with ncclCommAbort, which makes NCCL's kernels leave: the
 * host, if it waits for the stream, goes on and then meets the error. */
#include <nccl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "kernels/collective/collective_internal.h"
#include "kernels/cuda/cuda.cuh"

enum { PIECES = 48, EVENTS = 1024, PACK_THREADS = 256, IN_PLACE_LEAST = 1024 };

struct pack_args {
    int n;
    int64_t start[PIECES + 1]; /* of each piece in the bucket */
    kn_piece piece[PIECES];
};

/* bucket[i] = the i-th element of the pieces, or back. */
template <bool PACKS> static __global__ void move_kernel(float *bucket, float *flat, const pack_args a)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < a.start[a.n];
         i += (int64_t)gridDim.x * blockDim.x) {
        int low = 0, high = a.n - 1;
        while (low < high) {
            int mid = (low + high + 1) / 2;
            if (a.start[mid] <= i)
                low = mid;
            else
                high = mid - 1;
        }
        const kn_piece *p = &a.piece[low];
        uint32_t rest = (uint32_t)(i - a.start[low]);
        int64_t at = p->offset;
#pragma unroll
        for (int d = 0; d < KN_RANK_MAX; d++) {
            if (d > 0 && rest == 0)
                break;
            uint32_t e = (uint32_t)p->extent[d];
            at += (int64_t)(rest % e) * p->stride[d];
            rest /= e;
        }
        if (PACKS)
            bucket[i] = flat[at];
        else
            flat[at] = bucket[i];
    }
}

struct queued {
    cudaEvent_t over;
    int64_t since_ms;
};

struct nccl {
    kn_collective_gpu base;
    kn_cuda_device *dev;
    ncclComm_t comm;
    cudaStream_t stream;
    float *bucket;
    int64_t room;
    int64_t limit_ms;
    cudaEvent_t ready, joined;
    float scale; /* of the latest reduction, and NCCL's operation for it */
    ncclRedOp_t op;
    pthread_mutex_t lock; /* of the communicator and of what follows */
    bool aborted;
    queued queue[EVENTS];
    uint64_t put, taken;
};

static nccl *self(kn_collective_gpu *g) { return (nccl *)g; }

static int64_t now_ms(void) { return es_clock_mono_ms(es_clock_system()); }

static es_status failed(ncclResult_t r, const char *what, es_error *err)
{
    return es_fail(err, r == ncclRemoteError ? ES_LOST : ES_DEVICE, "nccl", "%s in %s", ncclGetErrorString(r), what);
}

static es_status left(es_error *err) { return es_fail(err, ES_LOST, "nccl", "the gang was left"); }

/* Until the communicator's last call is through. Called with the lock held; lets go of it while waiting. */
static es_status settle(nccl *n, ncclResult_t r, const char *what, es_error *err)
{
    int64_t start = now_ms();
    while (r == ncclInProgress || r == ncclSuccess) {
        if (n->aborted)
            return left(err);
        ncclResult_t state = ncclSuccess;
        r = ncclCommGetAsyncError(n->comm, &state);
        if (r == ncclSuccess && state == ncclSuccess)
            return ES_OK;
        if (r == ncclSuccess)
            r = state;
        if (r != ncclInProgress)
            break;
        if (now_ms() - start > n->limit_ms)
            return es_fail(err, ES_TIMEOUT, "nccl", "%s took more than %lld ms", what, (long long)n->limit_ms);
        pthread_mutex_unlock(&n->lock);
        const struct timespec pause = {0, 50000};
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&n->lock);
    }
    return failed(r, what, err);
}

/* The end of what was queued, for the watch. Lock held. */
static es_status mark(nccl *n, es_error *err)
{
    queued *q = &n->queue[n->put % EVENTS];
    while (n->put - n->taken == EVENTS) { /* far ahead of the device: wait for the oldest */
        queued *old = &n->queue[n->taken % EVENTS];
        pthread_mutex_unlock(&n->lock);
        cudaError_t e = cudaEventSynchronize(old->over);
        pthread_mutex_lock(&n->lock);
        if (n->aborted)
            return left(err);
        if (e != cudaSuccess)
            return kn_cuda_fail(e, "a gang's sum", err);
        if (n->put - n->taken == EVENTS)
            n->taken++;
    }
    KN_CUDA_RETURN(cudaEventRecord(q->over, n->stream));
    q->since_ms = now_ms();
    n->put++;
    return ES_OK;
}

static es_status reserve(kn_collective_gpu *g, int64_t elements, es_error *err)
{
    nccl *n = self(g);
    if (elements <= n->room)
        return ES_OK;
    KN_CUDA_RETURN(cudaStreamSynchronize(n->stream));
    cudaFree(n->bucket);
    n->bucket = NULL;
    n->room = 0;
    KN_CUDA_RETURN(cudaMalloc((void **)&n->bucket, (size_t)elements * sizeof(float)));
    n->room = elements;
    return ES_OK;
}

static bool in_place(const kn_piece *p) { return p->extent[0] == p->count && p->count >= IN_PLACE_LEAST; }

/* All pieces that are not reduced where they lie, to the bucket or back. */
static es_status move(nccl *n, bool packs, float *flat, const kn_piece *pieces, int count, es_error *err)
{
    float *bucket = n->bucket;
    for (int i = 0; i < count;) {
        pack_args a;
        a.n = 0;
        a.start[0] = 0;
        for (; i < count && a.n < PIECES; i++) {
            if (in_place(&pieces[i]))
                continue;
            a.piece[a.n] = pieces[i];
            a.start[a.n + 1] = a.start[a.n] + pieces[i].count;
            a.n++;
        }
        if (a.n == 0)
            continue;
        int blocks = kn_blocks(a.start[a.n], 4 * PACK_THREADS, 2 * n->dev->sms);
        if (packs)
            move_kernel<true><<<blocks, PACK_THREADS, 0, n->stream>>>(bucket, flat, a);
        else
            move_kernel<false><<<blocks, PACK_THREADS, 0, n->stream>>>(bucket, flat, a);
        KN_LAUNCHED("a gang's bucket");
        bucket += a.start[a.n];
    }
    return ES_OK;
}

/* What the device was given, up to the point that it says, comes before what this stream is given from here on. */
static es_status wait_for_device(nccl *n, es_error *err)
{
    cudaEvent_t since = n->dev->since;
    if (!since) {
        since = n->ready;
        KN_CUDA_RETURN(cudaEventRecord(since, n->dev->stream));
    }
    KN_CUDA_RETURN(cudaStreamWaitEvent(n->stream, since, 0));
    return ES_OK;
}

/* Lock held. */
static es_status choose_op(nccl *n, float scale, es_error *err)
{
    if (scale == n->scale)
        return ES_OK;
    if (n->op != ncclSum)
        ncclRedOpDestroy(n->op, n->comm);
    n->op = ncclSum;
    n->scale = 1;
    if (scale == 1)
        return ES_OK;
    ncclResult_t r = ncclRedOpCreatePreMulSum(&n->op, &scale, ncclFloat, ncclScalarHostImmediate, n->comm);
    if (r != ncclSuccess) {
        n->op = ncclSum;
        return failed(r, "ncclRedOpCreatePreMulSum", err);
    }
    n->scale = scale;
    return ES_OK;
}

/* Lock held. */
static es_status sum(nccl *n, float *flat, const kn_piece *pieces, int count, int64_t packed, es_error *err)
{
    ncclResult_t r = ncclGroupStart(), end;
    for (int i = 0; i < count && (r == ncclSuccess || r == ncclInProgress); i++) {
        float *at = flat + pieces[i].offset;
        if (in_place(&pieces[i]))
            r = ncclAllReduce(at, at, (size_t)pieces[i].count, ncclFloat, n->op, n->comm, n->stream);
    }
    if (packed > 0 && (r == ncclSuccess || r == ncclInProgress))
        r = ncclAllReduce(n->bucket, n->bucket, (size_t)packed, ncclFloat, n->op, n->comm, n->stream);
    end = ncclGroupEnd();
    return settle(n, r == ncclSuccess || r == ncclInProgress ? end : r, "ncclAllReduce", err);
}

static es_status reduce(kn_collective_gpu *g, float *flat, const kn_piece *pieces, int count, float scale,
                        es_error *err)
{
    nccl *n = self(g);
    int64_t packed = 0;
    for (int i = 0; i < count; i++)
        packed += in_place(&pieces[i]) ? 0 : pieces[i].count;
    ES_RETURN(reserve(g, packed, err));
    ES_RETURN(wait_for_device(n, err));
    ES_RETURN(move(n, true, flat, pieces, count, err));
    pthread_mutex_lock(&n->lock);
    es_status s = n->aborted ? left(err) : choose_op(n, scale, err);
    if (s == ES_OK)
        s = sum(n, flat, pieces, count, packed, err);
    if (s == ES_OK)
        s = mark(n, err);
    pthread_mutex_unlock(&n->lock);
    ES_RETURN(s);
    return move(n, false, flat, pieces, count, err);
}

static es_status join(kn_collective_gpu *g, es_error *err)
{
    nccl *n = self(g);
    KN_CUDA_RETURN(cudaEventRecord(n->joined, n->stream));
    KN_CUDA_RETURN(cudaStreamWaitEvent(n->dev->stream, n->joined, 0));
    return ES_OK;
}

static es_status broadcast(kn_collective_gpu *g, void *p, size_t bytes, es_error *err)
{
    nccl *n = self(g);
    ES_RETURN(wait_for_device(n, err));
    pthread_mutex_lock(&n->lock);
    es_status s = n->aborted ? left(err) : ES_OK;
    if (s == ES_OK)
        s = settle(n, ncclBroadcast(p, p, bytes, ncclChar, 0, n->comm, n->stream), "ncclBroadcast", err);
    if (s == ES_OK)
        s = mark(n, err);
    pthread_mutex_unlock(&n->lock);
    ES_RETURN(s);
    return join(g, err);
}

static es_status tick(kn_collective_gpu *g, es_error *err)
{
    nccl *n = self(g);
    es_status s = ES_OK;
    ncclResult_t state = ncclSuccess;
    KN_CUDA_RETURN(cudaSetDevice(n->dev->index)); /* this is the collective's thread */
    pthread_mutex_lock(&n->lock);
    if (n->aborted) {
        pthread_mutex_unlock(&n->lock);
        return left(err);
    }
    ncclResult_t r = ncclCommGetAsyncError(n->comm, &state);
    r = r == ncclSuccess ? state : r;
    if (r != ncclSuccess && r != ncclInProgress)
        s = failed(r, "the background", err);
    while (s == ES_OK && n->taken < n->put) {
        queued *q = &n->queue[n->taken % EVENTS];
        cudaError_t e = cudaEventQuery(q->over);
        if (e == cudaErrorNotReady) {
            if (now_ms() - q->since_ms > n->limit_ms)
                s = es_fail(err, ES_TIMEOUT, "nccl", "a sum was not over after %lld ms", (long long)n->limit_ms);
            break;
        }
        if (e != cudaSuccess)
            s = kn_cuda_fail(e, "a gang's sum", err);
        n->taken++;
    }
    pthread_mutex_unlock(&n->lock);
    return s;
}

static void abort_comm(kn_collective_gpu *g)
{
    nccl *n = self(g);
    pthread_mutex_lock(&n->lock);
    bool first = !n->aborted;
    n->aborted = true;
    if (first && n->comm)
        ncclCommAbort(n->comm);
    pthread_mutex_unlock(&n->lock);
}

static void close_comm(kn_collective_gpu *g)
{
    nccl *n = self(g);
    if (n->stream)
        cudaStreamSynchronize(n->stream); /* all ranks have said that they are through, or it was aborted */
    abort_comm(g);
    for (int i = 0; i < EVENTS; i++)
        if (n->queue[i].over)
            cudaEventDestroy(n->queue[i].over);
    if (n->ready)
        cudaEventDestroy(n->ready);
    if (n->joined)
        cudaEventDestroy(n->joined);
    if (n->stream)
        cudaStreamDestroy(n->stream);
    cudaFree(n->bucket);
    cudaGetLastError();
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static const kn_collective_gpu_vt vtable = {reserve, reduce, join, broadcast, tick, abort_comm, close_comm};

/* Multicast over NVLink takes resources that outlive a killed process, on a host that others use too: never, whatever the environment says. */
static void no_multicast(void) { setenv("NCCL_NVLS_ENABLE", "0", 1); }

extern "C" es_status kn_gpu_collective_id(uint8_t id[KN_GPU_ID_BYTES], es_error *err)
{
    static_assert(sizeof(ncclUniqueId) == KN_GPU_ID_BYTES, "NCCL's id");
    ncclUniqueId unique;
    no_multicast();
    ncclResult_t r = ncclGetUniqueId(&unique);
    if (r != ncclSuccess)
        return failed(r, "ncclGetUniqueId", err);
    memcpy(id, &unique, sizeof unique);
    return ES_OK;
}

static es_status open_parts(nccl *n, int rank, int size, const uint8_t *id, es_status (*idle)(void *ctx, es_error *err),
                            void *ctx, es_error *err)
{
    ncclUniqueId unique;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    int least = 0, most = 0;
    memcpy(&unique, id, sizeof unique);
    config.blocking = 0;
    KN_CUDA_RETURN(cudaSetDevice(n->dev->index));
    KN_CUDA_RETURN(cudaDeviceGetStreamPriorityRange(&least, &most));
    KN_CUDA_RETURN(cudaStreamCreateWithPriority(&n->stream, cudaStreamNonBlocking, most));
    KN_CUDA_RETURN(cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming));
    KN_CUDA_RETURN(cudaEventCreateWithFlags(&n->joined, cudaEventDisableTiming));
    for (int i = 0; i < EVENTS; i++)
        KN_CUDA_RETURN(cudaEventCreateWithFlags(&n->queue[i].over, cudaEventDisableTiming));
    ncclResult_t r = ncclCommInitRankConfig(&n->comm, size, unique, rank, &config), state = ncclInProgress;
    if (r != ncclSuccess && r != ncclInProgress)
        return failed(r, "ncclCommInitRankConfig", err);
    int64_t start = now_ms();
    for (;;) {
        r = ncclCommGetAsyncError(n->comm, &state);
        r = r == ncclSuccess ? state : r;
        if (r == ncclSuccess)
            return ES_OK;
        if (r != ncclInProgress)
            return failed(r, "ncclCommInitRankConfig", err);
        ES_RETURN(idle(ctx, err));
        if (now_ms() - start > n->limit_ms)
            return es_fail(err, ES_TIMEOUT, "nccl", "the ranks did not meet within %lld ms", (long long)n->limit_ms);
        const struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
    }
}

extern "C" es_status kn_gpu_collective_open(kn_device *dev, int rank, int size, const uint8_t id[KN_GPU_ID_BYTES],
                                            int64_t limit_ms, es_status (*idle)(void *ctx, es_error *err), void *ctx,
                                            kn_collective_gpu **out, es_error *err)
{
    nccl *n = (nccl *)calloc(1, sizeof *n);
    *out = NULL;
    if (!n)
        return es_fail(err, ES_NO_MEMORY, "nccl", "no memory for a communicator");
    no_multicast();
    n->base.vt = &vtable;
    n->dev = (kn_cuda_device *)dev;
    n->limit_ms = limit_ms;
    n->scale = 1;
    n->op = ncclSum;
    pthread_mutex_init(&n->lock, NULL);
    es_status s = open_parts(n, rank, size, id, idle, ctx, err);
    if (s != ES_OK)
        close_comm(&n->base);
    else
        *out = &n->base;
    return s;
}
