/* ops.h - the op table: everything the engine knows about an op stands in one row.
 *
 *     const kn_op_info *i = &kn_op_table[KN_OP_CONV2D];
 *     i->name, i->infer, i->grad, i->expand, kn_cpu_kernels[KN_OP_CONV2D].run
 *
 * A row: the stable name (what reaches files and dumps), shape inference, the gradient builder (adds nodes), an expansion into simpler ops (used for the second
 * derivative of fused ops, and by backends without the fused kernel), and one kernel row per backend. A NULL kernel means "unsupported there": if the
 * op has an expansion the plan uses it, else making the plan fails and names the op. Support and dispatch cannot disagree.
 *
 * To add an op: one file kernels/ops/<name>.c (kn_infer_<name>, kn_grad_<name>, kn_ref_<name>) and one line in KN_OPS below; then, where it is worth it, a line in
 * kernels/cpu/table.c and kernels/cuda/table.c.
 */
#ifndef KN_OPS_H
#define KN_OPS_H

#include "kernels/graph/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(NAME, name, outputs, optional inputs (bits), infer, grad, expand, reference, tolerance relative to the reference in fp32)
 * infer, grad, expand and reference: Y = kn_infer_<name>, kn_grad_<name>, kn_expand_<name>, kn_ref_<name> exists; _ = there is none.
 * grad N: no gradient flows, by design. grad _ with expand Y: the expansion is differentiated. */
/* clang-format off */
#define KN_OPS(X) \
    X(INPUT, input, 1, 0, Y, N, _, _, 1e-6f) /* slot */ \
    X(PARAM, param, 1, 0, Y, N, _, _, 1e-6f) /* set, id, box: a strided view */ \
    X(CONSTANT, constant, 1, 0, Y, N, _, Y, 1e-6f) \
    X(SCALAR, scalar, 1, 0, Y, N, _, _, 1e-6f) \
    X(OUTPUT, output, 0, 0, Y, N, _, Y, 1e-6f) /* a -> ; copies (or computes straight) into the bound pointer */ \
    X(ACCUMULATE, accumulate, 0, 0, Y, N, _, Y, 1e-6f) /* param, d -> ; gradient[box] += d */ \
    X(BLEND, blend, 0, 0, Y, N, _, Y, 1e-6f) /* v, coef -> ; param[box] += coef (v - param) */ \
    X(ADD, add, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(SUB, sub, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(MUL, mul, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(DIV, div, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(MAXIMUM, maximum, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(GREATER_EQUAL, greater_equal, 1, 0, Y, N, _, Y, 1e-6f) /* a >= b as 0/1 */ \
    X(AFFINE, affine, 1, 0, Y, Y, _, Y, 1e-6f) /* a -> alpha a + beta */ \
    X(ACTIVATE, activate, 1, 0, Y, Y, _, Y, 1e-5f) /* a -> f^(order)(a): order 0 is the function, 1 its derivative, 2, 3 */ \
    X(ACTIVATE_MUL, activate_mul, 1, 0, Y, Y, _, Y, 1e-5f) /* d, a -> d f^(order)(a): the gradient of ACTIVATE, one pass */ \
    X(BIAS_ACT, bias_act, 1, 2, Y, Y, Y, Y, 1e-5f) \
    X(BIAS_ACT_GRAD, bias_act_grad, 2, 4, Y, _, Y, Y, 1e-5f) \
    X(DETACH, detach, 1, 0, Y, N, _, _, 1e-6f) \
    X(DROPOUT, dropout, 1, 0, Y, Y, _, Y, 1e-6f) /* linear in a: its gradient is itself on d */ \
    X(REDUCE_SUM, reduce_sum, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(REDUCE_MAX, reduce_max, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(REDUCE_MAX_GRAD, reduce_max_grad, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(BROADCAST, broadcast, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(MUL_REDUCE, mul_reduce, 1, 0, Y, Y, Y, Y, 1e-5f) /* a, b -> sum over axes of a b, one pass: gradient of broadcast products */ \
    X(RESHAPE, reshape, 1, 0, Y, Y, _, _, 1e-6f) \
    X(TRANSPOSE, transpose, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(SLICE, slice, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(PAD, pad, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(CONCAT, concat, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(MATMUL, matmul, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(CONV2D, conv2d, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(CONV2D_DX, conv2d_dx, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(CONV2D_DW, conv2d_dw, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(DEPTHWISE, depthwise, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(DEPTHWISE_DX, depthwise_dx, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(DEPTHWISE_DW, depthwise_dw, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(ATTENTION, attention, 2, 0, Y, Y, Y, Y, 1e-5f) \
    X(ATTENTION_GRAD, attention_grad, 3, 0, Y, _, Y, Y, 1e-5f) \
    X(SELF_ATTENTION, self_attention, 2, 0, Y, Y, Y, Y, 1e-5f) \
    X(SELF_ATTENTION_GRAD, self_attention_grad, 1, 0, Y, _, Y, Y, 1e-5f) \
    X(EMBEDDING, embedding, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(EMBEDDING_GRAD, embedding_grad, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(BATCH_NORM, batch_norm, 3, 6, Y, Y, Y, Y, 1e-5f) \
    X(BATCH_NORM_GRAD, batch_norm_grad, 3, 12, Y, _, Y, Y, 1e-4f) \
    X(BATCH_NORM_INFER, batch_norm_infer, 1, 6, Y, Y, Y, Y, 1e-5f) \
    X(BATCH_NORM_INFER_GRAD, batch_norm_infer_grad, 3, 12, Y, _, Y, Y, 1e-4f) \
    X(LAYER_NORM, layer_norm, 1, 6, Y, Y, Y, Y, 1e-5f) \
    X(LAYER_NORM_GRAD, layer_norm_grad, 3, 4, Y, _, Y, Y, 1e-4f) \
    X(MAX_POOL, max_pool, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(MAX_POOL_GRAD, max_pool_grad, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(MAX_POOL_PICK, max_pool_pick, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(AVG_POOL, avg_pool, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(AVG_POOL_GRAD, avg_pool_grad, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(UPSAMPLE, upsample, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(UPSAMPLE_GRAD, upsample_grad, 1, 0, Y, Y, _, Y, 1e-6f) \
    X(SOFTMAX, softmax, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(SOFTMAX_GRAD, softmax_grad, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(LOG_SOFTMAX, log_softmax, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(LOG_SOFTMAX_GRAD, log_softmax_grad, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(CROSS_ENTROPY, cross_entropy, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(CROSS_ENTROPY_GRAD, cross_entropy_grad, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(SOFT_CROSS_ENTROPY, soft_cross_entropy, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(SOFT_CROSS_ENTROPY_GRAD, soft_cross_entropy_grad, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(ALPHA_DIVERGENCE, alpha_divergence, 1, 0, Y, Y, _, Y, 1e-5f) \
    X(ALPHA_DIVERGENCE_GRAD, alpha_divergence_grad, 1, 0, Y, _, _, Y, 1e-5f) \
    X(CORRECT, correct, 1, 0, Y, N, _, Y, 1e-6f)
/* clang-format on */

/* Operands and attributes of the larger ops (optional inputs in [ ]; shapes as in tensor.h; `a.` names fields of kn_attr):
 *     CONV2D            x, w -> y            a.stride pad groups dilation. The three convolutions are bilinear and each other's gradients.
 *     CONV2D_DX         dy, w -> dx          and a.h w: the input's size
 *     CONV2D_DW         x, dy -> dw          and a.kh kw: the kernel's size
 *     DEPTHWISE, _DX, _DW                    the same operands; w is [kh][kw][c]
 *     ATTENTION         q, k, v -> y, lse    [n, t, heads, d]; a.alpha = scale, a.causal; lse [n, heads, tq] is log sum exp of a row of scaled scores, for the gradient kernel
 *     ATTENTION_GRAD    dy, q, k, v, y, lse -> dq, dk, dv
 *     SELF_ATTENTION    qkv -> y, lse        ATTENTION of operands that are one tensor [n, t, heads, 3 d]: a head's query, key and value side by side
 *     SELF_ATTENTION_GRAD   dy, qkv, y, lse -> dqkv
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
#define X(NAME, ...) KN_OP_##NAME,
    KN_OPS(X)
#undef X
        KN_OP_COUNT
} kn_op;

/* Attributes: one flat struct, each op reads the fields its builder set; unused ones are zero. */
typedef struct kn_attr {
    int32_t stride, pad, groups, dilation, kernel;
    int32_t h, w;   /* CONV2D_DX, DEPTHWISE_DX, pools' gradients: the input's size */
    int32_t kh, kw; /* CONV2D_DW, DEPTHWISE_DW: the kernel's size */
    int32_t order;  /* ACTIVATE: derivative order */
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
    bool kept; /* INPUT, OUTPUT: in the plan's own storage type (graph.h) */
} kn_attr;

typedef struct kn_node {
    kn_op op;
    uint8_t n_in, n_out;
    kn_val in[KN_IN_MAX];
    kn_val out; /* outputs are out, out + 1, ... */
    const char *scope;
    kn_attr a;
} kn_node;

/* What a kernel gets. in[i].p is NULL for an absent optional input. Parameter slices arrive strided where the kernel row says it takes them; all else dense.
 * Outputs are dense, except out[i] with its `accumulate` bit (strided gradient slice, or dense sum), ACCUMULATE's and BLEND's.
 * ACCUMULATE: in[1] = d, out[0] = gradient slice. BLEND: in[0] = v, in[1] = coef, out[0] = parameter slice. OUTPUT: in[0] -> out[0].
 * An output that nobody reads has p NULL where the row's `skip` bit allows it. */
typedef struct kn_call {
    const kn_attr *a;
    int n_in, n_out;
    kn_tensor in[KN_IN_MAX];
    kn_tensor out[KN_OUT_MAX];
    unsigned accumulate; /* bit i: out[i] += result; the plan sets it where the row allows */
    void *scratch;       /* kn_kernel_row.scratch bytes, 256-byte aligned */
    uint64_t seed, step;
    /* NULL, or a back end's own (vt->begin): where its kernels are to read seed and step, since they may be recorded and run again. */
    const void *now;
    struct kn_device *dev; /* threads, stream, handles */
} kn_call;

typedef es_status (*kn_kernel)(const kn_call *c, es_error *err);

/* One op on one backend. run NULL: unsupported there. */
typedef struct kn_kernel_row {
    kn_kernel run;
    size_t (*scratch)(const kn_call *shapes_only); /* NULL: none; reads shapes, strides and attributes only */
    /* NULL, or called while a plan is made, with addresses right modulo 256: chooses algorithms, launches nothing. */
    kn_kernel prepare;
    uint8_t accumulate; /* bit i: out[i] may be added to, and may then be strided (innermost stride 1) */
    uint8_t sums;       /* bit i: out[i] may be added to, but only while it is dense */
    /* bit i: in[i] may be a strided parameter slice (innermost stride 1); else the plan makes a dense copy first. */
    uint8_t strided;
    uint8_t inplace; /* bit i: out[0] may be the very memory of a dense in[i] of the same size */
    uint8_t skip;    /* bit i: out[i].p may be NULL when it is not needed */
} kn_kernel_row;

typedef struct kn_op_info {
    const char *name;
    uint8_t n_out;
    uint8_t optional; /* bit i: in[i] may be KN_NONE */
    bool no_grad;     /* no gradient flows through it, by design */
    float tolerance;  /* relative to the reference, fp32 */
    /* Fills out[].shape (and dtype, preset to KN_F32); ES_INVALID names what is wrong (op, scope and input shapes are added by the caller). Inputs are
     * present except optional ones. */
    es_status (*infer)(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err);
    /* Given d loss/d out[i] in d[] (KN_NONE: no gradient), sets din[] (preset to KN_NONE). `need` says which inputs want one. NULL with expand:
     * differentiate the expansion. `n` stays valid while nodes are added. */
    void (*grad)(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din);
    /* Rewrites as simpler ops; sets out[] (KN_NONE for an output that has no meaning, such as dbeta without beta). */
    void (*expand)(kn_graph *g, const kn_node *n, kn_val *out);
    kn_kernel reference; /* naive, takes any strides on every input */
} kn_op_info;

extern const kn_op_info kn_op_table[KN_OP_COUNT];

/* One row per op: kernels/ops/table.c and kernels/cpu/table.c. A device brings its table (device_internal.h), so a build without CUDA needs nothing. */
extern const kn_kernel_row kn_reference_kernels[KN_OP_COUNT];
extern const kn_kernel_row kn_cpu_kernels[KN_OP_COUNT];

#ifdef __cplusplus
}
#endif
#endif
