/* plan.h - a graph made ready to run on a device: dead nodes dropped, ops fused, order and memory fixed.
 *
 *     kn_plan *plan = NULL;
 *     ES_GOTO(kn_plan_make(dev, g, &(kn_plan_options){.precision = KN_PRECISION_F32}, &plan, err));    // plan may be reused: pass the old one
 *     printf("%zu bytes\n", kn_plan_workspace_bytes(plan));
 *     ES_GOTO(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), err));                           // before the step, not inside it
 *     kn_binding b = {.in[IN_IMAGES] = images, .out[OUT_LOSS] = loss, .weights = {w, stats}, .seed = seed, .step = step};
 *     ES_GOTO(kn_run(plan, ws, &b, err));
 *
 * kn_run allocates nothing (but what a recording takes, below) and (on an accelerator) does not wait: kn_device_sync does. In and out pointers are device pointers of the value's
 * storage type (images U8 or F32, labels I32, outputs always F32), dense. A plan borrows nothing from the graph after it is made.
 * Two runs with equal inputs, seed and step give equal bits.
 *
 * A plan that `repeats` is recorded by devices that can (a CUDA graph) on its second run and from then on given to the device as one launch, while the addresses bound are
 * those that were recorded (workspace, weights, inputs, outputs) and the points, too. What changes from run to run besides (scalars, seed, step) is put into the device's memory before
 * it. With others kernels are launched one by one, to be recorded again when the new ones come a second time in a row. The bits are the same either way.
 * A plan with a kernel that fails while it is recorded is not recorded again, which is said once in the log.
 * The recording belongs to the plan and goes when it is made anew or destroyed, which must be before its device is closed.
 */
#ifndef KN_PLAN_H
#define KN_PLAN_H

#include "kernels/graph/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kn_precision { KN_PRECISION_F32, KN_PRECISION_BF16 } kn_precision; /* BF16: accelerators only */

typedef struct kn_plan_options {
    kn_precision precision;
    bool no_fuse; /* for tests: run the graph as built */
    bool repeats; /* will run often with the same pointers: see below */
} kn_plan_options;

enum { KN_POINTS_MAX = 32 };

typedef struct kn_plan kn_plan;
typedef struct kn_workspace kn_workspace;

typedef struct kn_binding {
    const void *in[KN_SLOTS];
    void *out[KN_SLOTS];
    float scalar[KN_SCALARS];
    kn_weights *weights[KN_SETS];
    uint64_t seed, step; /* for dropout and the like */
    /* For work that may begin before the run is over: `after` is called once for each of `points`, in order, when the device has been given the first points[i] kernels of the plan (0 to
     * kn_plan_steps, ascending). What it hands to another queue of the device (collective.h) waits for these kernels, and not for those after them, even if all were given at once. */
    es_status (*after)(void *ctx, uint32_t done, es_error *err);
    void *after_ctx;
    const uint32_t *points; /* borrowed for the run */
    int n_points;           /* at most KN_POINTS_MAX */
} kn_binding;

/* *plan NULL: a new one; else its memory is reused. On failure *plan stays valid for destruction or reuse. */
es_status kn_plan_make(kn_device *dev, const kn_graph *g, const kn_plan_options *o, kn_plan **plan,
                       es_error *err) ES_MUST_CHECK;
void kn_plan_destroy(kn_plan **plan);
/* Gives back the memory that only making a plan needs, most of it: for plans that are kept by the hundred. It runs, and may be made anew, as before. */
void kn_plan_trim(kn_plan *plan);
kn_dtype kn_kept_dtype(kn_precision precision, const kn_shape *shape); /* of kn_output_kept and kn_input_kept */
size_t kn_kept_bytes(kn_precision precision, const kn_shape *shape);
size_t kn_plan_workspace_bytes(const kn_plan *p); /* peak of activations and scratch */
size_t kn_plan_steps(const kn_plan *p);           /* kernels that will run */
/* last[id], of every parameter of `set`: 1 + the number of the last kernel that adds to its gradient, 0 when none does. */
void kn_plan_grad_steps(const kn_plan *p, int set, uint32_t *last);

es_status kn_workspace_new(kn_device *dev, kn_workspace **out, es_error *err) ES_MUST_CHECK;
es_status kn_workspace_reserve(kn_workspace *ws, size_t bytes, es_error *err) ES_MUST_CHECK; /* grows only */
void kn_workspace_destroy(kn_workspace **ws);

es_status kn_run(kn_plan *p, kn_workspace *ws, const kn_binding *b, es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
