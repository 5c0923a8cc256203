/* Reductions (reduced dimensions stay as 1), broadcast, and the fused product-and-sum. */
#include <math.h>

#include "kernels/ops/ops_internal.h"

static kn_shape reduced(const kn_shape *s, uint32_t axes)
{
    kn_shape r = *s;
    for (int i = 0; i < r.rank; i++)
        if ((axes >> i & 1) != 0)
            r.d[i] = 1;
    return r;
}

static es_status infer_reduce(const kn_graph *g, const kn_node *n, kn_shape *out, es_error *err)
{
    const kn_shape *s = kn_in_shape(g, n, n->n_in - 1);
    ES_RETURN(kn_need_f32(g, n, err));
    if (n->a.axes != KN_AXES_ALL && n->a.axes >> s->rank != 0)
        return es_fail(err, ES_INVALID, NULL, "axes 0x%x: a value of %d dimensions has axes 0 to %d", n->a.axes,
                       s->rank, s->rank - 1);
    out[0] = reduced(s, n->a.axes);
    return ES_OK;
}

/* The shape of what is iterated inside one output element: extents of the reduced axes, 1 elsewhere. */
static kn_shape inner_shape(const kn_shape *s, uint32_t axes)
{
    kn_shape r = *s;
    for (int i = 0; i < r.rank; i++)
        if ((axes >> i & 1) == 0)
            r.d[i] = 1;
    return r;
}

static void add_index(int32_t *to, const kn_iter *outer, const kn_iter *inner)
{
    for (int i = 0; i < outer->shape.rank; i++)
        to[i] = outer->i[i] + inner->i[i];
}

es_status kn_infer_reduce_sum(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return infer_reduce(g, n, out, err);
}

void kn_grad_reduce_sum(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_broadcast(g, d[0], kn_shape_of(g, n->in[0]));
}

es_status kn_ref_reduce_sum(const kn_call *c, es_error *err)
{
    (void)err;
    kn_shape in = inner_shape(&c->in[0].shape, c->a->axes);
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        double sum = 0;
        for (kn_iter k = kn_iter_start(&in); k.more; kn_iter_next(&k)) {
            int32_t i[KN_RANK_MAX];
            add_index(i, &it, &k);
            sum += kn_get(&c->in[0], kn_offset(&c->in[0], i, in.rank));
        }
        kn_put(c, 0, kn_offset(&c->out[0], it.i, it.shape.rank), sum);
    }
    return ES_OK;
}

es_status kn_infer_reduce_max(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return infer_reduce(g, n, out, err);
}

void kn_grad_reduce_max(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = KN_EMIT(g, REDUCE_MAX_GRAD, &n->a, d[0], n->in[0]);
}

es_status kn_ref_reduce_max(const kn_call *c, es_error *err)
{
    (void)err;
    kn_shape in = inner_shape(&c->in[0].shape, c->a->axes);
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        double best = -INFINITY;
        for (kn_iter k = kn_iter_start(&in); k.more; kn_iter_next(&k)) {
            int32_t i[KN_RANK_MAX];
            add_index(i, &it, &k);
            double v = kn_get(&c->in[0], kn_offset(&c->in[0], i, in.rank));
            best = v > best ? v : best;
        }
        kn_put(c, 0, it.n, best);
    }
    return ES_OK;
}

/* d, x -> dx: d at the first maximum, 0 elsewhere. */
es_status kn_infer_reduce_max_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    kn_shape small;
    ES_RETURN(infer_reduce(g, n, &small, err));
    if (!kn_shape_equal(&small, kn_in_shape(g, n, 0)))
        return es_fail(err, ES_INVALID, NULL, "the gradient must have the reduced shape");
    out[0] = *kn_in_shape(g, n, 1);
    return ES_OK;
}

void kn_grad_reduce_max_grad(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (!need[0])
        return;
    /* Linear in its first operand: the mask of first maxima times it. */
    kn_val mask = KN_EMIT(g, REDUCE_MAX_GRAD, &n->a, kn_constant(g, kn_shape_of(g, n->in[0]), 1.0f), n->in[1]);
    din[0] = KN_EMIT(g, MUL_REDUCE, &(kn_attr){.axes = n->a.axes}, d[0], mask);
}

es_status kn_ref_reduce_max_grad(const kn_call *c, es_error *err)
{
    (void)err;
    kn_shape in = inner_shape(&c->in[1].shape, c->a->axes);
    for (kn_iter it = kn_iter_start(&c->in[0].shape); it.more; kn_iter_next(&it)) {
        double best = -INFINITY;
        int64_t where = -1;
        for (kn_iter k = kn_iter_start(&in); k.more; kn_iter_next(&k)) {
            int32_t i[KN_RANK_MAX];
            add_index(i, &it, &k);
            double v = kn_get(&c->in[1], kn_offset(&c->in[1], i, in.rank));
            int64_t to = kn_offset(&c->out[0], i, in.rank);
            kn_put(c, 0, to, 0);
            if (where < 0 || v > best)
                best = v, where = to;
        }
        kn_put(c, 0, where, kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank)));
    }
    return ES_OK;
}

es_status kn_infer_broadcast(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    char text[64];
    ES_RETURN(kn_need_f32(g, n, err));
    ES_RETURN(kn_broadcast_shape(kn_in_shape(g, n, 0), &n->a.shape, out, err));
    bool empty = false;
    for (int i = 0; i < out->rank; i++)
        empty = empty || out->d[i] < 1;
    if (empty || !kn_shape_equal(out, &n->a.shape))
        return es_fail(err, ES_INVALID, NULL, "cannot be broadcast to %s", kn_shape_text(&n->a.shape, text));
    return ES_OK;
}

void kn_grad_broadcast(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_reduce_to(g, d[0], kn_shape_of(g, n->in[0]));
}

es_status kn_ref_broadcast(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it))
        kn_put(c, 0, it.n, kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank)));
    return ES_OK;
}

/* a, b (which broadcast) -> sum of a b over `axes` of their common shape. */
es_status kn_infer_mul_reduce(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    kn_shape full;
    ES_RETURN(kn_need_f32(g, n, err));
    ES_RETURN(kn_broadcast_shape(kn_in_shape(g, n, 0), kn_in_shape(g, n, 1), &full, err));
    out[0] = reduced(&full, n->a.axes);
    return ES_OK;
}

void kn_grad_mul_reduce(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    for (int i = 0; i < 2; i++) {
        if (!need[i])
            continue;
        kn_val v = kn_mul(g, n->in[1 - i], d[0]);
        kn_shape vs = kn_shape_of(g, v), is = kn_shape_of(g, n->in[i]), full;
        if (v != KN_NONE && kn_broadcast_shape(&vs, &is, &full, NULL) == ES_OK)
            din[i] = kn_reduce_to(g, kn_broadcast(g, v, full), is);
    }
}

void kn_expand_mul_reduce(kn_graph *g, const kn_node *n, kn_val *out)
{
    out[0] = kn_reduce_sum(g, kn_mul(g, n->in[0], n->in[1]), n->a.axes);
}

es_status kn_ref_mul_reduce(const kn_call *c, es_error *err)
{
    kn_shape full;
    ES_RETURN(kn_broadcast_shape(&c->in[0].shape, &c->in[1].shape, &full, err));
    kn_shape in = inner_shape(&full, c->a->axes);
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        double sum = 0;
        for (kn_iter k = kn_iter_start(&in); k.more; kn_iter_next(&k)) {
            int32_t i[KN_RANK_MAX];
            add_index(i, &it, &k);
            sum += (double)kn_get(&c->in[0], kn_offset(&c->in[0], i, in.rank)) *
                   kn_get(&c->in[1], kn_offset(&c->in[1], i, in.rank));
        }
        kn_put(c, 0, kn_offset(&c->out[0], it.i, it.shape.rank), sum);
    }
    return ES_OK;
}
