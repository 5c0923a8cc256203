/* ops.h - the op table: everything the engine knows about an op stands in one row.
 *
 *     const kn_op_info *i = &kn_op_table[KN_OP_CONV2D];
 *     i->name, i->infer, i->grad, i->expand, i->kernel[KN_BACKEND_CPU]
 *
 * A row: the stable name (what reaches files and dumps), shape inference, the gradient builder (adds nodes), an expansion into simpler ops (used for the second
 * derivative of fused ops, and by backends without the fused kernel), and one kernel per backend. A NULL kernel means "unsupported there": if the
 * op has an expansion the plan uses it, else making the plan fails and names the op. Support and dispatch cannot disagree.
 *
 * To add an op: one file kernels/ops/<name>.c (infer, grad, reference kernel), one line in KN_OPS below, backend kernels in kernels/cpu and kernels/cuda.
 */
#ifndef KN_OPS_H
#define KN_OPS_H

#include "kernels/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(NAME, name, inputs -> outputs) */
#define KN_OPS(X)                                                                                                                       \
    X(INPUT, input)               /* slot */                                                                                            \
    X(PARAM, param)               /* set, id, box: a strided view */                                                                    \
    X(CONSTANT, constant)                                                                                                               \
    X(SCALAR, scalar)                                                                                                                   \
    X(OUTPUT, output)             /* a -> ; copies (or computes straight) into the bound pointer */                                     \
    X(ACCUMULATE, accumulate)     /* param, d -> ; gradient[box] += d */                                                                \
    X(BLEND, blend)               /* v, coef -> ; param[box] += coef (v - param) */                                                     \
    X(ADD, add) X(SUB, sub) X(MUL, mul) X(DIV, div) X(MAXIMUM, maximum) X(GREATER_EQUAL, greater_equal) /* a >= b as 0/1, no gradient */ \
    X(AFFINE, affine)             /* a -> alpha a + beta */                                                                             \
    X(ACTIVATE, activate)         /* a -> f^(order)(a): order 0 is the function, 1 its derivative, 2, 3 ... */                          \
    X(ACTIVATE_MUL, activate_mul) /* d, a -> d f^(order)(a): the gradient of ACTIVATE, one pass */                                      \
    X(BIAS_ACT, bias_act) X(BIAS_ACT_GRAD, bias_act_grad)                                                                               \
    X(DETACH, detach) X(DROPOUT, dropout) /* linear in a: its gradient is itself on d */                                                \
    X(REDUCE_SUM, reduce_sum) X(REDUCE_MAX, reduce_max) X(REDUCE_MAX_GRAD, reduce_max_grad) X(BROADCAST, broadcast)                      \
    X(MUL_REDUCE, mul_reduce)     /* a, b -> sum over axes of a b, one pass: gradient of broadcast products */                          \
    X(RESHAPE, reshape) X(TRANSPOSE, transpose) X(SLICE, slice) X(PAD, pad) X(CONCAT, concat)                                           \
    X(MATMUL, matmul)                                                                                                                   \
    X(CONV2D, conv2d) X(CONV2D_DX, conv2d_dx) X(CONV2D_DW, conv2d_dw)                                                                   \
    X(DEPTHWISE, depthwise) X(DEPTHWISE_DX, depthwise_dx) X(DEPTHWISE_DW, depthwise_dw)                                                 \
    X(ATTENTION, attention) X(ATTENTION_GRAD, attention_grad)                                                                           \
    X(EMBEDDING, embedding) X(EMBEDDING_GRAD, embedding_grad)                                                                           \
    X(BATCH_NORM, batch_norm)           /* x, gamma?, beta? -> y, mean, var */                                                          \
    X(BATCH_NORM_GRAD, batch_norm_grad) /* dy, x, gamma?, beta?, mean, var -> dx, dgamma, dbeta */                                      \
    X(BATCH_NORM_INFER, batch_norm_infer) X(BATCH_NORM_INFER_GRAD, batch_norm_infer_grad)                                               \
    X(LAYER_NORM, layer_norm) X(LAYER_NORM_GRAD, layer_norm_grad)                                                                       \
    X(MAX_POOL, max_pool) X(MAX_POOL_GRAD, max_pool_grad) X(MAX_POOL_PICK, max_pool_pick) /* d at the arg-max: gradient of the gradient */ \
    X(AVG_POOL, avg_pool) X(AVG_POOL_GRAD, avg_pool_grad) X(UPSAMPLE, upsample) X(UPSAMPLE_GRAD, upsample_grad)                          \
    X(SOFTMAX, softmax) X(SOFTMAX_GRAD, softmax_grad) X(LOG_SOFTMAX, log_softmax) X(LOG_SOFTMAX_GRAD, log_softmax_grad)                  \
    X(CROSS_ENTROPY, cross_entropy) X(CROSS_ENTROPY_GRAD, cross_entropy_grad)                                                           \
    X(SOFT_CROSS_ENTROPY, soft_cross_entropy) X(SOFT_CROSS_ENTROPY_GRAD, soft_cross_entropy_grad)                                        \
    X(ALPHA_DIVERGENCE, alpha_divergence) X(ALPHA_DIVERGENCE_GRAD, alpha_divergence_grad)                                                \
    X(CORRECT, correct)

/* Operands and attributes of the larger ops (optional inputs in [ ]; shapes as in tensor.h; `a.` names fields of kn_attr):
 *     CONV2D            x, w -> y            a.stride pad groups dilation. The three convolutions are bilinear and each other's gradients.
 *     CONV2D_DX         dy, w -> dx          and a.h w: the input's size
 *     CONV2D_DW         x, dy -> dw          and a.kh kw: the kernel's size
 *     DEPTHWISE, _DX, _DW                    the same operands; w is [kh][kw][c]
 *     ATTENTION         q, k, v -> y, lse    a.alpha = scale, a.causal; lse [n, heads, tq] is log sum exp of a row of scaled scores, for the gradient kernel
 *     ATTENTION_GRAD    dy, q, k, v, y, lse -> dq, dk, dv
 *     EMBEDDING         indices, table -> y
 *     EMBEDDING_GRAD    d, indices -> dtable a.shape = the table's
 *     BATCH_NORM        x, [gamma], [beta] -> y, mean, var       a.eps act; y = act(gamma (x - mean) / sqrt(var + eps) + beta), var biased
 *     BATCH_NORM_GRAD   dy, x, [gamma], [beta], mean, var -> dx, dgamma, dbeta      a.eps act; before act everything is recomputed from x
 *     BATCH_NORM_INFER  x, [gamma], [beta], mean, var -> y       a.eps act
 *     BATCH_NORM_INFER_GRAD   operands and results of BATCH_NORM_GRAD; mean and var are constants in it
 *     LAYER_NORM        x, [gamma], [beta] -> y                  a.eps
 *     LAYER_NORM_GRAD   dy, x, [gamma] -> dx, dgamma, dbeta      a.eps; row statistics are recomputed
 *     MAX_POOL          x -> y               a.kernel stride pad; the first maximum of a window in row order; padding is never picked
 *     MAX_POOL_GRAD     d, x -> dx           a.kernel stride pad
 *     MAX_POOL_PICK     v, x -> y            v (shaped like x) where x has its window maximum
 *     AVG_POOL          x -> y               a.kernel stride pad count_pad
 *     AVG_POOL_GRAD     d -> dx              and a.h w
 *     UPSAMPLE, UPSAMPLE_GRAD                a.kernel = factor
 *     SOFTMAX           x -> y               a.causal: columns right of the diagonal (bottom right aligned) of the last two dims give 0
 *     SOFTMAX_GRAD      d, y -> dx           LOG_SOFTMAX_GRAD  d, y -> dx (y is the log softmax)
 *     CROSS_ENTROPY     logits, labels -> l  a.alpha = smoothing;  _GRAD  d [n], logits, labels -> dlogits
 *     SOFT_CROSS_ENTROPY logits, probs -> l                        _GRAD  d [n], logits, probs -> dlogits
 *     ALPHA_DIVERGENCE  logits, teacher -> l a.alpha = alpha minus, a.beta = alpha plus, a.clip;  _GRAD  d [n], logits, teacher -> dlogits. Once differentiable.
 *     DROPOUT           a -> y               a.rate use_index axes: the mask is shared along `axes`; element e of the mask (row order over the kept axes) is lane
 *                                            e % 4 of es_philox(seed, ES_USE_DROPOUT, step, use_index << 32 | e / 4); kept (and divided by 1 - rate) where
 *                                            lane >= (uint32_t)(rate 2^32), rate as float, the product in double
 */
typedef enum kn_op {
#define X(NAME, name) KN_OP_##NAME,
    KN_OPS(X)
#undef X
    KN_OP_COUNT
} kn_op;

/* Attributes: one flat struct, each op reads the fields its builder set; unused ones are zero. */
typedef struct kn_attr {
    int32_t stride, pad, groups, dilation, kernel;
    int32_t h, w;            /* CONV2D_DX, DEPTHWISE_DX, pools' gradients: the input's size */
    int32_t kh, kw;          /* CONV2D_DW, DEPTHWISE_DW: the kernel's size */
    int32_t order;           /* ACTIVATE: derivative order */
    kn_act act;
    uint32_t axes;
    int32_t axis, slot, set;
    kn_param param;
    kn_box box;
    int32_t perm[KN_RANK_MAX];
    kn_shape shape;
    float alpha, beta, eps, rate, clip;
    uint32_t use_index;
    bool ta, tb, causal, per_channel, count_pad;
} kn_attr;

typedef struct kn_node {
    kn_op op;
    uint8_t n_in, n_out;
    kn_val in[KN_IN_MAX];
    kn_val out; /* outputs are out, out + 1, ... */
    const char *scope;
    kn_attr a;
} kn_node;

/* What a kernel gets. in[i].p is NULL for an absent optional input. Parameter slices arrive strided; all else dense. */
typedef struct kn_call {
    const kn_attr *a;
    int n_in, n_out;
    kn_tensor in[KN_IN_MAX];
    kn_tensor out[KN_OUT_MAX];
    bool accumulate;       /* out[0] += result (the plan sets it where the row allows: see kn_op_info.can_accumulate); out[0] may then be strided */
    void *scratch;         /* kn_op_info.scratch bytes */
    uint64_t seed, step;
    struct kn_device *dev; /* threads, stream, handles */
} kn_call;

typedef es_status (*kn_kernel)(const kn_call *c, es_error *err);

typedef struct kn_op_info {
    const char *name;
    /* Fills out[].shape and dtype; ES_INVALID names what is wrong. */
    es_status (*infer)(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err);
    /* Given d loss/d out[i] in d[] (KN_NONE: no gradient), sets din[] (KN_NONE: none needed). `need` says which inputs want one. NULL with expand: differentiate the expansion. */
    void (*grad)(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din);
    /* Rewrites as simpler ops; sets out[]. */
    void (*expand)(kn_graph *g, const kn_node *n, kn_val *out);
    size_t (*scratch[KN_BACKENDS])(const kn_call *shapes_only);
    kn_kernel kernel[KN_BACKENDS];
    unsigned can_accumulate; /* bit per backend */
    float tolerance;         /* relative to the reference, fp32 */
} kn_op_info;

extern const kn_op_info kn_op_table[KN_OP_COUNT];

#ifdef __cplusplus
}
#endif
#endif
