/* attention_ring.cuh - how rows get to the warpgroups of an attention kernel (attention_bf16.cu, attention_bf16_grad.cu).
 *
 * A block stays on its multiprocessor and takes items: a head and up to GROUPS stripes of 64 rows, one a warpgroup ("own": queries, or keys for their gradients).
 * Rows of the other side pass by in tiles of 64. One thread (ring_feed) has the tensor copy engine bring both: own rows into one of two slots, so that the next item's
 * are there before this one ends, passing tiles into a ring of STAGES. The warpgroups never wait for each other, only for tiles, and may be STAGES apart.
 *
 *     ring_run<shape, blocks>(maps, a, items);           the whole kernel: one warpgroup feeds the ring, the others run blocks(maps, a, r)
 *     while (r.take(&it)) { ... r.wait_tile(n); ... r.leave_tile(lane); ... r.leave_item(lane); }         and that is what blocks() does
 *
 * Items are numbered longest first (within groups of heads whose rows fit the second-level cache) and taken by a counter: who does what differs from run to run,
 * what an item's result is does not. The counter wraps to zero with the last item asked for, so it is zero between kernels.
 */
#ifndef KN_CUDA_ATTENTION_RING_CUH
#define KN_CUDA_ATTENTION_RING_CUH

#include <cuda.h>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_mma.cuh"

enum {
    STATS_BYTES = 2 * TILE * 4, /* of a tile of queries, by two: lse in bits, delta */
    HEADS_TOGETHER = 64,        /* keys and values, or queries and dy, of 64 heads of 1,024: 16 MB */
};

/* Boxes of 64 rows of one head. Rows behind the end arrive as zeros. */
struct attention_maps {
    CUtensorMap own[3], pass[2], out[2]; /* out: what belongs to own rows */
};

/* What a kernel's blocks are made of. */
template <int GROUPS_, int OWN_, bool KEYS_, int STAGES_> struct ring_shape {
    enum {
        GROUPS = GROUPS_, /* warpgroups that compute */
        OWN = OWN_,       /* operands whose rows they own */
        STAGES = STAGES_, /* pairs of tiles on their way or in use */
        KEYS = KEYS_,     /* own rows are keys, queries pass with their statistics */
        THREADS = 128 * (GROUPS + 1),
        REGISTERS_ALL =
            65536 / THREADS / 8 * 8 * (GROUPS + 1), /* of four threads, one a warpgroup, that a block starts with */
        REGISTERS_FEED = GROUPS == 2 ? 40 : 32,
        REGISTERS = (REGISTERS_ALL - REGISTERS_FEED) / GROUPS / 8 * 8, /* of a thread that computes */
        STAGE_BYTES = 2 * TILE_BYTES + (KEYS ? STATS_BYTES : 0),
        STAGE_STEP = 2 * TILE_BYTES, /* statistics lie behind all stages */
        SLOT_BYTES = OWN * GROUPS * TILE_BYTES,
        STATS_AT = STAGES * STAGE_STEP + 2 * SLOT_BYTES,
        BARRIERS_AT = STATS_AT + (KEYS ? STAGES * STATS_BYTES : 0),
        SHARED = BARRIERS_AT + 16 * STAGES + 96 + 1024, /* the base is aligned to 1,024 */
    };
    static_assert(SHARED <= 227 << 10, "shared memory of a multiprocessor");
};

struct attention_item {
    int b, h, row,
        stripe; /* row: of [n, heads]; stripe: the first one's number; may be negative, or behind the end: nothing to do */
    int from, to; /* tiles that pass; from < 0: no item, the end */
};

/* Item k of all, from the one with the most work to that with the least, head by head. */
template <typename S> static __device__ __forceinline__ attention_item item_at(const attention_args &a, int k)
{
    const int heads = a.n * a.heads, own = S::KEYS ? a.tk : a.tq, stripes = (own + TILE - 1) / TILE;
    const int blocks = (stripes + S::GROUPS - 1) / S::GROUPS, together = HEADS_TOGETHER * blocks;
    const int first = k / together * HEADS_TOGETHER;
    const int size = heads - first < HEADS_TOGETHER ? heads - first : HEADS_TOGETHER, rest = k % together;
    attention_item it;
    it.row = first + rest % size, it.b = it.row / a.heads, it.h = it.row % a.heads;
    if (S::KEYS) { /* the first keys are seen by the most queries */
        it.stripe = rest / size * S::GROUPS;
        it.from = a.causal && it.stripe * TILE > a.past ? (it.stripe * TILE - a.past) / TILE : 0;
        it.to = (a.tq + TILE - 1) / TILE;
    } else { /* the last queries see the most keys */
        it.stripe = stripes - (rest / size + 1) * S::GROUPS;
        const int end = (it.stripe + S::GROUPS) * TILE;
        it.from = 0;
        it.to = (attention_seen(a, (end < a.tq ? end : a.tq) - 1) + TILE - 1) / TILE;
    }
    return it;
}
template <typename S> static inline int item_count(const attention_args &a)
{
    return a.n * a.heads * (int)kn_ceil(kn_ceil(S::KEYS ? a.tk : a.tq, TILE), S::GROUPS);
}

/* The same in all lanes, and the compiler knows. */
static __device__ __forceinline__ int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

/* Tiles of keys that queries of a stripe see; 0 for a stripe that is not there. */
static __device__ __forceinline__ int stripe_tiles(const attention_args &a, const attention_item &it, int stripe)
{
    const int first = stripe * TILE, last = (first + TILE < a.tq ? first + TILE : a.tq) - 1;
    const int tiles = (attention_seen(a, last) + TILE - 1) / TILE;
    return first < 0 || first >= a.tq ? 0 : tiles < it.to ? tiles : it.to;
}

/* ---- barriers in shared memory, and the copies that report to them (PTX ISA: mbarrier, cp.async.bulk) ------------------------------------------- */

static __device__ __forceinline__ void barrier_init(uint32_t b, int arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(b), "r"(arrivals) : "memory");
}
static __device__ __forceinline__ void barrier_arrive(uint32_t b)
{
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(b) : "memory");
}
static __device__ __forceinline__ void barrier_expect(uint32_t b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(b), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void barrier_wait(uint32_t b, uint32_t parity)
{
    asm volatile("{\n.reg .pred p;\nAGAIN:\n"
                 "mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n"
                 "@!p bra AGAIN;\n}" ::"r"(b),
                 "r"(parity)
                 : "memory");
}
static __device__ __forceinline__ void copy_tile(uint32_t to, const CUtensorMap *map, uint32_t barrier, int row, int h,
                                                 int b)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
                 "%6}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(0), "r"(row), "r"(h), "r"(b)
                 : "memory");
}
/* A whole warpgroup, when all have written their rows of a tile: from there to memory, but for rows behind the end. Read when ring_of.leave_item returns. */
static __device__ __forceinline__ void copy_out(const CUtensorMap *map, uint32_t from, int group, int row, int h, int b)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
    if (threadIdx.x % 128 == 0)
        asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];\n"
                     "cp.async.bulk.commit_group;" ::"l"(map),
                     "r"(from), "r"(0), "r"(row), "r"(h), "r"(b)
                     : "memory");
}
static __device__ __forceinline__ void copy_bytes(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

template <typename S> struct ring_of {
    uint32_t base, tile, item; /* tiles and items that are done with: the number of the next */

    static __device__ __forceinline__ uint32_t stage(uint32_t n) { return n % S::STAGES; }
    __device__ __forceinline__ uint32_t tile_full(uint32_t n) const { return base + S::BARRIERS_AT + 8 * stage(n); }
    __device__ __forceinline__ uint32_t tile_free(uint32_t n) const { return tile_full(n) + 8 * S::STAGES; }
    __device__ __forceinline__ uint32_t slot_full(uint32_t n) const
    {
        return base + S::BARRIERS_AT + 16 * S::STAGES + 8 * (n % 2);
    }
    __device__ __forceinline__ uint32_t slot_free(uint32_t n) const { return slot_full(n) + 16; }
    __device__ __forceinline__ uint32_t slot_item(uint32_t n) const
    {
        return base + S::BARRIERS_AT + 16 * S::STAGES + 32 + n % 2 * 32;
    }
    /* Tile n of the first of the two operands that pass, and of the second; as matrices. */
    __device__ __forceinline__ uint32_t passing(uint32_t n) const { return base + stage(n) * S::STAGE_STEP; }
    __device__ __forceinline__ uint32_t first(uint32_t n) const
    {
        return matrix_of(base) + stage(n) * (S::STAGE_STEP >> 4);
    }
    __device__ __forceinline__ uint32_t second(uint32_t n) const { return first(n) + (TILE_BYTES >> 4); }
    __device__ __forceinline__ uint32_t stats(uint32_t n) const { return base + S::STATS_AT + stage(n) * STATS_BYTES; }
    /* Tile of own operand `o` of warpgroup g in the slot of now. */
    __device__ __forceinline__ uint32_t own(int o, int g) const
    {
        return base + S::STAGES * S::STAGE_STEP + item % 2 * S::SLOT_BYTES + (uint32_t)(o * S::GROUPS + g) * TILE_BYTES;
    }

    /* By all threads. */
    __device__ __forceinline__ void begin(const void *memory)
    {
        base = (shared_address(memory) + 1023) & ~1023u, tile = item = 0;
        if (threadIdx.x == 0) {
            for (uint32_t i = 0; i < S::STAGES; i++) {
                barrier_init(tile_full(i), 1);
                barrier_init(tile_free(i), 4 * S::GROUPS);
            }
            for (uint32_t i = 0; i < 2; i++) {
                barrier_init(slot_full(i), 1);
                barrier_init(slot_free(i), 4 * S::GROUPS);
            }
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        }
        __syncthreads();
    }

    /* By warps that compute: the next item, whose rows are in `own`; false: there is none. */
    __device__ __forceinline__ bool take(attention_item *it) const
    {
        barrier_wait(slot_full(item), item >> 1 & 1);
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(it->b), "=r"(it->h), "=r"(it->row), "=r"(it->stripe)
                     : "r"(slot_item(item))
                     : "memory");
        asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
                     : "=r"(it->from), "=r"(it->to)
                     : "r"(slot_item(item) + 16)
                     : "memory");
        it->stripe = uniform(it->stripe), it->from = uniform(it->from), it->to = uniform(it->to);
        return it->from >= 0;
    }
    /* By the feeding thread, before the barrier is told of what comes. */
    __device__ __forceinline__ void tell(const attention_item &it) const
    {
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(slot_item(item)), "r"(it.b), "r"(it.h),
                     "r"(it.row), "r"(it.stripe)
                     : "memory");
        asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(slot_item(item) + 16), "r"(it.from), "r"(it.to)
                     : "memory");
    }
    __device__ __forceinline__ void leave_item(int lane)
    {
        __syncwarp();
        if (lane == 0) {
            asm volatile("cp.async.bulk.wait_group.read 0;" ::
                             : "memory"); /* results lie where the next rows are copied */
            barrier_arrive(slot_free(item));
        }
        item++;
    }
    __device__ __forceinline__ void wait_tile(uint32_t n) const { barrier_wait(tile_full(n), n / S::STAGES & 1); }
    __device__ __forceinline__ void leave_tile(int lane)
    {
        if (lane == 0)
            barrier_arrive(tile_free(tile));
        tile++;
    }
    __device__ __forceinline__ void pass_by(int tiles, int lane)
    {
        for (; tiles > 0; tiles--) {
            wait_tile(tile);
            leave_tile(lane);
        }
    }
};

/* One thread: brings everything, in the order in which it is used. */
template <typename S>
static __device__ __forceinline__ void ring_feed(ring_of<S> &r, const attention_maps &m, const attention_args &a,
                                                 int items)
{
    const int query_tiles = (a.tq + TILE - 1) / TILE;
    for (int k = (int)blockIdx.x;; k = (int)gridDim.x + (int)atomicInc(a.next, (unsigned)items - 1), r.item++) {
        const uint32_t slot = r.slot_full(r.item);
        const bool last = k >= items;
        barrier_wait(r.slot_free(r.item), ~r.item >> 1 & 1);
        attention_item it = {};
        it.from = -1;
        if (!last)
            it = item_at<S>(a, k);
        r.tell(it);
        if (last) {
            barrier_arrive(slot);
            return;
        }
        barrier_expect(slot, S::SLOT_BYTES);
#pragma unroll
        for (int o = 0; o < S::OWN; o++)
            for (int g = 0; g < S::GROUPS; g++)
                copy_tile(r.own(o, g), &m.own[o], slot, (it.stripe + g) * TILE, it.h, it.b);
        for (int t = it.from; t < it.to; t++, r.tile++) {
            const uint32_t full = r.tile_full(r.tile), to = r.passing(r.tile);
            barrier_wait(r.tile_free(r.tile), ~(r.tile / S::STAGES) & 1);
            barrier_expect(full, S::STAGE_BYTES);
            copy_tile(to, &m.pass[0], full, t * TILE, it.h, it.b);
            copy_tile(to + TILE_BYTES, &m.pass[1], full, t * TILE, it.h, it.b);
            if (S::KEYS)
                copy_bytes(r.stats(r.tile), a.delta + ((int64_t)it.row * query_tiles + t) * 2 * TILE, STATS_BYTES,
                           full);
        }
    }
}

/* Registers of a thread from here on: more than it started with, or fewer. */
template <int N> static __device__ __forceinline__ void registers_more(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> static __device__ __forceinline__ void registers_fewer(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* What a kernel of three or four warpgroups does: the first brings the rows, BLOCKS is what the others make of them. Nothing where there are no such copies. */
template <typename S, void BLOCKS(const attention_maps &, const attention_args &, ring_of<S> &)>
static __device__ __forceinline__ void ring_run(const attention_maps &m, const attention_args &a, int items)
{
    if constexpr (KN_HOPPER) {
        extern __shared__ unsigned char memory[];
        ring_of<S> r;
        r.begin(memory);
        kn_begin();
        if (threadIdx.x < 128) {
            registers_fewer<S::REGISTERS_FEED>();
            if (threadIdx.x == 0)
                ring_feed(r, m, a, items);
        } else {
            registers_more<S::REGISTERS>();
            BLOCKS(m, a, r);
        }
    }
}

/* ---- host side ------------------------------------------------------------------------------------------------------------------------ */

/* A map of boxes of 64 rows of x [n, rows, heads, 64]. */
es_status kn_attention_map(CUtensorMap *map, const attention_rows *x, const attention_args *a, int rows, es_error *err);

template <typename S>
static es_status ring_launch(void (*kernel)(attention_maps, attention_args, int), kn_cuda_device *dev,
                             const attention_maps &m, attention_args a, es_error *err)
{
    static uint64_t allowed; /* devices */
    const uint64_t bit = 1ull << (dev->index & 63);
    if (!(__atomic_load_n(&allowed, __ATOMIC_RELAXED) & bit)) {
        KN_CUDA_RETURN(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED));
        __atomic_fetch_or(&allowed, bit, __ATOMIC_RELAXED);
    }
    const int items = item_count<S>(a), blocks = items < dev->sms ? items : dev->sms;
    a.next = dev->arrived;
    kn_launch(kernel, dim3((unsigned)blocks), dim3(S::THREADS), S::SHARED, dev->stream, m, a, items);
    return ES_OK;
}

#endif
