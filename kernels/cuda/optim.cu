/* The optimisers' passes on the device: one pass over values, gradients and state per update, the bf16 shadow written in the same pass.
 * Semantics: kernels/cpu/optim.c. A warp per block of KN_OPTIM_BLOCK = 64 elements, a thread block per piece of 256 blocks.
 */
#include "kernels/cuda/cuda.cuh"
#include "kernels/optim_internal.h"

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

static __device__ __forceinline__ float step_sgd(const kn_optim_pass &p, const kn_optim_config &c, int64_t i, float w,
                                                 float g)
{
    if (!p.a)
        return w - p.lr * g;
    float next = c.momentum * p.a[i] + g;
    p.a[i] = next;
    return w - p.lr * (c.nesterov ? g + c.momentum * next : next);
}

static __device__ __forceinline__ float step_adam(const kn_optim_pass &p, const kn_optim_config &c, int64_t i, float w,
                                                  float g, float shrink)
{
    float m = c.beta1 * p.a[i] + (1 - c.beta1) * g, v = c.beta2 * p.b[i] + (1 - c.beta2) * g * g;
    p.a[i] = m;
    p.b[i] = v;
    return w * shrink - p.lr / p.bias1 * m / (sqrtf(v) * rsqrtf(p.bias2) + c.eps);
}

static __global__ void __launch_bounds__(THREADS)
    update_kernel(const __grid_constant__ kn_optim_pass p, const __grid_constant__ kn_optim_config c)
{
    int64_t first = blockIdx.x * (int64_t)KN_OPTIM_PIECE,
            end = first + KN_OPTIM_PIECE < p.blocks ? first + KN_OPTIM_PIECE : p.blocks;
    float norm = c.clip_norm > 0 ? *p.norm : 0,
          scale = c.clip_norm > 0 && norm > c.clip_norm ? c.clip_norm / norm : 1.f;
    double sum = 0;
    for (int64_t b = first + threadIdx.x / 32; b < end; b += THREADS / 32) {
        bool train = p.flags[b] & KN_OPTIM_TRAIN, decays = p.flags[b] & KN_OPTIM_DECAY;
        float coupled = decays && c.kind != KN_ADAMW ? c.decay : 0.f,
              shrink = decays && c.kind == KN_ADAMW ? 1 - p.lr * c.decay : 1.f;
        for (int k = 0; k < EACH; k++) {
            int64_t i = b * KN_OPTIM_BLOCK + k * 32 + threadIdx.x % 32;
            float w = p.w[i];
            if (train) {
                float raw = p.g[i], g = clipped(raw, c.clip_value) * scale + coupled * w;
                sum += (double)raw * raw;
                w = c.kind == KN_SGD ? step_sgd(p, c, i, w, g) : step_adam(p, c, i, w, g, shrink);
                p.w[i] = w;
                p.g[i] = 0;
                if (p.shadow)
                    ((__nv_bfloat16 *)p.shadow)[i] = __float2bfloat16_rn(w);
            }
            if (p.ema)
                p.ema[i] += (1 - c.ema) * (w - p.ema[i]);
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
