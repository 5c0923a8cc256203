/* cpu.h - what the files of kernels/cpu share: how work is cut, activations on vectors, and the list of kernels.
 *
 *     kn_pieces p = kn_pieces_of_rows(rows, bytes_per_row);        // a cut that depends on the shape alone
 *     KN_CPU_FOR(c, i, p.count) {                                   // any thread may take any piece
 *         int64_t from = i * p.rows, to = KN_MIN(from + p.rows, rows);
 *         ...                                                       // writes its own rows, or its own partial sum
 *     }
 *     kn_cpu_fold(out, n, partial, n, p.count, add);                // partial sums are added in piece order
 *
 * Invariant: what a kernel computes does not depend on the number of threads or on which thread took which piece.
 */
#ifndef KN_CPU_CPU_H
#define KN_CPU_CPU_H

#include "kernels/cpu/vec.h"
#include "kernels/device/device_internal.h"
#include "kernels/ops/ops_internal.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define KN_MIN(a, b) ((a) < (b) ? (a) : (b))
#define KN_MAX(a, b) ((a) > (b) ? (a) : (b))

static inline int kn_cpu_threads(const kn_call *c) { return c->dev && c->dev->threads > 0 ? c->dev->threads : 1; }
static inline int kn_cpu_self(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

#define KN_PRAGMA_(x) _Pragma(#x)
#define KN_PRAGMA(x) KN_PRAGMA_(x)
/* A loop over pieces, shared by the device's threads. */
#define KN_CPU_FOR(c, i, n)                                                                      \
    KN_PRAGMA(omp parallel for schedule(dynamic, 1) num_threads(kn_cpu_threads(c)) if ((n) > 1)) \
    for (int64_t i = 0; i < (int64_t)(n); i++)

typedef struct kn_pieces {
    int64_t rows, count; /* rows per piece (the last may be shorter), pieces */
} kn_pieces;

/* Pieces of about `target` bytes. */
static inline kn_pieces kn_pieces_of(int64_t rows, int64_t row_bytes, int64_t target)
{
    int64_t per = target / KN_MAX(row_bytes, 1);
    per = per < 1 ? 1 : per > rows ? KN_MAX(rows, 1) : per;
    return (kn_pieces){per, (rows + per - 1) / per};
}
enum { KN_PIECE_BYTES = 64 << 10 };
static inline kn_pieces kn_pieces_of_rows(int64_t rows, int64_t row_bytes)
{
    return kn_pieces_of(rows, row_bytes, KN_PIECE_BYTES);
}
/* At most `most` pieces: for kernels that keep a partial sum per piece. */
static inline kn_pieces kn_pieces_at_most(int64_t rows, int64_t most)
{
    int64_t per = (rows + most - 1) / most;
    per = KN_MAX(per, 1);
    return (kn_pieces){per, (rows + per - 1) / per};
}

/* to[rows][cols] (ld) (+)= sum over pieces of partial[piece][rows][cols], in order. */
void kn_cpu_fold(const kn_call *c, float *to, int64_t ld, const float *partial, int64_t rows, int64_t cols,
                 int64_t pieces, bool add);
/* log sum exp of n numbers; -infinity when n is 0. rows.c */
float kn_cpu_log_sum(const float *x, int64_t n);

static inline int64_t kn_count(const kn_tensor *t) { return kn_shape_count(&t->shape); }
static inline const float *kn_f(const kn_tensor *t) { return (const float *)t->p; }
static inline float *kn_fo(const kn_tensor *t) { return (float *)t->p; }
static inline int64_t kn_last(const kn_tensor *t) { return t->shape.rank ? t->shape.d[t->shape.rank - 1] : 1; }
static inline size_t kn_align(size_t bytes) { return (bytes + 255) & ~(size_t)255; }

/* Outputs that are added to may be slices of a gradient. Kernels that write flat memory leave such a call to the reference. */
static inline bool kn_cpu_flat(const kn_call *c)
{
    for (int o = 0; o < c->n_out; o++)
        if ((c->accumulate >> o & 1) && c->out[o].p && !kn_tensor_contiguous(&c->out[o]))
            return false;
    return true;
}
#define KN_CPU_NEED_FLAT(c, name)         \
    do {                                  \
        if (!kn_cpu_flat(c))              \
            return kn_ref_##name(c, err); \
    } while (0)

/* Activations on vectors; orders 0 and 1. `act` is a constant after inlining. */
KN_INLINE kn_vec kn_vec_act(kn_act act, kn_vec x)
{
    const kn_vec zero = {};
    switch (act) {
    case KN_ACT_RELU: return kn_vec_max(x, zero);
    case KN_ACT_RELU6: return kn_vec_min(kn_vec_max(x, zero), kn_vec_set(6.0f));
    case KN_ACT_HSIGMOID: return kn_vec_min(kn_vec_max(x + 3.0f, zero), kn_vec_set(6.0f)) * (1.0f / 6.0f);
    case KN_ACT_HSWISH: return x * kn_vec_min(kn_vec_max(x + 3.0f, zero), kn_vec_set(6.0f)) * (1.0f / 6.0f);
    case KN_ACT_SILU: return x * kn_vec_sigmoid(x);
    case KN_ACT_GELU: {
        kn_vec e;
        return 0.5f * x * (1.0f + kn_vec_erf(x * 0.70710678118654752f, &e));
    }
    case KN_ACT_SIGMOID: return kn_vec_sigmoid(x);
    case KN_ACT_TANH: return kn_vec_tanh(x);
    case KN_ACT_SQUARE: return x * x;
    case KN_ACT_ABS: return kn_vec_abs(x);
    case KN_ACT_RECIPROCAL: return 1.0f / x;
    default: return x;
    }
}

KN_INLINE kn_vec kn_vec_act_slope(kn_act act, kn_vec x)
{
    const kn_vec zero = {}, one = kn_vec_set(1.0f);
    switch (act) {
    case KN_ACT_RELU: return kn_vec_pick(x > 0.0f, one, zero);
    case KN_ACT_RELU6: return kn_vec_pick((x > 0.0f) & (x < 6.0f), one, zero);
    case KN_ACT_HSIGMOID: return kn_vec_pick((x > -3.0f) & (x < 3.0f), kn_vec_set(1.0f / 6.0f), zero);
    case KN_ACT_HSWISH: return kn_vec_pick(x <= -3.0f, zero, kn_vec_pick(x < 3.0f, x * (1.0f / 3.0f) + 0.5f, one));
    case KN_ACT_SILU: {
        kn_vec s = kn_vec_sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
    case KN_ACT_GELU: {
        kn_vec e, f = kn_vec_erf(x * 0.70710678118654752f, &e);
        return 0.5f * (1.0f + f) + x * e * 0.39894228040143268f;
    }
    case KN_ACT_SIGMOID: {
        kn_vec s = kn_vec_sigmoid(x);
        return s * (1.0f - s);
    }
    case KN_ACT_TANH: {
        kn_vec t = kn_vec_tanh(x);
        return 1.0f - t * t;
    }
    case KN_ACT_SQUARE: return x + x;
    case KN_ACT_ABS: return kn_vec_pick(x > 0.0f, one, kn_vec_pick(x < 0.0f, -one, zero));
    case KN_ACT_RECIPROCAL: return -1.0f / (x * x);
    default: return one;
    }
}

/* Calls BODY(act) with a constant act, so that the loop inside is compiled once per activation. */
#define KN_ACT_SWITCH(act, BODY)                        \
    switch (act) {                                      \
    case KN_ACT_RELU: BODY(KN_ACT_RELU); break;         \
    case KN_ACT_RELU6: BODY(KN_ACT_RELU6); break;       \
    case KN_ACT_HSIGMOID: BODY(KN_ACT_HSIGMOID); break; \
    case KN_ACT_HSWISH: BODY(KN_ACT_HSWISH); break;     \
    case KN_ACT_SILU: BODY(KN_ACT_SILU); break;         \
    case KN_ACT_GELU: BODY(KN_ACT_GELU); break;         \
    case KN_ACT_SIGMOID: BODY(KN_ACT_SIGMOID); break;   \
    case KN_ACT_TANH: BODY(KN_ACT_TANH); break;         \
    default: BODY(KN_ACT_NONE); break;                  \
    }

#endif
