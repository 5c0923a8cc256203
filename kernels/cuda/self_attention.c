/* Self-attention: attention's kernels, which take strided operands and results. */
#include "kernels/ops/self_attention.h"

es_status kn_cuda_attention(const kn_call *c, es_error *err);
es_status kn_cuda_attention_grad(const kn_call *c, es_error *err);
size_t kn_cuda_attention_grad_scratch(const kn_call *c);
es_status kn_cuda_self_attention(const kn_call *c, es_error *err);
es_status kn_cuda_self_attention_grad(const kn_call *c, es_error *err);
size_t kn_cuda_self_attention_grad_scratch(const kn_call *c);

es_status kn_cuda_self_attention(const kn_call *c, es_error *err)
{
    const kn_call v = kn_self_attention_call(c);
    return kn_cuda_attention(&v, err);
}

size_t kn_cuda_self_attention_grad_scratch(const kn_call *c)
{
    const kn_call v = kn_self_attention_grad_call(c);
    return kn_cuda_attention_grad_scratch(&v);
}

es_status kn_cuda_self_attention_grad(const kn_call *c, es_error *err)
{
    const kn_call v = kn_self_attention_grad_call(c);
    return kn_cuda_attention_grad(&v, err);
}
