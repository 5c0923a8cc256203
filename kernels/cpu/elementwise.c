/* Binary ops with broadcasting, affine, activations and bias. */
#include "kernels/cpu/walk.h"

/* One row of a binary op; strides of 0 and 1 are vectors, others go one by one. OP sees a and b as kn_vec or as float. */
#define BINARY(name, VECTOR, SCALAR)                                                 \
    static void name##_body(const kn_block *k, const void *ctx)                      \
    {                                                                                \
        const bool add = *(const bool *)ctx;                                         \
        for (int64_t r = 0; r < k->rows; r++) {                                      \
            float *y = (float *)(void *)k->p[0] + r * k->row[0];                     \
            const float *p = (const float *)(void *)k->p[1] + r * k->row[1],         \
                        *q = (const float *)(void *)k->p[2] + r * k->row[2];         \
            if (k->col[0] == 1 && (k->col[1] | 1) == 1 && (k->col[2] | 1) == 1) {    \
                for (int64_t i = 0; i < k->cols; i += KN_LANES) {                    \
                    int n = (int)KN_MIN(KN_LANES, k->cols - i);                      \
                    kn_vec a = k->col[1] ? kn_vec_load_n(p + i, n) : kn_vec_set(*p); \
                    kn_vec b = k->col[2] ? kn_vec_load_n(q + i, n) : kn_vec_set(*q); \
                    kn_vec v = VECTOR;                                               \
                    kn_vec_store_n(y + i, add ? v + kn_vec_load_n(y + i, n) : v, n); \
                }                                                                    \
                continue;                                                            \
            }                                                                        \
            for (int64_t i = 0; i < k->cols; i++) {                                  \
                float a = p[i * k->col[1]], b = q[i * k->col[2]], v = SCALAR;        \
                y[i * k->col[0]] = add ? y[i * k->col[0]] + v : v;                   \
            }                                                                        \
        }                                                                            \
    }                                                                                \
    es_status kn_cpu_##name(const kn_call *c, es_error *err)                         \
    {                                                                                \
        (void)err;                                                                   \
        kn_walk w = kn_walk_of(&c->out[0].shape);                                    \
        bool add = c->accumulate & 1;                                                \
        kn_walk_add(&w, &c->out[0]);                                                 \
        kn_walk_add(&w, &c->in[0]);                                                  \
        kn_walk_add(&w, &c->in[1]);                                                  \
        kn_walk_run(c, &w, name##_body, &add);                                       \
        return ES_OK;                                                                \
    }
BINARY(add, a + b, a + b)
BINARY(sub, a - b, a - b)
BINARY(mul, a *b, a *b)
BINARY(div, a / b, a / b)
BINARY(maximum, kn_vec_pick(a >= b, a, b), a >= b ? a : b)
BINARY(greater_equal, kn_vec_pick(a >= b, kn_vec_set(1.0f), (kn_vec){}), a >= b ? 1.0f : 0.0f)

/* --- one operand, any strides --- */

static void affine_body(const kn_block *k, const void *ctx)
{
    const kn_call *c = ctx;
    const float alpha = c->a->alpha, beta = c->a->beta;
    const bool add = c->accumulate & 1;
    for (int64_t r = 0; r < k->rows; r++) {
        float *y = (float *)(void *)k->p[0] + r * k->row[0];
        switch (c->in[0].dtype) {
        case KN_U8:
            for (int64_t i = 0; i < k->cols; i++) {
                float v = alpha * (float)((const uint8_t *)k->p[1])[r * k->row[1] + i * k->col[1]] + beta;
                y[i * k->col[0]] = add ? y[i * k->col[0]] + v : v;
            }
            break;
        case KN_I32:
            for (int64_t i = 0; i < k->cols; i++) {
                float v = alpha * (float)((const int32_t *)(void *)k->p[1])[r * k->row[1] + i * k->col[1]] + beta;
                y[i * k->col[0]] = add ? y[i * k->col[0]] + v : v;
            }
            break;
        default:
            for (int64_t i = 0; i < k->cols; i++) {
                float v = alpha * ((const float *)(void *)k->p[1])[r * k->row[1] + i * k->col[1]] + beta;
                y[i * k->col[0]] = add ? y[i * k->col[0]] + v : v;
            }
        }
    }
}

es_status kn_cpu_affine(const kn_call *c, es_error *err)
{
    (void)err;
    kn_walk w = kn_walk_of(&c->out[0].shape);
    kn_walk_add(&w, &c->out[0]);
    kn_walk_add(&w, &c->in[0]);
    kn_walk_run(c, &w, affine_body, c);
    return ES_OK;
}

static bool vector_act(kn_act act, int order)
{
    if (order > 1)
        return false;
    switch (act) {
    case KN_ACT_NONE:
    case KN_ACT_RELU:
    case KN_ACT_RELU6:
    case KN_ACT_HSWISH:
    case KN_ACT_HSIGMOID:
    case KN_ACT_SILU:
    case KN_ACT_GELU:
    case KN_ACT_SIGMOID:
    case KN_ACT_TANH: return true;
    default: return false;
    }
}

KN_INLINE kn_vec act_or_slope(kn_act act, int order, kn_vec x)
{
    return order == 0 ? kn_vec_act(act, x) : kn_vec_act_slope(act, x);
}

/* y = [d] f(x) over dense memory [from, to). */
KN_INLINE void act_range(kn_act act, int order, const float *d, const float *x, float *y, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i += KN_LANES) {
        int n = (int)KN_MIN(KN_LANES, to - i);
        kn_vec v = act_or_slope(act, order, kn_vec_load_n(x + i, n));
        if (d)
            v *= kn_vec_load_n(d + i, n);
        kn_vec_store_n(y + i, v, n);
    }
}

static es_status activate(const kn_call *c, const kn_tensor *d, const kn_tensor *x)
{
    const int64_t count = kn_count(x);
    const kn_act act = c->a->act;
    const int order = c->a->order;
    const float *from_d = d ? kn_f(d) : NULL, *from = kn_f(x);
    float *y = kn_fo(&c->out[0]);
    const bool fast = vector_act(act, order);
    kn_pieces p = kn_pieces_of(count, 4, 64 << 10);
    KN_CPU_FOR(c, i, p.count)
    {
        int64_t a = i * p.rows, b = KN_MIN(a + p.rows, count);
        if (fast && order == 0) {
#define RUN(A) act_range(A, 0, from_d, from, y, a, b)
            KN_ACT_SWITCH(act, RUN)
#undef RUN
        } else if (fast) {
#define RUN(A) act_range(A, 1, from_d, from, y, a, b)
            KN_ACT_SWITCH(act, RUN)
#undef RUN
        } else {
            for (int64_t j = a; j < b; j++) {
                float v = (float)((from_d ? from_d[j] : 1.0) * kn_act_value(act, order, from[j]));
                y[j] = v;
            }
        }
    }
    return ES_OK;
}

es_status kn_cpu_activate(const kn_call *c, es_error *err)
{
    (void)err;
    return activate(c, NULL, &c->in[0]);
}

es_status kn_cpu_activate_mul(const kn_call *c, es_error *err)
{
    (void)err;
    return activate(c, &c->in[0], &c->in[1]);
}

/* --- bias and activation, by rows --- */

KN_INLINE void bias_rows(kn_act act, const float *x, const float *bias, float *y, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols)
        for (int64_t i = 0; i < cols; i += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, cols - i);
            kn_vec v = kn_vec_load_n(x + i, n);
            v = kn_vec_act(act, bias ? v + kn_vec_load_n(bias + i, n) : v);
            kn_vec_store_n(y + i, v, n);
        }
}

es_status kn_cpu_bias_act(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[0]), rows = kn_count(&c->in[0]) / cols;
    const float *x = kn_f(&c->in[0]), *bias = c->in[1].p ? kn_f(&c->in[1]) : NULL;
    float *y = kn_fo(&c->out[0]);
    const kn_act act = c->a->act;
    const bool fast = vector_act(act, 0);
    kn_pieces p = kn_pieces_of(rows, cols * 4, 64 << 10);
    KN_CPU_FOR(c, i, p.count)
    {
        int64_t from = i * p.rows, n = KN_MIN(p.rows, rows - from);
        if (fast) {
#define RUN(A) bias_rows(A, x + from * cols, bias, y + from * cols, n, cols)
            KN_ACT_SWITCH(act, RUN)
#undef RUN
        } else {
            for (int64_t j = from * cols; j < (from + n) * cols; j++) {
                float v = (float)kn_act_value(act, 0, (double)x[j] + (bias ? bias[j % cols] : 0.0f));
                y[j] = v;
            }
        }
    }
    return ES_OK;
}

enum { BIAS_PIECES = 16 };

size_t kn_cpu_bias_act_grad_scratch(const kn_call *c)
{
    return sizeof(float) * (size_t)(BIAS_PIECES * kn_last(&c->in[1]));
}

KN_INLINE void bias_grad_rows(kn_act act, const float *d, const float *x, const float *bias, float *da, float *sum,
                              int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, d += cols, x += cols)
        for (int64_t i = 0; i < cols; i += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, cols - i);
            kn_vec v = kn_vec_load_n(x + i, n);
            v = kn_vec_load_n(d + i, n) * kn_vec_act_slope(act, bias ? v + kn_vec_load_n(bias + i, n) : v);
            kn_vec_store_n(sum + i, kn_vec_load_n(sum + i, n) + v, n);
            if (da) {
                float *to = da + r * cols + i;
                kn_vec_store_n(to, v, n);
            }
        }
}

es_status kn_cpu_bias_act_grad(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[1]), rows = kn_count(&c->in[1]) / cols;
    const float *d = kn_f(&c->in[0]), *x = kn_f(&c->in[1]), *bias = c->in[2].p ? kn_f(&c->in[2]) : NULL;
    float *da = kn_fo(&c->out[0]), *partial = c->scratch;
    const kn_act act = c->a->act;
    const bool fast = vector_act(act, 1);
    kn_pieces p = kn_pieces_at_most(rows, KN_MAX(KN_MIN(BIAS_PIECES, rows / 64), 1));
    KN_CPU_FOR(c, i, p.count)
    {
        int64_t from = i * p.rows, n = KN_MIN(p.rows, rows - from), at = from * cols;
        float *sum = partial + i * cols, *to = da ? da + at : NULL;
        memset(sum, 0, sizeof(float) * (size_t)cols);
        if (fast) {
#define RUN(A) bias_grad_rows(A, d + at, x + at, bias, to, sum, n, cols)
            KN_ACT_SWITCH(act, RUN)
#undef RUN
        } else {
            for (int64_t j = at; j < at + n * cols; j++) {
                float v = (float)(d[j] * kn_act_value(act, 1, (double)x[j] + (bias ? bias[j % cols] : 0.0f)));
                sum[j % cols] += v;
                if (da)
                    da[j] = v;
            }
        }
    }
    if (c->out[1].p)
        kn_cpu_fold(c, kn_fo(&c->out[1]), cols, partial, 1, cols, p.count, c->accumulate >> 1 & 1);
    return ES_OK;
}
