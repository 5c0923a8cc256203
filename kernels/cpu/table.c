/* The CPU back end's kernels. An op with an expansion runs as its expansion until it has a kernel of its own; every other op starts with the
 * reference kernel. The rows of the second half replace those of the first. */
#include "kernels/ops/ops_internal.h"

#pragma GCC diagnostic ignored "-Woverride-init"

/* DEFAULT_<expand>_<reference> */
#define DEFAULT_Y_Y(fn) \
    {                   \
        .run = NULL     \
    }
#define DEFAULT_Y__(fn) \
    {                   \
        .run = NULL     \
    }
#define DEFAULT____(fn) \
    {                   \
        .run = NULL     \
    }
#define DEFAULT___Y(fn)                          \
    {                                            \
        .run = fn, .strided = 0xff, .skip = 0xff \
    }

const kn_kernel_row kn_cpu_kernels[KN_OP_COUNT] = {
#define X(NAME, name, OUTS, OPTIONAL, INFER, GRAD, EXPAND, REFERENCE, TOLERANCE) \
    [KN_OP_##NAME] = DEFAULT_##EXPAND##_##REFERENCE(kn_ref_##name),
    KN_OPS(X)
#undef X
    /* Own kernels: [KN_OP_CONV2D] = {.run = kn_cpu_conv2d, .scratch = kn_cpu_conv2d_scratch, .strided = 1 << 1}, ... */
};
