/* product.cuh - products of many rows with a small matrix in bf16, and what follows them before anything is stored: an own kernel (product.cu) where cuBLASLt's epilogues do not go.
 *
 *     kn_product p = {.m = rows, .n = 144, .k = 24, .a = x, .w = w, .ldw = 32, .d = y, .normed = true, .norm = norm, .act = KN_ACT_SILU};
 *     ES_RETURN(kn_cuda_product(dev, &p, err));                  // y = silu(scale x w^T + shift)
 *
 * d[m, n] = act(scale (a' w^T) + shift) + residual, where a' is a, or each of its rows times its image's row of `excite`; rounded to bf16 before the residual is added, and after.
 * a, d and residual are dense and 16-byte aligned; w is any slice with rows of ldw. n and k are multiples of 8. Whether a shape is for this kernel: kn_cuda_product_fits, a rule on
 * the shape alone.
 */
#ifndef KN_CUDA_PRODUCT_CUH
#define KN_CUDA_PRODUCT_CUH

#include "kernels/cuda/norm.cuh"

struct kn_product {
    int64_t m;
    int n, k;
    const void *a, *w;
    int64_t ldw;
    void *d;
    const void *residual; /* [m, n], or NULL */
    const void *excite;   /* [m / pixels, k], or NULL */
    int pixels;
    bool normed; /* else scale is 1 and shift 0 */
    kn_norm_given norm;
    kn_act act;
};

bool kn_cuda_product_fits(int64_t m, int n, int k);
es_status kn_cuda_product(kn_cuda_device *dev, const kn_product *p, es_error *err);

#endif
