/* The op table and the reference back end's rows, from the one list in ops.h. */
#include "kernels/ops/ops_internal.h"

#define COLUMN_Y(fn) fn
#define COLUMN_N(fn) NULL
#define COLUMN__(fn) NULL
#define NO_GRAD_Y false
#define NO_GRAD_N true
#define NO_GRAD__ false

const kn_op_info kn_op_table[KN_OP_COUNT] = {
#define X(NAME, name_, OUTS, OPTIONAL, INFER, GRAD, EXPAND, REFERENCE, TOLERANCE) \
    [KN_OP_##NAME] = {.name = #name_,                                             \
                      .n_out = OUTS,                                              \
                      .optional = OPTIONAL,                                       \
                      .no_grad = NO_GRAD_##GRAD,                                  \
                      .tolerance = TOLERANCE,                                     \
                      .infer = COLUMN_##INFER(kn_infer_##name_),                  \
                      .grad = COLUMN_##GRAD(kn_grad_##name_),                     \
                      .expand = COLUMN_##EXPAND(kn_expand_##name_),               \
                      .reference = COLUMN_##REFERENCE(kn_ref_##name_)},
    KN_OPS(X)
#undef X
};

/* Reference kernels index through strides everywhere, and store through kn_put(). The rows of the second half let the plan's fusions be tested with them. */
#pragma GCC diagnostic ignored "-Woverride-init"
#define SUMS(fn)                                    \
    {                                               \
        .run = fn, .strided = 0xff, .accumulate = 1 \
    }
#define INPLACE(fn, inputs)                           \
    {                                                 \
        .run = fn, .strided = 0xff, .inplace = inputs \
    }
const kn_kernel_row kn_reference_kernels[KN_OP_COUNT] = {
#define X(NAME, name_, OUTS, OPTIONAL, INFER, GRAD, EXPAND, REFERENCE, TOLERANCE) \
    [KN_OP_##NAME] = {.run = COLUMN_##REFERENCE(kn_ref_##name_), .strided = 0xff, .skip = 0xff},
    KN_OPS(X)
#undef X
        [KN_OP_MATMUL] = SUMS(kn_ref_matmul),
    [KN_OP_REDUCE_SUM] = SUMS(kn_ref_reduce_sum),
    [KN_OP_MUL_REDUCE] = SUMS(kn_ref_mul_reduce),
    [KN_OP_ADD] = INPLACE(kn_ref_add, 3),
    [KN_OP_SUB] = INPLACE(kn_ref_sub, 3),
    [KN_OP_MUL] = INPLACE(kn_ref_mul, 3),
    [KN_OP_AFFINE] = INPLACE(kn_ref_affine, 1),
    [KN_OP_ACTIVATE] = INPLACE(kn_ref_activate, 1),
    [KN_OP_ACTIVATE_MUL] = INPLACE(kn_ref_activate_mul, 3),
    [KN_OP_BIAS_ACT] = INPLACE(kn_ref_bias_act, 1),
};
