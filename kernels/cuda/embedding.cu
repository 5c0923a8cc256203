/* Rows of a table by index, and the gradient: rows summed back. Nothing scatters: a block owns a symbol's row (256 columns of it), finds where the symbol stands, and adds
 * those rows, so that every sum has one order. */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, FOUND = 2048, PER_WARP = 256 /* columns: 8 a lane */ };

struct embedding_args {
    const int32_t *index;
    const void *from;
    int from_type;
    int64_t ld, n;
    int symbols, d;
    void *out;
    int out_type, accumulate;
    int64_t out_ld;
};

template <int W> static __global__ void embedding_kernel(const __grid_constant__ embedding_args a)
{
    kn_begin();
    const int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) * W;
    if (i >= a.n * a.d)
        return;
    const int s = a.index[i / a.d];
    float v[W], old[W];
    if (s >= 0 && s < a.symbols)
        kn_loadw<W>(v, a.from, a.from_type, s * a.ld + i % a.d);
    if (a.accumulate)
        kn_loadw<W>(old, a.out, a.out_type, i);
#pragma unroll
    for (int e = 0; e < W; e++)
        v[e] = (s >= 0 && s < a.symbols ? v[e] : NAN) + (a.accumulate ? old[e] : 0.f);
    kn_storew<W>(v, a.out, a.out_type, i);
}

/* Positions of the block's symbol in [first, first + FOUND), in order; how many. */
static __device__ __forceinline__ int find(const embedding_args &a, int symbol, int64_t first, int *found, int *counts)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int total = 0;
    for (int64_t at = first; at < a.n && at < first + FOUND; at += THREADS) {
        const int64_t i = at + threadIdx.x;
        const bool is = i < a.n && a.index[i] == symbol;
        const unsigned mask = __ballot_sync(0xffffffffu, is);
        if (lane == 0)
            counts[warp] = __popc(mask);
        __syncthreads();
        int before = total;
        for (int w = 0; w < WARPS; w++) {
            before += w < warp ? counts[w] : 0;
            total += counts[w];
        }
        if (is)
            found[before + __popc(mask & ((1u << lane) - 1))] = (int)(i - first);
        __syncthreads();
    }
    return total;
}

static __global__ void __launch_bounds__(THREADS) embedding_grad_kernel(const __grid_constant__ embedding_args a)
{
    __shared__ int found[FOUND], counts[WARPS];
    __shared__ float sums[WARPS][PER_WARP];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = (int)blockIdx.y * PER_WARP + lane * 8;
    const bool whole = a.d % 8 == 0;
    float sum[8] = {};
    kn_begin();
    for (int64_t first = 0; first < a.n; first += FOUND) {
        const int n = find(a, (int)blockIdx.x, first, found, counts);
        for (int k = warp; k < n; k += WARPS) {
            const int64_t row = (first + found[k]) * a.d;
            float v[8] = {};
            if (whole && c < a.d)
                kn_load8(v, a.from, a.from_type, row + c);
            else if (!whole)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    v[e] = c + e < a.d ? kn_load(a.from, a.from_type, row + c + e) : 0.f;
#pragma unroll
            for (int e = 0; e < 8; e++)
                sum[e] += v[e];
        }
        __syncthreads();
    }
#pragma unroll
    for (int e = 0; e < 8; e++)
        sums[warp][lane * 8 + e] = sum[e];
    __syncthreads();
    const int column = (int)(blockIdx.y * PER_WARP + threadIdx.x);
    if (column >= a.d)
        return;
    const int64_t to = blockIdx.x * a.out_ld + column;
    float all = a.accumulate ? kn_load(a.out, a.out_type, to) : 0.f;
    for (int w = 0; w < WARPS; w++)
        all += sums[w][threadIdx.x];
    kn_store(a.out, a.out_type, to, all);
}

extern "C" es_status kn_cuda_embedding(const kn_call *c, es_error *err)
{
    const kn_tensor *table = &c->in[1];
    embedding_args a = {};
    a.index = (const int32_t *)c->in[0].p, a.n = kn_shape_count(&c->in[0].shape);
    a.from = table->p, a.from_type = table->dtype, a.ld = table->stride[0], a.symbols = table->shape.d[0],
    a.d = table->shape.d[1];
    a.out = c->out[0].p, a.out_type = c->out[0].dtype, a.accumulate = c->accumulate & 1;
    const int64_t count = a.n * a.d;
    const bool whole = a.d % 8 == 0 && a.ld % 8 == 0 && kn_aligned(a.from) && kn_aligned(a.out);
    if (count > 0 && whole)
        kn_launch(embedding_kernel<8>, (unsigned)kn_ceil(count / 8, 256), 256, 0, kn_stream(c), a);
    else if (count > 0)
        kn_launch(embedding_kernel<1>, (unsigned)kn_ceil(count, 256), 256, 0, kn_stream(c), a);
    KN_LAUNCHED("embedding");
    return ES_OK;
}

extern "C" es_status kn_cuda_embedding_grad(const kn_call *c, es_error *err)
{
    const kn_tensor *out = &c->out[0];
    embedding_args a = {};
    a.index = (const int32_t *)c->in[1].p, a.n = kn_shape_count(&c->in[1].shape);
    a.from = c->in[0].p, a.from_type = c->in[0].dtype, a.symbols = out->shape.d[0], a.d = out->shape.d[1];
    a.out = out->p, a.out_type = out->dtype, a.accumulate = c->accumulate & 1, a.out_ld = out->stride[0];
    kn_launch(embedding_grad_kernel, dim3((unsigned)a.symbols, (unsigned)kn_ceil(a.d, PER_WARP)), THREADS, 0,
              kn_stream(c), a);
    KN_LAUNCHED("embedding_grad");
    return ES_OK;
}
