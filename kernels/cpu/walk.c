#include "kernels/cpu/walk.h"

kn_walk kn_walk_of(const kn_shape *shape)
{
    kn_walk w = {.rank = shape->rank};
    for (int i = 0; i < shape->rank; i++)
        w.d[i] = shape->d[i];
    return w;
}

void kn_walk_add_strides(kn_walk *w, void *p, size_t bytes, const int64_t *stride)
{
    ES_ASSERT(w->n < KN_WALK_MAX);
    for (int i = 0; i < w->rank; i++)
        w->stride[w->n][i] = stride[i];
    w->p[w->n] = p;
    w->bytes[w->n++] = bytes;
}

void kn_walk_add(kn_walk *w, const kn_tensor *t)
{
    int64_t stride[KN_RANK_MAX] = {0};
    int lead = w->rank - t->shape.rank;
    for (int i = 0; i < t->shape.rank; i++)
        stride[i + lead] = t->shape.d[i] == 1 ? 0 : t->stride[i];
    kn_walk_add_strides(w, t->p, kn_dtype_bytes(t->dtype), stride);
}

static bool mergeable(const kn_walk *w, int i, int j)
{
    for (int k = 0; k < w->n; k++)
        if (w->stride[k][i] != w->stride[k][j] * w->d[j])
            return false;
    return true;
}

/* Drops dimensions of size 1, merges neighbours, and makes the rank at least 2. */
static void simplify(kn_walk *w)
{
    int r = 0;
    for (int i = 0; i < w->rank; i++) {
        if (w->d[i] == 1)
            continue;
        if (r > 0 && mergeable(w, r - 1, i)) {
            w->d[r - 1] *= w->d[i];
            for (int k = 0; k < w->n; k++)
                w->stride[k][r - 1] = w->stride[k][i];
            continue;
        }
        w->d[r] = w->d[i];
        for (int k = 0; k < w->n; k++)
            w->stride[k][r] = w->stride[k][i];
        r++;
    }
    for (; r < 2; r++) {
        for (int i = r; i > 0; i--) {
            w->d[i] = w->d[i - 1];
            for (int k = 0; k < w->n; k++)
                w->stride[k][i] = w->stride[k][i - 1];
        }
        w->d[0] = 1;
        for (int k = 0; k < w->n; k++)
            w->stride[k][0] = 0;
        if (r == 0) {
            for (int k = 0; k < w->n; k++)
                w->stride[k][1] = 1;
            w->d[1] = 1;
        }
    }
    w->rank = r;
}

void kn_walk_run(const kn_call *c, kn_walk *w, kn_walk_body body, const void *ctx)
{
    simplify(w);
    const int last = w->rank - 1;
    if (w->rank == 2 && w->d[0] == 1 && w->d[1] > 4096) { /* one long row: cut it */
        int64_t cols = 16384, all = w->d[1];
        KN_CPU_FOR(c, i, (all + cols - 1) / cols)
        {
            kn_block b = {.rows = 1, .cols = KN_MIN(cols, all - i * cols)};
            for (int k = 0; k < w->n; k++) {
                b.col[k] = w->stride[k][1];
                b.p[k] = w->p[k] + i * cols * b.col[k] * (int64_t)w->bytes[k];
            }
            body(&b, ctx);
        }
        return;
    }
    int64_t outer = 1;
    for (int i = 0; i < last - 1; i++)
        outer *= w->d[i];
    kn_pieces rows = kn_pieces_of(w->d[last - 1], w->d[last] * 4, 64 << 10);
    int64_t per = KN_MAX((64 << 10) / KN_MAX(rows.rows * w->d[last] * 4, 1), 1), blocks = outer * rows.count;
    KN_CPU_FOR(c, piece, (blocks + per - 1) / per)
    {
        for (int64_t q = piece * per; q < KN_MIN((piece + 1) * per, blocks); q++) {
            int64_t from = q % rows.count * rows.rows, at = q / rows.count;
            kn_block b = {.rows = KN_MIN(rows.rows, w->d[last - 1] - from), .cols = w->d[last]};
            int64_t offset[KN_WALK_MAX] = {0};
            for (int i = last - 2; i >= 0; i--) {
                for (int k = 0; k < w->n; k++)
                    offset[k] += at % w->d[i] * w->stride[k][i];
                at /= w->d[i];
            }
            for (int k = 0; k < w->n; k++) {
                b.row[k] = w->stride[k][last - 1];
                b.col[k] = w->stride[k][last];
                b.p[k] = w->p[k] + (offset[k] + from * b.row[k]) * (int64_t)w->bytes[k];
            }
            body(&b, ctx);
        }
    }
}

typedef struct copy_mode {
    bool add;
    size_t bytes;
} copy_mode;

static void copy_body(const kn_block *b, const void *ctx)
{
    const copy_mode *m = ctx;
    for (int64_t r = 0; r < b->rows; r++) {
        char *to = b->p[0] + r * b->row[0] * (int64_t)m->bytes;
        const char *from = b->p[1] + r * b->row[1] * (int64_t)m->bytes;
        if (!m->add && b->col[0] == 1 && b->col[1] == 1) {
            memcpy(to, from, (size_t)b->cols * m->bytes);
        } else if (m->bytes == 4) {
            float *t = (float *)(void *)to;
            const float *f = (const float *)(const void *)from;
            if (m->add)
                for (int64_t i = 0; i < b->cols; i++)
                    t[i * b->col[0]] += f[i * b->col[1]];
            else
                for (int64_t i = 0; i < b->cols; i++)
                    t[i * b->col[0]] = f[i * b->col[1]];
        } else {
            for (int64_t i = 0; i < b->cols; i++)
                memcpy(to + i * b->col[0] * (int64_t)m->bytes, from + i * b->col[1] * (int64_t)m->bytes, m->bytes);
        }
    }
}

void kn_walk_copy(const kn_call *c, kn_walk *w, bool add)
{
    copy_mode m = {add, w->bytes[0]};
    kn_walk_run(c, w, copy_body, &m);
}
