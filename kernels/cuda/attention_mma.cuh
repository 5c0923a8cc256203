/* attention_mma.cuh - tiles of 64 columns of bf16 in shared memory and their products on tensor cores, fp32 accumulation: by warp (mma.sync, any GPU; attention_warps.cu) and by
 * warpgroup (wgmma, compute capability 9.0a; attention_bf16.cu).
 *
 * A tile's row is 128 bytes, eight chunks of 16; chunk c of row r lies at c ^ (r & 7), tiles begin at multiples of 1,024: the layout that the instruction calls
 * 128-byte swizzle. One operand is 64 rows in registers, 16 a warp; for a lane with g = lane / 4 and t = lane % 4 it has rows g and g + 8, columns 2t, 2t+1 and 8 more. Results
 * have rows g and g + 8, columns 2t, 2t+1 of every 8: what one product leaves is the operand of the next, packed. (PTX ISA, wgmma.mma_async: fragments, matrix descriptor.)
 */
#ifndef KN_CUDA_ATTENTION_MMA_CUH
#define KN_CUDA_ATTENTION_MMA_CUH

#include "kernels/cuda/attention.cuh"

enum {
    MMA_WIDTH = 64,
    MMA_ROW_BYTES = 2 * MMA_WIDTH,
    MMA_STEPS = MMA_WIDTH / 16,
    TILE = 64, /* rows of a stripe, and that pass by at once */
    TILE_BYTES = TILE * MMA_ROW_BYTES
};

static const float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;
static const float LEAST = -1e30f; /* a maximum of nothing: finite, so that differences are numbers */

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
static __device__ __forceinline__ uint32_t tile_at(uint32_t tile, int row, int chunk)
{
    return tile + (uint32_t)(row * MMA_ROW_BYTES + ((chunk ^ (row & 7)) << 4));
}

/* What wgmma reads of shared memory: from a tile's first row on, eight rows of 128 bytes after another; the same words whether rows run along the sum or across it. The lower
 * word, to which 16-byte steps may be added; the upper never changes. */
static __device__ __forceinline__ uint32_t matrix_of(uint32_t tile) { return tile >> 4 | 1u << 16; }
static __device__ __forceinline__ uint64_t matrix_at(uint32_t matrix, int bytes)
{
    return (uint64_t)(1024 >> 4 | 1u << 30) << 32 | (matrix + (uint32_t)(bytes >> 4));
}

/* Between ordinary writes of registers and products that use them. */
static __device__ __forceinline__ void products_begin(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void products_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* All but the last N committed groups are done. */
template <int N> static __device__ __forceinline__ void products_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* c[64 x 32] or c[64 x 64], a quarter a warp, = or += a[64 x 16] b. TURNED: b's rows run along the sum. */
#define WGMMA_16(C, N) "+f"(C[N][0]), "+f"(C[N][1]), "+f"(C[N][2]), "+f"(C[N][3])
template <int TURNED>
static __device__ __forceinline__ void product(float (&c)[4][4], const uint32_t a[4], uint64_t b, int add)
{
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, "
        "{%16,%17,%18,%19}, %20, p, 1, 1, %22;\n}\n"
        : WGMMA_16(c, 0), WGMMA_16(c, 1), WGMMA_16(c, 2), WGMMA_16(c, 3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TURNED));
}
template <int TURNED>
static __device__ __forceinline__ void product(float (&c)[8][4], const uint32_t a[4], uint64_t b, int add)
{
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
        "{%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}\n"
        : WGMMA_16(c, 0), WGMMA_16(c, 1), WGMMA_16(c, 2), WGMMA_16(c, 3), WGMMA_16(c, 4), WGMMA_16(c, 5),
          WGMMA_16(c, 6), WGMMA_16(c, 7)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TURNED));
}

/* A fragments of 16 whole rows of a tile, row `from` on. */
static __device__ __forceinline__ void rows_load(uint32_t a[MMA_STEPS][4], uint32_t tile, int from, int lane)
{
#pragma unroll
    for (int s = 0; s < MMA_STEPS; s++)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a[s][0]), "=r"(a[s][1]), "=r"(a[s][2]), "=r"(a[s][3])
                     : "r"(tile_at(tile, from + (lane & 15), 2 * s + (lane >> 4)))
                     : "memory");
}

/* c[64 x 8 TILES] = a (rows `from` ... of the tile, given by matrix_of)^T; between products_begin and products_commit, like the next. */
template <int TILES>
static __device__ __forceinline__ void product_turned(float (&c)[TILES][4], const uint32_t a[MMA_STEPS][4],
                                                      uint32_t tile, int from = 0)
{
#pragma unroll
    for (int s = 0; s < MMA_STEPS; s++)
        product<0>(c, a[s], matrix_at(tile, from * MMA_ROW_BYTES + s * 32), s > 0);
}

/* The same for half a tile with `a` in shared memory too (64 rows, given by matrix_of): no registers for it, but half again as long. */
static __device__ __forceinline__ void product_turned(float (&c)[4][4], uint32_t a, uint32_t tile, int from = 0)
{
#pragma unroll
    for (int s = 0; s < MMA_STEPS; s++)
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
                     "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, p, 1, 1, 0, 0;\n}\n"
                     : WGMMA_16(c, 0), WGMMA_16(c, 1), WGMMA_16(c, 2), WGMMA_16(c, 3)
                     : "l"(matrix_at(a, s * 32)), "l"(matrix_at(tile, from * MMA_ROW_BYTES + s * 32)),
                       "r"((int)(s > 0)));
}

/* c[64 x 64] += a[64 x 16 STEPS] (rows `from` ... of the tile) */
template <int STEPS>
static __device__ __forceinline__ void product_add(float (&c)[8][4], const uint32_t (&a)[STEPS][4], uint32_t tile,
                                                   int from = 0)
{
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        product<1>(c, a[s], matrix_at(tile, (from + s * 16) * MMA_ROW_BYTES), 1);
}

static __device__ __forceinline__ uint32_t pack(float low, float high)
{
    __nv_bfloat162 h = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&h;
}
/* C of a product as the A of the next. */
template <int STEPS> static __device__ __forceinline__ void pack_rows(uint32_t (&a)[STEPS][4], const float c[][4])
{
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        a[s][0] = pack(c[2 * s][0], c[2 * s][1]);
        a[s][1] = pack(c[2 * s][2], c[2 * s][3]);
        a[s][2] = pack(c[2 * s + 1][0], c[2 * s + 1][1]);
        a[s][3] = pack(c[2 * s + 1][2], c[2 * s + 1][3]);
    }
}

/* c[16 x 8] += a[16 x 16] b^T by one warp. */
static __device__ __forceinline__ void product_by_warp(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
        "%1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Sum of x y over a row, two fragments of the same rows: the diagonal of x y^T. */
static __device__ __forceinline__ void row_dots(const uint32_t x[MMA_STEPS][4], const uint32_t y[MMA_STEPS][4],
                                                float dot[2], int lane)
{
    const int g = lane >> 2, source = (lane & 28) | g >> 1; /* column g of 8 is in lane g / 2 of a row's four */
    float c[2][4] = {};
#pragma unroll
    for (int s = 0; s < MMA_STEPS; s++) {
        product_by_warp(c[0], x[s], y[s][0], y[s][2]);
        product_by_warp(c[1], x[s], y[s][1], y[s][3]);
    }
    dot[0] = __shfl_sync(0xffffffffu, g & 1 ? c[0][1] : c[0][0], source);
    dot[1] = __shfl_sync(0xffffffffu, g & 1 ? c[1][3] : c[1][2], source);
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

/* Keys that a query does not see, as minus infinity: only in tiles that reach beyond what the first row sees. */
template <int TILES>
static __device__ __forceinline__ void hide(float (&s)[TILES][4], const attention_args &a, int row, int key, int lane)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int seen = attention_seen(a, row + (lane >> 2) + 8 * r) - key - 2 * (lane & 3);
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int c = 0; c < 2; c++)
                if (n * 8 + c >= seen)
                    s[n][2 * r + c] = -INFINITY;
    }
}

/* Four 8 x 8 matrices of shared memory, each lane giving one row's address; turned: a lane gets of each matrix the column lane / 4, rows 2t and 2t+1 (ldmatrix.trans). */
static __device__ __forceinline__ void matrices_turned(uint32_t m[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 rows of results into the rows from `own` on of a tile in shared memory. */
static __device__ __forceinline__ void rows_put(const float c[8][4], float scale_0, float scale_1, uint32_t own,
                                                int lane)
{
    const uint32_t to = tile_at(own, lane & 15, 0);
    __syncwarp();
#pragma unroll
    for (int n = 0; n < 8; n += 2)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                         to ^ (uint32_t)((n + (lane >> 4)) << 4)),
                     "r"(pack(c[n][0] * scale_0, c[n][1] * scale_0)), "r"(pack(c[n][2] * scale_1, c[n][3] * scale_1)),
                     "r"(pack(c[n + 1][0] * scale_0, c[n + 1][1] * scale_0)),
                     "r"(pack(c[n + 1][2] * scale_1, c[n + 1][3] * scale_1))
                     : "memory");
}

#endif
