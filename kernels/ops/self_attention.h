/* self_attention.h - SELF_ATTENTION as a call of ATTENTION: a head's query, key and value lie side by side in one tensor [n, t, heads, 3 d], so each is a strided view of it.
 *
 *     kn_call v = kn_self_attention_call(c);                  // the parts are read where they lie; nothing is copied
 *     return kn_cpu_attention(&v, err);
 *
 * For every back end whose attention takes strided operands and results.
 */
#ifndef KN_OPS_SELF_ATTENTION_H
#define KN_OPS_SELF_ATTENTION_H

#include "kernels/graph/ops.h"

static inline void kn_self_attention_parts(const kn_tensor *packed, kn_tensor part[3])
{
    for (int i = 0; i < 3; i++) {
        part[i] = *packed;
        part[i].shape.d[3] = packed->shape.d[3] / 3;
        if (packed->p)
            part[i].p = (char *)packed->p + (size_t)i * (size_t)part[i].shape.d[3] * kn_dtype_bytes(packed->dtype);
    }
}

/* qkv -> y, lse as q, k, v -> y, lse. */
static inline kn_call kn_self_attention_call(const kn_call *c)
{
    kn_call v = *c;
    kn_self_attention_parts(&c->in[0], v.in);
    v.n_in = 3;
    return v;
}

/* dy, qkv, y, lse -> dqkv as dy, q, k, v, y, lse -> dq, dk, dv. */
static inline kn_call kn_self_attention_grad_call(const kn_call *c)
{
    kn_call v = *c;
    kn_self_attention_parts(&c->in[1], v.in + 1);
    v.in[4] = c->in[2];
    v.in[5] = c->in[3];
    v.n_in = 6;
    kn_self_attention_parts(&c->out[0], v.out);
    v.n_out = 3;
    return v;
}

#endif
