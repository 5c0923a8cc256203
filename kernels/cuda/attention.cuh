/* attention.cuh - attention on a GPU in three ways: bf16 heads of 64 on tensor cores, by warpgroups on 9.0 (attention_bf16.cu) and by warps elsewhere (attention_warps.cu), and
 * plainly every other type and size (attention.cu).
 *
 * Operands are [n, t, heads, d] as linear layers leave them, each with strides of its own: q, k and v may be columns of one product. lse and delta are [n, heads, tq] in fp32. Nothing of the size tq x tk is
 * ever stored: scores are computed again in the backward pass (Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691), whose two halves are two kernels, by queries
 * and by keys, so that every sum has one owner and one order: no atomics, the same bits every time.
 */
#ifndef KN_CUDA_ATTENTION_CUH
#define KN_CUDA_ATTENTION_CUH

#include "kernels/cuda/cuda.cuh"

/* One operand: elements between samples, rows (queries or keys) and heads; a head's row is contiguous. */
struct attention_rows {
    void *p;
    int type;
    int64_t sample, row, head;
};

struct attention_args {
    attention_rows q, k, v, y, dy, out, dq, dk, dv; /* out: y of the forward pass */
    const float *lse_in;
    float *lse, *delta; /* delta: sum over a row of dy y; lse NULL: not wanted */
    unsigned *next;     /* counts the items of work that were taken; zero between kernels */
    int n, heads, tq, tk, d, dv_width;
    int past; /* causal: query i sees keys up to i + past */
    int causal;
    float scale;
};

/* Keys that query i sees. */
static __host__ __device__ __forceinline__ int attention_seen(const attention_args &a, int i)
{
    int seen = a.causal ? i + a.past + 1 : a.tk;
    return seen < a.tk ? seen : a.tk;
}

bool kn_attention_fits_bf16(const attention_args *a); /* all bf16, 64 wide, rows aligned */
es_status kn_attention_bf16(kn_cuda_device *dev, const attention_args *a, es_error *err);
/* delta: kn_attention_bf16_scratch bytes, in an order of its own. */
es_status kn_attention_bf16_grad(kn_cuda_device *dev, const attention_args *a, es_error *err);
size_t kn_attention_bf16_scratch(const attention_args *a);
/* The same on any GPU; delta: [n, heads, tq]. */
void kn_attention_warps(kn_cuda_device *dev, const attention_args *a);
void kn_attention_warps_grad(kn_cuda_device *dev, const attention_args *a);

#endif
