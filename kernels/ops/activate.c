/* Activations and their derivatives of every order that twice-differentiation needs; bias plus activation.
 * GELU is the exact one, x Phi(x) (Hendrycks and Gimpel, arXiv:1606.08415); hswish and hsigmoid as in MobileNetV3 (arXiv:1905.02244). */
#include <math.h>

#include "kernels/ops/ops_internal.h"

const char *kn_act_name(kn_act act)
{
    static const char *const names[KN_ACT_COUNT] = {[KN_ACT_NONE] = "none",         [KN_ACT_RELU] = "relu",
                                                    [KN_ACT_RELU6] = "relu6",       [KN_ACT_HSWISH] = "hswish",
                                                    [KN_ACT_HSIGMOID] = "hsigmoid", [KN_ACT_SILU] = "silu",
                                                    [KN_ACT_GELU] = "gelu",         [KN_ACT_SIGMOID] = "sigmoid",
                                                    [KN_ACT_TANH] = "tanh",         [KN_ACT_EXP] = "exp",
                                                    [KN_ACT_LOG] = "log",           [KN_ACT_SQRT] = "sqrt",
                                                    [KN_ACT_RSQRT] = "rsqrt",       [KN_ACT_RECIPROCAL] = "reciprocal",
                                                    [KN_ACT_SQUARE] = "square",     [KN_ACT_ABS] = "abs"};
    return (unsigned)act < KN_ACT_COUNT ? names[act] : "?";
}

/* order-th derivative of x^p */
static double power(double x, double p, int order)
{
    double k = 1;
    for (int i = 0; i < order; i++)
        k *= p - i;
    return k == 0 ? 0 : k * pow(x, p - order);
}

static double sigmoid(double x, int order)
{
    double s = 1 / (1 + exp(-x)), d = s * (1 - s);
    switch (order) {
    case 0: return s;
    case 1: return d;
    case 2: return d * (1 - 2 * s);
    default: return d * (1 - 6 * s + 6 * s * s);
    }
}

static double hswish(double x, int order)
{
    if (x <= -3)
        return 0;
    if (x >= 3)
        return order == 0 ? x : order == 1 ? 1 : 0;
    switch (order) {
    case 0: return x * (x + 3) / 6;
    case 1: return (2 * x + 3) / 6;
    case 2: return 1.0 / 3;
    default: return 0;
    }
}

static double gelu(double x, int order)
{
    double cdf = 0.5 * erfc(-x * 0.70710678118654752440), pdf = 0.39894228040143267794 * exp(-0.5 * x * x);
    switch (order) {
    case 0: return x * cdf;
    case 1: return cdf + x * pdf;
    case 2: return pdf * (2 - x * x);
    default: return pdf * (x * x * x - 4 * x);
    }
}

static double hyperbolic(double x, int order)
{
    double t = tanh(x), d = 1 - t * t;
    switch (order) {
    case 0: return t;
    case 1: return d;
    case 2: return -2 * t * d;
    default: return d * (6 * t * t - 2);
    }
}

double kn_act_value(kn_act act, int order, double x)
{
    switch (act) {
    case KN_ACT_NONE: return order == 0 ? x : order == 1;
    case KN_ACT_RELU: return x <= 0 ? 0 : order == 0 ? x : order == 1;
    case KN_ACT_RELU6: return x <= 0 ? 0 : x >= 6 ? (order == 0 ? 6 : 0) : order == 0 ? x : order == 1;
    case KN_ACT_HSWISH: return hswish(x, order);
    case KN_ACT_HSIGMOID:
        return x <= -3 ? 0 : x >= 3 ? order == 0 : order == 0 ? (x + 3) / 6 : order == 1 ? 1.0 / 6 : 0;
    case KN_ACT_SILU: return x * sigmoid(x, order) + (order == 0 ? 0 : order * sigmoid(x, order - 1)); /* Leibniz */
    case KN_ACT_GELU: return gelu(x, order);
    case KN_ACT_SIGMOID: return sigmoid(x, order);
    case KN_ACT_TANH: return hyperbolic(x, order);
    case KN_ACT_EXP: return exp(x);
    case KN_ACT_LOG: return order == 0 ? log(x) : power(x, -1, order - 1);
    case KN_ACT_SQRT: return power(x, 0.5, order);
    case KN_ACT_RSQRT: return power(x, -0.5, order);
    case KN_ACT_RECIPROCAL: return power(x, -1, order);
    case KN_ACT_SQUARE: return order == 0 ? x * x : order == 1 ? 2 * x : order == 2 ? 2 : 0;
    case KN_ACT_ABS: return order == 0 ? fabs(x) : order == 1 ? (x > 0) - (x < 0) : 0;
    case KN_ACT_COUNT: break;
    }
    return NAN;
}

static es_status check_act(const kn_graph *g, const kn_node *n, es_error *err)
{
    const kn_attr *a = &n->a;
    ES_RETURN(kn_need_f32(g, n, err));
    if ((unsigned)a->act >= KN_ACT_COUNT)
        return es_fail(err, ES_INVALID, NULL, "%d is not an activation", (int)a->act);
    if (a->order < 0 || a->order > KN_ACT_ORDER_MAX)
        return es_fail(err, ES_UNSUPPORTED, NULL, "derivative of order %d of %s; up to %d are offered", a->order,
                       kn_act_name(a->act), KN_ACT_ORDER_MAX);
    return ES_OK;
}

es_status kn_infer_activate(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    out[0] = *kn_in_shape(g, n, 0);
    return check_act(g, n, err);
}

static kn_val activate_mul(kn_graph *g, kn_val d, kn_val a, kn_act act, int order)
{
    kn_attr at = {.act = act, .order = order};
    return KN_EMIT(g, ACTIVATE_MUL, &at, d, a);
}

void kn_grad_activate(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = activate_mul(g, d[0], n->in[0], n->a.act, n->a.order + 1);
}

es_status kn_ref_activate(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it))
        kn_put(c, 0, it.n,
               kn_act_value(c->a->act, c->a->order, kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank))));
    return ES_OK;
}

es_status kn_infer_activate_mul(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    out[0] = *kn_in_shape(g, n, 1);
    if (!kn_shape_equal(kn_in_shape(g, n, 0), out))
        return es_fail(err, ES_INVALID, NULL, "gradient and argument must have one shape");
    return check_act(g, n, err);
}

void kn_grad_activate_mul(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (need[0])
        din[0] = activate_mul(g, d[0], n->in[1], n->a.act, n->a.order);
    if (need[1])
        din[1] = activate_mul(g, kn_mul(g, d[0], n->in[0]), n->in[1], n->a.act, n->a.order + 1);
}

es_status kn_ref_activate_mul(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        double d = kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank));
        kn_put(c, 0, it.n,
               d * kn_act_value(c->a->act, c->a->order, kn_get(&c->in[1], kn_offset(&c->in[1], it.i, it.shape.rank))));
    }
    return ES_OK;
}

/* bias_act: a, [bias] -> act(a + bias). bias_act_grad: d, a, [bias] -> da, dbias. */
static es_status check_bias(const kn_graph *g, const kn_node *n, int a, int bias, es_error *err)
{
    const kn_shape *s = kn_in_shape(g, n, a);
    if (n->in[bias] == KN_NONE)
        return check_act(g, n, err);
    const kn_shape *b = kn_in_shape(g, n, bias);
    if (s->rank < 1 || b->rank != 1 || b->d[0] != s->d[s->rank - 1])
        return es_fail(err, ES_INVALID, NULL, "the bias must be one number for each of the last dimension");
    return check_act(g, n, err);
}

es_status kn_infer_bias_act(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    out[0] = *kn_in_shape(g, n, 0);
    return check_bias(g, n, 0, 1, err);
}

void kn_grad_bias_act(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    bool bias = n->in[1] != KN_NONE && need[1];
    if (n->a.act == KN_ACT_NONE) { /* d passes through: only the bias needs a pass */
        if (need[0])
            din[0] = d[0];
        if (bias)
            din[1] = kn_reduce_to(g, d[0], kn_shape_of(g, n->in[1]));
        return;
    }
    kn_val da = KN_EMIT(g, BIAS_ACT_GRAD, &n->a, d[0], n->in[0], n->in[1]);
    if (need[0])
        din[0] = da;
    if (bias && da != KN_NONE)
        din[1] = da + 1;
}

void kn_expand_bias_act(kn_graph *g, const kn_node *n, kn_val *out)
{
    out[0] = kn_activate(g, n->in[1] == KN_NONE ? n->in[0] : kn_add(g, n->in[0], n->in[1]), n->a.act);
}

es_status kn_ref_bias_act(const kn_call *c, es_error *err)
{
    (void)err;
    for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
        double x = kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank));
        if (c->in[1].p != NULL)
            x += kn_get(&c->in[1], kn_offset(&c->in[1], it.i, it.shape.rank));
        kn_put(c, 0, it.n, kn_act_value(c->a->act, 0, x));
    }
    return ES_OK;
}

es_status kn_infer_bias_act_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    (void)dtype;
    out[0] = *kn_in_shape(g, n, 1);
    if (!kn_shape_equal(kn_in_shape(g, n, 0), out))
        return es_fail(err, ES_INVALID, NULL, "gradient and argument must have one shape");
    out[1] = kn_shape_make(out[0].rank == 0 ? 0 : 1, out[0].rank == 0 ? NULL : &out[0].d[out[0].rank - 1]);
    return check_bias(g, n, 1, 2, err);
}

void kn_expand_bias_act_grad(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_val t = n->in[2] == KN_NONE ? n->in[1] : kn_add(g, n->in[1], n->in[2]);
    out[0] = activate_mul(g, n->in[0], t, n->a.act, 1);
    kn_shape s = kn_shape_of(g, n->in[1]);
    out[1] = kn_reduce_to(g, out[0], kn_shape_make(s.rank == 0 ? 0 : 1, s.rank == 0 ? NULL : &s.d[s.rank - 1]));
}

es_status kn_ref_bias_act_grad(const kn_call *c, es_error *err)
{
    (void)err;
    int32_t channels = c->out[1].shape.d[0];
    for (int32_t k = 0; k < channels; k++) { /* one channel after the other: the sum stays in a register */
        double sum = 0;
        for (kn_iter it = kn_iter_start(&c->out[0].shape); it.more; kn_iter_next(&it)) {
            if (it.shape.rank > 0 && it.i[it.shape.rank - 1] != k)
                continue;
            double x = kn_get(&c->in[1], kn_offset(&c->in[1], it.i, it.shape.rank));
            if (c->in[2].p != NULL)
                x += kn_get(&c->in[2], kn_offset(&c->in[2], it.i, it.shape.rank));
            double da = kn_get(&c->in[0], kn_offset(&c->in[0], it.i, it.shape.rank)) * kn_act_value(c->a->act, 1, x);
            kn_put(c, 0, it.n, da);
            sum += da;
        }
        kn_put(c, 1, k, sum);
    }
    return ES_OK;
}
