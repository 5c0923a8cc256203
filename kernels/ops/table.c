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

/* Reference kernels index through strides everywhere, store through kn_put(), and never work in place. */
const kn_kernel_row kn_reference_kernels[KN_OP_COUNT] = {
#define X(NAME, name_, OUTS, OPTIONAL, INFER, GRAD, EXPAND, REFERENCE, TOLERANCE) \
    [KN_OP_##NAME] = {.run = COLUMN_##REFERENCE(kn_ref_##name_), .strided = 0xff, .skip = 0xff},
    KN_OPS(X)
#undef X
};
