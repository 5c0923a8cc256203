/* depthwise.cuh - what the depthwise kernels share: the geometry of a call, and the choice of a kernel by its size. */
#ifndef KN_CUDA_DEPTHWISE_CUH
#define KN_CUDA_DEPTHWISE_CUH

#include "kernels/cuda/cuda.cuh"

struct dw_args {
    const void *x, *dy;
    const void *w;
    void *out;
    int x_type, dy_type, w_type, out_type;
    int n, h, w_in, c, oh, ow;
    int k, stride, pad, dilation;
    int64_t ws0, ws1; /* strides of the weight's kh and kw */
    int accumulate;
};

static dw_args geometry(const kn_call *c, const kn_shape *x, const kn_shape *y, int k)
{
    dw_args a = {};
    a.n = x->d[0], a.h = x->d[1], a.w_in = x->d[2], a.c = x->d[3], a.oh = y->d[1], a.ow = y->d[2];
    a.k = k, a.stride = c->a->stride, a.pad = c->a->pad, a.dilation = c->a->dilation > 0 ? c->a->dilation : 1;
    a.accumulate = c->accumulate & 1;
    return a;
}

#define DW_BY_KERNEL(k, K, call, other) \
    do {                                \
        switch (k) {                    \
        case 3: {                       \
            constexpr int K = 3;        \
            call;                       \
            break;                      \
        }                               \
        case 5: {                       \
            constexpr int K = 5;        \
            call;                       \
            break;                      \
        }                               \
        case 7: {                       \
            constexpr int K = 7;        \
            call;                       \
            break;                      \
        }                               \
        default: other;                 \
        }                               \
    } while (0)

#ifdef __CUDACC__
template <int V>
static __device__ __forceinline__ void load_weight(float *v, const dw_args &a, int ky, int kx, int channel)
{
    kn_loadw<V>(v, a.w, a.w_type, ky * a.ws0 + kx * a.ws1 + channel);
}

/* V channels, of a type known to be bf16 (BF) or not. */
template <int V, bool BF> static __device__ __forceinline__ void load_some(float *v, const void *p, int type, int64_t i)
{
    if (BF && V == 2) {
        uint32_t u = *(const uint32_t *)((const __nv_bfloat16 *)p + i);
        v[0] = __uint_as_float(u << 16);
        v[V - 1] = __uint_as_float(u & 0xffff0000u);
    } else {
#pragma unroll
        for (int k = 0; k < V; k++)
            v[k] = kn_load(p, type, i + k);
    }
}

/* SPAN pairs of channels side by side in row iy, from column `first` on; zeros outside. */
template <int SPAN>
static __device__ __forceinline__ void load_row(uint32_t (&x)[SPAN], const __nv_bfloat16 *image, const dw_args &a,
                                                int iy, int first)
{
    const __nv_bfloat16 *row = image + ((int64_t)iy * a.w_in + first) * a.c;
#pragma unroll
    for (int j = 0; j < SPAN; j++)
        x[j] = iy < a.h && (unsigned)(first + j) < (unsigned)a.w_in ? *(const uint32_t *)(row + (int64_t)j * a.c) : 0;
}
#endif

#endif
