/* fuse.h - batch norm inside the convolutions around it: what fuse.c does to a plan's work graph, and how the kernels see it.
 *
 * On a CPU the passes over memory are what a supernet step costs. Between two convolutions, batch norm and its activation need no tensor of their own:
 *
 *     forward     CONV2D -> BATCH_NORM -> DEPTHWISE -> BATCH_NORM -> CONV2D      the norms only compute statistics; each convolution reads the
 *                                                                              raw x and [scale, shift, mean] and normalises in its own cache
 *     backward    DX and DW of one convolution become one op that reads dy once; the gradient of a norm is evaluated where that op reads it; the sums that
 *                 the norm's gradient needs are taken where the op writes dx
 *
 * The ops keep their names and take more operands (a plan's work graph is not a user's graph):
 *
 *     CONV2D, DEPTHWISE         x, w, coef -> y             x is seen as act(scale x + shift), coef = [scale, shift, mean] x channels, a.act
 *     CONV2D_DW, DEPTHWISE_DW   x, dy, coef -> dw           the same
 *     CONV2D_DX, DEPTHWISE_DX   dy, w, x, coef, e, coef_e -> dx, dw, sums
 *         coef may be absent: x is plain. With e: the gradient is scale dz + k_x e + k_1, dz = dy act'(scale e + shift), coef_e = [scale, shift, k_x, k_1],
 *         act in a.axis. When sums is wanted, dx is multiplied by act'(scale x + shift) as it is written, and sums = [sum dx, sum dx (x - mean)].
 *
 * CONV2D here is 1x1 with stride 1, no padding and one group.
 */
#ifndef KN_CPU_FUSE_H
#define KN_CPU_FUSE_H

#include "kernels/cpu/line.h"
#include "kernels/plan/plan_internal.h"

enum { KN_BACK_DY, KN_BACK_W, KN_BACK_X, KN_BACK_COEF, KN_BACK_E, KN_BACK_COEF_E, KN_BACK_INPUTS };
enum { KN_BACK_DX, KN_BACK_DW, KN_BACK_SUMS, KN_BACK_OUTPUTS };

/* Is a convolution's backward op the joint one? */
static inline bool kn_back_joint(const kn_call *c) { return c->n_out == KN_BACK_OUTPUTS; }

/* May the two gradients be one op? By shape: enough pieces, partial sums that fit. */
bool kn_cpu_point_joins(int64_t rows, int64_t n, int64_t k);
bool kn_cpu_depthwise_joins(const kn_attr *a, const kn_shape *x, const kn_shape *dy, int kh, int kw);

size_t kn_cpu_point_back_scratch(const kn_call *c);
es_status kn_cpu_point_back(const kn_call *c, es_error *err);
size_t kn_cpu_depthwise_back_scratch(const kn_call *c);
es_status kn_cpu_depthwise_back(const kn_call *c, es_error *err);

/* 1x1 convolution and its dw on a normalised x. */
size_t kn_cpu_point_lazy_scratch(const kn_call *c);
es_status kn_cpu_point_lazy(const kn_call *c, es_error *err);
size_t kn_cpu_point_dw_lazy_scratch(const kn_call *c);
es_status kn_cpu_point_dw_lazy(const kn_call *c, es_error *err);

#endif
