/* ref.h - what the reference kernels of the larger ops share: rows and pixels through strides.
 *
 *     for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
 *         const float *p = kn_row(x, r);                         // row r of the last dim, whatever the strides of the others
 *         for (int i = 0; i < kn_cols(&x->shape); i++)
 *             kn_put(c, 0, kn_row_at(y, r) + i, 2.0 * p[i]);
 *     }
 *
 * The innermost stride is 1. Sums are in double. Their order of work does not matter; their readability does.
 */
#ifndef KN_OPS_REF_H
#define KN_OPS_REF_H

#include "kernels/ops/ops_internal.h"

static inline int32_t kn_cols(const kn_shape *s) { return s->rank ? s->d[s->rank - 1] : 1; }

static inline int64_t kn_rows(const kn_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < s->rank; i++)
        n *= s->d[i];
    return n;
}

static inline int64_t kn_row_at(const kn_tensor *t, int64_t row)
{
    int64_t at = 0;
    for (int i = t->shape.rank - 2; i >= 0; i--) {
        at += row % t->shape.d[i] * t->stride[i];
        row /= t->shape.d[i];
    }
    return at;
}

static inline float *kn_row(const kn_tensor *t, int64_t row) { return (float *)t->p + kn_row_at(t, row); }

/* Element number i in row order. */
static inline int64_t kn_nth(const kn_tensor *t, int64_t i)
{
    int32_t cols = kn_cols(&t->shape);
    return kn_row_at(t, i / cols) + i % cols;
}

/* The last dim at the first three indices of a rank 4 tensor: a pixel of NHWC, or the inputs' row of an OHWI weight. */
static inline const float *kn_pixel(const kn_tensor *t, int64_t i, int64_t j, int64_t k)
{
    return (const float *)t->p + i * t->stride[0] + j * t->stride[1] + k * t->stride[2];
}

/* An optional vector operand (gamma, beta): its element, or `otherwise` when it is absent. */
static inline double kn_vector(const kn_tensor *t, int i, double otherwise)
{
    return t->p ? ((const float *)t->p)[i] : otherwise;
}

/* log sum exp of n numbers. */
double kn_ref_log_sum(const float *x, int n);

#endif
