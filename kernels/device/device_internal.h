/* device_internal.h - what a kind of device provides: a vtable of memory and stream operations, its kernels, and its share of making a plan.
 *
 * kernels/cpu/host.c has "cpu" and "reference"; kernels/cuda/ has "cuda:N" (kn_cuda_open; a build without CUDA answers ES_UNSUPPORTED there).
 * A struct kn_device is the first member of a backend's own struct.
 */
#ifndef KN_DEVICE_INTERNAL_H
#define KN_DEVICE_INTERNAL_H

#include "kernels/device/clocks.h"
#include "kernels/device/device.h"
#include "kernels/device/images.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of the rooms above: rows of ops, plans and what a run binds, passes of optimisers. */
struct kn_kernel_row;
struct kn_plan;
struct kn_binding;
struct kn_optim_kernels;

typedef struct kn_device_vt {
    const struct kn_kernel_row *kernels; /* [KN_OP_COUNT] */
    void (*close)(kn_device *d);         /* frees d */
    es_status (*memory)(kn_device *d, size_t *free_bytes, size_t *total_bytes, es_error *err);
    es_status (*alloc)(kn_device *d, size_t bytes, void **out, es_error *err); /* 256-byte aligned, bytes > 0 */
    void (*free)(kn_device *d, void *p);
    es_status (*upload)(kn_device *d, void *to, const void *from, size_t bytes, es_error *err);
    es_status (*download)(kn_device *d, void *to, const void *from, size_t bytes, es_error *err);
    es_status (*copy)(kn_device *d, void *to, const void *from, size_t bytes, es_error *err);
    es_status (*zero)(kn_device *d, void *p, size_t bytes, es_error *err);
    es_status (*sync)(kn_device *d, es_error *err);
    es_status (*enter)(kn_device *d, es_error *err); /* NULL: nothing to do */
    /* bf16 shadow of fp32 weights. NULL: the backend keeps none. */
    es_status (*shadow)(kn_device *d, void *to_bf16, const float *from, int64_t count, es_error *err);
    const struct kn_optim_kernels *optim; /* the optimisers' passes (optim_internal.h); NULL: those for host memory */

    /* Making a plan, all optional (NULL). `fuse` rewrites the work graph before the generic fusions; `store` chooses storage types of values
     * (plan_internal.h) for KN_PRECISION_BF16, which is refused where it is NULL; `begin` runs at the start of each kn_run: it puts what changes from run to
     * run (scalars; seed and step of random numbers) where kernels can read it, and sets *scalars to that address (which is also kn_call.now). */
    es_status (*fuse)(kn_device *d, struct kn_plan *p, es_error *err);
    es_status (*store)(kn_device *d, struct kn_plan *p, es_error *err);
    es_status (*begin)(kn_device *d, struct kn_plan *p, const struct kn_binding *b, const float **scalars,
                       es_error *err);
    /* Batches of a data set in the device's memory. NULL: they are made on the host. */
    es_status (*images)(kn_device *d, const kn_images *im, es_error *err);
    void (*clocks)(kn_device *d, kn_clocks *out); /* NULL: the processor's */
    /* A plan's kernels given to the device at once, all six or none (NULL). Between `record` and `recorded` the calling thread's kernels are kept instead of run, and places
     * between them, the points 0 to `points` - 1; `recorded` makes *recording of them (NULL: refused by the device, not an error), `replay` runs it, `forget` frees it, even while it runs.
     * After `reached` other queues of the device that wait for it (collective.h) wait for point i of the latest replay; with recording NULL for all that was given, as ever. */
    es_status (*record)(kn_device *d, int points, es_error *err);
    es_status (*point)(kn_device *d, int i, es_error *err);
    es_status (*recorded)(kn_device *d, void **recording, es_error *err);
    es_status (*replay)(kn_device *d, void *recording, es_error *err);
    void (*reached)(kn_device *d, void *recording, int i);
    void (*forget)(kn_device *d, void *recording); /* NULL-safe */
} kn_device_vt;

/* What a step must not do, counted since the device was opened (tests; an accelerator counts all of it, a host device uploads only). */
typedef struct kn_device_count {
    uint64_t allocations, syncs;
    uint64_t uploads;                      /* copies from the host's memory */
    uint64_t searches;                     /* for the algorithm of a product, made while a plan was */
    uint64_t late_searches;                /* made while a plan ran */
    uint64_t calls;                        /* of kernels, one by one */
    uint64_t recordings, replays, refused; /* of plans that repeat: made, run (one launch each), not to be had */
} kn_device_count;

struct kn_device {
    const kn_device_vt *vt;
    kn_device_count count;
    kn_backend backend;
    int threads; /* CPU: for num_threads() of OpenMP regions */
    bool hopper; /* a GPU that runs kernels for 9.0 alone (capability.h): for tests that count what they do */
    char name[32], model[128];
};

/* kernels/cpu/fuse.c */
es_status kn_cpu_fuse(kn_device *d, struct kn_plan *p, es_error *err) ES_MUST_CHECK;
/* kernels/device/images.c */
es_status kn_ref_images(kn_device *d, const kn_images *im, es_error *err) ES_MUST_CHECK;
/* kernels/cpu/host.c */
es_status kn_host_open(kn_backend backend, int threads, kn_device **out, es_error *err) ES_MUST_CHECK;
/* kernels/cuda/device.cu, or kernels/device/device.c in a build without CUDA */
es_status kn_cuda_open(int index, kn_device **out, es_error *err) ES_MUST_CHECK;

static inline int kn_device_threads(const kn_device *d) { return d->threads; }

#ifdef __cplusplus
}
#endif
#endif
