/* The gradient of act(a + bias): g = d act'(a + bias) and its sum over all rows, in one pass (columns.cuh). */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/columns.cuh"

struct bias_args {
    const void *d, *a, *bias;
    void *out, *sum;
    int d_type, a_type, bias_type, out_type, sum_type, act, add;
    float *partial;
    unsigned *arrived;
};

template <int ACT, int W, bool FAST>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2) bias_grad_kernel(kn_columns k, const bias_args b)
{
    extern __shared__ float shared[];
    __shared__ double total[KN_COLUMN_GROUPS * KN_VEC];
    kn_begin();
    kn_place p = kn_where<W>(k);
    float v[1][W] = {}, bias[W], a[W], d[W];
    if (p.active) {
#pragma unroll
        for (int w = 0; w < W; w++)
            bias[w] = b.bias ? kn_load(b.bias, b.bias_type, p.channel + w) : 0.f;
#pragma unroll 2
        for (int64_t r = p.first + p.lane; r < p.end; r += k.lanes) {
            int64_t i = r * k.channels + p.channel;
            kn_loadw<W>(a, b.a, b.a_type, i);
            kn_loadw<W>(d, b.d, b.d_type, i);
#pragma unroll
            for (int w = 0; w < W; w++) {
                d[w] *= kn_act_of<ACT, FAST>(b.act, 1, a[w] + bias[w]);
                v[0][w] += d[w];
            }
            if (b.out)
                kn_storew<W>(d, b.out, b.out_type, i);
        }
    }
    if (!b.sum || !kn_column_sums<1, W>(k, v, b.partial, b.arrived, shared, total))
        return;
    for (int i = threadIdx.x, n = k.groups * W; i < n; i += k.groups * k.lanes) {
        int channel = blockIdx.y * n + i;
        if (channel < k.channels)
            kn_store(b.sum, b.sum_type, channel, (float)total[i] + (b.add ? kn_load(b.sum, b.sum_type, channel) : 0.f));
    }
}

static int channels_of(const kn_tensor *t) { return t->shape.rank ? t->shape.d[t->shape.rank - 1] : 1; }

extern "C" size_t kn_cuda_bias_act_grad_scratch(const kn_call *c)
{
    int channels = channels_of(&c->in[1]);
    return channels ? kn_columns_scratch(kn_shape_count(&c->in[1].shape) / channels, channels, 1, kn_cuda(c)->sms) : 0;
}

extern "C" es_status kn_cuda_bias_act_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *d = &c->in[0], *a = &c->in[1], *bias = &c->in[2];
    int channels = channels_of(a), width = 1;
    bias_args b = {};
    if (channels == 0)
        return ES_OK;
    if (c->out[0].dtype == KN_BF16 && channels % KN_VEC == 0 && kn_aligned(d->p) && kn_aligned(a->p) &&
        kn_aligned(c->out[0].p))
        width = KN_VEC;
    kn_columns k = kn_columns_make(kn_shape_count(&a->shape) / channels, channels, width, kn_cuda(c)->sms, false);
    dim3 grid((unsigned)k.row_blocks, (unsigned)k.col_blocks), block((unsigned)(k.groups * k.lanes));
    size_t shared = kn_columns_shared(k, 1, width);
    b.d = d->p, b.d_type = d->dtype, b.a = a->p, b.a_type = a->dtype, b.bias = bias->p, b.bias_type = bias->dtype;
    b.out = c->out[0].p, b.out_type = c->out[0].dtype, b.sum = c->out[1].p, b.sum_type = c->out[1].dtype;
    b.act = c->a->act, b.add = c->accumulate >> 1 & 1;
    b.partial = (float *)c->scratch, b.arrived = kn_cuda(c)->arrived;
    const bool fast = b.out_type == KN_BF16;
    if (width == KN_VEC && b.act == KN_ACT_SIGMOID)
        kn_launch(bias_grad_kernel<KN_ACT_SIGMOID, KN_VEC, true>, grid, block, shared, kn_stream(c), k, b);
    else if (width == KN_VEC)
        KN_WITH_ACT(b.act, ACT,
                    (kn_launch(bias_grad_kernel<ACT, KN_VEC, true>, grid, block, shared, kn_stream(c), k, b)));
    else if (fast)
        kn_launch(bias_grad_kernel<-1, 1, true>, grid, block, shared, kn_stream(c), k, b);
    else
        kn_launch(bias_grad_kernel<-1, 1, false>, grid, block, shared, kn_stream(c), k, b);
    KN_LAUNCHED("bias_act_grad");
    return ES_OK;
}
