/* Max pooling, NHWC. Three linear-in-the-first-operand ops close the family under differentiation: with A(x) the map "pick the first maximum of
 * every window", MAX_POOL is A(x) x, MAX_POOL_GRAD is A(x)^T d and MAX_POOL_PICK is A(x) v. A itself is constant almost everywhere. */
#include <math.h>

#include "kernels/ops/ref.h"
#include "kernels/ops/window.h"

es_status kn_infer_max_pool(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return kn_pool_infer(n, kn_in_shape(g, n, 0), &out[0], err);
}

es_status kn_infer_max_pool_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    kn_shape y;
    (void)dtype;
    ES_RETURN(kn_pool_infer(n, kn_in_shape(g, n, 1), &y, err));
    if (!kn_shape_equal(&y, kn_in_shape(g, n, 0)))
        return es_fail(err, ES_INVALID, NULL, "d does not have the shape of the pooled x");
    out[0] = *kn_in_shape(g, n, 1);
    return ES_OK;
}

es_status kn_infer_max_pool_pick(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    if (!kn_shape_equal(kn_in_shape(g, n, 0), kn_in_shape(g, n, 1)))
        return es_fail(err, ES_INVALID, NULL, "v and x must have one shape");
    return kn_pool_infer(n, kn_in_shape(g, n, 1), &out[0], err);
}

void kn_grad_max_pool(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, MAX_POOL_GRAD, &n->a, d[0], n->in[0]);
}

void kn_grad_max_pool_grad(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, MAX_POOL_PICK, &n->a, d[0], n->in[1]);
}

void kn_grad_max_pool_pick(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, MAX_POOL_GRAD, &n->a, d[0], n->in[1]);
}

/* Where in the image the maximum of window (py, px) is. */
static void first_max(const kn_attr *a, const kn_tensor *x, int b, int py, int px, int ch, int *by, int *bx)
{
    double best = -INFINITY;
    *by = *bx = -1;
    for (int iy = py * a->stride - a->pad; iy < py * a->stride - a->pad + a->kernel; iy++)
        for (int ix = px * a->stride - a->pad; ix < px * a->stride - a->pad + a->kernel; ix++) {
            if (iy < 0 || ix < 0 || iy >= x->shape.d[1] || ix >= x->shape.d[2])
                continue;
            double v = kn_pixel(x, b, iy, ix)[ch];
            if (*by < 0 || v > best) {
                best = v;
                *by = iy;
                *bx = ix;
            }
        }
}

/* out = A(x) v. */
static es_status pick(const kn_call *c, const kn_tensor *v, const kn_tensor *x)
{
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        int by, bx;
        first_max(c->a, x, it.i[0], it.i[1], it.i[2], it.i[3], &by, &bx);
        kn_put(c, 0, kn_offset(&c->out[0], it.i, 4), kn_pixel(v, it.i[0], by, bx)[it.i[3]]);
    }
    return ES_OK;
}

es_status kn_ref_max_pool(const kn_call *c, es_error *err)
{
    (void)err;
    return pick(c, &c->in[0], &c->in[0]);
}

es_status kn_ref_max_pool_pick(const kn_call *c, es_error *err)
{
    (void)err;
    return pick(c, &c->in[0], &c->in[1]);
}

es_status kn_ref_max_pool_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *d = &c->in[0], *x = &c->in[1], *out = &c->out[0];
    (void)err;
    for (kn_iter it = kn_iter_start(&out->shape); it.more; kn_iter_next(&it)) {
        double sum = 0;
        for (int py = 0; py < d->shape.d[1]; py++)
            for (int px = 0; px < d->shape.d[2]; px++) {
                int by, bx;
                first_max(c->a, x, it.i[0], py, px, it.i[3], &by, &bx);
                sum += by == it.i[1] && bx == it.i[2] ? kn_pixel(d, it.i[0], py, px)[it.i[3]] : 0;
            }
        kn_put(c, 0, kn_offset(out, it.i, 4), sum);
    }
    return ES_OK;
}
