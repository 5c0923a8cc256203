/* Matrix products of dense activations and strided weights: cuBLASLt, one call. What fuse_products.cu put in: a second output or a third input of a gelu, a third input that is added. */
#include "kernels/cuda/cuda.cuh"

static __global__ void cast_kernel(__nv_bfloat16 *to, const float *from, int64_t rows, int64_t cols, int64_t ld)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < rows * cols;
         i += (int64_t)gridDim.x * blockDim.x)
        to[i] = __float2bfloat16_rn(from[i / cols * ld + i % cols]);
}

static kn_gemm describe(const kn_call *c)
{
    const kn_tensor *a = &c->in[0], *b = &c->in[1], *y = &c->out[0];
    int r = a->shape.rank;
    kn_gemm g = {};
    g.m = y->shape.d[r - 2], g.n = y->shape.d[r - 1], g.k = a->shape.d[r - 1 - c->a->ta];
    g.a = a->p, g.b = b->p, g.d = y->p;
    g.lda = a->stride[r - 2], g.ldb = b->stride[r - 2], g.ldd = y->stride[r - 2];
    g.batch = r > 2 ? y->shape.d[r - 3] : 1; /* one batched product for each index of the dimensions before that */
    if (r > 2)
        g.stride_a = a->stride[r - 3], g.stride_b = b->stride[r - 3], g.stride_d = y->stride[r - 3];
    g.ab = a->dtype == KN_BF16 || b->dtype == KN_BF16 ? KN_BF16 : KN_F32;
    g.dd = y->dtype;
    g.ta = c->a->ta, g.tb = c->a->tb, g.accumulate = c->accumulate & 1;
    if (c->a->act == KN_ACT_GELU) {
        g.epilogue = c->a->order ? KN_EPILOGUE_GELU_GRAD : KN_EPILOGUE_GELU;
        g.aux = c->a->order ? c->in[2].p : c->n_out > 1 ? c->out[1].p : NULL;
    } else if (c->n_in > 2) {
        g.c = c->in[2].p;
        g.accumulate = true;
    }
    return g;
}

/* An fp32 operand beside a bf16 one (a loss gradient times activations) is rounded into scratch first. */
static size_t cast_bytes(const kn_tensor *t, const kn_gemm *g)
{
    return t->dtype != g->ab ? ((size_t)kn_shape_count(&t->shape) * 2 + 255) / 256 * 256 : 0;
}

extern "C" size_t kn_cuda_matmul_scratch(const kn_call *c)
{
    kn_gemm g = describe(c);
    return cast_bytes(&c->in[0], &g) + cast_bytes(&c->in[1], &g);
}

/* Replaces *t by its bf16 copy where it needs one. */
static void cast(const kn_call *c, kn_tensor *t, const kn_gemm *g, char **scratch)
{
    size_t bytes = cast_bytes(t, g);
    if (bytes == 0)
        return;
    int r = t->shape.rank;
    int64_t count = kn_shape_count(&t->shape), cols = t->shape.d[r - 1];
    if (!kn_cuda(c)->preparing)
        cast_kernel<<<kn_blocks(count, 256, 4096), 256, 0, kn_stream(c)>>>(
            (__nv_bfloat16 *)*scratch, (const float *)t->p, count / cols, cols, t->stride[r - 2]);
    t->p = *scratch;
    t->dtype = KN_BF16;
    *scratch += bytes;
    for (int d = r - 1, step = 1; d >= 0; d--) {
        t->stride[d] = step;
        step *= t->shape.d[d];
    }
}

/* The address at index i of the first n dimensions. */
static void *shifted(const kn_tensor *t, const int32_t *i, int n)
{
    int64_t o = 0;
    for (int d = 0; d < n; d++)
        o += t->stride[d] * i[d];
    return (char *)t->p + o * (int64_t)kn_dtype_bytes(t->dtype);
}

extern "C" es_status kn_cuda_matmul(const kn_call *c, es_error *err)
{
    kn_call k = *c;
    kn_gemm g = describe(c);
    char *scratch = (char *)c->scratch;
    int32_t index[KN_RANK_MAX] = {0};
    int outer = c->out[0].shape.rank - 3;
    if (kn_shape_count(&c->out[0].shape) == 0)
        return ES_OK;
    cast(c, &k.in[0], &g, &scratch);
    cast(c, &k.in[1], &g, &scratch);
    KN_LAUNCHED("matmul cast");
    g = describe(&k);
    for (;;) {
        int d = outer - 1;
        g.a = shifted(&k.in[0], index, outer), g.b = shifted(&k.in[1], index, outer),
        g.d = shifted(&k.out[0], index, outer);
        ES_RETURN(kn_cuda_gemm(kn_cuda(c), &g, err));
        for (; d >= 0 && ++index[d] == c->out[0].shape.d[d]; d--)
            index[d] = 0;
        if (d < 0)
            return ES_OK;
    }
}

extern "C" es_status kn_cuda_matmul_prepare(const kn_call *c, es_error *err)
{
    return kn_cuda_prepare(kn_cuda_matmul, c, err);
}
