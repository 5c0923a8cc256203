/* The CUDA device: one stream, memory, cuBLASLt, and what a plan asks of it. See device_internal.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/optim/optim_internal.h"
#include "kernels/plan/plan_internal.h"

extern "C" const kn_optim_kernels kn_cuda_optim; /* optim.cu */

enum { LT_WORKSPACE = 64 << 20 };

es_status kn_cuda_fail(cudaError_t e, const char *what, es_error *err)
{
    cudaGetLastError();
    return es_fail(err, e == cudaErrorMemoryAllocation ? ES_NO_MEMORY : ES_DEVICE, "cuda", "%s (%s) in %s",
                   cudaGetErrorString(e), cudaGetErrorName(e), what);
}

static kn_cuda_device *self(kn_device *d) { return (kn_cuda_device *)d; }

static es_status memory(kn_device *d, size_t *free_bytes, size_t *total_bytes, es_error *err)
{
    (void)d;
    KN_CUDA_RETURN(cudaMemGetInfo(free_bytes, total_bytes));
    return ES_OK;
}

static es_status alloc(kn_device *d, size_t bytes, void **out, es_error *err)
{
    d->count.allocations++;
    cudaError_t e = cudaMalloc(out, bytes);
    size_t free_bytes = 0, total = 0;
    if (e == cudaSuccess)
        return ES_OK;
    *out = NULL;
    if (e != cudaErrorMemoryAllocation)
        return kn_cuda_fail(e, "cudaMalloc", err);
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total);
    return es_fail(err, ES_NO_MEMORY, d->name, "%zu bytes asked for, %zu of %zu are free", bytes, free_bytes, total);
}

static void release(kn_device *d, void *p)
{
    (void)d;
    if (p)
        cudaFree(p);
}

static es_status upload(kn_device *d, void *to, const void *from, size_t bytes, es_error *err)
{
    KN_CUDA_RETURN(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, self(d)->stream));
    return ES_OK;
}

static es_status download(kn_device *d, void *to, const void *from, size_t bytes, es_error *err)
{
    d->count.syncs++;
    KN_CUDA_RETURN(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, self(d)->stream));
    KN_CUDA_RETURN(cudaStreamSynchronize(self(d)->stream));
    return ES_OK;
}

static es_status copy(kn_device *d, void *to, const void *from, size_t bytes, es_error *err)
{
    KN_CUDA_RETURN(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, self(d)->stream));
    return ES_OK;
}

static es_status zero(kn_device *d, void *p, size_t bytes, es_error *err)
{
    KN_CUDA_RETURN(cudaMemsetAsync(p, 0, bytes, self(d)->stream));
    return ES_OK;
}

static es_status synchronise(kn_device *d, es_error *err)
{
    d->count.syncs++;
    KN_CUDA_RETURN(cudaStreamSynchronize(self(d)->stream));
    KN_CUDA_RETURN(cudaGetLastError());
    return ES_OK;
}

static es_status enter(kn_device *d, es_error *err)
{
    KN_CUDA_RETURN(cudaSetDevice(self(d)->index));
    return ES_OK;
}

static __global__ void shadow_kernel(__nv_bfloat16 *to, const float *from, int64_t count)
{
    int64_t i = 8 * (blockIdx.x * (int64_t)blockDim.x + threadIdx.x);
    float v[8];
    if (i >= count)
        return;
    kn_load8(v, from, KN_F32, i);
    kn_store8(v, to, KN_BF16, i);
}

/* Flat buffers are padded to 64 elements, so eight at a time always fit. */
static es_status shadow(kn_device *d, void *to, const float *from, int64_t count, es_error *err)
{
    shadow_kernel<<<(unsigned)kn_ceil(count, 8 * 256), 256, 0, self(d)->stream>>>((__nv_bfloat16 *)to, from, count);
    KN_LAUNCHED("shadow");
    return ES_OK;
}

static __global__ void now_kernel(kn_cuda_now *to, const __grid_constant__ kn_cuda_now now)
{
    if (threadIdx.x < KN_SCALARS)
        to->scalar[threadIdx.x] = now.scalar[threadIdx.x];
    if (threadIdx.x == 0)
        to->seed = now.seed, to->step = now.step;
}

/* It travels as a kernel's arguments: in stream order, no host memory to keep alive, nothing to wait for. */
static es_status begin(kn_device *d, kn_plan *p, const kn_binding *b, const float **scalars, es_error *err)
{
    kn_cuda_device *dev = self(d);
    kn_cuda_now now;
    kn_cuda_blends_forget(dev); /* a run that failed may have left some */
    *scalars = dev->now->scalar;
    if (!p->used[KN_BASE_SCALARS] && !p->random)
        return ES_OK;
    memcpy(now.scalar, b->scalar, sizeof now.scalar);
    now.seed = b->seed;
    now.step = b->step;
    now_kernel<<<1, 32, 0, dev->stream>>>(dev->now, now);
    KN_LAUNCHED("scalars");
    return ES_OK;
}

/* A graph, and an event for each of its points. */
struct kn_cuda_recording {
    cudaGraphExec_t exec;
    int points;
    cudaEvent_t at[KN_POINTS_MAX];
};

/* One that runs is freed when it is over. */
static void forget(kn_device *d, void *recording)
{
    kn_cuda_recording *r = (kn_cuda_recording *)recording;
    (void)d;
    if (!r)
        return;
    if (r->exec)
        cudaGraphExecDestroy(r->exec);
    for (int i = 0; i < r->points; i++)
        cudaEventDestroy(r->at[i]);
    free(r);
}

/* Thread-local: what other threads do with their own streams meanwhile is allowed. */
static es_status record(kn_device *d, int points, es_error *err)
{
    kn_cuda_recording *r = (kn_cuda_recording *)calloc(1, sizeof *r);
    cudaError_t e = cudaSuccess;
    if (!r)
        return es_fail(err, ES_NO_MEMORY, d->name, "no memory for a recording");
    for (int i = 0; i < points && e == cudaSuccess; i++) {
        e = cudaEventCreateWithFlags(&r->at[i], cudaEventDisableTiming);
        r->points += e == cudaSuccess;
    }
    if (e == cudaSuccess)
        e = cudaStreamBeginCapture(self(d)->stream, cudaStreamCaptureModeThreadLocal);
    if (e != cudaSuccess) {
        forget(d, r);
        return kn_cuda_fail(e, "the start of a recording", err);
    }
    self(d)->open = r;
    return ES_OK;
}

/* External: a node of the graph, recorded anew by every launch, for waits of streams outside. */
static es_status point(kn_device *d, int i, es_error *err)
{
    KN_CUDA_RETURN(cudaEventRecordWithFlags(self(d)->open->at[i], self(d)->stream, cudaEventRecordExternal));
    return ES_OK;
}

/* Whatever stands in the way of a graph, its memory for one, is no failure of the run. */
static es_status recorded(kn_device *d, void **recording, es_error *err)
{
    kn_cuda_recording *r = self(d)->open;
    cudaGraph_t graph = NULL;
    (void)err;
    self(d)->open = NULL;
    cudaError_t e = cudaStreamEndCapture(self(d)->stream, &graph);
    if (e == cudaSuccess)
        e = cudaGraphInstantiate(&r->exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    kn_cuda_blends_forget(self(d)); /* of kernels that could not be recorded: they are called again */
    *(e == cudaSuccess ? &d->count.recordings : &d->count.refused) += 1;
    if (e != cudaSuccess) {
        cudaGetLastError();
        forget(d, r);
        r = NULL;
    }
    *recording = r;
    return ES_OK;
}

static es_status replay(kn_device *d, void *recording, es_error *err)
{
    KN_CUDA_RETURN(cudaGraphLaunch(((kn_cuda_recording *)recording)->exec, self(d)->stream));
    return ES_OK;
}

static void reached(kn_device *d, void *recording, int i)
{
    self(d)->since = recording ? ((kn_cuda_recording *)recording)->at[i] : NULL;
}

static void close_device(kn_device *d)
{
    kn_cuda_device *dev = self(d);
    if (dev->stream)
        cudaStreamSynchronize(dev->stream);
    kn_cuda_gemm_cache_free(dev);
    if (dev->lt)
        cublasLtDestroy(dev->lt);
    cudaFree(dev->lt_workspace);
    cudaFree(dev->now);
    cudaFree(dev->arrived);
    kn_cuda_blends_close(dev);
    if (dev->stream)
        cudaStreamDestroy(dev->stream);
    free(dev);
}

static void clocks(kn_device *d, kn_clocks *out) { kn_cuda_clocks(self(d)->index, out); }

static const kn_device_vt vtable = {
    /* kernels */ kn_cuda_kernels,
    close_device,
    memory,
    alloc,
    release,
    upload,
    download,
    copy,
    zero,
    synchronise,
    enter,
    shadow,
    &kn_cuda_optim,
    kn_cuda_fuse,
    kn_cuda_store,
    begin,
    kn_cuda_images,
    clocks,
    record,
    point,
    recorded,
    replay,
    reached,
    forget,
};

bool kn_cuda_early = true;

/* The code itself says what it was compiled for: a build has several versions, and the driver chooses. */
static __global__ void compiled_kernel(int *out)
{
#ifdef __CUDA_ARCH__
    out[0] = __CUDA_ARCH__;
    out[1] = KN_HOPPER;
#endif
}

/* 0: there is none that this device can load. */
static es_status compiled_for(int *arch, bool *hopper, es_error *err)
{
    int *out, found[2] = {};
    KN_CUDA_RETURN(cudaMalloc((void **)&out, sizeof found));
    compiled_kernel<<<1, 1>>>(out);
    cudaError_t e = cudaGetLastError();
    if (e == cudaSuccess)
        e = cudaMemcpy(found, out, sizeof found, cudaMemcpyDeviceToHost);
    cudaFree(out);
    if (e != cudaSuccess && e != cudaErrorNoKernelImageForDevice && e != cudaErrorInvalidDeviceFunction &&
        e != cudaErrorUnsupportedPtxVersion)
        return kn_cuda_fail(e, "the first kernel", err);
    *arch = found[0], *hopper = found[1];
    return ES_OK;
}

struct gpu_name {
    char text[300];
};
/* All but what it was compiled for. */
static kn_gpu_facts facts_of(int index, const cudaDeviceProp *prop, gpu_name *name)
{
    kn_gpu_facts f = {};
    snprintf(name->text, sizeof name->text, "cuda:%d (%s)", index, prop->name);
    f.name = name->text;
    f.major = prop->major, f.minor = prop->minor;
    f.shared_bytes = prop->sharedMemPerBlockOptin;
    f.built_for = ES_CUDA_ARCHITECTURES;
    return f;
}

static es_status decide(const kn_gpu_facts *f, kn_capability *out, es_error *err)
{
    return kn_capability_decide(f, getenv("ESPALIER_TEST_CAPABILITY"), out, err);
}

static es_status find_capability(kn_cuda_device *dev, const cudaDeviceProp *prop, es_error *err)
{
    gpu_name name;
    kn_gpu_facts f = facts_of(dev->index, prop, &name);
    if (10 * f.major + f.minor >= KN_CAPABILITY_LEAST)
        ES_RETURN(compiled_for(&f.compiled, &f.compiled_hopper, err));
    ES_RETURN(decide(&f, &dev->can, err));
    dev->base.hopper = dev->can.hopper;
    if (!dev->can.early)
        __atomic_store_n(&kn_cuda_early, false, __ATOMIC_RELAXED);
    return ES_OK;
}

extern "C" es_status kn_device_gpu_fit(int index, es_error *err)
{
    cudaDeviceProp prop;
    gpu_name name;
    kn_capability can;
    KN_CUDA_RETURN(cudaGetDeviceProperties(&prop, index));
    kn_gpu_facts f = facts_of(index, &prop, &name);
    f.compiled = 10 * KN_CAPABILITY_LEAST; /* whether there is code for it is seen when it is opened */
    return decide(&f, &can, err);
}

cudaError_t kn_cuda_allow_shared(const kn_cuda_device *dev, const void *kernel)
{
    cudaFuncAttributes a;
    cudaError_t e = cudaFuncGetAttributes(&a, kernel);
    if (e != cudaSuccess)
        return e;
    const size_t rest = dev->can.shared_bytes - a.sharedSizeBytes;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)(rest < KN_SHARED_MOST ? rest : KN_SHARED_MOST));
}

static es_status open_parts(kn_cuda_device *dev, es_error *err)
{
    cudaDeviceProp prop;
    KN_CUDA_RETURN(cudaSetDevice(dev->index));
    KN_CUDA_RETURN(cudaGetDeviceProperties(&prop, dev->index));
    snprintf(dev->base.model, sizeof dev->base.model, "%s", prop.name);
    dev->sms = prop.multiProcessorCount;
    ES_RETURN(find_capability(dev, &prop, err));
    KN_CUDA_RETURN(cudaStreamCreateWithFlags(&dev->stream, cudaStreamNonBlocking));
    KN_CUDA_RETURN(cudaMalloc((void **)&dev->now, sizeof *dev->now));
    KN_CUDA_RETURN(cudaMalloc((void **)&dev->arrived, KN_COLUMN_MOST * sizeof(unsigned)));
    KN_CUDA_RETURN(cudaMemsetAsync(dev->arrived, 0, KN_COLUMN_MOST * sizeof(unsigned), dev->stream));
    ES_RETURN(kn_cuda_blends_open(dev, err));
    ES_RETURN(kn_cuda_depthwise_open(dev, err));
    ES_RETURN(kn_cuda_depthwise_dw_open(dev, err));
    dev->lt_workspace_bytes = LT_WORKSPACE;
    KN_CUDA_RETURN(cudaMalloc(&dev->lt_workspace, dev->lt_workspace_bytes));
    if (cublasLtCreate(&dev->lt) != CUBLAS_STATUS_SUCCESS)
        return es_fail(err, ES_DEVICE, dev->base.name, "cuBLASLt could not be started");
    return ES_OK;
}

extern "C" int kn_device_gpus(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess)
        return count;
    cudaGetLastError();
    return 0;
}

extern "C" es_status kn_cuda_open(int index, kn_device **out, es_error *err)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    kn_cuda_device *dev;
    es_status s;

    *out = NULL;
    if (e != cudaSuccess || count == 0) {
        cudaGetLastError();
        return es_fail(err, ES_UNSUPPORTED, "cuda", "no GPU is visible (%s): check nvidia-smi and CUDA_VISIBLE_DEVICES",
                       e == cudaSuccess ? "none found" : cudaGetErrorString(e));
    }
    if (index < 0 || index >= count)
        return es_fail(err, ES_INVALID, "cuda", "cuda:%d does not exist; this host has cuda:0 to cuda:%d", index,
                       count - 1);
    dev = (kn_cuda_device *)calloc(1, sizeof *dev);
    if (!dev)
        return es_fail(err, ES_NO_MEMORY, "cuda", "no memory for a device");
    dev->base.vt = &vtable;
    dev->base.backend = KN_BACKEND_CUDA;
    dev->index = index;
    snprintf(dev->base.name, sizeof dev->base.name, "cuda:%d", index);
    s = open_parts(dev, err);
    if (s != ES_OK)
        close_device(&dev->base);
    else
        *out = &dev->base;
    return s;
}
