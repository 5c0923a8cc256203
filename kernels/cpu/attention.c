/* Attention, one head of one sample per piece, queries in blocks: scores of a block stay in cache, and only their log sum is kept for the gradient. Of a causal
 * attention the keys behind a block's last query are not looked at. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/product.h"
#include "kernels/ops/self_attention.h"

#include <math.h>

enum { QUERIES = 32 };

typedef struct heads {
    int64_t count, n, tq, tk, d, dv; /* count: of all samples; n: of one */
} heads;

static heads heads_of(const kn_tensor *q, const kn_tensor *v)
{
    return (heads){.count = (int64_t)q->shape.d[0] * q->shape.d[2],
                   .n = q->shape.d[2],
                   .tq = q->shape.d[1],
                   .tk = v->shape.d[1],
                   .d = q->shape.d[3],
                   .dv = v->shape.d[3]};
}

/* Where head i of all begins, in a tensor [samples, t, n, d]; its rows are stride[1] apart. */
static int64_t start(const heads *h, int64_t i, const kn_tensor *t)
{
    return i / h->n * t->stride[0] + i % h->n * t->stride[2];
}

/* Keys that query i sees; the diagonal ends at the bottom right. */
static int64_t seen_by(const kn_call *c, const heads *h, int64_t i)
{
    return c->a->causal ? KN_MAX(0, KN_MIN(h->tk, i + h->tk - h->tq + 1)) : h->tk;
}

/* p[rows][keys], tk apart = scale q k^T of queries [from, from + rows), with k transposed as kt[d][ldt]. */
static void scores(const kn_call *c, const heads *h, const float *q, int64_t ldq, const float *kt, int64_t ldt,
                   int64_t from, int64_t rows, int64_t keys, float *p)
{
    kn_cpu_gemm((int)rows, (int)keys, (int)h->d, q + from * ldq, ldq, 1, kt, ldt, p, h->tk, false);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < keys; i++)
            p[r * h->tk + i] *= c->a->alpha;
}

/* p = exp(p - lse) over what is seen, 0 behind, up to `keys`. */
static void probabilities(float *p, int64_t seen, int64_t keys, float lse)
{
    for (int64_t i = 0; i < seen; i += KN_LANES) {
        int n = (int)KN_MIN(KN_LANES, seen - i);
        kn_vec_store_n(p + i, kn_vec_exp(kn_vec_load_n(p + i, n) - lse), n);
    }
    for (int64_t i = seen; i < keys; i++)
        p[i] = 0.0f;
}

static size_t forward_bytes(const heads *h)
{
    return kn_align(sizeof(float) * (size_t)(h->d * kn_cpu_padded(h->tk) + QUERIES * h->tk));
}

size_t kn_cpu_attention_scratch(const kn_call *c)
{
    heads h = heads_of(&c->in[0], &c->in[2]);
    return (size_t)kn_cpu_threads(c) * forward_bytes(&h);
}

es_status kn_cpu_attention(const kn_call *c, es_error *err)
{
    (void)err;
    heads h = heads_of(&c->in[0], &c->in[2]);
    const size_t bytes = forward_bytes(&h);
    KN_CPU_FOR(c, i, h.count)
    {
        const float *q = kn_f(&c->in[0]) + start(&h, i, &c->in[0]), *k = kn_f(&c->in[1]) + start(&h, i, &c->in[1]),
                    *v = kn_f(&c->in[2]) + start(&h, i, &c->in[2]);
        float *y = kn_fo(&c->out[0]) + start(&h, i, &c->out[0]),
              *lse = c->out[1].p ? kn_fo(&c->out[1]) + i * h.tq : NULL;
        const int64_t ldt = kn_cpu_padded(h.tk), ldv = c->in[2].stride[1], ldy = c->out[0].stride[1];
        float *kt = (float *)(void *)((char *)c->scratch + (size_t)kn_cpu_self() * bytes), *p = kt + h.d * ldt;
        kn_cpu_turn(kt, ldt, k, c->in[1].stride[1], (int)h.tk, (int)h.d);
        for (int64_t from = 0; from < h.tq; from += QUERIES) {
            int64_t rows = KN_MIN(QUERIES, h.tq - from), keys = seen_by(c, &h, from + rows - 1);
            scores(c, &h, q, c->in[0].stride[1], kt, ldt, from, rows, keys, p);
            for (int64_t r = 0; r < rows; r++) {
                int64_t seen = seen_by(c, &h, from + r);
                float l = kn_cpu_log_sum(p + r * h.tk, seen);
                probabilities(p + r * h.tk, seen, keys, l);
                if (lse)
                    lse[from + r] = l;
            }
            kn_cpu_gemm((int)rows, (int)h.dv, (int)keys, p, h.tk, 1, v, ldv, y + from * ldy, ldy, false);
        }
    }
    return ES_OK;
}

static size_t backward_bytes(const heads *h)
{
    return kn_align(sizeof(float) * (size_t)((h->d + h->dv) * kn_cpu_padded(h->tk) + 2 * QUERIES * h->tk));
}

size_t kn_cpu_attention_grad_scratch(const kn_call *c)
{
    heads h = heads_of(&c->in[1], &c->in[3]);
    return (size_t)kn_cpu_threads(c) * backward_bytes(&h);
}

/* ds = p (dp - sum(p dp)) scale, per row. */
static void softmax_back(const heads *h, const float *p, float *dp, int64_t rows, int64_t keys, float scale)
{
    for (int64_t r = 0; r < rows; r++, p += h->tk, dp += h->tk) {
        kn_vec sum = {};
        for (int64_t j = 0; j < keys; j += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, keys - j);
            sum += kn_vec_load_n(p + j, n) * kn_vec_load_n(dp + j, n);
        }
        float t = kn_vec_sum(sum);
        for (int64_t j = 0; j < keys; j++)
            dp[j] = p[j] * (dp[j] - t) * scale;
    }
}

/* dk and dv are added to block by block, and a causal block reaches only the keys that it sees. */
static void clear(const heads *h, const kn_tensor *t, int64_t i, int64_t width)
{
    float *d = kn_fo(t) + start(h, i, t);
    for (int64_t j = 0; j < h->tk; j++)
        for (int64_t e = 0; e < width; e++)
            d[j * t->stride[1] + e] = 0.0f;
}

static void backward_block(const kn_call *c, const heads *h, int64_t i, int64_t from, const float *kt, const float *vt,
                           float *p)
{
    const int64_t ldt = kn_cpu_padded(h->tk), ldy = c->in[0].stride[1], ldq = c->in[1].stride[1],
                  ldk = c->in[2].stride[1], ldq_out = c->out[0].stride[1], ldk_out = c->out[1].stride[1],
                  ldv_out = c->out[2].stride[1];
    const float *dy = kn_f(&c->in[0]) + start(h, i, &c->in[0]) + from * ldy,
                *q = kn_f(&c->in[1]) + start(h, i, &c->in[1]), *k = kn_f(&c->in[2]) + start(h, i, &c->in[2]),
                *lse = kn_f(&c->in[5]) + i * h->tq + from;
    float *dq = kn_fo(&c->out[0]) + start(h, i, &c->out[0]) + from * ldq_out,
          *dk = kn_fo(&c->out[1]) + start(h, i, &c->out[1]), *dv = kn_fo(&c->out[2]) + start(h, i, &c->out[2]),
          *dp = p + QUERIES * h->tk;
    const int rows = (int)KN_MIN(QUERIES, h->tq - from), keys = (int)seen_by(c, h, from + rows - 1);
    scores(c, h, q, ldq, kt, ldt, from, rows, keys, p);
    for (int64_t r = 0; r < rows; r++)
        probabilities(p + r * h->tk, seen_by(c, h, from + r), keys, lse[r]);
    kn_cpu_gemm(rows, keys, (int)h->dv, dy, ldy, 1, vt, ldt, dp, h->tk, false);
    softmax_back(h, p, dp, rows, keys, c->a->alpha);
    kn_cpu_gemm(rows, (int)h->d, keys, dp, h->tk, 1, k, ldk, dq, ldq_out, false);
    kn_cpu_gemm(keys, (int)h->d, rows, dp, 1, h->tk, q + from * ldq, ldq, dk, ldk_out, true);
    kn_cpu_gemm(keys, (int)h->dv, rows, p, 1, h->tk, dy, ldy, dv, ldv_out, true);
}

es_status kn_cpu_attention_grad(const kn_call *c, es_error *err)
{
    (void)err;
    heads h = heads_of(&c->in[1], &c->in[3]);
    const size_t bytes = backward_bytes(&h);
    const int64_t ldt = kn_cpu_padded(h.tk);
    KN_CPU_FOR(c, i, h.count)
    {
        const float *k = kn_f(&c->in[2]) + start(&h, i, &c->in[2]), *v = kn_f(&c->in[3]) + start(&h, i, &c->in[3]);
        float *kt = (float *)(void *)((char *)c->scratch + (size_t)kn_cpu_self() * bytes), *vt = kt + h.d * ldt;
        kn_cpu_turn(kt, ldt, k, c->in[2].stride[1], (int)h.tk, (int)h.d);
        kn_cpu_turn(vt, ldt, v, c->in[3].stride[1], (int)h.tk, (int)h.dv);
        clear(&h, &c->out[1], i, h.d);
        clear(&h, &c->out[2], i, h.dv);
        for (int64_t from = 0; from < h.tq; from += QUERIES)
            backward_block(c, &h, i, from, kt, vt, vt + h.dv * ldt);
    }
    return ES_OK;
}

size_t kn_cpu_self_attention_scratch(const kn_call *c)
{
    const kn_call v = kn_self_attention_call(c);
    return kn_cpu_attention_scratch(&v);
}

es_status kn_cpu_self_attention(const kn_call *c, es_error *err)
{
    const kn_call v = kn_self_attention_call(c);
    return kn_cpu_attention(&v, err);
}

size_t kn_cpu_self_attention_grad_scratch(const kn_call *c)
{
    const kn_call v = kn_self_attention_grad_call(c);
    return kn_cpu_attention_grad_scratch(&v);
}

es_status kn_cpu_self_attention_grad(const kn_call *c, es_error *err)
{
    const kn_call v = kn_self_attention_grad_call(c);
    return kn_cpu_attention_grad(&v, err);
}
