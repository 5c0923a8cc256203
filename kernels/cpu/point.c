/* 1x1 convolutions with batch norm inside (fuse.h): pieces of rows, everything between the products stays in a piece's cache. */
#include "kernels/cpu/fuse.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/product.h"

enum { PARTIALS = 16, PARTIAL_BYTES = 8 << 20, CHUNK_BYTES = 192 << 10 };

static int64_t rows_of(const kn_tensor *x) { return kn_count(x) / kn_last(x); }

/* Rows that are worked on at once, such that they and what is made of them stay in cache. */
static int64_t chunk_of(int64_t n, int64_t k)
{
    int64_t rows = CHUNK_BYTES / (8 * (n + k)) / 24 * 24;
    return KN_MAX(rows, 24);
}

/* A coefficient row of channels laid out as a line. */
static float *spread(const kn_line *l, float **room, const kn_tensor *coef, int row)
{
    float *to = *room;
    kn_line_spread_from(l, to, kn_f(coef) + row * l->c);
    *room += kn_line_padded(l);
    return to;
}

/* --- y = act(norm(x)) w^T --- */

typedef struct forward {
    int64_t rows, chunk;
    int n, k;
    kn_line l;
    size_t weights, coef, buffer; /* bytes */
} forward;

static forward forward_of(const kn_tensor *x, int n)
{
    forward f = {.rows = rows_of(x), .n = n, .k = (int)kn_last(x), .l = kn_line_of(kn_last(x))};
    f.chunk = KN_MIN(chunk_of(f.n, f.k), (f.rows + 23) / 24 * 24);
    f.weights = kn_align(sizeof(float) * (size_t)(f.k * kn_cpu_padded(f.n)));
    f.coef = kn_align(sizeof(float) * 2 * (size_t)kn_line_padded(&f.l));
    f.buffer = kn_align(sizeof(float) * (size_t)(f.chunk * f.k));
    return f;
}

size_t kn_cpu_point_lazy_scratch(const kn_call *c)
{
    forward f = forward_of(&c->in[0], (int)kn_last(&c->out[0]));
    return f.weights + f.coef + (size_t)kn_cpu_threads(c) * f.buffer;
}

es_status kn_cpu_point_lazy(const kn_call *c, es_error *err)
{
    (void)err;
    forward f = forward_of(&c->in[0], (int)kn_last(&c->out[0]));
    float *weights = c->scratch, *room = (float *)(void *)((char *)c->scratch + f.weights);
    char *buffers = (char *)c->scratch + f.weights + f.coef;
    const float *scale = spread(&f.l, &room, &c->in[2], 0), *shift = spread(&f.l, &room, &c->in[2], 1);
    const int64_t ld = kn_cpu_padded(f.n);
    kn_cpu_turn_parallel(c, weights, ld, kn_f(&c->in[1]), c->in[1].stride[0], f.n, f.k);
    KN_CPU_FOR(c, i, (f.rows + f.chunk - 1) / f.chunk)
    {
        int64_t from = i * f.chunk, rows = KN_MIN(f.chunk, f.rows - from);
        float *x = (float *)(void *)(buffers + (size_t)kn_cpu_self() * f.buffer);
        kn_line_apply(c->a->act, &f.l, kn_f(&c->in[0]) + from * f.k, scale, shift, x, rows * f.k);
        kn_cpu_gemm((int)rows, f.n, f.k, x, f.k, 1, weights, ld, kn_fo(&c->out[0]) + from * f.n, f.n,
                    c->accumulate & 1);
    }
    return ES_OK;
}

/* --- dw = dy^T act(norm(x)), and the joint backward op --- */

typedef struct back {
    int64_t rows, chunk;
    int n, k; /* channels of dy and of x */
    kn_line ln, lk;
    kn_pieces p;                        /* one partial dw each, and one pair of sums */
    size_t partial, sums, coef, buffer; /* bytes; buffer is per thread: rows of dy and of x */
} back;

static kn_pieces back_pieces(int64_t rows) { return kn_pieces_at_most(rows, KN_MIN(PARTIALS, KN_MAX(rows / 128, 1))); }

bool kn_cpu_point_joins(int64_t rows, int64_t n, int64_t k)
{
    int64_t pieces = back_pieces(rows).count;
    return pieces >= 4 && pieces * n * k * 4 <= PARTIAL_BYTES;
}

static back back_of(const kn_tensor *dy, const kn_tensor *x)
{
    back b = {.rows = rows_of(x),
              .n = (int)kn_last(dy),
              .k = (int)kn_last(x),
              .ln = kn_line_of(kn_last(dy)),
              .lk = kn_line_of(kn_last(x))};
    b.p = back_pieces(b.rows);
    b.chunk = KN_MIN(chunk_of(b.n, b.k), b.p.rows);
    b.partial = kn_align(sizeof(float) * (size_t)(b.p.count * b.n * b.k));
    b.sums = kn_align(sizeof(float) * (size_t)(b.p.count * 2 * kn_line_padded(&b.lk)));
    b.coef = kn_align(sizeof(float) * (size_t)(3 * kn_line_padded(&b.lk) + 4 * kn_line_padded(&b.ln)));
    b.buffer = kn_align(sizeof(float) * (size_t)(b.chunk * (b.n + b.k)));
    return b;
}

static size_t back_bytes(const kn_call *c, const back *b)
{
    return b->partial + b->sums + b->coef + (size_t)kn_cpu_threads(c) * b->buffer;
}

/* What the pieces of a call share. */
typedef struct operands {
    back b;
    const kn_call *c;
    const float *dy, *x, *w, *e;
    int64_t ldw;
    float *dx, *partial, *sums;
    const float *x_scale, *x_shift, *x_mean, *e_scale, *e_shift, *e_kx, *e_k1; /* lines; x_scale NULL: x is plain */
    kn_act act, act_e;
    char *buffers;
} operands;

static operands operands_of(const kn_call *c, const kn_tensor *dy, const kn_tensor *x, const kn_tensor *coef,
                            const kn_tensor *coef_e)
{
    operands o = {
        .b = back_of(dy, x), .c = c, .dy = kn_f(dy), .x = kn_f(x), .act = c->a->act, .act_e = (kn_act)c->a->axis};
    o.partial = c->scratch;
    o.sums = (float *)(void *)((char *)c->scratch + o.b.partial);
    float *room = (float *)(void *)((char *)o.sums + o.b.sums);
    o.buffers = (char *)room + o.b.coef;
    if (coef->p) {
        o.x_scale = spread(&o.b.lk, &room, coef, 0);
        o.x_shift = spread(&o.b.lk, &room, coef, 1);
        o.x_mean = spread(&o.b.lk, &room, coef, 2);
    }
    if (coef_e && coef_e->p) {
        o.e_scale = spread(&o.b.ln, &room, coef_e, 0);
        o.e_shift = spread(&o.b.ln, &room, coef_e, 1);
        o.e_kx = spread(&o.b.ln, &room, coef_e, 2);
        o.e_k1 = spread(&o.b.ln, &room, coef_e, 3);
    }
    return o;
}

static void chunk_run(const operands *o, int64_t from, int64_t rows, float *partial, float *sums, bool first)
{
    const back *b = &o->b;
    float *g_room = (float *)(void *)(o->buffers + (size_t)kn_cpu_self() * b->buffer),
          *x_room = g_room + b->chunk * b->n;
    const float *g = o->dy + from * b->n, *x = o->x + from * b->k;
    if (o->e) {
        kn_line_grad k = {g, o->e + from * b->n, o->e_scale, o->e_shift, NULL, o->e_kx, o->e_k1, g_room};
        kn_line_grad_apply(o->act_e, &b->ln, &k, false, rows * b->n);
        g = g_room;
    }
    if (o->x_scale) {
        kn_line_apply(o->act, &b->lk, x, o->x_scale, o->x_shift, x_room, rows * b->k);
        x = x_room;
    }
    kn_cpu_gemm(b->n, b->k, (int)rows, g, 1, b->n, x, b->k, partial, b->k, !first);
    if (o->dx == NULL)
        return;
    float *dx = o->dx + from * b->k;
    kn_cpu_gemm((int)rows, b->k, b->n, g, b->n, 1, o->w, o->ldw, dx, b->k, !sums && (o->c->accumulate & 1));
    if (sums) {
        kn_line_grad k = {dx, o->x + from * b->k, o->x_scale, o->x_shift, o->x_mean, NULL, NULL, dx};
        kn_line_grad_slope(o->act, &b->lk, &k, rows * b->k, sums);
    }
}

static void back_run(const operands *o, bool sum, const kn_tensor *dw, bool add)
{
    const back *b = &o->b;
    const int64_t padded = kn_line_padded(&b->lk);
    KN_CPU_FOR(o->c, p, b->p.count)
    {
        int64_t start = p * b->p.rows, end = KN_MIN(start + b->p.rows, b->rows);
        float *sums = sum ? o->sums + p * 2 * padded : NULL;
        if (sums)
            memset(sums, 0, sizeof(float) * 2 * (size_t)padded);
        for (int64_t from = start; from < end; from += b->chunk)
            chunk_run(o, from, KN_MIN(b->chunk, end - from), o->partial + p * b->n * b->k, sums, from == start);
    }
    kn_cpu_fold(o->c, kn_fo(dw), dw->stride[0], o->partial, b->n, b->k, b->p.count, add);
}

size_t kn_cpu_point_dw_lazy_scratch(const kn_call *c)
{
    back b = back_of(&c->in[1], &c->in[0]);
    return back_bytes(c, &b);
}

es_status kn_cpu_point_dw_lazy(const kn_call *c, es_error *err)
{
    (void)err;
    operands o = operands_of(c, &c->in[1], &c->in[0], &c->in[2], NULL);
    back_run(&o, false, &c->out[0], c->accumulate & 1);
    return ES_OK;
}

size_t kn_cpu_point_back_scratch(const kn_call *c)
{
    back b = back_of(&c->in[KN_BACK_DY], &c->in[KN_BACK_X]);
    return back_bytes(c, &b);
}

es_status kn_cpu_point_back(const kn_call *c, es_error *err)
{
    (void)err;
    operands o = operands_of(c, &c->in[KN_BACK_DY], &c->in[KN_BACK_X], &c->in[KN_BACK_COEF], &c->in[KN_BACK_COEF_E]);
    float *sums = kn_fo(&c->out[KN_BACK_SUMS]);
    o.e = kn_f(&c->in[KN_BACK_E]);
    o.w = kn_f(&c->in[KN_BACK_W]);
    o.ldw = c->in[KN_BACK_W].stride[0];
    o.dx = kn_fo(&c->out[KN_BACK_DX]);
    back_run(&o, sums != NULL, &c->out[KN_BACK_DW], c->accumulate >> KN_BACK_DW & 1);
    const kn_line *l = &o.b.lk;
    const int64_t padded = kn_line_padded(l);
    for (int64_t q = 0; sums && q < 2 * l->c; q++) {
        double all = 0.0;
        for (int64_t p = 0; p < o.b.p.count; p++)
            for (int64_t r = 0; r < l->rows; r++)
                all += o.sums[(p * 2 + q / l->c) * padded + r * l->c + q % l->c];
        sums[q] = (float)all;
    }
    return ES_OK;
}
