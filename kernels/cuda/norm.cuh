/* norm.cuh - a batch norm as scale and shift of W channels, from its parameters and statistics. */
#ifndef KN_CUDA_NORM_CUH
#define KN_CUDA_NORM_CUH

#include "kernels/cuda/cuda.cuh"

struct kn_norm_given {
    const float *gamma, *beta, *mean, *var; /* gamma and beta may be NULL */
    float eps;
};

#ifdef __CUDACC__
template <int W>
static __device__ __forceinline__ void kn_norm_coefficients(const kn_norm_given &n, int channel, float *scale,
                                                            float *shift)
{
#pragma unroll
    for (int w = 0; w < W; w++) {
        float g = n.gamma ? n.gamma[channel + w] : 1.f, b = n.beta ? n.beta[channel + w] : 0.f;
        scale[w] = g * rsqrtf(n.var[channel + w] + n.eps);
        shift[w] = b - n.mean[channel + w] * scale[w];
    }
}
#endif

#endif
