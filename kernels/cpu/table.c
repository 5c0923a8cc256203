/* The CPU back end's kernels. What has no row of its own at the end runs as its expansion, or by the reference kernel. */
#include "kernels/cpu/cpu.h"

#pragma GCC diagnostic ignored "-Woverride-init"

/* DEFAULT_<expand>_<reference> */
/* clang-format off */
#define DEFAULT_Y_Y(fn) {.run = NULL}
#define DEFAULT_Y__(fn) {.run = NULL}
#define DEFAULT____(fn) {.run = NULL}
#define DEFAULT___Y(fn) {.run = fn, .strided = 0xff, .skip = 0xff}

/* ROW(NAME, name, accumulate, strided, inplace, skip) and the same with scratch: bits as in kn_kernel_row. */
#define ROWS(ROW, SCRATCH) \
    ROW(CONSTANT, constant, 0, 0x0, 0, 0) \
    ROW(OUTPUT, output, 0, 0x1, 0, 0) \
    ROW(ACCUMULATE, accumulate, 0, 0xff, 0, 0) \
    ROW(BLEND, blend, 0, 0xff, 0, 0) \
    ROW(ADD, add, 1, 0x3, 3, 0) \
    ROW(SUB, sub, 1, 0x3, 3, 0) \
    ROW(MUL, mul, 1, 0x3, 3, 0) \
    ROW(DIV, div, 1, 0x3, 3, 0) \
    ROW(MAXIMUM, maximum, 1, 0x3, 3, 0) \
    ROW(GREATER_EQUAL, greater_equal, 1, 0x3, 0, 0) \
    ROW(AFFINE, affine, 1, 0x1, 1, 0) \
    ROW(ACTIVATE, activate, 0, 0x0, 1, 0) \
    ROW(ACTIVATE_MUL, activate_mul, 0, 0x0, 3, 0) \
    ROW(BIAS_ACT, bias_act, 0, 0x0, 1, 0) \
    SCRATCH(BIAS_ACT_GRAD, bias_act_grad, 2, 0x0, 3, 3) \
    ROW(DROPOUT, dropout, 1, 0x0, 1, 0) \
    SCRATCH(REDUCE_SUM, reduce_sum, 1, 0x0, 0, 0) \
    ROW(REDUCE_MAX, reduce_max, 0, 0x0, 0, 0) \
    ROW(REDUCE_MAX_GRAD, reduce_max_grad, 0, 0x0, 0, 0) \
    ROW(BROADCAST, broadcast, 1, 0x1, 0, 0) \
    SCRATCH(MUL_REDUCE, mul_reduce, 1, 0x0, 0, 0) \
    ROW(TRANSPOSE, transpose, 1, 0x1, 0, 0) \
    ROW(SLICE, slice, 1, 0x1, 0, 0) \
    ROW(PAD, pad, 1, 0x1, 0, 0) \
    ROW(CONCAT, concat, 1, 0xff, 0, 0) \
    SCRATCH(MATMUL, matmul, 1, 0x3, 0, 0) \
    SCRATCH(CONV2D, conv2d, 1, 0x2, 0, 0) \
    SCRATCH(CONV2D_DX, conv2d_dx, 3, 0x2, 0, 4) \
    SCRATCH(CONV2D_DW, conv2d_dw, 1, 0x0, 0, 0) \
    SCRATCH(DEPTHWISE, depthwise, 1, 0x2, 0, 0) \
    SCRATCH(DEPTHWISE_DX, depthwise_dx, 3, 0x2, 0, 4) \
    SCRATCH(DEPTHWISE_DW, depthwise_dw, 1, 0x0, 0, 0) \
    SCRATCH(ATTENTION, attention, 0, 0x0, 0, 2) \
    SCRATCH(ATTENTION_GRAD, attention_grad, 0, 0x0, 0, 0) \
    SCRATCH(SELF_ATTENTION, self_attention, 0, 0x0, 0, 2) \
    SCRATCH(SELF_ATTENTION_GRAD, self_attention_grad, 0, 0x0, 0, 0) \
    ROW(EMBEDDING, embedding, 0, 0x2, 0, 0) \
    ROW(EMBEDDING_GRAD, embedding_grad, 1, 0x0, 0, 0) \
    SCRATCH(BATCH_NORM, batch_norm, 0, 0x0, 1, 7) \
    SCRATCH(BATCH_NORM_GRAD, batch_norm_grad, 7, 0x0, 3, 7) \
    SCRATCH(BATCH_NORM_INFER, batch_norm_infer, 0, 0x0, 1, 0) \
    SCRATCH(BATCH_NORM_INFER_GRAD, batch_norm_infer_grad, 7, 0x0, 3, 7) \
    ROW(LAYER_NORM, layer_norm, 0, 0x0, 1, 0) \
    SCRATCH(LAYER_NORM_GRAD, layer_norm_grad, 7, 0x0, 3, 7) \
    ROW(MAX_POOL, max_pool, 1, 0x0, 0, 0) \
    ROW(MAX_POOL_GRAD, max_pool_grad, 1, 0x0, 0, 0) \
    ROW(MAX_POOL_PICK, max_pool_pick, 1, 0x0, 0, 0) \
    ROW(AVG_POOL, avg_pool, 1, 0x0, 0, 0) \
    ROW(AVG_POOL_GRAD, avg_pool_grad, 1, 0x0, 0, 0) \
    ROW(UPSAMPLE, upsample, 1, 0x0, 0, 0) \
    ROW(UPSAMPLE_GRAD, upsample_grad, 1, 0x0, 0, 0) \
    ROW(SOFTMAX, softmax, 0, 0x0, 1, 0) \
    ROW(SOFTMAX_GRAD, softmax_grad, 0, 0x0, 3, 0) \
    ROW(LOG_SOFTMAX, log_softmax, 0, 0x0, 1, 0) \
    ROW(LOG_SOFTMAX_GRAD, log_softmax_grad, 0, 0x0, 3, 0) \
    ROW(CROSS_ENTROPY, cross_entropy, 0, 0x0, 0, 0) \
    ROW(CROSS_ENTROPY_GRAD, cross_entropy_grad, 0, 0x0, 0, 0) \
    ROW(SOFT_CROSS_ENTROPY, soft_cross_entropy, 0, 0x0, 0, 0) \
    ROW(SOFT_CROSS_ENTROPY_GRAD, soft_cross_entropy_grad, 0, 0x0, 0, 0) \
    ROW(CORRECT, correct, 0, 0x0, 0, 0)

#define DECLARE(NAME, name, ...) es_status kn_cpu_##name(const kn_call *c, es_error *err);
#define DECLARE_SCRATCH(NAME, name, ...) DECLARE(NAME, name) size_t kn_cpu_##name##_scratch(const kn_call *c);
ROWS(DECLARE, DECLARE_SCRATCH)

#define ROW(NAME, name, a, s, i, k) \
    [KN_OP_##NAME] = {.run = kn_cpu_##name, .accumulate = a, .strided = s, .inplace = i, .skip = k},
#define SCRATCH_ROW(NAME, name, a, s, i, k) \
    [KN_OP_##NAME] = {.run = kn_cpu_##name, .scratch = kn_cpu_##name##_scratch, .accumulate = a, .strided = s, .inplace = i, .skip = k},
/* clang-format on */

const kn_kernel_row kn_cpu_kernels[KN_OP_COUNT] = {
#define X(NAME, name, OUTS, OPTIONAL, INFER, GRAD, EXPAND, REFERENCE, TOLERANCE) \
    [KN_OP_##NAME] = DEFAULT_##EXPAND##_##REFERENCE(kn_ref_##name),
    KN_OPS(X)
#undef X
        ROWS(ROW, SCRATCH_ROW)};
