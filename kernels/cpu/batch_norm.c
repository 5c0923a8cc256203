/* Batch norm over rows of channels, with its activation in the same pass.
 *
 * Statistics are sums of x - x[first row]: one pass, no cancellation when the mean is far from zero.
 *
 * After fuse.c two other forms occur. Where only convolutions read the result, output 0 is not y but the rows [scale, shift, mean] of channels, and the
 * convolutions normalise what they read. Where only a convolution's gradient reads dx, output 0 of the gradient is [scale, shift, k_x, k_1] (line.h); and where
 * the producer of dy has summed already, input 0 is [sum of dz, sum of dz (x - mean)]. */
#include "kernels/cpu/line.h"

#include <math.h>

typedef struct shape {
    int64_t rows;
    kn_line l;
    kn_pieces p;
} shape;

static shape shape_of(const kn_tensor *x)
{
    shape s = {.l = kn_line_of(kn_last(x))};
    s.rows = kn_count(x) / s.l.c;
    s.p = kn_pieces_of_rows(s.rows, s.l.c * 4);
    s.p.rows = (s.p.rows + s.l.rows - 1) / s.l.rows * s.l.rows;
    s.p.count = (s.rows + s.p.rows - 1) / s.p.rows;
    return s;
}

/* Elements before piece p, and in it. */
static int64_t piece_at(const shape *s, int64_t p) { return p * s->p.rows * s->l.c; }
static int64_t piece_size(const shape *s, int64_t p)
{
    return (KN_MIN((p + 1) * s->p.rows, s->rows) - p * s->p.rows) * s->l.c;
}

/* Sums over pieces and over the rows of a line of partial[piece][2][line], in order, in double. */
static void sum_partials(const shape *s, const float *partial, int64_t channel, double *a, double *b)
{
    int64_t padded = kn_line_padded(&s->l);
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

/* Is output 0 a few rows of channels instead of something shaped like x? */
static bool only_channels(const kn_tensor *out, const kn_tensor *x)
{
    return out->shape.rank == 2 && x->shape.rank == 4;
}

/* --- forward --- */

size_t kn_cpu_batch_norm_scratch(const kn_call *c)
{
    shape s = shape_of(&c->in[0]);
    return sizeof(float) * (size_t)(kn_line_padded(&s.l) * (2 * s.p.count + 3));
}

static void piece_statistics(const kn_line *l, const float *x, const float *shift, int64_t n_all, float *sums)
{
    float *squares = sums + kn_line_padded(l);
    memset(sums, 0, sizeof(float) * (size_t)kn_line_padded(l) * 2);
#define BODY(at, j, n)                                                          \
    do {                                                                        \
        kn_vec d_ = kn_vec_load_n(x + (at), n) - kn_vec_load_n(shift + (j), n); \
        kn_vec_store(sums + (j), kn_vec_load(sums + (j)) + d_);                 \
        kn_vec_store(squares + (j), kn_vec_load(squares + (j)) + d_ * d_);      \
    } while (0)
    KN_LINES(l, 0, n_all, BODY)
#undef BODY
}

es_status kn_cpu_batch_norm(const kn_call *c, es_error *err)
{
    (void)err;
    shape s = shape_of(&c->in[0]);
    const int64_t padded = kn_line_padded(&s.l), channels = s.l.c;
    const float *x = kn_f(&c->in[0]);
    float *y = kn_fo(&c->out[0]), *first = c->scratch, *scale = first + padded, *shift = scale + padded,
          *partial = shift + padded;
    kn_line_spread_from(&s.l, first, x);
    KN_CPU_FOR(c, p, s.p.count)
    {
        piece_statistics(&s.l, x + piece_at(&s, p), first, piece_size(&s, p), partial + p * 2 * padded);
    }
    const bool lazy = y && only_channels(&c->out[0], &c->in[0]);
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
        if (lazy) {
            y[q] = scale[q];
            y[channels + q] = shift[q];
            y[2 * channels + q] = (float)mean;
        }
    }
    if (y == NULL || lazy)
        return ES_OK;
    kn_line_spread(&s.l, scale);
    kn_line_spread(&s.l, shift);
    KN_CPU_FOR(c, p, s.p.count)
    {
        kn_line_apply(c->a->act, &s.l, x + piece_at(&s, p), scale, shift, y + piece_at(&s, p), piece_size(&s, p));
    }
    return ES_OK;
}

/* --- inference: scale and shift are known --- */

size_t kn_cpu_batch_norm_infer_scratch(const kn_call *c)
{
    shape s = shape_of(&c->in[0]);
    return sizeof(float) * (size_t)kn_line_padded(&s.l) * 2;
}

/* in[g] gamma, in[g + 1] beta, in[g + 2] mean, in[g + 3] var. */
static void known_scale(const kn_call *c, const kn_line *l, int g, float *scale, float *shift)
{
    for (int64_t q = 0; q < l->c; q++) {
        double k = at_or(c, g, q, 1.0f) / sqrt((double)kn_f(&c->in[g + 3])[q] + (double)c->a->eps);
        scale[q] = (float)k;
        shift[q] = (float)(at_or(c, g + 1, q, 0.0f) - kn_f(&c->in[g + 2])[q] * k);
    }
    kn_line_spread(l, scale);
    kn_line_spread(l, shift);
}

es_status kn_cpu_batch_norm_infer(const kn_call *c, es_error *err)
{
    (void)err;
    shape s = shape_of(&c->in[0]);
    float *scale = c->scratch, *shift = scale + kn_line_padded(&s.l);
    known_scale(c, &s.l, 1, scale, shift);
    KN_CPU_FOR(c, p, s.p.count)
    {
        int64_t at = piece_at(&s, p);
        kn_line_apply(c->a->act, &s.l, kn_f(&c->in[0]) + at, scale, shift, kn_fo(&c->out[0]) + at, piece_size(&s, p));
    }
    return ES_OK;
}

/* --- gradients --- */

size_t kn_cpu_batch_norm_grad_scratch(const kn_call *c)
{
    shape s = shape_of(&c->in[1]);
    return sizeof(float) * (size_t)(kn_line_padded(&s.l) * (2 * s.p.count + 5));
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
    const int64_t padded = kn_line_padded(&s.l), channels = s.l.c;
    const kn_act act = c->a->act;
    float *scale = c->scratch, *shift = scale + padded, *mean = shift + padded, *k_x = mean + padded,
          *k_1 = k_x + padded;
    float *partial = k_1 + padded, *out = kn_fo(&c->out[0]);
    const float *dy = kn_f(&c->in[0]), *x = kn_f(&c->in[1]);
    const bool summed = only_channels(&c->in[0], &c->in[1]), lazy = out && only_channels(&c->out[0], &c->in[1]);
    known_scale(c, &s.l, 2, scale, shift);
    kn_line_spread_from(&s.l, mean, c->in[4].p);
    if (!summed)
        KN_CPU_FOR(c, p, s.p.count)
        {
            int64_t at = piece_at(&s, p);
            kn_line_grad b = {dy + at, x + at, scale, shift, mean, k_x, k_1, NULL};
            memset(partial + p * 2 * padded, 0, sizeof(float) * (size_t)padded * 2);
            kn_line_grad_sums(act, &s.l, &b, piece_size(&s, p), partial + p * 2 * padded);
        }
    for (int64_t q = 0; q < channels; q++) {
        double sum, moment, rstd = 1.0 / sqrt((double)kn_f(&c->in[5])[q] + (double)c->a->eps);
        if (summed) {
            sum = dy[q];
            moment = dy[channels + q];
        } else {
            sum_partials(&s, partial, q, &sum, &moment);
        }
        put(c, 1, q, moment * rstd);
        put(c, 2, q, sum);
        double k = constant ? 0.0 : -scale[q] * rstd * rstd * moment / (double)s.rows;
        k_x[q] = (float)k;
        k_1[q] = (float)(constant ? 0.0 : -scale[q] * sum / (double)s.rows - k * mean[q]);
    }
    if (lazy) {
        const float *rows[4] = {scale, shift, k_x, k_1};
        for (int r = 0; r < 4; r++)
            memcpy(out + r * channels, rows[r], sizeof(float) * (size_t)channels);
        return ES_OK;
    }
    if (out == NULL)
        return ES_OK;
    kn_line_spread(&s.l, k_x);
    kn_line_spread(&s.l, k_1);
    KN_CPU_FOR(c, p, s.p.count)
    {
        int64_t at = piece_at(&s, p);
        kn_line_grad b = {dy + at, x + at, scale, shift, mean, k_x, k_1, out + at};
        kn_line_grad_apply(act, &s.l, &b, c->accumulate & 1, piece_size(&s, p));
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
