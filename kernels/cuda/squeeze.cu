/* Sums over the pixels of each image of what a batch norm and its activation make of x, which is stored nowhere: the pooling of squeeze-excite, and with d the gradient of
 * its scales (fuse_excite.cu).
 *
 *     REDUCE_SUM    x, gamma, beta, mean, var      -> out[n][c] = a.alpha (0: 1) sum over pixels of act(norm(x))
 *     MUL_REDUCE    d, x, gamma, beta, mean, var   -> out[n][c] =               sum over pixels of d act(norm(x))
 *
 * A block has a column of channels, whose coefficients its threads keep, and as many images at once as it has threads for, one set after another; lanes walk the
 * pixels of an image, four on their way at once, and are added in lane order.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/norm.cuh"

enum { SQUEEZE_THREADS = 256, SQUEEZE_LANES = 32, SQUEEZE_BATCH = 4, SQUEEZE_GROUPS = 16, SQUEEZE_RESIDENT = 3 };

struct squeeze_args {
    const void *x, *d;
    void *out;
    int x_type, d_type, out_type, act;
    kn_norm_given norm;
    float scale;
    int images, pixels, channels, groups, lanes, subs, accumulate; /* subs: images at once */
};

/* Between the sums of an element and those of the next: eight elements of four groups are in different banks. */
static __host__ __device__ __forceinline__ int squeeze_stride(int threads) { return threads + ((4 - threads) & 31); }

/* What lanes v have summed for the images from `base` on, added up and stored. */
template <int W>
static __device__ __forceinline__ void squeeze_finish(const squeeze_args &a, int base, const float (&v)[W])
{
    extern __shared__ __align__(16) float shared[];
    const int stride = squeeze_stride((int)blockDim.x), each = a.groups * W;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < W; w++)
        shared[w * stride + threadIdx.x] = v[w];
    __syncthreads();
    for (int i = threadIdx.x; i < a.subs * each; i += blockDim.x) { /* group i % each / W, element i % W */
        const int sub = i / each, group = i % each / W, channel = blockIdx.y * each + i % each;
        const int64_t o = (base + sub) * (int64_t)a.channels + channel;
        float sum = 0;
        for (int l = 0; l < a.lanes; l++)
            sum += shared[i % W * stride + (sub * a.lanes + l) * a.groups + group];
        if (channel < a.channels && base + sub < a.images)
            kn_store(a.out, a.out_type, o, fmaf(sum, a.scale, a.accumulate ? kn_load(a.out, a.out_type, o) : 0.f));
    }
}

template <int ACT, int W, int TYPE, bool DOT>
static __global__ void __launch_bounds__(SQUEEZE_THREADS, SQUEEZE_RESIDENT)
    squeeze_kernel(const __grid_constant__ squeeze_args a)
{
    constexpr bool FAST = TYPE == KN_BF16;
    kn_begin();
    const int group = (int)threadIdx.x % a.groups, lane = (int)threadIdx.x / a.groups % a.lanes,
              sub = (int)threadIdx.x / (a.groups * a.lanes), channel = (blockIdx.y * a.groups + group) * W;
    float scale[W], shift[W];
    bool known = false; /* scale and shift, which are asked for behind the first rows */
    for (int base = (int)blockIdx.x * a.subs; base < a.images; base += (int)gridDim.x * a.subs) {
        const int64_t from = (base + sub) * (int64_t)a.pixels * a.channels + channel;
        const int pixels = base + sub < a.images && channel < a.channels ? a.pixels : 0;
        float v[W] = {};
        for (int m = lane; m < pixels; m += SQUEEZE_BATCH * a.lanes) {
            kn_raw<W, TYPE> x[SQUEEZE_BATCH], d[SQUEEZE_BATCH];
#pragma unroll
            for (int i = 0; i < SQUEEZE_BATCH; i++)
                if (m + i * a.lanes < pixels) {
                    const int64_t at = from + (int64_t)(m + i * a.lanes) * a.channels;
                    x[i].load(a.x, a.x_type, at);
                    if (DOT)
                        d[i].load(a.d, a.d_type, at);
                }
            if (!known)
                kn_norm_coefficients<W>(a.norm, channel, scale, shift);
            known = true;
#pragma unroll
            for (int i = 0; i < SQUEEZE_BATCH; i++)
                if (m + i * a.lanes < pixels)
#pragma unroll
                    for (int w = 0; w < W; w++) {
                        const float y = kn_act_of<ACT, FAST>(a.act, 0, fmaf(x[i].get(w), scale[w], shift[w]));
                        v[w] = DOT ? fmaf(d[i].get(w), y, v[w]) : v[w] + y;
                    }
        }
        squeeze_finish<W>(a, base, v);
    }
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
    const int most = SQUEEZE_THREADS / a.lanes < SQUEEZE_GROUPS ? SQUEEZE_THREADS / a.lanes : SQUEEZE_GROUPS,
              columns = (int)kn_ceil(all, most);
    a.images = x->shape.d[0];
    a.groups = (int)kn_ceil(all, columns);
    a.subs = SQUEEZE_THREADS / (a.groups * a.lanes);
    a.subs = a.subs < a.images ? a.subs : a.images;
    const int64_t sets = kn_ceil(a.images, a.subs),
                  want = kn_ceil((int64_t)kn_cuda(c)->sms * SQUEEZE_RESIDENT, columns),
                  rounds = kn_ceil(sets, want < sets ? want : sets);
    const dim3 grid((unsigned)kn_ceil(sets, rounds), (unsigned)columns), block((unsigned)(a.groups * a.lanes * a.subs));
    const size_t shared = (size_t)(squeeze_stride((int)block.x) * width) * sizeof(float);
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
