/* loss.h - builders and checks that softmax.c, the losses and attention.c share. Logits are [..., classes]. */
#ifndef KN_OPS_LOSS_H
#define KN_OPS_LOSS_H

#include "kernels/ops/ops_internal.h"

kn_val kn_softmax_masked(kn_graph *g, kn_val x,
                         bool causal); /* kn_softmax, or with what lies right of the diagonal left out */
kn_val kn_softmax_back(kn_graph *g, kn_val d, kn_val y); /* y (d - sum d y): SOFTMAX_GRAD */
kn_val kn_as_column(kn_graph *g, kn_val v);              /* [...] as [..., 1] */

kn_shape kn_shape_leading(const kn_shape *s); /* all but the last dim */
/* Targets fit the logits: one label per row, or (soft) one number per logit. */
es_status kn_loss_check(const kn_graph *g, kn_val logits, kn_val targets, bool soft, es_error *err);
/* d [...], logits, soft targets or labels -> dlogits. */
es_status kn_loss_grad_infer(const kn_graph *g, const kn_node *n, bool soft, kn_shape *out, es_error *err);

#endif
