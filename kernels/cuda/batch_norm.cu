/* Batch norm over [rows, channels], with the activation in the same pass.
 *
 * Forward: one pass for the statistics (sums of x - k and (x - k)^2, k = the channel's first value, so that nothing cancels), one to normalise. Backward: one for
 * sum d' and sum d' xhat with d' = dy act'(z), one for dx = gamma rstd (d' - mean d' - xhat mean(d' xhat)). z is recomputed from x: the
 * activation's input is never stored.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/cuda.cuh"

enum { WAVES = 4 };

struct bn_args {
    const void *x, *dy;
    void *out;
    int x_type, dy_type, out_type, act;
    const float *gamma, *beta, *mean, *var;
    float eps;
    int accumulate;
};

struct bn_sums {
    float *partial;
    const float *s1, *s2; /* per channel: sum d', sum d' xhat; s1 == NULL: statistics are constants */
};

template <int W> static __global__ void __launch_bounds__(256) stats_kernel(kn_columns k, bn_args a, float *partial)
{
    extern __shared__ float shared[];
    kn_place p = kn_where<W>(k);
    float v[2][W] = {};
    if (p.active) {
        float first[W], x[W];
        kn_loadw<W>(first, a.x, a.x_type, p.channel);
#pragma unroll 4
        for (int64_t r = p.first + p.lane; r < p.end; r += k.lanes) {
            kn_loadw<W>(x, a.x, a.x_type, r * k.channels + p.channel);
#pragma unroll
            for (int w = 0; w < W; w++) {
                float d = x[w] - first[w];
                v[0][w] += d;
                v[1][w] = fmaf(d, d, v[1][w]);
            }
        }
    }
    kn_block_partial<2, W>(k, p, v, partial, shared);
}

static __global__ void stats_finish(const float *partial, int blocks, int64_t rows, int channels, const void *x,
                                    int x_type, float *mean, float *var)
{
    __shared__ double shared[32][33];
    int channel = blockIdx.x * 32 + threadIdx.x;
    double s1 = kn_partial_sum(partial, blocks, 2, 0, channels, channel, shared) / (double)rows;
    double s2 = kn_partial_sum(partial, blocks, 2, 1, channels, channel, shared) / (double)rows;
    if (threadIdx.y == 0 && channel < channels) {
        double v = s2 - s1 * s1;
        mean[channel] = (float)(s1 + kn_load(x, x_type, channel));
        var[channel] = (float)(v > 0 ? v : 0);
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

template <int ACT, int W, bool FAST> static __global__ void __launch_bounds__(256) apply_kernel(kn_columns k, bn_args a)
{
    kn_place p = kn_where<W>(k);
    float scale[W], shift[W], x[W];
    if (!p.active)
        return;
    coefficients<W>(a, p.channel, scale, shift);
#pragma unroll 4
    for (int64_t r = p.first + p.lane; r < p.end; r += k.lanes) {
        int64_t i = r * k.channels + p.channel;
        kn_loadw<W>(x, a.x, a.x_type, i);
#pragma unroll
        for (int w = 0; w < W; w++)
            x[w] = kn_act_of<ACT, FAST>(a.act, 0, fmaf(x[w], scale[w], shift[w]));
        kn_storew<W>(x, a.out, a.out_type, i);
    }
}

template <int ACT, int W, bool FAST>
static __global__ void __launch_bounds__(256) grad_sums_kernel(kn_columns k, bn_args a, float *partial)
{
    extern __shared__ float shared[];
    kn_place p = kn_where<W>(k);
    float v[2][W] = {}, scale[W], shift[W], x[W], d[W], rstd[W], mean[W];
    if (p.active) {
        coefficients<W>(a, p.channel, scale, shift);
#pragma unroll
        for (int w = 0; w < W; w++) {
            rstd[w] = rsqrtf(a.var[p.channel + w] + a.eps);
            mean[w] = a.mean[p.channel + w];
        }
#pragma unroll 2
        for (int64_t r = p.first + p.lane; r < p.end; r += k.lanes) {
            int64_t i = r * k.channels + p.channel;
            kn_loadw<W>(x, a.x, a.x_type, i);
            kn_loadw<W>(d, a.dy, a.dy_type, i);
#pragma unroll
            for (int w = 0; w < W; w++) {
                float g = d[w] * kn_act_of<ACT, FAST>(a.act, 1, fmaf(x[w], scale[w], shift[w]));
                v[0][w] += g;
                v[1][w] = fmaf(g, (x[w] - mean[w]) * rstd[w], v[1][w]);
            }
        }
    }
    kn_block_partial<2, W>(k, p, v, partial, shared);
}

static __global__ void grad_sums_finish(const float *partial, int blocks, int channels, float *s1, float *s2,
                                        float *dgamma, int add_gamma, float *dbeta, int add_beta)
{
    __shared__ double shared[32][33];
    int channel = blockIdx.x * 32 + threadIdx.x;
    float a = (float)kn_partial_sum(partial, blocks, 2, 0, channels, channel, shared);
    float b = (float)kn_partial_sum(partial, blocks, 2, 1, channels, channel, shared);
    if (threadIdx.y != 0 || channel >= channels)
        return;
    s1[channel] = a;
    s2[channel] = b;
    if (dgamma)
        dgamma[channel] = b + (add_gamma ? dgamma[channel] : 0.f);
    if (dbeta)
        dbeta[channel] = a + (add_beta ? dbeta[channel] : 0.f);
}

template <int ACT, int W, bool FAST>
static __global__ void __launch_bounds__(256) grad_apply_kernel(kn_columns k, bn_args a, bn_sums s)
{
    kn_place p = kn_where<W>(k);
    float scale[W], shift[W], x[W], d[W], c1[W], c0[W];
    if (!p.active)
        return;
    coefficients<W>(a, p.channel, scale, shift);
    /* dx = scale d' - c1 x - c0, with xhat = (x - mean) rstd multiplied out. */
#pragma unroll
    for (int w = 0; w < W; w++) {
        float rstd = rsqrtf(a.var[p.channel + w] + a.eps), n = 1.f / (float)k.rows;
        float m1 = s.s1 ? s.s1[p.channel + w] * n : 0.f, m2 = s.s1 ? s.s2[p.channel + w] * n : 0.f;
        c1[w] = scale[w] * m2 * rstd;
        c0[w] = scale[w] * m1 - c1[w] * a.mean[p.channel + w];
    }
#pragma unroll 2
    for (int64_t r = p.first + p.lane; r < p.end; r += k.lanes) {
        int64_t i = r * k.channels + p.channel;
        kn_loadw<W>(x, a.x, a.x_type, i);
        kn_loadw<W>(d, a.dy, a.dy_type, i);
#pragma unroll
        for (int w = 0; w < W; w++) {
            float g = d[w] * kn_act_of<ACT, FAST>(a.act, 1, fmaf(x[w], scale[w], shift[w]));
            d[w] = fmaf(scale[w], g, -fmaf(c1[w], x[w], c0[w]));
        }
        if (a.accumulate) {
            float old[W];
            kn_loadw<W>(old, a.out, a.out_type, i);
#pragma unroll
            for (int w = 0; w < W; w++)
                d[w] += old[w];
        }
        kn_storew<W>(d, a.out, a.out_type, i);
    }
}

static int64_t rows_of(const kn_tensor *x) { return kn_shape_count(&x->shape) / x->shape.d[x->shape.rank - 1]; }

static int width_of(const kn_tensor *x)
{
    return x->shape.d[x->shape.rank - 1] % KN_VEC == 0 && kn_aligned(x->p) ? KN_VEC : 1;
}

static kn_columns columns_of(const kn_call *c, const kn_tensor *x, int width)
{
    return kn_columns_make(rows_of(x), x->shape.d[x->shape.rank - 1], width, kn_cuda(c)->sms, WAVES);
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

#define BN_LAUNCH(kernel, act, width, fast, k, shared, stream, ...)                                               \
    do {                                                                                                          \
        dim3 grid((unsigned)(k).row_blocks, (unsigned)(k).col_blocks), block((unsigned)((k).groups * (k).lanes)); \
        if ((width) == KN_VEC && (fast))                                                                          \
            KN_WITH_ACT(act, ACT, (kernel<ACT, KN_VEC, true><<<grid, block, shared, stream>>>(__VA_ARGS__)));     \
        else if ((width) == KN_VEC)                                                                               \
            KN_WITH_ACT(act, ACT, (kernel<ACT, KN_VEC, false><<<grid, block, shared, stream>>>(__VA_ARGS__)));    \
        else                                                                                                      \
            kernel<-1, 1, false><<<grid, block, shared, stream>>>(__VA_ARGS__);                                   \
    } while (0)

/* partial[row_blocks][2][channels], then s1 and s2. Row blocks are bounded by sms * WAVES; sizes are the same for both passes. */
extern "C" size_t kn_cuda_batch_norm_scratch(const kn_call *c)
{
    const kn_tensor *x = &c->in[c->n_in == 6 ? 1 : 0]; /* the gradient has dy first */
    int channels = x->shape.d[x->shape.rank - 1];
    return ((size_t)kn_cuda(c)->sms * WAVES + 1) * 2 * (size_t)channels * sizeof(float);
}

static size_t partial_shared(const kn_columns *k, int width)
{
    return (size_t)k->groups * (size_t)k->lanes * 2 * (size_t)width * sizeof(float);
}

extern "C" es_status kn_cuda_batch_norm(const kn_call *c, es_error *err)
{
    int width = width_of(&c->in[0]);
    kn_columns k = columns_of(c, &c->in[0], width);
    bn_args a = args_of(c, 0);
    float *mean = (float *)c->out[1].p, *var = (float *)c->out[2].p, *partial = (float *)c->scratch;
    dim3 grid((unsigned)k.row_blocks, (unsigned)k.col_blocks), block((unsigned)(k.groups * k.lanes));

    if (width == KN_VEC)
        stats_kernel<KN_VEC><<<grid, block, partial_shared(&k, width), kn_stream(c)>>>(k, a, partial);
    else
        stats_kernel<1><<<grid, block, partial_shared(&k, width), kn_stream(c)>>>(k, a, partial);
    stats_finish<<<(unsigned)kn_ceil(k.channels, 32), dim3(32, 32), 0, kn_stream(c)>>>(
        partial, k.row_blocks, k.rows, k.channels, a.x, a.x_type, mean, var);
    a.mean = mean;
    a.var = var;
    BN_LAUNCH(apply_kernel, a.act, width, a.out_type == KN_BF16, k, 0, kn_stream(c), k, a);
    KN_LAUNCHED("batch_norm");
    return ES_OK;
}

extern "C" es_status kn_cuda_batch_norm_infer(const kn_call *c, es_error *err)
{
    int width = width_of(&c->in[0]);
    kn_columns k = columns_of(c, &c->in[0], width);
    bn_args a = args_of(c, 0);
    a.mean = (const float *)c->in[3].p;
    a.var = (const float *)c->in[4].p;
    BN_LAUNCH(apply_kernel, a.act, width, a.out_type == KN_BF16, k, 0, kn_stream(c), k, a);
    KN_LAUNCHED("batch_norm_infer");
    return ES_OK;
}

static es_status grad(const kn_call *c, bool constants, es_error *err)
{
    int width = width_of(&c->in[1]);
    kn_columns k = columns_of(c, &c->in[1], width);
    bn_args a = args_of(c, 1);
    float *partial = (float *)c->scratch, *s1 = partial + (size_t)k.row_blocks * 2 * (size_t)k.channels,
          *s2 = s1 + k.channels;
    a.dy = c->in[0].p;
    a.dy_type = c->in[0].dtype;
    a.mean = (const float *)c->in[4].p;
    a.var = (const float *)c->in[5].p;
    bool fast = a.x_type == KN_BF16;
    if (!constants || c->out[1].p || c->out[2].p) {
        BN_LAUNCH(grad_sums_kernel, a.act, width, fast, k, partial_shared(&k, width), kn_stream(c), k, a, partial);
        grad_sums_finish<<<(unsigned)kn_ceil(k.channels, 32), dim3(32, 32), 0, kn_stream(c)>>>(
            partial, k.row_blocks, k.channels, s1, s2, (float *)c->out[1].p, c->accumulate >> 1 & 1,
            (float *)c->out[2].p, c->accumulate >> 2 & 1);
    }
    if (c->out[0].p) {
        bn_sums s = {partial, constants ? NULL : s1, s2};
        BN_LAUNCH(grad_apply_kernel, a.act, width, fast, k, 0, kn_stream(c), k, a, s);
    }
    KN_LAUNCHED("batch_norm_grad");
    return ES_OK;
}

extern "C" es_status kn_cuda_batch_norm_grad(const kn_call *c, es_error *err) { return grad(c, false, err); }

extern "C" es_status kn_cuda_batch_norm_infer_grad(const kn_call *c, es_error *err) { return grad(c, true, err); }
