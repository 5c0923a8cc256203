/* matmul: a, b -> y over the last two dimensions; leading dimensions are equal (the builder takes care of a shared b). a.ta, a.tb: transposed operand. */
#include "kernels/ops/ops_internal.h"

es_status kn_infer_matmul(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    const kn_shape *a = kn_in_shape(g, n, 0), *b = kn_in_shape(g, n, 1);
    ES_RETURN(kn_need_f32(g, n, err));
    if (a->rank < 2 || b->rank != a->rank)
        return es_fail(err, ES_INVALID, NULL, "operands need equal ranks of at least 2 (or the second rank 2)");
    int r = a->rank;
    for (int i = 0; i < r - 2; i++)
        if (a->d[i] != b->d[i])
            return es_fail(err, ES_INVALID, NULL, "leading dimension %d: %d and %d differ", i, a->d[i], b->d[i]);
    int32_t m = a->d[r - 2 + n->a.ta], ka = a->d[r - 1 - n->a.ta], kb = b->d[r - 2 + n->a.tb],
            nn = b->d[r - 1 - n->a.tb];
    if (ka != kb)
        return es_fail(err, ES_INVALID, NULL, "%d columns%s times %d rows%s", ka, n->a.ta ? " (transposed)" : "", kb,
                       n->a.tb ? " (transposed)" : "");
    out[0] = *a;
    out[0].d[r - 2] = m;
    out[0].d[r - 1] = nn;
    return ES_OK;
}

/* y = A B: dA = d B', dB = A' d, each written so that no operand is transposed in memory. */
void kn_grad_matmul(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_val a = n->in[0], b = n->in[1];
    bool ta = n->a.ta, tb = n->a.tb;
    if (need[0])
        din[0] = ta ? kn_matmul(g, b, d[0], tb, true) : kn_matmul(g, d[0], b, false, !tb);
    if (need[1])
        din[1] = tb ? kn_matmul(g, d[0], a, true, ta) : kn_matmul(g, a, d[0], !ta, false);
}

es_status kn_ref_matmul(const kn_call *c, es_error *err)
{
    (void)err;
    const kn_tensor *a = &c->in[0], *b = &c->in[1];
    int r = a->shape.rank;
    int32_t k = a->shape.d[r - 1 - c->a->ta];
    int64_t a_step = a->stride[r - 1 - c->a->ta], b_step = b->stride[r - 2 + c->a->tb];
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        int64_t from_a = a->stride[r - 2 + c->a->ta] * it.i[r - 2], from_b = b->stride[r - 1 - c->a->tb] * it.i[r - 1],
                to = 0;
        for (int i = 0; i < r; i++)
            to += c->out[0].stride[i] * it.i[i];
        for (int i = 0; i < r - 2; i++) {
            from_a += a->stride[i] * it.i[i];
            from_b += b->stride[i] * it.i[i];
        }
        double sum = 0;
        for (int32_t j = 0; j < k; j++)
            sum += (double)kn_get(a, from_a + j * a_step) * kn_get(b, from_b + j * b_step);
        kn_put(c, 0, to, sum);
    }
    return ES_OK;
}
