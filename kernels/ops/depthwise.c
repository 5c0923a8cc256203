/* Depthwise convolution (one filter per channel, weights [kh][kw][c]) and its two gradients; the same bilinear trio as conv.c. */
#include "kernels/ops/ref.h"
#include "kernels/ops/window.h"

static kn_val emit(kn_graph *g, kn_op op, const kn_node *n, kn_val p, kn_val q, kn_val like)
{
    kn_attr a = {.stride = n->a.stride, .pad = n->a.pad, .dilation = n->a.dilation};
    kn_shape s = kn_shape_of(g, like);
    if (op == KN_OP_DEPTHWISE_DX) {
        a.h = s.d[1];
        a.w = s.d[2];
    } else if (op == KN_OP_DEPTHWISE_DW) {
        a.kh = s.d[0];
        a.kw = s.d[1];
    }
    return kn_emit(g, op, &a, (kn_val[]){p, q}, 2);
}

/* The size oh x ow that an image h x w of c channels has after a kernel kh x kw; both operands have c channels, the weight has rank 3. */
static es_status check(const kn_graph *g, const kn_node *n, int rank, kn_shape image, kn_shape kernel, kn_shape *y,
                       es_error *err)
{
    const kn_shape *p = kn_in_shape(g, n, 0), *q = kn_in_shape(g, n, 1);
    int32_t oh, ow;
    if (p->rank != 4 || q->rank != rank || p->d[3] != q->d[rank - 1])
        return es_fail(err, ES_INVALID, NULL,
                       "images must be [n, h, w, c] and the weight [kh, kw, c], with the same c");
    ES_RETURN(kn_window_check(n, err));
    ES_RETURN(kn_window_size(n, image.d[0], kernel.d[0], &oh, err));
    ES_RETURN(kn_window_size(n, image.d[1], kernel.d[1], &ow, err));
    *y = KN_SHAPE(p->d[0], oh, ow, p->d[3]);
    return ES_OK;
}

es_status kn_infer_depthwise(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *x = kn_in_shape(g, n, 0), *w = kn_in_shape(g, n, 1);
    (void)dtype;
    return check(g, n, 3, KN_SHAPE(x->d[1], x->d[2]), KN_SHAPE(w->d[0], w->d[1]), &out[0], err);
}

es_status kn_infer_depthwise_dx(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *dy = kn_in_shape(g, n, 0), *w = kn_in_shape(g, n, 1);
    kn_shape y;
    (void)dtype;
    ES_RETURN(check(g, n, 3, KN_SHAPE(n->a.h, n->a.w), KN_SHAPE(w->d[0], w->d[1]), &y, err));
    if (!kn_shape_equal(&y, dy))
        return es_fail(err, ES_INVALID, NULL, "dy is no result of an image %d x %d with this w", n->a.h, n->a.w);
    out[0] = KN_SHAPE(dy->d[0], n->a.h, n->a.w, dy->d[3]);
    return ES_OK;
}

es_status kn_infer_depthwise_dw(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *x = kn_in_shape(g, n, 0), *dy = kn_in_shape(g, n, 1);
    kn_shape y;
    (void)dtype;
    ES_RETURN(check(g, n, 4, KN_SHAPE(x->d[1], x->d[2]), KN_SHAPE(n->a.kh, n->a.kw), &y, err));
    if (!kn_shape_equal(&y, dy))
        return es_fail(err, ES_INVALID, NULL, "dy is no result of x with a kernel %d x %d", n->a.kh, n->a.kw);
    out[0] = KN_SHAPE(n->a.kh, n->a.kw, x->d[3]);
    return ES_OK;
}

void kn_grad_depthwise(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit(g, KN_OP_DEPTHWISE_DX, n, d[0], n->in[1], n->in[0]);
    if (need[1])
        din[1] = emit(g, KN_OP_DEPTHWISE_DW, n, n->in[0], d[0], n->in[1]);
}

void kn_grad_depthwise_dx(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit(g, KN_OP_DEPTHWISE, n, d[0], n->in[1], n->in[0]);
    if (need[1])
        din[1] = emit(g, KN_OP_DEPTHWISE_DW, n, d[0], n->in[0], n->in[1]);
}

void kn_grad_depthwise_dw(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit(g, KN_OP_DEPTHWISE_DX, n, n->in[1], d[0], n->in[0]);
    if (need[1])
        din[1] = emit(g, KN_OP_DEPTHWISE, n, n->in[0], d[0], n->in[1]);
}

static const float *tap(const kn_tensor *w, int i, int j)
{
    return (const float *)w->p + i * w->stride[0] + j * w->stride[1];
}

es_status kn_ref_depthwise(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    const kn_attr *a = c->a;
    int oh = y->shape.d[1], ow = y->shape.d[2];
    (void)err;
    for (int64_t p = 0; p < kn_rows(&y->shape); p++)
        for (int ch = 0; ch < y->shape.d[3]; ch++) {
            double sum = 0;
            for (int i = 0; i < w->shape.d[0]; i++)
                for (int j = 0; j < w->shape.d[1]; j++) {
                    int iy = (int)(p / ow % oh) * a->stride - a->pad + i * a->dilation,
                        ix = (int)(p % ow) * a->stride - a->pad + j * a->dilation;
                    if (iy >= 0 && iy < x->shape.d[1] && ix >= 0 && ix < x->shape.d[2])
                        sum += (double)kn_pixel(x, p / (oh * ow), iy, ix)[ch] * tap(w, i, j)[ch];
                }
            kn_put(c, 0, kn_row_at(y, p) + ch, sum);
        }
    return ES_OK;
}

es_status kn_ref_depthwise_dx(const kn_call *c, es_error *err)
{
    const kn_tensor *dy = &c->in[0], *w = &c->in[1], *dx = &c->out[0];
    const kn_attr *a = c->a;
    int h = dx->shape.d[1], wd = dx->shape.d[2];
    (void)err;
    for (int64_t p = 0; p < kn_rows(&dx->shape); p++)
        for (int ch = 0; ch < dx->shape.d[3]; ch++) {
            double sum = 0;
            for (int i = 0; i < w->shape.d[0]; i++)
                for (int j = 0; j < w->shape.d[1]; j++) {
                    int ty = (int)(p / wd % h) + a->pad - i * a->dilation,
                        tx = (int)(p % wd) + a->pad - j * a->dilation;
                    if (ty < 0 || tx < 0 || ty % a->stride || tx % a->stride || ty / a->stride >= dy->shape.d[1] ||
                        tx / a->stride >= dy->shape.d[2])
                        continue;
                    sum += (double)kn_pixel(dy, p / (h * wd), ty / a->stride, tx / a->stride)[ch] * tap(w, i, j)[ch];
                }
            kn_put(c, 0, kn_row_at(dx, p) + ch, sum);
        }
    return ES_OK;
}

es_status kn_ref_depthwise_dw(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *dy = &c->in[1], *dw = &c->out[0];
    const kn_attr *a = c->a;
    int oh = dy->shape.d[1], ow = dy->shape.d[2];
    (void)err;
    for (int64_t r = 0; r < kn_rows(&dw->shape); r++) /* r is the tap */
        for (int ch = 0; ch < dw->shape.d[2]; ch++) {
            double sum = 0;
            for (int64_t p = 0; p < kn_rows(&dy->shape); p++) {
                int iy = (int)(p / ow % oh) * a->stride - a->pad + (int)(r / a->kw) * a->dilation;
                int ix = (int)(p % ow) * a->stride - a->pad + (int)(r % a->kw) * a->dilation;
                if (iy >= 0 && iy < x->shape.d[1] && ix >= 0 && ix < x->shape.d[2])
                    sum += (double)kn_row(dy, p)[ch] * kn_pixel(x, p / (oh * ow), iy, ix)[ch];
            }
            kn_put(c, 0, kn_row_at(dw, r) + ch, sum);
        }
    return ES_OK;
}
