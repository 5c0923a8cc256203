/* Convolutions as products: 1x1 directly on the activations, others on patches gathered piece by piece. */
#include "kernels/cpu/fuse.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/product.h"

typedef struct conv {
    int64_t n, h, w, ci, oh, ow, co; /* whole tensors */
    int kh, kw, stride, pad, dilation, groups;
    int64_t cg, og, k; /* inputs and outputs of one group; k = kh kw cg, the length of a patch */
    bool point;        /* 1x1, stride 1, no padding, one group: rows of x are patches */
    kn_pieces rows;    /* of patches: whole lines of one image; count is per image */
    kn_pieces images;  /* for sums over images */
} conv;

static int64_t unit(int32_t v) { return v > 0 ? v : 1; }

/* x and y by their shapes; kernel height and width by the weight's. */
static conv conv_of(const kn_attr *a, const kn_shape *x, const kn_shape *y, int kh, int kw)
{
    conv v = {.n = x->d[0],
              .h = x->d[1],
              .w = x->d[2],
              .ci = x->d[3],
              .oh = y->d[1],
              .ow = y->d[2],
              .co = y->d[3],
              .kh = kh,
              .kw = kw,
              .stride = (int)unit(a->stride),
              .pad = a->pad,
              .dilation = (int)unit(a->dilation),
              .groups = (int)unit(a->groups)};
    v.cg = v.ci / v.groups;
    v.og = v.co / v.groups;
    v.k = v.cg * kh * kw;
    v.point = kh == 1 && kw == 1 && v.stride == 1 && v.pad == 0 && v.groups == 1;
    int64_t lines = KN_PIECE_BYTES / (4 * v.ow * (v.k + v.og));
    lines = lines < 1 ? 1 : lines > v.oh ? v.oh : lines;
    v.rows = (kn_pieces){lines, (v.oh + lines - 1) / lines};
    /* One partial weight per piece: bounded in number and in bytes. */
    int64_t most = (4 << 20) / KN_MAX(v.co * v.k, 1);
    v.images = kn_pieces_at_most(v.n, most < 4 ? 4 : most > 16 ? 16 : most);
    return v;
}

static const float *weight_row(const kn_tensor *w, int64_t o, int i, int j)
{
    return kn_f(w) + o * w->stride[0] + i * w->stride[1] + j * w->stride[2];
}

/* to[(i, j, c)][o] of one group: rows of `ld`, zeros behind og. */
static void weight_transposed(float *to, int64_t ld, const conv *v, const kn_tensor *w, int g)
{
    for (int i = 0; i < v->kh; i++)
        for (int j = 0; j < v->kw; j++)
            kn_cpu_turn(to + (i * v->kw + j) * v->cg * ld, ld, weight_row(w, g * v->og, i, j), w->stride[0], (int)v->og,
                        (int)v->cg);
}

/* to[o][(i, j, c)] of one group, dense. */
static void weight_dense(float *to, const conv *v, const kn_tensor *w, int g)
{
    for (int64_t o = 0; o < v->og; o++)
        for (int i = 0; i < v->kh; i++)
            for (int j = 0; j < v->kw; j++)
                memcpy(to + o * v->k + (i * v->kw + j) * v->cg, weight_row(w, g * v->og + o, i, j),
                       sizeof(float) * (size_t)v->cg);
}

/* Patches of output lines [from, to) of one image and group: rows of k. x points at the image's first channel of the group. */
static void gather(float *patch, const conv *v, const float *x, int64_t from, int64_t to)
{
    for (int64_t oh = from; oh < to; oh++)
        for (int64_t ow = 0; ow < v->ow; ow++)
            for (int i = 0; i < v->kh; i++) {
                int64_t h = oh * v->stride - v->pad + i * v->dilation;
                for (int j = 0; j < v->kw; j++, patch += v->cg) {
                    int64_t w = ow * v->stride - v->pad + j * v->dilation;
                    if (h < 0 || h >= v->h || w < 0 || w >= v->w)
                        memset(patch, 0, sizeof(float) * (size_t)v->cg);
                    else if (v->cg == 1)
                        *patch = x[(h * v->w + w) * v->ci];
                    else
                        memcpy(patch, x + (h * v->w + w) * v->ci, sizeof(float) * (size_t)v->cg);
                }
            }
}

/* The reverse: adds patches into the image. */
static void scatter(const float *patch, const conv *v, float *x, int64_t from, int64_t to)
{
    for (int64_t oh = from; oh < to; oh++)
        for (int64_t ow = 0; ow < v->ow; ow++)
            for (int i = 0; i < v->kh; i++) {
                int64_t h = oh * v->stride - v->pad + i * v->dilation;
                for (int j = 0; j < v->kw; j++, patch += v->cg) {
                    int64_t w = ow * v->stride - v->pad + j * v->dilation;
                    if (h < 0 || h >= v->h || w < 0 || w >= v->w)
                        continue;
                    float *to_px = x + (h * v->w + w) * v->ci;
                    for (int64_t q = 0; q < v->cg; q++)
                        to_px[q] += patch[q];
                }
            }
}

static size_t patch_bytes(const conv *v) { return kn_align(sizeof(float) * (size_t)(v->rows.rows * v->ow * v->k)); }

/* --- y = conv(x, w) --- */

static conv forward_of(const kn_call *c)
{
    return conv_of(c->a, &c->in[0].shape, &c->out[0].shape, c->in[1].shape.d[1], c->in[1].shape.d[2]);
}

size_t kn_cpu_conv2d_scratch(const kn_call *c)
{
    if (c->n_in > 2)
        return kn_cpu_point_lazy_scratch(c);
    conv v = forward_of(c);
    size_t weights = kn_align(sizeof(float) * (size_t)(v.groups * v.k * kn_cpu_padded(v.og)));
    return weights + (v.point ? 0 : (size_t)kn_cpu_threads(c) * patch_bytes(&v));
}

es_status kn_cpu_conv2d(const kn_call *c, es_error *err)
{
    if (c->n_in > 2)
        return kn_cpu_point_lazy(c, err);
    KN_CPU_NEED_FLAT(c, conv2d);
    conv v = forward_of(c);
    const int64_t ld = kn_cpu_padded(v.og);
    const float *x = kn_f(&c->in[0]);
    float *weights = c->scratch, *y = kn_fo(&c->out[0]);
    bool add = c->accumulate & 1;
    if (v.point) {
        kn_cpu_turn_parallel(c, weights, ld, kn_f(&c->in[1]), c->in[1].stride[0], (int)v.co, (int)v.ci);
        kn_cpu_rows_product(c, v.n * v.h * v.w, (int)v.co, (int)v.ci, x, v.ci, weights, ld, y, v.co, add);
        return ES_OK;
    }
    KN_CPU_FOR(c, g, v.groups) { weight_transposed(weights + g * v.k * ld, ld, &v, &c->in[1], (int)g); }
    char *patches = (char *)c->scratch + kn_align(sizeof(float) * (size_t)(v.groups * v.k * ld));
    KN_CPU_FOR(c, p, v.n * v.rows.count)
    {
        float *patch = (float *)(void *)(patches + (size_t)kn_cpu_self() * patch_bytes(&v));
        int64_t image = p / v.rows.count, from = p % v.rows.count * v.rows.rows, to = KN_MIN(from + v.rows.rows, v.oh);
        for (int g = 0; g < v.groups; g++) {
            gather(patch, &v, x + image * v.h * v.w * v.ci + g * v.cg, from, to);
            kn_cpu_gemm((int)((to - from) * v.ow), (int)v.og, (int)v.k, patch, v.k, 1, weights + g * v.k * ld, ld,
                        y + (image * v.oh + from) * v.ow * v.co + g * v.og, v.co, add);
        }
    }
    return ES_OK;
}

/* --- dx --- */

static conv dx_of(const kn_call *c)
{
    return conv_of(c->a, &c->out[0].shape, &c->in[0].shape, c->in[1].shape.d[1], c->in[1].shape.d[2]);
}

size_t kn_cpu_conv2d_dx_scratch(const kn_call *c)
{
    if (kn_back_joint(c))
        return kn_cpu_point_back_scratch(c);
    conv v = dx_of(c);
    return v.point ? 0 : kn_align(sizeof(float) * (size_t)(v.co * v.k)) + (size_t)kn_cpu_threads(c) * patch_bytes(&v);
}

es_status kn_cpu_conv2d_dx(const kn_call *c, es_error *err)
{
    if (kn_back_joint(c))
        return kn_cpu_point_back(c, err);
    KN_CPU_NEED_FLAT(c, conv2d_dx);
    conv v = dx_of(c);
    const float *dy = kn_f(&c->in[0]);
    float *dx = kn_fo(&c->out[0]);
    bool add = c->accumulate & 1;
    if (v.point) {
        kn_cpu_rows_product(c, v.n * v.h * v.w, (int)v.ci, (int)v.co, dy, v.co, kn_f(&c->in[1]), c->in[1].stride[0], dx,
                            v.ci, add);
        return ES_OK;
    }
    float *weights = c->scratch;
    char *patches = (char *)c->scratch + kn_align(sizeof(float) * (size_t)(v.co * v.k));
    KN_CPU_FOR(c, g, v.groups) { weight_dense(weights + g * v.og * v.k, &v, &c->in[1], (int)g); }
    /* Patches of neighbouring lines overlap in the image, so one image is one piece. */
    KN_CPU_FOR(c, image, v.n)
    {
        float *patch = (float *)(void *)(patches + (size_t)kn_cpu_self() * patch_bytes(&v));
        float *to_image = dx + image * v.h * v.w * v.ci;
        if (!add)
            memset(to_image, 0, sizeof(float) * (size_t)(v.h * v.w * v.ci));
        for (int64_t from = 0; from < v.oh; from += v.rows.rows) {
            int64_t to = KN_MIN(from + v.rows.rows, v.oh);
            for (int g = 0; g < v.groups; g++) {
                kn_cpu_gemm((int)((to - from) * v.ow), (int)v.k, (int)v.og,
                            dy + (image * v.oh + from) * v.ow * v.co + g * v.og, v.co, 1, weights + g * v.og * v.k, v.k,
                            patch, v.k, false);
                scatter(patch, &v, to_image + g * v.cg, from, to);
            }
        }
    }
    return ES_OK;
}

/* --- dw --- */

static conv dw_of(const kn_call *c) { return conv_of(c->a, &c->in[0].shape, &c->in[1].shape, c->a->kh, c->a->kw); }

size_t kn_cpu_conv2d_dw_scratch(const kn_call *c)
{
    if (c->n_in > 2)
        return kn_cpu_point_dw_lazy_scratch(c);
    conv v = dw_of(c);
    if (v.point)
        return kn_cpu_outer_scratch(v.n * v.h * v.w, (int)v.co, (int)v.ci);
    return kn_align(sizeof(float) * (size_t)(v.images.count * v.co * v.k)) +
           (size_t)kn_cpu_threads(c) * patch_bytes(&v);
}

/* dw[o][i][j][:] (strides) (+)= the sum of the dense partial weights [co][k]. */
static void fold_weights(const kn_call *c, const conv *v, const float *partial, bool add)
{
    const kn_tensor *t = &c->out[0];
    int64_t taps = (int64_t)v->kh * v->kw;
    if (t->stride[2] == v->cg && t->stride[1] == v->kw * v->cg) {
        kn_cpu_fold(c, kn_fo(t), t->stride[0], partial, v->co, v->k, v->images.count, add);
        return;
    }
    KN_CPU_FOR(c, o, v->co)
    {
        for (int64_t s = 0; s < taps; s++) {
            float *to = kn_fo(t) + o * t->stride[0] + s / v->kw * t->stride[1] + s % v->kw * t->stride[2];
            for (int64_t q = 0; q < v->cg; q++) {
                float sum = add ? to[q] : 0.0f;
                for (int64_t p = 0; p < v->images.count; p++)
                    sum += partial[(p * v->co + o) * v->k + s * v->cg + q];
                to[q] = sum;
            }
        }
    }
}

es_status kn_cpu_conv2d_dw(const kn_call *c, es_error *err)
{
    if (c->n_in > 2)
        return kn_cpu_point_dw_lazy(c, err);
    (void)err;
    conv v = dw_of(c);
    const float *x = kn_f(&c->in[0]), *dy = kn_f(&c->in[1]);
    bool add = c->accumulate & 1;
    if (v.point) {
        kn_cpu_outer_product(c, v.n * v.h * v.w, (int)v.co, (int)v.ci, dy, v.co, x, v.ci, kn_fo(&c->out[0]),
                             c->out[0].stride[0], add, c->scratch);
        return ES_OK;
    }
    float *partial = c->scratch;
    char *patches = (char *)c->scratch + kn_align(sizeof(float) * (size_t)(v.images.count * v.co * v.k));
    KN_CPU_FOR(c, p, v.images.count)
    {
        float *patch = (float *)(void *)(patches + (size_t)kn_cpu_self() * patch_bytes(&v));
        float *sum = partial + p * v.co * v.k;
        memset(sum, 0, sizeof(float) * (size_t)(v.co * v.k));
        for (int64_t image = p * v.images.rows; image < KN_MIN((p + 1) * v.images.rows, v.n); image++)
            for (int64_t from = 0; from < v.oh; from += v.rows.rows) {
                int64_t to = KN_MIN(from + v.rows.rows, v.oh);
                for (int g = 0; g < v.groups; g++) {
                    gather(patch, &v, x + image * v.h * v.w * v.ci + g * v.cg, from, to);
                    kn_cpu_gemm((int)v.og, (int)v.k, (int)((to - from) * v.ow),
                                dy + (image * v.oh + from) * v.ow * v.co + g * v.og, 1, v.co, patch, v.k,
                                sum + g * v.og * v.k, v.k, true);
                }
            }
    }
    fold_weights(c, &v, partial, add);
    return ES_OK;
}
