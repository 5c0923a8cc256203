/* Attention of bf16 heads of 64 on the tensor cores of any GPU from 8.0 on, forward and backward: products by warps (mma.sync), rows to shared memory by cp.async.
 *
 * A block owns 64 rows of a head, 16 a warp, whose fragments stay in registers; tiles of 64 rows of the other side pass by in pairs, one pair in use while the next is on
 * its way. Forward with a running maximum (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao 2023, arXiv:2307.08691); backward as in attention_bf16_grad.cu, one kernel by
 * queries and one by keys, so that every sum has one owner. 33 KiB of shared memory a block. Where 9.0 has engines of its own, attention_bf16.cu does the same. */
#include "kernels/cuda/attention_mma.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, PAIR_BYTES = 2 * TILE_BYTES };

/* Where a block stands: rows `first` to first + 63 of head h of sample b; row: of [n, heads]. */
struct stripe_of {
    int b, h, row, first;
};
static __device__ __forceinline__ stripe_of stripe_at(const attention_args &a, int rows, bool from_end)
{
    const int stripes = (rows + TILE - 1) / TILE, stripe = (int)blockIdx.x % stripes;
    stripe_of s;
    s.row = (int)blockIdx.x / stripes;
    s.b = s.row / a.heads, s.h = s.row % a.heads;
    s.first = (from_end ? stripes - 1 - stripe : stripe) * TILE; /* the longest first */
    return s;
}
static __device__ __forceinline__ __nv_bfloat16 *head_of(const attention_rows &x, const stripe_of &s)
{
    return (__nv_bfloat16 *)x.p + s.b * x.sample + s.h * x.head;
}

/* 16 bytes on their way to shared memory, or that many zeros. */
static __device__ __forceinline__ void copy_chunk(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
static __device__ __forceinline__ void copies_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* All but the last N committed groups are there, for all threads of the block. */
template <int N> static __device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
    __syncthreads();
}

/* 64 rows from `first` on, zeros for those behind the end. */
static __device__ __forceinline__ void copy_rows(uint32_t to, const attention_rows &x, const stripe_of &s, int first,
                                                 int rows)
{
    const __nv_bfloat16 *head = head_of(x, s);
    const int chunk = (int)threadIdx.x % 8;
#pragma unroll
    for (int m = 0; m < TILE * 8 / THREADS; m++) {
        const int row = (int)threadIdx.x / 8 + m * (THREADS / 8);
        const bool there = first + row < rows;
        copy_chunk(tile_at(to, row, chunk), head + (there ? (first + row) * x.row : 0) + chunk * 8, there);
    }
}
static __device__ __forceinline__ void copy_pair(uint32_t to, const attention_rows &x, const attention_rows &y,
                                                 const stripe_of &s, int first, int rows)
{
    copy_rows(to, x, s, first, rows);
    copy_rows(to + TILE_BYTES, y, s, first, rows);
}

/* c[16 x 64] = own (tile)^T: scores of 16 own rows and the tile's. */
static __device__ __forceinline__ void scores_of(float c[8][4], const uint32_t own[MMA_STEPS][4], uint32_t tile,
                                                 int lane)
{
#pragma unroll
    for (int n = 0; n < 8; n += 2) { /* 16 rows are two operands */
        uint32_t of[MMA_STEPS][4];
        rows_load(of, tile, n * 8, lane);
#pragma unroll
        for (int k = 0; k < 4; k++)
            c[n][k] = c[n + 1][k] = 0;
#pragma unroll
        for (int i = 0; i < MMA_STEPS; i++) {
            product_by_warp(c[n], own[i], of[i][0], of[i][2]);
            product_by_warp(c[n + 1], own[i], of[i][1], of[i][3]);
        }
    }
}

/* c[16 x 64] += p[16 x 64] tile */
static __device__ __forceinline__ void add_rows(float c[8][4], const uint32_t p[MMA_STEPS][4], uint32_t tile, int lane)
{
#pragma unroll
    for (int i = 0; i < MMA_STEPS; i++)
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            uint32_t of[4];
            matrices_turned(of, tile_at(tile, 16 * i + (lane & 15), n + (lane >> 4)));
            product_by_warp(c[n], p[i], of[0], of[1]);
            product_by_warp(c[n + 1], p[i], of[2], of[3]);
        }
}

/* 16 rows of results, from `row` on, to memory. */
static __device__ __forceinline__ void put_rows(const float c[8][4], const float scale[2], const attention_rows &x,
                                                const stripe_of &s, int row, int rows, int lane)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int i = row + (lane >> 2) + 8 * r;
        uint32_t *to = (uint32_t *)(head_of(x, s) + i * x.row + 2 * (lane & 3));
        if (i < rows)
#pragma unroll
            for (int n = 0; n < 8; n++)
                to[4 * n] = pack(c[n][2 * r] * scale[r], c[n][2 * r + 1] * scale[r]);
    }
}

/* Scores become p for a maximum that counts them; what was summed for the one before is brought down to it. */
static __device__ __forceinline__ void softmax_step(float c[8][4], float o[8][4], float most[2], float sum[2],
                                                    float scale)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = most[r], total = 0;
#pragma unroll
        for (int n = 0; n < 8; n++)
            top = fmaxf(top, fmaxf(c[n][2 * r], c[n][2 * r + 1]));
        top = quad_max(top);
        const float by = exp2_fast((most[r] - top) * scale), shift = top * scale;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int k = 2 * r; k < 2 * r + 2; k++) {
                c[n][k] = exp2_fast(fmaf(c[n][k], scale, -shift));
                total += c[n][k];
                o[n][k] *= by;
            }
        sum[r] = fmaf(sum[r], by, total);
        most[r] = top;
    }
}

/* Tiles of keys that a stripe of queries sees. */
static __device__ __forceinline__ int tiles_seen(const attention_args &a, const stripe_of &s)
{
    const int last = min(s.first + TILE, a.tq) - 1;
    return (attention_seen(a, last) + TILE - 1) / TILE;
}

static __global__ void __launch_bounds__(THREADS, 3) forward_kernel(const __grid_constant__ attention_args a)
{
    __shared__ __align__(1024) unsigned char memory[2 * PAIR_BYTES];
    kn_begin();
    const stripe_of s = stripe_at(a, a.tq, true);
    const uint32_t base = shared_address(memory);
    const int lane = threadIdx.x % 32, row = s.first + (int)threadIdx.x / 32 * 16, tiles = tiles_seen(a, s);
    uint32_t q[MMA_STEPS][4];
    float o[8][4] = {}, most[2] = {LEAST, LEAST}, sum[2] = {};
    copy_rows(base + PAIR_BYTES, a.q, s, s.first, a.tq);
    copies_commit();
    copy_pair(base, a.k, a.v, s, 0, a.tk);
    copies_commit();
    copies_wait<1>();
    rows_load(q, base + PAIR_BYTES, row - s.first, lane);
    __syncthreads();
    for (int i = 0; i < tiles; i++) {
        const uint32_t now = base + i % 2 * PAIR_BYTES;
        float c[8][4];
        uint32_t p[MMA_STEPS][4];
        if (i + 1 < tiles)
            copy_pair(base + (i + 1) % 2 * PAIR_BYTES, a.k, a.v, s, (i + 1) * TILE, a.tk);
        copies_commit();
        copies_wait<1>();
        scores_of(c, q, now, lane);
        if ((i + 1) * TILE > attention_seen(a, row))
            hide(c, a, row, i * TILE, lane);
        softmax_step(c, o, most, sum, a.scale * LOG2E);
        pack_rows(p, c);
        add_rows(o, p, now + TILE_BYTES, lane);
        __syncthreads();
    }
    sum[0] = quad_sum(sum[0]), sum[1] = quad_sum(sum[1]);
    const float scale[2] = {1 / sum[0], 1 / sum[1]};
    put_rows(o, scale, a.out, s, row, a.tq, lane);
    if (a.lse && lane % 4 == 0)
        for (int r = 0; r < 2; r++)
            if (row + (lane >> 2) + 8 * r < a.tq)
                a.lse[(int64_t)s.row * a.tq + row + (lane >> 2) + 8 * r] = most[r] * a.scale + LN2 * __log2f(sum[r]);
}

/* delta and dq of 64 queries. A row that is not there has an infinite lse: no key has a share in it. */
static __global__ void __launch_bounds__(THREADS, 2) queries_kernel(const __grid_constant__ attention_args a)
{
    __shared__ __align__(1024) unsigned char memory[2 * PAIR_BYTES];
    kn_begin();
    const stripe_of s = stripe_at(a, a.tq, true);
    const uint32_t base = shared_address(memory);
    const int lane = threadIdx.x % 32, row = s.first + (int)threadIdx.x / 32 * 16, tiles = tiles_seen(a, s);
    uint32_t q[MMA_STEPS][4], dy[MMA_STEPS][4];
    float dq[8][4] = {}, lse[2], delta[2];
    copy_pair(base + PAIR_BYTES, a.q, a.dy, s, s.first, a.tq);
    copy_rows(base, a.y, s, s.first, a.tq);
    copies_commit();
    copies_wait<0>();
    rows_load(q, base, row - s.first, lane); /* y */
    rows_load(dy, base + PAIR_BYTES + TILE_BYTES, row - s.first, lane);
    row_dots(dy, q, delta, lane);
    rows_load(q, base + PAIR_BYTES, row - s.first, lane);
    for (int r = 0; r < 2; r++) {
        const int i = row + (lane >> 2) + 8 * r;
        const int64_t at = (int64_t)s.row * a.tq + i;
        lse[r] = i < a.tq ? a.lse_in[at] * LOG2E : INFINITY;
        if (i < a.tq && lane % 4 == 0)
            a.delta[at] = delta[r];
    }
    __syncthreads();
    copy_pair(base, a.k, a.v, s, 0, a.tk);
    copies_commit();
    for (int i = 0; i < tiles; i++) {
        const uint32_t now = base + i % 2 * PAIR_BYTES;
        float c[8][4], dp[8][4];
        uint32_t ds[MMA_STEPS][4];
        if (i + 1 < tiles)
            copy_pair(base + (i + 1) % 2 * PAIR_BYTES, a.k, a.v, s, (i + 1) * TILE, a.tk);
        copies_commit();
        copies_wait<1>();
        scores_of(c, q, now, lane);
        scores_of(dp, dy, now + TILE_BYTES, lane);
        if ((i + 1) * TILE > attention_seen(a, row))
            hide(c, a, row, i * TILE, lane);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                dp[n][k] = exp2_fast(fmaf(c[n][k], a.scale * LOG2E, -lse[k >> 1])) * (dp[n][k] - delta[k >> 1]);
        pack_rows(ds, dp);
        add_rows(dq, ds, now, lane);
        __syncthreads();
    }
    const float scale[2] = {a.scale, a.scale};
    put_rows(dq, scale, a.dq, s, row, a.tq, lane);
}

/* Scores of 16 keys (rows) and 64 queries become p and ds; stats: lse of the queries, in bits, then delta. */
static __device__ __forceinline__ void keys_scores(const attention_args &a, float c[8][4], float dp[8][4],
                                                   const float *stats, int key, int query, int lane)
{
    const bool all = !a.causal || query + a.past >= key + 15;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int i = n * 8 + 2 * (lane & 3) + (k & 1);
            float p = exp2_fast(fmaf(c[n][k], a.scale * LOG2E, -stats[i]));
            if (!all && query + i + a.past < key + (lane >> 2) + 8 * (k >> 1))
                p = 0;
            c[n][k] = p;
            dp[n][k] = p * (dp[n][k] - stats[TILE + i]);
        }
}

/* lse, in bits, and delta of a tile of queries; for those behind the end what gives them no share. */
static __device__ __forceinline__ void keys_stats(const attention_args &a, const stripe_of &s, float *stats, int query)
{
    const int i = query + (int)threadIdx.x % TILE;
    const int64_t at = (int64_t)s.row * a.tq + i;
    if (threadIdx.x < TILE)
        stats[threadIdx.x] = i < a.tq ? a.lse_in[at] * LOG2E : INFINITY;
    else
        stats[threadIdx.x] = i < a.tq ? a.delta[at] : 0;
}

/* dk and dv of 64 keys. Rows are keys, so that p and ds are operands as they are. */
static __global__ void __launch_bounds__(THREADS, 2) keys_kernel(const __grid_constant__ attention_args a)
{
    __shared__ __align__(1024) unsigned char memory[2 * PAIR_BYTES];
    __shared__ float stats[2][2 * TILE];
    kn_begin();
    const stripe_of s = stripe_at(a, a.tk, false);
    const uint32_t base = shared_address(memory);
    const int lane = threadIdx.x % 32, key = s.first + (int)threadIdx.x / 32 * 16;
    const int from = a.causal && s.first > a.past ? (s.first - a.past) / TILE : 0; /* the first to see any of them */
    const int tiles = (a.tq + TILE - 1) / TILE;
    uint32_t k[MMA_STEPS][4], v[MMA_STEPS][4];
    float dk[8][4] = {}, dv[8][4] = {};
    copy_pair(base, a.k, a.v, s, s.first, a.tk);
    copies_commit();
    copies_wait<0>();
    rows_load(k, base, key - s.first, lane);
    rows_load(v, base + TILE_BYTES, key - s.first, lane);
    __syncthreads();
    copy_pair(base + from % 2 * PAIR_BYTES, a.q, a.dy, s, from * TILE, a.tq);
    copies_commit();
    keys_stats(a, s, stats[from % 2], from * TILE);
    for (int i = from; i < tiles; i++) {
        const uint32_t now = base + i % 2 * PAIR_BYTES;
        float c[8][4], dp[8][4];
        uint32_t p[MMA_STEPS][4];
        if (i + 1 < tiles) {
            copy_pair(base + (i + 1) % 2 * PAIR_BYTES, a.q, a.dy, s, (i + 1) * TILE, a.tq);
            keys_stats(a, s, stats[(i + 1) % 2], (i + 1) * TILE);
        }
        copies_commit();
        copies_wait<1>();
        scores_of(c, k, now, lane);
        scores_of(dp, v, now + TILE_BYTES, lane);
        keys_scores(a, c, dp, stats[i % 2], key, i * TILE, lane);
        pack_rows(p, c);
        add_rows(dv, p, now + TILE_BYTES, lane);
        pack_rows(p, dp);
        add_rows(dk, p, now, lane);
        __syncthreads();
    }
    const float scale[2] = {a.scale, a.scale}, one[2] = {1, 1};
    put_rows(dk, scale, a.dk, s, key, a.tk, lane);
    put_rows(dv, one, a.dv, s, key, a.tk, lane);
}

static unsigned blocks_of(const attention_args *a, int rows)
{
    return (unsigned)((int64_t)a->n * a->heads * kn_ceil(rows, TILE));
}

void kn_attention_warps(kn_cuda_device *dev, const attention_args *a)
{
    kn_launch(forward_kernel, dim3(blocks_of(a, a->tq)), dim3(THREADS), 0, dev->stream, *a);
}

void kn_attention_warps_grad(kn_cuda_device *dev, const attention_args *a)
{
    kn_launch(queries_kernel, dim3(blocks_of(a, a->tq)), dim3(THREADS), 0, dev->stream, *a);
    kn_launch(keys_kernel, dim3(blocks_of(a, a->tk)), dim3(THREADS), 0, dev->stream, *a);
}
