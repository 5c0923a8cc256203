/* depthwise_stage.cuh - rows of bf16 images on their way through shared memory, for the depthwise kernels that walk down images.
 *
 * A block owns 32 channels (16 pairs side by side), a strip of columns and `images` images at once; thread (pair, tile, image) makes 4 output columns. Rows arrive by
 * cp.async, STAGES - 1 ahead of the row in use, with zeros where an image ends: no bounds are checked and no addresses computed where the products are.
 *
 *     stage_reader<STEP, HALO, LEFT> in(...);                        STEP: columns between tiles, HALO: columns that a tile needs beyond them
 *     const auto copy = [&](uint32_t to) { in.issue(to); };          the next row of each image
 *     stage_ring ring(buffer, bytes of a stage, copy);
 *     uint32_t row = ring.next(copy);                                where the oldest row is; then stage_read(row + mine + stage_column<STEP>(j))
 *
 * In shared memory a column is 64 bytes and each tile is followed by 64 spare ones, so that the two tiles of a warp are in different banks.
 */
#ifndef KN_CUDA_DEPTHWISE_STAGE_CUH
#define KN_CUDA_DEPTHWISE_STAGE_CUH

#include "kernels/cuda/depthwise.cuh"

enum { STAGE_PAIRS = 16, STAGE_T = 4, STAGES = 4, STAGE_TILES = 16 };

struct stage_grid {
    int tiles;  /* of a strip; tiles * images <= 16 */
    int strips; /* along a row */
    int images; /* at once */
    int rounds; /* groups of images that a block works through, one after another */
    int slabs;  /* of 32 channels */
    int groups; /* blocks along the images */
};

/* Blocks for about `waves` rounds of two blocks a multiprocessor. */
static inline stage_grid stage_grid_make(int n, int columns, int channels, int64_t waves, int sms)
{
    stage_grid g;
    const int all = (int)kn_ceil(columns, STAGE_T);
    g.strips = (int)kn_ceil(all, STAGE_TILES);
    g.tiles = (int)kn_ceil(all, g.strips);
    g.images = STAGE_TILES / g.tiles < n ? STAGE_TILES / g.tiles : n;
    g.slabs = (int)kn_ceil(channels, 2 * STAGE_PAIRS);
    const int64_t sets = kn_ceil(n, g.images), blocks = sets * g.slabs * g.strips;
    g.rounds = (int)kn_ceil(blocks, 2 * sms * waves);
    g.rounds = g.rounds > sets ? (int)sets : g.rounds;
    g.groups = (int)kn_ceil(sets, g.rounds);
    return g;
}

/* Bytes of one image's row. Odd multiples of 64 between neighbouring tiles, also from one image to the next. */
static inline __host__ __device__ int stage_image_bytes(int tiles, int step, int halo)
{
    const int units = (tiles + (halo + step - 1) / step) * (step + 1);
    return 64 * (units + ((units ^ tiles) & 1));
}

/* The kernels take these shapes. */
static inline bool stage_fits(const dw_args *a)
{
    return (a->stride == 1 || a->stride == 2) && a->dilation == 1 && (a->k == 3 || a->k == 5) && a->pad == a->k / 2 &&
           a->c % KN_VEC == 0;
}

/* Once per device: a kernel may use more than 48 KiB of shared memory. */
#define STAGE_ALLOW(kernel) KN_CUDA_RETURN(kn_cuda_allow_shared(dev, (const void *)(kernel)))

#ifdef __CUDACC__
static __device__ __forceinline__ void stage_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
static __device__ __forceinline__ void stage_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
}
static __device__ __forceinline__ void stage_drain(void) { asm volatile("cp.async.wait_all;" ::: "memory"); }

static __device__ __forceinline__ void stage_zero(uint4 *buffer, int bytes)
{
    for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x)
        buffer[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
}

/* Which thread this is. */
struct stage_place {
    int pair, tile, image, channel, strip, n0, rounds; /* n0: the block's first image */
};
static __device__ __forceinline__ stage_place stage_where(const stage_grid &g, int n)
{
    stage_place p;
    const int lane = (int)threadIdx.x / STAGE_PAIRS;
    p.pair = (int)threadIdx.x % STAGE_PAIRS;
    p.tile = lane % g.tiles;
    p.image = lane / g.tiles;
    p.channel = (int)(blockIdx.x % g.slabs) * 2 * STAGE_PAIRS + 2 * p.pair;
    p.strip = (int)(blockIdx.x / g.slabs);
    p.n0 = (int)blockIdx.y * g.rounds * g.images;
    const int sets = (n - p.n0 + g.images - 1) / g.images;
    p.rounds = sets < g.rounds ? sets : g.rounds;
    return p;
}

/* Copies rows of [n][h][w][c]; the first tile's first column is LEFT columns left of column strip * tiles * STEP. */
template <int STEP, int HALO, int LEFT> struct stage_reader {
    enum { CHUNKS = (STEP + HALO + 3) / 4 };
    const __nv_bfloat16 *from[CHUNKS], *end; /* NULL: nothing for this thread to copy */
    uint32_t to[CHUNKS];
    int64_t offset, row,
        skip; /* of the next row in elements; to the next row; from the last row of an image to the next round's first */
    int left, h, image_bytes;

    __device__ __forceinline__ stage_reader(const stage_grid &g, const stage_place &p, const void *x, int n, int h_,
                                            int w, int c)
    {
        const int columns = g.tiles * STEP + HALO, slab = (int)(blockIdx.x % g.slabs) * 2 * STAGE_PAIRS;
        h = h_;
        image_bytes = stage_image_bytes(g.tiles, STEP, HALO);
        end = (const __nv_bfloat16 *)x + (int64_t)n * h * w * c;
#pragma unroll
        for (int m = 0; m < CHUNKS; m++) {
            const int id = (int)(threadIdx.x + m * blockDim.x), channel = slab + id % 4 * KN_VEC, q = id / 4,
                      image = q / columns, at = q % columns, column = p.strip * g.tiles * STEP + at - LEFT;
            const bool copies = image < g.images && column >= 0 && column < w && channel < c;
            from[m] = copies ? (const __nv_bfloat16 *)x + ((int64_t)image * h * w + column) * c + channel : NULL;
            to[m] = (uint32_t)(image * image_bytes + (at + at / STEP) * 64 + id % 4 * 16);
        }
        row = (int64_t)w * c;
        skip = (int64_t)(g.images - 1) * h * row;
        offset = (int64_t)p.n0 * h * row;
        left = h;
    }
    /* The next row of every image, to the shared address `stage`. */
    __device__ __forceinline__ void issue(uint32_t stage)
    {
#pragma unroll
        for (int m = 0; m < CHUNKS; m++)
            if (from[m] && from[m] + offset < end)
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(stage + to[m]), "l"(from[m] + offset)
                             : "memory");
        offset += row;
        if (--left == 0) {
            offset += skip;
            left = h;
        }
    }
};

/* STAGES rows in turn: one in use, the others on their way. */
struct stage_ring {
    uint32_t base, end, use, fill;
    int bytes;

    template <typename F> __device__ __forceinline__ stage_ring(uint4 *buffer, int bytes_, F copy) : bytes(bytes_)
    {
        base = use = fill = (uint32_t)__cvta_generic_to_shared(buffer);
        end = base + STAGES * bytes;
        stage_zero(buffer, STAGES * bytes);
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++)
            push(copy);
    }
    __device__ __forceinline__ uint32_t after(uint32_t at) const { return at + bytes == end ? base : at + bytes; }
    template <typename F> __device__ __forceinline__ void push(F copy)
    {
        copy(fill);
        stage_commit();
        fill = after(fill);
    }
    /* For all threads of a block together: the row before is done with. */
    template <typename F> __device__ __forceinline__ uint32_t next(F copy)
    {
        const uint32_t row = use;
        stage_wait();
        __syncthreads();
        push(copy);
        use = after(use);
        return row;
    }
};

/* Where column j of a tile is, from the tile's first. */
template <int STEP> static __device__ __forceinline__ constexpr int stage_column(int j) { return (j + j / STEP) * 64; }

static __device__ __forceinline__ uint32_t stage_read(uint32_t address)
{
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
    return v;
}
static __device__ __forceinline__ float stage_low(uint32_t v) { return __uint_as_float(v << 16); }
static __device__ __forceinline__ float stage_high(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }
#endif

#endif
