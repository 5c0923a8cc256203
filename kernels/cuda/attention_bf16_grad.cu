/* Gradients of attention of bf16 heads of 64, on tensor cores. Scores are computed again, from q, k and lse, in both kernels: seven products instead of five, but every
 * sum has one owner, in registers, and nothing is added up in memory.
 *
 *     queries_kernel: stripes of queries own rows, keys and values pass; delta and lse per query go to scratch, tile by tile, as the next wants them; dq
 *     keys_kernel:    stripes of keys own rows, queries and dy pass with these; dk, dv. Rows are keys, so that p and ds are operands as they are
 *
 * Both go by half tiles: while scores of one become p and ds, those of the next are made, and what the one before adds to the sums; a whole tile ahead would not fit the registers. */
#include "kernels/cuda/attention_ring.cuh"

using queries_shape = ring_shape<3, 3, false, 4>;
using keys_shape = ring_shape<2, 2, true, 8>;

/* One stripe of queries; lse in bits. */
struct queries_state {
    uint32_t q[MMA_STEPS][4], dy; /* dy stays in shared memory: there are no registers for it */
    float dq[8][4], lse[2], delta[2];
};

/* Scores of 64 rows and half a tile. */
struct half_tile {
    float s[4][4], dp[4][4];
};

/* Half a tile's scores become ds; `key` is its first. */
static __device__ __forceinline__ void queries_scores(const attention_args &a, const queries_state &f, half_tile &x,
                                                      int row, int key, int lane)
{
    const float scale = a.scale * LOG2E;
    if (key + 32 > attention_seen(a, row))
        hide(x.s, a, row, key, lane);
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const float p = exp2_fast(fmaf(x.s[n][c], scale, -f.lse[c >> 1]));
            x.dp[n][c] = p * (x.dp[n][c] - f.delta[c >> 1]);
        }
}

/* Scores of half H of tile n are dealt with, while those of the half after it (AHEAD: there is one) are made, and the sums of the half before (BEHIND: likewise). */
template <int H, bool AHEAD, bool BEHIND>
static __device__ __forceinline__ void queries_step(const attention_args &a, ring_of<queries_shape> &r,
                                                    queries_state &f, half_tile &now, half_tile &other,
                                                    uint32_t (&ds)[2][4], uint32_t n, int row, int key, int lane)
{
    const uint32_t ahead = H == 0 ? n : n + 1, behind = H == 0 ? n - 1 : n;
    if (AHEAD && H == 1)
        r.wait_tile(n + 1);
    products_begin();
    if (AHEAD) {
        product_turned(other.s, f.q, r.first(ahead), 32 * (1 - H));
        product_turned(other.dp, f.dy, r.second(ahead), 32 * (1 - H));
    }
    if (BEHIND)
        product_add(f.dq, ds, r.first(behind), 32 * (1 - H));
    products_commit();
    queries_scores(a, f, now, row, key + 32 * H, lane);
    products_wait<0>();
    if (BEHIND && H == 0)
        r.leave_tile(lane);
    pack_rows(ds, now.dp);
}

/* The keys of one stripe of queries. */
static __device__ __forceinline__ void queries_item(const attention_args &a, ring_of<queries_shape> &r,
                                                    queries_state &f, int row, int tiles, int lane)
{
    half_tile x, y;
    uint32_t ds[2][4], n = r.tile;
    int key = 0;
    r.wait_tile(n);
    products_begin();
    product_turned(x.s, f.q, r.first(n));
    product_turned(x.dp, f.dy, r.second(n));
    products_commit();
    products_wait<0>();
    queries_step<0, true, false>(a, r, f, x, y, ds, n, row, key, lane);
    for (int left = tiles - 1; left > 0; left--, n++, key += TILE) {
        queries_step<1, true, true>(a, r, f, y, x, ds, n, row, key, lane);
        queries_step<0, true, true>(a, r, f, x, y, ds, n + 1, row, key + TILE, lane);
    }
    queries_step<1, false, true>(a, r, f, y, x, ds, n, row, key, lane);
    products_begin();
    product_add(f.dq, ds, r.first(n), 32);
    products_commit();
    products_wait<0>();
    r.leave_tile(lane);
}

/* lse of a lane's rows, in bits, on its way. A row that is not there gets an infinite one: no key has a share in it. */
static __device__ __forceinline__ void queries_lse(const attention_args &a, const attention_item &it, float lse[2],
                                                   int row, int lane)
{
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int i = row + (lane >> 2) + 8 * k;
        lse[k] = INFINITY;
        if (i < a.tq)
            asm volatile("ld.global.f32 %0, [%1];" : "=f"(lse[k]) : "l"(a.lse_in + (int64_t)it.row * a.tq + i));
    }
}
/* lse and delta for keys_kernel: of two rows side by side. */
static __device__ __forceinline__ void queries_stats(const attention_args &a, const attention_item &it,
                                                     queries_state &w, int stripe, int row, int lane)
{
    float *stats = a.delta + ((int64_t)it.row * ((a.tq + TILE - 1) / TILE) + stripe) * 2 * TILE;
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int i = row + (lane >> 2) + 8 * k - stripe * TILE;
        w.lse[k] *= LOG2E;
        if (lane % 4 == 0) {
            stats[(i >> 1) * 4 + (i & 1)] = w.lse[k];
            stats[(i >> 1) * 4 + (i & 1) + 2] = w.delta[k];
        }
    }
}

static __device__ __forceinline__ void queries_blocks(const attention_maps &m, const attention_args &a,
                                                      ring_of<queries_shape> &r)
{
    const int lane = threadIdx.x % 32, warp = uniform(threadIdx.x / 32 % 4), group = uniform(threadIdx.x / 128) - 1;
    attention_item it;
    while (r.take(&it)) {
        const int stripe = it.stripe + group, row = stripe * TILE + 16 * warp, tiles = stripe_tiles(a, it, stripe);
        const uint32_t own = r.own(0, group);
        if (tiles > 0) {
            queries_state w = {};
            queries_lse(a, it, w.lse, row, lane);
            rows_load(w.q, r.own(2, group), 16 * warp, lane);
            uint32_t dy[MMA_STEPS][4];
            rows_load(dy, r.own(1, group), 16 * warp, lane);
            row_dots(dy, w.q, w.delta, lane);
            w.dy = matrix_of(r.own(1, group));
            rows_load(w.q, own, 16 * warp, lane);
            queries_stats(a, it, w, stripe, row, lane);
            queries_item(a, r, w, row, tiles, lane);
            rows_put(w.dq, a.scale, a.scale, own + (uint32_t)warp * 16 * MMA_ROW_BYTES, lane);
            copy_out(&m.out[0], own, group, stripe * TILE, it.h, it.b);
        }
        r.pass_by(it.to - tiles, lane);
        r.leave_item(lane);
    }
}

static __global__ void __launch_bounds__(queries_shape::THREADS, 1)
    queries_kernel(const __grid_constant__ attention_maps m, const __grid_constant__ attention_args a, int items)
{
    ring_run<queries_shape, queries_blocks>(m, a, items);
}

/* One stripe of keys. Columns of scores are queries, each with its own lse and delta. */
struct keys_state {
    uint32_t k[MMA_STEPS][4], v[MMA_STEPS][4];
    float dk[8][4], dv[8][4];
};

/* Half a tile's scores become p and ds; `query` is its first, `stats` theirs: lse and delta of two. */
static __device__ __forceinline__ void keys_scores(const attention_args &a, half_tile &x, uint32_t stats, int key,
                                                   int query, int lane)
{
    const float scale = a.scale * LOG2E;
    float4 of[4];
#pragma unroll
    for (int n = 0; n < 4; n++)
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(of[n].x), "=f"(of[n].y), "=f"(of[n].z), "=f"(of[n].w)
                     : "r"(stats + (uint32_t)(n * 4 + (lane & 3)) * 16));
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            x.s[n][c] = exp2_fast(fmaf(x.s[n][c], scale, -(c & 1 ? of[n].y : of[n].x)));
    if (a.causal && query + a.past < key + 15) /* not all queries see this warp's last key */
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (query + n * 8 + 2 * (lane & 3) + (c & 1) + a.past < key + (lane >> 2) + 8 * (c >> 1))
                    x.s[n][c] = 0;
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            x.dp[n][c] = x.s[n][c] * (x.dp[n][c] - (c & 1 ? of[n].w : of[n].z));
}

/* As queries_step. */
template <int H, bool AHEAD, bool BEHIND>
static __device__ __forceinline__ void keys_step(const attention_args &a, ring_of<keys_shape> &r, keys_state &f,
                                                 half_tile &now, half_tile &other, uint32_t (&p)[2][4],
                                                 uint32_t (&ds)[2][4], uint32_t n, int key, int query, int lane)
{
    const uint32_t ahead = H == 0 ? n : n + 1, behind = H == 0 ? n - 1 : n;
    if (AHEAD && H == 1)
        r.wait_tile(n + 1);
    products_begin();
    if (AHEAD) {
        product_turned(other.s, f.k, r.first(ahead), 32 * (1 - H));
        product_turned(other.dp, f.v, r.second(ahead), 32 * (1 - H));
    }
    if (BEHIND) {
        product_add(f.dv, p, r.second(behind), 32 * (1 - H));
        product_add(f.dk, ds, r.first(behind), 32 * (1 - H));
    }
    products_commit();
    keys_scores(a, now, r.stats(n) + 32 * H * 8, key, query + 32 * H, lane);
    products_wait<0>();
    if (BEHIND && H == 0)
        r.leave_tile(lane);
    pack_rows(p, now.s);
    pack_rows(ds, now.dp);
}

/* The queries from tile `from` on that see one stripe of keys. */
static __device__ __forceinline__ void keys_item(const attention_args &a, ring_of<keys_shape> &r, keys_state &f,
                                                 int key, int from, int to, int lane)
{
    half_tile x, y;
    uint32_t p[2][4], ds[2][4], n = r.tile;
    int query = from * TILE;
    r.wait_tile(n);
    products_begin();
    product_turned(x.s, f.k, r.first(n));
    product_turned(x.dp, f.v, r.second(n));
    products_commit();
    products_wait<0>();
    keys_step<0, true, false>(a, r, f, x, y, p, ds, n, key, query, lane);
    for (int left = to - from - 1; left > 0; left--, n++, query += TILE) {
        keys_step<1, true, true>(a, r, f, y, x, p, ds, n, key, query, lane);
        keys_step<0, true, true>(a, r, f, x, y, p, ds, n + 1, key, query + TILE, lane);
    }
    keys_step<1, false, true>(a, r, f, y, x, p, ds, n, key, query, lane);
    products_begin();
    product_add(f.dv, p, r.second(n), 32);
    product_add(f.dk, ds, r.first(n), 32);
    products_commit();
    products_wait<0>();
    r.leave_tile(lane);
}

static __device__ __forceinline__ void keys_blocks(const attention_maps &m, const attention_args &a,
                                                   ring_of<keys_shape> &r)
{
    const int lane = threadIdx.x % 32, warp = uniform(threadIdx.x / 32 % 4), group = uniform(threadIdx.x / 128) - 1;
    attention_item it;
    while (r.take(&it)) {
        const int first = (it.stripe + group) * TILE, key = first + 16 * warp;
        int from =
            a.causal && first > a.past ? (first - a.past) / TILE : 0; /* the first queries to see any of these keys */
        if (first >= a.tk)
            from = it.to;
        r.pass_by(from - it.from, lane);
        if (from < it.to) {
            const uint32_t own_k = r.own(0, group), own_v = r.own(1, group);
            const uint32_t rows = (uint32_t)warp * 16 * MMA_ROW_BYTES;
            keys_state w = {};
            rows_load(w.k, own_k, 16 * warp, lane);
            rows_load(w.v, own_v, 16 * warp, lane);
            keys_item(a, r, w, key, from, it.to, lane);
            rows_put(w.dk, a.scale, a.scale, own_k + rows, lane);
            rows_put(w.dv, 1, 1, own_v + rows, lane);
            copy_out(&m.out[0], own_k, group, first, it.h, it.b);
            copy_out(&m.out[1], own_v, group, first, it.h, it.b);
        }
        r.leave_item(lane);
    }
}

static __global__ void __launch_bounds__(keys_shape::THREADS, 1)
    keys_kernel(const __grid_constant__ attention_maps m, const __grid_constant__ attention_args a, int items)
{
    ring_run<keys_shape, keys_blocks>(m, a, items);
}

size_t kn_attention_bf16_scratch(const attention_args *a)
{
    return (size_t)a->n * (size_t)a->heads * (size_t)kn_ceil(a->tq, TILE) * STATS_BYTES;
}

es_status kn_attention_bf16_grad(kn_cuda_device *dev, const attention_args *a, es_error *err)
{
    CUtensorMap q, k, v, y, dy, dq, dk, dv;
    ES_RETURN(kn_attention_map(&q, &a->q, a, a->tq, err));
    ES_RETURN(kn_attention_map(&k, &a->k, a, a->tk, err));
    ES_RETURN(kn_attention_map(&v, &a->v, a, a->tk, err));
    ES_RETURN(kn_attention_map(&y, &a->y, a, a->tq, err));
    ES_RETURN(kn_attention_map(&dy, &a->dy, a, a->tq, err));
    ES_RETURN(kn_attention_map(&dq, &a->dq, a, a->tq, err));
    ES_RETURN(kn_attention_map(&dk, &a->dk, a, a->tk, err));
    ES_RETURN(kn_attention_map(&dv, &a->dv, a, a->tk, err));
    const attention_maps queries = {{q, dy, y}, {k, v}, {dq}}, keys = {{k, v}, {q, dy}, {dk, dv}};
    ES_RETURN(ring_launch<queries_shape>(queries_kernel, dev, queries, *a, err));
    return ring_launch<keys_shape>(keys_kernel, dev, keys, *a, err);
}
