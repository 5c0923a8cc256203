/* Ops over rows [rows][columns]: softmax and log softmax with their gradients, the losses, the count of correct answers. A warp per row, a block of
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
    float alpha, beta, clip;
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
    a.alpha = c->a->alpha, a.beta = c->a->beta, a.clip = c->a->clip;
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
