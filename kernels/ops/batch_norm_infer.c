/* Batch normalisation with given statistics, as a network is evaluated, with the activation after it; and its gradient (notation of batch_norm.c):
 *     dbeta = sum dz,   dgamma = sum dz xhat,   dx = gamma r dz,   dmean = -gamma r dbeta,   dvar = -gamma r^2 dgamma / 2 */
#include <math.h>

#include "kernels/ops/norm.h"
#include "kernels/ops/ref.h"

es_status kn_infer_batch_norm_infer(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    ES_RETURN(kn_norm_check(g, n, 0, 4, err));
    out[0] = *kn_in_shape(g, n, 0);
    return ES_OK;
}

es_status kn_infer_batch_norm_infer_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype,
                                         es_error *err)
{
    (void)dtype;
    return kn_norm_grad_infer(g, n, 4, out, err);
}

void kn_grad_batch_norm_infer(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_val gamma = n->in[1], var = n->in[4];
    kn_val back = KN_EMIT(g, BATCH_NORM_INFER_GRAD, &n->a, d[0], n->in[0], gamma, n->in[2], n->in[3], var);
    if (back == KN_NONE)
        return;
    for (unsigned i = 0; i < 3; i++)
        din[i] = need[i] ? back + i : KN_NONE;
    if (!need[3] && !need[4])
        return;
    kn_val rstd = kn_activate(g, kn_shift(g, var, n->a.eps), KN_ACT_RSQRT),
           slope = kn_norm_scale_shift(g, rstd, gamma, KN_NONE);
    if (need[3])
        din[3] = kn_scale(g, kn_mul(g, slope, back + 2), -1.0f);
    if (need[4])
        din[4] = kn_scale(g, kn_mul(g, kn_mul(g, slope, rstd), back + 1), -0.5f);
}

void kn_expand_batch_norm_infer(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_norm p = kn_norm_parts(g, n->in[0], 0, n->in[3], n->in[4], n->a.eps);
    out[0] = kn_activate(g, kn_norm_scale_shift(g, p.xhat, n->in[1], n->in[2]), n->a.act);
}

void kn_expand_batch_norm_infer_grad(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_val x = n->in[1], gamma = n->in[2];
    uint32_t axes = kn_norm_axes(g, x);
    kn_norm p = kn_norm_parts(g, x, 0, n->in[4], n->in[5], n->a.eps);
    kn_val dz = kn_norm_act_back(g, n->in[0], kn_norm_scale_shift(g, p.xhat, gamma, n->in[3]), n->a.act);
    out[0] = kn_norm_scale_shift(g, kn_mul(g, dz, p.rstd), gamma, KN_NONE);
    out[1] = kn_norm_as_vector(g, kn_reduce_sum(g, kn_mul(g, dz, p.xhat), axes));
    out[2] = kn_norm_as_vector(g, kn_reduce_sum(g, dz, axes));
}

es_status kn_ref_batch_norm_infer(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0];
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++)
        for (int ch = 0; ch < kn_cols(&x->shape); ch++) {
            double xhat =
                (kn_row(x, r)[ch] - kn_vector(&c->in[3], ch, 0)) / sqrt(kn_vector(&c->in[4], ch, 0) + c->a->eps);
            double z = xhat * kn_vector(&c->in[1], ch, 1) + kn_vector(&c->in[2], ch, 0);
            kn_put(c, 0, kn_row_at(&c->out[0], r) + ch, kn_act_value(c->a->act, 0, z));
        }
    return ES_OK;
}

es_status kn_ref_batch_norm_infer_grad(const kn_call *c, es_error *err)
{
    (void)err;
    kn_ref_norm_grad(c, false);
    return ES_OK;
}
