/* Depthwise convolution, NHWC, weights [kh][kw][c] (a strided slice: centred kernel, channel prefix): forward and dx.
 *
 * Kernels of 3 and 5 in bf16: depthwise_rows.cuh. All else: a thread makes T outputs side by side of V channels, reading each input vector once for all of them;
 * neighbouring threads share rows through the L1 cache. dx of stride 1 is the forward with the kernel turned round. The weights' gradient: depthwise_dw.cu.
 */
#include "kernels/cuda/depthwise.cuh"
#include "kernels/cuda/depthwise_rows.cuh"

/* Stride S forward (FLIP false) or stride-1 dx (FLIP true: input is dy, pad is k - 1 - pad). K 0: any size, read at run time. */
template <int K, int S, int T, int V, bool FLIP>
static __global__ void __launch_bounds__(256) forward_kernel(const __grid_constant__ dw_args a)
{
    const int k = K ? K : a.k, s = S ? S : a.stride, groups = a.c / V, tiles = (a.ow + T - 1) / T,
              dil = K ? 1 : a.dilation;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= (int64_t)a.n * a.oh * tiles * groups)
        return;
    int channel = (int)(i % groups) * V;
    int64_t rest = i / groups;
    int x0 = (int)(rest % tiles) * T;
    rest /= tiles;
    int oy = (int)(rest % a.oh);
    int64_t image = rest / a.oh;
    float acc[T][V] = {};
    if (K) {
        enum { SPAN = K ? (T - 1) * S + K : 1 };
#pragma unroll
        for (int ky = 0; ky < K; ky++) {
            int iy = oy * S - a.pad + ky;
            if (iy < 0 || iy >= a.h)
                continue;
            int64_t row = ((image * a.h + iy) * a.w_in) * a.c + channel;
            float w[K ? K : 1][V];
#pragma unroll
            for (int kx = 0; kx < K; kx++)
                load_weight<V>(w[kx], a, FLIP ? K - 1 - ky : ky, FLIP ? K - 1 - kx : kx, channel);
#pragma unroll
            for (int j = 0; j < SPAN; j++) {
                int ix = x0 * S - a.pad + j;
                float x[V];
                if (ix < 0 || ix >= a.w_in)
                    continue;
                kn_loadw<V>(x, a.x, a.x_type, row + (int64_t)ix * a.c);
#pragma unroll
                for (int t = 0; t < T; t++) {
                    const int kx = j - t * S;
                    if (kx >= 0 && kx < K)
#pragma unroll
                        for (int v = 0; v < V; v++)
                            acc[t][v] = fmaf(x[v], w[kx][v], acc[t][v]);
                }
            }
        }
    } else {
        for (int ky = 0; ky < k; ky++)
            for (int kx = 0; kx < k; kx++)
                for (int t = 0; t < T; t++) {
                    int iy = oy * s - a.pad + ky * dil, ix = (x0 + t) * s - a.pad + kx * dil;
                    float x[V], w[V];
                    if (iy < 0 || iy >= a.h || ix < 0 || ix >= a.w_in)
                        continue;
                    load_weight<V>(w, a, FLIP ? k - 1 - ky : ky, FLIP ? k - 1 - kx : kx, channel);
                    kn_loadw<V>(x, a.x, a.x_type, ((image * a.h + iy) * a.w_in + ix) * a.c + channel);
                    for (int v = 0; v < V; v++)
                        acc[t][v] = fmaf(x[v], w[v], acc[t][v]);
                }
    }
#pragma unroll
    for (int t = 0; t < T; t++)
        if (x0 + t < a.ow) {
            int64_t o = ((image * a.oh + oy) * a.ow + x0 + t) * a.c + channel;
            if (a.accumulate) {
                float old[V];
                kn_loadw<V>(old, a.out, a.out_type, o);
                for (int v = 0; v < V; v++)
                    acc[t][v] += old[v];
            }
            kn_storew<V>(acc[t], a.out, a.out_type, o);
        }
}

/* dx for any stride and dilation: a thread gathers what reaches one input pixel. `out` is dx [n, h, w_in, c], `x` is dy [n, oh, ow, c]. */
template <int K, int S, int V>
static __global__ void __launch_bounds__(256) dx_kernel(const __grid_constant__ dw_args a)
{
    const int k = K ? K : a.k, s = S ? S : a.stride, groups = a.c / V, dil = K ? 1 : a.dilation;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= (int64_t)a.n * a.h * a.w_in * groups)
        return;
    int channel = (int)(i % groups) * V;
    int64_t rest = i / groups;
    int ix = (int)(rest % a.w_in);
    rest /= a.w_in;
    int iy = (int)(rest % a.h);
    int64_t image = rest / a.h;
    float acc[V] = {};
    /* Of stride 2 without dilation, only taps of the pixel's parity reach an output. */
    const int step = S == 2 ? 2 : 1, ky0 = S == 2 ? (iy + a.pad) & 1 : 0, kx0 = S == 2 ? (ix + a.pad) & 1 : 0;
#pragma unroll
    for (int ty = 0; ty < (K ? (K + step - 1) / step : k); ty++) {
        const int ky = ky0 + ty * step, y = iy + a.pad - ky * dil, oy = y / s;
        if (ky >= k || y < 0 || y % s != 0 || oy >= a.oh)
            continue;
#pragma unroll
        for (int tx = 0; tx < (K ? (K + step - 1) / step : k); tx++) {
            const int kx = kx0 + tx * step, x = ix + a.pad - kx * dil, ox = x / s;
            float d[V], w[V];
            if (kx >= k || x < 0 || x % s != 0 || ox >= a.ow)
                continue;
            load_weight<V>(w, a, ky, kx, channel);
            kn_loadw<V>(d, a.x, a.x_type, ((image * a.oh + oy) * a.ow + ox) * a.c + channel);
#pragma unroll
            for (int v = 0; v < V; v++)
                acc[v] = fmaf(d[v], w[v], acc[v]);
        }
    }
    if (a.accumulate) {
        float old[V];
        kn_loadw<V>(old, a.out, a.out_type, i * V);
        for (int v = 0; v < V; v++)
            acc[v] += old[v];
    }
    kn_storew<V>(acc, a.out, a.out_type, i * V);
}

static void set_weight(dw_args *a, const kn_tensor *w)
{
    a->w = w->p, a->w_type = w->dtype, a->ws0 = w->stride[0], a->ws1 = w->stride[1];
}

static bool vectors(const dw_args *a)
{
    return a->c % KN_VEC == 0 && a->ws0 % KN_VEC == 0 && a->ws1 % KN_VEC == 0 && kn_aligned(a->x) && kn_aligned(a->w) &&
           kn_aligned(a->out);
}

template <int K, int S, bool FLIP> static void launch_forward(const dw_args *a, cudaStream_t stream)
{
    enum { T = S == 1 ? 4 : 2 };
    int64_t threads = (int64_t)a->n * a->oh * ((a->ow + T - 1) / T) * (a->c / KN_VEC);
    forward_kernel<K, S, T, KN_VEC, FLIP><<<(unsigned)kn_ceil(threads, 256), 256, 0, stream>>>(*a);
}

template <bool FLIP> static void forward_any(const dw_args *a, cudaStream_t stream)
{
    int64_t outputs = (int64_t)a->n * a->oh * a->ow * a->c;
    if (vectors(a))
        forward_kernel<0, 0, 1, KN_VEC, FLIP><<<(unsigned)kn_ceil(outputs / KN_VEC, 256), 256, 0, stream>>>(*a);
    else
        forward_kernel<0, 0, 1, 1, FLIP><<<(unsigned)kn_ceil(outputs, 256), 256, 0, stream>>>(*a);
}

template <bool FLIP> static void forward(const dw_args *a, int sms, cudaStream_t stream)
{
    if (rows_fit(a))
        rows<FLIP>(a, NULL, sms, stream);
    else if (!vectors(a) || a->dilation != 1 || a->stride > 2)
        forward_any<FLIP>(a, stream);
    else if (a->stride == 1)
        DW_BY_KERNEL(a->k, K, (launch_forward<K, 1, FLIP>(a, stream)), (forward_any<FLIP>(a, stream)));
    else
        DW_BY_KERNEL(a->k, K, (launch_forward<K, 2, FLIP>(a, stream)), (forward_any<FLIP>(a, stream)));
}

es_status kn_cuda_depthwise_open(kn_cuda_device *dev, es_error *err)
{
    STAGE_ALLOW((rows_kernel<3, 1, false, ROWS_PLAIN, false>));
    STAGE_ALLOW((rows_kernel<3, 1, false, ROWS_STATS, false>));
    STAGE_ALLOW((rows_kernel<3, 1, false, ROWS_NORM, false>));
    STAGE_ALLOW((rows_kernel<3, 1, false, ROWS_PLAIN, true>));
    STAGE_ALLOW((rows_kernel<3, 1, true, ROWS_PLAIN, false>));
    STAGE_ALLOW((rows_kernel<3, 1, true, ROWS_PLAIN, true>));
    STAGE_ALLOW((rows_kernel<5, 1, false, ROWS_PLAIN, false>));
    STAGE_ALLOW((rows_kernel<5, 1, false, ROWS_STATS, false>));
    STAGE_ALLOW((rows_kernel<5, 1, false, ROWS_NORM, false>));
    STAGE_ALLOW((rows_kernel<5, 1, false, ROWS_PLAIN, true>));
    STAGE_ALLOW((rows_kernel<5, 1, true, ROWS_PLAIN, false>));
    STAGE_ALLOW((rows_kernel<5, 1, true, ROWS_PLAIN, true>));
    STAGE_ALLOW((rows_kernel<3, 2, false, ROWS_PLAIN, false>));
    STAGE_ALLOW((rows_kernel<3, 2, false, ROWS_STATS, false>));
    STAGE_ALLOW((rows_kernel<3, 2, false, ROWS_NORM, false>));
    STAGE_ALLOW((rows_kernel<3, 2, false, ROWS_PLAIN, true>));
    STAGE_ALLOW((rows_kernel<5, 2, false, ROWS_PLAIN, false>));
    STAGE_ALLOW((rows_kernel<5, 2, false, ROWS_STATS, false>));
    STAGE_ALLOW((rows_kernel<5, 2, false, ROWS_NORM, false>));
    STAGE_ALLOW((rows_kernel<5, 2, false, ROWS_PLAIN, true>));
    STAGE_ALLOW((rows_dx_kernel<3, false>));
    STAGE_ALLOW((rows_dx_kernel<3, true>));
    STAGE_ALLOW((rows_dx_kernel<5, false>));
    STAGE_ALLOW((rows_dx_kernel<5, true>));
    return ES_OK;
}

/* With three outputs (fuse.cu): also mean and variance of each channel of y. With six inputs: gamma, beta, mean and variance of the norm that y goes through. */
static dw_args forward_args(const kn_call *c)
{
    dw_args a = geometry(c, &c->in[0].shape, &c->out[0].shape, c->in[1].shape.d[0]);
    a.x = c->in[0].p, a.x_type = c->in[0].dtype, a.out = c->out[0].p, a.out_type = c->out[0].dtype;
    set_weight(&a, &c->in[1]);
    return a;
}

extern "C" size_t kn_cuda_depthwise_scratch(const kn_call *c)
{
    if (c->n_out == 1)
        return 0;
    const dw_args a = forward_args(c);
    const size_t rows = rows_stats_bytes(&a, kn_cuda(c)->sms), plain = kn_cuda_stats_scratch(c, &c->out[0]);
    return rows > plain ? rows : plain;
}

extern "C" es_status kn_cuda_batch_norm_infer(const kn_call *c, es_error *err);

static es_status with_norm(const kn_call *c, const dw_args *a, es_error *err)
{
    ES_ASSERT(!a->accumulate); /* plan_fuse.c */
    if (rows_fit(a)) {
        rows_stats s = {};
        s.gamma = (const float *)c->in[2].p, s.beta = (const float *)c->in[3].p;
        s.mean = (float *)c->in[4].p, s.var = (float *)c->in[5].p; /* only read */
        s.eps = c->a->eps, s.act = c->a->act;
        rows_as<false, ROWS_NORM, false>(a, s, kn_cuda(c)->sms, kn_stream(c));
        KN_LAUNCHED("depthwise");
        return ES_OK;
    }
    forward<false>(a, kn_cuda(c)->sms, kn_stream(c)); /* and the norm in place */
    KN_LAUNCHED("depthwise");
    kn_call norm = *c;
    norm.n_in = 5;
    norm.in[0] = c->out[0];
    for (int k = 1; k < 5; k++)
        norm.in[k] = c->in[k + 1];
    return kn_cuda_batch_norm_infer(&norm, err);
}

extern "C" es_status kn_cuda_depthwise(const kn_call *c, es_error *err)
{
    dw_args a = forward_args(c);
    const bool stats = c->n_out == 3;
    if (kn_shape_count(&c->out[0].shape) == 0)
        return ES_OK;
    if (c->n_in == 6)
        return with_norm(c, &a, err);
    if (stats && !a.accumulate && rows_fit(&a)) {
        const rows_stats s = {(float *)c->scratch, (float *)c->out[1].p, (float *)c->out[2].p, kn_cuda(c)->arrived};
        rows<false>(&a, &s, kn_cuda(c)->sms, kn_stream(c));
    } else {
        forward<false>(&a, kn_cuda(c)->sms, kn_stream(c));
        if (stats)
            kn_cuda_stats(c, &c->out[0], (float *)c->out[1].p, (float *)c->out[2].p);
    }
    KN_LAUNCHED("depthwise");
    return ES_OK;
}

template <int V> static void dx_any(const dw_args *a, cudaStream_t stream)
{
    dx_kernel<0, 0, V><<<(unsigned)kn_ceil((int64_t)a->n * a->h * a->w_in * (a->c / V), 256), 256, 0, stream>>>(*a);
}

template <int K> static void dx_two(const dw_args *a, cudaStream_t stream)
{
    dx_kernel<K, 2, KN_VEC>
        <<<(unsigned)kn_ceil((int64_t)a->n * a->h * a->w_in * (a->c / KN_VEC), 256), 256, 0, stream>>>(*a);
}

extern "C" es_status kn_cuda_depthwise_dx(const kn_call *c, es_error *err)
{
    dw_args a = geometry(c, &c->out[0].shape, &c->in[0].shape, c->in[1].shape.d[0]);
    a.x = c->in[0].p, a.x_type = c->in[0].dtype, a.out = c->out[0].p, a.out_type = c->out[0].dtype;
    set_weight(&a, &c->in[1]);
    if (kn_shape_count(&c->out[0].shape) == 0)
        return ES_OK;
    if (a.stride == 1 && a.dilation == 1 &&
        (vectors(&a) || rows_fit(&a))) { /* the forward pass over dy with the kernel turned round */
        int h = a.h, w = a.w_in;
        a.h = a.oh, a.w_in = a.ow, a.oh = h, a.ow = w;
        a.pad = a.k - 1 - a.pad; /* a padding of k / 2 stays */
        forward<true>(&a, kn_cuda(c)->sms, kn_stream(c));
    } else if (rows_fit(&a)) {
        rows_dx(&a, kn_cuda(c)->sms, kn_stream(c));
    } else if (!vectors(&a)) {
        dx_any<1>(&a, kn_stream(c));
    } else if (a.stride == 2 && a.dilation == 1) {
        DW_BY_KERNEL(a.k, K, dx_two<K>(&a, kn_stream(c)), dx_any<KN_VEC>(&a, kn_stream(c)));
    } else {
        dx_any<KN_VEC>(&a, kn_stream(c));
    }
    KN_LAUNCHED("depthwise_dx");
    return ES_OK;
}
