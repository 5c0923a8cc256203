/* depthwise_rows.cuh - depthwise convolution that walks down images, in bf16: forward of strides 1 and 2, dx of stride 1 (the forward with the kernel turned round) and
 * of stride 2.
 *
 * A thread owns two channels of 4 output columns, holds all K K weights in registers, and adds each input row, read once from shared memory (depthwise_stage.cuh), to
 * the output rows it reaches, whose sums turn round in registers. Bytes: input and output once, besides the halo between strips.
 */
#ifndef KN_CUDA_DEPTHWISE_ROWS_CUH
#define KN_CUDA_DEPTHWISE_ROWS_CUH

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/depthwise_stage.cuh"

template <int K, bool FLIP>
static __device__ __forceinline__ void rows_weights(float (&w)[K][K][2], const dw_args &a, int channel)
{
#pragma unroll
    for (int ky = 0; ky < K; ky++)
#pragma unroll
        for (int kx = 0; kx < K; kx++) {
            w[ky][kx][0] = w[ky][kx][1] = 0;
            if (channel < a.c)
                load_some<2, true>(w[ky][kx], a.w, a.w_type,
                                   (FLIP ? K - 1 - ky : ky) * a.ws0 + (FLIP ? K - 1 - kx : kx) * a.ws1 + channel);
        }
}

/* Where a thread's outputs go: a row of up to 4 columns at a time. */
struct rows_output {
    __nv_bfloat16 *at;
    int64_t row;
    int columns, c; /* columns: how many of the 4 exist, 0 for a thread without */
};

/* What becomes of a sum on its way out: nothing; it is counted for the statistics of the norm that follows; a norm with given statistics and its activation. */
enum { ROWS_PLAIN, ROWS_STATS, ROWS_NORM };

/* Sums of what a thread stores, less `about`: of its two channels, then of their squares. ROWS_NORM: its channels' scales, then shifts. */
struct rows_sums {
    float v[4], about[2];
};

/* What a channel's results are likely to be near, the same for all blocks: the result in the middle of the first image if x were there what it is in the middle. The square of
 * a mean far from zero would leave little of the variance in fp32. */
template <int K, int S>
static __device__ __forceinline__ void rows_about(const float (&w)[K][K][2], const dw_args &a, int channel,
                                                  rows_sums &sums)
{
    const int y = a.oh / 2 * S, x = a.ow / 2 * S;
    float middle[2] = {}, all[2] = {};
    if (channel < a.c)
        load_some<2, true>(middle, a.x, a.x_type, ((int64_t)y * a.w_in + x) * a.c + channel);
#pragma unroll
    for (int ky = 0; ky < K; ky++)
#pragma unroll
        for (int kx = 0; kx < K; kx++)
            if ((unsigned)(y + ky - K / 2) < (unsigned)a.h && (unsigned)(x + kx - K / 2) < (unsigned)a.w_in) {
                all[0] += w[ky][kx][0];
                all[1] += w[ky][kx][1];
            }
    sums.about[0] = all[0] * middle[0];
    sums.about[1] = all[1] * middle[1];
}

/* What lies where the next row will be stored: asked for before the products, so that nobody waits for it after them. */
static __device__ __forceinline__ void rows_old(uint32_t (&old)[STAGE_T], const rows_output &o)
{
#pragma unroll
    for (int t = 0; t < STAGE_T; t++)
        if (t < o.columns)
            old[t] = *(const uint32_t *)(o.at + (int64_t)t * o.c);
}

static __device__ __forceinline__ float rows_act(int act, float x)
{
    switch (act) {
    case KN_ACT_SILU: return kn_act_any<true>(KN_ACT_SILU, 0, x);
    case KN_ACT_HSWISH: return kn_act_any<true>(KN_ACT_HSWISH, 0, x);
    case KN_ACT_RELU: return kn_act_any<true>(KN_ACT_RELU, 0, x);
    case KN_ACT_RELU6: return kn_act_any<true>(KN_ACT_RELU6, 0, x);
    default: return x; /* fuse.cu asks for no other */
    }
}

template <int MODE, bool ADD>
static __device__ __forceinline__ void rows_store(float (&acc)[STAGE_T][2], rows_output &o, bool row_exists,
                                                  rows_sums &sums, const uint32_t (&old)[STAGE_T], int act)
{
    if (row_exists) {
#pragma unroll
        for (int t = 0; t < STAGE_T; t++)
            if (t < o.columns) {
                if (ADD) {
                    acc[t][0] += stage_low(old[t]);
                    acc[t][1] += stage_high(old[t]);
                }
                if (MODE == ROWS_NORM) {
#pragma unroll
                    for (int v = 0; v < 2; v++)
                        acc[t][v] = rows_act(act, fmaf(acc[t][v], sums.v[v], sums.v[2 + v]));
                }
                *(__nv_bfloat162 *)(o.at + (int64_t)t * o.c) = __floats2bfloat162_rn(acc[t][0], acc[t][1]);
                if (MODE == ROWS_STATS) {
                    const float lo = acc[t][0] - sums.about[0], hi = acc[t][1] - sums.about[1];
                    sums.v[0] += lo, sums.v[1] += hi;
                    sums.v[2] = fmaf(lo, lo, sums.v[2]);
                    sums.v[3] = fmaf(hi, hi, sums.v[3]);
                }
            }
        o.at += o.row;
    }
#pragma unroll
    for (int t = 0; t < STAGE_T; t++)
        acc[t][0] = acc[t][1] = 0;
}

static __device__ __forceinline__ rows_output rows_open(const dw_args &a, const stage_grid &g, const stage_place &p,
                                                        int round, int height, int width)
{
    const int n = p.n0 + round * g.images + p.image, x0 = (p.strip * g.tiles + p.tile) * STAGE_T, left = width - x0;
    rows_output o;
    o.columns = n < a.n && p.channel < a.c ? (left < STAGE_T ? left : STAGE_T) : 0;
    o.row = (int64_t)width * a.c;
    o.at = (__nv_bfloat16 *)a.out + ((int64_t)n * height * width + x0) * a.c + p.channel;
    o.c = a.c;
    return o;
}

/* Mean and variance of each channel over all outputs, from sums about a number near them (rows_about), for the batch norm that follows: a block adds its lanes in lane order and writes its partial sums; the last
 * block of a slab to arrive adds those of all blocks, in block order, in double. */
struct rows_stats {
    float *partial, *mean, *var;
    unsigned *arrived;
    /* ROWS_NORM: mean and var are given. */
    const float *gamma, *beta;
    float eps;
    int act;
};

static __device__ __forceinline__ void rows_coefficients(const rows_stats &s, int channel, int channels, rows_sums &to)
{
#pragma unroll
    for (int v = 0; v < 2; v++) {
        const int c = channel + v < channels ? channel + v : 0;
        to.v[v] = (s.gamma ? s.gamma[c] : 1.f) * rsqrtf(s.var[c] + s.eps);
        to.v[2 + v] = (s.beta ? s.beta[c] : 0.f) - s.mean[c] * to.v[v];
    }
}

static __device__ __forceinline__ void rows_finish_stats(const dw_args &a, const stage_grid &g, const rows_stats &s,
                                                         const rows_sums &sums, float *shared)
{
    enum { ITEMS = 4 * STAGE_PAIRS }; /* item: which sum (4) of which pair (16) */
    __shared__ bool last;
    __shared__ float about[2 * STAGE_PAIRS];
    const int threads = (int)blockDim.x, lanes = threads / STAGE_PAIRS, slab = (int)(blockIdx.x % g.slabs),
              blocks = g.groups * g.strips, segments = threads < ITEMS ? 1 : threads / ITEMS;
    float *column = s.partial + (int64_t)slab * blocks * ITEMS,
          *mine = column + (int64_t)(blockIdx.y * g.strips + blockIdx.x / g.slabs) * ITEMS;
    if (threadIdx.x < STAGE_PAIRS)
        about[2 * threadIdx.x] = sums.about[0], about[2 * threadIdx.x + 1] = sums.about[1];
    stage_drain();
    __syncthreads();
#pragma unroll
    for (int v = 0; v < 4; v++)
        shared[v * threads + threadIdx.x] = sums.v[v];
    __syncthreads();
    for (int i = threadIdx.x; i < ITEMS; i += threads) {
        float sum = 0;
        for (int l = 0; l < lanes; l++)
            sum += shared[i / STAGE_PAIRS * threads + l * STAGE_PAIRS + i % STAGE_PAIRS];
        mine[i] = sum;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        last = atomicAdd(&s.arrived[slab], 1u) == (unsigned)blocks - 1;
    __syncthreads();
    if (!last)
        return;
    __threadfence();
    double *part = (double *)shared;
    for (int i = threadIdx.x; i < ITEMS * segments; i += threads) {
        double sum = 0;
#pragma unroll 16
        for (int b = i / ITEMS; b < blocks; b += segments)
            sum += __ldcg(column + (int64_t)b * ITEMS + i % ITEMS);
        part[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * STAGE_PAIRS; i += threads) {
        const int channel = slab * 2 * STAGE_PAIRS + i, at = i % 2 * STAGE_PAIRS + i / 2;
        const double n = (double)a.n * a.oh * a.ow;
        double sum = 0, squares = 0;
        for (int b = 0; b < segments; b++) {
            sum += part[b * ITEMS + at];
            squares += part[b * ITEMS + 2 * STAGE_PAIRS + at];
        }
        const double m = sum / n, var = squares / n - m * m;
        if (channel < a.c) {
            s.mean[channel] = (float)(m + (double)about[i]);
            s.var[channel] = (float)(var > 0 ? var : 0);
        }
    }
    if (threadIdx.x == 0)
        s.arrived[slab] = 0;
}

/* Forward of stride S; with FLIP, dx of stride 1 (then a.x is dy). An input row iy reaches output rows (iy + P - ky) / S. */
template <int K, int S, bool FLIP, int MODE, bool ADD>
static __global__ void __launch_bounds__(256, 2)
    rows_kernel(const __grid_constant__ dw_args a, const stage_grid g, const rows_stats stats)
{
    enum { P = K / 2, STEP = STAGE_T * S, SPAN = (STAGE_T - 1) * S + K, NS = (K + S - 1) / S, U = NS * S };
    extern __shared__ uint4 buffer[];
    kn_begin();
    const stage_place p = stage_where(g, a.n);
    stage_reader<STEP, SPAN - STEP, P> in(g, p, a.x, a.n, a.h, a.w_in, a.c);
    const uint32_t mine = p.image * in.image_bytes + p.tile * (STEP + 1) * 64 + p.pair * 4;
    float w[K][K][2];
    rows_sums sums = {};
    int rows_left = p.rounds * a.h;
    const auto copy = [&](uint32_t to) {
        if (rows_left-- > 0)
            in.issue(to);
    };
    stage_ring ring(buffer, in.image_bytes * g.images, copy);
    rows_weights<K, FLIP>(w, a, p.channel);
    if (MODE == ROWS_STATS)
        rows_about<K, S>(w, a, p.channel, sums);
    if (MODE == ROWS_NORM)
        rows_coefficients(stats, p.channel, a.c, sums);
    for (int round = 0; round < p.rounds; round++) {
        rows_output out = rows_open(a, g, p, round, a.oh, a.ow);
        float acc[NS][STAGE_T][2] = {}; /* output row oy is acc[oy % NS] */
        const int last = (a.oh - 1) * S - P + K;
        for (int base = 0; base < last; base += U)
#pragma unroll
            for (int u = 0; u < U; u++) {
                const int iy = base + u;
                if (iy >= last)
                    break;
                uint32_t old[STAGE_T];
                const bool row_exists = iy + P - K + 1 >= 0;
                if (ADD && (u + P - K + 1 + 4 * U) % S == 0 && row_exists)
                    rows_old(old, out);
                if (iy < a.h) {
                    const uint32_t row = ring.next(copy) + mine;
#pragma unroll
                    for (int j = 0; j < SPAN; j++) {
                        const uint32_t x = stage_read(row + stage_column<STEP>(j));
                        const float lo = stage_low(x), hi = stage_high(x);
#pragma unroll
                        for (int ky = 0; ky < K; ky++) {
                            if ((u + P - ky + 4 * U) % S)
                                continue;
#pragma unroll
                            for (int t = 0; t < STAGE_T; t++) {
                                const int kx = j - t * S, slot = (u + P - ky + 4 * U) / S % NS;
                                if (kx >= 0 && kx < K) {
                                    acc[slot][t][0] = fmaf(lo, w[ky][kx][0], acc[slot][t][0]);
                                    acc[slot][t][1] = fmaf(hi, w[ky][kx][1], acc[slot][t][1]);
                                }
                            }
                        }
                    }
                }
                if ((u + P - K + 1 + 4 * U) % S == 0)
                    rows_store<MODE, ADD>(acc[(u + P - K + 1 + 4 * U) / S % NS], out, row_exists, sums, old, stats.act);
            }
    }
    if (MODE == ROWS_STATS)
        rows_finish_stats(a, g, stats, sums, (float *)buffer);
}

/* dx of stride 2: a row of dy (a.x, [n][oh][ow][c]) reaches K rows of dx (a.out, [n][h][w_in][c]); two of them are complete after it. */
template <int K, bool ADD>
static __global__ void __launch_bounds__(256, 2) rows_dx_kernel(const __grid_constant__ dw_args a, const stage_grid g)
{
    enum { P = K / 2, LEFT = P / 2, STEP = STAGE_T / 2, SPAN = LEFT + 3, NS = K + 1, U = NS / 2 };
    extern __shared__ uint4 buffer[];
    kn_begin();
    const stage_place p = stage_where(g, a.n);
    stage_reader<STEP, SPAN - STEP, LEFT> in(g, p, a.x, a.n, a.oh, a.ow, a.c);
    const uint32_t mine = p.image * in.image_bytes + p.tile * (STEP + 1) * 64 + p.pair * 4;
    float w[K][K][2];
    rows_sums none;
    int rows_left = p.rounds * a.oh;
    const auto copy = [&](uint32_t to) {
        if (rows_left-- > 0)
            in.issue(to);
    };
    stage_ring ring(buffer, in.image_bytes * g.images, copy);
    rows_weights<K, false>(w, a, p.channel);
    for (int round = 0; round < p.rounds; round++) {
        rows_output out = rows_open(a, g, p, round, a.h, a.w_in);
        float acc[NS][STAGE_T][2] = {}; /* dx row iy is acc[iy % NS] */
        const int last = (a.h + P + 1) / 2;
        for (int base = 0; base < last; base += U)
#pragma unroll
            for (int u = 0; u < U; u++) {
                const int oy = base + u;
                if (oy >= last)
                    break;
                if (oy < a.oh) {
                    const uint32_t row = ring.next(copy) + mine;
#pragma unroll
                    for (int j = 0; j < SPAN; j++) {
                        const uint32_t d = stage_read(row + stage_column<STEP>(j));
                        const float lo = stage_low(d), hi = stage_high(d);
#pragma unroll
                        for (int t = 0; t < STAGE_T; t++) { /* column x0 + t gets dy column j through tap kx */
                            const int kx = t + P - 2 * (j - LEFT);
                            if (kx < 0 || kx >= K)
                                continue;
#pragma unroll
                            for (int ky = 0; ky < K; ky++) {
                                const int slot = (2 * u - P + ky + NS) % NS;
                                acc[slot][t][0] = fmaf(lo, w[ky][kx][0], acc[slot][t][0]);
                                acc[slot][t][1] = fmaf(hi, w[ky][kx][1], acc[slot][t][1]);
                            }
                        }
                    }
                }
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int iy = 2 * oy - P + r;
                    uint32_t old[STAGE_T];
                    if (ADD && iy >= 0 && iy < a.h)
                        rows_old(old, out);
                    rows_store<ROWS_PLAIN, ADD>(acc[(2 * u - P + r + NS) % NS], out, iy >= 0 && iy < a.h, none, old, 0);
                }
            }
    }
}

/* What the kernels read as vectors and pairs. */
static inline bool rows_fit(const dw_args *a)
{
    return stage_fits(a) && a->x_type == KN_BF16 && a->w_type == KN_BF16 && a->out_type == KN_BF16 && a->ws0 % 2 == 0 &&
           a->ws1 % 2 == 0 && ((uintptr_t)a->w & 3) == 0 && kn_aligned(a->x) && kn_aligned(a->out);
}

enum { ROWS_WAVES = 3 };

static inline stage_grid rows_grid(const dw_args *a, int width, int sms)
{
    return stage_grid_make(a->n, width, a->c, ROWS_WAVES, sms);
}

/* Bytes of partial sums for the statistics of a forward pass. */
static inline size_t rows_stats_bytes(const dw_args *a, int sms)
{
    const stage_grid g = rows_grid(a, a->ow, sms);
    return (size_t)(g.groups * g.strips * g.slabs) * 4 * STAGE_PAIRS * sizeof(float);
}

template <typename F, typename... R>
static void rows_launch(F *kernel, const dw_args *a, int width, int step, int halo, int sms, cudaStream_t stream,
                        R... rest)
{
    const stage_grid g = rows_grid(a, width, sms);
    const int bytes = STAGES * g.images * stage_image_bytes(g.tiles, step, halo);
    kn_launch(kernel, dim3((unsigned)(g.slabs * g.strips), (unsigned)g.groups),
              dim3((unsigned)(STAGE_PAIRS * g.tiles * g.images)), (size_t)bytes, stream, *a, g, rest...);
}

template <bool FLIP, int MODE, bool ADD>
static void rows_as(const dw_args *a, const rows_stats &stats, int sms, cudaStream_t stream)
{
    if (a->k == 3 && a->stride == 1)
        rows_launch(rows_kernel<3, 1, FLIP, MODE, ADD>, a, a->ow, 4, 2, sms, stream, stats);
    else if (a->k == 5 && a->stride == 1)
        rows_launch(rows_kernel<5, 1, FLIP, MODE, ADD>, a, a->ow, 4, 4, sms, stream, stats);
    else if (a->k == 3)
        rows_launch(rows_kernel<3, 2, false, MODE, ADD>, a, a->ow, 8, 1, sms, stream, stats);
    else
        rows_launch(rows_kernel<5, 2, false, MODE, ADD>, a, a->ow, 8, 3, sms, stream, stats);
}

/* With `stats`, which is not combined with adding. */
template <bool FLIP> static void rows(const dw_args *a, const rows_stats *stats, int sms, cudaStream_t stream)
{
    if (!FLIP && stats)
        rows_as<false, ROWS_STATS, false>(a, *stats, sms, stream);
    else if (a->accumulate)
        rows_as<FLIP, ROWS_PLAIN, true>(a, rows_stats{}, sms, stream);
    else
        rows_as<FLIP, ROWS_PLAIN, false>(a, rows_stats{}, sms, stream);
}

/* dx of stride 2; a.x is dy. */
template <bool ADD> static void rows_dx_as(const dw_args *a, int sms, cudaStream_t stream)
{
    if (a->k == 3)
        rows_launch(rows_dx_kernel<3, ADD>, a, a->w_in, 2, 1, sms, stream);
    else
        rows_launch(rows_dx_kernel<5, ADD>, a, a->w_in, 2, 2, sms, stream);
}

static void rows_dx(const dw_args *a, int sms, cudaStream_t stream)
{
    a->accumulate ? rows_dx_as<true>(a, sms, stream) : rows_dx_as<false>(a, sms, stream);
}

#endif
