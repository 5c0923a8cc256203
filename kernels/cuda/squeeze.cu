/* Sums over the pixels of each image of what a batch norm and its activation make of x, which is stored nowhere: the pooling of squeeze-excite, and with d the gradient of
 * its scales (fuse_excite.cu).
 *
 *     REDUCE_SUM    x, gamma, beta, mean, var      -> out[n][c] = a.alpha (0: 1) sum over pixels of act(norm(x))
 *     MUL_REDUCE    d, x, gamma, beta, mean, var   -> out[n][c] =               sum over pixels of d act(norm(x))
 *
 * A block has one image and a column of channels; its lanes walk the pixels, four on their way at once, and are added in lane order.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/norm.cuh"

enum { SQUEEZE_THREADS = 256, SQUEEZE_LANES = 32, SQUEEZE_BATCH = 4 };

struct squeeze_args {
    const void *x, *d;
    void *out;
    int x_type, d_type, out_type, act;
    kn_norm_given norm;
    float scale;
    int pixels, channels, groups, lanes, accumulate;
};

/* What lanes v have summed, added up and stored. */
template <int W> static __device__ __forceinline__ void squeeze_finish(const squeeze_args &a, const float (&v)[W])
{
    extern __shared__ __align__(16) float shared[];
    const int threads = a.groups * a.lanes;
#pragma unroll
    for (int w = 0; w < W; w++)
        shared[w * threads + threadIdx.x] = v[w];
    __syncthreads();
    for (int i = threadIdx.x; i < a.groups * W; i += threads) { /* group i % groups, element i / groups */
        const int channel = (blockIdx.y * a.groups + i % a.groups) * W + i / a.groups;
        const int64_t o = blockIdx.x * (int64_t)a.channels + channel;
        float sum = 0;
        for (int l = 0; l < a.lanes; l++)
            sum += shared[i / a.groups * threads + l * a.groups + i % a.groups];
        if (channel < a.channels)
            kn_store(a.out, a.out_type, o, fmaf(sum, a.scale, a.accumulate ? kn_load(a.out, a.out_type, o) : 0.f));
    }
}

template <int ACT, int W, int TYPE, bool DOT>
static __global__ void __launch_bounds__(SQUEEZE_THREADS, 3) squeeze_kernel(const __grid_constant__ squeeze_args a)
{
    constexpr bool FAST = TYPE == KN_BF16;
    kn_begin();
    const int group = (int)threadIdx.x % a.groups, lane = (int)threadIdx.x / a.groups,
              channel = (blockIdx.y * a.groups + group) * W;
    const int64_t base = blockIdx.x * (int64_t)a.pixels * a.channels + channel;
    float v[W] = {}, scale[W], shift[W];
    for (int m = lane; m < a.pixels && channel < a.channels; m += SQUEEZE_BATCH * a.lanes) {
        kn_raw<W, TYPE> x[SQUEEZE_BATCH], d[SQUEEZE_BATCH];
#pragma unroll
        for (int i = 0; i < SQUEEZE_BATCH; i++)
            if (m + i * a.lanes < a.pixels) {
                const int64_t at = base + (int64_t)(m + i * a.lanes) * a.channels;
                x[i].load(a.x, a.x_type, at);
                if (DOT)
                    d[i].load(a.d, a.d_type, at);
            }
        if (m == lane) /* behind the first loads */
            kn_norm_coefficients<W>(a.norm, channel, scale, shift);
#pragma unroll
        for (int i = 0; i < SQUEEZE_BATCH; i++)
            if (m + i * a.lanes < a.pixels)
#pragma unroll
                for (int w = 0; w < W; w++) {
                    const float y = kn_act_of<ACT, FAST>(a.act, 0, fmaf(x[i].get(w), scale[w], shift[w]));
                    v[w] = DOT ? fmaf(d[i].get(w), y, v[w]) : v[w] + y;
                }
    }
    squeeze_finish<W>(a, v);
}

template <bool DOT> static es_status squeeze(const kn_call *c, es_error *err)
{
    const int first = DOT ? 1 : 0;
    const kn_tensor *x = &c->in[first];
    const int rank = x->shape.rank;
    squeeze_args a = {};
    if (kn_shape_count(&x->shape) == 0)
        return ES_OK;
    a.x = x->p, a.x_type = x->dtype, a.out = c->out[0].p, a.out_type = c->out[0].dtype;
    a.d = c->in[0].p, a.d_type = c->in[0].dtype;
    a.act = c->a->act, a.scale = c->a->alpha != 0 ? c->a->alpha : 1, a.accumulate = c->accumulate & 1;
    a.norm = {(const float *)c->in[first + 1].p, (const float *)c->in[first + 2].p, (const float *)c->in[first + 3].p,
              (const float *)c->in[first + 4].p, c->a->eps};
    a.channels = x->shape.d[rank - 1];
    a.pixels = (int)(kn_shape_count(&x->shape) / x->shape.d[0] / a.channels);
    const bool vectors =
        a.channels % KN_VEC == 0 && a.x_type == KN_BF16 && a.d_type == KN_BF16 && kn_aligned(a.x) && kn_aligned(a.d);
    const int width = vectors ? KN_VEC : 1, all = a.channels / width, few = (int)kn_ceil(a.pixels, SQUEEZE_BATCH);
    a.lanes = few < SQUEEZE_LANES ? few : SQUEEZE_LANES;
    const int columns = (int)kn_ceil(all, SQUEEZE_THREADS / a.lanes);
    a.groups = (int)kn_ceil(all, columns);
    const dim3 grid((unsigned)x->shape.d[0], (unsigned)columns), block((unsigned)(a.groups * a.lanes));
    const size_t shared = (size_t)(a.groups * a.lanes * width) * sizeof(float);
    if (vectors)
        KN_WITH_ACT(a.act, ACT,
                    (kn_launch(squeeze_kernel<ACT, KN_VEC, KN_BF16, DOT>, grid, block, shared, kn_stream(c), a)));
    else
        kn_launch(squeeze_kernel<-1, 1, KN_ANY_TYPE, DOT>, grid, block, shared, kn_stream(c), a);
    KN_LAUNCHED("squeeze");
    return ES_OK;
}

es_status kn_cuda_squeeze(const kn_call *c, es_error *err) { return squeeze<false>(c, err); }
es_status kn_cuda_squeeze_dot(const kn_call *c, es_error *err) { return squeeze<true>(c, err); }
