/* Batch norm over [rows, channels], with the activation in the same pass.
 *
 * Forward: one pass for the statistics (sums of x - k and (x - k)^2, k = the channel's first value, so that nothing cancels), one to normalise. Backward: one for
 * sum d' and sum d' xhat with d' = dy act'(z), one for dx = gamma rstd (d' - mean d' - xhat mean(d' xhat)). z is recomputed from x: the
 * activation's input is never stored. Each pass is one launch (columns.cuh).
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/flow.cuh"

enum { MOST_ITEMS = 2 * KN_COLUMN_WIDE * KN_VEC }; /* two sums of each channel of a column */

struct bn_args {
    const void *x, *dy;
    void *out;
    int x_type, dy_type, out_type, act;
    const float *gamma, *beta, *mean, *var;
    float eps;
    int accumulate;
};

/* Where sums go: per channel mean and var of x (forward) or sum d' and sum d' xhat (backward; a: NULL where statistics are constants). */
struct bn_sums {
    float *partial, *a, *b;
    unsigned *arrived;
    float *dgamma, *dbeta;
    int add_gamma, add_beta;
};

template <int W, int TYPE>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2) stats_kernel(kn_columns k, bn_args a, bn_sums s)
{
    extern __shared__ float shared[];
    __shared__ double total[MOST_ITEMS];
    kn_begin();
    kn_place p = kn_where<W>(k);
    float v[2][W] = {};
    if (p.active) {
        kn_flow<1, W, TYPE> rows(k, p, shared, a.x, a.x_type, NULL, 0);
        kn_raw<W, TYPE> first;
        first.load(a.x, a.x_type, p.channel);
        rows.rows([&](const kn_raw<W, TYPE> &x, const kn_raw<W, TYPE> &, int64_t) {
#pragma unroll
            for (int w = 0; w < W; w++) {
                float d = x.get(w) - first.get(w);
                v[0][w] += d;
                v[1][w] = fmaf(d, d, v[1][w]);
            }
        });
    }
    __syncthreads();
    if (!kn_column_sums<2, W>(k, v, s.partial, s.arrived, shared, total))
        return;
    for (int i = threadIdx.x, n = k.groups * W; i < n; i += k.groups * k.lanes) {
        int channel = blockIdx.y * n + i;
        double m = total[i] / (double)k.rows, var = total[n + i] / (double)k.rows - m * m;
        if (channel < k.channels) {
            s.a[channel] = (float)(m + kn_load(a.x, a.x_type, channel));
            s.b[channel] = (float)(var > 0 ? var : 0);
        }
    }
}

template <int W>
static __device__ __forceinline__ void coefficients(const bn_args &a, int channel, float *scale, float *shift)
{
#pragma unroll
    for (int w = 0; w < W; w++) {
        float g = a.gamma ? a.gamma[channel + w] : 1.f, b = a.beta ? a.beta[channel + w] : 0.f;
        scale[w] = g * rsqrtf(a.var[channel + w] + a.eps);
        shift[w] = b - a.mean[channel + w] * scale[w];
    }
}

template <int ACT, int W, int TYPE>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2) apply_kernel(kn_columns k, bn_args a)
{
    extern __shared__ float shared[];
    constexpr bool FAST = TYPE == KN_BF16;
    kn_begin();
    kn_place p = kn_where<W>(k);
    float scale[W], shift[W];
    if (!p.active)
        return;
    kn_flow<1, W, TYPE> rows(k, p, shared, a.x, a.x_type, NULL, 0);
    coefficients<W>(a, p.channel, scale, shift);
    rows.rows([&](const kn_raw<W, TYPE> &x, const kn_raw<W, TYPE> &, int64_t i) {
        float y[W];
#pragma unroll
        for (int w = 0; w < W; w++)
            y[w] = kn_act_of<ACT, FAST>(a.act, 0, fmaf(x.get(w), scale[w], shift[w]));
        kn_storew<W>(y, a.out, TYPE == KN_ANY_TYPE ? a.out_type : TYPE, i);
    });
}

template <int ACT, int W, int TYPE>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2) grad_sums_kernel(kn_columns k, bn_args a, bn_sums s)
{
    constexpr bool FAST = TYPE == KN_BF16;
    extern __shared__ float shared[];
    __shared__ double total[MOST_ITEMS];
    kn_begin();
    kn_place p = kn_where<W>(k);
    float v[2][W] = {}, scale[W], mean[W];
    if (p.active) {
        kn_flow<2, W, TYPE> both(k, p, shared, a.x, a.x_type, a.dy, a.dy_type);
        float beta[W];
        coefficients<W>(a, p.channel, scale, beta);
#pragma unroll
        for (int w = 0; w < W; w++) {
            mean[w] = a.mean[p.channel + w];
            beta[w] = a.beta ? a.beta[p.channel + w] : 0.f;
        }
        both.rows([&](const kn_raw<W, TYPE> &x, const kn_raw<W, TYPE> &d, int64_t) {
#pragma unroll
            for (int w = 0; w < W; w++) {
                float c = x.get(w) - mean[w], g = d.get(w) * kn_act_of<ACT, FAST>(a.act, 1, fmaf(c, scale[w], beta[w]));
                v[0][w] += g;
                v[1][w] = fmaf(g, c, v[1][w]);
            }
        });
    }
    __syncthreads();
    if (!kn_column_sums<2, W>(k, v, s.partial, s.arrived, shared, total))
        return;
    for (int i = threadIdx.x, n = k.groups * W; i < n; i += k.groups * k.lanes) {
        int channel = blockIdx.y * n + i;
        if (channel >= k.channels)
            continue;
        float db = (float)total[i], dg = (float)(total[n + i] * (double)rsqrtf(a.var[channel] + a.eps));
        s.a[channel] = db;
        s.b[channel] = dg;
        if (s.dgamma)
            s.dgamma[channel] = dg + (s.add_gamma ? s.dgamma[channel] : 0.f);
        if (s.dbeta)
            s.dbeta[channel] = db + (s.add_beta ? s.dbeta[channel] : 0.f);
    }
}

template <int ACT, int W, int TYPE>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2)
    grad_apply_kernel(kn_columns k, bn_args a, const float *s1, const float *s2)
{
    extern __shared__ float shared[];
    constexpr bool FAST = TYPE == KN_BF16;
    kn_begin();
    kn_place p = kn_where<W>(k);
    float scale[W], shift[W], c1[W], c0[W];
    if (!p.active)
        return;
    kn_flow<2, W, TYPE> both(k, p, shared, a.x, a.x_type, a.dy, a.dy_type);
    coefficients<W>(a, p.channel, scale, shift);
    /* dx = scale d' - c1 x - c0, with xhat = (x - mean) rstd multiplied out. */
#pragma unroll
    for (int w = 0; w < W; w++) {
        float rstd = rsqrtf(a.var[p.channel + w] + a.eps), n = 1.f / (float)k.rows;
        float m1 = s1 ? s1[p.channel + w] * n : 0.f, m2 = s1 ? s2[p.channel + w] * n : 0.f;
        c1[w] = scale[w] * m2 * rstd;
        c0[w] = scale[w] * m1 - c1[w] * a.mean[p.channel + w];
    }
    both.rows([&](const kn_raw<W, TYPE> &x, const kn_raw<W, TYPE> &dy, int64_t i) {
        const int type = TYPE == KN_ANY_TYPE ? a.out_type : TYPE;
        float d[W];
#pragma unroll
        for (int w = 0; w < W; w++) {
            float v = x.get(w), g = dy.get(w) * kn_act_of<ACT, FAST>(a.act, 1, fmaf(v, scale[w], shift[w]));
            d[w] = fmaf(scale[w], g, -fmaf(c1[w], v, c0[w]));
        }
        if (a.accumulate) {
            float old[W];
            kn_loadw<W>(old, a.out, type, i);
#pragma unroll
            for (int w = 0; w < W; w++)
                d[w] += old[w];
        }
        kn_storew<W>(d, a.out, type, i);
    });
}

static int64_t rows_of(const kn_tensor *x) { return kn_shape_count(&x->shape) / x->shape.d[x->shape.rank - 1]; }

/* Eight channels a thread when all big tensors have one type; a mixture, or an odd number of channels, goes one by one. */
static int width_of(const kn_tensor *x, const kn_tensor *out, const kn_tensor *dy)
{
    bool one_type = (!out->p || out->dtype == x->dtype) && (!dy || dy->dtype == x->dtype);
    bool aligned = kn_aligned(x->p) && kn_aligned(out->p) && (!dy || kn_aligned(dy->p));
    return one_type && aligned && x->shape.d[x->shape.rank - 1] % KN_VEC == 0 ? KN_VEC : 1;
}

/* For a pass that makes sums, or for one that does not. */
static kn_columns columns_of(const kn_call *c, const kn_tensor *x, int width, bool sums)
{
    const bool wide = !sums || kn_shape_count(&x->shape) >= KN_COLUMN_LARGE;
    return kn_columns_make(rows_of(x), x->shape.d[x->shape.rank - 1], width, kn_cuda(c)->sms, wide);
}

static bn_args args_of(const kn_call *c, int first)
{
    bn_args a = {};
    a.x = c->in[first].p;
    a.x_type = c->in[first].dtype;
    a.gamma = (const float *)c->in[first + 1].p;
    a.beta = (const float *)c->in[first + 2].p;
    a.out = c->out[0].p;
    a.out_type = c->out[0].dtype;
    a.act = c->a->act;
    a.eps = c->a->eps;
    a.accumulate = c->accumulate & 1;
    return a;
}

/* TENSORS streamed, `sums` of them made: the shared memory of both uses. */
static size_t shared_of(const kn_columns &k, int tensors, int sums, int width, int type)
{
    const size_t a = width == KN_VEC ? kn_flow_bytes(k, tensors, type) : 0,
                 b = sums ? kn_columns_shared(k, sums, width) : 0;
    return a > b ? a : b;
}

#define BN_LAUNCH_ONE(c, kernel, k, shared, ...)                                                                  \
    do {                                                                                                          \
        dim3 grid((unsigned)(k).row_blocks, (unsigned)(k).col_blocks), block((unsigned)((k).groups * (k).lanes)); \
        KN_ALLOW_SHARED(kn_cuda(c), (kernel), shared);                                                            \
        kn_launch(kernel, grid, block, shared, kn_stream(c), __VA_ARGS__);                                        \
    } while (0)
#define BN_LAUNCH(c, kernel, act, width, type, k, shared, ...)                                               \
    do {                                                                                                     \
        if ((width) == KN_VEC && (type) == KN_BF16)                                                          \
            KN_WITH_ACT(act, ACT, BN_LAUNCH_ONE(c, (kernel<ACT, KN_VEC, KN_BF16>), k, shared, __VA_ARGS__)); \
        else if ((width) == KN_VEC)                                                                          \
            KN_WITH_ACT(act, ACT, BN_LAUNCH_ONE(c, (kernel<ACT, KN_VEC, KN_F32>), k, shared, __VA_ARGS__));  \
        else                                                                                                 \
            BN_LAUNCH_ONE(c, (kernel<-1, 1, KN_ANY_TYPE>), k, shared, __VA_ARGS__);                          \
    } while (0)

/* Partial sums, then two numbers per channel. */
extern "C" size_t kn_cuda_batch_norm_scratch(const kn_call *c)
{
    const kn_tensor *x = &c->in[c->n_in == 6 ? 1 : 0]; /* the gradient has dy first */
    int channels = x->shape.d[x->shape.rank - 1];
    return kn_columns_scratch(rows_of(x), channels, 2, kn_cuda(c)->sms) + 2 * (size_t)channels * sizeof(float);
}

static bn_sums sums_of(const kn_call *c, const kn_columns *k, int width)
{
    bn_sums s = {};
    s.partial = (float *)c->scratch;
    s.a = s.partial + (size_t)k->row_blocks * (size_t)k->col_blocks * (size_t)(k->groups * width * 2);
    s.b = s.a + k->channels;
    s.arrived = kn_cuda(c)->arrived;
    return s;
}

static void stats(const kn_call *c, const kn_columns &k, const bn_args &a, const bn_sums &s, int width)
{
    const size_t shared = shared_of(k, 1, 2, width, a.x_type);
    if (width == KN_VEC && a.x_type == KN_BF16)
        BN_LAUNCH_ONE(c, (stats_kernel<KN_VEC, KN_BF16>), k, shared, k, a, s);
    else if (width == KN_VEC)
        BN_LAUNCH_ONE(c, (stats_kernel<KN_VEC, KN_F32>), k, shared, k, a, s);
    else
        BN_LAUNCH_ONE(c, (stats_kernel<1, KN_ANY_TYPE>), k, shared, k, a, s);
}

size_t kn_cuda_stats_scratch(const kn_call *c, const kn_tensor *x)
{
    return kn_columns_scratch(rows_of(x), x->shape.d[x->shape.rank - 1], 2, kn_cuda(c)->sms);
}

void kn_cuda_stats(const kn_call *c, const kn_tensor *x, float *mean, float *var)
{
    const int width = width_of(x, x, NULL);
    const kn_columns k = columns_of(c, x, width, true);
    bn_args a = {};
    bn_sums s = {};
    a.x = x->p, a.x_type = x->dtype;
    s.partial = (float *)c->scratch, s.a = mean, s.b = var, s.arrived = kn_cuda(c)->arrived;
    stats(c, k, a, s, width);
}

extern "C" es_status kn_cuda_batch_norm(const kn_call *c, es_error *err)
{
    int width = width_of(&c->in[0], &c->out[0], NULL);
    kn_columns k = columns_of(c, &c->in[0], width, true);
    bn_args a = args_of(c, 0);
    bn_sums s = sums_of(c, &k, width);

    s.a = (float *)c->out[1].p, s.b = (float *)c->out[2].p;
    stats(c, k, a, s, width);
    a.mean = s.a;
    a.var = s.b;
    k = columns_of(c, &c->in[0], width, false);
    BN_LAUNCH(c, apply_kernel, a.act, width, a.x_type, k, shared_of(k, 1, 0, width, a.x_type), k, a);
    KN_LAUNCHED("batch_norm");
    return ES_OK;
}

extern "C" es_status kn_cuda_batch_norm_infer(const kn_call *c, es_error *err)
{
    int width = width_of(&c->in[0], &c->out[0], NULL);
    kn_columns k = columns_of(c, &c->in[0], width, false);
    bn_args a = args_of(c, 0);
    a.mean = (const float *)c->in[3].p;
    a.var = (const float *)c->in[4].p;
    BN_LAUNCH(c, apply_kernel, a.act, width, a.x_type, k, shared_of(k, 1, 0, width, a.x_type), k, a);
    KN_LAUNCHED("batch_norm_infer");
    return ES_OK;
}

static es_status grad(const kn_call *c, bool constants, es_error *err)
{
    int width = width_of(&c->in[1], &c->out[0], &c->in[0]);
    kn_columns k = columns_of(c, &c->in[1], width, true);
    bn_args a = args_of(c, 1);
    bn_sums s = sums_of(c, &k, width);
    a.dy = c->in[0].p;
    a.dy_type = c->in[0].dtype;
    a.mean = (const float *)c->in[4].p;
    a.var = (const float *)c->in[5].p;
    s.dgamma = (float *)c->out[1].p, s.add_gamma = c->accumulate >> 1 & 1;
    s.dbeta = (float *)c->out[2].p, s.add_beta = c->accumulate >> 2 & 1;
    const float *s1 = constants ? NULL : s.a;
    if (!constants || s.dgamma || s.dbeta)
        BN_LAUNCH(c, grad_sums_kernel, a.act, width, a.x_type, k, shared_of(k, 2, 2, width, a.x_type), k, a, s);
    k = columns_of(c, &c->in[1], width, false);
    if (c->out[0].p)
        BN_LAUNCH(c, grad_apply_kernel, a.act, width, a.x_type, k, shared_of(k, 2, 0, width, a.x_type), k, a, s1, s.b);
    KN_LAUNCHED("batch_norm_grad");
    return ES_OK;
}

extern "C" es_status kn_cuda_batch_norm_grad(const kn_call *c, es_error *err) { return grad(c, false, err); }

extern "C" es_status kn_cuda_batch_norm_infer_grad(const kn_call *c, es_error *err) { return grad(c, true, err); }
