/* batch_norm.cuh - what the kernels of batch norm share: their arguments, and the gradient that comes back to y. */
#ifndef KN_CUDA_BATCH_NORM_CUH
#define KN_CUDA_BATCH_NORM_CUH

#include "kernels/cuda/flow.cuh"
#include "kernels/cuda/norm.cuh"

struct bn_args {
    kn_flow_from from; /* x; backward dy; forward s or a shortcut, or backward s and q */
    void *out;
    int out_type, act;
    float alpha; /* of q */
    kn_norm_given norm;
    int accumulate;
};

/* Where sums go: per channel mean and var of x (forward) or sum d' and sum d' xhat (backward; a: NULL where statistics are constants). */
struct bn_sums {
    float *partial, *a, *b;
    unsigned *arrived;
    float *dgamma, *dbeta;
    int add_gamma, add_beta;
};

/* batch_norm_cluster.cu: statistics and result, or sums and result, in one launch. False: not for this shape, nothing was done. bf16, vectors of 8. */
bool kn_cuda_norm_whole(const kn_call *c, const bn_args &a, const bn_sums &s, int64_t rows, int channels,
                        bool shortcut);
bool kn_cuda_norm_grad_whole(const kn_call *c, const bn_args &a, const bn_sums &s, int64_t rows, int channels,
                             bool excited);

/* fuse_norms.cu: shortcuts are added by the norm before them. */
void kn_cuda_fuse_norms(struct kn_plan *p);

#ifdef __CUDACC__
/* What comes back to y: as it is stored, or made of its parts. */
template <int W, int TYPE, int E>
static __device__ __forceinline__ float dy_of(const kn_raw<W, TYPE> (&v)[2 + E], int w, float alpha)
{
    return E ? fmaf(v[1].get(w), v[1 + E / 2].get(w), alpha * v[1 + E].get(w)) : v[1].get(w);
}
#endif

#endif
