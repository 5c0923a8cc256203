/* Ops over rows [rows][columns]: softmax and log softmax with their gradients, the losses, layer norm, the count of correct answers. A warp per row, a block of
 * threads for wide rows; everything in fp32. Labels outside the classes give NaN (data sets are checked when they are opened).
 */
#include "kernels/cuda/cuda.cuh"

enum { WARPS = 8 };

struct rows_args {
    const void *in[4];
    int type[4];
    void *out[3];
    int out_type[3];
    int64_t rows;
    int cols, per_matrix, causal; /* per_matrix: rows of one matrix, for the causal mask */
    float alpha, beta, clip, eps;
    unsigned accumulate;
};

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
static __device__ __forceinline__ float warp_max(float v)
{
    for (int o = 16; o > 0; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}
static __device__ __forceinline__ float at(const rows_args &a, int k, int64_t row, int c)
{
    return kn_load(a.in[k], a.type[k], row * a.cols + c);
}
static __device__ __forceinline__ void put(const rows_args &a, int64_t i, float v)
{
    kn_store(a.out[0], a.out_type[0], i, v + (a.accumulate & 1 ? kn_load(a.out[0], a.out_type[0], i) : 0.f));
}

/* log sum exp of the first n columns of input k. */
static __device__ __forceinline__ float log_sum(const rows_args &a, int k, int64_t row, int n, int lane)
{
    float most = -INFINITY, sum = 0;
    for (int c = lane; c < n; c += 32)
        most = fmaxf(most, at(a, k, row, c));
    most = warp_max(most);
    if (most == -INFINITY)
        return most;
    for (int c = lane; c < n; c += 32)
        sum += expf(at(a, k, row, c) - most);
    return most + logf(warp_sum(sum));
}

#define ROW_KERNEL(name) static __global__ void __launch_bounds__(32 * WARPS) name(const __grid_constant__ rows_args a)
#define ROW_OR_RETURN                                                   \
    const int64_t row = blockIdx.x * (int64_t)WARPS + threadIdx.x / 32; \
    const int lane = threadIdx.x % 32;                                  \
    if (row >= a.rows)                                                  \
    return

static __device__ __forceinline__ int seen_columns(const rows_args &a, int64_t row)
{
    return a.causal ? (int)(row % a.per_matrix) + a.cols - a.per_matrix + 1 : a.cols;
}

ROW_KERNEL(softmax_kernel)
{
    ROW_OR_RETURN;
    int n = seen_columns(a, row);
    float lse = log_sum(a, 0, row, n, lane);
    for (int c = lane; c < a.cols; c += 32)
        put(a, row * a.cols + c, c < n ? expf(at(a, 0, row, c) - lse) : 0.f);
}

ROW_KERNEL(log_softmax_kernel)
{
    ROW_OR_RETURN;
    float lse = log_sum(a, 0, row, a.cols, lane);
    for (int c = lane; c < a.cols; c += 32)
        put(a, row * a.cols + c, at(a, 0, row, c) - lse);
}

/* in = d, y: y (d - sum d y) */
ROW_KERNEL(softmax_grad_kernel)
{
    ROW_OR_RETURN;
    float dot = 0;
    for (int c = lane; c < a.cols; c += 32)
        dot += at(a, 0, row, c) * at(a, 1, row, c);
    dot = warp_sum(dot);
    for (int c = lane; c < a.cols; c += 32)
        put(a, row * a.cols + c, at(a, 1, row, c) * (at(a, 0, row, c) - dot));
}

/* in = d, y = log softmax: d - exp(y) sum d */
ROW_KERNEL(log_softmax_grad_kernel)
{
    ROW_OR_RETURN;
    float sum = 0;
    for (int c = lane; c < a.cols; c += 32)
        sum += at(a, 0, row, c);
    sum = warp_sum(sum);
    for (int c = lane; c < a.cols; c += 32)
        put(a, row * a.cols + c, at(a, 0, row, c) - expf(at(a, 1, row, c)) * sum);
}

ROW_KERNEL(cross_entropy_kernel)
{
    ROW_OR_RETURN;
    float lse = log_sum(a, 0, row, a.cols, lane), all = 0;
    int label = ((const int32_t *)a.in[1])[row];
    for (int c = lane; c < a.cols; c += 32)
        all += at(a, 0, row, c) - lse;
    all = warp_sum(all);
    if (lane == 0)
        put(a, row,
            label < 0 || label >= a.cols
                ? NAN
                : -(1 - a.alpha) * (at(a, 0, row, label) - lse) - a.alpha / (float)a.cols * all);
}

/* in = d [n], logits, labels */
ROW_KERNEL(cross_entropy_grad_kernel)
{
    ROW_OR_RETURN;
    float lse = log_sum(a, 1, row, a.cols, lane), d = kn_load(a.in[0], a.type[0], row);
    int label = ((const int32_t *)a.in[2])[row];
    for (int c = lane; c < a.cols; c += 32) {
        float v = d * (expf(at(a, 1, row, c) - lse) - (c == label ? 1 - a.alpha : 0.f) - a.alpha / (float)a.cols);
        put(a, row * a.cols + c, label < 0 || label >= a.cols ? NAN : v);
    }
}

ROW_KERNEL(soft_cross_entropy_kernel)
{
    ROW_OR_RETURN;
    float lse = log_sum(a, 0, row, a.cols, lane), sum = 0;
    for (int c = lane; c < a.cols; c += 32)
        sum -= at(a, 1, row, c) * (at(a, 0, row, c) - lse);
    sum = warp_sum(sum);
    if (lane == 0)
        put(a, row, sum);
}

/* in = d [n], logits, probs: d (softmax sum probs - probs) */
ROW_KERNEL(soft_cross_entropy_grad_kernel)
{
    ROW_OR_RETURN;
    float lse = log_sum(a, 1, row, a.cols, lane), d = kn_load(a.in[0], a.type[0], row), total = 0;
    for (int c = lane; c < a.cols; c += 32)
        total += at(a, 2, row, c);
    total = warp_sum(total);
    for (int c = lane; c < a.cols; c += 32)
        put(a, row * a.cols + c, d * (expf(at(a, 1, row, c) - lse) * total - at(a, 2, row, c)));
}

/* One class of the alpha-divergence, as kernels/ops/alpha_divergence.c. */
static __device__ __forceinline__ void alpha_term(float alpha, float clip, float lq, float lp, float *value, float *w)
{
    float lr = lp - lq, q = expf(lq), p = expf(lp);
    if (fabsf(alpha) < 1e-3f) {
        lr = fminf(lr, logf(clip));
        *value = q == 0 ? 0 : -q * lr;
        *w = q == 0 ? 0 : q * (lr - 1);
    } else if (fabsf(alpha - 1) < 1e-3f) {
        *value = p == 0 ? 0 : p * lr;
        *w = p;
    } else {
        float base = 1 / (alpha * (alpha - 1)), qra = alpha * lr > logf(clip) ? q * clip : expf(lq + alpha * lr);
        *value = (qra - q) * base;
        *w = qra / alpha + q * base;
    }
}

struct alpha_row {
    float value, w_sum, alpha, lx, lt;
};

static __device__ __forceinline__ alpha_row alpha_choose(const rows_args &a, int x, int t, int64_t row, int lane)
{
    alpha_row r;
    float sum[2] = {0, 0}, w[2] = {0, 0};
    r.lx = log_sum(a, x, row, a.cols, lane);
    r.lt = log_sum(a, t, row, a.cols, lane);
    for (int c = lane; c < a.cols; c += 32)
        for (int k = 0; k < 2; k++) {
            float value, wc;
            alpha_term(k ? a.beta : a.alpha, a.clip, fmaxf(at(a, x, row, c) - r.lx, -1e30f),
                       fmaxf(at(a, t, row, c) - r.lt, -1e30f), &value, &wc);
            sum[k] += value;
            w[k] += wc;
        }
    for (int k = 0; k < 2; k++) {
        sum[k] = warp_sum(sum[k]);
        w[k] = warp_sum(w[k]);
    }
    int k = sum[0] > sum[1] ? 0 : 1;
    r.value = sum[k];
    r.w_sum = w[k];
    r.alpha = k ? a.beta : a.alpha;
    return r;
}

ROW_KERNEL(alpha_divergence_kernel)
{
    ROW_OR_RETURN;
    alpha_row r = alpha_choose(a, 0, 1, row, lane);
    if (lane == 0)
        put(a, row, r.value);
}

ROW_KERNEL(alpha_divergence_grad_kernel)
{
    ROW_OR_RETURN;
    alpha_row r = alpha_choose(a, 1, 2, row, lane);
    float d = kn_load(a.in[0], a.type[0], row);
    for (int c = lane; c < a.cols; c += 32) {
        float value, w, x = at(a, 1, row, c) - r.lx;
        alpha_term(r.alpha, a.clip, fmaxf(x, -1e30f), fmaxf(at(a, 2, row, c) - r.lt, -1e30f), &value, &w);
        put(a, row * a.cols + c, d * (expf(x) * r.w_sum - w));
    }
}

ROW_KERNEL(correct_kernel)
{
    ROW_OR_RETURN;
    float best = -INFINITY;
    int where = a.cols;
    for (int c = lane; c < a.cols; c += 32) {
        float v = at(a, 0, row, c);
        if (v > best || where == a.cols)
            best = v, where = c;
    }
    for (int o = 16; o > 0; o >>= 1) { /* the first maximum wins */
        float v = __shfl_xor_sync(0xffffffffu, best, o);
        int w = __shfl_xor_sync(0xffffffffu, where, o);
        if (w < a.cols && (v > best || (v == best && w < where) || where == a.cols))
            best = v, where = w;
    }
    if (lane == 0)
        put(a, row, where == ((const int32_t *)a.in[1])[row] ? 1.f : 0.f);
}

/* Mean and 1 / sqrt(variance + eps) of a row, two passes over cached data. */
static __device__ __forceinline__ float2 row_moments(const rows_args &a, int k, int64_t row, int lane)
{
    float sum = 0, square = 0;
    for (int c = lane; c < a.cols; c += 32)
        sum += at(a, k, row, c);
    float mean = warp_sum(sum) / (float)a.cols;
    for (int c = lane; c < a.cols; c += 32) {
        float d = at(a, k, row, c) - mean;
        square = fmaf(d, d, square);
    }
    return make_float2(mean, rsqrtf(warp_sum(square) / (float)a.cols + a.eps));
}

ROW_KERNEL(layer_norm_kernel)
{
    ROW_OR_RETURN;
    float2 m = row_moments(a, 0, row, lane);
    for (int c = lane; c < a.cols; c += 32)
        put(a, row * a.cols + c,
            (at(a, 0, row, c) - m.x) * m.y * (a.in[1] ? kn_load(a.in[1], a.type[1], c) : 1.f) +
                (a.in[2] ? kn_load(a.in[2], a.type[2], c) : 0.f));
}

/* in = dy, x, gamma: dx = rstd (g - mean g - xhat mean(g xhat)), g = dy gamma */
ROW_KERNEL(layer_norm_dx_kernel)
{
    ROW_OR_RETURN;
    float2 m = row_moments(a, 1, row, lane);
    float s1 = 0, s2 = 0;
    for (int c = lane; c < a.cols; c += 32) {
        float g = at(a, 0, row, c) * (a.in[2] ? kn_load(a.in[2], a.type[2], c) : 1.f);
        s1 += g;
        s2 += g * (at(a, 1, row, c) - m.x) * m.y;
    }
    s1 = warp_sum(s1) / (float)a.cols;
    s2 = warp_sum(s2) / (float)a.cols;
    for (int c = lane; c < a.cols; c += 32) {
        float g = at(a, 0, row, c) * (a.in[2] ? kn_load(a.in[2], a.type[2], c) : 1.f),
              xhat = (at(a, 1, row, c) - m.x) * m.y;
        put(a, row * a.cols + c, m.y * (g - s1 - xhat * s2));
    }
}

/* Row moments for the parameter gradients: moments[row] = mean, rstd. */
static __global__ void __launch_bounds__(32 * WARPS)
    moments_kernel(const __grid_constant__ rows_args a, float2 *moments)
{
    ROW_OR_RETURN;
    float2 m = row_moments(a, 1, row, lane);
    if (lane == 0)
        moments[row] = m;
}

/* dgamma and dbeta of 32 columns by a block of 32 x 32 threads over a share of the rows; partial[block][2][cols]. */
static __global__ void __launch_bounds__(1024)
    layer_norm_dw_kernel(const __grid_constant__ rows_args a, const float2 *moments, float *partial)
{
    __shared__ float s1[32][33], s2[32][33];
    int c = blockIdx.y * 32 + threadIdx.x;
    float dg = 0, db = 0;
    for (int64_t row = blockIdx.x * 32 + threadIdx.y; row < a.rows && c < a.cols; row += (int64_t)gridDim.x * 32) {
        float2 m = moments[row];
        float d = at(a, 0, row, c);
        db += d;
        dg = fmaf(d, (at(a, 1, row, c) - m.x) * m.y, dg);
    }
    s1[threadIdx.y][threadIdx.x] = dg;
    s2[threadIdx.y][threadIdx.x] = db;
    __syncthreads();
    if (threadIdx.y != 0 || c >= a.cols)
        return;
    dg = db = 0;
    for (int y = 0; y < 32; y++)
        dg += s1[y][threadIdx.x], db += s2[y][threadIdx.x];
    partial[(int64_t)blockIdx.x * 2 * a.cols + c] = dg;
    partial[((int64_t)blockIdx.x * 2 + 1) * a.cols + c] = db;
}

static __global__ void layer_norm_dw_finish(const __grid_constant__ rows_args a, const float *partial, int blocks)
{
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    double dg = 0, db = 0;
    if (c >= a.cols)
        return;
    for (int b = 0; b < blocks; b++) {
        dg += partial[(int64_t)b * 2 * a.cols + c];
        db += partial[((int64_t)b * 2 + 1) * a.cols + c];
    }
    if (a.out[1])
        kn_store(a.out[1], a.out_type[1], c,
                 (float)dg + (a.accumulate >> 1 & 1 ? kn_load(a.out[1], a.out_type[1], c) : 0.f));
    if (a.out[2])
        kn_store(a.out[2], a.out_type[2], c,
                 (float)db + (a.accumulate >> 2 & 1 ? kn_load(a.out[2], a.out_type[2], c) : 0.f));
}

/* `x` is the operand whose last dimension is the columns. */
static rows_args arguments(const kn_call *c, int x)
{
    rows_args a = {};
    const kn_shape *s = &c->in[x].shape;
    for (int i = 0; i < c->n_in && i < 4; i++)
        a.in[i] = c->in[i].p, a.type[i] = c->in[i].dtype;
    for (int i = 0; i < c->n_out && i < 3; i++)
        a.out[i] = c->out[i].p, a.out_type[i] = c->out[i].dtype;
    a.cols = s->d[s->rank - 1];
    a.rows = a.cols ? kn_shape_count(s) / a.cols : 0;
    a.per_matrix = s->rank > 1 ? s->d[s->rank - 2] : 1;
    a.causal = c->a->causal;
    a.alpha = c->a->alpha, a.beta = c->a->beta, a.clip = c->a->clip, a.eps = c->a->eps;
    a.accumulate = c->accumulate;
    return a;
}

#define ROW_OP(name, x, kernel)                                                       \
    extern "C" es_status kn_cuda_##name(const kn_call *c, es_error *err)              \
    {                                                                                 \
        rows_args a = arguments(c, x);                                                \
        if (a.rows == 0)                                                              \
            return ES_OK;                                                             \
        kernel<<<(unsigned)kn_ceil(a.rows, WARPS), 32 * WARPS, 0, kn_stream(c)>>>(a); \
        KN_LAUNCHED(#name);                                                           \
        return ES_OK;                                                                 \
    }
ROW_OP(softmax, 0, softmax_kernel)
ROW_OP(softmax_grad, 0, softmax_grad_kernel)
ROW_OP(log_softmax, 0, log_softmax_kernel)
ROW_OP(log_softmax_grad, 0, log_softmax_grad_kernel)
ROW_OP(cross_entropy, 0, cross_entropy_kernel)
ROW_OP(cross_entropy_grad, 1, cross_entropy_grad_kernel)
ROW_OP(soft_cross_entropy, 0, soft_cross_entropy_kernel)
ROW_OP(soft_cross_entropy_grad, 1, soft_cross_entropy_grad_kernel)
ROW_OP(alpha_divergence, 0, alpha_divergence_kernel)
ROW_OP(alpha_divergence_grad, 1, alpha_divergence_grad_kernel)
ROW_OP(correct, 0, correct_kernel)
ROW_OP(layer_norm, 0, layer_norm_kernel)

static int share_blocks(const rows_args *a)
{
    int64_t b = kn_ceil(a->rows, 32 * 8);
    return (int)(b < 1 ? 1 : b > 64 ? 64 : b);
}

extern "C" size_t kn_cuda_layer_norm_grad_scratch(const kn_call *c)
{
    rows_args a = arguments(c, 1);
    return (size_t)a.rows * sizeof(float2) + 256 + (size_t)share_blocks(&a) * 2 * (size_t)a.cols * sizeof(float);
}

extern "C" es_status kn_cuda_layer_norm_grad(const kn_call *c, es_error *err)
{
    rows_args a = arguments(c, 1);
    unsigned blocks = (unsigned)kn_ceil(a.rows, WARPS);
    float2 *moments = (float2 *)c->scratch;
    float *partial = (float *)((char *)c->scratch + ((size_t)a.rows * sizeof(float2) + 255) / 256 * 256);
    if (a.out[1] || a.out[2]) {
        int share = share_blocks(&a);
        moments_kernel<<<blocks, 32 * WARPS, 0, kn_stream(c)>>>(a, moments);
        layer_norm_dw_kernel<<<dim3((unsigned)share, (unsigned)kn_ceil(a.cols, 32)), dim3(32, 32), 0, kn_stream(c)>>>(
            a, moments, partial);
        layer_norm_dw_finish<<<(unsigned)kn_ceil(a.cols, 128), 128, 0, kn_stream(c)>>>(a, partial, share);
    }
    if (a.out[0])
        layer_norm_dx_kernel<<<blocks, 32 * WARPS, 0, kn_stream(c)>>>(a);
    KN_LAUNCHED("layer_norm_grad");
    return ES_OK;
}
