/* Sources and sinks: input, param, constant, scalar; output, accumulate, blend; and detach, which is an alias. */
#include "kernels/ops/ops_internal.h"

static es_status check_shape(const kn_shape *s, es_error *err)
{
    char text[64];
    for (int i = 0; i < s->rank; i++)
        if (s->d[i] < 1)
            return es_fail(err, ES_INVALID, NULL, "shape %s: every dimension must be at least 1",
                           kn_shape_text(s, text));
    return ES_OK;
}

es_status kn_infer_input(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)g;
    if (n->a.slot < 0 || n->a.slot >= KN_SLOTS)
        return es_fail(err, ES_INVALID, NULL, "slot %d is not in 0 to %d", n->a.slot, KN_SLOTS - 1);
    out[0] = n->a.shape;
    dtype[0] = (kn_dtype)n->a.order;
    return check_shape(&n->a.shape, err);
}

/* Checks that a box lies inside a shape. */
static es_status check_box(const kn_box *b, const kn_shape *s, const char *what, es_error *err)
{
    char text[64];
    for (int i = 0; i < s->rank; i++)
        if (b->start[i] < 0 || b->extent[i] < 1 || b->extent[i] > s->d[i] - b->start[i])
            return es_fail(err, ES_INVALID, NULL, "dimension %d: start %d, extent %d is not inside %s %s", i,
                           b->start[i], b->extent[i], what, kn_shape_text(s, text));
    return ES_OK;
}

es_status kn_infer_param(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    const kn_param_def *d = kn_params_def(g->params[n->a.set], n->a.param);
    ES_RETURN(check_box(&n->a.box, &d->shape, d->name, err));
    out[0] = kn_shape_make(d->shape.rank, n->a.box.extent);
    return ES_OK;
}

es_status kn_infer_constant(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)g, (void)dtype;
    out[0] = n->a.shape;
    return check_shape(&n->a.shape, err);
}

es_status kn_infer_scalar(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)g, (void)out, (void)dtype;
    if (n->a.slot < 0 || n->a.slot >= KN_SCALARS)
        return es_fail(err, ES_INVALID, NULL, "slot %d is not in 0 to %d", n->a.slot, KN_SCALARS - 1);
    return ES_OK;
}

es_status kn_infer_output(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)out, (void)dtype;
    if (n->a.slot < 0 || n->a.slot >= KN_SLOTS)
        return es_fail(err, ES_INVALID, NULL, "slot %d is not in 0 to %d", n->a.slot, KN_SLOTS - 1);
    if (kn_dtype_of(g, n->in[0]) != KN_F32)
        return es_fail(err, ES_INVALID, NULL, "outputs are f32, not %s", kn_dtype_name(kn_dtype_of(g, n->in[0])));
    return ES_OK;
}

es_status kn_infer_accumulate(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)out, (void)dtype;
    if (kn_node_of(g, n->in[0])->op != KN_OP_PARAM)
        return es_fail(err, ES_INVALID, NULL, "the first input must be a parameter slice");
    if (!kn_shape_equal(kn_in_shape(g, n, 0), kn_in_shape(g, n, 1)))
        return es_fail(err, ES_INVALID, NULL, "the gradient must have the slice's shape");
    return ES_OK;
}

es_status kn_infer_blend(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)out, (void)dtype;
    const kn_param_def *d = kn_params_def(g->params[n->a.set], n->a.param);
    kn_shape box = kn_shape_make(d->shape.rank, n->a.box.extent);
    char text[64];
    if (!kn_shape_equal(kn_in_shape(g, n, 0), &box))
        return es_fail(err, ES_INVALID, NULL, "the value must have the slice's shape %s", kn_shape_text(&box, text));
    if (kn_shape_count(kn_in_shape(g, n, 1)) != 1)
        return es_fail(err, ES_INVALID, NULL, "the coefficient must have one element");
    return ES_OK;
}

es_status kn_infer_detach(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)err;
    out[0] = *kn_in_shape(g, n, 0);
    dtype[0] = kn_dtype_of(g, n->in[0]);
    return ES_OK;
}

es_status kn_ref_constant(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it))
        kn_put(c, 0, it.n, c->a->alpha);
    return ES_OK;
}

es_status kn_ref_output(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it))
        kn_put(c, 0, it.n, kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank)));
    return ES_OK;
}

es_status kn_ref_accumulate(const kn_call *c, es_error *err)
{
    (void)err;
    float *p = c->out[0].p;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it))
        p[kn_offset(&c->out[0], it.i, it.shape.rank)] += kn_get(&c->in[1], kn_offset(&c->in[1], it.i, it.shape.rank));
    return ES_OK;
}

es_status kn_ref_blend(const kn_call *c, es_error *err)
{
    (void)err;
    float *p = c->out[0].p;
    float coef = kn_get(&c->in[1], 0);
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        float *to = &p[kn_offset(&c->out[0], it.i, it.shape.rank)];
        float v = kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank));
        *to = coef == 1.0f ? v : *to + coef * (v - *to); /* coefficient 1 is assignment, exactly */
    }
    return ES_OK;
}
