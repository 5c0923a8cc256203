/* attention_mma.cuh - tiles of 64 columns of bf16 in shared memory, and their products by warpgroup (wgmma, compute capability 9.0a), fp32 accumulation.
 *
 * A tile's row is 128 bytes, eight chunks of 16; chunk c of row r lies at c ^ (r & 7), tiles begin at multiples of 1,024: the layout that the instruction calls
 * 128-byte swizzle. One operand is 64 rows in registers, 16 a warp; for a lane with g = lane / 4 and t = lane % 4 it has rows g and g + 8, columns 2t, 2t+1 and 8 more. Results
 * have rows g and g + 8, columns 2t, 2t+1 of every 8: what one product leaves is the operand of the next, packed. (PTX ISA, wgmma.mma_async: fragments, matrix descriptor.)
 */
#ifndef KN_CUDA_ATTENTION_MMA_CUH
#define KN_CUDA_ATTENTION_MMA_CUH

#include "kernels/cuda/cuda.cuh"

enum { MMA_WIDTH = 64, MMA_ROW_BYTES = 2 * MMA_WIDTH, MMA_STEPS = MMA_WIDTH / 16 };

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
static __device__ __forceinline__ uint32_t tile_at(uint32_t tile, int row, int chunk)
{
    return tile + (uint32_t)(row * MMA_ROW_BYTES + ((chunk ^ (row & 7)) << 4));
}

/* What wgmma reads of shared memory: from `address` on, eight rows of 128 bytes after another. The same words whether rows run along the sum or across it. */
static __device__ __forceinline__ uint64_t matrix_at(uint32_t address)
{
    return (uint64_t)(address >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* Between ordinary writes of registers and products that use them. */
static __device__ __forceinline__ void products_begin(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void products_end(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
}
/* What this thread copied into shared memory is seen by the products of all, after the barrier that follows. */
static __device__ __forceinline__ void copies_for_products(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
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

/* 16 bytes from memory, or zeros. */
static __device__ __forceinline__ void copy_16(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}
static __device__ __forceinline__ void copies_done_but(int n)
{
    if (n == 0)
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    else
        asm volatile("cp.async.wait_group 1;" ::: "memory");
}
static __device__ __forceinline__ void copies_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Rows from, from + 1 ... of a head into a tile of ROWS; rows from `end` on are zero. p: the head's row 0, rows ld elements apart. */
template <int ROWS, int THREADS>
static __device__ __forceinline__ void tile_load(uint32_t tile, const __nv_bfloat16 *p, int64_t ld, int from, int end)
{
#pragma unroll
    for (int i = 0; i < ROWS * 8 / THREADS; i++) {
        int at = (int)threadIdx.x + i * THREADS, row = at >> 3, chunk = at & 7, r = from + row;
        copy_16(tile_at(tile, row, chunk), p + (r < end ? r : 0) * ld + chunk * 8, r < end);
    }
}

/* A fragments of 16 whole rows, straight from memory: done once for a warp. */
static __device__ __forceinline__ void rows_load(uint32_t a[MMA_STEPS][4], const __nv_bfloat16 *p, int64_t ld, int from,
                                                 int end, int lane)
{
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int s = 0; s < MMA_STEPS; s++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int row = from + g + (k & 1) * 8;
            a[s][k] = row < end ? *(const uint32_t *)(p + row * ld + s * 16 + 2 * t + (k >> 1) * 8) : 0u;
        }
}

/* c[64 x 8 TILES] = a[64 x 64] (rows `from` ... of the tile)^T; between products_begin and products_end, like the next. */
template <int TILES>
static __device__ __forceinline__ void product_turned(float (&c)[TILES][4], const uint32_t a[MMA_STEPS][4],
                                                      uint32_t tile, int from)
{
#pragma unroll
    for (int s = 0; s < MMA_STEPS; s++)
        product<0>(c, a[s], matrix_at(tile + (uint32_t)(from * MMA_ROW_BYTES + s * 32)), s > 0);
}

/* c[64 x 64] += a[64 x 16 STEPS] (rows `from` ... of the tile) */
template <int STEPS>
static __device__ __forceinline__ void product_add(float (&c)[8][4], const uint32_t a[STEPS][4], uint32_t tile,
                                                   int from)
{
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        product<1>(c, a[s], matrix_at(tile + (uint32_t)((from + s * 16) * MMA_ROW_BYTES)), 1);
}

static __device__ __forceinline__ uint32_t pack(float low, float high)
{
    __nv_bfloat162 h = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&h;
}
/* C of a product as the A of the next. */
template <int TILES> static __device__ __forceinline__ void pack_rows(uint32_t a[TILES / 2][4], const float c[TILES][4])
{
#pragma unroll
    for (int s = 0; s < TILES / 2; s++) {
        a[s][0] = pack(c[2 * s][0], c[2 * s][1]);
        a[s][1] = pack(c[2 * s][2], c[2 * s][3]);
        a[s][2] = pack(c[2 * s + 1][0], c[2 * s + 1][1]);
        a[s][3] = pack(c[2 * s + 1][2], c[2 * s + 1][3]);
    }
}

/* 16 rows of results to memory, through a warp's own 16 rows of shared memory, so that whole lines are written. */
static __device__ __forceinline__ void rows_store(const float c[8][4], float scale_0, float scale_1, uint32_t own,
                                                  __nv_bfloat16 *p, int64_t ld, int from, int end, int lane)
{
    const int g = lane >> 2, t = lane & 3;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < 8; n++) {
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(tile_at(own, g, n) + 4 * t),
                     "r"(pack(c[n][0] * scale_0, c[n][1] * scale_0))
                     : "memory");
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(tile_at(own, g + 8, n) + 4 * t),
                     "r"(pack(c[n][2] * scale_1, c[n][3] * scale_1))
                     : "memory");
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = i * 4 + (lane >> 3), chunk = lane & 7;
        uint4 v;
        asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(tile_at(own, row, chunk)));
        if (from + row < end)
            *(uint4 *)(p + (from + row) * ld + chunk * 8) = v;
    }
}

#endif
