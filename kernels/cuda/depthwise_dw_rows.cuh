/* depthwise_dw_rows.cuh - the gradient of a depthwise convolution's weights, walking down images in bf16: strides 1 and 2.
 *
 * A thread owns two channels of 4 output columns and all K K sums. Rows of x and of dy pass through shared memory (depthwise_stage.cuh); the rows of dy that a row of x
 * meets turn round in registers, so that each is read once. Sums of a block are added in shared memory, those of blocks by dw_finish, both in a fixed order.
 */
#ifndef KN_CUDA_DEPTHWISE_DW_ROWS_CUH
#define KN_CUDA_DEPTHWISE_DW_ROWS_CUH

#include "kernels/cuda/depthwise_stage.cuh"

/* Adds the sums of a block's lanes, a kernel row at a time, and writes partial[row block][K * K][c]. */
template <int K>
static __device__ __forceinline__ void dw_rows_partial(const dw_args &a, const stage_grid &g, float (*acc)[2],
                                                       float *shared, float *partial)
{
    const int threads = (int)blockDim.x, lanes = threads / STAGE_PAIRS,
              first = (int)(blockIdx.x % g.slabs) * 2 * STAGE_PAIRS;
    const int64_t block = (int64_t)blockIdx.y * g.strips + blockIdx.x / g.slabs;
#pragma unroll
    for (int ky = 0; ky < K; ky++) { /* shared[kx][channel of the pair][lane][pair] */
        __syncthreads();
#pragma unroll
        for (int kx = 0; kx < K; kx++) {
            shared[(2 * kx) * threads + threadIdx.x] = acc[ky * K + kx][0];
            shared[(2 * kx + 1) * threads + threadIdx.x] = acc[ky * K + kx][1];
        }
        __syncthreads();
        for (int i = threadIdx.x; i < K * 2 * STAGE_PAIRS; i += threads) {
            const int row = i / STAGE_PAIRS, pair = i % STAGE_PAIRS, channel = first + 2 * pair + row % 2;
            float sum = 0;
            for (int l = 0; l < lanes; l++)
                sum += shared[row * threads + l * STAGE_PAIRS + pair];
            if (channel < a.c)
                partial[(block * (K * K) + ky * K + row / 2) * a.c + channel] = sum;
        }
    }
}

/* Step v of an image: row v - P of x meets rows (v - ky) / S of dy, the newest of which, v / S, arrives with it. */
template <int K, int S>
static __global__ void __launch_bounds__(256, 2)
    dw_rows_kernel(const __grid_constant__ dw_args a, const stage_grid g, float *partial)
{
    enum { P = K / 2, STEP = STAGE_T * S, SPAN = (STAGE_T - 1) * S + K, NS = (K + S - 1) / S, U = NS * S };
    extern __shared__ uint4 buffer[];
    kn_begin();
    const stage_place p = stage_where(g, a.n);
    stage_reader<STEP, SPAN - STEP, P> in(g, p, a.x, a.n, a.h, a.w_in, a.c);
    stage_reader<STAGE_T, 0, 0> grad(g, p, a.dy, a.n, a.oh, a.ow, a.c);
    const int x_bytes = in.image_bytes * g.images, steps = a.h + P;
    const uint32_t x_mine = p.image * in.image_bytes + p.tile * (STEP + 1) * 64 + p.pair * 4,
                   d_mine = x_bytes + p.image * grad.image_bytes + p.tile * (STAGE_T + 1) * 64 + p.pair * 4;
    float acc[K * K][2] = {};
    int ahead = 0, rounds_left = p.rounds; /* the step to be copied next, and how many images are left of it */
    const auto copy = [&](uint32_t to) {
        if (rounds_left > 0) {
            if (ahead >= P)
                in.issue(to);
            if (ahead % S == 0 && ahead / S < a.oh)
                grad.issue(to + x_bytes);
            ahead = ahead + 1 == steps ? 0 : ahead + 1;
            rounds_left -= ahead == 0;
        }
    };
    stage_ring rows(buffer, x_bytes + grad.image_bytes * g.images, copy);
    for (int round = 0; round < p.rounds; round++) {
        const bool exists = p.n0 + round * g.images + p.image < a.n;
        float ring[NS][STAGE_T][2] = {}; /* row oy of dy is ring[oy % NS] */
        for (int base = 0; base < steps; base += U)
#pragma unroll
            for (int u = 0; u < U; u++) {
                const int v = base + u;
                if (v >= steps)
                    break;
                const uint32_t use = rows.next(copy);
                if (u % S == 0) {
                    const bool row = exists && v / S < a.oh;
#pragma unroll
                    for (int t = 0; t < STAGE_T; t++) {
                        const uint32_t d = row ? stage_read(use + d_mine + stage_column<STAGE_T>(t)) : 0u;
                        ring[u / S % NS][t][0] = stage_low(d);
                        ring[u / S % NS][t][1] = stage_high(d);
                    }
                }
                if (v >= P) {
#pragma unroll
                    for (int j = 0; j < SPAN; j++) {
                        const uint32_t x = stage_read(use + x_mine + stage_column<STEP>(j));
                        const float lo = stage_low(x), hi = stage_high(x);
#pragma unroll
                        for (int ky = 0; ky < K; ky++) {
                            if ((u - ky + 4 * U) % S)
                                continue;
#pragma unroll
                            for (int t = 0; t < STAGE_T; t++) {
                                const int kx = j - t * S, slot = (u - ky + 4 * U) / S % NS;
                                if (kx >= 0 && kx < K) {
                                    acc[ky * K + kx][0] = fmaf(lo, ring[slot][t][0], acc[ky * K + kx][0]);
                                    acc[ky * K + kx][1] = fmaf(hi, ring[slot][t][1], acc[ky * K + kx][1]);
                                }
                            }
                        }
                    }
                }
            }
    }
    stage_drain();
    dw_rows_partial<K>(a, g, acc, (float *)buffer, partial);
}

static inline bool dw_rows_fit(const dw_args *a)
{
    return stage_fits(a) && a->x_type == KN_BF16 && a->dy_type == KN_BF16 && kn_aligned(a->x) && kn_aligned(a->dy);
}

static inline stage_grid dw_rows_grid(const dw_args *a, int sms) { return stage_grid_make(a->n, a->ow, a->c, 1, sms); }

/* Blocks whose sums dw_finish adds. */
static inline int dw_rows_blocks(const stage_grid *g) { return g->groups * g->strips; }

template <int K, int S> static void dw_rows_launch(const kn_call *c, const dw_args *a, float *partial)
{
    const stage_grid g = dw_rows_grid(a, kn_cuda(c)->sms);
    const int threads = STAGE_PAIRS * g.tiles * g.images,
              rows = STAGES * g.images *
                     (stage_image_bytes(g.tiles, STAGE_T * S, K - S) + stage_image_bytes(g.tiles, STAGE_T, 0)),
              sums = 2 * K * threads * (int)sizeof(float);
    kn_launch(dw_rows_kernel<K, S>, dim3((unsigned)(g.slabs * g.strips), (unsigned)g.groups), dim3((unsigned)threads),
              (size_t)(rows > sums ? rows : sums), kn_stream(c), *a, g, partial);
}

#endif
