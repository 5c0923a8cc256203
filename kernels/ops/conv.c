/* Convolution and its two gradients, with groups and dilation.
 *
 * y = CONV(x, w) is bilinear, and so are dx = DX(dy, w) and dw = DW(x, dy): for every x, w, dy of fitting shapes
 *     <CONV(x, w), dy> = <x, DX(dy, w)> = <w, DW(x, dy)>
 * which gives all six partial derivatives of the three below, each again one of the three. */
#include "kernels/ops/ref.h"
#include "kernels/ops/window.h"

/* The attributes that all three share, with the sizes that this one needs. */
static kn_attr conv_attr(const kn_node *n, int h, int w, int kh, int kw)
{
    kn_attr a = {.stride = n->a.stride, .pad = n->a.pad, .groups = n->a.groups, .dilation = n->a.dilation};
    a.h = h;
    a.w = w;
    a.kh = kh;
    a.kw = kw;
    return a;
}

static kn_val emit_conv(kn_graph *g, const kn_node *n, kn_val x, kn_val w)
{
    kn_attr a = conv_attr(n, 0, 0, 0, 0);
    return KN_EMIT(g, CONV2D, &a, x, w);
}

static kn_val emit_dx(kn_graph *g, const kn_node *n, kn_val dy, kn_val w, kn_val like)
{
    kn_shape s = kn_shape_of(g, like);
    kn_attr a = conv_attr(n, s.d[1], s.d[2], 0, 0);
    return KN_EMIT(g, CONV2D_DX, &a, dy, w);
}

static kn_val emit_dw(kn_graph *g, const kn_node *n, kn_val x, kn_val dy, kn_val like)
{
    kn_shape s = kn_shape_of(g, like);
    kn_attr a = conv_attr(n, 0, 0, s.d[1], s.d[2]);
    return KN_EMIT(g, CONV2D_DW, &a, x, dy);
}

/* Shape inference. */

static es_status check_ranks(const kn_graph *g, const kn_node *n, const char *names, es_error *err)
{
    if (kn_in_shape(g, n, 0)->rank != 4 || kn_in_shape(g, n, 1)->rank != 4)
        return es_fail(err, ES_INVALID, NULL, "%s must both have rank 4", names);
    if (n->a.groups < 1)
        return es_fail(err, ES_INVALID, NULL, "groups is %d, at least 1 is needed", n->a.groups);
    return kn_window_check(n, err);
}

es_status kn_infer_conv2d(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *x = kn_in_shape(g, n, 0), *w = kn_in_shape(g, n, 1);
    int32_t oh, ow;
    (void)dtype;
    ES_RETURN(check_ranks(g, n, "x [n, h, w, c] and w [out, kh, kw, c / groups]", err));
    if (x->d[3] != w->d[3] * n->a.groups || w->d[0] % n->a.groups != 0)
        return es_fail(err, ES_INVALID, NULL,
                       "with %d groups, w must have %g input channels and a multiple of %d outputs", n->a.groups,
                       (double)x->d[3] / n->a.groups, n->a.groups);
    ES_RETURN(kn_window_size(n, x->d[1], w->d[1], &oh, err));
    ES_RETURN(kn_window_size(n, x->d[2], w->d[2], &ow, err));
    out[0] = KN_SHAPE(x->d[0], oh, ow, w->d[0]);
    return ES_OK;
}

es_status kn_infer_conv2d_dx(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *dy = kn_in_shape(g, n, 0), *w = kn_in_shape(g, n, 1);
    int32_t oh, ow;
    (void)dtype;
    ES_RETURN(check_ranks(g, n, "dy and w", err));
    ES_RETURN(kn_window_size(n, n->a.h, w->d[1], &oh, err));
    ES_RETURN(kn_window_size(n, n->a.w, w->d[2], &ow, err));
    if (dy->d[1] != oh || dy->d[2] != ow || dy->d[3] != w->d[0] || w->d[0] % n->a.groups != 0)
        return es_fail(err, ES_INVALID, NULL, "dy is no result of an image %d x %d with this w", n->a.h, n->a.w);
    out[0] = KN_SHAPE(dy->d[0], n->a.h, n->a.w, w->d[3] * n->a.groups);
    return ES_OK;
}

es_status kn_infer_conv2d_dw(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *x = kn_in_shape(g, n, 0), *dy = kn_in_shape(g, n, 1);
    int32_t oh, ow;
    (void)dtype;
    ES_RETURN(check_ranks(g, n, "x and dy", err));
    ES_RETURN(kn_window_size(n, x->d[1], n->a.kh, &oh, err));
    ES_RETURN(kn_window_size(n, x->d[2], n->a.kw, &ow, err));
    if (x->d[0] != dy->d[0] || dy->d[1] != oh || dy->d[2] != ow || dy->d[3] % n->a.groups != 0 ||
        x->d[3] % n->a.groups != 0)
        return es_fail(err, ES_INVALID, NULL, "dy is no result of x with a kernel %d x %d and %d groups", n->a.kh,
                       n->a.kw, n->a.groups);
    out[0] = KN_SHAPE(dy->d[3], n->a.kh, n->a.kw, x->d[3] / n->a.groups);
    return ES_OK;
}

/* Gradients: read off the identity above. */

void kn_grad_conv2d(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit_dx(g, n, d[0], n->in[1], n->in[0]);
    if (need[1])
        din[1] = emit_dw(g, n, n->in[0], d[0], n->in[1]);
}

void kn_grad_conv2d_dx(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit_conv(g, n, d[0], n->in[1]);
    if (need[1])
        din[1] = emit_dw(g, n, d[0], n->in[0], n->in[1]);
}

void kn_grad_conv2d_dw(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit_dx(g, n, n->in[1], d[0], n->in[0]);
    if (need[1])
        din[1] = emit_conv(g, n, n->in[0], d[0]);
}

/* Reference kernels. One loop over all pairs (output pixel, kernel tap) that touch the image serves the three. */

typedef struct window {
    int32_t n, oh, ow, h, w, kh, kw; /* sizes */
    const kn_attr *a;
} window;

/* Whether tap (i, j) of output pixel (y, x) lies in the image; then *iy, *ix is where. */
static bool window_at(const window *v, int y, int x, int i, int j, int *iy, int *ix)
{
    *iy = y * v->a->stride - v->a->pad + i * v->a->dilation;
    *ix = x * v->a->stride - v->a->pad + j * v->a->dilation;
    return *iy >= 0 && *iy < v->h && *ix >= 0 && *ix < v->w;
}

es_status kn_ref_conv2d(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    window v = {y->shape.d[0], y->shape.d[1], y->shape.d[2], x->shape.d[1],
                x->shape.d[2], w->shape.d[1], w->shape.d[2], c->a};
    int outs = w->shape.d[0], per_in = w->shape.d[3], per_out = outs / c->a->groups, iy, ix;
    (void)err;
    for (int64_t p = 0; p < kn_rows(&y->shape); p++) {
        int b = (int)(p / (v.oh * v.ow)), py = (int)(p / v.ow % v.oh), px = (int)(p % v.ow);
        for (int o = 0; o < outs; o++) {
            double sum = 0;
            for (int i = 0; i < v.kh; i++)
                for (int j = 0; j < v.kw; j++) {
                    if (!window_at(&v, py, px, i, j, &iy, &ix))
                        continue;
                    const float *xs = kn_pixel(x, b, iy, ix) + o / per_out * per_in, *ws = kn_pixel(w, o, i, j);
                    for (int k = 0; k < per_in; k++)
                        sum += (double)xs[k] * ws[k];
                }
            kn_put(c, 0, kn_row_at(y, p) + o, sum);
        }
    }
    return ES_OK;
}

es_status kn_ref_conv2d_dx(const kn_call *c, es_error *err)
{
    const kn_tensor *dy = &c->in[0], *w = &c->in[1], *dx = &c->out[0];
    window v = {dx->shape.d[0], dy->shape.d[1], dy->shape.d[2], dx->shape.d[1],
                dx->shape.d[2], w->shape.d[1],  w->shape.d[2],  c->a};
    int outs = w->shape.d[0], per_in = w->shape.d[3], per_out = outs / c->a->groups, st = c->a->stride;
    (void)err;
    for (int64_t p = 0; p < kn_rows(&dx->shape); p++) {
        int b = (int)(p / (v.h * v.w)), iy = (int)(p / v.w % v.h), ix = (int)(p % v.w);
        for (int ch = 0; ch < dx->shape.d[3]; ch++) {
            double sum = 0;
            for (int i = 0; i < v.kh; i++)
                for (int j = 0; j < v.kw; j++) { /* the output pixels that saw this input pixel through tap (i, j) */
                    int ty = iy + c->a->pad - i * c->a->dilation, tx = ix + c->a->pad - j * c->a->dilation;
                    if (ty < 0 || tx < 0 || ty % st || tx % st || ty / st >= v.oh || tx / st >= v.ow)
                        continue;
                    const float *ds = kn_pixel(dy, b, ty / st, tx / st);
                    for (int o = ch / per_in * per_out; o < (ch / per_in + 1) * per_out; o++)
                        sum += (double)ds[o] * kn_pixel(w, o, i, j)[ch % per_in];
                }
            kn_put(c, 0, kn_row_at(dx, p) + ch, sum);
        }
    }
    return ES_OK;
}

es_status kn_ref_conv2d_dw(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *dy = &c->in[1], *dw = &c->out[0];
    window v = {x->shape.d[0], dy->shape.d[1], dy->shape.d[2], x->shape.d[1], x->shape.d[2], c->a->kh, c->a->kw, c->a};
    int per_in = dw->shape.d[3], per_out = dw->shape.d[0] / c->a->groups, iy, ix;
    (void)err;
    for (int64_t r = 0; r < kn_rows(&dw->shape); r++) {
        int o = (int)(r / (v.kh * v.kw)), i = (int)(r / v.kw % v.kh), j = (int)(r % v.kw);
        for (int k = 0; k < per_in; k++) {
            double sum = 0;
            for (int b = 0; b < v.n; b++)
                for (int py = 0; py < v.oh; py++)
                    for (int px = 0; px < v.ow; px++)
                        if (window_at(&v, py, px, i, j, &iy, &ix))
                            sum +=
                                (double)kn_pixel(dy, b, py, px)[o] * kn_pixel(x, b, iy, ix)[o / per_out * per_in + k];
            kn_put(c, 0, kn_row_at(dw, r) + k, sum);
        }
    }
    return ES_OK;
}
