/* The CUDA column of the op table. A missing row is "no kernel": the plan expands the op or refuses it by name. */
#include "kernels/graph/ops.h"

#define DECLARE(name) es_status kn_cuda_##name(const kn_call *c, es_error *err);
#define DECLARE_SCRATCH(name) size_t kn_cuda_##name##_scratch(const kn_call *c);
#define X(NAME, name, ...) DECLARE(name)
KN_OPS(X)
#undef X
DECLARE(matmul_prepare)
DECLARE(conv2d_prepare)
DECLARE(conv2d_dx_prepare)
DECLARE(conv2d_dw_prepare)
DECLARE_SCRATCH(matmul)
DECLARE_SCRATCH(conv2d)
DECLARE_SCRATCH(conv2d_dx)
DECLARE_SCRATCH(conv2d_dw)
DECLARE_SCRATCH(depthwise)
DECLARE_SCRATCH(depthwise_dw)
DECLARE_SCRATCH(batch_norm)
DECLARE_SCRATCH(bias_act_grad)
DECLARE_SCRATCH(reduce_sum)
DECLARE_SCRATCH(mul_reduce)
DECLARE_SCRATCH(layer_norm_grad)
DECLARE_SCRATCH(attention_grad)
DECLARE_SCRATCH(self_attention_grad)

/* ROW(op, adds to its output (bits; DENSE(bits): only to a dense one; MIXED: both),
 *     takes strided slices (bits), may write over an input (bits), outputs that may be missing (bits)) */
#define ROW(NAME, name, adds, slices, over, missing) \
    [KN_OP_##NAME] = {.run = kn_cuda_##name, .accumulate = adds, .strided = slices, .inplace = over, .skip = missing}
#define ROW_SCRATCH(NAME, name, from, adds, slices, over, missing) \
    [KN_OP_##NAME] = {.run = kn_cuda_##name,                       \
                      .scratch = kn_cuda_##from##_scratch,         \
                      .accumulate = adds,                          \
                      .strided = slices,                           \
                      .inplace = over,                             \
                      .skip = missing}

/* ROW_SCRATCH with a kernel that looks its products up while a plan is made. */
#define ROW_PRODUCT(NAME, name, adds, slices)              \
    [KN_OP_##NAME] = {.run = kn_cuda_##name,               \
                      .scratch = kn_cuda_##name##_scratch, \
                      .prepare = kn_cuda_##name##_prepare, \
                      .strided = slices,                   \
                      .accumulate = adds}

#define DENSE(bits) 0, .sums = bits
#define MIXED(strided, dense) strided, .sums = dense

extern const kn_kernel_row kn_cuda_kernels[KN_OP_COUNT];
const kn_kernel_row kn_cuda_kernels[KN_OP_COUNT] = {
    ROW(CONSTANT, constant, 0, 0, 0, 0),
    ROW(OUTPUT, output, 0, 1, 0, 0),
    ROW(ACCUMULATE, accumulate, 0, 3, 0, 0),
    ROW(BLEND, blend, 0, 1, 0, 0),
    ROW(ADD, add, 1, 3, 3, 0),
    ROW(SUB, sub, 1, 3, 3, 0),
    ROW(MUL, mul, 1, 3, 3, 0),
    ROW(DIV, div, 1, 3, 3, 0),
    ROW(MAXIMUM, maximum, 1, 3, 3, 0),
    ROW(GREATER_EQUAL, greater_equal, 0, 3, 3, 0),
    ROW(AFFINE, affine, 1, 1, 1, 0),
    ROW(ACTIVATE, activate, 1, 1, 1, 0),
    ROW(ACTIVATE_MUL, activate_mul, 1, 3, 3, 0),
    ROW(BIAS_ACT, bias_act, 1, 3, 1, 0),
    ROW_SCRATCH(BIAS_ACT_GRAD, bias_act_grad, bias_act_grad, 2, 4, 3, 3),
    ROW(DROPOUT, dropout, DENSE(1), 0, 1, 0),
    ROW_SCRATCH(REDUCE_SUM, reduce_sum, reduce_sum, 1, 1, 0, 0),
    ROW(REDUCE_MAX, reduce_max, 0, 1, 0, 0),
    ROW(REDUCE_MAX_GRAD, reduce_max_grad, 0, 0, 0, 0),
    ROW(BROADCAST, broadcast, 1, 1, 0, 0),
    ROW_SCRATCH(MUL_REDUCE, mul_reduce, mul_reduce, 1, 3, 0, 0),
    ROW(TRANSPOSE, transpose, 1, 1, 0, 0),
    ROW(SLICE, slice, 1, 1, 0, 0),
    ROW(PAD, pad, 0, 1, 0, 0),
    ROW(CONCAT, concat, 0, 0, 0, 0),
    ROW_PRODUCT(MATMUL, matmul, 1, 3),
    ROW_PRODUCT(CONV2D, conv2d, DENSE(1), 2),
    ROW_PRODUCT(CONV2D_DX, conv2d_dx, DENSE(1), 2),
    ROW_PRODUCT(CONV2D_DW, conv2d_dw, 1, 0),
    ROW_SCRATCH(DEPTHWISE, depthwise, depthwise, DENSE(1), 2, 0, 0),
    ROW(DEPTHWISE_DX, depthwise_dx, DENSE(1), 2, 0, 0),
    ROW_SCRATCH(DEPTHWISE_DW, depthwise_dw, depthwise_dw, 1, 0, 0, 0),
    ROW(ATTENTION, attention, 0, 7, 0, 2),
    ROW_SCRATCH(ATTENTION_GRAD, attention_grad, attention_grad, 0, 31, 0, 0),
    ROW(SELF_ATTENTION, self_attention, 0, 0, 0, 2),
    ROW_SCRATCH(SELF_ATTENTION_GRAD, self_attention_grad, self_attention_grad, 0, 0, 0, 0),
    ROW(EMBEDDING, embedding, DENSE(1), 2, 0, 0),
    ROW(EMBEDDING_GRAD, embedding_grad, 1, 0, 0, 0),
    ROW_SCRATCH(BATCH_NORM, batch_norm, batch_norm, 0, 6, 9, 0),
    ROW_SCRATCH(BATCH_NORM_GRAD, batch_norm_grad, batch_norm, MIXED(6, 1), 12, 1, 7),
    ROW(BATCH_NORM_INFER, batch_norm_infer, 0, 30, 65, 0),
    ROW_SCRATCH(BATCH_NORM_INFER_GRAD, batch_norm_infer_grad, batch_norm, MIXED(6, 1), 60, 1, 7),
    ROW(LAYER_NORM, layer_norm, DENSE(1), 6, 1, 0),
    ROW_SCRATCH(LAYER_NORM_GRAD, layer_norm_grad, layer_norm_grad, MIXED(6, 1), 4, 1, 7),
    ROW(MAX_POOL, max_pool, DENSE(1), 0, 0, 0),
    ROW(MAX_POOL_GRAD, max_pool_grad, DENSE(1), 0, 0, 0),
    ROW(MAX_POOL_PICK, max_pool_pick, DENSE(1), 0, 0, 0),
    ROW(AVG_POOL, avg_pool, DENSE(1), 0, 0, 0),
    ROW(AVG_POOL_GRAD, avg_pool_grad, DENSE(1), 0, 0, 0),
    ROW(UPSAMPLE, upsample, DENSE(1), 0, 0, 0),
    ROW(UPSAMPLE_GRAD, upsample_grad, DENSE(1), 0, 0, 0),
    ROW(SOFTMAX, softmax, DENSE(1), 0, 1, 0),
    ROW(SOFTMAX_GRAD, softmax_grad, DENSE(1), 0, 3, 0),
    ROW(LOG_SOFTMAX, log_softmax, DENSE(1), 0, 1, 0),
    ROW(LOG_SOFTMAX_GRAD, log_softmax_grad, DENSE(1), 0, 3, 0),
    ROW(CROSS_ENTROPY, cross_entropy, DENSE(1), 0, 0, 0),
    ROW(CROSS_ENTROPY_GRAD, cross_entropy_grad, DENSE(1), 0, 2, 0),
    ROW(SOFT_CROSS_ENTROPY, soft_cross_entropy, DENSE(1), 0, 0, 0),
    ROW(SOFT_CROSS_ENTROPY_GRAD, soft_cross_entropy_grad, DENSE(1), 0, 2, 0),
    ROW(ALPHA_DIVERGENCE, alpha_divergence, DENSE(1), 0, 0, 0),
    ROW(ALPHA_DIVERGENCE_GRAD, alpha_divergence_grad, DENSE(1), 0, 2, 0),
    ROW(CORRECT, correct, DENSE(1), 0, 0, 0),
};
