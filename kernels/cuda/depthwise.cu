/* Depthwise convolution, NHWC, weights [kh][kw][c] (a strided slice: centred kernel, channel prefix): forward and both gradients.
 *
 * Forward and dx: a thread makes T outputs side by side of V channels, reading each input vector once for all of them; neighbouring threads share rows through the
 * L1 cache. dx of stride 1 is the forward with the kernel turned round. dw: a thread owns V channels and all K*K sums, a warp walks output rows; block sums are
 * reduced over blocks in order.
 */
#include "kernels/cuda/cuda.cuh"

struct dw_args {
    const void *x, *dy;
    const void *w;
    void *out;
    int x_type, dy_type, w_type, out_type;
    int n, h, w_in, c, oh, ow;
    int k, stride, pad, dilation;
    int64_t ws0, ws1; /* strides of the weight's kh and kw */
    int accumulate;
};

template <int V>
static __device__ __forceinline__ void load_weight(float *v, const dw_args &a, int ky, int kx, int channel)
{
    kn_loadw<V>(v, a.w, a.w_type, ky * a.ws0 + kx * a.ws1 + channel);
}

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
#pragma unroll
    for (int ky = 0; ky < k; ky++) {
        int y = iy + a.pad - ky * dil, oy = y / s;
        if (y < 0 || y % s != 0 || oy >= a.oh)
            continue;
#pragma unroll
        for (int kx = 0; kx < k; kx++) {
            int x = ix + a.pad - kx * dil, ox = x / s;
            float d[V], w[V];
            if (x < 0 || x % s != 0 || ox >= a.ow)
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

template <int V> static __device__ __forceinline__ void load_some(float *v, const void *p, int type, int64_t i)
{
    if (V == 2 && type == KN_BF16) {
        float2 f = __bfloat1622float2(*(const __nv_bfloat162 *)((const __nv_bfloat16 *)p + i));
        v[0] = f.x;
        v[V - 1] = f.y;
    } else {
#pragma unroll
        for (int k = 0; k < V; k++)
            v[k] = kn_load(p, type, i + k);
    }
}

enum { DW_WARPS = 8 };

/* dw: lane = V channels, warp = a stream of output rows. gridDim.y covers the channels, gridDim.x shares the rows (n * oh). The window of inputs slides along
 * the row, so each input is loaded once per kernel row. partial[block x][K * K][c]. */
template <int K, int S, int V>
static __global__ void __launch_bounds__(32 * DW_WARPS) dw_kernel(const __grid_constant__ dw_args a, float *partial)
{
    extern __shared__ float shared[]; /* [DW_WARPS][32 * V] */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = (blockIdx.y * 32 + lane) * V;
    const int64_t rows = (int64_t)a.n * a.oh;
    float acc[K * K][V] = {};
    if (channel < a.c)
        for (int64_t r = blockIdx.x * DW_WARPS + warp; r < rows; r += (int64_t)gridDim.x * DW_WARPS) {
            int oy = (int)(r % a.oh);
            int64_t image = r / a.oh, dy_row = r * a.ow * a.c + channel, x_image = image * a.h * a.w_in * a.c + channel;
            float win[K][K][V]; /* [row][column], columns shift left by S per output */
#pragma unroll
            for (int ky = 0; ky < K; ky++)
#pragma unroll
                for (int j = 0; j < K - S; j++) {
                    int iy = oy * S - a.pad + ky, ix = j - a.pad;
                    if (iy >= 0 && iy < a.h && ix >= 0 && ix < a.w_in)
                        load_some<V>(win[ky][j + S], a.x, a.x_type, x_image + ((int64_t)iy * a.w_in + ix) * a.c);
                    else
#pragma unroll
                        for (int v = 0; v < V; v++)
                            win[ky][j + S][v] = 0;
                }
            for (int ox = 0; ox < a.ow; ox++) {
                float d[V];
                load_some<V>(d, a.dy, a.dy_type, dy_row + (int64_t)ox * a.c);
#pragma unroll
                for (int ky = 0; ky < K; ky++) {
                    int iy = oy * S - a.pad + ky;
                    bool inside = iy >= 0 && iy < a.h;
#pragma unroll
                    for (int j = 0; j < K - S; j++)
#pragma unroll
                        for (int v = 0; v < V; v++)
                            win[ky][j][v] = win[ky][j + S][v];
#pragma unroll
                    for (int j = K - S > 0 ? K - S : 0; j < K; j++) {
                        int ix = ox * S - a.pad + j;
                        if (inside && ix >= 0 && ix < a.w_in)
                            load_some<V>(win[ky][j], a.x, a.x_type, x_image + ((int64_t)iy * a.w_in + ix) * a.c);
                        else
#pragma unroll
                            for (int v = 0; v < V; v++)
                                win[ky][j][v] = 0;
                    }
#pragma unroll
                    for (int kx = 0; kx < K; kx++)
#pragma unroll
                        for (int v = 0; v < V; v++)
                            acc[ky * K + kx][v] = fmaf(d[v], win[ky][kx][v], acc[ky * K + kx][v]);
                }
            }
        }
#pragma unroll
    for (int t = 0; t < K * K; t++) {
#pragma unroll
        for (int v = 0; v < V; v++)
            shared[warp * 32 * V + lane * V + v] = acc[t][v];
        __syncthreads();
        for (int i = threadIdx.x; i < 32 * V; i += 32 * DW_WARPS) {
            float sum = 0;
            for (int g = 0; g < DW_WARPS; g++)
                sum += shared[g * 32 * V + i];
            int ch = blockIdx.y * 32 * V + i;
            if (ch < a.c)
                partial[((int64_t)blockIdx.x * (K * K) + t) * a.c + ch] = sum;
        }
        __syncthreads();
    }
}

/* Any kernel size, stride and dilation: one tap per blockIdx.z. */
static __global__ void __launch_bounds__(32 * DW_WARPS) dw_any_kernel(const __grid_constant__ dw_args a, float *partial)
{
    __shared__ float shared[DW_WARPS][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.y * 32 + lane, taps = a.k * a.k;
    const int ky = blockIdx.z / a.k, kx = blockIdx.z % a.k;
    const int64_t rows = (int64_t)a.n * a.oh;
    float acc = 0;
    if (channel < a.c)
        for (int64_t r = blockIdx.x * DW_WARPS + warp; r < rows; r += (int64_t)gridDim.x * DW_WARPS) {
            int iy = (int)(r % a.oh) * a.stride - a.pad + ky * a.dilation;
            int64_t image = r / a.oh;
            if (iy < 0 || iy >= a.h)
                continue;
            for (int ox = 0; ox < a.ow; ox++) {
                int ix = ox * a.stride - a.pad + kx * a.dilation;
                if (ix >= 0 && ix < a.w_in)
                    acc = fmaf(kn_load(a.dy, a.dy_type, (r * a.ow + ox) * a.c + channel),
                               kn_load(a.x, a.x_type, ((image * a.h + iy) * a.w_in + ix) * a.c + channel), acc);
            }
        }
    shared[warp][lane] = acc;
    __syncthreads();
    if (warp == 0 && channel < a.c) {
        float sum = 0;
        for (int g = 0; g < DW_WARPS; g++)
            sum += shared[g][lane];
        partial[((int64_t)blockIdx.x * taps + blockIdx.z) * a.c + channel] = sum;
    }
}

/* out[tap][channel] (+)= sum over blocks, in block order: 8 threads a sum, then in thread order. */
static __global__ void dw_finish(const float *partial, int blocks, int taps, int k, int c, void *out, int out_type,
                                 int64_t s0, int64_t s1, int accumulate)
{
    __shared__ float shared[8][33];
    int64_t i = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (i < (int64_t)taps * c)
        for (int b = threadIdx.y; b < blocks; b += 8)
            sum += partial[(int64_t)b * taps * c + i];
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || i >= (int64_t)taps * c)
        return;
    sum = 0;
    for (int y = 0; y < 8; y++)
        sum += shared[y][threadIdx.x];
    int tap = (int)(i / c), channel = (int)(i % c);
    int64_t o = tap / k * s0 + tap % k * s1 + channel;
    kn_store(out, out_type, o, sum + (accumulate ? kn_load(out, out_type, o) : 0.f));
}

static dw_args geometry(const kn_call *c, const kn_shape *x, const kn_shape *y, int k)
{
    dw_args a = {};
    a.n = x->d[0], a.h = x->d[1], a.w_in = x->d[2], a.c = x->d[3], a.oh = y->d[1], a.ow = y->d[2];
    a.k = k, a.stride = c->a->stride, a.pad = c->a->pad, a.dilation = c->a->dilation > 0 ? c->a->dilation : 1;
    a.accumulate = c->accumulate & 1;
    return a;
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

#define DW_BY_KERNEL(k, K, call, other) \
    do {                                \
        switch (k) {                    \
        case 3: {                       \
            constexpr int K = 3;        \
            call;                       \
            break;                      \
        }                               \
        case 5: {                       \
            constexpr int K = 5;        \
            call;                       \
            break;                      \
        }                               \
        case 7: {                       \
            constexpr int K = 7;        \
            call;                       \
            break;                      \
        }                               \
        default: other;                 \
        }                               \
    } while (0)

template <bool FLIP> static void forward(const dw_args *a, cudaStream_t stream)
{
    if (!vectors(a) || a->dilation != 1 || a->stride > 2)
        forward_any<FLIP>(a, stream);
    else if (a->stride == 1)
        DW_BY_KERNEL(a->k, K, (launch_forward<K, 1, FLIP>(a, stream)), (forward_any<FLIP>(a, stream)));
    else
        DW_BY_KERNEL(a->k, K, (launch_forward<K, 2, FLIP>(a, stream)), (forward_any<FLIP>(a, stream)));
}

extern "C" es_status kn_cuda_depthwise(const kn_call *c, es_error *err)
{
    dw_args a = geometry(c, &c->in[0].shape, &c->out[0].shape, c->in[1].shape.d[0]);
    a.x = c->in[0].p, a.x_type = c->in[0].dtype, a.out = c->out[0].p, a.out_type = c->out[0].dtype;
    set_weight(&a, &c->in[1]);
    if (kn_shape_count(&c->out[0].shape) == 0)
        return ES_OK;
    forward<false>(&a, kn_stream(c));
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
    if (!vectors(&a)) {
        dx_any<1>(&a, kn_stream(c));
    } else if (a.stride == 1 && a.dilation == 1) { /* the forward pass over dy with the kernel turned round */
        int h = a.h, w = a.w_in;
        a.h = a.oh, a.w_in = a.ow, a.oh = h, a.ow = w;
        a.pad = a.k - 1 - a.pad;
        forward<true>(&a, kn_stream(c));
    } else if (a.stride == 2 && a.dilation == 1) {
        DW_BY_KERNEL(a.k, K, dx_two<K>(&a, kn_stream(c)), dx_any<KN_VEC>(&a, kn_stream(c)));
    } else {
        dx_any<KN_VEC>(&a, kn_stream(c));
    }
    KN_LAUNCHED("depthwise_dx");
    return ES_OK;
}

static int dw_row_blocks(const kn_call *c, int64_t rows, int channels, int v)
{
    int64_t columns = kn_ceil(channels, 32 * v), want = (int64_t)kn_cuda(c)->sms * 4 / columns,
            most = kn_ceil(rows, DW_WARPS * 4);
    want = want < 1 ? 1 : want;
    return (int)(want < most ? want : most < 1 ? 1 : most);
}

static int dw_width(int channels, int k) { return channels % 2 == 0 && k <= 5 ? 2 : 1; }

extern "C" size_t kn_cuda_depthwise_dw_scratch(const kn_call *c)
{
    const kn_shape *dy = &c->in[1].shape;
    int channels = dy->d[3], k = c->a->kh, v = dw_width(channels, k);
    int64_t rows = (int64_t)dy->d[0] * dy->d[1];
    int fast = dw_row_blocks(c, rows, channels, v), any = dw_row_blocks(c, rows, channels, 1);
    return (size_t)(fast > any ? fast : any) * (size_t)(k * k) * (size_t)channels * sizeof(float);
}

template <int K, int S, int V> static void launch_dw(const dw_args *a, int blocks, float *partial, cudaStream_t stream)
{
    dim3 grid((unsigned)blocks, (unsigned)kn_ceil(a->c, 32 * V));
    dw_kernel<K, S, V><<<grid, 32 * DW_WARPS, DW_WARPS * 32 * V * sizeof(float), stream>>>(*a, partial);
}

static void launch_dw_any(const kn_call *c, const dw_args *a, int *blocks, float *partial)
{
    *blocks = dw_row_blocks(c, (int64_t)a->n * a->oh, a->c, 1);
    dim3 grid((unsigned)*blocks, (unsigned)kn_ceil(a->c, 32), (unsigned)(a->k * a->k));
    dw_any_kernel<<<grid, 32 * DW_WARPS, 0, kn_stream(c)>>>(*a, partial);
}

extern "C" es_status kn_cuda_depthwise_dw(const kn_call *c, es_error *err)
{
    dw_args a = geometry(c, &c->in[0].shape, &c->in[1].shape, c->a->kh);
    float *partial = (float *)c->scratch;
    int v = dw_width(a.c, a.k), blocks = dw_row_blocks(c, (int64_t)a.n * a.oh, a.c, v);
    a.x = c->in[0].p, a.x_type = c->in[0].dtype, a.dy = c->in[1].p, a.dy_type = c->in[1].dtype;
    bool plain = a.dilation == 1 && (a.stride == 1 || a.stride == 2);
    if (plain && v == 2 && a.stride == 1)
        DW_BY_KERNEL(a.k, K, (launch_dw<K, 1, (K <= 5 ? 2 : 1)>(&a, blocks, partial, kn_stream(c))),
                     launch_dw_any(c, &a, &blocks, partial));
    else if (plain && v == 2)
        DW_BY_KERNEL(a.k, K, (launch_dw<K, 2, (K <= 5 ? 2 : 1)>(&a, blocks, partial, kn_stream(c))),
                     launch_dw_any(c, &a, &blocks, partial));
    else if (plain && a.stride == 1)
        DW_BY_KERNEL(a.k, K, (launch_dw<K, 1, 1>(&a, blocks, partial, kn_stream(c))),
                     launch_dw_any(c, &a, &blocks, partial));
    else if (plain)
        DW_BY_KERNEL(a.k, K, (launch_dw<K, 2, 1>(&a, blocks, partial, kn_stream(c))),
                     launch_dw_any(c, &a, &blocks, partial));
    else
        launch_dw_any(c, &a, &blocks, partial);
    int64_t sums = (int64_t)a.k * a.k * a.c;
    dw_finish<<<(unsigned)kn_ceil(sums, 32), dim3(32, 8), 0, kn_stream(c)>>>(
        partial, blocks, a.k * a.k, a.k, a.c, c->out[0].p, c->out[0].dtype, c->out[0].stride[0], c->out[0].stride[1],
        c->accumulate & 1);
    KN_LAUNCHED("depthwise_dw");
    return ES_OK;
}
