/* The optimisers' passes on the device: one pass over values, gradients and state per update, the bf16 shadow written in the same pass.
 * Semantics: kernels/cpu/optim.c. Half a warp per block of KN_OPTIM_BLOCK = 64 elements, four a lane; a thread block per piece of 256 blocks.
 */
#include "kernels/cuda/cuda.cuh"
#include "kernels/optim/optim_internal.h"

enum { THREADS = 256, EACH = KN_OPTIM_BLOCK / 32 };

static __device__ __forceinline__ float clipped(float g, float limit)
{
    return limit > 0 ? fminf(fmaxf(g, -limit), limit) : g;
}

/* Sum over the thread block in a fixed order. */
static __device__ double block_sum(double v)
{
    __shared__ double part[THREADS / 32];
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < THREADS / 32; i++)
        v += part[i];
    return v;
}

static __global__ void __launch_bounds__(THREADS) norm_kernel(const __grid_constant__ kn_optim_pass p, float clip_value)
{
    int64_t first = blockIdx.x * (int64_t)KN_OPTIM_PIECE,
            end = first + KN_OPTIM_PIECE < p.blocks ? first + KN_OPTIM_PIECE : p.blocks;
    double sum = 0;
    for (int64_t b = first + threadIdx.x / 32; b < end; b += THREADS / 32)
        if (p.flags[b] & KN_OPTIM_TRAIN)
            for (int k = 0; k < EACH; k++) {
                float g = clipped(p.g[b * KN_OPTIM_BLOCK + k * 32 + threadIdx.x % 32], clip_value);
                sum += (double)g * g;
            }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        p.partial[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS) norm_finish(const double *partial, int64_t pieces, float *norm)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < pieces; i += THREADS)
        sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *norm = (float)sqrt(sum);
}

/* New value of an element; its state is changed in place. */
static __device__ __forceinline__ float step_sgd(const kn_optim_pass &p, const kn_optim_config &c, float w, float g,
                                                 float *momentum)
{
    if (!p.a)
        return w - p.lr * g;
    float next = c.momentum * *momentum + g;
    *momentum = next;
    return w - p.lr * (c.nesterov ? g + c.momentum * next : next);
}

static __device__ __forceinline__ float step_adam(const kn_optim_pass &p, const kn_optim_config &c, float w, float g,
                                                  float shrink, float *first, float *second)
{
    float m = c.beta1 * *first + (1 - c.beta1) * g, v = c.beta2 * *second + (1 - c.beta2) * g * g;
    *first = m;
    *second = v;
    return w * shrink - p.lr / p.bias1 * m / (sqrtf(v) * rsqrtf(p.bias2) + c.eps);
}

struct four {
    float v[4];
};
static __device__ __forceinline__ four load_4(const float *p, int64_t i)
{
    float4 u = p ? *(const float4 *)(p + i) : make_float4(0, 0, 0, 0);
    return {{u.x, u.y, u.z, u.w}};
}
static __device__ __forceinline__ void store_4(float *p, int64_t i, const four &f)
{
    if (p)
        *(float4 *)(p + i) = make_float4(f.v[0], f.v[1], f.v[2], f.v[3]);
}

/* Four trained elements from i on; the sum of their raw gradients' squares. */
static __device__ __forceinline__ double step_4(const kn_optim_pass &p, const kn_optim_config &c, int64_t i,
                                                float scale, bool decays, four *w)
{
    const float coupled = decays && c.kind != KN_ADAMW ? c.decay : 0.f,
                shrink = decays && c.kind == KN_ADAMW ? 1 - p.lr * c.decay : 1.f;
    four g = load_4(p.g, i), a = load_4(p.a, i), b = load_4(p.b, i);
    double sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float d = clipped(g.v[k], c.clip_value) * scale + coupled * w->v[k];
        sum += (double)g.v[k] * g.v[k];
        w->v[k] = c.kind == KN_SGD ? step_sgd(p, c, w->v[k], d, &a.v[k])
                                   : step_adam(p, c, w->v[k], d, shrink, &a.v[k], &b.v[k]);
        g.v[k] = 0;
    }
    store_4(p.w, i, *w);
    store_4(p.g, i, g);
    store_4(p.a, i, a);
    store_4(p.b, i, b);
    if (p.shadow) {
        __nv_bfloat162 h[2] = {__floats2bfloat162_rn(w->v[0], w->v[1]), __floats2bfloat162_rn(w->v[2], w->v[3])};
        *(uint2 *)((__nv_bfloat16 *)p.shadow + i) = *(const uint2 *)h;
    }
    return sum;
}

static __global__ void __launch_bounds__(THREADS)
    update_kernel(const __grid_constant__ kn_optim_pass p, const __grid_constant__ kn_optim_config c)
{
    const int64_t first = blockIdx.x * (int64_t)KN_OPTIM_PIECE,
                  end = first + KN_OPTIM_PIECE < p.blocks ? first + KN_OPTIM_PIECE : p.blocks;
    const float norm = c.clip_norm > 0 ? *p.norm : 0,
                scale = c.clip_norm > 0 && norm > c.clip_norm ? c.clip_norm / norm : 1.f;
    double sum = 0;
    for (int64_t b = first + threadIdx.x / 16; b < end; b += THREADS / 16) {
        const int64_t i = b * KN_OPTIM_BLOCK + threadIdx.x % 16 * 4;
        four w = load_4(p.w, i);
        if (p.flags[b] & KN_OPTIM_TRAIN)
            sum += step_4(p, c, i, scale, p.flags[b] & KN_OPTIM_DECAY, &w);
        if (p.ema) {
            four average = load_4(p.ema, i);
#pragma unroll
            for (int k = 0; k < 4; k++)
                average.v[k] += (1 - c.ema) * (w.v[k] - average.v[k]);
            store_4(p.ema, i, average);
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        p.partial[blockIdx.x] = sum;
}

static es_status norm(kn_device *d, const kn_optim_pass *p, es_error *err)
{
    cudaStream_t stream = ((kn_cuda_device *)d)->stream;
    norm_kernel<<<(unsigned)p->pieces, THREADS, 0, stream>>>(*p, p->c->clip_value);
    norm_finish<<<1, THREADS, 0, stream>>>(p->partial, p->pieces, p->norm);
    KN_LAUNCHED("optimiser norm");
    return ES_OK;
}

static es_status update(kn_device *d, const kn_optim_pass *p, es_error *err)
{
    update_kernel<<<(unsigned)p->pieces, THREADS, 0, ((kn_cuda_device *)d)->stream>>>(*p, *p->c);
    KN_LAUNCHED("optimiser update");
    return ES_OK;
}

extern "C" const kn_optim_kernels kn_cuda_optim;
const kn_optim_kernels kn_cuda_optim = {norm, update, true};
