/* Softmax and log-softmax over the last dim, their gradients, and the gradients of those in closed form. */
#include <math.h>

#include "kernels/ops/loss.h"
#include "kernels/ops/ref.h"

/* v is present: gradients are only asked of nodes that are. */
static kn_val row_sum(kn_graph *g, kn_val v) { return kn_reduce_sum(g, v, 1u << (kn_shape_of(g, v).rank - 1)); }

kn_val kn_softmax_masked(kn_graph *g, kn_val x, bool causal)
{
    return KN_EMIT(g, SOFTMAX, &(kn_attr){.causal = causal}, x);
}
kn_val kn_softmax_back(kn_graph *g, kn_val d, kn_val y) { return KN_EMIT(g, SOFTMAX_GRAD, &(kn_attr){0}, d, y); }

es_status kn_infer_softmax(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *x = kn_in_shape(g, n, 0);
    (void)dtype;
    if (x->rank < 1)
        return es_fail(err, ES_INVALID, NULL, "rank 1 or more is needed");
    if (n->a.causal && (x->rank < 2 || x->d[x->rank - 2] > x->d[x->rank - 1]))
        return es_fail(err, ES_INVALID, NULL, "a causal one needs [..., rows, columns] with no more rows than columns");
    out[0] = *x;
    return ES_OK;
}

es_status kn_infer_softmax_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *d = kn_in_shape(g, n, 0);
    (void)dtype;
    if (d->rank < 1 || !kn_shape_equal(d, kn_in_shape(g, n, 1)))
        return es_fail(err, ES_INVALID, NULL, "d and y must have one shape");
    out[0] = *d;
    return ES_OK;
}

es_status kn_infer_log_softmax(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    return kn_infer_softmax(g, n, out, dtype, err);
}

es_status kn_infer_log_softmax_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    return kn_infer_softmax_grad(g, n, out, dtype, err);
}

void kn_grad_softmax(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_softmax_back(g, d[0], n->out);
}

/* f(d, y) = y (d - sum d y). For a gradient e of f: to d it is f(e, y), to y it is e d - e sum(d y) - d sum(e y). */
void kn_grad_softmax_grad(kn_graph *g, const kn_node *n, const kn_val *e, const bool *need, kn_val *din)
{
    kn_val d = n->in[0], y = n->in[1];
    if (need[0])
        din[0] = kn_softmax_back(g, e[0], y);
    if (need[1]) {
        kn_val to_e = kn_sub(g, d, row_sum(g, kn_mul(g, d, y)));
        din[1] = kn_sub(g, kn_mul(g, e[0], to_e), kn_mul(g, d, row_sum(g, kn_mul(g, e[0], y))));
    }
}

void kn_grad_log_softmax(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, LOG_SOFTMAX_GRAD, &(kn_attr){0}, d[0], n->out);
}

/* f(d, y) = d - exp(y) sum d. For a gradient e of f: to d it is e - sum(e exp y), to y it is -e exp(y) sum d. */
void kn_grad_log_softmax_grad(kn_graph *g, const kn_node *n, const kn_val *e, const bool *need, kn_val *din)
{
    kn_val weighted = kn_mul(g, e[0], kn_activate(g, n->in[1], KN_ACT_EXP));
    if (need[0])
        din[0] = kn_sub(g, e[0], row_sum(g, weighted));
    if (need[1])
        din[1] = kn_scale(g, kn_mul(g, weighted, row_sum(g, n->in[0])), -1.0f);
}

double kn_ref_log_sum(const float *x, int n)
{
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    for (int i = 0; i < n; i++)
        sum += exp(x[i] - top);
    return top + log(sum);
}

es_status kn_ref_softmax(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *y = &c->out[0];
    int cols = kn_cols(&x->shape), rows = x->shape.rank > 1 ? x->shape.d[x->shape.rank - 2] : 1;
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *p = kn_row(x, r);
        int seen = c->a->causal ? (int)(r % rows) + cols - rows + 1 : cols;
        double lse = kn_ref_log_sum(p, seen);
        for (int i = 0; i < cols; i++)
            kn_put(c, 0, kn_row_at(y, r) + i, i < seen ? exp(p[i] - lse) : 0);
    }
    return ES_OK;
}

es_status kn_ref_log_softmax(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *y = &c->out[0];
    int cols = kn_cols(&x->shape);
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *p = kn_row(x, r);
        double lse = kn_ref_log_sum(p, cols);
        for (int i = 0; i < cols; i++)
            kn_put(c, 0, kn_row_at(y, r) + i, p[i] - lse);
    }
    return ES_OK;
}

es_status kn_ref_softmax_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *d = &c->in[0], *y = &c->in[1];
    int cols = kn_cols(&d->shape);
    (void)err;
    for (int64_t r = 0; r < kn_rows(&d->shape); r++) {
        const float *dr = kn_row(d, r), *yr = kn_row(y, r);
        double dot = 0;
        for (int i = 0; i < cols; i++)
            dot += (double)dr[i] * yr[i];
        for (int i = 0; i < cols; i++)
            kn_put(c, 0, kn_row_at(&c->out[0], r) + i, yr[i] * (dr[i] - dot));
    }
    return ES_OK;
}

es_status kn_ref_log_softmax_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *d = &c->in[0], *y = &c->in[1];
    int cols = kn_cols(&d->shape);
    (void)err;
    for (int64_t r = 0; r < kn_rows(&d->shape); r++) {
        const float *dr = kn_row(d, r), *yr = kn_row(y, r);
        double sum = 0;
        for (int i = 0; i < cols; i++)
            sum += dr[i];
        for (int i = 0; i < cols; i++)
            kn_put(c, 0, kn_row_at(&c->out[0], r) + i, dr[i] - exp(yr[i]) * sum);
    }
    return ES_OK;
}
