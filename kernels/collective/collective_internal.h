/* collective_internal.h - what a GPU's back end does for a collective (cuda/nccl.cu): the numbers on a stream of its own, beside the ring of collective.h.
 *
 * reduce, join, broadcast: from the caller's thread. tick: from the collective's thread, every KN_RING_TICK_MS: fails when NCCL says so or when something queued
 * was not over within the limit. abort: from either, once; whatever waits for the stream goes on afterwards.
 */
#ifndef KN_COLLECTIVE_INTERNAL_H
#define KN_COLLECTIVE_INTERNAL_H

#include "kernels/collective/collective.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kn_collective_gpu kn_collective_gpu;
typedef struct kn_collective_gpu_vt {
    es_status (*reserve)(kn_collective_gpu *g, int64_t elements, es_error *err);
    es_status (*reduce)(kn_collective_gpu *g, float *flat, const kn_piece *pieces, int n, float scale, es_error *err);
    es_status (*join)(kn_collective_gpu *g, es_error *err);
    es_status (*broadcast)(kn_collective_gpu *g, void *p, size_t bytes, es_error *err);
    es_status (*tick)(kn_collective_gpu *g, es_error *err);
    void (*abort)(kn_collective_gpu *g);
    void (*close)(kn_collective_gpu *g); /* frees it; nothing is under way, or it was aborted */
} kn_collective_gpu_vt;
struct kn_collective_gpu {
    const kn_collective_gpu_vt *vt;
};

enum { KN_GPU_ID_BYTES = 128 };

/* kernels/cuda/nccl.cu, or collective.c in a build without CUDA. id: made by rank 0, shared by the ring. */
es_status kn_gpu_collective_id(uint8_t id[KN_GPU_ID_BYTES], es_error *err) ES_MUST_CHECK;
es_status kn_gpu_collective_open(kn_device *dev, int rank, int size, const uint8_t id[KN_GPU_ID_BYTES],
                                 int64_t limit_ms, es_status (*idle)(void *ctx, es_error *err), void *ctx,
                                 kn_collective_gpu **out, es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
