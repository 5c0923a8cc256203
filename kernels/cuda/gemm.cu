/* Products through cuBLASLt: row-major with leading dimensions, so that a slice of a weight is never copied.
 *
 * cuBLASLt is column-major: the row-major D = op(A) op(B) is the column-major D^T = op(B)^T op(A)^T, so A and B change places.
 * Descriptors and the algorithm for a shape are found once, while a plan is made, and kept in a hash table for the life of the device. Two thirds of what a
 * supernet asks for repeats after a few steps; the rest costs one heuristic query on the host while the device is busy with the subnet before.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

struct gemm_key {
    int64_t m, n, k, lda, ldb, ldd, stride_a, stride_b, stride_d;
    int32_t batch, ab, dd;
    uint8_t ta, tb, accumulate, align; /* align: bytes that every base pointer is a multiple of */
    uint8_t epilogue, aux;             /* aux: there is one */
};

struct gemm_entry {
    gemm_key key;
    bool used;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
};

struct kn_cuda_gemm_cache {
    gemm_entry *entry;
    size_t size, used; /* size is a power of two */
};

static uint64_t hash(const gemm_key *k)
{
    const unsigned char *p = (const unsigned char *)k;
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < sizeof *k; i++)
        h = (h ^ p[i]) * 1099511628211ull;
    return h ^ h >> 31;
}

static gemm_entry *find(kn_cuda_gemm_cache *c, const gemm_key *k)
{
    for (size_t i = hash(k);; i++) {
        gemm_entry *e = &c->entry[i & (c->size - 1)];
        if (!e->used || memcmp(&e->key, k, sizeof *k) == 0)
            return e;
    }
}

static es_status grow(kn_cuda_gemm_cache *c, es_error *err)
{
    kn_cuda_gemm_cache bigger = {NULL, c->size ? 2 * c->size : 1024, c->used};
    bigger.entry = (gemm_entry *)calloc(bigger.size, sizeof *bigger.entry);
    if (!bigger.entry)
        return es_fail(err, ES_NO_MEMORY, "cuda", "no memory for %zu product shapes", bigger.size);
    for (size_t i = 0; i < c->size; i++)
        if (c->entry[i].used)
            *find(&bigger, &c->entry[i].key) = c->entry[i];
    free(c->entry);
    *c = bigger;
    return ES_OK;
}

static unsigned alignment(const void *p, int64_t ld, kn_dtype t)
{
    uintptr_t bits = (uintptr_t)p | (uintptr_t)(ld * (int64_t)kn_dtype_bytes(t)) | 16;
    return (unsigned)(bits & ~(bits - 1)); /* the lowest set bit */
}

static gemm_key key_of(const kn_gemm *g)
{
    gemm_key k;
    memset(&k, 0, sizeof k); /* padding too: keys are compared as bytes */
    k.m = g->m, k.n = g->n, k.k = g->k, k.lda = g->lda, k.ldb = g->ldb, k.ldd = g->ldd;
    k.batch = g->batch > 1 ? g->batch : 1;
    if (k.batch > 1)
        k.stride_a = g->stride_a, k.stride_b = g->stride_b, k.stride_d = g->stride_d;
    k.ab = g->ab, k.dd = g->dd, k.ta = g->ta, k.tb = g->tb, k.accumulate = g->accumulate;
    k.epilogue = (uint8_t)g->epilogue, k.aux = g->aux != NULL;
    unsigned a = alignment(g->a, g->lda, g->ab), b = alignment(g->b, g->ldb, g->ab), d = alignment(g->d, g->ldd, g->dd);
    unsigned low = a < b ? a : b;
    k.align = (uint8_t)(low < d ? low : d);
    return k;
}

static void destroy(gemm_entry *e)
{
    if (e->op)
        cublasLtMatmulDescDestroy(e->op);
    if (e->a)
        cublasLtMatrixLayoutDestroy(e->a);
    if (e->b)
        cublasLtMatrixLayoutDestroy(e->b);
    if (e->d)
        cublasLtMatrixLayoutDestroy(e->d);
    memset(e, 0, sizeof *e);
}

void kn_cuda_gemm_cache_free(kn_cuda_device *dev)
{
    if (!dev->gemms)
        return;
    for (size_t i = 0; i < dev->gemms->size; i++)
        if (dev->gemms->entry[i].used)
            destroy(&dev->gemms->entry[i]);
    free(dev->gemms->entry);
    free(dev->gemms);
    dev->gemms = NULL;
}

static cublasStatus_t layout(cublasLtMatrixLayout_t *out, kn_dtype t, int64_t rows, int64_t cols, int64_t ld, int batch,
                             int64_t stride)
{
    cublasStatus_t s =
        cublasLtMatrixLayoutCreate(out, t == KN_BF16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)rows, (uint64_t)cols, ld);
    if (s == CUBLAS_STATUS_SUCCESS && batch > 1) {
        cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
        s = cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
    }
    return s;
}

static cublasStatus_t set_epilogue(gemm_entry *e, const gemm_key *k, void *aux)
{
    const cublasLtEpilogue_t what = k->epilogue == KN_EPILOGUE_GELU_GRAD ? CUBLASLT_EPILOGUE_DGELU
                                    : k->aux                             ? CUBLASLT_EPILOGUE_GELU_AUX
                                                                         : CUBLASLT_EPILOGUE_GELU;
    cublasStatus_t s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &what, sizeof what);
    if (s == CUBLAS_STATUS_SUCCESS && k->aux)
        s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &k->ldd, sizeof k->ldd);
    if (s == CUBLAS_STATUS_SUCCESS && k->aux)
        s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux, sizeof aux);
    return s;
}

/* In column-major terms the first operand is our B. */
static cublasStatus_t describe(gemm_entry *e, const gemm_key *k, void *aux)
{
    cublasOperation_t ta = k->tb ? CUBLAS_OP_T : CUBLAS_OP_N, tb = k->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t s = cublasLtMatmulDescCreate(&e->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    s = layout(&e->a, (kn_dtype)k->ab, k->tb ? k->k : k->n, k->tb ? k->n : k->k, k->ldb, k->batch, k->stride_b);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = layout(&e->b, (kn_dtype)k->ab, k->ta ? k->m : k->k, k->ta ? k->k : k->m, k->lda, k->batch, k->stride_a);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = layout(&e->d, (kn_dtype)k->dd, k->n, k->m, k->ldd, k->batch, k->stride_d);
    if (s == CUBLAS_STATUS_SUCCESS && k->epilogue != KN_EPILOGUE_NONE)
        s = set_epilogue(e, k, aux);
    return s;
}

/* Of what the heuristic offers, best first by its own judgement, the first is not always the fastest. Two rules for large bf16 products, from measuring all eight on an H200 for the
 * products of the gpt space (docs/measurements.md); never measured during a run, so that a product always gets the same algorithm, and a run the same bits. */
enum { CHOICES = 8 };
typedef enum choice_rule { FIRST, UNSPLIT, SQUARE } choice_rule;

/* Gradients of weights are sums over so many rows that the heuristic likes to split them, though the sums of the parts are another pass over memory: UNSPLIT takes what fills the
 * chip once without that, where it is offered (0.105 ms for 0.115, of 768 x 3072 and 16,384 rows). Activations and their gradients, many rows of some hundred: SQUARE takes tiles of
 * 128 x 128 by pairs of blocks (0.140 ms for 0.164 with gelu, 0.031 for 0.035 without, 0.160 for 0.177 with its gradient), else of little more (0.079 for 0.092, 2304 wide); a
 * product that also adds is better off with the first. */
static choice_rule rule_for(const gemm_key *k)
{
    if (k->ab != KN_BF16 || k->batch > 1)
        return FIRST;
    if (k->dd == KN_F32)
        return k->k > 2 * k->m && k->k > 2 * k->n && k->m * k->n >= 1 << 19 ? UNSPLIT : FIRST;
    return k->m >= 4096 && k->n >= 384 && k->k >= 384 && !k->accumulate ? SQUARE : FIRST;
}

static uint32_t config(const cublasLtMatmulHeuristicResult_t *r, cublasLtMatmulAlgoConfigAttributes_t what)
{
    uint32_t value = 0; /* some are 16 bits */
    size_t written = 0;
    const size_t size = what == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID ? sizeof(uint16_t) : sizeof value;
    cublasLtMatmulAlgoConfigGetAttribute(&r->algo, what, &value, size, &written);
    return value;
}

/* How well an algorithm follows a rule; 0: not. */
static int follows(const cublasLtMatmulHeuristicResult_t *r, choice_rule rule)
{
    const uint32_t cluster = config(r, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID);
    if (r->state != CUBLAS_STATUS_SUCCESS || config(r, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1)
        return 0;
    if (rule == UNSPLIT)
        return r->wavesCount > 0.85f && r->wavesCount <= 1;
    if (cluster != CUBLASLT_CLUSTER_SHAPE_2x1x1 && cluster != CUBLASLT_CLUSTER_SHAPE_1x2x1)
        return 0;
    switch (config(r, CUBLASLT_ALGO_CONFIG_TILE_ID)) {
    case CUBLASLT_MATMUL_TILE_128x128: return 2;
    case CUBLASLT_MATMUL_TILE_128x160:
    case CUBLASLT_MATMUL_TILE_144x128:
    case CUBLASLT_MATMUL_TILE_176x128: return 1;
    default: return 0;
    }
}

static int pick(const cublasLtMatmulHeuristicResult_t *r, int n, choice_rule rule)
{
    int best = 0, rank = 0;
    for (int i = 0; i < n && rule != FIRST; i++)
        if (follows(&r[i], rule) > rank) {
            rank = follows(&r[i], rule);
            best = i;
        }
    return best;
}

static cublasStatus_t choose(kn_cuda_device *dev, gemm_entry *e, const gemm_key *k)
{
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulHeuristicResult_t r[CHOICES];
    const choice_rule rule = rule_for(k);
    int found = 0;
    uint32_t align = k->align,
             deterministic = CUBLASLT_REDUCTION_SCHEME_MASK & ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_INPLACE;
    cublasStatus_t s = cublasLtMatmulPreferenceCreate(&pref);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &dev->lt_workspace_bytes,
                                         sizeof(size_t));
    /* In-place split-K reduction adds with atomics: its order, and so its bits, change from run to run. */
    cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &deterministic,
                                         sizeof deterministic);
    cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align, sizeof align);
    cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align, sizeof align);
    cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align, sizeof align);
    cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align, sizeof align);
    s = cublasLtMatmulAlgoGetHeuristic(dev->lt, e->op, e->a, e->b, e->d, e->d, pref, rule == FIRST ? 1 : CHOICES, r,
                                       &found);
    cublasLtMatmulPreferenceDestroy(pref);
    if (s == CUBLAS_STATUS_SUCCESS && found == 0)
        s = CUBLAS_STATUS_NOT_SUPPORTED;
    if (s == CUBLAS_STATUS_SUCCESS)
        e->algo = r[pick(r, found, rule)].algo;
    return s;
}

static es_status lookup(kn_cuda_device *dev, const kn_gemm *g, gemm_entry **out, es_error *err)
{
    gemm_key k = key_of(g);
    if (!dev->gemms) {
        dev->gemms = (kn_cuda_gemm_cache *)calloc(1, sizeof *dev->gemms);
        if (!dev->gemms)
            return es_fail(err, ES_NO_MEMORY, "cuda", "no memory for the table of products");
    }
    if (2 * (dev->gemms->used + 1) > dev->gemms->size)
        ES_RETURN(grow(dev->gemms, err));
    gemm_entry *e = find(dev->gemms, &k);
    if (!e->used) {
        dev->preparing ? dev->base.count.searches++ : dev->base.count.late_searches++;
        cublasStatus_t s = describe(e, &k, g->aux);
        if (s == CUBLAS_STATUS_SUCCESS)
            s = choose(dev, e, &k);
        if (s != CUBLAS_STATUS_SUCCESS) {
            destroy(e);
            return es_fail(err, ES_DEVICE, "cuda", "cuBLASLt has no product of [%lld, %lld] x [%lld, %lld]: status %d",
                           (long long)k.m, (long long)k.k, (long long)k.k, (long long)k.n, (int)s);
        }
        e->key = k;
        e->used = true;
        dev->gemms->used++;
    }
    *out = e;
    return ES_OK;
}

es_status kn_cuda_prepare(kn_kernel kernel, const kn_call *c, es_error *err)
{
    kn_cuda(c)->preparing = true;
    es_status s = kernel(c, err);
    kn_cuda(c)->preparing = false;
    return s;
}

es_status kn_cuda_gemm(kn_cuda_device *dev, const kn_gemm *g, es_error *err)
{
    const float one = 1, beta = g->accumulate ? 1.f : 0.f;
    gemm_entry *e = NULL;
    if (g->m == 0 || g->n == 0)
        return ES_OK;
    ES_RETURN(lookup(dev, g, &e, err));
    if (dev->preparing)
        return ES_OK;
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    if (g->aux)
        s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &g->aux, sizeof g->aux);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmul(dev->lt, e->op, &one, g->b, e->a, g->a, e->b, &beta, g->c ? g->c : g->d, e->d, g->d, e->d,
                           &e->algo, dev->lt_workspace, dev->lt_workspace_bytes, dev->stream);
    if (s != CUBLAS_STATUS_SUCCESS)
        return es_fail(err, ES_DEVICE, "cuda", "cuBLASLt product [%lld, %lld] x [%lld, %lld] failed: status %d",
                       (long long)g->m, (long long)g->k, (long long)g->k, (long long)g->n, (int)s);
    return ES_OK;
}
