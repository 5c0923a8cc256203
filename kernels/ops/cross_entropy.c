/* Cross-entropy with hard labels (with smoothing) and with soft ones, their gradients, and `correct`. Logits are [..., classes]; losses, labels
 * and the incoming gradient have the leading dims. Label smoothing as in Szegedy et al. 2016 (arXiv:1512.00567): the target is
 * (1 - s) one_hot + s / classes. */
#include <math.h>

#include "kernels/ops/loss.h"
#include "kernels/ops/ref.h"

/* Shapes. */

kn_shape kn_shape_leading(const kn_shape *s) { return kn_shape_make(s->rank - 1, s->d); }

es_status kn_loss_check(const kn_graph *g, kn_val logits, kn_val targets, bool soft, es_error *err)
{
    kn_shape x = kn_shape_of(g, logits), t = kn_shape_of(g, targets);
    if (x.rank < 2)
        return es_fail(err, ES_INVALID, NULL, "logits must be [..., classes] of rank 2 or more");
    kn_shape want = soft ? x : kn_shape_leading(&x);
    if (!kn_shape_equal(&want, &t) || kn_dtype_of(g, targets) != (soft ? KN_F32 : KN_I32))
        return es_fail(err, ES_INVALID, NULL, "the targets must be %s",
                       soft ? "f32 and shaped like the logits" : "i32 labels, one per row of logits");
    return ES_OK;
}

static es_status infer_loss(const kn_graph *g, const kn_node *n, bool soft, kn_shape *out, es_error *err)
{
    ES_RETURN(kn_loss_check(g, n->in[0], n->in[1], soft, err));
    if (!(n->a.alpha >= 0 && n->a.alpha < 1))
        return es_fail(err, ES_INVALID, NULL, "smoothing is %g, allowed is 0 up to but not including 1",
                       (double)n->a.alpha);
    out[0] = kn_shape_leading(kn_in_shape(g, n, 0));
    return ES_OK;
}

es_status kn_infer_cross_entropy(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return infer_loss(g, n, false, out, err);
}

es_status kn_infer_soft_cross_entropy(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype,
                                      es_error *err)
{
    (void)dtype;
    return infer_loss(g, n, true, out, err);
}

es_status kn_infer_correct(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    return infer_loss(g, n, false, out, err);
}

es_status kn_loss_grad_infer(const kn_graph *g, const kn_node *n, bool soft, kn_shape *out, es_error *err)
{
    ES_RETURN(kn_loss_check(g, n->in[1], n->in[2], soft, err));
    kn_shape lead = kn_shape_leading(kn_in_shape(g, n, 1));
    if (!kn_shape_equal(kn_in_shape(g, n, 0), &lead))
        return es_fail(err, ES_INVALID, NULL, "d must have one number per row of logits");
    out[0] = *kn_in_shape(g, n, 1);
    return ES_OK;
}

es_status kn_infer_cross_entropy_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype,
                                      es_error *err)
{
    (void)dtype;
    return kn_loss_grad_infer(g, n, false, out, err);
}

es_status kn_infer_soft_cross_entropy_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype,
                                           es_error *err)
{
    (void)dtype;
    return kn_loss_grad_infer(g, n, true, out, err);
}

/* Gradients. */

static kn_val emit_grad(kn_graph *g, kn_op op, float smoothing, kn_val d, kn_val logits, kn_val targets)
{
    return kn_emit(g, op, &(kn_attr){.alpha = smoothing}, (kn_val[]){d, logits, targets}, 3);
}

/* [...] as [..., 1], to broadcast over the classes. */
kn_val kn_as_column(kn_graph *g, kn_val v)
{
    kn_shape s = kn_shape_of(g, v);
    if (v == KN_NONE)
        return KN_NONE;
    s.d[s.rank++] = 1;
    return kn_reshape(g, v, s);
}

/* Sum over the classes of a b: [...]. */
static kn_val row_dot(kn_graph *g, kn_val a, kn_val b)
{
    kn_shape s = kn_shape_of(g, a);
    if (a == KN_NONE || b == KN_NONE)
        return KN_NONE;
    return kn_reshape(g, kn_reduce_sum(g, kn_mul(g, a, b), 1u << (s.rank - 1)), kn_shape_leading(&s));
}

void kn_grad_cross_entropy(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit_grad(g, KN_OP_CROSS_ENTROPY_GRAD, n->a.alpha, d[0], n->in[0], n->in[1]);
}

/* f(d, x) = d (q - t), q = softmax x. For a gradient e of f: to d it is sum e (q - t), to x it is d times the softmax gradient of e. */
void kn_grad_cross_entropy_grad(kn_graph *g, const kn_node *n, const kn_val *e, const bool *need, kn_val *din)
{
    kn_val d = n->in[0], x = n->in[1];
    if (need[0]) {
        kn_val one = kn_constant(g, kn_shape_of(g, d), 1.0f);
        din[0] = row_dot(g, e[0], emit_grad(g, n->op, n->a.alpha, one, x, n->in[2]));
    }
    if (need[1])
        din[1] = kn_mul(g, kn_softmax_back(g, e[0], kn_softmax(g, x)), kn_as_column(g, d));
}

void kn_grad_soft_cross_entropy(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = emit_grad(g, KN_OP_SOFT_CROSS_ENTROPY_GRAD, 0, d[0], n->in[0], n->in[1]);
    if (need[1])
        din[1] = kn_scale(g, kn_mul(g, kn_log_softmax(g, n->in[0]), kn_as_column(g, d[0])), -1.0f);
}

/* f(d, x, p) = d (q P - p), q = softmax x, P = sum p. For a gradient e of f: to d it is sum e (q P - p), to x it is d P times the softmax
 * gradient of e, to p it is d (sum(e q) - e). */
void kn_grad_soft_cross_entropy_grad(kn_graph *g, const kn_node *n, const kn_val *e, const bool *need, kn_val *din)
{
    kn_val d = n->in[0], x = n->in[1], p = n->in[2], dc = kn_as_column(g, d), q = kn_softmax(g, x);
    if (need[0]) {
        kn_val one = kn_constant(g, kn_shape_of(g, d), 1.0f);
        din[0] = row_dot(g, e[0], emit_grad(g, n->op, 0, one, x, p));
    }
    if (need[1]) {
        kn_val mass = kn_reduce_sum(g, p, 1u << (kn_shape_of(g, p).rank - 1));
        din[1] = kn_mul(g, kn_softmax_back(g, e[0], q), kn_mul(g, dc, mass));
    }
    if (need[2])
        din[2] = kn_mul(g, dc, kn_sub(g, kn_as_column(g, row_dot(g, e[0], q)), e[0]));
}

/* Reference kernels. */

static es_status label_of(const kn_tensor *labels, int64_t row, int classes, int32_t *label, es_error *err)
{
    *label = kn_get_i32(labels, kn_nth(labels, row));
    if (*label < 0 || *label >= classes)
        return es_fail(err, ES_INVALID, NULL, "label %d of row %lld: allowed is 0 to %d", *label, (long long)row,
                       classes - 1);
    return ES_OK;
}

es_status kn_ref_cross_entropy(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0];
    const kn_tensor *labels = &c->in[1];
    int classes = kn_cols(&x->shape);
    double s = c->a->alpha;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *p = kn_row(x, r);
        double lse = kn_ref_log_sum(p, classes), all = 0;
        int32_t label;
        ES_RETURN(label_of(labels, r, classes, &label, err));
        for (int i = 0; i < classes; i++)
            all += p[i] - lse;
        kn_put(c, 0, kn_nth(&c->out[0], r), -(1 - s) * (p[label] - lse) - s / classes * all);
    }
    return ES_OK;
}

es_status kn_ref_cross_entropy_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[1];
    const kn_tensor *d = &c->in[0];
    const kn_tensor *labels = &c->in[2];
    int classes = kn_cols(&x->shape);
    double s = c->a->alpha;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *p = kn_row(x, r);
        double lse = kn_ref_log_sum(p, classes);
        int32_t label;
        ES_RETURN(label_of(labels, r, classes, &label, err));
        for (int i = 0; i < classes; i++)
            kn_put(c, 0, kn_row_at(&c->out[0], r) + i,
                   kn_get(d, kn_nth(d, r)) * (exp(p[i] - lse) - (i == label ? 1 - s : 0) - s / classes));
    }
    return ES_OK;
}

es_status kn_ref_soft_cross_entropy(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *t = &c->in[1];
    int classes = kn_cols(&x->shape);
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *p = kn_row(x, r), *q = kn_row(t, r);
        double lse = kn_ref_log_sum(p, classes), sum = 0;
        for (int i = 0; i < classes; i++)
            sum -= q[i] * (p[i] - lse);
        kn_put(c, 0, kn_nth(&c->out[0], r), sum);
    }
    return ES_OK;
}

es_status kn_ref_soft_cross_entropy_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[1], *t = &c->in[2];
    const kn_tensor *d = &c->in[0];
    int classes = kn_cols(&x->shape);
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *p = kn_row(x, r), *q = kn_row(t, r);
        double lse = kn_ref_log_sum(p, classes), mass = 0;
        for (int i = 0; i < classes; i++)
            mass += q[i];
        for (int i = 0; i < classes; i++)
            kn_put(c, 0, kn_row_at(&c->out[0], r) + i, kn_get(d, kn_nth(d, r)) * (exp(p[i] - lse) * mass - q[i]));
    }
    return ES_OK;
}

es_status kn_ref_correct(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0];
    const kn_tensor *labels = &c->in[1];
    int classes = kn_cols(&x->shape);
    (void)err;
    for (int64_t r = 0; r < kn_rows(&x->shape); r++) {
        const float *p = kn_row(x, r);
        int best = 0;
        for (int i = 1; i < classes; i++)
            best = p[i] > p[best] ? i : best;
        kn_put(c, 0, kn_nth(&c->out[0], r), best == kn_get_i32(labels, kn_nth(labels, r)));
    }
    return ES_OK;
}
