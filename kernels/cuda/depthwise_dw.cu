/* The gradient of a depthwise convolution's weights: dw[ky][kx][c] = sum over images and outputs of dy[oy][ox][c] x[oy s + ky - p][ox s + kx - p][c].
 *
 * bf16 with kernels of 3 and 5: depthwise_dw_rows.cuh. Else a thread owns V channels and all K K sums, and makes T outputs of a row at a time; threads side by side own
 * neighbouring channels, the others of a block walk other output rows. Sums of a block are added in shared memory, those of blocks by dw_finish, both in a fixed order.
 */
#include "kernels/cuda/depthwise_dw_rows.cuh"

enum { THREADS = 256, WAVES = 2 };

/* Threads of a block: `pairs` side by side along the channels, `lanes` along output rows. */
struct dw_grid {
    int pairs, lanes, col_blocks, row_blocks;
};

static dw_grid grid_of(int64_t rows, int channels, int v, int sms)
{
    dw_grid g;
    int all = channels / v;
    g.col_blocks = (int)kn_ceil(all, 32);
    g.pairs = (int)kn_ceil(all, g.col_blocks);
    g.lanes = THREADS / g.pairs;
    int64_t want = kn_ceil((int64_t)sms * WAVES, g.col_blocks), most = kn_ceil(rows, g.lanes);
    g.row_blocks = (int)(want < most ? want : most < 1 ? 1 : most);
    return g;
}

template <int K, int S, int V, int T, bool BF>
static __device__ __forceinline__ void dw_row(const dw_args &a, int64_t r, int channel, float (*acc)[V])
{
    enum { SPAN = (T - 1) * S + K };
    const int oy = (int)(r % a.oh);
    const int64_t image = r / a.oh, dy_row = r * a.ow * a.c + channel, x_image = image * a.h * a.w_in * a.c + channel;
    for (int x0 = 0; x0 < a.ow; x0 += T) {
        float d[T][V];
#pragma unroll
        for (int t = 0; t < T; t++) {
#pragma unroll
            for (int v = 0; v < V; v++)
                d[t][v] = 0;
            if (x0 + t < a.ow)
                load_some<V, BF>(d[t], a.dy, a.dy_type, dy_row + (int64_t)(x0 + t) * a.c);
        }
#pragma unroll
        for (int ky = 0; ky < K; ky++) {
            const int iy = oy * S - a.pad + ky, first = x0 * S - a.pad;
            if (iy < 0 || iy >= a.h)
                continue;
            const int64_t row = x_image + ((int64_t)iy * a.w_in + first) * a.c;
            float x[SPAN][V];
#pragma unroll
            for (int j = 0; j < SPAN; j++) {
#pragma unroll
                for (int v = 0; v < V; v++)
                    x[j][v] = 0;
                if ((unsigned)(first + j) < (unsigned)a.w_in)
                    load_some<V, BF>(x[j], a.x, a.x_type, row + (int64_t)j * a.c);
            }
#pragma unroll
            for (int t = 0; t < T; t++)
#pragma unroll
                for (int kx = 0; kx < K; kx++)
#pragma unroll
                    for (int v = 0; v < V; v++)
                        acc[ky * K + kx][v] = fmaf(d[t][v], x[t * S + kx][v], acc[ky * K + kx][v]);
        }
    }
}

/* Adds the sums of a block's lanes, a kernel row at a time, and writes partial[row block][K * K][c]. */
template <int K, int V>
static __device__ __forceinline__ void dw_partial(const dw_args &a, const dw_grid &g, float (*acc)[V], float *shared,
                                                  float *partial)
{
    const int width = g.pairs * V, first = blockIdx.y * width, threads = g.pairs * g.lanes;
#pragma unroll
    for (int ky = 0; ky < K; ky++) { /* shared[kx][v][lane][pair] */
#pragma unroll
        for (int kx = 0; kx < K; kx++)
#pragma unroll
            for (int v = 0; v < V; v++)
                shared[(kx * V + v) * threads + threadIdx.x] = acc[ky * K + kx][v];
        __syncthreads();
        for (int i = threadIdx.x; i < K * width; i += threads) {
            const int kx = i / width, c = i % width;
            float sum = 0;
            for (int l = 0; l < g.lanes; l++)
                sum += shared[(kx * V + c % V) * threads + l * g.pairs + c / V];
            if (first + c < a.c)
                partial[((int64_t)blockIdx.x * (K * K) + ky * K + kx) * a.c + first + c] = sum;
        }
        __syncthreads();
    }
}

template <int K, int S, int V, int T, bool BF>
static __global__ void __launch_bounds__(THREADS, 2)
    dw_kernel(const __grid_constant__ dw_args a, const dw_grid g, float *partial)
{
    __shared__ float shared[K * V * THREADS];
    const int pair = (int)threadIdx.x % g.pairs, lane = (int)threadIdx.x / g.pairs,
              channel = (blockIdx.y * g.pairs + pair) * V;
    const int64_t rows = (int64_t)a.n * a.oh;
    float acc[K * K][V] = {};
    if (channel < a.c)
        for (int64_t r = blockIdx.x * g.lanes + lane; r < rows; r += (int64_t)gridDim.x * g.lanes)
            dw_row<K, S, V, T, BF>(a, r, channel, acc);
    dw_partial<K, V>(a, g, acc, shared, partial);
}

enum { DW_WARPS = 8 };

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
    kn_begin();
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

static int any_row_blocks(const kn_call *c, int64_t rows, int channels)
{
    int64_t want = kn_ceil((int64_t)kn_cuda(c)->sms * 4, kn_ceil(channels, 32)), most = kn_ceil(rows, DW_WARPS * 4);
    return (int)(want < most ? want : most < 1 ? 1 : most);
}

/* Kernels of 7 have 49 sums: one channel a thread. */
static int width_of(int channels, int k) { return channels % 2 == 0 && k <= 5 ? 2 : 1; }

extern "C" size_t kn_cuda_depthwise_dw_scratch(const kn_call *c)
{
    const kn_shape *dy = &c->in[1].shape;
    int channels = dy->d[3], k = c->a->kh;
    int64_t rows = (int64_t)dy->d[0] * dy->d[1];
    int fast = grid_of(INT32_MAX, channels, /* the most, for any tiles */
                       width_of(channels, k), kn_cuda(c)->sms)
                   .row_blocks,
        any = any_row_blocks(c, rows, channels);
    const dw_args a = geometry(c, &c->in[0].shape, dy, k);
    const stage_grid g = dw_rows_grid(&a, kn_cuda(c)->sms);
    const int staged = dw_rows_blocks(&g), most = fast > any ? fast : any;
    return (size_t)(staged > most ? staged : most) * (size_t)(k * k) * (size_t)channels * sizeof(float);
}

template <int K, int S> static int launch(const kn_call *c, const dw_args *a, float *partial)
{
    enum { V = K <= 5 ? 2 : 1 };
    const int v = width_of(a->c, K);
    const dw_grid g = grid_of((int64_t)a->n * a->oh, a->c, v, kn_cuda(c)->sms);
    const dim3 grid((unsigned)g.row_blocks, (unsigned)g.col_blocks);
    const unsigned threads = (unsigned)(g.pairs * g.lanes);
    const bool bf = a->x_type == KN_BF16 && a->dy_type == KN_BF16;
    if (V == 2 && v == 2 && bf && a->ow <= 2)
        dw_kernel<K, S, V, 2, V == 2><<<grid, threads, 0, kn_stream(c)>>>(*a, g, partial);
    else if (V == 2 && v == 2 && bf)
        dw_kernel<K, S, V, 4, V == 2><<<grid, threads, 0, kn_stream(c)>>>(*a, g, partial);
    else if (v == 2)
        dw_kernel<K, S, V, 2, false><<<grid, threads, 0, kn_stream(c)>>>(*a, g, partial);
    else
        dw_kernel<K, S, 1, 2, false><<<grid, threads, 0, kn_stream(c)>>>(*a, g, partial);
    return g.row_blocks;
}

static int launch_any(const kn_call *c, const dw_args *a, float *partial)
{
    int blocks = any_row_blocks(c, (int64_t)a->n * a->oh, a->c);
    dim3 grid((unsigned)blocks, (unsigned)kn_ceil(a->c, 32), (unsigned)(a->k * a->k));
    dw_any_kernel<<<grid, 32 * DW_WARPS, 0, kn_stream(c)>>>(*a, partial);
    return blocks;
}

static int launch_staged(const kn_call *c, const dw_args *a, float *partial)
{
    const stage_grid g = dw_rows_grid(a, kn_cuda(c)->sms);
    if (a->stride == 1)
        a->k == 3 ? dw_rows_launch<3, 1>(c, a, partial) : dw_rows_launch<5, 1>(c, a, partial);
    else
        a->k == 3 ? dw_rows_launch<3, 2>(c, a, partial) : dw_rows_launch<5, 2>(c, a, partial);
    return dw_rows_blocks(&g);
}

es_status kn_cuda_depthwise_dw_open(kn_cuda_device *dev, es_error *err)
{
    STAGE_ALLOW((dw_rows_kernel<3, 1>));
    STAGE_ALLOW((dw_rows_kernel<5, 1>));
    STAGE_ALLOW((dw_rows_kernel<3, 2>));
    STAGE_ALLOW((dw_rows_kernel<5, 2>));
    return ES_OK;
}

extern "C" es_status kn_cuda_depthwise_dw(const kn_call *c, es_error *err)
{
    dw_args a = geometry(c, &c->in[0].shape, &c->in[1].shape, c->a->kh);
    float *partial = (float *)c->scratch;
    int blocks = 0;
    a.x = c->in[0].p, a.x_type = c->in[0].dtype, a.dy = c->in[1].p, a.dy_type = c->in[1].dtype;
    if (dw_rows_fit(&a))
        blocks = launch_staged(c, &a, partial);
    else if (a.dilation == 1 && a.stride == 1)
        DW_BY_KERNEL(a.k, K, (blocks = launch<K, 1>(c, &a, partial)), blocks = launch_any(c, &a, partial));
    else if (a.dilation == 1 && a.stride == 2)
        DW_BY_KERNEL(a.k, K, (blocks = launch<K, 2>(c, &a, partial)), blocks = launch_any(c, &a, partial));
    else
        blocks = launch_any(c, &a, partial);
    int64_t sums = (int64_t)a.k * a.k * a.c;
    kn_launch(dw_finish, dim3((unsigned)kn_ceil(sums, 32)), dim3(32, 8), 0, kn_stream(c), partial, blocks, a.k * a.k,
              a.k, a.c, c->out[0].p, c->out[0].dtype, c->out[0].stride[0], c->out[0].stride[1], c->accumulate & 1);
    KN_LAUNCHED("depthwise_dw");
    return ES_OK;
}
