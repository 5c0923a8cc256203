/* Elementwise ops, copies and broadcasts: one kernel, eight elements a thread, operands described by strides over at most five collapsed dimensions. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.cuh"

enum ew_op {
    EW_COPY,
    EW_ADD,
    EW_SUB,
    EW_MUL,
    EW_DIV,
    EW_MAXIMUM,
    EW_GREATER_EQUAL,
    EW_AFFINE,
    EW_ACTIVATE,
    EW_ACTIVATE_MUL,
    EW_GELU,
    EW_GELU_MUL,
    EW_BIAS_ACT,
    EW_BLEND
};

struct ew_operand {
    void *p;
    int dtype;
    int64_t stride[KN_RANK_MAX];
    int last; /* stride of the last dimension: 1, or 0 when it repeats */
};

struct ew_args {
    ew_operand in[3], out;
    int rank;
    int32_t d[KN_RANK_MAX]; /* last one in vectors of W */
    int64_t vectors;
    int act, order, accumulate, flat; /* flat: every operand is dense or a single number */
    float alpha, beta;
};

template <int W> static __device__ __forceinline__ void operand_load(float *v, const ew_operand &o, int64_t offset)
{
    if (o.last || W == 1) {
        kn_loadw<W>(v, o.p, o.dtype, offset);
        return;
    }
    float x = kn_load(o.p, o.dtype, offset);
#pragma unroll
    for (int k = 0; k < W; k++)
        v[k] = x;
}

template <int OP, bool FAST> static __device__ __forceinline__ float apply(const ew_args &a, float x, float y, float z)
{
    switch (OP) {
    case EW_ADD: return x + y;
    case EW_SUB: return x - y;
    case EW_MUL: return x * y;
    case EW_DIV: return x / y;
    case EW_MAXIMUM: return x >= y ? x : y;
    case EW_GREATER_EQUAL: return x >= y ? 1.f : 0.f;
    case EW_AFFINE: return fmaf(a.alpha, x, a.beta);
    case EW_ACTIVATE: return kn_act_any<FAST>(a.act, a.order, x);
    case EW_ACTIVATE_MUL: return x * kn_act_any<FAST>(a.act, a.order, y);
    case EW_GELU: return kn_gelu<FAST>(x, 0);
    case EW_GELU_MUL: return x * kn_gelu<FAST>(y, 1);
    case EW_BIAS_ACT: return kn_act_any<FAST>(a.act, 0, x + y);
    case EW_BLEND: return y == 1.f ? x : fmaf(y, x - z, z); /* 1 assigns, exactly */
    default: return x;
    }
}

/* Where element vector i of each operand lies. I: of an index; 64-bit division takes about a hundred instructions. */
template <typename I, int N, int W>
static __device__ __forceinline__ void locate(const ew_args &a, int64_t i, int64_t *at, int64_t *out)
{
    I rest = (I)i;
#pragma unroll
    for (int k = 0; k < N; k++)
        at[k] = 0;
    *out = 0;
    for (int d = a.rank - 1; d >= 0; d--) {
        const I next = d ? rest / (I)a.d[d] : 0;
        const int64_t c = (int64_t)(rest - next * (I)a.d[d]) * (d == a.rank - 1 ? W : 1);
        rest = next;
        *out += c * a.out.stride[d];
#pragma unroll
        for (int k = 0; k < N; k++)
            at[k] += c * a.in[k].stride[d];
    }
}

template <int OP, int N, int W, bool FAST>
static __global__ void __launch_bounds__(256) ew_kernel(const __grid_constant__ ew_args a)
{
    kn_begin();
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < a.vectors;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t at[N], out = i * W;
        if (a.flat) {
#pragma unroll
            for (int k = 0; k < N; k++)
                at[k] = a.in[k].last ? i * W : 0;
        } else if (a.vectors <= INT32_MAX) {
            locate<uint32_t, N, W>(a, i, at, &out);
        } else {
            locate<uint64_t, N, W>(a, i, at, &out);
        }
        float v[N][W], r[W];
#pragma unroll
        for (int k = 0; k < N; k++)
            operand_load<W>(v[k], a.in[k], at[k]);
#pragma unroll
        for (int e = 0; e < W; e++)
            r[e] = apply<OP, FAST>(a, v[0][e], N > 1 ? v[N > 1][e] : 0.f, N > 2 ? v[N - 1][e] : 0.f);
        if (a.accumulate) {
            float old[W];
            kn_loadw<W>(old, a.out.p, a.out.dtype, out);
#pragma unroll
            for (int e = 0; e < W; e++)
                r[e] += old[e];
        }
        kn_storew<W>(r, a.out.p, a.out.dtype, out);
    }
}

static void set_operand(ew_operand *o, const kn_tensor *t, const kn_shape *shape)
{
    int shift = shape->rank - t->shape.rank;
    o->p = t->p;
    o->dtype = t->dtype;
    for (int d = 0; d < KN_RANK_MAX; d++)
        o->stride[d] = d >= shift && d < shape->rank && t->shape.d[d - shift] != 1 ? t->stride[d - shift] : 0;
}

/* Merges dimension d into d + 1 wherever every operand walks them as one. */
static void collapse(ew_args *a, int n)
{
    while (a->rank > 1 && a->d[a->rank - 1] == 1)
        a->rank--;
    for (int d = a->rank - 2; d >= 0; d--) {
        bool same = a->out.stride[d] == a->out.stride[d + 1] * a->d[d + 1];
        for (int k = 0; k < n; k++)
            same = same && a->in[k].stride[d] == a->in[k].stride[d + 1] * a->d[d + 1];
        if (!same && a->d[d] != 1)
            continue;
        if (a->d[d] != 1)
            a->d[d + 1] *= a->d[d];
        for (int e = d; e + 1 < a->rank; e++) {
            a->d[e] = a->d[e + 1];
            a->out.stride[e] = a->out.stride[e + 1];
            for (int k = 0; k < n; k++)
                a->in[k].stride[e] = a->in[k].stride[e + 1];
        }
        a->rank--;
    }
}

static bool vector_ready(const ew_operand *o, int rank)
{
    int64_t last = o->stride[rank - 1];
    if (last == 0)
        return true;
    bool ok = last == 1 && kn_aligned(o->p);
    for (int d = 0; d < rank - 1; d++)
        ok = ok && o->stride[d] % KN_VEC == 0;
    return ok;
}

/* Tensors [outer][rows][channels] beside ones that repeat along the rows (a squeeze-excite's scales): what repeats is loaded once, the rest four rows at a time,
 * and no index is taken apart. A thread keeps its channels; a block one outer index, a column of channels and a piece of the rows. */
struct ew_split {
    int groups, lanes, rows_each; /* of a block */
};

template <int OP, int N, int TYPE>
static __global__ void __launch_bounds__(256)
    ew_rows_kernel(const __grid_constant__ ew_args a, const __grid_constant__ ew_split s)
{
    enum { BATCH = 4 };
    kn_begin();
    const int group = blockIdx.y * s.groups + (int)threadIdx.x % s.groups,
              first = blockIdx.z * s.rows_each + (int)threadIdx.x / s.groups,
              end = min((int)(blockIdx.z + 1) * s.rows_each, a.d[1]);
    kn_raw<KN_VEC, TYPE> v[N][BATCH], old[BATCH];
    int64_t at[N], out = blockIdx.x * a.out.stride[0] + group * KN_VEC;
    if (group >= a.d[2])
        return;
#pragma unroll
    for (int k = 0; k < N; k++) {
        at[k] = blockIdx.x * a.in[k].stride[0] + group * KN_VEC;
        if (a.in[k].stride[1] == 0)
            v[k][0].load(a.in[k].p, TYPE, at[k]);
    }
    for (int r = first; r < end; r += BATCH * s.lanes) {
#pragma unroll
        for (int b = 0; b < BATCH; b++)
            if (r + b * s.lanes < end) {
#pragma unroll
                for (int k = 0; k < N; k++)
                    if (a.in[k].stride[1])
                        v[k][b].load(a.in[k].p, TYPE, at[k] + (int64_t)(r + b * s.lanes) * a.in[k].stride[1]);
                if (a.accumulate)
                    old[b].load(a.out.p, TYPE, out + (int64_t)(r + b * s.lanes) * a.out.stride[1]);
            }
#pragma unroll
        for (int b = 0; b < BATCH; b++)
            if (r + b * s.lanes < end) {
                float y[KN_VEC];
#pragma unroll
                for (int e = 0; e < KN_VEC; e++) {
                    const float x0 = a.in[0].stride[1] ? v[0][b].get(e) : v[0][0].get(e), x1 = N < 2 ? 0.f
                                                                                               : a.in[N - 1].stride[1]
                                                                                                   ? v[N - 1][b].get(e)
                                                                                                   : v[N - 1][0].get(e);
                    y[e] = apply<OP, TYPE == KN_BF16>(a, x0, x1, 0.f) + (a.accumulate ? old[b].get(e) : 0.f);
                }
                kn_store8(y, a.out.p, TYPE, out + (int64_t)(r + b * s.lanes) * a.out.stride[1]);
            }
    }
}

/* Three dimensions, one type, vectors along the last, and an operand that repeats along the middle one. */
template <int N> static bool rows_shape(const ew_args *a)
{
    bool repeats = false, same = a->rank == 3 && a->d[0] <= 65535 * 32 && a->out.stride[2] == 1;
    for (int k = 0; k < N; k++) {
        same = same && a->in[k].dtype == a->out.dtype && a->in[k].stride[2] == 1;
        repeats = repeats || a->in[k].stride[1] == 0;
    }
    return same && repeats && (a->out.dtype == KN_BF16 || a->out.dtype == KN_F32);
}

template <int OP, int N> static void launch_rows(const kn_call *c, const ew_args *a)
{
    ew_split s;
    const int columns = (int)kn_ceil(a->d[2], 64);
    s.groups = (int)kn_ceil(a->d[2], columns);
    s.lanes = 256 / s.groups;
    const int64_t want = kn_ceil((int64_t)kn_cuda(c)->sms * 16, (int64_t)a->d[0] * columns),
                  most = kn_ceil(a->d[1], 4 * s.lanes), pieces = want < most ? want : most;
    s.rows_each = (int)kn_ceil(a->d[1], pieces);
    const dim3 grid((unsigned)a->d[0], (unsigned)columns, (unsigned)kn_ceil(a->d[1], s.rows_each)),
        block((unsigned)(s.groups * s.lanes));
    if (a->out.dtype == KN_BF16)
        kn_launch(ew_rows_kernel<OP, N, KN_BF16>, grid, block, 0, kn_stream(c), *a, s);
    else
        kn_launch(ew_rows_kernel<OP, N, KN_F32>, grid, block, 0, kn_stream(c), *a, s);
}

template <int OP, int N> static void launch(const kn_call *c, ew_args *a, int width)
{
    int blocks = kn_blocks(a->vectors, 256, (int64_t)kn_cuda(c)->sms * 16);
    bool fast = a->out.dtype == KN_BF16;
    if (width == 8 && fast)
        kn_launch(ew_kernel<OP, N, 8, true>, blocks, 256, 0, kn_stream(c), *a);
    else if (width == 8)
        kn_launch(ew_kernel<OP, N, 8, false>, blocks, 256, 0, kn_stream(c), *a);
    else
        kn_launch(ew_kernel<OP, N, 1, false>, blocks, 256, 0, kn_stream(c), *a);
}

/* Runs OP over out's shape (or `shape` when the output is a strided slice). */
template <int OP, int N>
static es_status run(const kn_call *c, const kn_tensor *const in[N], const kn_tensor *out, bool accumulate,
                     es_error *err)
{
    ew_args a = {};
    int64_t count = kn_shape_count(&out->shape);
    if (count == 0)
        return ES_OK;
    a.rank = out->shape.rank ? out->shape.rank : 1;
    for (int d = 0; d < a.rank; d++)
        a.d[d] = out->shape.rank ? out->shape.d[d] : 1;
    set_operand(&a.out, out, &out->shape);
    for (int d = 0; d < out->shape.rank; d++) /* an output dimension of 1 has stride 0 too: harmless */
        a.out.stride[d] = out->shape.d[d] != 1 ? out->stride[d] : 0;
    for (int k = 0; k < N; k++)
        set_operand(&a.in[k], in[k], &out->shape);
    a.act = c->a->act, a.order = c->a->order, a.alpha = c->a->alpha, a.beta = c->a->beta, a.accumulate = accumulate;
    collapse(&a, N);
    bool vec = a.d[a.rank - 1] % KN_VEC == 0 && a.out.stride[a.rank - 1] == 1 && vector_ready(&a.out, a.rank);
    a.flat = a.rank == 1 && (a.out.stride[0] == 1 || a.d[0] == 1);
    for (int k = 0; k < N; k++) {
        vec = vec && vector_ready(&a.in[k], a.rank);
        a.in[k].last = a.in[k].stride[a.rank - 1] != 0;
        a.flat = a.flat && (a.in[k].stride[0] == 1 || a.in[k].stride[0] == 0);
    }
    int width = vec ? KN_VEC : 1;
    a.d[a.rank - 1] /= width;
    a.vectors = count / width;
    if constexpr (OP == EW_MUL || (OP == EW_COPY && N == 1)) {
        if (width == KN_VEC && rows_shape<N>(&a)) {
            launch_rows<OP, N>(c, &a);
            KN_LAUNCHED("elementwise");
            return ES_OK;
        }
    }
    launch<OP, N>(c, &a, width);
    KN_LAUNCHED("elementwise");
    return ES_OK;
}

#define EW1(name, OP)                                                    \
    extern "C" es_status kn_cuda_##name(const kn_call *c, es_error *err) \
    {                                                                    \
        const kn_tensor *in[1] = {&c->in[0]};                            \
        return run<OP, 1>(c, in, &c->out[0], c->accumulate & 1, err);    \
    }
#define EW2(name, OP)                                                    \
    extern "C" es_status kn_cuda_##name(const kn_call *c, es_error *err) \
    {                                                                    \
        const kn_tensor *in[2] = {&c->in[0], &c->in[1]};                 \
        return run<OP, 2>(c, in, &c->out[0], c->accumulate & 1, err);    \
    }
EW1(output, EW_COPY)
EW1(broadcast, EW_COPY)
EW1(affine, EW_AFFINE)
EW2(add, EW_ADD)
EW2(sub, EW_SUB)
EW2(mul, EW_MUL)
EW2(div, EW_DIV)
EW2(maximum, EW_MAXIMUM)
EW2(greater_equal, EW_GREATER_EQUAL)

/* The gelu of transformers without the switch over activations: their largest tensors pass here. */
extern "C" es_status kn_cuda_activate(const kn_call *c, es_error *err)
{
    const kn_tensor *in[1] = {&c->in[0]};
    return c->a->act == KN_ACT_GELU && c->a->order == 0
               ? run<EW_GELU, 1>(c, in, &c->out[0], c->accumulate & 1, err)
               : run<EW_ACTIVATE, 1>(c, in, &c->out[0], c->accumulate & 1, err);
}
extern "C" es_status kn_cuda_activate_mul(const kn_call *c, es_error *err)
{
    const kn_tensor *in[2] = {&c->in[0], &c->in[1]};
    return c->a->act == KN_ACT_GELU && c->a->order == 1
               ? run<EW_GELU_MUL, 2>(c, in, &c->out[0], c->accumulate & 1, err)
               : run<EW_ACTIVATE_MUL, 2>(c, in, &c->out[0], c->accumulate & 1, err);
}

extern "C" es_status kn_cuda_bias_act(const kn_call *c, es_error *err)
{
    const kn_tensor *two[2] = {&c->in[0], &c->in[1]};
    const kn_tensor *one[1] = {&c->in[0]};
    return c->in[1].p ? run<EW_BIAS_ACT, 2>(c, two, &c->out[0], c->accumulate & 1, err)
                      : run<EW_ACTIVATE, 1>(c, one, &c->out[0], c->accumulate & 1, err);
}

extern "C" es_status kn_cuda_accumulate(const kn_call *c, es_error *err)
{
    const kn_tensor *in[1] = {&c->in[1]};
    return run<EW_COPY, 1>(c, in, &c->out[0], true, err);
}

/* One average by itself; blend.cu has the rest. */
es_status kn_cuda_blend_now(const kn_call *c, es_error *err)
{
    const kn_tensor *in[3] = {&c->in[0], &c->in[1], &c->out[0]};
    return run<EW_BLEND, 3>(c, in, &c->out[0], false, err);
}

extern "C" es_status kn_cuda_slice(const kn_call *c, es_error *err)
{
    kn_tensor part = c->in[0];
    const kn_tensor *in[1] = {&part};
    int64_t offset = 0;
    for (int d = 0; d < part.shape.rank; d++)
        offset += part.stride[d] * c->a->box.start[d];
    part.p = (char *)part.p + offset * (int64_t)kn_dtype_bytes(part.dtype);
    part.shape = c->out[0].shape;
    return run<EW_COPY, 1>(c, in, &c->out[0], c->accumulate & 1, err);
}

/* Copies `from` into the part of `to` that starts at start[]. */
static es_status place(const kn_call *c, const kn_tensor *to, const int32_t *start, const kn_tensor *from,
                       es_error *err)
{
    kn_tensor part = *to;
    const kn_tensor *in[1] = {from};
    int64_t offset = 0;
    for (int d = 0; d < part.shape.rank; d++)
        offset += part.stride[d] * start[d];
    part.p = (char *)part.p + offset * (int64_t)kn_dtype_bytes(part.dtype);
    part.shape = from->shape;
    return run<EW_COPY, 1>(c, in, &part, false, err);
}

extern "C" es_status kn_cuda_pad(const kn_call *c, es_error *err)
{
    size_t bytes = (size_t)kn_shape_count(&c->out[0].shape) * kn_dtype_bytes(c->out[0].dtype);
    KN_CUDA_RETURN(cudaMemsetAsync(c->out[0].p, 0, bytes, kn_stream(c)));
    return place(c, &c->out[0], c->a->box.start, &c->in[0], err);
}

extern "C" es_status kn_cuda_concat(const kn_call *c, es_error *err)
{
    int32_t start[KN_RANK_MAX] = {0};
    for (int i = 0; i < c->n_in; i++) {
        ES_RETURN(place(c, &c->out[0], start, &c->in[i], err));
        start[c->a->axis] += c->in[i].shape.d[c->a->axis];
    }
    return ES_OK;
}

extern "C" es_status kn_cuda_transpose(const kn_call *c, es_error *err)
{
    kn_tensor view = c->in[0];
    const kn_tensor *in[1] = {&view};
    for (int d = 0; d < view.shape.rank; d++) {
        view.shape.d[d] = c->in[0].shape.d[c->a->perm[d]];
        view.stride[d] = c->in[0].stride[c->a->perm[d]];
    }
    return run<EW_COPY, 1>(c, in, &c->out[0], c->accumulate & 1, err);
}

static __global__ void fill_kernel(void *p, int dtype, int64_t n, float v)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        kn_store(p, dtype, i, v);
}

extern "C" es_status kn_cuda_constant(const kn_call *c, es_error *err)
{
    int64_t n = kn_shape_count(&c->out[0].shape);
    fill_kernel<<<kn_blocks(n, 256, 4096), 256, 0, kn_stream(c)>>>(c->out[0].p, c->out[0].dtype, n, c->a->alpha);
    KN_LAUNCHED("constant");
    return ES_OK;
}
