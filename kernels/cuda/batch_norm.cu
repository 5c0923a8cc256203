/* Batch norm over [rows, channels], with the activation in the same pass, and a squeeze-excite's product or a shortcut's sum when fuse.cu found one behind it.
 *
 * Forward: one pass for the statistics (sums of x - k and (x - k)^2, k = the channel's first value, so that nothing cancels), one to normalise. Backward: one for
 * sum d' and sum d' xhat with d' = dy act'(z), one for dx = gamma rstd (d' - mean d' - xhat mean(d' xhat)). z is recomputed from x: the
 * activation's input is never stored. Each pass is one launch (columns.cuh); where a tensor fits, both are one and memory is read once (batch_norm_cluster.cu).
 *
 * With squeeze-excite (bf16): y = act(z) s, where each image has its s (a sixth input); backward dy = d s + alpha q, of d and of each image's s and q (inputs 0, 6 and 7),
 * is made wherever it is read and stored nowhere.
 *
 * With a shortcut (bf16, no activation): y = norm(x) + r (input 3, or 6 where statistics are given).
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/batch_norm.cuh"

enum { SHORTCUT = -1 };

template <int W, int TYPE>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2)
    stats_kernel(const __grid_constant__ kn_columns k, const __grid_constant__ bn_args a,
                 const __grid_constant__ bn_sums s)
{
    extern __shared__ __align__(16) float shared[];
    kn_begin();
    kn_place p = kn_where<W>(k);
    float v[2][W] = {};
    if (p.active) {
        kn_flow<1, W, TYPE> flow(k, p, shared, a.from);
        kn_raw<W, TYPE> first;
        first.load(a.from.p[0], a.from.type[0], p.channel);
        flow.rows([&](const kn_raw<W, TYPE>(&v1)[1], int64_t) {
#pragma unroll
            for (int w = 0; w < W; w++) {
                float d = v1[0].get(w) - first.get(w);
                v[0][w] += d;
                v[1][w] = fmaf(d, d, v[1][w]);
            }
        });
    }
    __syncthreads();
    if (!kn_column_sums<2, W>(k, v, s.partial, s.arrived, shared, (double *)shared))
        return;
    const double *total = (const double *)shared;
    for (int i = threadIdx.x, n = k.groups * W; i < n; i += k.groups * k.lanes) {
        int channel = blockIdx.y * n + i;
        double m = total[i] / (double)k.rows, var = total[n + i] / (double)k.rows - m * m;
        if (channel < k.channels) {
            s.a[channel] = (float)(m + kn_load(a.from.p[0], a.from.type[0], channel));
            s.b[channel] = (float)(var > 0 ? var : 0);
        }
    }
}

/* E: 1 with squeeze-excite, SHORTCUT with that, else 0. */
template <int ACT, int W, int TYPE, int E>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2)
    apply_kernel(const __grid_constant__ kn_columns k, const __grid_constant__ bn_args a)
{
    extern __shared__ __align__(16) float shared[];
    constexpr bool FAST = TYPE == KN_BF16, R = E == SHORTCUT, S = E == 1;
    kn_begin();
    kn_place p = kn_where<W>(k);
    float scale[W], shift[W];
    if (!p.active)
        return;
    kn_flow<1 + R, W, TYPE, S> flow(k, p, shared, a.from);
    kn_norm_coefficients<W>(a.norm, p.channel, scale, shift);
    flow.rows([&](const kn_raw<W, TYPE>(&v)[1 + R + S], int64_t i) {
        float y[W];
#pragma unroll
        for (int w = 0; w < W; w++) {
            y[w] = kn_act_of<ACT, FAST>(a.act, 0, fmaf(v[0].get(w), scale[w], shift[w]));
            if (S)
                y[w] *= v[S].get(w);
            if (R)
                y[w] += v[R].get(w);
        }
        kn_storew<W>(y, a.out, TYPE == KN_ANY_TYPE ? a.out_type : TYPE, i);
    });
}

template <int ACT, int W, int TYPE, int E>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2)
    grad_sums_kernel(const __grid_constant__ kn_columns k, const __grid_constant__ bn_args a,
                     const __grid_constant__ bn_sums s)
{
    constexpr bool FAST = TYPE == KN_BF16;
    extern __shared__ __align__(16) float shared[];
    kn_begin();
    kn_place p = kn_where<W>(k);
    float v[2][W] = {}, scale[W], mean[W];
    if (p.active) {
        kn_flow<2, W, TYPE, E> flow(k, p, shared, a.from);
        float beta[W];
        kn_norm_centred<W>(a.norm, p.channel, scale, mean, beta);
        flow.rows([&](const kn_raw<W, TYPE>(&r)[2 + E], int64_t) {
#pragma unroll
            for (int w = 0; w < W; w++) {
                float c = r[0].get(w) - mean[w],
                      g = dy_of<W, TYPE, E>(r, w, a.alpha) * kn_act_of<ACT, FAST>(a.act, 1, fmaf(c, scale[w], beta[w]));
                v[0][w] += g;
                v[1][w] = fmaf(g, c, v[1][w]);
            }
        });
    }
    __syncthreads();
    if (!kn_column_sums<2, W>(k, v, s.partial, s.arrived, shared, (double *)shared))
        return;
    const double *total = (const double *)shared;
    for (int i = threadIdx.x, n = k.groups * W; i < n; i += k.groups * k.lanes) {
        int channel = blockIdx.y * n + i;
        if (channel >= k.channels)
            continue;
        float db = (float)total[i], dg = (float)(total[n + i] * (double)rsqrtf(a.norm.var[channel] + a.norm.eps));
        s.a[channel] = db;
        s.b[channel] = dg;
        if (s.dgamma)
            s.dgamma[channel] = dg + (s.add_gamma ? s.dgamma[channel] : 0.f);
        if (s.dbeta)
            s.dbeta[channel] = db + (s.add_beta ? s.dbeta[channel] : 0.f);
    }
}

template <int ACT, int W, int TYPE, int E>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2)
    grad_apply_kernel(const __grid_constant__ kn_columns k, const __grid_constant__ bn_args a, const float *s1,
                      const float *s2)
{
    extern __shared__ __align__(16) float shared[];
    constexpr bool FAST = TYPE == KN_BF16;
    kn_begin();
    kn_place p = kn_where<W>(k);
    float scale[W], shift[W], c1[W], c0[W];
    if (!p.active)
        return;
    kn_flow<2, W, TYPE, E> flow(k, p, shared, a.from);
    float mean[W], var[W], m1[W], m2[W];
    kn_norm_centred<W>(a.norm, p.channel, scale, mean, shift);
    kn_load_channels<W>(var, a.norm.var, p.channel, 0.f);
    kn_load_channels<W>(m1, s1, p.channel, 0.f);
    kn_load_channels<W>(m2, s1 ? s2 : NULL, p.channel, 0.f);
    /* dx = scale d' - c1 x - c0, with xhat = (x - mean) rstd multiplied out. */
#pragma unroll
    for (int w = 0; w < W; w++) {
        const float rstd = rsqrtf(var[w] + a.norm.eps), n = 1.f / (float)k.rows;
        shift[w] -= mean[w] * scale[w];
        c1[w] = scale[w] * m2[w] * n * rstd;
        c0[w] = scale[w] * m1[w] * n - c1[w] * mean[w];
    }
    flow.rows([&](const kn_raw<W, TYPE>(&r)[2 + E], int64_t i) {
        const int type = TYPE == KN_ANY_TYPE ? a.out_type : TYPE;
        float d[W];
#pragma unroll
        for (int w = 0; w < W; w++) {
            float v = r[0].get(w),
                  g = dy_of<W, TYPE, E>(r, w, a.alpha) * kn_act_of<ACT, FAST>(a.act, 1, fmaf(v, scale[w], shift[w]));
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

/* The same, where N tensors are read, all of which must be bf16. */
static int short_width(int width, const bn_args &a, int n)
{
    for (int i = 0; i < n; i++)
        if (a.from.type[i] != KN_BF16 || !kn_aligned(a.from.p[i]))
            return 1;
    return width;
}

/* For a pass that makes sums, or for one that does not. */
static kn_columns columns_of(const kn_call *c, const kn_tensor *x, int width, bool sums)
{
    const bool wide = !sums || kn_shape_count(&x->shape) >= KN_COLUMN_LARGE;
    return kn_columns_make(rows_of(x), x->shape.d[x->shape.rank - 1], width, kn_cuda(c)->sms, wide);
}

static void from_add(bn_args *a, int n, const kn_tensor *t)
{
    a->from.p[n] = t->p;
    a->from.type[n] = t->dtype;
}

/* What each image has, one row of channels. */
static void from_images(bn_args *a, int n, const kn_tensor *x, const kn_tensor *t)
{
    from_add(a, n, t);
    a->from.pixels = (int)(rows_of(x) / t->shape.d[0]);
}

static bn_args args_of(const kn_call *c, int first)
{
    bn_args a = {};
    from_add(&a, 0, &c->in[first]);
    a.norm.gamma = (const float *)c->in[first + 1].p;
    a.norm.beta = (const float *)c->in[first + 2].p;
    a.out = c->out[0].p;
    a.out_type = c->out[0].dtype;
    a.act = c->a->act;
    a.norm.eps = c->a->eps;
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
#define BN_LAUNCH(c, kernel, act, width, type, k, shared, ...)                                                  \
    do {                                                                                                        \
        if ((width) == KN_VEC && (type) == KN_BF16)                                                             \
            KN_WITH_ACT(act, ACT, BN_LAUNCH_ONE(c, (kernel<ACT, KN_VEC, KN_BF16, 0>), k, shared, __VA_ARGS__)); \
        else if ((width) == KN_VEC)                                                                             \
            KN_WITH_ACT(act, ACT, BN_LAUNCH_ONE(c, (kernel<ACT, KN_VEC, KN_F32, 0>), k, shared, __VA_ARGS__));  \
        else                                                                                                    \
            BN_LAUNCH_ONE(c, (kernel<-1, 1, KN_ANY_TYPE, 0>), k, shared, __VA_ARGS__);                          \
    } while (0)
/* With E tensors of squeeze-excite: only plans in bf16 have them. */
#define BN_LAUNCH_EXCITED(c, kernel, E, act, width, k, shared, ...)                                             \
    do {                                                                                                        \
        if ((width) == KN_VEC)                                                                                  \
            KN_WITH_ACT(act, ACT, BN_LAUNCH_ONE(c, (kernel<ACT, KN_VEC, KN_BF16, E>), k, shared, __VA_ARGS__)); \
        else                                                                                                    \
            BN_LAUNCH_ONE(c, (kernel<-1, 1, KN_ANY_TYPE, E>), k, shared, __VA_ARGS__);                          \
    } while (0)

/* Partial sums, then two numbers per channel. */
extern "C" size_t kn_cuda_batch_norm_scratch(const kn_call *c)
{
    const kn_tensor *x = &c->in[c->n_in >= 6 ? 1 : 0]; /* the gradient has dy first */
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
    const size_t shared = shared_of(k, 1, 2, width, a.from.type[0]);
    if (width == KN_VEC && a.from.type[0] == KN_BF16)
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
    from_add(&a, 0, x);
    s.partial = (float *)c->scratch, s.a = mean, s.b = var, s.arrived = kn_cuda(c)->arrived;
    stats(c, k, a, s, width);
}

static void apply(const kn_call *c, const bn_args &a, int width, bool shortcut)
{
    const int type = a.from.type[0];
    const kn_columns k = columns_of(c, &c->in[0], width, false);
    const size_t shared = shared_of(k, shortcut ? 2 : 1, 0, width, type);
    if (!shortcut)
        BN_LAUNCH(c, apply_kernel, a.act, width, type, k, shared, k, a);
    else if (width == KN_VEC)
        BN_LAUNCH_ONE(c, (apply_kernel<KN_ACT_NONE, KN_VEC, KN_BF16, SHORTCUT>), k, shared, k, a);
    else
        BN_LAUNCH_ONE(c, (apply_kernel<KN_ACT_NONE, 1, KN_ANY_TYPE, SHORTCUT>), k, shared, k, a);
}

extern "C" es_status kn_cuda_batch_norm(const kn_call *c, es_error *err)
{
    int width = width_of(&c->in[0], &c->out[0], NULL);
    kn_columns k = columns_of(c, &c->in[0], width, true);
    bn_args a = args_of(c, 0);
    bn_sums s = sums_of(c, &k, width);
    const bool shortcut = c->n_in == 4;
    int result_width = width;

    if (shortcut) {
        from_add(&a, 1, &c->in[3]);
        result_width = short_width(width, a, 2);
    }
    s.a = (float *)c->out[1].p, s.b = (float *)c->out[2].p;
    if (result_width == 1 || a.from.type[0] != KN_BF16 || !kn_cuda_norm_whole(c, a, s, k.rows, k.channels, shortcut)) {
        stats(c, k, a, s, width);
        a.norm.mean = s.a;
        a.norm.var = s.b;
        apply(c, a, result_width, shortcut);
    }
    KN_LAUNCHED("batch_norm");
    return ES_OK;
}

extern "C" es_status kn_cuda_batch_norm_infer(const kn_call *c, es_error *err)
{
    int width = width_of(&c->in[0], &c->out[0], NULL);
    bn_args a = args_of(c, 0);
    a.norm.mean = (const float *)c->in[3].p;
    a.norm.var = (const float *)c->in[4].p;
    if (c->n_in == 6) {
        from_images(&a, 1, &c->in[0], &c->in[5]);
        width = short_width(width, a, 2);
        const kn_columns k = columns_of(c, &c->in[0], width, false);
        BN_LAUNCH_EXCITED(c, apply_kernel, 1, a.act, width, k, shared_of(k, 2, 0, width, KN_BF16), k, a);
    } else if (c->n_in == 7) {
        from_add(&a, 1, &c->in[6]);
        apply(c, a, short_width(width, a, 2), true);
    } else {
        apply(c, a, width, false);
    }
    KN_LAUNCHED("batch_norm_infer");
    return ES_OK;
}

static void grad_two(const kn_call *c, const bn_args &a, const bn_sums &s, int width, bool constants, bool excited)
{
    const int type = a.from.type[0], n = excited ? 4 : 2;
    const float *s1 = constants ? NULL : s.a;
    kn_columns k = columns_of(c, &c->in[1], width, true);
    if (excited)
        BN_LAUNCH_EXCITED(c, grad_sums_kernel, 2, a.act, width, k, shared_of(k, n, 2, width, type), k, a, s);
    else if (!constants || s.dgamma || s.dbeta)
        BN_LAUNCH(c, grad_sums_kernel, a.act, width, type, k, shared_of(k, n, 2, width, type), k, a, s);
    k = columns_of(c, &c->in[1], width, false);
    if (!c->out[0].p)
        return;
    if (excited)
        BN_LAUNCH_EXCITED(c, grad_apply_kernel, 2, a.act, width, k, shared_of(k, n, 0, width, type), k, a, s1, s.b);
    else
        BN_LAUNCH(c, grad_apply_kernel, a.act, width, type, k, shared_of(k, n, 0, width, type), k, a, s1, s.b);
}

static es_status grad(const kn_call *c, bool constants, es_error *err)
{
    const bool excited = c->n_in == 8;
    int width = width_of(&c->in[1], &c->out[0], &c->in[0]);
    bn_args a = args_of(c, 1);
    from_add(&a, 1, &c->in[0]);
    if (excited) {
        from_images(&a, 2, &c->in[1], &c->in[6]);
        from_images(&a, 3, &c->in[1], &c->in[7]);
        a.alpha = c->a->alpha;
        width = short_width(width, a, 4);
    }
    const kn_columns k = columns_of(c, &c->in[1], width, true);
    bn_sums s = sums_of(c, &k, width);
    a.norm.mean = (const float *)c->in[4].p;
    a.norm.var = (const float *)c->in[5].p;
    s.dgamma = (float *)c->out[1].p, s.add_gamma = c->accumulate >> 1 & 1;
    s.dbeta = (float *)c->out[2].p, s.add_beta = c->accumulate >> 2 & 1;
    if (constants || width == 1 || a.from.type[0] != KN_BF16 || !c->out[0].p ||
        !kn_cuda_norm_grad_whole(c, a, s, k.rows, k.channels, excited))
        grad_two(c, a, s, width, constants, excited);
    KN_LAUNCHED("batch_norm_grad");
    return ES_OK;
}

extern "C" es_status kn_cuda_batch_norm_grad(const kn_call *c, es_error *err) { return grad(c, false, err); }

extern "C" es_status kn_cuda_batch_norm_infer_grad(const kn_call *c, es_error *err) { return grad(c, true, err); }
