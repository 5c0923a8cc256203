/* The adaptive alpha-divergence of AlphaNet (arXiv:2102.07954, eq. 5 to 7), teacher p, student q, r = p / q:
 *     D_a(p || q) = sum_k q_k (r_k^a - 1) / (a (a - 1));   a -> 1: sum p log r;   a -> 0: -sum q log r
 * The loss of a row is the larger of D at alpha minus and at alpha plus, with r^a (a = 0: r; a = 1: nothing) clipped from above. The gradient
 * is that of the surrogate -sum_k w_k log q_k with the constants w_k = q_k rho_k, rho_a = r^a / a + 1 / (a (a - 1)), rho_1 = r, rho_0 = log r - 1;
 * to a logit that is -(w_j - q_j sum_k w_k). Without clipping it is the true gradient (the identity before eq. 6).
 *
 * Everything is taken from log q and log p, with products like q r^a as exp(log q + a log r), so that neither 0 times infinity nor the ratio of two
 * underflowed numbers ever appears. The teacher gets no gradient. Once differentiable: the gradient has none of its own. */
#include <math.h>
#include <stdlib.h>

#include "kernels/ops/loss.h"
#include "kernels/ops/ref.h"

static const double LOG_FLOOR =
    -1e30; /* stands for log 0 of a logit of minus infinity: finite, so differences stay finite */

es_status kn_infer_alpha_divergence(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    ES_RETURN(kn_loss_check(g, n->in[0], n->in[1], true, err));
    if (!(n->a.clip > 0))
        return es_fail(err, ES_INVALID, NULL, "clip is %g, a number above 0 is needed", (double)n->a.clip);
    out[0] = kn_shape_leading(kn_in_shape(g, n, 0));
    return ES_OK;
}

es_status kn_infer_alpha_divergence_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype,
                                         es_error *err)
{
    (void)dtype;
    return kn_loss_grad_infer(g, n, true, out, err);
}

void kn_grad_alpha_divergence(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, ALPHA_DIVERGENCE_GRAD, &n->a, d[0], n->in[0], n->in[1]);
}

/* One class: its term of D_a in *value and w = q rho in *w, from log q and log p. */
static void term(double a, double clip, double lq, double lp, double *value, double *w)
{
    double lr = lp - lq, q = exp(lq), p = exp(lp);
    if (fabs(a) < 1e-3) {
        lr = fmin(lr, log(clip));
        *value = q == 0 ? 0 : -q * lr;
        *w = q == 0 ? 0 : q * (lr - 1);
    } else if (fabs(a - 1) < 1e-3) {
        *value = p == 0 ? 0 : p * lr;
        *w = p;
    } else {
        double base = 1 / (a * (a - 1)), qra = a * lr > log(clip) ? q * clip : exp(lq + a * lr);
        *value = (qra - q) * base;
        *w = qra / a + q * base;
    }
}

/* D_a of a row; w[] when not NULL. */
static double divergence(double a, double clip, const float *x, const float *t, int classes, double *w, double *w_sum)
{
    double lx = kn_ref_log_sum(x, classes), lt = kn_ref_log_sum(t, classes), sum = 0, all = 0;
    for (int i = 0; i < classes; i++) {
        double value, wi;
        term(a, clip, fmax(x[i] - lx, LOG_FLOOR), fmax(t[i] - lt, LOG_FLOOR), &value, &wi);
        sum += value;
        all += wi;
        if (w)
            w[i] = wi;
    }
    if (w_sum)
        *w_sum = all;
    return sum;
}

static double chosen(const kn_attr *a, const float *x, const float *t, int classes, double *value)
{
    double minus = divergence(a->alpha, a->clip, x, t, classes, NULL, NULL),
           plus = divergence(a->beta, a->clip, x, t, classes, NULL, NULL);
    *value = minus > plus ? minus : plus;
    return minus > plus ? a->alpha : a->beta;
}

es_status kn_ref_alpha_divergence(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *t = &c->in[1];
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        double value;
        chosen(c->a, kn_row(x, r), kn_row(t, r), kn_cols(&x->shape), &value);
        kn_put(c, 0, kn_nth(&c->out[0], r), value);
    }
    return ES_OK;
}

es_status kn_ref_alpha_divergence_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[1], *t = &c->in[2];
    const kn_tensor *d = &c->in[0];
    int classes = kn_cols(&x->shape);
    double *w = malloc(sizeof *w * (size_t)classes);
    if (!w)
        return es_fail(err, ES_NO_MEMORY, NULL, "no memory for %d classes", classes);
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *xr = kn_row(x, r);
        double value, all, lse = kn_ref_log_sum(xr, classes), a = chosen(c->a, xr, kn_row(t, r), classes, &value);
        divergence(a, c->a->clip, xr, kn_row(t, r), classes, w, &all);
        for (int i = 0; i < classes; i++)
            kn_put(c, 0, kn_row_at(&c->out[0], r) + i, kn_get(d, kn_nth(d, r)) * (exp(xr[i] - lse) * all - w[i]));
    }
    free(w);
    return ES_OK;
}
