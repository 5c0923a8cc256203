/* Attention of a sequence to itself whose queries, keys and values are one tensor [n, t, heads, 3 d], as one linear layer of three times the width leaves it: a head's query, key and
 * value side by side, so that the first heads of a layer are the first rows of its weight. */
#include "kernels/ops/self_attention.h"
#include "kernels/ops/ops_internal.h"

static es_status check(const kn_shape *qkv, es_error *err)
{
    if (qkv->rank != 4 || qkv->d[3] % 3 != 0)
        return es_fail(err, ES_INVALID, NULL, "queries, keys and values must be [n, t, heads, 3 d]");
    return ES_OK;
}

es_status kn_infer_self_attention(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *s = kn_in_shape(g, n, 0);
    (void)dtype;
    ES_RETURN(kn_need_f32(g, n, err));
    ES_RETURN(check(s, err));
    out[0] = KN_SHAPE(s->d[0], s->d[1], s->d[2], s->d[3] / 3);
    out[1] = KN_SHAPE(s->d[0], s->d[2], s->d[1]);
    return ES_OK;
}

es_status kn_infer_self_attention_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype,
                                       es_error *err)
{
    const kn_shape *s = kn_in_shape(g, n, 1);
    (void)dtype;
    ES_RETURN(kn_need_f32(g, n, err));
    ES_RETURN(check(s, err));
    kn_shape y = KN_SHAPE(s->d[0], s->d[1], s->d[2], s->d[3] / 3), lse = KN_SHAPE(s->d[0], s->d[2], s->d[1]);
    if (!kn_shape_equal(&y, kn_in_shape(g, n, 0)) || !kn_shape_equal(&y, kn_in_shape(g, n, 2)) ||
        !kn_shape_equal(&lse, kn_in_shape(g, n, 3)))
        return es_fail(err, ES_INVALID, NULL, "dy, y and lse do not have the shapes of this attention's results");
    out[0] = *s;
    return ES_OK;
}

/* As attention's: no gradient ever arrives at lse. */
void kn_grad_self_attention(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    (void)need;
    if (d[0] != KN_NONE)
        din[0] = KN_EMIT(g, SELF_ATTENTION_GRAD, &n->a, d[0], n->in[0], n->out, n->out + 1);
}

static void parts(kn_graph *g, kn_val qkv, kn_val out[3])
{
    const kn_shape s = kn_shape_of(g, qkv);
    kn_box box = kn_box_full(&s);
    box.extent[3] = s.d[3] / 3;
    for (int i = 0; i < 3; i++) {
        box.start[3] = i * box.extent[3];
        out[i] = kn_slice(g, qkv, &box);
    }
}

void kn_expand_self_attention(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_val v[3];
    parts(g, n->in[0], v);
    out[0] = KN_EMIT(g, ATTENTION, &n->a, v[0], v[1], v[2]);
    out[1] = out[0] == KN_NONE ? KN_NONE : out[0] + 1;
}

void kn_expand_self_attention_grad(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_val v[3];
    parts(g, n->in[1], v);
    kn_val back = KN_EMIT(g, ATTENTION_GRAD, &n->a, n->in[0], v[0], v[1], v[2], n->in[2], n->in[3]);
    if (back != KN_NONE)
        out[0] = kn_concat(g, (const kn_val[]){back, back + 1, back + 2}, 3, 3);
}

es_status kn_ref_self_attention(const kn_call *c, es_error *err)
{
    const kn_call v = kn_self_attention_call(c);
    return kn_ref_attention(&v, err);
}

es_status kn_ref_self_attention_grad(const kn_call *c, es_error *err)
{
    const kn_call v = kn_self_attention_grad_call(c);
    return kn_ref_attention_grad(&v, err);
}
