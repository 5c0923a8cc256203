/* autodiff.h - the gradient of a graph as more nodes of the same graph.
 *
 *     kn_val dx;  kn_grad(g, loss, &x, 1, &dx, err);                       // d loss / d x, itself differentiable: apply again for second order
 *     kn_grad_params(g, loss, wanted, ctx, err);                           // adds into the gradient slices of the wanted parameters
 *
 * `loss` must have one element. A fused op without its own second derivative is differentiated through its expansion into simple ops (ops.h:
 * `expand`), so everything is twice differentiable except where ops.h says otherwise (then ES_UNSUPPORTED names the op).
 * Nothing is built below what is not wanted: freezing the first half of a network costs no backward work there.
 */
#ifndef KN_AUTODIFF_H
#define KN_AUTODIFF_H

#include "kernels/graph/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] = d loss / d wrt[i]; a value that loss does not depend on gives a zero constant. `seed` (gradient of loss) may be KN_NONE for 1. */
es_status kn_grad(kn_graph *g, kn_val loss, const kn_val *wrt, int n, kn_val *out, es_error *err) ES_MUST_CHECK;

typedef bool (*kn_wanted)(void *ctx, int set, kn_param id); /* NULL: every parameter of KN_SET_WEIGHTS */
es_status kn_grad_params(kn_graph *g, kn_val loss, kn_wanted wanted, void *ctx, es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
