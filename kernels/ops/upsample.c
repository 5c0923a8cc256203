/* Nearest-neighbour upsampling by a whole factor, NHWC, and its adjoint: the sum over each block. */
#include "kernels/ops/ref.h"

es_status kn_infer_upsample(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *x = kn_in_shape(g, n, 0);
    (void)dtype;
    if (x->rank != 4 || n->a.kernel < 1)
        return es_fail(err, ES_INVALID, NULL, "factor %d: images must be [n, h, w, c] and the factor at least 1",
                       n->a.kernel);
    out[0] = KN_SHAPE(x->d[0], x->d[1] * n->a.kernel, x->d[2] * n->a.kernel, x->d[3]);
    return ES_OK;
}

es_status kn_infer_upsample_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *d = kn_in_shape(g, n, 0);
    (void)dtype;
    if (d->rank != 4 || n->a.kernel < 1 || d->d[1] % n->a.kernel || d->d[2] % n->a.kernel)
        return es_fail(err, ES_INVALID, NULL, "factor %d does not divide the height and width of d", n->a.kernel);
    out[0] = KN_SHAPE(d->d[0], d->d[1] / n->a.kernel, d->d[2] / n->a.kernel, d->d[3]);
    return ES_OK;
}

void kn_grad_upsample(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, UPSAMPLE_GRAD, &n->a, d[0]);
}

void kn_grad_upsample_grad(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_upsample(g, d[0], n->a.kernel);
}

es_status kn_ref_upsample(const kn_call *c, es_error *err)
{
    const kn_tensor *y = &c->out[0];
    int f = c->a->kernel;
    (void)err;
    for (kn_iter it = kn_iter_start(&y->shape); it.more; kn_iter_next(&it))
        kn_put(c, 0, kn_offset(y, it.i, 4), kn_pixel(&c->in[0], it.i[0], it.i[1] / f, it.i[2] / f)[it.i[3]]);
    return ES_OK;
}

es_status kn_ref_upsample_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *dx = &c->out[0];
    int f = c->a->kernel;
    (void)err;
    for (kn_iter it = kn_iter_start(&dx->shape); it.more; kn_iter_next(&it)) {
        double sum = 0;
        for (int i = 0; i < f; i++)
            for (int j = 0; j < f; j++)
                sum += kn_pixel(&c->in[0], it.i[0], it.i[1] * f + i, it.i[2] * f + j)[it.i[3]];
        kn_put(c, 0, kn_offset(dx, it.i, 4), sum);
    }
    return ES_OK;
}
