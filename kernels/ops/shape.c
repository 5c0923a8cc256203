/* Shape ops: reshape (an alias), transpose, slice, pad, concat. */
#include "kernels/ops/ops_internal.h"

es_status kn_infer_reshape(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    char text[64];
    for (int i = 0; i < n->a.shape.rank; i++)
        if (n->a.shape.d[i] < 1)
            return es_fail(err, ES_INVALID, NULL, "to %s: every dimension must be at least 1",
                           kn_shape_text(&n->a.shape, text));
    if (kn_shape_count(kn_in_shape(g, n, 0)) != kn_shape_count(&n->a.shape))
        return es_fail(err, ES_INVALID, NULL, "to %s: the number of elements must stay",
                       kn_shape_text(&n->a.shape, text));
    out[0] = n->a.shape;
    dtype[0] = kn_dtype_of(g, n->in[0]);
    return ES_OK;
}

void kn_grad_reshape(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_reshape(g, d[0], kn_shape_of(g, n->in[0]));
}

es_status kn_infer_transpose(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    const kn_shape *s = kn_in_shape(g, n, 0);
    unsigned seen = 0;
    ES_RETURN(kn_need_f32(g, n, err));
    out[0] = *s;
    for (int i = 0; i < s->rank; i++) {
        int p = n->a.perm[i];
        if (p < 0 || p >= s->rank || (seen >> p & 1) != 0)
            return es_fail(err, ES_INVALID, NULL, "entry %d of the permutation, %d: each of 0 to %d must come once", i,
                           p, s->rank - 1);
        seen |= 1u << p;
        out[0].d[i] = s->d[p];
    }
    return ES_OK;
}

void kn_grad_transpose(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    int inverse[KN_RANK_MAX] = {0};
    for (int i = 0; i < kn_in_shape(g, n, 0)->rank; i++)
        inverse[n->a.perm[i]] = i;
    if (need[0])
        din[0] = kn_transpose(g, d[0], inverse);
}

es_status kn_ref_transpose(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        int32_t i[KN_RANK_MAX] = {0};
        for (int k = 0; k < it.shape.rank; k++)
            i[c->a->perm[k]] = it.i[k];
        kn_put(c, 0, it.n, kn_get(&c->in[0], kn_offset(&c->in[0], i, it.shape.rank)));
    }
    return ES_OK;
}

es_status kn_infer_slice(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    const kn_shape *s = kn_in_shape(g, n, 0);
    const kn_box *b = &n->a.box;
    ES_RETURN(kn_need_f32(g, n, err));
    for (int i = 0; i < s->rank; i++)
        if (b->start[i] < 0 || b->extent[i] < 1 || b->extent[i] > s->d[i] - b->start[i])
            return es_fail(err, ES_INVALID, NULL, "dimension %d: start %d and extent %d are not inside 0 to %d", i,
                           b->start[i], b->extent[i], s->d[i]);
    out[0] = kn_shape_make(s->rank, b->extent);
    return ES_OK;
}

void kn_grad_slice(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    const kn_shape s = kn_shape_of(g, n->in[0]);
    int32_t after[KN_RANK_MAX] = {0};
    for (int i = 0; i < s.rank; i++)
        after[i] = s.d[i] - n->a.box.start[i] - n->a.box.extent[i];
    if (need[0])
        din[0] = kn_pad(g, d[0], n->a.box.start, after);
}

es_status kn_ref_slice(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        int64_t from = 0;
        for (int k = 0; k < it.shape.rank; k++)
            from += c->in[0].stride[k] * (it.i[k] + c->a->box.start[k]);
        kn_put(c, 0, it.n, kn_get(&c->in[0], from));
    }
    return ES_OK;
}

es_status kn_infer_pad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    ES_RETURN(kn_need_f32(g, n, err));
    out[0] = *kn_in_shape(g, n, 0);
    for (int i = 0; i < out[0].rank; i++) {
        if (n->a.box.start[i] < 0 || n->a.box.extent[i] < 0)
            return es_fail(err, ES_INVALID, NULL, "dimension %d: padding %d before and %d after must not be negative",
                           i, n->a.box.start[i], n->a.box.extent[i]);
        out[0].d[i] += n->a.box.start[i] + n->a.box.extent[i];
    }
    return ES_OK;
}

void kn_grad_pad(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_shape s = kn_shape_of(g, n->in[0]);
    kn_box b = kn_box_full(&s);
    for (int i = 0; i < s.rank; i++)
        b.start[i] = n->a.box.start[i];
    if (need[0])
        din[0] = kn_slice(g, d[0], &b);
}

es_status kn_ref_pad(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        int64_t from = 0;
        bool inside = true;
        for (int k = 0; k < it.shape.rank; k++) {
            int32_t i = it.i[k] - c->a->box.start[k];
            inside = inside && i >= 0 && i < c->in[0].shape.d[k];
            from += c->in[0].stride[k] * i;
        }
        kn_put(c, 0, it.n, inside ? kn_get(&c->in[0], from) : 0);
    }
    return ES_OK;
}

es_status kn_infer_concat(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    ES_RETURN(kn_need_f32(g, n, err));
    out[0] = *kn_in_shape(g, n, 0);
    if (n->a.axis < 0 || n->a.axis >= out[0].rank)
        return es_fail(err, ES_INVALID, NULL, "axis %d is not in 0 to %d", n->a.axis, out[0].rank - 1);
    for (int k = 1; k < n->n_in; k++) {
        kn_shape s = *kn_in_shape(g, n, k);
        if (s.rank == out[0].rank) {
            int32_t extent = s.d[n->a.axis];
            s.d[n->a.axis] = out[0].d[n->a.axis];
            if (kn_shape_equal(&s, &out[0])) {
                out[0].d[n->a.axis] += extent;
                continue;
            }
        }
        return es_fail(err, ES_INVALID, NULL, "along axis %d: all other dimensions must be equal", n->a.axis);
    }
    return ES_OK;
}

void kn_grad_concat(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    int32_t start = 0;
    for (int k = 0; k < n->n_in; k++) {
        kn_shape s = kn_shape_of(g, n->in[k]);
        kn_box b = kn_box_full(&s);
        b.start[n->a.axis] = start;
        start += s.d[n->a.axis];
        if (need[k])
            din[k] = kn_slice(g, d[0], &b);
    }
}

es_status kn_ref_concat(const kn_call *c, es_error *err)
{
    (void)err;
    int32_t start = 0;
    for (int k = 0; k < c->n_in; k++) {
        for (kn_iter it = kn_iter_start(&c->in[k].shape); it.more; kn_iter_next(&it)) {
            int64_t to = 0;
            for (int i = 0; i < it.shape.rank; i++)
                to += c->out[0].stride[i] * (it.i[i] + (i == c->a->axis ? start : 0));
            kn_put(c, 0, to, kn_get(&c->in[k], kn_offset(&c->in[k], it.i, it.shape.rank)));
        }
        start += c->in[k].shape.d[c->a->axis];
    }
    return ES_OK;
}
