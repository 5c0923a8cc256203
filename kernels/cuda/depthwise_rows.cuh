/* depthwise_rows.cuh - depthwise convolution that walks down images, in bf16: forward of strides 1 and 2, dx of stride 1 (the forward with the kernel turned round) and
 * of stride 2.
 *
 * A thread owns two channels of 4 output columns, holds all K K weights in registers, and adds each input row, read once from shared memory (depthwise_stage.cuh), to
 * the output rows it reaches, whose sums turn round in registers. Bytes: input and output once, besides the halo between strips.
 */
#ifndef KN_CUDA_DEPTHWISE_ROWS_CUH
#define KN_CUDA_DEPTHWISE_ROWS_CUH

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
    bool add;
};

static __device__ __forceinline__ void rows_store(float (&acc)[STAGE_T][2], rows_output &o, bool row_exists)
{
    if (row_exists) {
#pragma unroll
        for (int t = 0; t < STAGE_T; t++)
            if (t < o.columns) {
                __nv_bfloat162 *to = (__nv_bfloat162 *)(o.at + (int64_t)t * o.c);
                if (o.add) {
                    float2 old = __bfloat1622float2(*to);
                    acc[t][0] += old.x, acc[t][1] += old.y;
                }
                *to = __floats2bfloat162_rn(acc[t][0], acc[t][1]);
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
    o.add = a.accumulate != 0;
    return o;
}

/* Forward of stride S; with FLIP, dx of stride 1 (then a.x is dy). An input row iy reaches output rows (iy + P - ky) / S. */
template <int K, int S, bool FLIP>
static __global__ void __launch_bounds__(256, 2) rows_kernel(const __grid_constant__ dw_args a, const stage_grid g)
{
    enum { P = K / 2, STEP = STAGE_T * S, SPAN = (STAGE_T - 1) * S + K, NS = (K + S - 1) / S, U = NS * S };
    extern __shared__ uint4 buffer[];
    kn_begin();
    const stage_place p = stage_where(g, a.n);
    stage_reader<STEP, SPAN - STEP, P> in(g, p, a.x, a.n, a.h, a.w_in, a.c);
    const int stage_bytes = in.image_bytes * g.images;
    const uint32_t base0 = (uint32_t)__cvta_generic_to_shared(buffer), end = base0 + STAGES * stage_bytes,
                   mine = p.image * in.image_bytes + p.tile * (STEP + 1) * 64 + p.pair * 4;
    float w[K][K][2];
    stage_zero(buffer, STAGES * stage_bytes);
    int rows_left = p.rounds * a.h;
    uint32_t use = base0, fill = base0;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++, fill += stage_bytes) {
        if (rows_left-- > 0)
            in.issue(fill);
        stage_commit();
    }
    rows_weights<K, FLIP>(w, a, p.channel);
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
                if (iy < a.h) {
                    stage_wait();
                    __syncthreads();
                    if (rows_left-- > 0)
                        in.issue(fill);
                    stage_commit();
                    fill = fill + stage_bytes == end ? base0 : fill + stage_bytes;
#pragma unroll
                    for (int j = 0; j < SPAN; j++) {
                        const uint32_t x = stage_read(use + mine + stage_column<STEP>(j));
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
                    use = use + stage_bytes == end ? base0 : use + stage_bytes;
                }
                if ((u + P - K + 1 + 4 * U) % S == 0)
                    rows_store(acc[(u + P - K + 1 + 4 * U) / S % NS], out, iy + P - K + 1 >= 0);
            }
    }
}

/* dx of stride 2: a row of dy (a.x, [n][oh][ow][c]) reaches K rows of dx (a.out, [n][h][w_in][c]); two of them are complete after it. */
template <int K>
static __global__ void __launch_bounds__(256, 2) rows_dx_kernel(const __grid_constant__ dw_args a, const stage_grid g)
{
    enum { P = K / 2, LEFT = P / 2, STEP = STAGE_T / 2, SPAN = LEFT + 3, NS = K + 1, U = NS / 2 };
    extern __shared__ uint4 buffer[];
    kn_begin();
    const stage_place p = stage_where(g, a.n);
    stage_reader<STEP, SPAN - STEP, LEFT> in(g, p, a.x, a.n, a.oh, a.ow, a.c);
    const int stage_bytes = in.image_bytes * g.images;
    const uint32_t base0 = (uint32_t)__cvta_generic_to_shared(buffer), end = base0 + STAGES * stage_bytes,
                   mine = p.image * in.image_bytes + p.tile * (STEP + 1) * 64 + p.pair * 4;
    float w[K][K][2];
    stage_zero(buffer, STAGES * stage_bytes);
    int rows_left = p.rounds * a.oh;
    uint32_t use = base0, fill = base0;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++, fill += stage_bytes) {
        if (rows_left-- > 0)
            in.issue(fill);
        stage_commit();
    }
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
                    stage_wait();
                    __syncthreads();
                    if (rows_left-- > 0)
                        in.issue(fill);
                    stage_commit();
                    fill = fill + stage_bytes == end ? base0 : fill + stage_bytes;
#pragma unroll
                    for (int j = 0; j < SPAN; j++) {
                        const uint32_t d = stage_read(use + mine + stage_column<STEP>(j));
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
                    use = use + stage_bytes == end ? base0 : use + stage_bytes;
                }
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int iy = 2 * oy - P + r;
                    rows_store(acc[(2 * u - P + r + NS) % NS], out, iy >= 0 && iy < a.h);
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

template <typename F>
static void rows_launch(F *kernel, const dw_args *a, int width, int step, int halo, int sms, cudaStream_t stream)
{
    const stage_grid g = stage_grid_make(a->n, width, a->c, ROWS_WAVES, sms);
    const int bytes = STAGES * g.images * stage_image_bytes(g.tiles, step, halo);
    kn_launch(kernel, dim3((unsigned)(g.slabs * g.strips), (unsigned)g.groups),
              dim3((unsigned)(STAGE_PAIRS * g.tiles * g.images)), (size_t)bytes, stream, *a, g);
}

template <bool FLIP> static void rows(const dw_args *a, int sms, cudaStream_t stream)
{
    if (a->k == 3 && a->stride == 1)
        rows_launch(rows_kernel<3, 1, FLIP>, a, a->ow, 4, 2, sms, stream);
    else if (a->k == 5 && a->stride == 1)
        rows_launch(rows_kernel<5, 1, FLIP>, a, a->ow, 4, 4, sms, stream);
    else if (a->k == 3)
        rows_launch(rows_kernel<3, 2, false>, a, a->ow, 8, 1, sms, stream);
    else
        rows_launch(rows_kernel<5, 2, false>, a, a->ow, 8, 3, sms, stream);
}

/* dx of stride 2; a.x is dy. */
static void rows_dx(const dw_args *a, int sms, cudaStream_t stream)
{
    if (a->k == 3)
        rows_launch(rows_dx_kernel<3>, a, a->w_in, 2, 1, sms, stream);
    else
        rows_launch(rows_dx_kernel<5>, a, a->w_in, 2, 2, sms, stream);
}

#endif
