/* norm.cuh - a batch norm as scale and shift of W channels, from its parameters and statistics. */
#ifndef KN_CUDA_NORM_CUH
#define KN_CUDA_NORM_CUH

#include "kernels/cuda/cuda.cuh"

struct kn_norm_given {
    const float *gamma, *beta, *mean, *var; /* gamma and beta may be NULL */
    float eps;
};

#ifdef __CUDACC__
/* W numbers of a vector with one a channel, or `none` of NULL. Eight at once where they lie so: 16 bytes a load. */
template <int W>
static __device__ __forceinline__ void kn_load_channels(float *v, const float *p, int channel, float none)
{
    if (W == 8 && p && ((uintptr_t)p & 15) == 0) {
        const float4 a = ((const float4 *)(p + channel))[0], b = ((const float4 *)(p + channel))[1];
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        return;
    }
#pragma unroll
    for (int w = 0; w < W; w++)
        v[w] = p ? p[channel + w] : none;
}

/* z = (x - mean) scale + beta. */
template <int W>
static __device__ __forceinline__ void kn_norm_centred(const kn_norm_given &n, int channel, float *scale, float *mean,
                                                       float *beta)
{
    float var[W];
    kn_load_channels<W>(scale, n.gamma, channel, 1.f);
    kn_load_channels<W>(beta, n.beta, channel, 0.f);
    kn_load_channels<W>(mean, n.mean, channel, 0.f);
    kn_load_channels<W>(var, n.var, channel, 0.f);
#pragma unroll
    for (int w = 0; w < W; w++)
        scale[w] *= rsqrtf(var[w] + n.eps);
}

/* z = x scale + shift. */
template <int W>
static __device__ __forceinline__ void kn_norm_coefficients(const kn_norm_given &n, int channel, float *scale,
                                                            float *shift)
{
    float mean[W];
    kn_norm_centred<W>(n, channel, scale, mean, shift);
#pragma unroll
    for (int w = 0; w < W; w++)
        shift[w] -= mean[w] * scale[w];
}
#endif

#endif
