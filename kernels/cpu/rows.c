/* What works on rows of the last dimension: softmax and the losses, layer norm. Rows are independent; a piece is some rows. */
#include "kernels/cpu/cpu.h"

#include <math.h>

static int64_t rows_of(const kn_shape *s) { return kn_shape_count(s) / KN_MAX(s->rank ? s->d[s->rank - 1] : 1, 1); }

#define KN_ROWS(c, r, rows, cols)                                     \
    const kn_pieces pieces_ = kn_pieces_of(rows, (cols)*4, 32 << 10); \
    KN_CPU_FOR(c, piece_, pieces_.count)                              \
    for (int64_t r = piece_ * pieces_.rows; r < KN_MIN((piece_ + 1) * pieces_.rows, rows); r++)

float kn_cpu_log_sum(const float *x, int64_t n)
{
    float most = -INFINITY;
    kn_vec sum = {};
    for (int64_t i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < n; i += KN_LANES) {
        int lanes = (int)KN_MIN(KN_LANES, n - i);
        float e[KN_LANES] = {0};
        kn_vec_store_n(e, kn_vec_exp(kn_vec_load_n(x + i, lanes) - most), lanes);
        sum += kn_vec_load(e);
    }
    return most + logf(kn_vec_sum(sum));
}

static float dot(const float *a, const float *b, int64_t n)
{
    kn_vec sum = {};
    for (int64_t i = 0; i < n; i += KN_LANES) {
        int lanes = (int)KN_MIN(KN_LANES, n - i);
        kn_vec x = kn_vec_load_n(a + i, lanes);
        sum += b ? x * kn_vec_load_n(b + i, lanes) : x;
    }
    return kn_vec_sum(sum);
}

/* --- softmax --- */

es_status kn_cpu_softmax(const kn_call *c, es_error *err)
{
    (void)err;
    const kn_shape *s = &c->in[0].shape;
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(s), square = s->rank > 1 ? s->d[s->rank - 2] : 1;
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[0]) + r * cols;
        float *y = kn_fo(&c->out[0]) + r * cols;
        int64_t seen = c->a->causal ? KN_MAX(0, r % square + cols - square + 1) : cols;
        float lse = kn_cpu_log_sum(x, seen);
        for (int64_t i = 0; i < seen; i += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, seen - i);
            kn_vec_store_n(y + i, kn_vec_exp(kn_vec_load_n(x + i, n) - lse), n);
        }
        for (int64_t i = seen; i < cols; i++)
            y[i] = 0.0f;
    }
    return ES_OK;
}

es_status kn_cpu_log_softmax(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(&c->in[0].shape);
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[0]) + r * cols, lse = kn_cpu_log_sum(x, cols);
        float *y = kn_fo(&c->out[0]) + r * cols;
        for (int64_t i = 0; i < cols; i++)
            y[i] = x[i] - lse;
    }
    return ES_OK;
}

es_status kn_cpu_softmax_grad(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(&c->in[0].shape);
    KN_ROWS(c, r, rows, cols)
    {
        const float *d = kn_f(&c->in[0]) + r * cols, *y = kn_f(&c->in[1]) + r * cols, t = dot(d, y, cols);
        float *dx = kn_fo(&c->out[0]) + r * cols;
        for (int64_t i = 0; i < cols; i++)
            dx[i] = y[i] * (d[i] - t);
    }
    return ES_OK;
}

es_status kn_cpu_log_softmax_grad(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(&c->in[0].shape);
    KN_ROWS(c, r, rows, cols)
    {
        const float *d = kn_f(&c->in[0]) + r * cols, *y = kn_f(&c->in[1]) + r * cols, t = dot(d, NULL, cols);
        float *dx = kn_fo(&c->out[0]) + r * cols;
        for (int64_t i = 0; i < cols; i += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, cols - i);
            kn_vec_store_n(dx + i, kn_vec_load_n(d + i, n) - kn_vec_exp(kn_vec_load_n(y + i, n)) * t, n);
        }
    }
    return ES_OK;
}

/* --- losses: logits [rows][classes] --- */

static es_status labels_check(const kn_tensor *labels, int64_t rows, int64_t classes, es_error *err)
{
    const int32_t *l = labels->p;
    for (int64_t r = 0; r < rows; r++)
        if (l[r] < 0 || l[r] >= classes)
            return es_fail(err, ES_INVALID, NULL, "label %d of row %lld: allowed is 0 to %lld", l[r], (long long)r,
                           (long long)classes - 1);
    return ES_OK;
}

es_status kn_cpu_cross_entropy(const kn_call *c, es_error *err)
{
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(&c->in[0].shape);
    const int32_t *labels = c->in[1].p;
    const float s = c->a->alpha;
    ES_RETURN(labels_check(&c->in[1], rows, cols, err));
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[0]) + r * cols, lse = kn_cpu_log_sum(x, cols);
        float loss = (1.0f - s) * (lse - x[labels[r]]);
        if (s != 0.0f)
            loss += s * (lse - dot(x, NULL, cols) / (float)cols);
        kn_fo(&c->out[0])[r] = loss;
    }
    return ES_OK;
}

es_status kn_cpu_cross_entropy_grad(const kn_call *c, es_error *err)
{
    const int64_t cols = kn_last(&c->in[1]), rows = rows_of(&c->in[1].shape);
    const int32_t *labels = c->in[2].p;
    const float s = c->a->alpha;
    ES_RETURN(labels_check(&c->in[2], rows, cols, err));
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[1]) + r * cols, lse = kn_cpu_log_sum(x, cols), d = kn_f(&c->in[0])[r];
        float *dx = kn_fo(&c->out[0]) + r * cols;
        for (int64_t i = 0; i < cols; i += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, cols - i);
            kn_vec_store_n(dx + i, d * (kn_vec_exp(kn_vec_load_n(x + i, n) - lse) - s / (float)cols), n);
        }
        dx[labels[r]] = d * (expf(x[labels[r]] - lse) - s / (float)cols - (1.0f - s));
    }
    return ES_OK;
}

es_status kn_cpu_soft_cross_entropy(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(&c->in[0].shape);
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[0]) + r * cols, *t = kn_f(&c->in[1]) + r * cols, lse = kn_cpu_log_sum(x, cols);
        float loss = 0.0f;
        for (int64_t i = 0; i < cols; i++)
            loss += t[i] * (lse - x[i]);
        kn_fo(&c->out[0])[r] = loss;
    }
    return ES_OK;
}

es_status kn_cpu_soft_cross_entropy_grad(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[1]), rows = rows_of(&c->in[1].shape);
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[1]) + r * cols, *t = kn_f(&c->in[2]) + r * cols, lse = kn_cpu_log_sum(x, cols),
                    d = kn_f(&c->in[0])[r];
        const float mass = dot(t, NULL, cols);
        float *dx = kn_fo(&c->out[0]) + r * cols;
        for (int64_t i = 0; i < cols; i += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, cols - i);
            kn_vec_store_n(dx + i, d * (kn_vec_exp(kn_vec_load_n(x + i, n) - lse) * mass - kn_vec_load_n(t + i, n)), n);
        }
    }
    return ES_OK;
}

es_status kn_cpu_correct(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(&c->in[0].shape);
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[0]) + r * cols;
        int64_t best = 0;
        for (int64_t i = 1; i < cols; i++)
            best = x[i] > x[best] ? i : best;
        kn_fo(&c->out[0])[r] = best == ((const int32_t *)c->in[1].p)[r];
    }
    return ES_OK;
}

/* --- layer norm --- */

static void statistics(const float *x, int64_t n, float eps, float *mean, float *rstd)
{
    float m = dot(x, NULL, n) / (float)n;
    kn_vec sum = {};
    for (int64_t i = 0; i < n; i += KN_LANES) {
        int lanes = (int)KN_MIN(KN_LANES, n - i);
        float d[KN_LANES] = {0};
        kn_vec_store_n(d, kn_vec_load_n(x + i, lanes) - m, lanes);
        sum += kn_vec_load(d) * kn_vec_load(d);
    }
    *mean = m;
    *rstd = 1.0f / sqrtf(kn_vec_sum(sum) / (float)n + eps);
}

es_status kn_cpu_layer_norm(const kn_call *c, es_error *err)
{
    (void)err;
    const int64_t cols = kn_last(&c->in[0]), rows = rows_of(&c->in[0].shape);
    const float *gamma = c->in[1].p, *beta = c->in[2].p;
    KN_ROWS(c, r, rows, cols)
    {
        const float *x = kn_f(&c->in[0]) + r * cols;
        float *y = kn_fo(&c->out[0]) + r * cols, mean, rstd;
        statistics(x, cols, c->a->eps, &mean, &rstd);
        for (int64_t i = 0; i < cols; i++)
            y[i] = (x[i] - mean) * rstd * (gamma ? gamma[i] : 1.0f) + (beta ? beta[i] : 0.0f);
    }
    return ES_OK;
}

enum { NORM_PIECES = 16 };

size_t kn_cpu_layer_norm_grad_scratch(const kn_call *c)
{
    return sizeof(float) * (size_t)(NORM_PIECES * 2 * kn_last(&c->in[1]));
}

static void layer_norm_grad_row(const float *dy, const float *x, const float *gamma, int64_t cols, float eps, float *dx,
                                bool add, float *sums)
{
    float mean, rstd, sum = 0.0f, moment = 0.0f;
    kn_vec s1 = {}, s2 = {};
    statistics(x, cols, eps, &mean, &rstd);
    for (int64_t i = 0; i < cols; i += KN_LANES) {
        int n = (int)KN_MIN(KN_LANES, cols - i);
        kn_vec d = kn_vec_load_n(dy + i, n), h = (kn_vec_load_n(x + i, n) - mean) * rstd,
               dz = gamma ? d * kn_vec_load_n(gamma + i, n) : d;
        kn_vec_store_n(sums + i, kn_vec_load_n(sums + i, n) + d * h, n);
        kn_vec_store_n(sums + cols + i, kn_vec_load_n(sums + cols + i, n) + d, n);
        s1 += dz;
        s2 += dz * h; /* dz is 0 in missing lanes */
    }
    sum = kn_vec_sum(s1) / (float)cols;
    moment = kn_vec_sum(s2) / (float)cols;
    if (dx == NULL)
        return;
    for (int64_t i = 0; i < cols; i++) {
        float v = rstd * (dy[i] * (gamma ? gamma[i] : 1.0f) - sum - (x[i] - mean) * rstd * moment);
        dx[i] = add ? dx[i] + v : v;
    }
}

es_status kn_cpu_layer_norm_grad(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, layer_norm_grad);
    const int64_t cols = kn_last(&c->in[1]), rows = rows_of(&c->in[1].shape);
    kn_pieces p = kn_pieces_at_most(rows, NORM_PIECES);
    float *partial = c->scratch, *dx = kn_fo(&c->out[0]);
    KN_CPU_FOR(c, i, p.count)
    {
        float *sums = partial + i * 2 * cols;
        memset(sums, 0, sizeof(float) * 2 * (size_t)cols);
        for (int64_t r = i * p.rows; r < KN_MIN((i + 1) * p.rows, rows); r++)
            layer_norm_grad_row(kn_f(&c->in[0]) + r * cols, kn_f(&c->in[1]) + r * cols, c->in[2].p, cols, c->a->eps,
                                dx ? dx + r * cols : NULL, c->accumulate & 1, sums);
    }
    for (int o = 1; o <= 2; o++) {
        float *to = kn_fo(&c->out[o]);
        for (int64_t q = 0; to && q < cols; q++) {
            float v = c->accumulate >> o & 1 ? to[q] : 0.0f;
            for (int64_t i = 0; i < p.count; i++)
                v += partial[(i * 2 + o - 1) * cols + q];
            to[q] = v;
        }
    }
    return ES_OK;
}
