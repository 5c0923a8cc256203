/* Reductions over any axes: sum, sum of a product, maximum. Two fast shapes (over all leading dimensions; over the middle, as global pooling) and one general
 * kernel with a warp per result.
 */
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/cuda.cuh"

struct reduce_args {
    const void *a, *b; /* b NULL: a alone */
    int a_type, b_type;
    int64_t as[KN_RANK_MAX], bs[KN_RANK_MAX],
        os[KN_RANK_MAX]; /* strides over the full shape; 0 where an operand repeats */
    int32_t full[KN_RANK_MAX];
    uint32_t axes;
    int rank;
    int64_t results, each;
    void *out;
    int out_type, accumulate;
    float scale;
};

/* Results of any layout are rare and small: they are summed in double, so that cancellation costs nothing. */
static __device__ __forceinline__ double warp_sum(double v)
{
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

/* Splits a linear index over the reduced (want = 1) or kept (want = 0) dimensions into offsets. */
static __device__ __forceinline__ void locate(const reduce_args &r, int64_t i, unsigned want, int64_t *a, int64_t *b,
                                              int64_t *o)
{
    for (int d = r.rank - 1; d >= 0; d--) {
        if ((r.axes >> d & 1) != want)
            continue;
        int64_t next = i / r.full[d], c = i - next * r.full[d];
        i = next;
        *a += c * r.as[d];
        *b += c * r.bs[d];
        *o += c * r.os[d];
    }
}

template <bool MAX> static __global__ void __launch_bounds__(256) reduce_kernel(const __grid_constant__ reduce_args r)
{
    int64_t result = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / 32, a0 = 0, b0 = 0, out = 0;
    int lane = threadIdx.x % 32;
    if (result >= r.results)
        return;
    locate(r, result, 0, &a0, &b0, &out);
    double sum = MAX ? -INFINITY : 0;
    for (int64_t k = lane; k < r.each; k += 32) {
        int64_t a = a0, b = b0, o = 0;
        locate(r, k, 1, &a, &b, &o);
        double v = (double)kn_load(r.a, r.a_type, a) * (r.b ? kn_load(r.b, r.b_type, b) : 1.f);
        sum = MAX ? fmax(sum, v) : sum + v;
    }
    if (MAX)
        for (int o = 16; o > 0; o >>= 1)
            sum = fmax(sum, __shfl_xor_sync(0xffffffffu, sum, o));
    else
        sum = warp_sum(sum);
    if (lane == 0)
        kn_store(r.out, r.out_type, out, (float)sum + (r.accumulate ? kn_load(r.out, r.out_type, out) : 0.f));
}

/* Few results of many terms: a block per (result, piece), pieces added by reduce_pieces in order. */
static __global__ void __launch_bounds__(256)
    reduce_long_kernel(const __grid_constant__ reduce_args r, float *partial, int pieces)
{
    __shared__ double shared[8];
    int64_t a0 = 0, b0 = 0, out = 0, each = (r.each + pieces - 1) / pieces, first = blockIdx.y * each,
            end = first + each < r.each ? first + each : r.each;
    double sum = 0;
    locate(r, blockIdx.x, 0, &a0, &b0, &out);
    for (int64_t k = first + threadIdx.x; k < end; k += 256) {
        int64_t a = a0, b = b0, o = 0;
        locate(r, k, 1, &a, &b, &o);
        sum += (double)kn_load(r.a, r.a_type, a) * (r.b ? kn_load(r.b, r.b_type, b) : 1.f);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 8; i++)
            sum += shared[i];
        partial[blockIdx.x * (int64_t)pieces + blockIdx.y] = (float)sum;
    }
}

static __global__ void reduce_pieces(const __grid_constant__ reduce_args r, const float *partial, int pieces)
{
    int64_t result = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, a = 0, b = 0, out = 0;
    if (result >= r.results)
        return;
    double sum = 0;
    for (int p = 0; p < pieces; p++)
        sum += partial[result * pieces + p];
    locate(r, result, 0, &a, &b, &out);
    kn_store(r.out, r.out_type, out, (float)sum + (r.accumulate ? kn_load(r.out, r.out_type, out) : 0.f));
}

/* [rows, channels] -> [channels], per channel over all rows: columns.cuh. */
template <int W>
static __global__ void __launch_bounds__(KN_COLUMN_THREADS, 2)
    column_sum_kernel(kn_columns k, const __grid_constant__ reduce_args r, float *partial, unsigned *arrived)
{
    extern __shared__ float shared[];
    __shared__ double total[KN_COLUMN_GROUPS * KN_VEC];
    kn_place p = kn_where<W>(k);
    float v[1][W] = {}, a[W], b[W];
    if (p.active)
#pragma unroll 4
        for (int64_t row = p.first + p.lane; row < p.end; row += k.lanes) {
            kn_loadw<W>(a, r.a, r.a_type, row * k.channels + p.channel);
            if (r.b)
                kn_loadw<W>(b, r.b, r.b_type, row * k.channels + p.channel);
#pragma unroll
            for (int w = 0; w < W; w++)
                v[0][w] += r.b ? a[w] * b[w] : a[w];
        }
    if (!kn_column_sums<1, W>(k, v, partial, arrived, shared, total))
        return;
    for (int i = threadIdx.x, n = k.groups * W; i < n; i += k.groups * k.lanes) {
        int channel = blockIdx.y * n + i;
        if (channel < k.channels)
            kn_store(r.out, r.out_type, channel,
                     (float)total[i] + (r.accumulate ? kn_load(r.out, r.out_type, channel) : 0.f));
    }
}

/* [n][middle][channels] -> [n][channels]: a block per image and column of channel groups; lanes over the middle, BATCH rows on their way at once. */
template <int W, int TYPE>
static __global__ void __launch_bounds__(256)
    middle_sum_kernel(const __grid_constant__ reduce_args r, int middle, int channels, int groups, int lanes)
{
    enum { BATCH = 4 };
    extern __shared__ float shared[];
    kn_begin();
    int group = (int)threadIdx.x % groups, lane = (int)threadIdx.x / groups,
        channel = (blockIdx.y * groups + group) * W;
    int64_t base = blockIdx.x * (int64_t)middle * channels + channel;
    float v[W] = {};
    for (int m = lane; m < middle && channel < channels; m += BATCH * lanes) {
        kn_raw<W, TYPE> a[BATCH], b[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            if (m + i * lanes < middle) {
                a[i].load(r.a, r.a_type, base + (int64_t)(m + i * lanes) * channels);
                if (r.b)
                    b[i].load(r.b, r.b_type, base + (int64_t)(m + i * lanes) * channels);
            }
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            if (m + i * lanes < middle)
#pragma unroll
                for (int w = 0; w < W; w++)
                    v[w] = r.b ? fmaf(a[i].get(w), b[i].get(w), v[w]) : v[w] + a[i].get(w);
    }
#pragma unroll
    for (int w = 0; w < W; w++)
        shared[w * groups * lanes + threadIdx.x] = v[w];
    __syncthreads();
    for (int i = threadIdx.x; i < groups * W;
         i += groups * lanes) { /* sum number i: group i % groups, element i / groups */
        const int at = (blockIdx.y * groups + i % groups) * W + i / groups;
        float sum = 0;
        for (int l = 0; l < lanes; l++)
            sum += shared[i / groups * groups * lanes + l * groups + i % groups];
        const int64_t o = blockIdx.x * r.os[0] + at;
        if (at < channels)
            kn_store(r.out, r.out_type, o, sum + (r.accumulate ? kn_load(r.out, r.out_type, o) : 0.f));
    }
}

/* [n, ...] -> [...]: a thread per eight results, of one row of the last dimension. */
static __global__ void __launch_bounds__(256) leading_sum_kernel(const __grid_constant__ reduce_args r)
{
    const int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) * KN_VEC;
    int64_t a = 0, b = 0, out = 0;
    float sum[KN_VEC] = {}, v[KN_VEC];
    if (i >= r.results)
        return;
    locate(r, i, 0, &a, &b, &out);
#pragma unroll 4
    for (int k = 0; k < r.full[0]; k++) {
        kn_load8(v, r.a, r.a_type, a + k * r.as[0]);
#pragma unroll
        for (int e = 0; e < KN_VEC; e++)
            sum[e] += v[e];
    }
    for (int e = 0; e < KN_VEC; e++)
        kn_store(r.out, r.out_type, out + e, sum[e] + (r.accumulate ? kn_load(r.out, r.out_type, out + e) : 0.f));
}

static reduce_args arguments(const kn_call *c, const kn_tensor *a, const kn_tensor *b)
{
    reduce_args r = {};
    r.rank = a->shape.rank;
    if (b && b->shape.rank > r.rank)
        r.rank = b->shape.rank;
    r.a = a->p, r.a_type = a->dtype, r.b = b ? b->p : NULL, r.b_type = b ? b->dtype : 0;
    r.axes = c->a->axes;
    r.results = r.each = 1;
    for (int d = 0; d < r.rank; d++) {
        int da = d - (r.rank - a->shape.rank), db = b ? d - (r.rank - b->shape.rank) : -1,
            dout = d - (r.rank - c->out[0].shape.rank);
        int na = da >= 0 ? a->shape.d[da] : 1, nb = db >= 0 ? b->shape.d[db] : 1;
        r.full[d] = na > nb ? na : nb;
        r.as[d] = na != 1 ? a->stride[da] : 0;
        r.bs[d] = nb != 1 ? b->stride[db] : 0;
        r.os[d] = dout >= 0 && c->out[0].shape.d[dout] != 1 ? c->out[0].stride[dout] : 0;
        if (r.axes >> d & 1)
            r.each *= r.full[d];
        else
            r.results *= r.full[d];
    }
    r.out = c->out[0].p, r.out_type = c->out[0].dtype, r.accumulate = c->accumulate & 1;
    return r;
}

enum shape_kind { GENERAL, COLUMNS, MIDDLE, LONG, LEADING };

static bool dense(const reduce_args *r, const int64_t *stride)
{
    int64_t s = 1;
    for (int d = r->rank - 1; d >= 0; d--) {
        if (r->full[d] != 1 && stride[d] != s)
            return false;
        s *= r->full[d];
    }
    return true;
}

/* Which kernel: by shape alone. */
static shape_kind kind_of(const reduce_args *r)
{
    uint32_t all = (1u << r->rank) - 1, axes = r->axes & all, last = 1u << (r->rank - 1);
    bool flat = dense(r, r->as) && (!r->b || dense(r, r->bs)) && r->full[r->rank - 1] > 1;
    if (flat && r->rank > 1 && axes == all - last && r->full[r->rank - 1] <= KN_COLUMN_MOST)
        return COLUMNS;
    if (flat && r->rank > 2 && axes == all - last - 1 && r->full[0] > 1)
        return MIDDLE;
    if (flat && axes == 1 && r->rank > 1 && !r->b && r->full[r->rank - 1] % KN_VEC == 0 && r->each <= 256 &&
        kn_aligned(r->a))
        return LEADING;
    return r->results < 512 && r->each > 4096 ? LONG : GENERAL;
}

static int pieces_of(const reduce_args *r)
{
    int64_t p = kn_ceil(r->each, 4096);
    return (int)(p > 256 ? 256 : p);
}

static size_t scratch_of(const kn_call *c, const reduce_args *r)
{
    switch (kind_of(r)) {
    case COLUMNS: return kn_columns_scratch(r->each, r->full[r->rank - 1], 1, kn_cuda(c)->sms);
    case LONG: return (size_t)r->results * (size_t)pieces_of(r) * sizeof(float);
    default: return 0;
    }
}

static int width_of(const reduce_args *r, int channels)
{
    return channels % KN_VEC == 0 && kn_aligned(r->a) && kn_aligned(r->b) && (!r->b || r->a_type == r->b_type) ? KN_VEC
                                                                                                               : 1;
}

static void run_columns(const kn_call *c, const reduce_args *r)
{
    int channels = r->full[r->rank - 1], width = width_of(r, channels);
    kn_columns k = kn_columns_make(r->each, channels, width, kn_cuda(c)->sms, false);
    dim3 grid((unsigned)k.row_blocks, (unsigned)k.col_blocks);
    unsigned threads = (unsigned)(k.groups * k.lanes), *arrived = kn_cuda(c)->arrived;
    float *partial = (float *)c->scratch;
    if (width == KN_VEC)
        column_sum_kernel<KN_VEC>
            <<<grid, threads, kn_columns_shared(k, 1, width), kn_stream(c)>>>(k, *r, partial, arrived);
    else
        column_sum_kernel<1><<<grid, threads, kn_columns_shared(k, 1, width), kn_stream(c)>>>(k, *r, partial, arrived);
}

static void run_middle(const kn_call *c, const reduce_args *r)
{
    int channels = r->full[r->rank - 1], width = width_of(r, channels), middle = (int)(r->each), all = channels / width;
    int lanes = middle / 4 < 1 ? 1 : middle / 4 > 32 ? 32 : middle / 4;
    int groups = all < 256 / lanes ? all : 256 / lanes;
    dim3 grid((unsigned)r->full[0], (unsigned)kn_ceil(all, groups)), block((unsigned)(groups * lanes));
    size_t shared = (size_t)(groups * lanes * width) * sizeof(float);
    if (width == KN_VEC && r->a_type == KN_BF16)
        kn_launch(middle_sum_kernel<KN_VEC, KN_BF16>, grid, block, shared, kn_stream(c), *r, middle, channels, groups,
                  lanes);
    else if (width == KN_VEC)
        kn_launch(middle_sum_kernel<KN_VEC, KN_F32>, grid, block, shared, kn_stream(c), *r, middle, channels, groups,
                  lanes);
    else
        kn_launch(middle_sum_kernel<1, KN_ANY_TYPE>, grid, block, shared, kn_stream(c), *r, middle, channels, groups,
                  lanes);
}

static es_status sum(const kn_call *c, const reduce_args *r, es_error *err)
{
    if (r->results == 0)
        return ES_OK;
    switch (kind_of(r)) {
    case COLUMNS: run_columns(c, r); break;
    case MIDDLE: run_middle(c, r); break;
    case LONG: {
        int pieces = pieces_of(r);
        reduce_long_kernel<<<dim3((unsigned)r->results, (unsigned)pieces), 256, 0, kn_stream(c)>>>(
            *r, (float *)c->scratch, pieces);
        reduce_pieces<<<(unsigned)kn_ceil(r->results, 256), 256, 0, kn_stream(c)>>>(*r, (const float *)c->scratch,
                                                                                    pieces);
        break;
    }
    case LEADING: leading_sum_kernel<<<(unsigned)kn_ceil(r->results / KN_VEC, 256), 256, 0, kn_stream(c)>>>(*r); break;
    case GENERAL: reduce_kernel<false><<<(unsigned)kn_ceil(r->results, 8), 256, 0, kn_stream(c)>>>(*r); break;
    }
    KN_LAUNCHED("reduce");
    return ES_OK;
}

extern "C" size_t kn_cuda_reduce_sum_scratch(const kn_call *c)
{
    if (c->n_in == 5)
        return 0;
    reduce_args r = arguments(c, &c->in[0], NULL);
    return scratch_of(c, &r);
}

extern "C" es_status kn_cuda_reduce_sum(const kn_call *c, es_error *err)
{
    if (c->n_in == 5) /* of a norm (fuse_excite.cu) */
        return kn_cuda_squeeze(c, err);
    reduce_args r = arguments(c, &c->in[0], NULL);
    return sum(c, &r, err);
}

extern "C" size_t kn_cuda_mul_reduce_scratch(const kn_call *c)
{
    if (c->n_in == 6)
        return 0;
    reduce_args r = arguments(c, &c->in[0], &c->in[1]);
    r.b = &r; /* shapes only: any non-NULL */
    return scratch_of(c, &r);
}

extern "C" es_status kn_cuda_mul_reduce(const kn_call *c, es_error *err)
{
    if (c->n_in == 6)
        return kn_cuda_squeeze_dot(c, err);
    reduce_args r = arguments(c, &c->in[0], &c->in[1]);
    return sum(c, &r, err);
}

extern "C" es_status kn_cuda_reduce_max(const kn_call *c, es_error *err)
{
    reduce_args r = arguments(c, &c->in[0], NULL);
    reduce_kernel<true><<<(unsigned)kn_ceil(r.results, 8), 256, 0, kn_stream(c)>>>(r);
    KN_LAUNCHED("reduce_max");
    return ES_OK;
}

/* in = d, x: d at the first maximum, 0 elsewhere. One thread per result: rare in networks (a maximum over an axis), simple on purpose. */
static __global__ void reduce_max_grad_kernel(const __grid_constant__ reduce_args r, const void *d, int d_type)
{
    int64_t result = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, a0 = 0, b0 = 0, from = 0, best_at = -1;
    if (result >= r.results)
        return;
    locate(r, result, 0, &a0, &b0, &from);
    float best = -INFINITY;
    for (int64_t k = 0; k < r.each; k++) {
        int64_t a = a0, b = 0, o = 0;
        locate(r, k, 1, &a, &b, &o);
        float v = kn_load(r.a, r.a_type, a);
        kn_store(r.out, r.out_type, a, 0);
        if (best_at < 0 || v > best)
            best = v, best_at = a;
    }
    kn_store(r.out, r.out_type, best_at, kn_load(d, d_type, result));
}

extern "C" es_status kn_cuda_reduce_max_grad(const kn_call *c, es_error *err)
{
    reduce_args r = arguments(c, &c->in[1], NULL);
    reduce_max_grad_kernel<<<(unsigned)kn_ceil(r.results, 256), 256, 0, kn_stream(c)>>>(r, c->in[0].p, c->in[0].dtype);
    KN_LAUNCHED("reduce_max_grad");
    return ES_OK;
}
