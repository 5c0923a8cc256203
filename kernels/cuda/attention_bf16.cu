/* Attention of bf16 heads of 64 on tensor cores. A warpgroup owns 64 rows (queries, or keys for their gradients), 16 a warp, and keeps their sums in registers; the other side passes by in
 * tiles of 64 rows, two in flight. Blocks with the most to do come first. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_mma.cuh"

enum {
    TILE = 64, /* rows that pass by at once */
    TILE_BYTES = TILE * MMA_ROW_BYTES,
    Q_WARPS = 8, /* forward and dq: 128 queries a block */
    K_WARPS = 4, /* dk, dv: 64 keys a block */
    Q_ROWS = 16 * Q_WARPS,
    K_ROWS = 16 * K_WARPS,
};
static const float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/* This block's head: row 0 of an operand, and of lse. */
struct head_of {
    int h, b;
    int64_t stat;
};
static __device__ __forceinline__ head_of head(const attention_args &a)
{
    const int h = (int)(blockIdx.x % a.heads), b = (int)(blockIdx.x / a.heads);
    return {h, b, ((int64_t)b * a.heads + h) * a.tq};
}
static __device__ __forceinline__ __nv_bfloat16 *at(const attention_rows &x, const head_of &hd)
{
    return (__nv_bfloat16 *)x.p + hd.b * x.sample + hd.h * x.head;
}

static __device__ __forceinline__ float quad_sum(float v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
static __device__ __forceinline__ float quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

/* s[16 queries x 64 keys] -> probabilities against the running maximum; the sums so far are rescaled. Rows 0 and 1 of a lane are g and g + 8. */
static __device__ __forceinline__ void softmax_step(float s[8][4], float o[8][4], float most[2], float sum[2],
                                                    float scale)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float m = most[r];
#pragma unroll
        for (int n = 0; n < 8; n++)
            m = fmaxf(m, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        m = quad_max(m);
        const float shift = m == -INFINITY ? 0.f : m * scale, old = exp2f(most[r] * scale - shift);
        float total = 0;
        most[r] = m;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            s[n][2 * r] = exp2f(fmaf(s[n][2 * r], scale, -shift));
            s[n][2 * r + 1] = exp2f(fmaf(s[n][2 * r + 1], scale, -shift));
            total += s[n][2 * r] + s[n][2 * r + 1];
            o[n][2 * r] *= old;
            o[n][2 * r + 1] *= old;
        }
        sum[r] = fmaf(sum[r], old, total);
    }
}

/* Keys that a query does not see, as minus infinity: only in tiles that reach beyond what the first row sees. */
template <int TILES>
static __device__ __forceinline__ void hide(float s[TILES][4], const attention_args &a, int row, int key, int lane)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int seen = attention_seen(a, row + (lane >> 2) + 8 * r);
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int c = 0; c < 2; c++)
                if (key + n * 8 + 2 * (lane & 3) + c >= seen)
                    s[n][2 * r + c] = -INFINITY;
    }
}

static __global__ void __launch_bounds__(32 * Q_WARPS, 2) forward_kernel(const __grid_constant__ attention_args a)
{
    __shared__ __align__(1024) unsigned char memory[2][2 * TILE_BYTES]; /* keys and values, twice */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = ((int)gridDim.y - 1 - (int)blockIdx.y) * Q_ROWS, row = first + 16 * warp,
              group = first + 64 * (warp / 4);
    const int last = first + Q_ROWS < a.tq ? first + Q_ROWS : a.tq;
    const int keys = attention_seen(a, last - 1), tiles = (keys + TILE - 1) / TILE;
    const float scale = a.scale * LOG2E;
    const uint32_t base = shared_address(memory);
    uint32_t q[MMA_STEPS][4];
    float o[8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    kn_begin();
    const head_of hd = head(a);
    const __nv_bfloat16 *k = at(a.k, hd), *v = at(a.v, hd);
    tile_load<TILE, 32 * Q_WARPS>(base, k, a.k.row, 0, a.tk);
    tile_load<TILE, 32 * Q_WARPS>(base + TILE_BYTES, v, a.v.row, 0, a.tk);
    copies_commit();
    rows_load(q, at(a.q, hd), a.q.row, row, a.tq, lane);
    for (int i = 0; i < tiles; i++) {
        const uint32_t now = base + (uint32_t)(i & 1) * 2 * TILE_BYTES,
                       next = base + (uint32_t)(~i & 1) * 2 * TILE_BYTES;
        if (i + 1 < tiles) {
            tile_load<TILE, 32 * Q_WARPS>(next, k, a.k.row, (i + 1) * TILE, a.tk);
            tile_load<TILE, 32 * Q_WARPS>(next + TILE_BYTES, v, a.v.row, (i + 1) * TILE, a.tk);
            copies_commit();
            copies_done_but(1);
        } else {
            copies_done_but(0);
        }
        copies_for_products();
        __syncthreads();
        if (i * TILE < attention_seen(a, group + 63)) { /* a causal warpgroup's last tiles may be all hidden */
            float s[8][4];
            uint32_t p[4][4];
            products_begin();
            product_turned<8>(s, q, now, 0);
            products_end();
            if ((i + 1) * TILE > attention_seen(a, row))
                hide<8>(s, a, row, i * TILE, lane);
            softmax_step(s, o, most, sum, scale);
            pack_rows<8>(p, s);
            products_begin();
            product_add<4>(o, p, now + TILE_BYTES, 0);
            products_end();
        }
        __syncthreads();
    }
    sum[0] = quad_sum(sum[0]);
    sum[1] = quad_sum(sum[1]);
    rows_store(o, 1 / sum[0], 1 / sum[1], base + (uint32_t)warp * 16 * MMA_ROW_BYTES, at(a.out, hd), a.out.row, row,
               a.tq, lane);
    if (a.lse && lane % 4 == 0)
        for (int r = 0; r < 2; r++)
            if (row + (lane >> 2) + 8 * r < a.tq)
                a.lse[hd.stat + row + (lane >> 2) + 8 * r] = most[r] * a.scale + LN2 * log2f(sum[r]);
}

/* p and p (dp - delta) of [16 rows x 8 TILES]; one of shift and delta per row (queries are rows) or per column is the caller's business. */
static __device__ __forceinline__ void gradient_step(float &s, float &dp, float scale, float shift, float delta)
{
    s = exp2f(fmaf(s, scale, -shift));
    dp = s * (dp - delta);
}

/* Sum of dy y over a row: two fragments of the same rows. */
static __device__ __forceinline__ void row_dots(const uint32_t x[MMA_STEPS][4], const uint32_t y[MMA_STEPS][4],
                                                float dot[2])
{
    dot[0] = dot[1] = 0;
#pragma unroll
    for (int s = 0; s < MMA_STEPS; s++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float2 u = __bfloat1622float2(*(const __nv_bfloat162 *)&x[s][k]),
                   w = __bfloat1622float2(*(const __nv_bfloat162 *)&y[s][k]);
            dot[k & 1] += u.x * w.x + u.y * w.y;
        }
    dot[0] = quad_sum(dot[0]);
    dot[1] = quad_sum(dot[1]);
}

/* dq += ds k of 32 keys of a tile. */
static __device__ __forceinline__ void dq_step(const attention_args &a, float (&dq)[8][4],
                                               const uint32_t q[MMA_STEPS][4], const uint32_t dy[MMA_STEPS][4],
                                               uint32_t tile, int half, int row, int key, const float shift[2],
                                               const float delta[2], int lane)
{
    const float scale = a.scale * LOG2E;
    float s[4][4], dp[4][4];
    uint32_t ds[2][4];
    products_begin();
    product_turned<4>(s, q, tile, half);
    product_turned<4>(dp, dy, tile + TILE_BYTES, half);
    products_end();
    if (key + half + 32 > attention_seen(a, row))
        hide<4>(s, a, row, key + half, lane);
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            gradient_step(s[n][c], dp[n][c], scale, shift[c >> 1], delta[c >> 1]);
    pack_rows<4>(ds, dp);
    products_begin();
    product_add<2>(dq, ds, tile, half);
    products_end();
}

static __global__ void __launch_bounds__(32 * Q_WARPS, 2) dq_kernel(const __grid_constant__ attention_args a)
{
    __shared__ __align__(1024) unsigned char memory[2][2 * TILE_BYTES];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = ((int)gridDim.y - 1 - (int)blockIdx.y) * Q_ROWS, row = first + 16 * warp,
              group = first + 64 * (warp / 4);
    const int last = first + Q_ROWS < a.tq ? first + Q_ROWS : a.tq;
    const int keys = attention_seen(a, last - 1), tiles = (keys + TILE - 1) / TILE;
    const uint32_t base = shared_address(memory);
    uint32_t q[MMA_STEPS][4], dy[MMA_STEPS][4];
    float dq[8][4] = {}, shift[2], delta[2];
    kn_begin();
    const head_of hd = head(a);
    const __nv_bfloat16 *k = at(a.k, hd), *v = at(a.v, hd);
    tile_load<TILE, 32 * Q_WARPS>(base, k, a.k.row, 0, a.tk);
    tile_load<TILE, 32 * Q_WARPS>(base + TILE_BYTES, v, a.v.row, 0, a.tk);
    copies_commit();
    rows_load(q, at(a.y, hd), a.y.row, row, a.tq, lane);
    rows_load(dy, at(a.dy, hd), a.dy.row, row, a.tq, lane);
    row_dots(q, dy, delta);
    rows_load(q, at(a.q, hd), a.q.row, row, a.tq, lane);
    for (int r = 0; r < 2; r++) {
        int i = row + (lane >> 2) + 8 * r;
        shift[r] = i < a.tq ? a.lse_in[hd.stat + i] * LOG2E : 0.f;
        if (lane % 4 == 0 && i < a.tq)
            a.delta[hd.stat + i] = delta[r];
    }
    for (int i = 0; i < tiles; i++) {
        const uint32_t now = base + (uint32_t)(i & 1) * 2 * TILE_BYTES,
                       next = base + (uint32_t)(~i & 1) * 2 * TILE_BYTES;
        if (i + 1 < tiles) {
            tile_load<TILE, 32 * Q_WARPS>(next, k, a.k.row, (i + 1) * TILE, a.tk);
            tile_load<TILE, 32 * Q_WARPS>(next + TILE_BYTES, v, a.v.row, (i + 1) * TILE, a.tk);
            copies_commit();
            copies_done_but(1);
        } else {
            copies_done_but(0);
        }
        copies_for_products();
        __syncthreads();
#pragma unroll
        for (int half = 0; half < TILE; half += 32)
            if (i * TILE + half < attention_seen(a, group + 63))
                dq_step(a, dq, q, dy, now, half, row, i * TILE, shift, delta, lane);
        __syncthreads();
    }
    rows_store(dq, a.scale, a.scale, base + (uint32_t)warp * 16 * MMA_ROW_BYTES, at(a.dq, hd), a.dq.row, row, a.tq,
               lane);
}

/* dv += p^T dy and dk += ds^T q of 32 queries of a tile; columns are queries, each with its own lse (in bits) and delta. */
static __device__ __forceinline__ void dkdv_step(const attention_args &a, float (&dk)[8][4], float (&dv)[8][4],
                                                 const uint32_t k[MMA_STEPS][4], const uint32_t v[MMA_STEPS][4],
                                                 uint32_t tile, int half, int key, int query, const float *lse,
                                                 const float *delta, int lane)
{
    const float scale = a.scale * LOG2E;
    const int g = lane >> 2, t = lane & 3;
    /* Hidden pairs only where the first query of these does not see this warp's last key, or at the end of the queries or keys. */
    const bool edge = (a.causal && query + half + a.past < key + 15) || query + half + 32 > a.tq || key + 16 > a.tk;
    float s[4][4], dp[4][4];
    uint32_t p[2][4], ds[2][4];
    products_begin();
    product_turned<4>(s, k, tile, half);
    product_turned<4>(dp, v, tile + TILE_BYTES, half);
    products_end();
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const float2 l = *(const float2 *)(lse + half + n * 8 + 2 * t),
                     d = *(const float2 *)(delta + half + n * 8 + 2 * t);
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int i = query + half + n * 8 + 2 * t + (c & 1), j = key + g + 8 * (c >> 1);
            if (edge && (i >= a.tq || j >= attention_seen(a, i)))
                s[n][c] = -INFINITY;
            gradient_step(s[n][c], dp[n][c], scale, c & 1 ? l.y : l.x, c & 1 ? d.y : d.x);
        }
    }
    pack_rows<4>(p, s);
    pack_rows<4>(ds, dp);
    products_begin();
    product_add<2>(dv, p, tile + TILE_BYTES, half);
    product_add<2>(dk, ds, tile, half);
    products_end();
}

static __global__ void __launch_bounds__(32 * K_WARPS, 3) dkdv_kernel(const __grid_constant__ attention_args a)
{
    __shared__ __align__(1024) unsigned char memory[2][2 * TILE_BYTES]; /* queries and dy, twice */
    __shared__ float lse[2][TILE], delta[2][TILE];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = (int)blockIdx.y * K_ROWS, key = first + 16 * warp; /* early keys are seen by the most queries */
    const int from = a.causal && first > a.past ? (first - a.past) / TILE : 0, tiles = (a.tq + TILE - 1) / TILE;
    const uint32_t base = shared_address(memory);
    uint32_t k[MMA_STEPS][4], v[MMA_STEPS][4];
    float dk[8][4] = {}, dv[8][4] = {};
    kn_begin();
    const head_of hd = head(a);
    const __nv_bfloat16 *q = at(a.q, hd), *dy = at(a.dy, hd);
    auto fetch = [&](int i) {
        const uint32_t to = base + (uint32_t)(i & 1) * 2 * TILE_BYTES;
        tile_load<TILE, 32 * K_WARPS>(to, q, a.q.row, i * TILE, a.tq);
        tile_load<TILE, 32 * K_WARPS>(to + TILE_BYTES, dy, a.dy.row, i * TILE, a.tq);
        copies_commit();
        if (threadIdx.x < TILE) {
            const int r = i * TILE + (int)threadIdx.x;
            lse[i & 1][threadIdx.x] = r < a.tq ? a.lse_in[hd.stat + r] * LOG2E : 0.f;
            delta[i & 1][threadIdx.x] = r < a.tq ? a.delta[hd.stat + r] : 0.f;
        }
    };
    if (from < tiles)
        fetch(from);
    rows_load(k, at(a.k, hd), a.k.row, key, a.tk, lane);
    rows_load(v, at(a.v, hd), a.v.row, key, a.tk, lane);
    for (int i = from; i < tiles; i++) {
        if (i + 1 < tiles) {
            fetch(i + 1);
            copies_done_but(1);
        } else {
            copies_done_but(0);
        }
        copies_for_products();
        __syncthreads();
        const uint32_t now = base + (uint32_t)(i & 1) * 2 * TILE_BYTES;
#pragma unroll
        for (int half = 0; half < TILE; half += 32)
            if (!a.causal || i * TILE + half + 31 + a.past >= first)
                dkdv_step(a, dk, dv, k, v, now, half, key, i * TILE, lse[i & 1], delta[i & 1], lane);
        __syncthreads();
    }
    const uint32_t own = base + (uint32_t)warp * 16 * MMA_ROW_BYTES;
    rows_store(dk, a.scale, a.scale, own, at(a.dk, hd), a.dk.row, key, a.tk, lane);
    rows_store(dv, 1, 1, own, at(a.dv, hd), a.dv.row, key, a.tk, lane);
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

static dim3 grid(const attention_args *a, int rows, int each)
{
    return dim3((unsigned)(a->n * a->heads), (unsigned)kn_ceil(rows, each));
}

void kn_attention_bf16(const attention_args *a, cudaStream_t stream)
{
    kn_launch(forward_kernel, grid(a, a->tq, Q_ROWS), dim3(32 * Q_WARPS), 0, stream, *a);
}

void kn_attention_bf16_grad(const attention_args *a, cudaStream_t stream)
{
    kn_launch(dq_kernel, grid(a, a->tq, Q_ROWS), dim3(32 * Q_WARPS), 0, stream, *a);
    kn_launch(dkdv_kernel, grid(a, a->tk, K_ROWS), dim3(32 * K_WARPS), 0, stream, *a);
}
