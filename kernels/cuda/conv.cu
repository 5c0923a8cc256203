/* Dense and grouped convolution, NHWC, weights OHWI.
 *
 * 1x1 with stride 1 is a product on the tensors as they lie, the weight a strided slice (with more inputs: fuse_points.cu). Anything else goes through a column matrix [pixels][kh kw cg], made for
 * as many images as fit COLUMN_BYTES, and a packed copy of the (small) weight. dx gathers from the columns instead of scattering, so it is deterministic.
 */
#include "kernels/cuda/cuda.cuh"

enum { COLUMN_BYTES = 256 << 20 };

struct conv_geometry {
    int n, h, w, ci, oh, ow, co, kh, kw, stride, pad, dilation, groups;
    int cg, og;     /* channels in and out of one group */
    int64_t pixels; /* oh * ow */
    int64_t taps;   /* kh * kw * cg: what a row of the column matrix holds */
    int64_t width;  /* taps rounded up to 8, so that products take vectors: an RGB image's 27 are 32, the rest zeros */
    int images;     /* of one chunk */
    bool plain;     /* 1x1, stride 1, no padding, one group */
};

static conv_geometry geometry(const kn_attr *a, const kn_shape *x, const kn_shape *y, int kh, int kw, size_t element)
{
    conv_geometry g = {};
    g.n = x->d[0], g.h = x->d[1], g.w = x->d[2], g.ci = x->d[3], g.oh = y->d[1], g.ow = y->d[2], g.co = y->d[3];
    g.kh = kh, g.kw = kw, g.stride = a->stride, g.pad = a->pad, g.dilation = a->dilation > 0 ? a->dilation : 1;
    g.groups = a->groups > 0 ? a->groups : 1;
    g.cg = g.ci / g.groups, g.og = g.co / g.groups;
    g.pixels = (int64_t)g.oh * g.ow;
    g.taps = (int64_t)kh * kw * g.cg;
    g.width = kn_ceil(g.taps, KN_VEC) * KN_VEC;
    int64_t each = g.pixels * g.width * (int64_t)element, fit = each ? COLUMN_BYTES / each : 1;
    g.images = (int)(fit < 1 ? 1 : fit > g.n ? g.n : fit);
    g.plain = kh == 1 && kw == 1 && g.stride == 1 && g.pad == 0 && g.groups == 1;
    return g;
}

static size_t round_up(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* col[(image, oy, ox)][ky][kx][c] = x, 0 in the padding. One thread per (pixel, tap, V channels): where groups of V channels exist, width is taps. */
template <int V>
static __global__ void im2col_kernel(const __grid_constant__ conv_geometry g, const void *x, int type, void *col,
                                     int col_type, int first, int images, int group)
{
    int64_t groups = g.cg / V, i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= images * g.pixels * g.kh * g.kw * groups)
        return;
    int64_t rest = i / groups;
    int c = (int)(i % groups) * V, kx = (int)(rest % g.kw);
    rest /= g.kw;
    int ky = (int)(rest % g.kh);
    rest /= g.kh;
    int ox = (int)(rest % g.ow);
    rest /= g.ow;
    int iy = (int)(rest % g.oh) * g.stride - g.pad + ky * g.dilation, ix = ox * g.stride - g.pad + kx * g.dilation;
    int64_t image = first + rest / g.oh;
    float v[V] = {};
    if (iy >= 0 && iy < g.h && ix >= 0 && ix < g.w)
        kn_loadw<V>(v, x, type, ((image * g.h + iy) * g.w + ix) * g.ci + group * g.cg + c);
    kn_storew<V>(v, col, col_type, i * V);
}

/* The same for few channels (a stem): one thread per eight columns, whatever taps they are; columns beyond the taps are 0. */
static __global__ void im2col_few_kernel(const __grid_constant__ conv_geometry g, const void *x, int type, void *col,
                                         int col_type, int first, int images, int group)
{
    const unsigned vectors = (unsigned)(g.width / KN_VEC), i = blockIdx.x * blockDim.x + threadIdx.x,
                   pixel = i / vectors, ox = pixel % (unsigned)g.ow, row = pixel / (unsigned)g.ow,
                   oy = row % (unsigned)g.oh;
    if (i >= (unsigned)(images * g.pixels) * vectors)
        return;
    const int y0 = (int)oy * g.stride - g.pad, x0 = (int)ox * g.stride - g.pad;
    const int64_t image = (int64_t)(first + (int)(row / (unsigned)g.oh)) * g.h * g.w * g.ci + group * g.cg;
    float v[KN_VEC];
#pragma unroll
    for (int e = 0; e < KN_VEC; e++) {
        const unsigned tap = i % vectors * KN_VEC + e, at = tap / (unsigned)g.cg;
        const int iy = y0 + (int)(at / (unsigned)g.kw) * g.dilation, ix = x0 + (int)(at % (unsigned)g.kw) * g.dilation;
        v[e] = 0;
        if (tap < g.taps && iy >= 0 && iy < g.h && ix >= 0 && ix < g.w)
            v[e] = kn_load(x, type, image + ((int64_t)iy * g.w + ix) * g.ci + tap % (unsigned)g.cg);
    }
    kn_store8(v, col, col_type, (int64_t)i * KN_VEC);
}

/* dx[(image, y, x)][c] = sum over the taps that read this pixel. */
template <int V>
static __global__ void col2im_kernel(const __grid_constant__ conv_geometry g, const void *col, int col_type, void *dx,
                                     int type, int first, int images, int group, int accumulate)
{
    int64_t groups = g.cg / V, i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= (int64_t)images * g.h * g.w * groups)
        return;
    int64_t rest = i / groups;
    int c = (int)(i % groups) * V, ix = (int)(rest % g.w);
    rest /= g.w;
    int iy = (int)(rest % g.h);
    int64_t image = rest / g.h;
    float sum[V] = {}, v[V];
    for (int ky = 0; ky < g.kh; ky++) {
        int y = iy + g.pad - ky * g.dilation, oy = y / g.stride;
        if (y < 0 || y % g.stride || oy >= g.oh)
            continue;
        for (int kx = 0; kx < g.kw; kx++) {
            int xx = ix + g.pad - kx * g.dilation, ox = xx / g.stride;
            if (xx < 0 || xx % g.stride || ox >= g.ow)
                continue;
            kn_loadw<V>(v, col, col_type,
                        ((image * g.oh + oy) * g.ow + ox) * g.width + ((int64_t)ky * g.kw + kx) * g.cg + c);
            for (int k = 0; k < V; k++)
                sum[k] += v[k];
        }
    }
    int64_t o = (((first + image) * g.h + iy) * g.w + ix) * g.ci + group * g.cg + c;
    if (accumulate) {
        kn_loadw<V>(v, dx, type, o);
        for (int k = 0; k < V; k++)
            sum[k] += v[k];
    }
    kn_storew<V>(sum, dx, type, o);
}

/* packed[o][ky][kx][c] <- w (strided), as `to_type`; rows of g.width, the last columns 0. */
static __global__ void pack_kernel(const __grid_constant__ conv_geometry g, kn_tensor w, int group, void *packed,
                                   int to_type)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, all = (int64_t)g.og * g.width, tap = i % g.width;
    if (i >= all)
        return;
    int c = (int)(tap % g.cg), kx = (int)(tap / g.cg % g.kw), ky = (int)(tap / g.cg / g.kw);
    int64_t o = i / g.width + (int64_t)group * g.og;
    float v = 0;
    if (tap < g.taps)
        v = kn_load(w.p, w.dtype, o * w.stride[0] + ky * w.stride[1] + kx * w.stride[2] + c * w.stride[3]);
    kn_store(packed, to_type, i, v);
}

static __global__ void unpack_kernel(const __grid_constant__ conv_geometry g, const float *packed, int group,
                                     kn_tensor w, int accumulate)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, all = (int64_t)g.og * g.taps;
    if (i >= all)
        return;
    int c = (int)(i % g.cg), kx = (int)(i / g.cg % g.kw), ky = (int)(i / g.cg / g.kw % g.kh);
    int64_t o =
        (i / g.taps + (int64_t)group * g.og) * w.stride[0] + ky * w.stride[1] + kx * w.stride[2] + c * w.stride[3];
    kn_store(w.p, w.dtype, o,
             packed[i / g.taps * g.width + i % g.taps] + (accumulate ? kn_load(w.p, w.dtype, o) : 0.f));
}

static unsigned grid_of(int64_t work) { return (unsigned)kn_ceil(work < 1 ? 1 : work, 256); }

/* Whether to launch: not while algorithms are looked up. */
static bool live(const kn_call *c) { return !kn_cuda(c)->preparing; }

static void im2col(const kn_call *c, const conv_geometry *g, const kn_tensor *x, void *col, kn_dtype type, int first,
                   int images, int group)
{
    int64_t work = images * g->pixels * g->taps;
    if (!live(c))
        return;
    if (g->cg % KN_VEC == 0 && kn_aligned(x->p))
        im2col_kernel<KN_VEC>
            <<<grid_of(work / KN_VEC), 256, 0, kn_stream(c)>>>(*g, x->p, x->dtype, col, type, first, images, group);
    else
        im2col_few_kernel<<<grid_of(images * g->pixels * (g->width / KN_VEC)), 256, 0, kn_stream(c)>>>(
            *g, x->p, x->dtype, col, type, first, images, group);
}

static void *offset(const kn_tensor *t, int64_t elements)
{
    return (char *)t->p + elements * (int64_t)kn_dtype_bytes(t->dtype);
}

/* ---- forward ---- */

/* Operands of one product have one type: bf16 as soon as the result is (fp32 images become bf16 columns). */
static kn_dtype operand_type(const kn_tensor *in, const kn_tensor *out)
{
    return out->dtype == KN_BF16 ? KN_BF16 : in->dtype;
}

static conv_geometry forward_geometry(const kn_call *c)
{
    const kn_shape *w = &c->in[1].shape;
    return geometry(c->a, &c->in[0].shape, &c->out[0].shape, w->d[1], w->d[2],
                    kn_dtype_bytes(operand_type(&c->in[0], &c->out[0])));
}

/* A weight of another type than the activations is packed even where it could be used as it lies. */
static bool direct(const kn_call *c, const conv_geometry *g)
{
    return g->plain && c->in[1].dtype == c->in[0].dtype && operand_type(&c->in[0], &c->out[0]) == c->in[0].dtype;
}

extern "C" size_t kn_cuda_conv2d_scratch(const kn_call *c)
{
    conv_geometry g = forward_geometry(c);
    size_t element = kn_dtype_bytes(operand_type(&c->in[0], &c->out[0]));
    if (direct(c, &g))
        return 0;
    return round_up((size_t)(g.images * g.pixels * g.width) * element) + round_up((size_t)(g.og * g.width) * element);
}

extern "C" es_status kn_cuda_conv2d(const kn_call *c, es_error *err)
{
    conv_geometry g = forward_geometry(c);
    const kn_tensor *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    kn_dtype type = operand_type(x, y);
    kn_gemm p = {};
    if (c->n_in > 2)
        return kn_cuda_point(c, err);
    p.ab = type, p.dd = y->dtype, p.tb = true, p.accumulate = c->accumulate & 1, p.batch = 1;
    if (direct(c, &g)) {
        p.m = g.n * g.pixels, p.n = g.co, p.k = g.ci;
        p.a = x->p, p.lda = g.ci, p.b = w->p, p.ldb = w->stride[0], p.d = y->p, p.ldd = g.co;
        return kn_cuda_gemm(kn_cuda(c), &p, err);
    }
    char *col = (char *)c->scratch,
         *packed = col + round_up((size_t)(g.images * g.pixels * g.width) * kn_dtype_bytes(type));
    for (int group = 0; group < g.groups; group++) {
        if (live(c))
            pack_kernel<<<grid_of(g.og * g.width), 256, 0, kn_stream(c)>>>(g, *w, group, packed, type);
        for (int first = 0; first < g.n; first += g.images) {
            int images = g.n - first < g.images ? g.n - first : g.images;
            im2col(c, &g, x, col, type, first, images, group);
            p.m = images * g.pixels, p.n = g.og, p.k = g.width;
            p.a = col, p.lda = g.width, p.b = packed, p.ldb = g.width;
            p.d = offset(y, first * g.pixels * g.co + group * g.og), p.ldd = g.co;
            ES_RETURN(kn_cuda_gemm(kn_cuda(c), &p, err));
        }
    }
    KN_LAUNCHED("conv2d");
    return ES_OK;
}

/* ---- dx: in = dy, w ---- */

static conv_geometry dx_geometry(const kn_call *c)
{
    const kn_shape *w = &c->in[1].shape;
    return geometry(c->a, &c->out[0].shape, &c->in[0].shape, w->d[1], w->d[2], kn_dtype_bytes(c->in[0].dtype));
}

extern "C" size_t kn_cuda_conv2d_dx_scratch(const kn_call *c)
{
    conv_geometry g = dx_geometry(c);
    size_t element = kn_dtype_bytes(c->in[0].dtype);
    if (direct(c, &g))
        return 0;
    return round_up((size_t)(g.images * g.pixels * g.width) * element) + round_up((size_t)(g.og * g.width) * element);
}

extern "C" es_status kn_cuda_conv2d_dx(const kn_call *c, es_error *err)
{
    conv_geometry g = dx_geometry(c);
    const kn_tensor *dy = &c->in[0], *w = &c->in[1], *dx = &c->out[0];
    kn_gemm p = {};
    p.ab = dy->dtype, p.batch = 1;
    if (direct(c, &g)) {
        p.m = g.n * g.pixels, p.n = g.ci, p.k = g.co, p.dd = dx->dtype, p.accumulate = c->accumulate & 1;
        p.a = dy->p, p.lda = g.co, p.b = w->p, p.ldb = w->stride[0], p.d = dx->p, p.ldd = g.ci;
        return kn_cuda_gemm(kn_cuda(c), &p, err);
    }
    char *col = (char *)c->scratch,
         *packed = col + round_up((size_t)(g.images * g.pixels * g.width) * kn_dtype_bytes(dy->dtype));
    p.dd = dy->dtype;
    for (int group = 0; group < g.groups; group++) {
        if (live(c))
            pack_kernel<<<grid_of(g.og * g.width), 256, 0, kn_stream(c)>>>(g, *w, group, packed, dy->dtype);
        for (int first = 0; first < g.n; first += g.images) {
            int images = g.n - first < g.images ? g.n - first : g.images;
            p.m = images * g.pixels, p.n = g.width, p.k = g.og;
            p.a = offset(dy, first * g.pixels * g.co + group * g.og), p.lda = g.co, p.b = packed, p.ldb = g.width,
            p.d = col, p.ldd = g.width;
            ES_RETURN(kn_cuda_gemm(kn_cuda(c), &p, err));
            int64_t work = (int64_t)images * g.h * g.w * g.cg;
            if (!live(c))
                continue;
            if (g.cg % KN_VEC == 0 && kn_aligned(dx->p))
                col2im_kernel<KN_VEC><<<grid_of(work / KN_VEC), 256, 0, kn_stream(c)>>>(
                    g, col, dy->dtype, dx->p, dx->dtype, first, images, group, c->accumulate & 1);
            else
                col2im_kernel<1><<<grid_of(work), 256, 0, kn_stream(c)>>>(g, col, dy->dtype, dx->p, dx->dtype, first,
                                                                          images, group, c->accumulate & 1);
        }
    }
    KN_LAUNCHED("conv2d_dx");
    return ES_OK;
}

/* ---- dw: in = x, dy ---- */

static conv_geometry dw_geometry(const kn_call *c)
{
    return geometry(c->a, &c->in[0].shape, &c->in[1].shape, c->a->kh, c->a->kw, kn_dtype_bytes(c->in[1].dtype));
}

static bool dw_direct(const kn_call *c, const conv_geometry *g)
{
    return g->plain && c->in[0].dtype == c->in[1].dtype && (c->out[0].dtype == KN_F32 || c->in[0].dtype == KN_BF16);
}

extern "C" size_t kn_cuda_conv2d_dw_scratch(const kn_call *c)
{
    conv_geometry g = dw_geometry(c);
    if (dw_direct(c, &g))
        return 0;
    return round_up((size_t)(g.images * g.pixels * g.width) * kn_dtype_bytes(c->in[1].dtype)) +
           round_up((size_t)(g.og * g.width) * sizeof(float));
}

extern "C" es_status kn_cuda_conv2d_dw(const kn_call *c, es_error *err)
{
    conv_geometry g = dw_geometry(c);
    const kn_tensor *x = &c->in[0], *dy = &c->in[1], *dw = &c->out[0];
    kn_gemm p = {};
    p.ab = dy->dtype, p.ta = true, p.batch = 1; /* columns take the gradient's type */
    if (dw_direct(c, &g)) {
        p.m = g.co, p.n = g.ci, p.k = g.n * g.pixels, p.dd = dw->dtype, p.accumulate = c->accumulate & 1;
        p.a = dy->p, p.lda = g.co, p.b = x->p, p.ldb = g.ci, p.d = dw->p, p.ldd = dw->stride[0];
        return kn_cuda_gemm(kn_cuda(c), &p, err);
    }
    char *col = (char *)c->scratch;
    float *sum = (float *)(col + round_up((size_t)(g.images * g.pixels * g.width) * kn_dtype_bytes(dy->dtype)));
    p.dd = KN_F32;
    for (int group = 0; group < g.groups; group++) {
        for (int first = 0; first < g.n; first += g.images) {
            int images = g.n - first < g.images ? g.n - first : g.images;
            im2col(c, &g, x, col, dy->dtype, first, images, group);
            p.m = g.og, p.n = g.width, p.k = images * g.pixels, p.accumulate = first > 0;
            p.a = offset(dy, first * g.pixels * g.co + group * g.og), p.lda = g.co, p.b = col, p.ldb = g.width,
            p.d = sum, p.ldd = g.width;
            ES_RETURN(kn_cuda_gemm(kn_cuda(c), &p, err));
        }
        if (live(c))
            unpack_kernel<<<grid_of(g.og * g.taps), 256, 0, kn_stream(c)>>>(g, sum, group, *dw, c->accumulate & 1);
    }
    KN_LAUNCHED("conv2d_dw");
    return ES_OK;
}

extern "C" es_status kn_cuda_conv2d_prepare(const kn_call *c, es_error *err)
{
    return kn_cuda_prepare(kn_cuda_conv2d, c, err);
}
extern "C" es_status kn_cuda_conv2d_dx_prepare(const kn_call *c, es_error *err)
{
    return kn_cuda_prepare(kn_cuda_conv2d_dx, c, err);
}
extern "C" es_status kn_cuda_conv2d_dw_prepare(const kn_call *c, es_error *err)
{
    return kn_cuda_prepare(kn_cuda_conv2d_dw, c, err);
}
