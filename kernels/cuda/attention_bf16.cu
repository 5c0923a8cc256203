/* Attention of bf16 heads of 64 on tensor cores, forward. A warpgroup owns 64 queries and keeps their sums in registers; keys and values pass by (attention_ring.cuh).
 *
 * While a warpgroup takes exponentials of one tile, its own product of the next scores and that of p and v of the tile before are under way, as other warpgroups' are (Shah et
 * al. 2024, arXiv:2407.08608). The maximum of a row is that of its first 64 keys: softmax is the same for any shift, and fp32 and bf16 have room for a p of 2^60. Only when a
 * sum exceeds that are the scores made again, for a maximum that counts them (Milakov and Gimelshein 2018, arXiv:1805.02867, have it run along always). */
#include "kernels/cuda/attention_ring.cuh"

using forward_shape = ring_shape<3, 1, false, 8>;
static const float HUGE_SUM = 1.15e18f; /* 2^60 */

/* What a warpgroup has of its queries; rows 0 and 1 of a lane are g and g + 8. */
struct forward_state {
    uint32_t q[MMA_STEPS][4];
    float o[8][4], most[2], sum[2];
};
struct forward_row {
    float scale;
    int row, full, lane; /* this warp's first row; tiles that all rows see all of */
};

/* The largest score of each row, or what was. */
static __device__ __forceinline__ void raise(float most[2], const float s[8][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
#pragma unroll
        for (int n = 0; n < 8; n++)
            most[r] = fmaxf(most[r], fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        most[r] = quad_max(most[r]);
    }
}

/* s = 2^(scale (s - most)); sums of rows, a lane's part. */
static __device__ __forceinline__ void exponentials(float sum[2], float s[8][4], const float most[2], float scale)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float shift = most[r] * scale;
        float total[2] = {};
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                s[n][2 * r + c] = exp2_fast(fmaf(s[n][2 * r + c], scale, -shift));
                total[c] += s[n][2 * r + c];
            }
        sum[r] = total[0] + total[1];
    }
}

/* Scores so far above the running maximum that p would overflow: made again, by this warp alone, and the maximum is raised. by: what sums are multiplied by. */
static __device__ __forceinline__ void forward_rescue(float by[2], float sum[2], float s[8][4], float most[2],
                                                      const uint32_t q[MMA_STEPS][4], const attention_args &a,
                                                      const forward_row &w, uint32_t tile, int key)
{
    const float before[2] = {most[0], most[1]};
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int c = 0; c < 4; c++)
            s[n][c] = 0;
    }
#pragma unroll
    for (int n = 0; n < 8; n += 2) { /* 16 keys are two operands */
        uint32_t k[MMA_STEPS][4];
        rows_load(k, tile, n * 8, w.lane);
#pragma unroll
        for (int i = 0; i < MMA_STEPS; i++) {
            product_by_warp(s[n], q[i], k[i][0], k[i][2]);
            product_by_warp(s[n + 1], q[i], k[i][1], k[i][3]);
        }
    }
    hide(*(float(*)[8][4])s, a, w.row, key, w.lane);
    raise(most, s);
    exponentials(sum, s, most, w.scale);
    for (int r = 0; r < 2; r++)
        by[r] = exp2_fast((before[r] - most[r]) * w.scale);
}

/* Tile i, the n-th in the ring: s, its scores, becomes p, while the next scores are made and the sums of the tile before. */
template <bool FIRST>
static __device__ __forceinline__ void
forward_step(const attention_args &a, ring_of<forward_shape> &r, forward_state &f, uint32_t (&p)[MMA_STEPS][4],
             float (&s)[8][4], float (&next)[8][4], uint32_t n, int i, bool last, const forward_row &w)
{
    float sum[2], by[2];
    if (!last)
        r.wait_tile(n + 1);
    products_begin();
    product_turned(
        next, f.q,
        r.first(
            last ? n
                 : n + 1)); /* for nothing at the end: a branch around products would make the compiler wait for each */
    if (!FIRST)
        product_add(f.o, p, r.second(n - 1));
    products_commit();
    if (__builtin_expect(i >= w.full, 0))
        hide(s, a, w.row, i * TILE, w.lane);
    exponentials(sum, s, f.most, w.scale);
    const bool rescue = !FIRST && __any_sync(0xffffffffu, sum[0] > HUGE_SUM || sum[1] > HUGE_SUM);
    if (__builtin_expect(rescue, 0))
        forward_rescue(by, sum, s, f.most, f.q, a, w, r.passing(n), i * TILE);
    products_wait<0>();
    if (!FIRST)
        r.leave_tile(w.lane);
    if (__builtin_expect(rescue, 0)) {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                f.o[n][c] *= by[c >> 1];
        f.sum[0] *= by[0], f.sum[1] *= by[1];
    }
    f.sum[0] += sum[0], f.sum[1] += sum[1];
    pack_rows(p, s);
}

/* The keys of one stripe of queries. */
static __device__ __forceinline__ void forward_item(const attention_args &a, ring_of<forward_shape> &r,
                                                    forward_state &f, int row, int tiles, int lane)
{
    const forward_row w = {a.scale * LOG2E, row, attention_seen(a, row) / TILE, lane};
    float s[8][4], next[8][4];
    uint32_t p[MMA_STEPS][4], n = r.tile;
    r.wait_tile(n);
    products_begin();
    product_turned(s, f.q, r.first(n));
    products_commit();
    products_wait<0>();
    if (w.full == 0)
        hide(s, a, row, 0, lane);
    raise(f.most, s);
    forward_step<true>(a, r, f, p, s, next, n, 0, tiles == 1, w);
    for (int i = 1; i < tiles; i += 2) {
        forward_step<false>(a, r, f, p, next, s, ++n, i, i + 1 == tiles, w);
        if (i + 1 < tiles)
            forward_step<false>(a, r, f, p, s, next, ++n, i + 1, i + 2 == tiles, w);
    }
    products_begin();
    product_add(f.o, p, r.second(n));
    products_commit();
    products_wait<0>();
    r.leave_tile(lane);
}

static __device__ __forceinline__ void forward_blocks(const attention_maps &m, const attention_args &a,
                                                      ring_of<forward_shape> &r)
{
    const int lane = threadIdx.x % 32, warp = uniform(threadIdx.x / 32 % 4), group = uniform(threadIdx.x / 128) - 1;
    attention_item it;
    while (r.take(&it)) {
        const int stripe = it.stripe + group, row = stripe * TILE + 16 * warp, tiles = stripe_tiles(a, it, stripe);
        const uint32_t own = r.own(0, group);
        if (tiles > 0) {
            forward_state f = {{}, {}, {LEAST, LEAST}, {}};
            rows_load(f.q, own, 16 * warp, lane);
            forward_item(a, r, f, row, tiles, lane);
            f.sum[0] = quad_sum(f.sum[0]);
            f.sum[1] = quad_sum(f.sum[1]);
            rows_put(f.o, 1 / f.sum[0], 1 / f.sum[1], own + (uint32_t)warp * 16 * MMA_ROW_BYTES, lane);
            copy_out(&m.out[0], own, group, stripe * TILE, it.h, it.b);
            if (a.lse && lane % 4 == 0)
                for (int k = 0; k < 2; k++)
                    if (row + (lane >> 2) + 8 * k < a.tq)
                        a.lse[(int64_t)it.row * a.tq + row + (lane >> 2) + 8 * k] =
                            f.most[k] * a.scale + LN2 * __log2f(f.sum[k]);
        }
        r.pass_by(it.to - tiles, lane);
        r.leave_item(lane);
    }
}

static __global__ void __launch_bounds__(forward_shape::THREADS, 1)
    forward_kernel(const __grid_constant__ attention_maps m, const __grid_constant__ attention_args a, int items)
{
    ring_run<forward_shape, forward_blocks>(m, a, items);
}

static bool fits(const attention_rows *x)
{
    return !x->p || (x->type == KN_BF16 && kn_aligned(x->p) && ((x->sample | x->row | x->head) & 7) == 0);
}
bool kn_attention_fits_bf16(const attention_args *a)
{
    return a->scale > 0 && a->d == MMA_WIDTH && a->dv_width == MMA_WIDTH && a->n > 0 && a->tq > 0 && a->tk > 0 &&
           fits(&a->q) && fits(&a->k) && fits(&a->v) && fits(&a->y) && fits(&a->dy) && fits(&a->out) && fits(&a->dq) &&
           fits(&a->dk) && fits(&a->dv);
}

es_status kn_attention_map(CUtensorMap *map, const attention_rows *x, const attention_args *a, int rows, es_error *err)
{
    typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                  const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                  CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    static void *found;
    void *encode = __atomic_load_n(&found, __ATOMIC_ACQUIRE);
    if (!encode) {
        cudaDriverEntryPointQueryResult how;
        KN_CUDA_RETURN(
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &how));
        if (how != cudaDriverEntryPointSuccess)
            return es_fail(err, ES_UNSUPPORTED, "cuda", "the driver has no cuTensorMapEncodeTiled");
        __atomic_store_n(&found, encode, __ATOMIC_RELEASE);
    }
    const cuuint64_t size[] = {MMA_WIDTH, (cuuint64_t)rows, (cuuint64_t)a->heads, (cuuint64_t)a->n};
    const cuuint64_t step[] = {(cuuint64_t)x->row * 2, (cuuint64_t)x->head * 2, (cuuint64_t)x->sample * 2};
    const cuuint32_t box[] = {MMA_WIDTH, TILE, 1, 1}, every[] = {1, 1, 1, 1};
    CUresult e = ((encode_fn)encode)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, x->p, size, step, box, every,
                                     CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (e != CUDA_SUCCESS)
        return es_fail(err, ES_DEVICE, "cuda", "no tensor map of %d rows, %lld, %lld and %lld elements apart: error %d",
                       rows, (long long)x->row, (long long)x->head, (long long)x->sample, (int)e);
    return ES_OK;
}

es_status kn_attention_bf16(kn_cuda_device *dev, const attention_args *a, es_error *err)
{
    attention_maps m;
    ES_RETURN(kn_attention_map(&m.own[0], &a->q, a, a->tq, err));
    ES_RETURN(kn_attention_map(&m.pass[0], &a->k, a, a->tk, err));
    ES_RETURN(kn_attention_map(&m.pass[1], &a->v, a, a->tk, err));
    ES_RETURN(kn_attention_map(&m.out[0], &a->out, a, a->tq, err));
    return ring_launch<forward_shape>(forward_kernel, dev, m, *a, err);
}
