/* window.h - sizes of sliding windows, for convolutions and pools: out = floor((in + 2 pad - dilation (kernel - 1) - 1) / stride) + 1. */
#ifndef KN_OPS_WINDOW_H
#define KN_OPS_WINDOW_H

#include "kernels/ops/ops_internal.h"

es_status kn_window_check(const kn_node *n, es_error *err); /* stride, dilation and pad of the node */
es_status kn_window_size(const kn_node *n, int32_t in, int32_t kernel, int32_t *out, es_error *err);

/* Result shape of a pool over x. Padding must be smaller than the kernel, so that no window is empty. */
es_status kn_pool_infer(const kn_node *n, const kn_shape *x, kn_shape *y, es_error *err);

#endif
