/* Layer normalisation over the last dim (Ba et al. 2016, arXiv:1607.06450) and its gradient: per row of width D, with dz = gamma dy,
 *     dx = r (dz - mean(dz) - xhat mean(dz xhat));   dgamma = sum over rows of dy xhat,   dbeta = sum over rows of dy */
#include <math.h>

#include "kernels/ops/norm.h"
#include "kernels/ops/ref.h"

es_status kn_infer_layer_norm(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    ES_RETURN(kn_norm_check(g, n, 0, 2, err));
    out[0] = *kn_in_shape(g, n, 0);
    return ES_OK;
}

es_status kn_infer_layer_norm_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return kn_norm_grad_infer(g, n, 1, out, err);
}

void kn_grad_layer_norm(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_val back = KN_EMIT(g, LAYER_NORM_GRAD, &n->a, d[0], n->in[0], n->in[1]);
    for (unsigned i = 0; i < 3; i++)
        din[i] = need[i] && back != KN_NONE ? back + i : KN_NONE;
}

static uint32_t last_axis(const kn_graph *g, kn_val x) { return 1u << (kn_shape_of(g, x).rank - 1); }

void kn_expand_layer_norm(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_norm p = kn_norm_parts(g, n->in[0], last_axis(g, n->in[0]), KN_NONE, KN_NONE, n->a.eps);
    out[0] = kn_norm_scale_shift(g, p.xhat, n->in[1], n->in[2]);
}

void kn_expand_layer_norm_grad(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_val dy = n->in[0], x = n->in[1];
    uint32_t row = last_axis(g, x), rest = kn_norm_axes(g, x);
    kn_norm p = kn_norm_parts(g, x, row, KN_NONE, KN_NONE, n->a.eps);
    kn_val dz = kn_norm_scale_shift(g, dy, n->in[2], KN_NONE);
    kn_val inner = kn_sub(g, kn_sub(g, dz, kn_reduce_mean(g, dz, row)),
                          kn_mul(g, p.xhat, kn_reduce_mean(g, kn_mul(g, dz, p.xhat), row)));
    out[0] = kn_mul(g, inner, p.rstd);
    out[1] = kn_norm_as_vector(g, kn_reduce_sum(g, kn_mul(g, dy, p.xhat), rest));
    out[2] = kn_norm_as_vector(g, kn_reduce_sum(g, dy, rest));
}

static void row_statistics(const kn_call *c, const float *x, int width, double *mean, double *rstd)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < width; i++)
        sum += x[i];
    *mean = sum / width;
    for (int i = 0; i < width; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *rstd = 1 / sqrt(squares / width + c->a->eps);
}

es_status kn_ref_layer_norm(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0];
    int width = kn_cols(&x->shape);
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        double mean, rstd;
        row_statistics(c, kn_row(x, r), width, &mean, &rstd);
        for (int i = 0; i < width; i++) {
            double xhat = (kn_row(x, r)[i] - mean) * rstd;
            kn_put(c, 0, kn_row_at(&c->out[0], r) + i, xhat * kn_vector(&c->in[1], i, 1) + kn_vector(&c->in[2], i, 0));
        }
    }
    return ES_OK;
}

static void grad_row(const kn_call *c, int64_t r, int width)
{
    const float *dy = kn_row(&c->in[0], r), *x = kn_row(&c->in[1], r);
    double mean, rstd, sum = 0, dot = 0;
    row_statistics(c, x, width, &mean, &rstd);
    for (int i = 0; i < width; i++) {
        double dz = dy[i] * kn_vector(&c->in[2], i, 1);
        sum += dz / width;
        dot += dz * (x[i] - mean) * rstd / width;
    }
    for (int i = 0; i < width; i++) {
        double dz = dy[i] * kn_vector(&c->in[2], i, 1);
        kn_put(c, 0, kn_row_at(&c->out[0], r) + i, rstd * (dz - sum - (x[i] - mean) * rstd * dot));
    }
}

es_status kn_ref_layer_norm_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *dy = &c->in[0], *x = &c->in[1];
    int width = kn_cols(&x->shape);
    int64_t rows = kn_rows(&x->shape);
    (void)err;
    for (int64_t r = 0; r < rows; r++)
        grad_row(c, r, width);
    for (int i = 0; i < width; i++) {
        double dgamma = 0, dbeta = 0;
        for (int64_t r = 0; r < rows; r++) {
            double mean, rstd;
            row_statistics(c, kn_row(x, r), width, &mean, &rstd);
            dgamma += kn_row(dy, r)[i] * (kn_row(x, r)[i] - mean) * rstd;
            dbeta += kn_row(dy, r)[i];
        }
        kn_put(c, 1, i, dgamma);
        kn_put(c, 2, i, dbeta);
    }
    return ES_OK;
}
