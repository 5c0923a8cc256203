/* Batch normalisation with batch statistics (Ioffe and Szegedy 2015, arXiv:1502.03167) over all but the last dim, with the activation after it, and
 * the gradient. With xhat = (x - mean) r, r = 1 / sqrt(var + eps), z = gamma xhat + beta, dz = dy act'(z), and N values per channel:
 *     dbeta = sum dz,   dgamma = sum dz xhat,   dx = gamma r (dz - dbeta / N - xhat dgamma / N)
 * batch_norm_infer.c has the same with given statistics. */
#include <math.h>

#include "kernels/ops/norm.h"
#include "kernels/ops/ref.h"

es_status kn_norm_check(const kn_graph *g, const kn_node *n, int x, int vectors, es_error *err)
{
    const kn_shape *s = kn_in_shape(g, n, x);
    char t[64];
    if (s->rank < 2)
        return es_fail(err, ES_INVALID, NULL, "x must be [..., c] of rank 2 or more");
    if (!(n->a.eps > 0))
        return es_fail(err, ES_INVALID, NULL, "eps is %g, a number above 0 is needed", (double)n->a.eps);
    for (int i = 0; i < vectors; i++) {
        const kn_shape *v = kn_in_shape(g, n, x + 1 + i);
        if (n->in[x + 1 + i] != KN_NONE && (v->rank != 1 || v->d[0] != s->d[s->rank - 1]))
            return es_fail(err, ES_INVALID, NULL, "input %d is %s, one number per channel is needed: [%d]", x + 1 + i,
                           kn_shape_text(v, t), s->d[s->rank - 1]);
    }
    return ES_OK;
}

/* Of BATCH_NORM_GRAD, BATCH_NORM_INFER_GRAD and LAYER_NORM_GRAD: dy, x, vectors -> dx, dgamma, dbeta. */
es_status kn_norm_grad_infer(const kn_graph *g, const kn_node *n, int vectors, kn_shape *out, es_error *err)
{
    const kn_shape *dy = kn_in_shape(g, n, 0), *x = kn_in_shape(g, n, 1);
    ES_RETURN(kn_norm_check(g, n, 1, vectors, err));
    if (!kn_shape_equal(dy, x))
        return es_fail(err, ES_INVALID, NULL, "dy and x must have one shape");
    out[0] = *x;
    out[1] = out[2] = KN_SHAPE(x->d[x->rank - 1]);
    return ES_OK;
}

es_status kn_infer_batch_norm(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *x = kn_in_shape(g, n, 0);
    (void)dtype;
    ES_RETURN(kn_norm_check(g, n, 0, 2, err));
    out[0] = *x;
    out[1] = out[2] = KN_SHAPE(x->d[x->rank - 1]);
    return ES_OK;
}

es_status kn_infer_batch_norm_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return kn_norm_grad_infer(g, n, 4, out, err);
}

static float per_channel(const kn_graph *g, kn_val x)
{
    kn_shape s = kn_shape_of(g, x);
    return 1.0f / (float)kn_rows(&s);
}

void kn_grad_batch_norm(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_val x = n->in[0], mean = n->out + 1, var = n->out + 2;
    float part = per_channel(g, x);
    if (d[0] != KN_NONE) {
        kn_val back = KN_EMIT(g, BATCH_NORM_GRAD, &n->a, d[0], x, n->in[1], n->in[2], mean, var);
        for (unsigned i = 0; i < 3; i++)
            din[i] = need[i] && back != KN_NONE ? back + i : KN_NONE;
    }
    if (!need[0])
        return;
    if (d[1] != KN_NONE) {
        kn_val dx = kn_broadcast(g, kn_scale(g, d[1], part), kn_shape_of(g, x));
        din[0] = din[0] == KN_NONE ? dx : kn_add(g, din[0], dx);
    }
    if (d[2] != KN_NONE) {
        kn_val dx = kn_mul(g, kn_sub(g, x, mean), kn_scale(g, d[2], 2 * part));
        din[0] = din[0] == KN_NONE ? dx : kn_add(g, din[0], dx);
    }
}

kn_norm kn_norm_parts(kn_graph *g, kn_val x, uint32_t axes, kn_val mean, kn_val var, float eps)
{
    kn_norm p = {.mean = mean, .var = var};
    if (mean == KN_NONE)
        p.mean = kn_reduce_mean(g, x, axes);
    p.centred = kn_sub(g, x, p.mean);
    if (var == KN_NONE)
        p.var = kn_reduce_mean(g, kn_mul(g, p.centred, p.centred), axes);
    p.rstd = kn_activate(g, kn_shift(g, p.var, eps), KN_ACT_RSQRT);
    p.xhat = kn_mul(g, p.centred, p.rstd);
    return p;
}

kn_val kn_norm_scale_shift(kn_graph *g, kn_val v, kn_val gamma, kn_val beta)
{
    v = gamma == KN_NONE ? v : kn_mul(g, v, gamma);
    return beta == KN_NONE ? v : kn_add(g, v, beta);
}

kn_val kn_norm_act_back(kn_graph *g, kn_val dy, kn_val z, kn_act act)
{
    return act == KN_ACT_NONE ? dy : KN_EMIT(g, ACTIVATE_MUL, &((kn_attr){.act = act, .order = 1}), dy, z);
}

uint32_t kn_norm_axes(const kn_graph *g, kn_val x) { return (1u << (kn_shape_of(g, x).rank - 1)) - 1; }

kn_val kn_norm_as_vector(kn_graph *g, kn_val v)
{
    kn_shape s = kn_shape_of(g, v);
    return v == KN_NONE ? KN_NONE : kn_reshape(g, v, KN_SHAPE(kn_cols(&s)));
}

void kn_expand_batch_norm(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_norm p = kn_norm_parts(g, n->in[0], kn_norm_axes(g, n->in[0]), KN_NONE, KN_NONE, n->a.eps);
    out[0] = kn_activate(g, kn_norm_scale_shift(g, p.xhat, n->in[1], n->in[2]), n->a.act);
    out[1] = kn_norm_as_vector(g, p.mean);
    out[2] = kn_norm_as_vector(g, p.var);
}

/* The statistics are recomputed, so that their dependence on x is differentiated too. */
void kn_expand_batch_norm_grad(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_val x = n->in[1], gamma = n->in[2];
    uint32_t axes = kn_norm_axes(g, x);
    kn_norm p = kn_norm_parts(g, x, axes, KN_NONE, KN_NONE, n->a.eps);
    kn_val dz = kn_norm_act_back(g, n->in[0], kn_norm_scale_shift(g, p.xhat, gamma, n->in[3]), n->a.act);
    kn_val dbeta = kn_reduce_sum(g, dz, axes), dgamma = kn_reduce_sum(g, kn_mul(g, dz, p.xhat), axes);
    float part = per_channel(g, x);
    kn_val inner = kn_sub(g, kn_sub(g, dz, kn_scale(g, dbeta, part)), kn_mul(g, p.xhat, kn_scale(g, dgamma, part)));
    out[0] = kn_norm_scale_shift(g, kn_mul(g, inner, p.rstd), gamma, KN_NONE);
    out[1] = kn_norm_as_vector(g, dgamma);
    out[2] = kn_norm_as_vector(g, dbeta);
}

es_status kn_ref_batch_norm(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0];
    int64_t rows = kn_rows(&x->shape);
    (void)err;
    for (int ch = 0; ch < kn_cols(&x->shape); ch++) {
        double mean = 0, var = 0;
        for (int64_t r = 0; r < rows; r++)
            mean += kn_row(x, r)[ch] / (double)rows;
        for (int64_t r = 0; r < rows; r++)
            var += (kn_row(x, r)[ch] - mean) * (kn_row(x, r)[ch] - mean) / (double)rows;
        for (int64_t r = 0; r < rows; r++) {
            double xhat = (kn_row(x, r)[ch] - mean) / sqrt(var + c->a->eps);
            double z = xhat * kn_vector(&c->in[1], ch, 1) + kn_vector(&c->in[2], ch, 0);
            kn_put(c, 0, kn_row_at(&c->out[0], r) + ch, kn_act_value(c->a->act, 0, z));
        }
        kn_put(c, 1, ch, mean);
        kn_put(c, 2, ch, var);
    }
    return ES_OK;
}

void kn_ref_norm_grad(const kn_call *c, bool batch_statistics)
{
    const kn_tensor *dy = &c->in[0], *x = &c->in[1], *mean = &c->in[4], *var = &c->in[5];
    int64_t rows = kn_rows(&x->shape);
    for (int ch = 0; ch < kn_cols(&x->shape); ch++) {
        double gamma = kn_vector(&c->in[2], ch, 1), beta = kn_vector(&c->in[3], ch, 0), m = kn_vector(mean, ch, 0);
        double rstd = 1 / sqrt(kn_vector(var, ch, 0) + c->a->eps), dgamma = 0, dbeta = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t r = 0; r < rows; r++) {
                double xhat = (kn_row(x, r)[ch] - m) * rstd,
                       dz = kn_row(dy, r)[ch] * kn_act_value(c->a->act, 1, gamma * xhat + beta);
                if (pass == 0) {
                    dbeta += dz;
                    dgamma += dz * xhat;
                } else {
                    double through = batch_statistics ? (dbeta + xhat * dgamma) / (double)rows : 0;
                    kn_put(c, 0, kn_row_at(&c->out[0], r) + ch, gamma * rstd * (dz - through));
                }
            }
        kn_put(c, 1, ch, dgamma);
        kn_put(c, 2, ch, dbeta);
    }
}

es_status kn_ref_batch_norm_grad(const kn_call *c, es_error *err)
{
    (void)err;
    kn_ref_norm_grad(c, true);
    return ES_OK;
}
