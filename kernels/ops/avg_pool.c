/* Average pooling, NHWC, and its gradient; both linear, each the other's adjoint. Padding counts as zeros (count_pad) or not at all. */
#include "kernels/ops/ref.h"
#include "kernels/ops/window.h"

es_status kn_infer_avg_pool(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return kn_pool_infer(n, kn_in_shape(g, n, 0), &out[0], err);
}

es_status kn_infer_avg_pool_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *d = kn_in_shape(g, n, 0);
    kn_shape x = KN_SHAPE(d->d[0], n->a.h, n->a.w, d->d[3]), y;
    (void)dtype;
    ES_RETURN(kn_pool_infer(n, &x, &y, err));
    if (!kn_shape_equal(&y, d))
        return es_fail(err, ES_INVALID, NULL, "d does not have the shape of a pooled image %d x %d", n->a.h, n->a.w);
    out[0] = x;
    return ES_OK;
}

void kn_grad_avg_pool(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_attr a = n->a;
    a.h = kn_in_shape(g, n, 0)->d[1];
    a.w = kn_in_shape(g, n, 0)->d[2];
    if (need[0])
        din[0] = KN_EMIT(g, AVG_POOL_GRAD, &a, d[0]);
}

void kn_grad_avg_pool_grad(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_avg_pool(g, d[0], n->a.kernel, n->a.stride, n->a.pad, n->a.count_pad);
}

/* The part of a window that lies in 0..size-1; its length is also what a window without counted padding is divided by. */
static int clip(const kn_attr *a, int p, int size, int *from)
{
    int start = p * a->stride - a->pad, end = start + a->kernel;
    *from = start < 0 ? 0 : start;
    return (end > size ? size : end) - *from;
}

static double divisor(const kn_attr *a, int rows, int cols)
{
    return a->count_pad ? (double)a->kernel * a->kernel : (double)rows * cols;
}

es_status kn_ref_avg_pool(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *y = &c->out[0];
    (void)err;
    for (kn_iter it = kn_iter_start(&y->shape); it.more; kn_iter_next(&it)) {
        int fy, fx, rows = clip(c->a, it.i[1], x->shape.d[1], &fy), cols = clip(c->a, it.i[2], x->shape.d[2], &fx);
        double sum = 0;
        for (int iy = fy; iy < fy + rows; iy++)
            for (int ix = fx; ix < fx + cols; ix++)
                sum += kn_pixel(x, it.i[0], iy, ix)[it.i[3]];
        kn_put(c, 0, kn_offset(y, it.i, 4), sum / divisor(c->a, rows, cols));
    }
    return ES_OK;
}

es_status kn_ref_avg_pool_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *d = &c->in[0], *dx = &c->out[0];
    (void)err;
    for (kn_iter it = kn_iter_start(&dx->shape); it.more; kn_iter_next(&it)) {
        double sum = 0;
        for (int py = 0; py < d->shape.d[1]; py++)
            for (int px = 0; px < d->shape.d[2]; px++) {
                int fy, fx, rows = clip(c->a, py, dx->shape.d[1], &fy), cols = clip(c->a, px, dx->shape.d[2], &fx);
                if (it.i[1] >= fy && it.i[1] < fy + rows && it.i[2] >= fx && it.i[2] < fx + cols)
                    sum += kn_pixel(d, it.i[0], py, px)[it.i[3]] / divisor(c->a, rows, cols);
            }
        kn_put(c, 0, kn_offset(dx, it.i, 4), sum);
    }
    return ES_OK;
}
