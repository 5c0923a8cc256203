/* norm.h - what batch_norm.c, batch_norm_infer.c and layer_norm.c share: shape checks, and the pieces of their expansions. */
#ifndef KN_OPS_NORM_H
#define KN_OPS_NORM_H

#include "kernels/ops/ops_internal.h"

/* Input x is [..., c]; the `vectors` inputs after it are absent or [c]; eps is above 0. */
es_status kn_norm_check(const kn_graph *g, const kn_node *n, int x, int vectors, es_error *err);
/* dy, x, vectors -> dx, dgamma, dbeta. */
es_status kn_norm_grad_infer(const kn_graph *g, const kn_node *n, int vectors, kn_shape *out, es_error *err);

/* xhat = (x - mean) / sqrt(var + eps) in simple ops. */
typedef struct kn_norm {
    kn_val mean, var, centred, rstd, xhat;
} kn_norm;

/* mean and var KN_NONE: those of x over `axes`. */
kn_norm kn_norm_parts(kn_graph *g, kn_val x, uint32_t axes, kn_val mean, kn_val var, float eps);
kn_val kn_norm_scale_shift(kn_graph *g, kn_val v, kn_val gamma,
                           kn_val beta);                               /* gamma v + beta, either may be KN_NONE */
kn_val kn_norm_act_back(kn_graph *g, kn_val dy, kn_val z, kn_act act); /* dy act'(z) */
uint32_t kn_norm_axes(const kn_graph *g, kn_val x);                    /* all but the last */
kn_val kn_norm_as_vector(kn_graph *g, kn_val v);                       /* [1, ..., c] as [c] */

/* Reference of BATCH_NORM_GRAD and, without the terms that come through the statistics, BATCH_NORM_INFER_GRAD. */
void kn_ref_norm_grad(const kn_call *c, bool batch_statistics);

#endif
