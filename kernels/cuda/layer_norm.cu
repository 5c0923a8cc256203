/* Layer norm over the last dimension, and its gradients, each in one pass over memory: a warp keeps a row in registers.
 *
 * A row of up to 1,024 elements is KEPT vectors of 8 a lane; wider or odd rows take the plain way, which reads again. The gradients of gain and shift are sums over all rows: every block adds
 * the rows it walks into registers, its warps are added in order, and a second kernel adds the blocks in order. */
#include "kernels/cuda/cuda.cuh"

enum { WARPS = 8, KEPT_MAX = 4, BLOCKS_MAX = 264, FINISH_ROWS = 16 };

struct norm_args {
    const void *x, *dy, *gamma, *beta;
    int x_type, dy_type, gamma_type, beta_type;
    void *out, *dgamma, *dbeta; /* out: y, or dx; missing outputs are NULL */
    int out_type, dgamma_type, dbeta_type;
    unsigned accumulate;
    int64_t rows;
    int cols;
    float eps;
    float *partial; /* [block][2][cols] */
};

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

/* Eight elements of a vector operand that may be missing. */
static __device__ __forceinline__ void vector_8(float v[8], const void *p, int type, int c, float otherwise)
{
    if (p) {
        kn_load8(v, p, type, c);
        return;
    }
#pragma unroll
    for (int e = 0; e < 8; e++)
        v[e] = otherwise;
}

/* Lane's vectors of a row as they are stored, zeros beyond its end. All loads of a row are under way before the first is waited for: no branch on the type lies between. */
template <int KEPT, typename T>
static __device__ __forceinline__ void row_load(T x[KEPT], const norm_args &a, const void *p, int64_t row, int lane)
{
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int c = (k * 32 + lane) * 8;
        x[k] = T{};
        if (c < a.cols)
            x[k] = *(const T *)((const char *)p + (row * a.cols + c) * (int64_t)(sizeof(T) / 8));
    }
}
struct __align__(32) floats_8 { float4 a, b; };
static __device__ __forceinline__ void widen(float v[8], const uint4 &u) { kn_load8(v, &u, KN_BF16, 0); }
static __device__ __forceinline__ void widen(float v[8], const floats_8 &u) { kn_load8(v, &u, KN_F32, 0); }
template <int KEPT, typename T> static __device__ __forceinline__ void row_widen(float v[KEPT][8], const T x[KEPT])
{
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        widen(v[k], x[k]);
}
/* Mean, 1 / sqrt(variance + eps). */
template <int KEPT>
static __device__ __forceinline__ float2 row_moments(const float x[KEPT][8], const norm_args &a, int lane)
{
    float sum = 0, square = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
#pragma unroll
        for (int e = 0; e < 8; e++)
            sum += x[k][e];
    const float mean = warp_sum(sum) / (float)a.cols;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if ((k * 32 + lane) * 8 < a.cols)
#pragma unroll
            for (int e = 0; e < 8; e++)
                square = fmaf(x[k][e] - mean, x[k][e] - mean, square);
    return make_float2(mean, rsqrtf(warp_sum(square) / (float)a.cols + a.eps));
}

template <int KEPT, typename T>
static __global__ void __launch_bounds__(32 * WARPS) forward_kernel(const __grid_constant__ norm_args a)
{
    kn_begin();
    const int64_t row = blockIdx.x * (int64_t)WARPS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    float x[KEPT][8];
    T stored[KEPT];
    if (row >= a.rows)
        return;
    row_load<KEPT>(stored, a, a.x, row, lane);
    row_widen<KEPT>(x, stored);
    const float2 m = row_moments<KEPT>(x, a, lane);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int c = (k * 32 + lane) * 8;
        float gamma[8], beta[8], y[8];
        if (c >= a.cols)
            continue;
        vector_8(gamma, a.gamma, a.gamma_type, c, 1);
        vector_8(beta, a.beta, a.beta_type, c, 0);
#pragma unroll
        for (int e = 0; e < 8; e++)
            y[e] = (x[k][e] - m.x) * m.y * gamma[e] + beta[e];
        if (a.accumulate & 1) {
            kn_load8(beta, a.out, a.out_type, row * a.cols + c);
#pragma unroll
            for (int e = 0; e < 8; e++)
                y[e] += beta[e];
        }
        kn_store8(y, a.out, a.out_type, row * a.cols + c);
    }
}

/* A block's sums of its warps' vectors, warp after warp, into its partial row `part`: each warp leaves its own in `shared`, then a thread adds a column. */
template <int KEPT>
static __device__ __forceinline__ void block_sums(const float v[KEPT][8], float shared[WARPS][KEPT * 256],
                                                  const norm_args &a, int part, int warp, int lane)
{
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        float4 *to = (float4 *)&shared[warp][(k * 32 + lane) * 8];
        to[0] = make_float4(v[k][0], v[k][1], v[k][2], v[k][3]);
        to[1] = make_float4(v[k][4], v[k][5], v[k][6], v[k][7]);
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < a.cols; c += 32 * WARPS) {
        float sum = shared[0][c];
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            sum += shared[w][c];
        a.partial[((int64_t)blockIdx.x * 2 + part) * a.cols + c] = sum;
    }
    __syncthreads();
}

/* dx = r (g - mean g - xhat mean(g xhat)) with g = dy gamma; dgamma = sum dy xhat, dbeta = sum dy. */
template <int KEPT, typename T, bool SHIFT>
static __global__ void __launch_bounds__(32 * WARPS, 2) grad_kernel(const __grid_constant__ norm_args a)
{
    __shared__ __align__(16) float shared[WARPS][KEPT * 256];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float dgamma[KEPT][8] = {}, dbeta[SHIFT ? KEPT : 1][8] = {};
    kn_begin();
    for (int64_t row = blockIdx.x * (int64_t)WARPS + warp; row < a.rows; row += (int64_t)gridDim.x * WARPS) {
        float x[KEPT][8], g[KEPT][8], s1 = 0, s2 = 0;
        T stored_x[KEPT], stored_g[KEPT], old[KEPT];
        row_load<KEPT>(stored_x, a, a.x, row, lane);
        row_load<KEPT>(stored_g, a, a.dy, row, lane);
        if (a.accumulate & 1)
            row_load<KEPT>(old, a, a.out, row, lane);
        row_widen<KEPT>(x, stored_x);
        row_widen<KEPT>(g, stored_g);
        const float2 m = row_moments<KEPT>(x, a, lane);
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            const int c = (k * 32 + lane) * 8;
            float gamma[8];
            if (c >= a.cols)
                continue;
            vector_8(gamma, a.gamma, a.gamma_type, c, 1);
#pragma unroll
            for (int e = 0; e < 8; e++) {
                x[k][e] = (x[k][e] - m.x) * m.y;
                dgamma[k][e] = fmaf(g[k][e], x[k][e], dgamma[k][e]);
                if (SHIFT)
                    dbeta[k][e] += g[k][e];
                g[k][e] *= gamma[e];
                s1 += g[k][e];
                s2 = fmaf(g[k][e], x[k][e], s2);
            }
        }
        s1 = warp_sum(s1) / (float)a.cols;
        s2 = warp_sum(s2) / (float)a.cols;
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            const int c = (k * 32 + lane) * 8;
            float d[8] = {};
            if (c >= a.cols || !a.out)
                continue;
            if (a.accumulate & 1)
                widen(d, old[k]);
#pragma unroll
            for (int e = 0; e < 8; e++)
                d[e] += m.y * (g[k][e] - s1 - x[k][e] * s2);
            kn_store8(d, a.out, a.out_type, row * a.cols + c);
        }
    }
    if (a.dgamma)
        block_sums<KEPT>(dgamma, shared, a, 0, warp, lane);
    if (SHIFT)
        block_sums<KEPT>(dbeta, shared, a, 1, warp, lane);
}

/* The blocks' sums added in order: 32 columns by FINISH_ROWS shares of the blocks. */
static __global__ void __launch_bounds__(32 * FINISH_ROWS)
    finish_kernel(const __grid_constant__ norm_args a, int blocks)
{
    __shared__ float shared[FINISH_ROWS][32];
    const int c = (int)(blockIdx.x * 32 + threadIdx.x), part = (int)blockIdx.y;
    float sum = 0;
    kn_begin();
#pragma unroll 8
    for (int b = (int)threadIdx.y; b < blocks && c < a.cols; b += FINISH_ROWS)
        sum += a.partial[((int64_t)b * 2 + part) * a.cols + c];
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    void *out = part ? a.dbeta : a.dgamma;
    const int type = part ? a.dbeta_type : a.dgamma_type;
    if (threadIdx.y != 0 || c >= a.cols || !out)
        return;
    sum = a.accumulate >> (1 + part) & 1 ? kn_load(out, type, c) : 0.f;
    for (int y = 0; y < FINISH_ROWS; y++)
        sum += shared[y][threadIdx.x];
    kn_store(out, type, c, sum);
}

/* --- the plain way: rows of any width --- */

static __device__ __forceinline__ float2 plain_moments(const norm_args &a, int64_t row, int lane)
{
    float sum = 0, square = 0;
    for (int c = lane; c < a.cols; c += 32)
        sum += kn_load(a.x, a.x_type, row * a.cols + c);
    const float mean = warp_sum(sum) / (float)a.cols;
    for (int c = lane; c < a.cols; c += 32) {
        float d = kn_load(a.x, a.x_type, row * a.cols + c) - mean;
        square = fmaf(d, d, square);
    }
    return make_float2(mean, rsqrtf(warp_sum(square) / (float)a.cols + a.eps));
}
static __device__ __forceinline__ void plain_put(const norm_args &a, int64_t i, float v)
{
    kn_store(a.out, a.out_type, i, v + (a.accumulate & 1 ? kn_load(a.out, a.out_type, i) : 0.f));
}
static __device__ __forceinline__ float element(const void *p, int type, int c, float otherwise)
{
    return p ? kn_load(p, type, c) : otherwise;
}

static __global__ void __launch_bounds__(32 * WARPS) plain_forward_kernel(const __grid_constant__ norm_args a)
{
    const int64_t row = blockIdx.x * (int64_t)WARPS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= a.rows)
        return;
    const float2 m = plain_moments(a, row, lane);
    for (int c = lane; c < a.cols; c += 32)
        plain_put(a, row * a.cols + c,
                  (kn_load(a.x, a.x_type, row * a.cols + c) - m.x) * m.y * element(a.gamma, a.gamma_type, c, 1) +
                      element(a.beta, a.beta_type, c, 0));
}

static __global__ void __launch_bounds__(32 * WARPS) plain_dx_kernel(const __grid_constant__ norm_args a)
{
    const int64_t row = blockIdx.x * (int64_t)WARPS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= a.rows)
        return;
    const float2 m = plain_moments(a, row, lane);
    float s1 = 0, s2 = 0;
    for (int c = lane; c < a.cols; c += 32) {
        float g = kn_load(a.dy, a.dy_type, row * a.cols + c) * element(a.gamma, a.gamma_type, c, 1);
        s1 += g;
        s2 += g * (kn_load(a.x, a.x_type, row * a.cols + c) - m.x) * m.y;
    }
    s1 = warp_sum(s1) / (float)a.cols;
    s2 = warp_sum(s2) / (float)a.cols;
    for (int c = lane; c < a.cols; c += 32) {
        float g = kn_load(a.dy, a.dy_type, row * a.cols + c) * element(a.gamma, a.gamma_type, c, 1);
        float xhat = (kn_load(a.x, a.x_type, row * a.cols + c) - m.x) * m.y;
        plain_put(a, row * a.cols + c, m.y * (g - s1 - xhat * s2));
    }
}

/* A block's share of the rows, 256 columns: moments once more, they are cheap beside being stored. */
static __global__ void __launch_bounds__(32 * WARPS) plain_sums_kernel(const __grid_constant__ norm_args a)
{
    __shared__ float2 moments[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = (int)(blockIdx.y * 32 * WARPS + threadIdx.x);
    float dg = 0, db = 0;
    for (int64_t first = blockIdx.x * (int64_t)WARPS; first < a.rows; first += (int64_t)gridDim.x * WARPS) {
        __syncthreads();
        if (first + warp < a.rows)
            moments[warp] = plain_moments(a, first + warp, lane);
        __syncthreads();
        for (int r = 0; r < WARPS && first + r < a.rows && c < a.cols; r++) {
            float d = kn_load(a.dy, a.dy_type, (first + r) * a.cols + c);
            db += d;
            dg = fmaf(d, (kn_load(a.x, a.x_type, (first + r) * a.cols + c) - moments[r].x) * moments[r].y, dg);
        }
    }
    if (c < a.cols) {
        a.partial[(int64_t)blockIdx.x * 2 * a.cols + c] = dg;
        a.partial[((int64_t)blockIdx.x * 2 + 1) * a.cols + c] = db;
    }
}

/* --- entries --- */

static norm_args arguments(const kn_call *c, int x)
{
    norm_args a = {};
    const kn_shape *s = &c->in[x].shape;
    a.x = c->in[x].p, a.x_type = c->in[x].dtype;
    a.gamma = c->in[x + 1].p, a.gamma_type = c->in[x + 1].dtype;
    a.out = c->out[0].p, a.out_type = c->out[0].dtype;
    a.cols = s->d[s->rank - 1];
    a.rows = a.cols ? kn_shape_count(s) / a.cols : 0;
    a.accumulate = c->accumulate, a.eps = c->a->eps;
    return a;
}

/* Vectors of 8 a lane, or 0: the plain way, also for mixed types. */
static int kept(const norm_args *a)
{
    const void *p[] = {a->x, a->dy, a->gamma, a->beta, a->out};
    bool ready = a->cols % 8 == 0 && a->cols <= KEPT_MAX * 256 && (!a->out || a->out_type == a->x_type) &&
                 (!a->dy || a->dy_type == a->x_type);
    for (int i = 0; i < 5; i++)
        ready = ready && (!p[i] || kn_aligned(p[i]));
    return ready ? (a->cols + 255) / 256 : 0;
}

#define KEPT_CASES(X) X(1) X(2) X(3) X(4)

extern "C" es_status kn_cuda_layer_norm(const kn_call *c, es_error *err)
{
    norm_args a = arguments(c, 0);
    a.beta = c->in[2].p, a.beta_type = c->in[2].dtype;
    const unsigned blocks = (unsigned)kn_ceil(a.rows, WARPS);
    if (a.rows == 0)
        return ES_OK;
    switch (kept(&a)) {
#define CASE(K)                                                                             \
    case K:                                                                                 \
        if (a.x_type == KN_BF16)                                                            \
            kn_launch(forward_kernel<K, uint4>, blocks, 32 * WARPS, 0, kn_stream(c), a);    \
        else                                                                                \
            kn_launch(forward_kernel<K, floats_8>, blocks, 32 * WARPS, 0, kn_stream(c), a); \
        break;
        KEPT_CASES(CASE)
#undef CASE
    default: plain_forward_kernel<<<blocks, 32 * WARPS, 0, kn_stream(c)>>>(a);
    }
    KN_LAUNCHED("layer_norm");
    return ES_OK;
}

template <int KEPT> static void grad_launch(const norm_args &a, int blocks, cudaStream_t stream)
{
    if (a.x_type == KN_BF16 && a.dbeta)
        kn_launch(grad_kernel<KEPT, uint4, true>, blocks, 32 * WARPS, 0, stream, a);
    else if (a.x_type == KN_BF16)
        kn_launch(grad_kernel<KEPT, uint4, false>, blocks, 32 * WARPS, 0, stream, a);
    else if (a.dbeta)
        kn_launch(grad_kernel<KEPT, floats_8, true>, blocks, 32 * WARPS, 0, stream, a);
    else
        kn_launch(grad_kernel<KEPT, floats_8, false>, blocks, 32 * WARPS, 0, stream, a);
}

static int grad_blocks(int64_t rows) { return kn_blocks(rows, WARPS, BLOCKS_MAX); }

extern "C" size_t kn_cuda_layer_norm_grad_scratch(const kn_call *c)
{
    norm_args a = arguments(c, 1);
    return (size_t)grad_blocks(a.rows) * 2 * (size_t)a.cols * sizeof(float);
}

extern "C" es_status kn_cuda_layer_norm_grad(const kn_call *c, es_error *err)
{
    norm_args a = arguments(c, 1);
    const int blocks = grad_blocks(a.rows);
    a.dy = c->in[0].p, a.dy_type = c->in[0].dtype;
    a.dgamma = c->out[1].p, a.dgamma_type = c->out[1].dtype;
    a.dbeta = c->out[2].p, a.dbeta_type = c->out[2].dtype;
    a.partial = (float *)c->scratch;
    const bool sums = a.dgamma || a.dbeta;
    switch (kept(&a)) {
#define CASE(K) \
    case K: grad_launch<K>(a, blocks, kn_stream(c)); break;
        KEPT_CASES(CASE)
#undef CASE
    default:
        if (sums)
            plain_sums_kernel<<<dim3((unsigned)blocks, (unsigned)kn_ceil(a.cols, 32 * WARPS)), 32 * WARPS, 0,
                                kn_stream(c)>>>(a);
        if (a.out && a.rows > 0)
            plain_dx_kernel<<<(unsigned)kn_ceil(a.rows, WARPS), 32 * WARPS, 0, kn_stream(c)>>>(a);
    }
    if (sums)
        kn_launch(finish_kernel, dim3((unsigned)kn_ceil(a.cols, 32), a.dbeta ? 2 : 1), dim3(32, FINISH_ROWS), 0,
                  kn_stream(c), a, blocks);
    KN_LAUNCHED("layer_norm_grad");
    return ES_OK;
}
