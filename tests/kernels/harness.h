/* harness.h - running graphs and checking gradients in the tests of kernels/.
 *
 *     kt_rig *r = kt_open("cpu", NULL, NULL);                        // a device, a graph, a workspace, no parameters
 *     kn_val x = kt_input(r, 0, KN_SHAPE(2, 3), values);             // binds the values, too
 *     kn_output(r->g, 0, kn_scale(r->g, x, 2));
 *     kt_run(r, false);                                              // plans (fused), runs; aborts the test with the message on failure
 *     float *y = r->out[0];
 *     kt_close(&r);
 *
 *     kt_gradients(&(kt_case){.name = "scale", .fn = build, .n_in = 1, .in = {{.shape = KN_SHAPE(2, 3)}}, .orders = 2});
 *
 * kt_gradients compares gradients (order 1, and order 2: gradients of a random combination of the gradients) with finite differences
 * taken on the reference device, on the reference and the CPU device, fused and not.
 */
#ifndef KN_TESTS_HARNESS_H
#define KN_TESTS_HARNESS_H

#include "kernels/graph/autodiff.h"
#include "kernels/ops/ops_internal.h"
#include "kernels/plan/plan.h"

typedef struct kt_rig {
    kn_device *dev;
    kn_graph *g;
    kn_plan *plan;
    kn_workspace *ws;
    kn_weights *w[KN_SETS];
    kn_binding b;
    float *out[KN_SLOTS];
    int64_t out_count[KN_SLOTS];
    void *owned[KN_SLOTS];
} kt_rig;

kt_rig *kt_open(const char *device, const kn_params *weights, const kn_params *stats);
void kt_close(kt_rig **r);
kn_val kt_input(kt_rig *r, int slot, kn_shape shape, const float *values); /* copies the values */
kn_val kt_input_i32(kt_rig *r, int slot, kn_shape shape, const int32_t *values);
es_status kt_try(kt_rig *r, bool no_fuse, es_error *err); /* plan, allocate outputs, run */
void kt_run(kt_rig *r, bool no_fuse);
void kt_ok(es_status s, const es_error *err); /* fails the test with the text */

/* Numbers for tests: a function of (seed, index), in [-1, 1). */
float kt_random(uint64_t seed, uint64_t index);
/* Largest |a - b| relative to the larger of 1 and the largest |b|. */
double kt_distance(const float *a, const float *b, int64_t n);

typedef enum kt_range {
    KT_SMOOTH,   /* [-1.5, 1.5) */
    KT_POSITIVE, /* [0.5, 2) */
    KT_DISTINCT, /* all different by at least 0.25, and at least 0.125 from 0, 3, -3 and 6: for functions with kinks; at most 64 in all inputs */
} kt_range;

typedef struct kt_in {
    kn_shape shape;
    kt_range range;
} kt_in;

typedef struct kt_case {
    const char *name;
    kn_val (*fn)(kn_graph *g, const kn_val *in, const void *ctx);
    const void *ctx;
    int n_in;
    kt_in in[6];
    int orders;            /* 1 or 2 */
    double tolerance;      /* 0: 1e-3 */
    const int32_t *labels; /* not NULL: in[n_in] is an extra I32 input of `label_shape`, not differentiated */
    kn_shape label_shape;
} kt_case;

void kt_gradients(const kt_case *c);

#endif
