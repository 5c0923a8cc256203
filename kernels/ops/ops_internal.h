/* ops_internal.h - what the files of kernels/ops/ define for the op table, and small helpers that they share.
 *
 * Every op may define kn_infer_<name>, kn_grad_<name>, kn_expand_<name> and kn_ref_<name>; the columns of KN_OPS (ops.h) say which of them exist.
 *
 * Reference kernels are oracles: plain loops, sums in double, every input and output indexed through its strides. They write out[i] through kn_put(), which
 * honours `accumulate`. No reference kernel is written for speed.
 */
#ifndef KN_OPS_INTERNAL_H
#define KN_OPS_INTERNAL_H

#include "kernels/graph/graph_internal.h"

#ifdef __cplusplus
extern "C" {
#endif

#define X(NAME, name, ...)                                                                                         \
    es_status kn_infer_##name(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err); \
    void kn_grad_##name(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din);            \
    void kn_expand_##name(kn_graph *g, const kn_node *n, kn_val *out);                                             \
    es_status kn_ref_##name(const kn_call *c, es_error *err);
KN_OPS(X)
#undef X

/* The numpy result shape of two shapes; ES_INVALID when they do not fit. */
es_status kn_broadcast_shape(const kn_shape *a, const kn_shape *b, kn_shape *out, es_error *err);

/* ES_INVALID when an input holds no real numbers. */
static inline es_status kn_need_f32(const kn_graph *g, const kn_node *n, es_error *err)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != KN_NONE && kn_dtype_of(g, n->in[i]) != KN_F32)
            return es_fail(err, ES_INVALID, NULL, "input %d must be f32, not %s", i,
                           kn_dtype_name(kn_dtype_of(g, n->in[i])));
    return ES_OK;
}

/* Iteration over a shape in row order: for (kn_iter it = kn_iter_start(&shape); it.more; kn_iter_next(&it)) ... it.i[d] ... */
typedef struct kn_iter {
    kn_shape shape;
    int32_t i[KN_RANK_MAX];
    int64_t n; /* linear index */
    bool more;
} kn_iter;
static inline kn_iter kn_iter_start(const kn_shape *s)
{
    kn_iter it = {.shape = *s, .more = true};
    for (int d = 0; d < s->rank; d++)
        it.more = it.more && s->d[d] > 0;
    return it;
}
static inline void kn_iter_next(kn_iter *it)
{
    it->n++;
    for (int d = it->shape.rank - 1; d >= 0; d--) {
        if (++it->i[d] < it->shape.d[d])
            return;
        it->i[d] = 0;
    }
    it->more = false;
}
/* Offset in elements of index i[] (aligned at the last dimension, as numpy broadcasts; size-1 dimensions repeat) of `rank` entries. */
static inline int64_t kn_offset(const kn_tensor *t, const int32_t *i, int rank)
{
    int64_t o = 0;
    for (int d = 0; d < t->shape.rank; d++)
        o += t->shape.d[d] == 1 ? 0 : t->stride[d] * i[d + rank - t->shape.rank];
    return o;
}
static inline float kn_get(const kn_tensor *t, int64_t offset) { return ((const float *)t->p)[offset]; }
static inline int32_t kn_get_i32(const kn_tensor *t, int64_t offset) { return ((const int32_t *)t->p)[offset]; }
/* Index with explicit coordinates: kn_at2(t, i, j), kn_at4(t, n, h, w, c). */
static inline int64_t kn_at2(const kn_tensor *t, int i, int j) { return t->stride[0] * i + t->stride[1] * j; }
static inline int64_t kn_at3(const kn_tensor *t, int i, int j, int k)
{
    return t->stride[0] * i + t->stride[1] * j + t->stride[2] * k;
}
static inline int64_t kn_at4(const kn_tensor *t, int i, int j, int k, int l)
{
    return t->stride[0] * i + t->stride[1] * j + t->stride[2] * k + t->stride[3] * l;
}
/* Stores (or adds) v to output o; nothing happens when the output is not wanted. */
static inline void kn_put(const kn_call *c, int o, int64_t offset, double v)
{
    float *p = (float *)c->out[o].p;
    if (p == NULL)
        return;
    p[offset] = c->accumulate >> o & 1 ? (float)(p[offset] + v) : (float)v;
}

/* Value of the order-th derivative of an activation, orders 0 to KN_ACT_ORDER_MAX; the kinks take the left derivative, as in x > 0 for relu. */
enum { KN_ACT_ORDER_MAX = 3 };
double kn_act_value(kn_act act, int order, double x);
const char *kn_act_name(kn_act act);

#ifdef __cplusplus
}
#endif
#endif
