/* Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762), optionally causal, and its gradient. q [n, tq, heads, d],
 * k [n, tk, heads, d], v [n, tk, heads, dv]: as a linear layer leaves them, so that no operand is ever transposed in memory. A causal one is aligned at the bottom right: the last query sees every key. */
#include <math.h>
#include <stdlib.h>

#include "kernels/ops/loss.h"
#include "kernels/ops/ref.h"

static es_status check(const kn_node *n, const kn_shape *q, const kn_shape *k, const kn_shape *v, es_error *err)
{
    bool ranks = q->rank == 4 && k->rank == 4 && v->rank == 4;
    if (!ranks || q->d[0] != k->d[0] || q->d[2] != k->d[2] || q->d[3] != k->d[3] || v->d[0] != k->d[0] ||
        v->d[1] != k->d[1] || v->d[2] != k->d[2])
        return es_fail(err, ES_INVALID, NULL,
                       "q must be [n, tq, heads, d], k [n, tk, heads, d] and v [n, tk, heads, dv]");
    if (n->a.causal && q->d[1] > k->d[1])
        return es_fail(err, ES_INVALID, NULL,
                       "causal with %d queries and %d keys: no more queries than keys are allowed", q->d[1], k->d[1]);
    return ES_OK;
}

es_status kn_infer_attention(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *q = kn_in_shape(g, n, 0), *k = kn_in_shape(g, n, 1), *v = kn_in_shape(g, n, 2);
    (void)dtype;
    ES_RETURN(check(n, q, k, v, err));
    out[0] = KN_SHAPE(q->d[0], q->d[1], q->d[2], v->d[3]);
    out[1] = KN_SHAPE(q->d[0], q->d[2], q->d[1]);
    return ES_OK;
}

es_status kn_infer_attention_grad(const kn_graph *g, const kn_node *n, kn_shape *out, kn_dtype *dtype, es_error *err)
{
    const kn_shape *q = kn_in_shape(g, n, 1), *k = kn_in_shape(g, n, 2), *v = kn_in_shape(g, n, 3);
    (void)dtype;
    ES_RETURN(check(n, q, k, v, err));
    kn_shape y = KN_SHAPE(q->d[0], q->d[1], q->d[2], v->d[3]), lse = KN_SHAPE(q->d[0], q->d[2], q->d[1]);
    if (!kn_shape_equal(&y, kn_in_shape(g, n, 0)) || !kn_shape_equal(&y, kn_in_shape(g, n, 4)) ||
        !kn_shape_equal(&lse, kn_in_shape(g, n, 5)))
        return es_fail(err, ES_INVALID, NULL, "dy, y and lse do not have the shapes of this attention's results");
    out[0] = *q;
    out[1] = *k;
    out[2] = *v;
    return ES_OK;
}

/* Nobody but the gradient reads lse, and that treats it as a function of q and k, so no gradient ever arrives at it. */
void kn_grad_attention(kn_graph *g, const kn_node *n, const kn_val *d, const bool *need, kn_val *din)
{
    if (d[0] == KN_NONE)
        return;
    kn_val back = KN_EMIT(g, ATTENTION_GRAD, &n->a, d[0], n->in[0], n->in[1], n->in[2], n->out, n->out + 1);
    for (unsigned i = 0; i < 3; i++)
        din[i] = need[i] && back != KN_NONE ? back + i : KN_NONE;
}

/* [n, t, heads, d] <-> [n, heads, t, d] */
static kn_val turned(kn_graph *g, kn_val v) { return kn_transpose(g, v, (const int[]){0, 2, 1, 3}); }
static kn_val scores(kn_graph *g, const kn_node *n, kn_val q, kn_val k)
{
    return kn_scale(g, kn_matmul(g, q, k, false, true), n->a.alpha);
}
static kn_val row_sum(kn_graph *g, kn_val v) { return kn_reduce_sum(g, v, 1u << 3); }

void kn_expand_attention(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_shape q = *kn_in_shape(g, n, 0);
    kn_val s = scores(g, n, turned(g, n->in[0]), turned(g, n->in[1])), p = kn_softmax_masked(g, s, n->a.causal);
    /* s - log p is log sum exp in every column, so its mean under p is too, and masked columns drop out. */
    kn_val log_p = kn_activate(g, kn_maximum(g, p, kn_constant(g, KN_SHAPE(1), 1e-37f)), KN_ACT_LOG);
    out[0] = turned(g, kn_matmul(g, p, turned(g, n->in[2]), false, false));
    out[1] = kn_reshape(g, row_sum(g, kn_mul(g, p, kn_sub(g, s, log_p))), KN_SHAPE(q.d[0], q.d[2], q.d[1]));
}

void kn_expand_attention_grad(kn_graph *g, const kn_node *n, kn_val *out)
{
    kn_val dy = turned(g, n->in[0]), q = turned(g, n->in[1]), k = turned(g, n->in[2]), v = turned(g, n->in[3]);
    kn_val p = kn_softmax_masked(g, scores(g, n, q, k), n->a.causal);
    kn_val ds = kn_scale(g, kn_softmax_back(g, kn_matmul(g, dy, v, false, true), p), n->a.alpha);
    out[0] = turned(g, kn_matmul(g, ds, k, false, false));
    out[1] = turned(g, kn_matmul(g, ds, q, true, false));
    out[2] = turned(g, kn_matmul(g, p, dy, true, false));
}

/* Row i of one head: probabilities over the keys that it sees (how many is returned), and log sum exp of the scaled scores. */
static int probabilities(const kn_call *c, const kn_tensor *q, const kn_tensor *k, int b, int h, int i, double *p,
                         double *lse)
{
    int tq = q->shape.d[1], tk = k->shape.d[1], seen = c->a->causal ? i + tk - tq + 1 : tk;
    double top = -INFINITY, sum = 0;
    for (int j = 0; j < seen; j++) {
        double dot = 0;
        for (int e = 0; e < q->shape.d[3]; e++)
            dot += (double)kn_pixel(q, b, i, h)[e] * kn_pixel(k, b, j, h)[e];
        p[j] = dot * c->a->alpha;
        top = fmax(top, p[j]);
    }
    for (int j = 0; j < seen; j++)
        sum += exp(p[j] - top);
    *lse = top + log(sum);
    for (int j = 0; j < seen; j++)
        p[j] = exp(p[j] - *lse);
    return seen;
}

es_status kn_ref_attention(const kn_call *c, es_error *err)
{
    const kn_tensor *q = &c->in[0], *k = &c->in[1], *v = &c->in[2];
    double *p = malloc(sizeof *p * (size_t)k->shape.d[1]);
    if (!p)
        return es_fail(err, ES_NO_MEMORY, NULL, "no memory for %d keys", k->shape.d[1]);
    for (int b = 0; b < q->shape.d[0]; b++)
        for (int h = 0; h < q->shape.d[2]; h++)
            for (int i = 0; i < q->shape.d[1]; i++) {
                double lse;
                int seen = probabilities(c, q, k, b, h, i, p, &lse);
                for (int e = 0; e < v->shape.d[3]; e++) {
                    double sum = 0;
                    for (int j = 0; j < seen; j++)
                        sum += p[j] * kn_pixel(v, b, j, h)[e];
                    kn_put(c, 0, kn_at4(&c->out[0], b, i, h, e), sum);
                }
                kn_put(c, 1, kn_at3(&c->out[1], b, h, i), lse);
            }
    free(p);
    return ES_OK;
}

/* One head: dq is written, dk and dv are summed into `acc` (tk x d, then tk x dv) over the queries. */
static void grad_head(const kn_call *c, int b, int h, double *p, double *dp, double *acc)
{
    const kn_tensor *dy = &c->in[0], *q = &c->in[1], *k = &c->in[2], *v = &c->in[3];
    int d = q->shape.d[3], dv = v->shape.d[3], tk = k->shape.d[1];
    double *acc_v = acc + (size_t)tk * (size_t)d;
    for (int i = 0; i < q->shape.d[1]; i++) {
        double lse, dot = 0;
        int seen = probabilities(c, q, k, b, h, i, p, &lse);
        for (int j = 0; j < seen; j++) {
            dp[j] = 0;
            for (int e = 0; e < dv; e++) {
                dp[j] += (double)kn_pixel(dy, b, i, h)[e] * kn_pixel(v, b, j, h)[e];
                acc_v[j * dv + e] += p[j] * kn_pixel(dy, b, i, h)[e];
            }
            dot += p[j] * dp[j];
        }
        for (int j = 0; j < seen; j++) {
            dp[j] = p[j] * (dp[j] - dot) * c->a->alpha;
            for (int e = 0; e < d; e++)
                acc[j * d + e] += dp[j] * kn_pixel(q, b, i, h)[e];
        }
        for (int e = 0; e < d; e++) {
            double sum = 0;
            for (int j = 0; j < seen; j++)
                sum += dp[j] * kn_pixel(k, b, j, h)[e];
            kn_put(c, 0, kn_at4(&c->out[0], b, i, h, e), sum);
        }
    }
}

es_status kn_ref_attention_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *k = &c->in[2], *v = &c->in[3];
    int tk = k->shape.d[1], d = k->shape.d[3], dv = v->shape.d[3];
    size_t sums = (size_t)tk * (size_t)(d + dv);
    double *buf = malloc(sizeof *buf * (sums + 2 * (size_t)tk)), *acc = buf + 2 * tk;
    if (!buf)
        return es_fail(err, ES_NO_MEMORY, NULL, "no memory for %d keys", tk);
    for (int b = 0; b < k->shape.d[0]; b++)
        for (int h = 0; h < k->shape.d[2]; h++) {
            for (size_t i = 0; i < sums; i++)
                acc[i] = 0;
            grad_head(c, b, h, buf, buf + tk, acc);
            for (int j = 0; j < tk; j++) {
                for (int e = 0; e < d; e++)
                    kn_put(c, 1, kn_at4(&c->out[1], b, j, h, e), acc[j * d + e]);
                for (int e = 0; e < dv; e++)
                    kn_put(c, 2, kn_at4(&c->out[2], b, j, h, e), acc[(size_t)tk * (size_t)d + (size_t)(j * dv + e)]);
            }
        }
    free(buf);
    return ES_OK;
}
