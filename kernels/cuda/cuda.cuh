/* cuda.cuh - what every file of the CUDA back end shares: the device, error checks, 8-wide loads of fp32 or bf16, launch shapes.
 *
 * Storage is fp32 or bf16 per tensor, arithmetic is fp32. Loads branch on the type at run time: the branch is uniform and the kernels that use it are bound by
 * memory. Kernels whose arithmetic matters (batch norm, depthwise) are templates on the activation, and use approximate functions only where the result is
 * stored as bf16.
 *
 * Deterministic: no floating-point atomics anywhere; every reduction has a shape-determined tree. No kernel allocates or waits.
 *
 * Which GPUs: compute capability 8.0 and up (kernels/device/capability.h). A kernel that uses what only 9.0 has is empty in code for others (KN_HOPPER) and launched only where
 * kn_cuda_device.can.hopper; what is done instead must need no more than KN_SHARED_MOST. docs/developing.md, "Which GPUs", has the rule.
 */
#ifndef KN_CUDA_CUH
#define KN_CUDA_CUH

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/device/capability.h"
#include "kernels/device/device_internal.h"
#include "kernels/graph/ops.h"

enum {
    KN_VEC = 8, /* elements a thread loads at once: 16 bytes of bf16 */
    /* Dynamic shared memory of a block: every device has it beside 3 KiB that are static (KN_SHARED_LEAST), and two blocks fit a multiprocessor of 9.0. */
    KN_SHARED_MOST = 96 << 10
};

/* Is this code for 9.0a, or seen by the host's compiler? */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KN_HOPPER 1
#else
#define KN_HOPPER 0
#endif

struct kn_cuda_gemm_cache;

/* What differs from run to run of a plan besides addresses. Kernels read it where it lies, so that a recorded plan sees that of its run. */
struct kn_cuda_now {
    float scalar[KN_SCALARS];
    uint64_t seed, step;
};

struct kn_cuda_device {
    kn_device base;
    int index, sms;
    kn_capability can;
    cudaStream_t stream;
    cublasLtHandle_t lt;
    void *lt_workspace;
    size_t lt_workspace_bytes;
    kn_cuda_gemm_cache *gemms;
    bool preparing;          /* products are looked up, nothing is launched */
    struct kn_cuda_now *now; /* device memory: of the run */
    /* Blocks that finished, per column and span of a reduction (columns.cuh); zero between kernels. */
    unsigned *arrived;
    struct kn_cuda_blends *blends;  /* waiting for the last one of their plan (blend.cu) */
    struct kn_cuda_recording *open; /* being made; NULL: kernels run */
    cudaEvent_t since; /* what other streams wait for that wait for this one (nccl.cu); NULL: all it was given */
};

/* Statistics of batch norms go to the depthwise convolutions before them (fuse.cu). */
es_status kn_cuda_fuse(kn_device *d, kn_plan *p, es_error *err);
/* Squeeze-excite made where its tensors are read (fuse_excite.cu), and its sums (squeeze.cu). */
void kn_cuda_fuse_excite(kn_plan *p);
es_status kn_cuda_squeeze(const kn_call *c, es_error *err);
es_status kn_cuda_squeeze_dot(const kn_call *c, es_error *err);
/* Running averages: a plan's BLENDs are put together at its end, where one launch does them all (blend.cu). */
void kn_cuda_fuse_blends(kn_plan *p);
es_status kn_cuda_blends_open(kn_cuda_device *dev, es_error *err);
void kn_cuda_blends_close(kn_cuda_device *dev);
void kn_cuda_blends_forget(kn_cuda_device *dev);

/* The depthwise kernels' shared memory, once per device. */
es_status kn_cuda_depthwise_open(kn_cuda_device *dev, es_error *err);
es_status kn_cuda_depthwise_dw_open(kn_cuda_device *dev, es_error *err);

/* Mean and variance of each channel (last dimension) of x, in the call's scratch (batch_norm.cu). */
size_t kn_cuda_stats_scratch(const kn_call *c, const kn_tensor *x);
void kn_cuda_stats(const kn_call *c, const kn_tensor *x, float *mean, float *var);

void kn_cuda_gemm_cache_free(kn_cuda_device *dev);
/* Storage types for KN_PRECISION_BF16 (store.cu): activations bf16; statistics, vectors, losses and gradients of parameters fp32. */
es_status kn_cuda_store(kn_device *d, kn_plan *p, es_error *err);
/* Gelu, its gradient and residual sums go to the products before them (fuse_products.cu). */
void kn_cuda_fuse_products(kn_plan *p);
/* Norms with given statistics, residual sums and squeeze-excite's scales go to the 1x1 convolutions beside them (fuse_points.cu), which run as kn_cuda_point then. */
void kn_cuda_fuse_points(kn_plan *p);
es_status kn_cuda_point(const kn_call *c, es_error *err);

/* images.cu */
es_status kn_cuda_images(kn_device *d, const kn_images *im, es_error *err);

static inline kn_cuda_device *kn_cuda(const kn_call *c) { return (kn_cuda_device *)c->dev; }
static inline cudaStream_t kn_stream(const kn_call *c) { return kn_cuda(c)->stream; }

/* ES_DEVICE with the CUDA error's name; ES_NO_MEMORY for memory. The sticky last error is cleared. */
es_status kn_cuda_fail(cudaError_t e, const char *what, es_error *err);
#define KN_CUDA_RETURN(call)                        \
    do {                                            \
        cudaError_t kn_e_ = (call);                 \
        if (kn_e_ != cudaSuccess)                   \
            return kn_cuda_fail(kn_e_, #call, err); \
    } while (0)
/* After a launch. */
#define KN_LAUNCHED(name)                          \
    do {                                           \
        cudaError_t kn_e_ = cudaGetLastError();    \
        if (kn_e_ != cudaSuccess)                  \
            return kn_cuda_fail(kn_e_, name, err); \
    } while (0)

/* What is made of a product before it is stored. GELU: gelu(P), tanh form, and P itself into aux unless that is NULL; GELU_GRAD: P gelu'(aux). aux is shaped and laid out as D. */
enum kn_epilogue { KN_EPILOGUE_NONE, KN_EPILOGUE_GELU, KN_EPILOGUE_GELU_GRAD };

/* D[m, n] = (accumulate ? C : 0) + op(A) op(B), row-major with leading dimensions; batched with strides. Types F32 or BF16; A and B of one type. C is laid out as D; NULL: it is D. */
struct kn_gemm {
    int64_t m, n, k;
    const void *a, *b, *c;
    void *d, *aux;
    int64_t lda, ldb, ldd;
    int64_t stride_a, stride_b, stride_d;
    int batch;
    kn_dtype ab, dd;
    bool ta, tb, accumulate;
    kn_epilogue epilogue;
};
/* While the device is `preparing`, only finds and caches the algorithm for this shape: kn_cuda_prepare, so that no step ever searches. */
es_status kn_cuda_gemm(kn_cuda_device *dev, const kn_gemm *g, es_error *err);
/* Runs a kernel that looks at `preparing` before each launch. */
es_status kn_cuda_prepare(kn_kernel kernel, const kn_call *c, es_error *err);

/* Lets a kernel have the dynamic shared memory that the device has for it, up to KN_SHARED_MOST; a launch that asks for more fails. */
cudaError_t kn_cuda_allow_shared(const kn_cuda_device *dev, const void *kernel);
/* The same before a launch with `bytes`, when that is beyond the 48 KiB that need no asking: the first time that this line is reached for a device. */
#define KN_ALLOW_SHARED(dev, kernel, bytes)                                              \
    do {                                                                                 \
        static uint64_t done_;                                                           \
        const uint64_t bit_ = 1ull << ((dev)->index & 63);                               \
        if ((bytes) > 40 << 10 && !(__atomic_load_n(&done_, __ATOMIC_RELAXED) & bit_)) { \
            kn_cuda_allow_shared(dev, (const void *)(kernel));                           \
            __atomic_fetch_or(&done_, bit_, __ATOMIC_RELAXED);                           \
        }                                                                                \
    } while (0)

/* False once this process has opened a device where kernels cannot wait for the one before them (kn_capability.early). */
extern bool kn_cuda_early;

/* Launches a kernel that begins with kn_begin(): where the device can, its blocks are set up while the kernel before is still finishing. */
template <typename... P, typename... A>
static inline void kn_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A... a)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = __atomic_load_n(&kn_cuda_early, __ATOMIC_RELAXED) ? 1 : 0;
    cudaLaunchKernelEx(&config, kernel, P(a)...); /* KN_LAUNCHED sees its error */
}

/* table.c */
#ifdef __cplusplus
extern "C" {
#endif
extern const kn_kernel_row kn_cuda_kernels[KN_OP_COUNT];
#ifdef __cplusplus
}
#endif

/* ---- device side ---------------------------------------------------------------------------------------------------------------------- */
#ifdef __CUDACC__

/* First of all in a kernel of kn_launch: everything before in the stream is complete and visible; the next kernel may be set up. */
static __device__ __forceinline__ void kn_begin(void)
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

static __device__ __forceinline__ float kn_load(const void *p, int dtype, int64_t i)
{
    return dtype == KN_BF16 ? __bfloat162float(((const __nv_bfloat16 *)p)[i]) : ((const float *)p)[i];
}
static __device__ __forceinline__ void kn_store(void *p, int dtype, int64_t i, float v)
{
    if (dtype == KN_BF16)
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(v);
    else
        ((float *)p)[i] = v;
}

/* Eight consecutive elements; i is a multiple of 8 and the base 16-byte aligned. */
static __device__ __forceinline__ void kn_load8(float v[8], const void *p, int dtype, int64_t i)
{
    if (dtype == KN_BF16) {
        uint4 u = *(const uint4 *)((const __nv_bfloat16 *)p + i);
        const __nv_bfloat162 *h = (const __nv_bfloat162 *)&u;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float2 f = __bfloat1622float2(h[k]);
            v[2 * k] = f.x;
            v[2 * k + 1] = f.y;
        }
    } else {
        float4 a = ((const float4 *)((const float *)p + i))[0], b = ((const float4 *)((const float *)p + i))[1];
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    }
}
static __device__ __forceinline__ void kn_store8(const float v[8], void *p, int dtype, int64_t i)
{
    if (dtype == KN_BF16) {
        uint4 u;
        __nv_bfloat162 *h = (__nv_bfloat162 *)&u;
#pragma unroll
        for (int k = 0; k < 4; k++)
            h[k] = __floats2bfloat162_rn(v[2 * k], v[2 * k + 1]);
        *(uint4 *)((__nv_bfloat16 *)p + i) = u;
    } else {
        ((float4 *)((float *)p + i))[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)((float *)p + i))[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
}

/* Loads and stores of W = 8, or 1 where a size is not a multiple of 8. */
template <int W> static __device__ __forceinline__ void kn_loadw(float *v, const void *p, int dtype, int64_t i)
{
    if (W == 8)
        kn_load8(v, p, dtype, i);
    else
        v[0] = kn_load(p, dtype, i);
}
template <int W> static __device__ __forceinline__ void kn_storew(const float *v, void *p, int dtype, int64_t i)
{
    if (W == 8)
        kn_store8(v, p, dtype, i);
    else
        kn_store(p, dtype, i, v[0]);
}

/* 16 bytes at an address of shared memory. */
static __device__ __forceinline__ uint4 kn_shared_load(uint32_t address)
{
    uint4 u;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(u.x), "=r"(u.y), "=r"(u.z), "=r"(u.w)
                 : "r"(address));
    return u;
}

/* W elements on their way: loads of several rows are issued before the first is used, which a choice of type at run time would prevent. TYPE: of the storage, known
 * when compiling, or KN_ANY_TYPE. bf16 stays packed in 4 registers. */
enum { KN_ANY_TYPE = -1 };
template <int W, int TYPE> struct kn_raw {
    float v[W];
    __device__ __forceinline__ void load(const void *p, int dtype, int64_t i)
    {
        kn_loadw<W>(v, p, TYPE == KN_ANY_TYPE ? dtype : TYPE, i);
    }
    __device__ __forceinline__ float get(int k) const { return v[k]; }
};
template <> struct kn_raw<8, KN_BF16> {
    uint4 u;
    __device__ __forceinline__ void load(const void *p, int, int64_t i)
    {
        u = *(const uint4 *)((const __nv_bfloat16 *)p + i);
    }
    __device__ __forceinline__ float get(int k) const
    {
        const uint32_t w = k < 2 ? u.x : k < 4 ? u.y : k < 6 ? u.z : u.w;
        return __uint_as_float(k % 2 ? w & 0xffff0000u : w << 16);
    }
};

#endif

static inline int64_t kn_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int kn_blocks(int64_t work, int threads, int64_t most)
{
    int64_t b = kn_ceil(work, threads);
    return (int)(b < 1 ? 1 : b > most ? most : b);
}
static inline bool kn_aligned(const void *p) { return ((uintptr_t)p & 15) == 0; }

#endif
