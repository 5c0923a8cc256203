/* Attention for any type and width: a warp per query (and per key for their gradients), scores by 32 keys at a time. What the tensor cores can take goes to attention_bf16.cu or attention_warps.cu. */
#include "kernels/cuda/attention.cuh"

enum { WARPS = 4, PARTS = 8, WIDTH_MAX = 32 * PARTS }; /* a lane keeps every 32nd element of a row */

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
static __device__ __forceinline__ float warp_max(float v)
{
    for (int o = 16; o > 0; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

/* Row i of head h of sample b: its first element. */
struct row_of {
    void *p;
    int type;
    int64_t at;
};
static __device__ __forceinline__ row_of row_at(const attention_rows &x, int b, int h, int i)
{
    return {x.p, x.type, b * x.sample + i * x.row + h * x.head};
}
static __device__ __forceinline__ float dot(row_of x, row_of y, int width)
{
    float sum = 0;
    for (int e = 0; e < width; e++)
        sum = fmaf(kn_load(x.p, x.type, x.at + e), kn_load(y.p, y.type, y.at + e), sum);
    return sum;
}
/* acc += w x row, a lane's elements of it. */
static __device__ __forceinline__ void add_row(float acc[PARTS], float w, row_of x, int width, int lane)
{
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (lane + 32 * p < width)
            acc[p] = fmaf(w, kn_load(x.p, x.type, x.at + lane + 32 * p), acc[p]);
}
static __device__ __forceinline__ void put_row(const float acc[PARTS], float scale, row_of x, int width, int lane)
{
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (lane + 32 * p < width)
            kn_store(x.p, x.type, x.at + lane + 32 * p, acc[p] * scale);
}

#define ATTENTION_KERNEL(name) \
    static __global__ void __launch_bounds__(32 * WARPS) name(const __grid_constant__ attention_args a)
/* A warp's row of `rows`, its head and its sample. */
#define ROW_OR_RETURN(rows)                                                                        \
    const int64_t row = blockIdx.x * (int64_t)WARPS + threadIdx.x / 32;                            \
    const int lane = threadIdx.x % 32, i = (int)(row % (rows)), h = (int)(row / (rows) % a.heads); \
    const int b = (int)(row / (rows) / a.heads);                                                   \
    if (b >= a.n)                                                                                  \
    return

ATTENTION_KERNEL(forward_kernel)
{
    ROW_OR_RETURN(a.tq);
    const int seen = attention_seen(a, i);
    const row_of q = row_at(a.q, b, h, i);
    float most = -INFINITY, sum = 0, acc[PARTS] = {};
    for (int j = lane; j < seen; j += 32)
        most = fmaxf(most, a.scale * dot(q, row_at(a.k, b, h, j), a.d));
    most = warp_max(most);
    for (int from = 0; from < seen; from += 32) {
        int j = from + lane;
        float p = j < seen ? expf(a.scale * dot(q, row_at(a.k, b, h, j), a.d) - most) : 0.f;
        sum += p;
        for (int s = 0; s < 32 && from + s < seen; s++)
            add_row(acc, __shfl_sync(0xffffffffu, p, s), row_at(a.v, b, h, from + s), a.dv_width, lane);
    }
    sum = warp_sum(sum);
    put_row(acc, 1 / sum, row_at(a.out, b, h, i), a.dv_width, lane);
    if (lane == 0 && a.lse)
        a.lse[((int64_t)b * a.heads + h) * a.tq + i] = most + logf(sum);
}

/* p of (query i, key j), and p (dp - delta) with dp = dy v. */
static __device__ __forceinline__ float2 back(const attention_args &a, int b, int h, int i, int j, float lse,
                                              float delta)
{
    float p = expf(a.scale * dot(row_at(a.q, b, h, i), row_at(a.k, b, h, j), a.d) - lse);
    float dp = dot(row_at(a.dy, b, h, i), row_at(a.v, b, h, j), a.dv_width);
    return make_float2(p, p * (dp - delta));
}

ATTENTION_KERNEL(dq_kernel)
{
    ROW_OR_RETURN(a.tq);
    const int seen = attention_seen(a, i);
    const int64_t stat = ((int64_t)b * a.heads + h) * a.tq + i;
    const row_of y = row_at(a.y, b, h, i), dy = row_at(a.dy, b, h, i);
    const float lse = a.lse_in[stat];
    float acc[PARTS] = {}, delta = 0;
    for (int e = lane; e < a.dv_width; e += 32)
        delta = fmaf(kn_load(dy.p, dy.type, dy.at + e), kn_load(y.p, y.type, y.at + e), delta);
    delta = warp_sum(delta);
    if (lane == 0)
        a.delta[stat] = delta;
    for (int from = 0; from < seen; from += 32) {
        float ds = from + lane < seen ? back(a, b, h, i, from + lane, lse, delta).y : 0.f;
        for (int s = 0; s < 32 && from + s < seen; s++)
            add_row(acc, __shfl_sync(0xffffffffu, ds, s), row_at(a.k, b, h, from + s), a.d, lane);
    }
    put_row(acc, a.scale, row_at(a.dq, b, h, i), a.d, lane);
}

ATTENTION_KERNEL(dkdv_kernel)
{
    ROW_OR_RETURN(a.tk); /* i is a key */
    const int64_t stat = ((int64_t)b * a.heads + h) * a.tq;
    const int first = a.causal && i > a.past ? i - a.past : 0;
    float dk[PARTS] = {}, dv[PARTS] = {};
    for (int from = first; from < a.tq; from += 32) {
        int j = from + lane;
        float2 w = j < a.tq ? back(a, b, h, j, i, a.lse_in[stat + j], a.delta[stat + j]) : make_float2(0, 0);
        for (int s = 0; s < 32 && from + s < a.tq; s++) {
            add_row(dv, __shfl_sync(0xffffffffu, w.x, s), row_at(a.dy, b, h, from + s), a.dv_width, lane);
            add_row(dk, __shfl_sync(0xffffffffu, w.y, s), row_at(a.q, b, h, from + s), a.d, lane);
        }
    }
    put_row(dk, a.scale, row_at(a.dk, b, h, i), a.d, lane);
    put_row(dv, 1, row_at(a.dv, b, h, i), a.dv_width, lane);
}

static es_status shape_of(const kn_call *c, const kn_tensor *q, const kn_tensor *v, attention_args *a, es_error *err)
{
    a->n = q->shape.d[0], a->tq = q->shape.d[1], a->heads = q->shape.d[2], a->d = q->shape.d[3];
    a->tk = v->shape.d[1], a->dv_width = v->shape.d[3];
    a->causal = c->a->causal, a->past = a->tk - a->tq, a->scale = c->a->alpha;
    if (a->d > WIDTH_MAX || a->dv_width > WIDTH_MAX)
        return es_fail(err, ES_UNSUPPORTED, "cuda", "attention heads of %d and %d: at most %d wide", a->d, a->dv_width,
                       (int)WIDTH_MAX);
    return ES_OK;
}

static attention_rows rows(const kn_tensor *t) { return {t->p, t->dtype, t->stride[0], t->stride[1], t->stride[2]}; }
#define ROWS_GRID(rows) (unsigned)kn_ceil((int64_t)a.n *a.heads *(rows), WARPS), 32 * WARPS, 0, kn_stream(c)

extern "C" es_status kn_cuda_attention(const kn_call *c, es_error *err)
{
    attention_args a = {};
    ES_RETURN(shape_of(c, &c->in[0], &c->in[2], &a, err));
    a.q = rows(&c->in[0]), a.k = rows(&c->in[1]), a.v = rows(&c->in[2]), a.out = rows(&c->out[0]);
    a.lse = (float *)c->out[1].p;
    const bool fits = kn_attention_fits_bf16(&a);
    if (fits && kn_cuda(c)->can.hopper)
        ES_RETURN(kn_attention_bf16(kn_cuda(c), &a, err));
    else if (fits)
        kn_attention_warps(kn_cuda(c), &a);
    else if ((int64_t)a.n * a.heads * a.tq > 0)
        forward_kernel<<<ROWS_GRID(a.tq)>>>(a);
    KN_LAUNCHED("attention");
    return ES_OK;
}

extern "C" size_t kn_cuda_attention_grad_scratch(const kn_call *c)
{
    const kn_shape *q = &c->in[1].shape;
    attention_args a = {};
    a.n = q->d[0], a.tq = q->d[1], a.heads = q->d[2];
    return kn_attention_bf16_scratch(&a); /* the most that either way wants */
}

extern "C" es_status kn_cuda_attention_grad(const kn_call *c, es_error *err)
{
    attention_args a = {};
    ES_RETURN(shape_of(c, &c->in[1], &c->in[3], &a, err));
    a.dy = rows(&c->in[0]), a.q = rows(&c->in[1]), a.k = rows(&c->in[2]), a.v = rows(&c->in[3]);
    a.y = rows(&c->in[4]), a.dq = rows(&c->out[0]), a.dk = rows(&c->out[1]), a.dv = rows(&c->out[2]);
    a.lse_in = (const float *)c->in[5].p;
    a.delta = (float *)c->scratch;
    if ((int64_t)a.n * a.heads * a.tq * a.tk == 0)
        return ES_OK;
    const bool fits = kn_attention_fits_bf16(&a);
    if (fits && kn_cuda(c)->can.hopper) {
        ES_RETURN(kn_attention_bf16_grad(kn_cuda(c), &a, err));
    } else if (fits) {
        kn_attention_warps_grad(kn_cuda(c), &a);
    } else {
        dq_kernel<<<ROWS_GRID(a.tq)>>>(a);
        dkdv_kernel<<<ROWS_GRID(a.tk)>>>(a);
    }
    KN_LAUNCHED("attention_grad");
    return ES_OK;
}
