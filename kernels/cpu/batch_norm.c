/* Batch norm over rows of channels, with its activation in the same pass.
 *
 * A line is as many rows as make whole vectors (for few channels: several), so per-channel numbers are laid out once per line length and the
 * loops run over flat memory. Statistics are sums of x - x[first row]: one pass, no cancellation when the mean is far from zero. */
#include "kernels/cpu/cpu.h"

#include <math.h>

typedef struct line {
    int64_t c, rows, length,
        vecs; /* channels, rows per line, rows * c, vectors per line; length is a multiple of 16 unless rows is 1 */
} line;

static line line_of(int64_t c)
{
    int64_t rows = 1;
    if (c < 128) {
        while (rows * c % KN_LANES != 0)
            rows *= 2;
        while (rows * c < 128)
            rows *= 2;
    }
    return (line){c, rows, rows * c, (rows * c + KN_LANES - 1) / KN_LANES};
}
static int64_t line_padded(const line *l) { return l->vecs * KN_LANES; }

/* Repeats a value per channel along the line. */
static void line_spread(const line *l, float *to)
{
    for (int64_t r = 1; r < l->rows; r++)
        memcpy(to + r * l->c, to, sizeof(float) * (size_t)l->c);
    for (int64_t i = l->length; i < line_padded(l); i++)
        to[i] = 0.0f;
}

typedef struct shape {
    int64_t rows;
    line l;
    kn_pieces p;
} shape;

static shape shape_of(const kn_tensor *x)
{
    shape s = {.l = line_of(kn_last(x))};
    s.rows = kn_count(x) / s.l.c;
    s.p = kn_pieces_of_rows(s.rows, s.l.c * 4);
    s.p.rows = (s.p.rows + s.l.rows - 1) / s.l.rows * s.l.rows;
    s.p.count = (s.rows + s.p.rows - 1) / s.p.rows;
    return s;
}

/* Runs BODY(at, j, n) for every vector of elements [from, to), from being the start of a line: at is its place, j its place in the line, n its length. */
#define KN_LINES(l, from, to, BODY)                                                            \
    for (int64_t base_ = (from); base_ < (to); base_ += (l)->length) {                         \
        int64_t size_ = KN_MIN((l)->length, (to)-base_), whole_ = size_ / KN_LANES * KN_LANES; \
        for (int64_t j_ = 0; j_ < whole_; j_ += KN_LANES)                                      \
            BODY(base_ + j_, j_, KN_LANES);                                                    \
        if (whole_ < size_)                                                                    \
            BODY(base_ + whole_, whole_, (int)(size_ - whole_));                               \
    }

/* Sums over pieces and over the rows of a line of partial[piece][2][line], in order, in double. */
static void sum_partials(const shape *s, const float *partial, int64_t channel, double *a, double *b)
{
    int64_t padded = line_padded(&s->l);
    *a = *b = 0.0;
    for (int64_t p = 0; p < s->p.count; p++)
        for (int64_t r = 0; r < s->l.rows; r++) {
            *a += partial[p * 2 * padded + r * s->l.c + channel];
            *b += partial[(p * 2 + 1) * padded + r * s->l.c + channel];
        }
}

static float at_or(const kn_call *c, int i, int64_t channel, float otherwise)
{
    return i < c->n_in && c->in[i].p ? kn_f(&c->in[i])[channel] : otherwise;
}

/* --- forward --- */

size_t kn_cpu_batch_norm_scratch(const kn_call *c)
{
    shape s = shape_of(&c->in[0]);
    return sizeof(float) * (size_t)(line_padded(&s.l) * (2 * s.p.count + 3));
}

static void piece_statistics(const shape *s, const float *x, const float *shift, int64_t from, int64_t to, float *sums)
{
    float *squares = sums + line_padded(&s->l);
    memset(sums, 0, sizeof(float) * (size_t)line_padded(&s->l) * 2);
#define BODY(at, j, n)                                                          \
    do {                                                                        \
        kn_vec d_ = kn_vec_load_n(x + (at), n) - kn_vec_load_n(shift + (j), n); \
        kn_vec_store(sums + (j), kn_vec_load(sums + (j)) + d_);                 \
        kn_vec_store(squares + (j), kn_vec_load(squares + (j)) + d_ * d_);      \
    } while (0)
    KN_LINES(&s->l, from, to, BODY)
#undef BODY
}

KN_INLINE void apply_act(kn_act act, const line *l, const float *x, const float *scale, const float *shift, float *y,
                         int64_t from, int64_t to)
{
#define BODY(at, j, n)                                                                                                \
    kn_vec_store_n(y + (at),                                                                                          \
                   kn_vec_act(act, kn_vec_load_n(x + (at), n) * kn_vec_load(scale + (j)) + kn_vec_load(shift + (j))), \
                   n)
    KN_LINES(l, from, to, BODY)
#undef BODY
}

static void apply(kn_act act, const line *l, const float *x, const float *scale, const float *shift, float *y,
                  int64_t from, int64_t to){
#define RUN(A) apply_act(A, l, x, scale, shift, y, from, to)
    KN_ACT_SWITCH(act, RUN)
#undef RUN
}

es_status kn_cpu_batch_norm(const kn_call *c, es_error *err)
{
    (void)err;
    shape s = shape_of(&c->in[0]);
    const int64_t padded = line_padded(&s.l), channels = s.l.c;
    const float *x = kn_f(&c->in[0]);
    float *y = kn_fo(&c->out[0]), *first = c->scratch, *scale = first + padded, *shift = scale + padded,
          *partial = shift + padded;
    memcpy(first, x, sizeof(float) * (size_t)channels);
    line_spread(&s.l, first);
    KN_CPU_FOR(c, p, s.p.count)
    {
        piece_statistics(&s, x, first, p * s.p.rows * channels, KN_MIN((p + 1) * s.p.rows, s.rows) * channels,
                         partial + p * 2 * padded);
    }
    for (int64_t q = 0; q < channels; q++) {
        double sum, squares;
        sum_partials(&s, partial, q, &sum, &squares);
        double d = sum / (double)s.rows, mean = first[q] + d, var = squares / (double)s.rows - d * d;
        var = var > 0.0 ? var : 0.0;
        if (c->out[1].p)
            kn_fo(&c->out[1])[q] = (float)mean;
        if (c->out[2].p)
            kn_fo(&c->out[2])[q] = (float)var;
        double k = at_or(c, 1, q, 1.0f) / sqrt(var + (double)c->a->eps);
        scale[q] = (float)k;
        shift[q] = (float)(at_or(c, 2, q, 0.0f) - mean * k);
    }
    line_spread(&s.l, scale);
    line_spread(&s.l, shift);
    if (y == NULL)
        return ES_OK;
    KN_CPU_FOR(c, p, s.p.count)
    {
        apply(c->a->act, &s.l, x, scale, shift, y, p * s.p.rows * channels,
              KN_MIN((p + 1) * s.p.rows, s.rows) * channels);
    }
    return ES_OK;
}

/* --- inference: scale and shift are known --- */

size_t kn_cpu_batch_norm_infer_scratch(const kn_call *c)
{
    shape s = shape_of(&c->in[0]);
    return sizeof(float) * (size_t)line_padded(&s.l) * 2;
}

/* in[g] gamma, in[g + 1] beta, in[g + 2] mean, in[g + 3] var. */
static void known_scale(const kn_call *c, const line *l, int g, float *scale, float *shift)
{
    for (int64_t q = 0; q < l->c; q++) {
        double k = at_or(c, g, q, 1.0f) / sqrt((double)kn_f(&c->in[g + 3])[q] + (double)c->a->eps);
        scale[q] = (float)k;
        shift[q] = (float)(at_or(c, g + 1, q, 0.0f) - kn_f(&c->in[g + 2])[q] * k);
    }
    line_spread(l, scale);
    line_spread(l, shift);
}

es_status kn_cpu_batch_norm_infer(const kn_call *c, es_error *err)
{
    (void)err;
    shape s = shape_of(&c->in[0]);
    float *scale = c->scratch, *shift = scale + line_padded(&s.l);
    known_scale(c, &s.l, 1, scale, shift);
    KN_CPU_FOR(c, p, s.p.count)
    {
        apply(c->a->act, &s.l, kn_f(&c->in[0]), scale, shift, kn_fo(&c->out[0]), p * s.p.rows * s.l.c,
              KN_MIN((p + 1) * s.p.rows, s.rows) * s.l.c);
    }
    return ES_OK;
}

/* --- gradients: z = scale x + shift, dz = dy act'(z); sums of dz and of dz (x - mean), then dx = k dz + k_x x + k_1 --- */

typedef struct backward {
    const float *dy, *x, *scale, *shift, *mean, *k_x, *k_1;
    float *dx;
} backward;

KN_INLINE void grad_sums_act(kn_act act, const line *l, const backward *b, int64_t from, int64_t to, float *sums)
{
    float *moments = sums + line_padded(l);
#define BODY(at, j, n)                                                                                    \
    do {                                                                                                  \
        kn_vec x_ = kn_vec_load_n(b->x + (at), n), d_ = kn_vec_load_n(b->dy + (at), n);                   \
        if (act != KN_ACT_NONE)                                                                           \
            d_ *= kn_vec_act_slope(act, x_ * kn_vec_load(b->scale + (j)) + kn_vec_load(b->shift + (j)));  \
        kn_vec_store(sums + (j), kn_vec_load(sums + (j)) + d_);                                           \
        kn_vec_store(moments + (j), kn_vec_load(moments + (j)) + d_ * (x_ - kn_vec_load(b->mean + (j)))); \
    } while (0)
    KN_LINES(l, from, to, BODY)
#undef BODY
}

KN_INLINE void grad_apply_act(kn_act act, const line *l, const backward *b, bool add, int64_t from, int64_t to)
{
#define BODY(at, j, n)                                                                   \
    do {                                                                                 \
        kn_vec x_ = kn_vec_load_n(b->x + (at), n), d_ = kn_vec_load_n(b->dy + (at), n),  \
               k_ = kn_vec_load(b->scale + (j));                                         \
        if (act != KN_ACT_NONE)                                                          \
            d_ *= kn_vec_act_slope(act, x_ * k_ + kn_vec_load(b->shift + (j)));          \
        d_ = d_ * k_ + (x_ * kn_vec_load(b->k_x + (j)) + kn_vec_load(b->k_1 + (j)));     \
        kn_vec_store_n(b->dx + (at), add ? d_ + kn_vec_load_n(b->dx + (at), n) : d_, n); \
    } while (0)
    KN_LINES(l, from, to, BODY)
#undef BODY
}

size_t kn_cpu_batch_norm_grad_scratch(const kn_call *c)
{
    shape s = shape_of(&c->in[1]);
    return sizeof(float) * (size_t)(line_padded(&s.l) * (2 * s.p.count + 5));
}

size_t kn_cpu_batch_norm_infer_grad_scratch(const kn_call *c) { return kn_cpu_batch_norm_grad_scratch(c); }

static void put(const kn_call *c, int o, int64_t q, double v)
{
    if (o < c->n_out && c->out[o].p) {
        float *p = kn_fo(&c->out[o]) + q;
        *p = (float)(c->accumulate >> o & 1 ? *p + v : v);
    }
}

/* `constant`: mean and variance do not depend on x (inference). */
static es_status grad(const kn_call *c, bool constant)
{
    shape s = shape_of(&c->in[1]);
    const int64_t padded = line_padded(&s.l), channels = s.l.c;
    const kn_act act = c->a->act;
    float *scale = c->scratch, *shift = scale + padded, *mean = shift + padded, *k_x = mean + padded,
          *k_1 = k_x + padded;
    float *partial = k_1 + padded;
    backward b = {kn_f(&c->in[0]), kn_f(&c->in[1]), scale, shift, mean, k_x, k_1, kn_fo(&c->out[0])};
    known_scale(c, &s.l, 2, scale, shift);
    memcpy(mean, c->in[4].p, sizeof(float) * (size_t)channels);
    line_spread(&s.l, mean);
    KN_CPU_FOR(c, p, s.p.count)
    {
        int64_t from = p * s.p.rows * channels, to = KN_MIN((p + 1) * s.p.rows, s.rows) * channels;
        float *sums = partial + p * 2 * padded;
        memset(sums, 0, sizeof(float) * (size_t)padded * 2);
#define RUN(A) grad_sums_act(A, &s.l, &b, from, to, sums)
        KN_ACT_SWITCH(act, RUN)
#undef RUN
    }
    for (int64_t q = 0; q < channels; q++) {
        double sum, moment, rstd = 1.0 / sqrt((double)kn_f(&c->in[5])[q] + (double)c->a->eps);
        sum_partials(&s, partial, q, &sum, &moment);
        put(c, 1, q, moment * rstd);
        put(c, 2, q, sum);
        double k = constant ? 0.0 : -scale[q] * rstd * rstd * moment / (double)s.rows;
        k_x[q] = (float)k;
        k_1[q] = (float)(constant ? 0.0 : -scale[q] * sum / (double)s.rows - k * mean[q]);
    }
    if (b.dx == NULL)
        return ES_OK;
    line_spread(&s.l, k_x);
    line_spread(&s.l, k_1);
    const bool add = c->accumulate & 1;
    KN_CPU_FOR(c, p, s.p.count)
    {
        int64_t from = p * s.p.rows * channels, to = KN_MIN((p + 1) * s.p.rows, s.rows) * channels;
#define RUN(A) grad_apply_act(A, &s.l, &b, add, from, to)
        KN_ACT_SWITCH(act, RUN)
#undef RUN
    }
    return ES_OK;
}

es_status kn_cpu_batch_norm_grad(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, batch_norm_grad);
    return grad(c, false);
}

es_status kn_cpu_batch_norm_infer_grad(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, batch_norm_infer_grad);
    return grad(c, true);
}
