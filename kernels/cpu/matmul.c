/* Matrix products, batched or not, either operand transposed, either a slice. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/product.h"

typedef struct product {
    int64_t batch, m;
    int n, k;
    bool ta, tb;
    int64_t lda, ldb, ldc;
} product;

static product product_of(const kn_call *c)
{
    const kn_tensor *a = &c->in[0], *b = &c->in[1], *y = &c->out[0];
    const int r = a->shape.rank;
    product p = {.batch = 1,
                 .m = y->shape.d[r - 2],
                 .n = y->shape.d[r - 1],
                 .k = a->shape.d[r - 1 - c->a->ta],
                 .ta = c->a->ta,
                 .tb = c->a->tb};
    for (int i = 0; i < r - 2; i++)
        p.batch *= a->shape.d[i];
    p.lda = a->stride[r - 2];
    p.ldb = b->stride[b->shape.rank - 2];
    p.ldc = y->stride[r - 2];
    return p;
}

/* Where matrix `i` of a tensor's leading dimensions begins. */
static int64_t matrix_at(const kn_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->shape.rank - 3; d >= 0; d--) {
        at += i % t->shape.d[d] * t->stride[d];
        i /= t->shape.d[d];
    }
    return at;
}

static size_t transposed_bytes(const product *p)
{
    return p->tb ? kn_align(sizeof(float) * (size_t)(p->k * kn_cpu_padded(p->n))) : 0;
}
static bool small_batch(const product *p) { return p->batch > 1; }

size_t kn_cpu_matmul_scratch(const kn_call *c)
{
    product p = product_of(c);
    if (small_batch(&p))
        return (size_t)kn_cpu_threads(c) * (transposed_bytes(&p) + 256);
    return p.ta ? transposed_bytes(&p) + kn_cpu_outer_scratch(p.k, (int)p.m, p.n) : transposed_bytes(&p);
}

/* b as [k][n]: itself, or its transpose in `room`. */
static const float *plain(const product *p, const float *b, float *room, int64_t *ld)
{
    *ld = p->ldb;
    if (!p->tb)
        return b;
    *ld = kn_cpu_padded(p->n);
    kn_cpu_turn(room, *ld, b, p->ldb, p->n, p->k);
    return room;
}

es_status kn_cpu_matmul(const kn_call *c, es_error *err)
{
    (void)err;
    product p = product_of(c);
    const float *a = kn_f(&c->in[0]), *b = kn_f(&c->in[1]);
    float *y = kn_fo(&c->out[0]);
    const bool add = c->accumulate & 1;
    int64_t ld;
    if (!small_batch(&p)) {
        const float *bt = b;
        ld = p.ldb;
        if (p.tb) {
            ld = kn_cpu_padded(p.n);
            kn_cpu_turn_parallel(c, c->scratch, ld, b, p.ldb, p.n, p.k);
            bt = c->scratch;
        }
        if (p.ta)
            kn_cpu_outer_product(c, p.k, (int)p.m, p.n, a, p.lda, bt, ld, y, p.ldc, add,
                                 (char *)c->scratch + transposed_bytes(&p));
        else
            kn_cpu_rows_product(c, p.m, p.n, p.k, a, p.lda, bt, ld, y, p.ldc, add);
        return ES_OK;
    }
    const size_t room = transposed_bytes(&p) + 256;
    KN_CPU_FOR(c, i, p.batch)
    {
        int64_t ldt;
        const float *bt = plain(&p, b + matrix_at(&c->in[1], i),
                                (float *)(void *)((char *)c->scratch + (size_t)kn_cpu_self() * room), &ldt);
        kn_cpu_gemm((int)p.m, p.n, p.k, a + matrix_at(&c->in[0], i), p.ta ? 1 : p.lda, p.ta ? p.lda : 1, bt, ldt,
                    y + matrix_at(&c->out[0], i), p.ldc, add);
    }
    return ES_OK;
}
