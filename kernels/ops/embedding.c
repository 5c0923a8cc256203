/* Rows of a table picked by index, and the gradient: rows summed back into the table. */
#include "kernels/ops/ref.h"

es_status kn_infer_embedding(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *indices = kn_in_shape(g, n, 0), *table = kn_in_shape(g, n, 1);
    (void)dtype;
    if (kn_dtype_of(g, n->in[0]) != KN_I32 || table->rank != 2 || indices->rank >= KN_RANK_MAX)
        return es_fail(err, ES_INVALID, NULL, "indices must be i32 of rank at most %d, the table [symbols, d]",
                       KN_RANK_MAX - 1);
    out[0] = *indices;
    out[0].d[out[0].rank++] = table->d[1];
    return ES_OK;
}

es_status kn_infer_embedding_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *d = kn_in_shape(g, n, 0), *indices = kn_in_shape(g, n, 1);
    kn_shape want = *indices;
    (void)dtype;
    if (n->a.shape.rank != 2 || indices->rank >= KN_RANK_MAX || kn_dtype_of(g, n->in[1]) != KN_I32)
        return es_fail(err, ES_INVALID, NULL, "indices must be i32 of rank at most %d, the table [symbols, d]",
                       KN_RANK_MAX - 1);
    want.d[want.rank++] = n->a.shape.d[1];
    if (!kn_shape_equal(&want, d))
        return es_fail(err, ES_INVALID, NULL, "d does not have the shape of the picked rows");
    out[0] = n->a.shape;
    return ES_OK;
}

void kn_grad_embedding(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_attr a = {.shape = *kn_in_shape(g, n, 1)};
    if (need[1])
        din[1] = KN_EMIT(g, EMBEDDING_GRAD, &a, d[0], n->in[0]);
}

void kn_grad_embedding_grad(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_embedding(g, n->in[1], d[0]);
}

static es_status row_of(const kn_tensor *indices, int64_t i, int symbols, int32_t *row, es_error *err)
{
    *row = kn_get_i32(indices, kn_nth(indices, i));
    if (*row < 0 || *row >= symbols)
        return es_fail(err, ES_INVALID, NULL, "index %d at position %lld: allowed is 0 to %d", *row, (long long)i,
                       symbols - 1);
    return ES_OK;
}

es_status kn_ref_embedding(const kn_call *c, es_error *err)
{
    const kn_tensor *indices = &c->in[0], *table = &c->in[1];
    for (int64_t i = 0; i < kn_shape_count(&indices->shape); i++) {
        int32_t row;
        ES_RETURN(row_of(indices, i, table->shape.d[0], &row, err));
        for (int e = 0; e < table->shape.d[1]; e++)
            kn_put(c, 0, kn_row_at(&c->out[0], i) + e, kn_row(table, row)[e]);
    }
    return ES_OK;
}

es_status kn_ref_embedding_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *d = &c->in[0], *indices = &c->in[1], *out = &c->out[0];
    for (int r = 0; r < out->shape.d[0]; r++)
        for (int e = 0; e < out->shape.d[1]; e++) {
            double sum = 0;
            for (int64_t i = 0; i < kn_shape_count(&indices->shape); i++) {
                int32_t row;
                ES_RETURN(row_of(indices, i, out->shape.d[0], &row, err));
                sum += row == r ? kn_row(d, i)[e] : 0;
            }
            kn_put(c, 0, kn_row_at(out, r) + e, sum);
        }
    return ES_OK;
}
