/* Binary elementwise ops with numpy broadcasting, and affine. */
#include "kernels/ops/ops_internal.h"

es_status kn_broadcast_shape(const kn_shape *a, const kn_shape *b, kn_shape *out, es_error *err)
{
    *out = a->rank >= b->rank ? *a : *b;
    for (int i = 0; i < out->rank; i++) { /* from the last dimension */
        int32_t da = i < a->rank ? a->d[a->rank - 1 - i] : 1, db = i < b->rank ? b->d[b->rank - 1 - i] : 1;
        if (da != db && da != 1 && db != 1)
            return es_fail(err, ES_INVALID, NULL, "dimensions %d and %d do not broadcast", da, db);
        out->d[out->rank - 1 - i] = da == 1 ? db : da;
    }
    return ES_OK;
}

static es_status infer_binary(const kn_graph *g, const kn_node *n, kn_shape *out, es_error *err)
{
    ES_RETURN(kn_need_f32(g, n, err));
    return kn_broadcast_shape(kn_in_shape(g, n, 0), kn_in_shape(g, n, 1), out, err);
}

#define BINARY(name, expression)                                                                                  \
    es_status kn_infer_##name(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err) \
    {                                                                                                             \
        (void)dtype;                                                                                              \
        return infer_binary(g, n, out, err);                                                                      \
    }                                                                                                             \
    es_status kn_ref_##name(const kn_call *c, es_error *err)                                                      \
    {                                                                                                             \
        (void)err;                                                                                                \
        for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {                          \
            double a = kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank));                              \
            double b = kn_get(&c->in[1], kn_offset(&c->in[1], it.i, it.shape.rank));                              \
            kn_put(c, 0, it.n, expression);                                                                       \
        }                                                                                                         \
        return ES_OK;                                                                                             \
    }
BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(div, a / b)
BINARY(maximum, a >= b ? a : b)
BINARY(greater_equal, a >= b)

/* The axes (of the larger shape) along which `small` was broadcast. */
static uint32_t broadcast_axes(const kn_shape *large, const kn_shape *small)
{
    uint32_t axes = 0;
    int lead = large->rank - small->rank;
    for (int i = 0; i < large->rank; i++)
        if (i < lead || (small->d[i - lead] == 1 && large->d[i] != 1))
            axes |= 1u << i;
    return axes;
}

kn_val kn_reduce_to(kn_graph *g, kn_val v, kn_shape shape)
{
    if (v == KN_NONE)
        return KN_NONE;
    kn_shape from = kn_shape_of(g, v);
    uint32_t axes = broadcast_axes(&from, &shape);
    return kn_reshape(g, axes == 0 ? v : kn_reduce_sum(g, v, axes), shape);
}

/* sum of a b over what `shape` was broadcast along, in one pass. */
static kn_val mul_reduce_to(kn_graph *g, kn_val a, kn_val b, kn_shape shape)
{
    kn_shape as = kn_shape_of(g, a), bs = kn_shape_of(g, b), full;
    if (g->status != ES_OK || kn_broadcast_shape(&as, &bs, &full, NULL) != ES_OK)
        return KN_NONE;
    uint32_t axes = broadcast_axes(&full, &shape);
    return kn_reshape(g, axes == 0 ? kn_mul(g, a, b) : KN_EMIT(g, MUL_REDUCE, &(kn_attr){.axes = axes}, a, b), shape);
}

void kn_grad_add(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    for (int i = 0; i < 2; i++)
        if (need[i])
            din[i] = kn_reduce_to(g, d[0], kn_shape_of(g, n->in[i]));
}

void kn_grad_sub(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_reduce_to(g, d[0], kn_shape_of(g, n->in[0]));
    if (need[1])
        din[1] = kn_scale(g, kn_reduce_to(g, d[0], kn_shape_of(g, n->in[1])), -1.0f);
}

void kn_grad_mul(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (n->in[0] == n->in[1]) { /* a square: one pass */
        if (need[0])
            din[0] = kn_scale(g, kn_mul(g, d[0], n->in[0]), 2.0f);
        return;
    }
    for (int i = 0; i < 2; i++)
        if (need[i])
            din[i] = mul_reduce_to(g, d[0], n->in[1 - i], kn_shape_of(g, n->in[i]));
}

void kn_grad_div(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = kn_reduce_to(g, kn_div(g, d[0], n->in[1]), kn_shape_of(g, n->in[0]));
    if (need[1]) /* -d y / b, summed */
        din[1] = kn_scale(g, kn_div(g, mul_reduce_to(g, d[0], n->out, kn_shape_of(g, n->in[1])), n->in[1]), -1.0f);
}

void kn_grad_maximum(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    kn_val first = KN_EMIT(g, GREATER_EQUAL, &(kn_attr){0}, n->in[0], n->in[1]);
    if (need[0])
        din[0] = mul_reduce_to(g, d[0], first, kn_shape_of(g, n->in[0]));
    if (need[1]) {
        kn_attr one_minus = {.alpha = -1.0f, .beta = 1.0f};
        din[1] = mul_reduce_to(g, d[0], KN_EMIT(g, AFFINE, &one_minus, first), kn_shape_of(g, n->in[1]));
    }
}

es_status kn_infer_affine(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    out[0] = *kn_in_shape(g, n, 0);
    /* U8 and I32 inputs become real numbers here: images are scaled by it. */
    if (kn_dtype_of(g, n->in[0]) == KN_BF16)
        return es_fail(err, ES_INVALID, NULL, "takes f32, i32 or u8");
    return ES_OK;
}

void kn_grad_affine(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = n->a.alpha == 1.0f ? d[0] : kn_scale(g, d[0], n->a.alpha);
}

es_status kn_ref_affine(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        int64_t at = kn_offset(&c->in[0], it.i, it.shape.rank);
        double a = c->in[0].dtype == KN_U8    ? ((const uint8_t *)c->in[0].p)[at]
                   : c->in[0].dtype == KN_I32 ? kn_get_i32(&c->in[0], at)
                                              : (double)kn_get(&c->in[0], at);
        kn_put(c, 0, it.n, c->a->alpha * a + c->a->beta);
    }
    return ES_OK;
}
