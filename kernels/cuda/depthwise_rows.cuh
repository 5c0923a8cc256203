/* depthwise_rows.cuh - depthwise convolution of stride 1 that keeps the size, in bf16: forward, and dx with the kernel turned round.
 *
 * A thread owns two channels of T columns, holds all K K weights in registers and walks down an image: each input row is loaded once (T + K - 1 values) and added to the
 * K output rows it reaches, whose sums turn round in registers; the next row's loads are under way meanwhile. Weights serve `images` images. Bytes:
 * input and output once, besides the halo of K - 1 columns, which neighbouring threads find in the L1 cache.
 */
#ifndef KN_CUDA_DEPTHWISE_ROWS_CUH
#define KN_CUDA_DEPTHWISE_ROWS_CUH

#include "kernels/cuda/depthwise.cuh"

template <int T>
static __device__ __forceinline__ void rows_store(float (&acc)[T][2], __nv_bfloat16 *image, const dw_args &a, int oy,
                                                  int x0)
{
#pragma unroll
    for (int t = 0; t < T; t++) {
        if (oy >= 0 && x0 + t < a.ow) {
            __nv_bfloat162 *o = (__nv_bfloat162 *)(image + ((int64_t)oy * a.ow + x0 + t) * a.c);
            if (a.accumulate) {
                float2 old = __bfloat1622float2(*o);
                acc[t][0] += old.x, acc[t][1] += old.y;
            }
            *o = __floats2bfloat162_rn(acc[t][0], acc[t][1]);
        }
        acc[t][0] = acc[t][1] = 0;
    }
}

template <int K, int T, bool FLIP>
static __global__ void __launch_bounds__(128, 4) rows_kernel(const __grid_constant__ dw_args a, int images)
{
    enum { P = K / 2, SPAN = T + K - 1 };
    kn_begin();
    const int pairs = a.c / 2, tiles = (a.ow + T - 1) / T, group_images = images;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= (int64_t)((a.n + group_images - 1) / group_images) * tiles * pairs)
        return;
    const int channel = (int)(i % pairs) * 2, x0 = (int)(i / pairs % tiles) * T, first = x0 - P;
    const int n0 = (int)(i / pairs / tiles) * group_images, n1 = n0 + group_images < a.n ? n0 + group_images : a.n;
    float w[K][K][2];
#pragma unroll
    for (int ky = 0; ky < K; ky++)
#pragma unroll
        for (int kx = 0; kx < K; kx++)
            load_some<2, true>(w[ky][kx], a.w, a.w_type,
                               (FLIP ? K - 1 - ky : ky) * a.ws0 + (FLIP ? K - 1 - kx : kx) * a.ws1 + channel);
    for (int n = n0; n < n1; n++) {
        const __nv_bfloat16 *in = (const __nv_bfloat16 *)a.x + (int64_t)n * a.h * a.w_in * a.c + channel;
        __nv_bfloat16 *out = (__nv_bfloat16 *)a.out + (int64_t)n * a.oh * a.ow * a.c + channel;
        float acc[K][T][2] = {}; /* output row oy is acc[oy % K] */
        uint32_t now[SPAN], next[SPAN];
        load_row<SPAN>(now, in, a, 0, first);
        for (int base = 0; base < a.h + P; base += K)
#pragma unroll
            for (int u = 0; u < K; u++) {
                const int iy = base + u;
                if (iy >= a.h + P)
                    break;
                load_row<SPAN>(next, in, a, iy + 1, first);
                if (iy < a.h) {
#pragma unroll
                    for (int j = 0; j < SPAN; j++) {
                        const float lo = __uint_as_float(now[j] << 16), hi = __uint_as_float(now[j] & 0xffff0000u);
#pragma unroll
                        for (int ky = 0; ky < K; ky++) {
#pragma unroll
                            for (int t = 0; t < T; t++) {
                                const int kx = j - t, slot = (u + P - ky + K) % K;
                                if (kx >= 0 && kx < K) {
                                    acc[slot][t][0] = fmaf(lo, w[ky][kx][0], acc[slot][t][0]);
                                    acc[slot][t][1] = fmaf(hi, w[ky][kx][1], acc[slot][t][1]);
                                }
                            }
                        }
                    }
                }
                rows_store<T>(acc[(u - P + K) % K], out, a, iy - P, x0);
#pragma unroll
                for (int j = 0; j < SPAN; j++)
                    now[j] = next[j];
            }
    }
}

static inline bool rows_fit(const dw_args *a)
{
    return a->stride == 1 && a->dilation == 1 && (a->k == 3 || a->k == 5) && a->pad == a->k / 2 && a->c % 2 == 0 &&
           a->x_type == KN_BF16 && a->w_type == KN_BF16 && a->out_type == KN_BF16 && a->ws0 % 2 == 0 &&
           a->ws1 % 2 == 0 && ((uintptr_t)a->w & 3) == 0;
}

template <int K, int T, bool FLIP> static void rows_launch(const dw_args *a, int sms, cudaStream_t stream)
{
    int64_t each = (int64_t)((a->ow + T - 1) / T) * (a->c / 2), full = (int64_t)sms * 512 * 2;
    int64_t images = each * a->n / full; /* two rounds of full multiprocessors */
    images = images < 1 ? 1 : images > 8 ? 8 : images;
    kn_launch(rows_kernel<K, T, FLIP>, dim3((unsigned)kn_ceil(kn_ceil(a->n, images) * each, 128)), dim3(128), 0, stream,
              *a, (int)images);
}

template <bool FLIP> static void rows(const dw_args *a, int sms, cudaStream_t stream)
{
    if (a->k == 3 && a->ow <= 2)
        rows_launch<3, 2, FLIP>(a, sms, stream);
    else if (a->k == 3)
        rows_launch<3, 4, FLIP>(a, sms, stream);
    else if (a->ow <= 2)
        rows_launch<5, 2, FLIP>(a, sms, stream);
    else
        rows_launch<5, 4, FLIP>(a, sms, stream);
}

#endif
