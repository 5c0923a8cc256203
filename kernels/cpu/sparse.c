/* Table rows by index, and dropout. */
#include "base/rng.h"
#include "kernels/cpu/cpu.h"

static es_status indices_check(const kn_tensor *indices, int64_t rows, es_error *err)
{
    const int32_t *at = indices->p;
    const int64_t count = kn_count(indices);
    for (int64_t i = 0; i < count; i++)
        if (at[i] < 0 || at[i] >= rows)
            return es_fail(err, ES_INVALID, NULL, "index %d at position %lld: allowed is 0 to %lld", at[i],
                           (long long)i, (long long)rows - 1);
    return ES_OK;
}

es_status kn_cpu_embedding(const kn_call *c, es_error *err)
{
    const int64_t count = kn_count(&c->in[0]), width = c->in[1].shape.d[1], ld = c->in[1].stride[0];
    const int32_t *at = c->in[0].p;
    ES_RETURN(indices_check(&c->in[0], c->in[1].shape.d[0], err));
    kn_pieces p = kn_pieces_of(count, width * 4, 64 << 10);
    KN_CPU_FOR(c, i, p.count)
    {
        for (int64_t r = i * p.rows; r < KN_MIN((i + 1) * p.rows, count); r++)
            memcpy(kn_fo(&c->out[0]) + r * width, kn_f(&c->in[1]) + at[r] * ld, sizeof(float) * (size_t)width);
    }
    return ES_OK;
}

/* Pieces are columns of the table: every piece reads all indices in order, and no two write the same number. */
es_status kn_cpu_embedding_grad(const kn_call *c, es_error *err)
{
    enum { COLUMNS = 64 };
    const int64_t count = kn_count(&c->in[1]), width = c->out[0].shape.d[1], ld = c->out[0].stride[0],
                  rows = c->out[0].shape.d[0];
    const int32_t *at = c->in[1].p;
    ES_RETURN(indices_check(&c->in[1], rows, err));
    KN_CPU_FOR(c, i, (width + COLUMNS - 1) / COLUMNS)
    {
        int64_t from = i * COLUMNS, n = KN_MIN(COLUMNS, width - from);
        float *table = kn_fo(&c->out[0]) + from;
        if (!(c->accumulate & 1))
            for (int64_t r = 0; r < rows; r++)
                memset(table + r * ld, 0, sizeof(float) * (size_t)n);
        for (int64_t r = 0; r < count; r++) {
            const float *d = kn_f(&c->in[0]) + r * width + from;
            float *to = table + at[r] * ld;
            for (int64_t j = 0; j < n; j++)
                to[j] += d[j];
        }
    }
    return ES_OK;
}

/* Elements [from, to) of a dense mask; four share one block of random numbers. */
static void drop_dense(const kn_call *c, uint32_t threshold, float keep, const float *x, float *y, int64_t from,
                       int64_t to)
{
    const bool add = c->accumulate & 1;
    for (int64_t e = from; e < to; e += 4) {
        uint32_t lanes[4];
        es_philox(c->seed, ES_USE_DROPOUT, c->step, (uint64_t)c->a->use_index << 32 | (uint64_t)e / 4, lanes);
        for (int64_t j = e; j < KN_MIN(e + 4, to); j++) {
            float v = lanes[j - e] >= threshold ? x[j] * keep : 0.0f;
            y[j] = add ? y[j] + v : v;
        }
    }
}

/* The mask is shared along some axes: its element per element of x. */
static void drop_shared(const kn_call *c, uint32_t threshold, float keep, const float *x, float *y, int64_t from,
                        int64_t to)
{
    const kn_shape *s = &c->in[0].shape;
    const bool add = c->accumulate & 1;
    uint64_t block = UINT64_MAX;
    uint32_t lanes[4] = {0};
    for (int64_t i = from; i < to; i++) {
        uint64_t element = 0, scale = 1;
        int64_t rest = i;
        for (int d = s->rank - 1; d >= 0; d--) {
            if (!(c->a->axes >> d & 1)) {
                element += (uint64_t)(rest % s->d[d]) * scale;
                scale *= (uint64_t)s->d[d];
            }
            rest /= s->d[d];
        }
        if (element / 4 != block) {
            block = element / 4;
            es_philox(c->seed, ES_USE_DROPOUT, c->step, (uint64_t)c->a->use_index << 32 | block, lanes);
        }
        float v = lanes[element % 4] >= threshold ? x[i] * keep : 0.0f;
        y[i] = add ? y[i] + v : v;
    }
}

es_status kn_cpu_dropout(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, dropout);
    const int64_t count = kn_count(&c->in[0]);
    const uint32_t threshold = (uint32_t)((double)c->a->rate * 4294967296.0);
    const float keep = (float)(1.0 / (1.0 - (double)c->a->rate));
    kn_pieces p = kn_pieces_of(count, 4, 64 << 10); /* a multiple of four elements */
    KN_CPU_FOR(c, i, p.count)
    {
        int64_t from = i * p.rows, to = KN_MIN(from + p.rows, count);
        if (c->a->axes == 0)
            drop_dense(c, threshold, keep, kn_f(&c->in[0]), kn_fo(&c->out[0]), from, to);
        else
            drop_shared(c, threshold, keep, kn_f(&c->in[0]), kn_fo(&c->out[0]), from, to);
    }
    return ES_OK;
}
