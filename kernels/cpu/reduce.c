/* Sums over axes, of one tensor or of a product of two; maxima.
 *
 * Neighbouring axes of one kind are merged, which leaves at most [kept][summed][kept][summed][kept]. The last kept group is a row of E numbers: rows are
 * added, in blocks so that rounding errors do not grow with the number of rows. */
#include "kernels/cpu/cpu.h"

#include <math.h>

enum { BLOCK_ROWS = 128, PIECES = 16, CHUNK = 4 * KN_LANES };

typedef struct groups {
    int64_t a, b, c, d, e; /* kept, summed, kept, summed, kept */
    bool more; /* summed, kept, summed, kept, summed: five axes that alternate do not fit, the reference does them */
} groups;

static groups groups_of(const kn_shape *s, uint32_t axes)
{
    int64_t size[2 * KN_RANK_MAX + 1] = {1};
    int n = 0; /* even: kept */
    for (int i = 0; i < s->rank; i++) {
        if (s->d[i] == 1)
            continue;
        if ((int)(axes >> i & 1) != (n & 1))
            size[++n] = 1;
        size[n] *= s->d[i];
    }
    for (int i = n + 1; i < 5; i++)
        size[i] = 1;
    groups g = {size[0], size[1], size[2], size[3], size[4], n > 4};
    if (g.d == 1 && g.e == 1) { /* the last kept group is the row */
        g.e = g.c;
        g.c = 1;
        if (g.b == 1 && g.e == 1) {
            g.e = g.a;
            g.a = 1;
        }
        if (g.e == 1) { /* a run */
            g.d = g.b;
            g.b = 1;
        }
    }
    return g;
}

/* Summed rows [from, to) (counted over b and d) of kept row (a, c), columns [col, col + n). */
KN_INLINE void sum_rows(const groups *g, const float *p, const float *q, int64_t kept, int64_t from, int64_t to,
                        int64_t col, int n, float *out)
{
    const int64_t ia = kept / g->c, ic = kept % g->c;
    kn_vec total[4] = {0};
    for (int64_t block = from; block < to; block += BLOCK_ROWS) {
        kn_vec sum[4] = {0};
        for (int64_t r = block; r < KN_MIN(block + BLOCK_ROWS, to); r++) {
            int64_t at = (((ia * g->b + r / g->d) * g->c + ic) * g->d + r % g->d) * g->e + col;
            if (n == CHUNK) {
#pragma GCC unroll 4
                for (int v = 0; v < 4; v++) {
                    kn_vec x = kn_vec_load(p + at + v * KN_LANES);
                    sum[v] += q ? x * kn_vec_load(q + at + v * KN_LANES) : x;
                }
            } else {
                for (int v = 0; v * KN_LANES < n; v++) {
                    int lanes = KN_MIN(KN_LANES, n - v * KN_LANES);
                    kn_vec x = kn_vec_load_n(p + at + v * KN_LANES, lanes);
                    sum[v] += q ? x * kn_vec_load_n(q + at + v * KN_LANES, lanes) : x;
                }
            }
        }
        for (int v = 0; v < 4; v++)
            total[v] += sum[v];
    }
    for (int v = 0; v * KN_LANES < n; v++)
        kn_vec_store_n(out + v * KN_LANES, total[v], KN_MIN(KN_LANES, n - v * KN_LANES));
}

/* A run of consecutive numbers (rows of one number each): in double, for what is left may be small against what was summed. */
static double sum_run(const float *p, const float *q, int64_t n)
{
    typedef double wide __attribute__((vector_size(64)));
    wide sum[2] = {0};
    double all = 0.0;
    for (int64_t i = 0; i + KN_LANES <= n; i += KN_LANES)
        for (int h = 0; h < 2; h++)
            for (int j = 0; j < KN_LANES / 2; j++) {
                int64_t at = i + h * KN_LANES / 2 + j;
                sum[h][j] += q ? (double)p[at] * (double)q[at] : (double)p[at];
            }
    sum[0] += sum[1];
    for (int j = 0; j < KN_LANES / 2; j++)
        all += sum[0][j];
    for (int64_t i = n / KN_LANES * KN_LANES; i < n; i++)
        all += q ? (double)p[i] * (double)q[i] : (double)p[i];
    return all;
}

static kn_pieces summed_pieces(const groups *g)
{
    int64_t rows = g->b * g->d, items = g->a * g->c * ((g->e + CHUNK - 1) / CHUNK);
    if (items >= PIECES || rows * g->e < (64 << 10))
        return (kn_pieces){rows, 1};
    kn_pieces p = kn_pieces_at_most(rows, PIECES);
    if (g->e == 1 && g->d > 1) { /* runs are cut at run ends */
        p.rows = (p.rows + g->d - 1) / g->d * g->d;
        p.count = (rows + p.rows - 1) / p.rows;
    }
    return p;
}

static size_t sum_scratch(const kn_shape *s, uint32_t axes)
{
    groups g = groups_of(s, axes);
    kn_pieces p = summed_pieces(&g);
    return p.count > 1 ? sizeof(float) * (size_t)(p.count * g.a * g.c * g.e) : 0;
}

static void sum(const kn_call *c, const kn_shape *s, const float *p, const float *q)
{
    groups g = groups_of(s, c->a->axes);
    kn_pieces pieces = summed_pieces(&g);
    const int64_t kept = g.a * g.c, rows = g.b * g.d, chunks = (g.e + CHUNK - 1) / CHUNK;
    const bool add = c->accumulate & 1;
    float *out = kn_fo(&c->out[0]), *to = pieces.count > 1 ? c->scratch : out;
    const int64_t batch = pieces.count > 1 ? 1 : KN_MAX(1, 16384 / KN_MAX(rows * KN_MIN(g.e, CHUNK), 1)),
                  items = kept * chunks;
    KN_CPU_FOR(c, i, pieces.count * ((items + batch - 1) / batch))
    {
        int64_t per = (items + batch - 1) / batch, piece = i / per, first = i % per * batch;
        int64_t from = piece * pieces.rows, end = KN_MIN(from + pieces.rows, rows);
        for (int64_t item = first; item < KN_MIN(first + batch, items); item++) {
            int64_t k = item / chunks, col = item % chunks * CHUNK;
            int n = (int)KN_MIN(CHUNK, g.e - col);
            float v[CHUNK], *dst = to + (piece * kept + k) * g.e + col;
            if (g.e == 1 && g.d > 1) {
                double all = 0.0;
                for (int64_t r = from; r < end; r += g.d) {
                    int64_t at = ((k / g.c * g.b + r / g.d) * g.c + k % g.c) * g.d;
                    all += sum_run(p + at, q ? q + at : NULL, KN_MIN(g.d, end - r));
                }
                v[0] = (float)all;
            } else if (q) {
                sum_rows(&g, p, q, k, from, end, col, n, v);
            } else {
                sum_rows(&g, p, NULL, k, from, end, col, n, v);
            }
            for (int j = 0; j < n; j++)
                dst[j] = add && pieces.count == 1 ? dst[j] + v[j] : v[j];
        }
    }
    if (pieces.count > 1)
        kn_cpu_fold(c, out, kept * g.e, to, 1, kept * g.e, pieces.count, add);
}

size_t kn_cpu_reduce_sum_scratch(const kn_call *c) { return sum_scratch(&c->in[0].shape, c->a->axes); }

es_status kn_cpu_reduce_sum(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, reduce_sum);
    if (groups_of(&c->in[0].shape, c->a->axes).more)
        return kn_ref_reduce_sum(c, err);
    sum(c, &c->in[0].shape, kn_f(&c->in[0]), NULL);
    return ES_OK;
}

size_t kn_cpu_mul_reduce_scratch(const kn_call *c) { return sum_scratch(&c->in[0].shape, c->a->axes); }

es_status kn_cpu_mul_reduce(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, mul_reduce);
    if (!kn_shape_equal(&c->in[0].shape, &c->in[1].shape) || groups_of(&c->in[0].shape, c->a->axes).more)
        return kn_ref_mul_reduce(c, err); /* operands that broadcast come from second derivatives of small things */
    sum(c, &c->in[0].shape, kn_f(&c->in[0]), kn_f(&c->in[1]));
    return ES_OK;
}

/* Kept element `kept` of [a][c][e]; visits its summed elements in row order. */
static int64_t max_at(const groups *g, const float *x, int64_t kept, float *best)
{
    int64_t e = kept % g->e, ic = kept / g->e % g->c, ia = kept / g->e / g->c, where = -1;
    for (int64_t b = 0; b < g->b; b++)
        for (int64_t d = 0; d < g->d; d++) {
            int64_t at = (((ia * g->b + b) * g->c + ic) * g->d + d) * g->e + e;
            if (where < 0 || x[at] > *best) {
                *best = x[at];
                where = at;
            }
        }
    return where;
}

es_status kn_cpu_reduce_max(const kn_call *c, es_error *err)
{
    groups g = groups_of(&c->in[0].shape, c->a->axes);
    if (g.more)
        return kn_ref_reduce_max(c, err);
    const float *x = kn_f(&c->in[0]);
    float *y = kn_fo(&c->out[0]);
    kn_pieces p = kn_pieces_of(g.a * g.c * g.e, g.b * g.d * 4, 64 << 10);
    KN_CPU_FOR(c, i, p.count)
    {
        for (int64_t k = i * p.rows; k < KN_MIN((i + 1) * p.rows, g.a * g.c * g.e); k++)
            max_at(&g, x, k, &y[k]);
    }
    return ES_OK;
}

es_status kn_cpu_reduce_max_grad(const kn_call *c, es_error *err)
{
    groups g = groups_of(&c->in[1].shape, c->a->axes);
    if (g.more)
        return kn_ref_reduce_max_grad(c, err);
    const float *d = kn_f(&c->in[0]), *x = kn_f(&c->in[1]);
    float *dx = kn_fo(&c->out[0]);
    memset(dx, 0, sizeof(float) * (size_t)kn_count(&c->out[0]));
    kn_pieces p = kn_pieces_of(g.a * g.c * g.e, g.b * g.d * 4, 64 << 10);
    KN_CPU_FOR(c, i, p.count)
    {
        for (int64_t k = i * p.rows; k < KN_MIN((i + 1) * p.rows, g.a * g.c * g.e); k++) {
            float best;
            dx[max_at(&g, x, k, &best)] = d[k];
        }
    }
    return ES_OK;
}
