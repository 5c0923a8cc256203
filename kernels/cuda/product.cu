/* Products of many rows with a small matrix (product.cuh), by tensor cores: mma.sync of 16 x 8 x 16. For 9.0 (more shared memory, stmatrix); elsewhere each op runs by itself.
 *
 * A block holds the weights of up to 96 columns in shared memory for as long as it lives and walks down the rows, 128 at a time; rows arrive by cp.async, 64 columns of k a stage, two
 * stages ahead, also across the end of a tile, so that the loads of the next tile are under way while this one is finished and stored. Results pass through shared memory on
 * their way out, a warp's own piece of it, so that rows are stored 16 bytes a lane. Where n is more than 96 columns, neighbouring blocks take the pieces of it: what they all read
 * of a is in the L2 cache.
 *
 * Bytes: a and d once (and the residual), w once a block. A tile's row in shared memory is 128 bytes, eight pieces of 16; piece c of row r lies at c ^ (r & 7), so that neither the
 * copies nor ldmatrix meet a bank twice.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/product.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    ROWS = 128,              /* of a tile */
    CHUNK = 64,              /* columns of k in a stage */
    PIECES = CHUNK / KN_VEC, /* of 16 bytes, in a stage's row */
    STAGES = 3,
    STAGE_BYTES = ROWS * MMA_ROW_BYTES,
    COEFFICIENT_BYTES = 1024, /* scale and shift of 96 columns */
    COLUMNS_MOST = 96,
    SHARED_MOST = KN_SHARED_HOPPER,       /* of a block */
    SHARED_HALF = (228 << 10) / 2 - 1024, /* so that two blocks fit a multiprocessor */
    ROWS_MOST = 1 << 30,
    K_MOST = 320 /* beyond that cuBLASLt is faster by more than the passes saved (docs/measurements.md) */
};

struct product_args {
    kn_product p;
    int tiles;    /* of rows */
    int pieces;   /* of n: blocks beside each other */
    int width;    /* columns of a piece */
    int chunks;   /* of k */
    bool vectors; /* w can be read 16 bytes at a time */
};

/* Of NT times 8 columns; a warp has 16 rows. */
template <int NT> struct product_shape {
    static constexpr int COLUMNS = NT * 8;
    static constexpr int ROW_BYTES = 16 * (NT + 1 + (NT & 1)); /* an odd number of pieces: other banks for each row */
    static constexpr int OUT_BYTES = 16 * ROW_BYTES;           /* of a warp's results on their way out */
};

static __device__ __forceinline__ void copy_piece(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}

/* The weights of this block's columns, all of k; zeros beyond n and k. */
static __device__ __forceinline__ void load_weights(const product_args &a, uint32_t to, int columns, int first)
{
    const int all = columns * a.chunks * PIECES, n = a.p.n - first < a.width ? a.p.n - first : a.width;
    for (int i = (int)threadIdx.x; i < all; i += THREADS) {
        const int piece = i % PIECES, row = i / PIECES % columns, chunk = i / PIECES / columns,
                  k = chunk * CHUNK + piece * KN_VEC;
        const bool there = row < n && k < a.p.k;
        const __nv_bfloat16 *from = (const __nv_bfloat16 *)a.p.w + (there ? (first + row) * a.p.ldw + k : 0);
        const uint32_t at = tile_at(to + (uint32_t)(chunk * columns * MMA_ROW_BYTES), row, piece);
        if (a.vectors) {
            copy_piece(at, from, there);
            continue;
        }
        const unsigned short *w = (const unsigned short *)from;
        uint32_t v[4];
#pragma unroll
        for (int e = 0; e < 4; e++)
            v[e] = there ? w[2 * e] | (uint32_t)w[2 * e + 1] << 16 : 0;
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]));
    }
}

/* Scale and shift of each column; silu wants halves of both (finished). */
static __device__ __forceinline__ void load_coefficients(const product_args &a, float2 *to, int columns, int first)
{
    const float part = a.p.act == KN_ACT_SILU ? 0.5f : 1.f;
    for (int i = (int)threadIdx.x; i < columns; i += THREADS) {
        float scale = 1, shift = 0;
        if (a.p.normed && first + i < a.p.n)
            kn_norm_coefficients<1>(a.p.norm, first + i, &scale, &shift);
        to[i] = make_float2(part * scale, part * shift);
    }
}

template <int ACT> static __device__ __forceinline__ float finished(float v)
{
    if (ACT != KN_ACT_SILU)
        return kn_act_of<ACT, true>(ACT, 0, v);
    float t; /* x sigmoid(x) = h + h tanh(h), h = x / 2 */
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(v));
    return fmaf(v, t, v);
}

static __device__ __forceinline__ uint32_t sum_of_pairs(uint32_t x, uint32_t y)
{
    __nv_bfloat162 v = __hadd2(*(__nv_bfloat162 *)&x, *(__nv_bfloat162 *)&y);
    return *(uint32_t *)&v;
}

/* 16 rows of a warp's results, stored from row `row` on and column `column` (`columns` of them are there). */
template <int NT, int ROW_BYTES>
static __device__ __forceinline__ void store_rows(const product_args &a, uint32_t out, int64_t row, int column,
                                                  int columns)
{
    constexpr int BESIDE = NT <= 2   ? 2
                           : NT <= 4 ? 4
                           : NT <= 8 ? 8
                                     : 16,
                  EACH = 32 / BESIDE, TIMES = 16 / EACH,
                  ASKED = TIMES == 8  ? 2
                          : TIMES < 4 ? TIMES
                                      : 4;
    const int lane = (int)threadIdx.x % 32, r = lane / BESIDE, piece = lane % BESIDE,
              left = row + 16 <= a.p.m ? 16 : (int)(a.p.m - row);
    const int64_t at = ((row + r) * a.p.n + column + piece * KN_VEC) * 2, step = (int64_t)EACH * a.p.n * 2;
    const uint32_t from = out + (uint32_t)(r * ROW_BYTES + piece * 16);
    char *to = (char *)a.p.d + at;
    if (piece >= NT || piece * KN_VEC >= columns)
        return;
    if (!a.p.residual) {
#pragma unroll
        for (int i = 0; i < TIMES; i++, to += step)
            if (r + i * EACH < left)
                *(uint4 *)to = kn_shared_load(from + i * EACH * ROW_BYTES);
        return;
    }
    const char *more = (const char *)a.p.residual + at;
#pragma unroll
    for (int first = 0; first < TIMES; first += ASKED) {
        uint4 add[ASKED];
#pragma unroll
        for (int i = 0; i < ASKED; i++, more += step)
            if (r + (first + i) * EACH < left)
                add[i] = *(const uint4 *)more;
#pragma unroll
        for (int i = 0; i < ASKED; i++, to += step) {
            uint4 v = kn_shared_load(from + (first + i) * EACH * ROW_BYTES);
            v.x = sum_of_pairs(v.x, add[i].x), v.y = sum_of_pairs(v.y, add[i].y);
            v.z = sum_of_pairs(v.z, add[i].z), v.w = sum_of_pairs(v.w, add[i].w);
            if (r + (first + i) * EACH < left)
                *(uint4 *)to = v;
        }
    }
}

/* Two columns of each of a warp's 16 rows, as a product leaves them in a lane. */
template <int ACT>
static __device__ __forceinline__ void finish_columns(uint32_t v[2], const float sum[4], const float2 *coefficient)
{
    const float4 c = *(const float4 *)coefficient;
#pragma unroll
    for (int h = 0; h < 2; h++)
        v[h] = pack(finished<ACT>(fmaf(sum[2 * h], c.x, c.y)), finished<ACT>(fmaf(sum[2 * h + 1], c.z, c.w)));
}

/* 16 rows of 16 or of 8 columns into shared memory. */
static __device__ __forceinline__ void put_columns(uint32_t to, const uint32_t v[2], const uint32_t w[2])
{
#if KN_HOPPER
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v[0]), "r"(v[1]),
                 "r"(w[0]), "r"(w[1])
                 : "memory");
#endif
}
static __device__ __forceinline__ void put_columns(uint32_t to, const uint32_t v[2])
{
#if KN_HOPPER
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(v[0]), "r"(v[1]) : "memory");
#endif
}

template <int ACT, int NT>
static __device__ __forceinline__ void finish_tile(const product_args &a, const float (&sum)[NT][4],
                                                   const float2 *coefficient, uint32_t out, int64_t row, int column,
                                                   int columns)
{
    typedef product_shape<NT> S;
    const int lane = (int)threadIdx.x % 32;
    const uint32_t to = out + (uint32_t)(lane % 16 * S::ROW_BYTES);
    const float2 *c = coefficient + 2 * (lane % 4);
    uint32_t v[2][2];
    __syncwarp();
#pragma unroll
    for (int j = 0; j + 1 < NT; j += 2) {
        finish_columns<ACT>(v[0], sum[j], c + j * 8);
        finish_columns<ACT>(v[1], sum[j + 1], c + j * 8 + 8);
        put_columns(to + lane / 16 * 16 + j * 16, v[0], v[1]);
    }
    if (NT % 2) {
        finish_columns<ACT>(v[0], sum[NT - 1], c + (NT - 1) * 8);
        put_columns(to + (NT - 1) * 16, v[0]);
    }
    __syncwarp();
    store_rows<NT, S::ROW_BYTES>(a, out, row, column, columns);
}

/* Rows of a on their way: a thread's piece of every 32nd row, the next chunk of the next tile into the next stage. Beyond the last row and column: zeros. */
struct row_reader {
    const char *from;
    int64_t turn;       /* bytes from a tile's last chunk to the first of the next */
    int k, left, fewer; /* its column; rows from its first one to the last of all; how many fewer in the next tile */
    uint32_t to, stage, stages;

    __device__ __forceinline__ row_reader(const product_args &a, int tile, int step, uint32_t first)
    {
        const int piece = (int)threadIdx.x % PIECES, row = (int)threadIdx.x / PIECES;
        k = piece * KN_VEC;
        from = (const char *)a.p.a + (((int64_t)tile * ROWS + row) * a.p.k + k) * 2;
        turn = ((int64_t)step * ROWS * a.p.k - a.chunks * CHUNK) * 2;
        left = (int)(a.p.m - (int64_t)tile * ROWS) - row;
        fewer = step * ROWS;
        to = tile_at(0, row, piece);
        stage = stages = first;
    }

    __device__ __forceinline__ void next(const product_args &a)
    {
        constexpr int APART = THREADS / PIECES;
        if (k < (a.p.k + 15) / 16 * 16) {
#pragma unroll
            for (int i = 0; i < ROWS / APART; i++)
                copy_piece(stage + to + i * APART * MMA_ROW_BYTES, from + (int64_t)i * APART * 2 * a.p.k,
                           i * APART < left && k < a.p.k);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        stage = stage == stages + (STAGES - 1) * STAGE_BYTES ? stages : stage + STAGE_BYTES;
        k += CHUNK;
        from += 2 * CHUNK;
        if (k / CHUNK == a.chunks) {
            k -= a.chunks * CHUNK;
            from += turn;
            left -= fewer;
        }
    }
};

/* Two columns of two rows, each times its image's number. */
static __device__ __forceinline__ void excite_rows(const product_args &a, uint32_t v[4], const int image[2], int k)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int column = k + i / 2 * 8;
        uint32_t s = 0;
        if (column < a.p.k)
            s = __ldg((const uint32_t *)((const __nv_bfloat16 *)a.p.excite + image[i % 2] + column));
        __nv_bfloat162 w = __hmul2(*(__nv_bfloat162 *)&v[i], *(__nv_bfloat162 *)&s);
        v[i] = *(uint32_t *)&w;
    }
}

/* sum += a chunk of rows times a chunk of weights, `steps` times 16 of k. rows, weights: where this lane's row of the first matrices lies; the piece of k is 2 steps further on in
 * the row, which in these tiles is its place with bits 5 and 6 turned. */
template <int NT, bool EXCITE>
static __device__ __forceinline__ void add_chunk(const product_args &a, float (&sum)[NT][4], uint32_t rows,
                                                 uint32_t weights, int steps, const int (&image)[2], int k)
{
#pragma unroll
    for (int s = 0; s < CHUNK / 16; s++) {
        uint32_t v[4], w[4];
        if (s >= steps)
            break;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(rows ^ s << 5)
                     : "memory");
        if (EXCITE)
            excite_rows(a, v, image, k + s * 16 + 2 * ((int)threadIdx.x % 4));
#pragma unroll
        for (int j = 0; j + 1 < NT; j += 2) {
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                         : "r"((weights ^ s << 5) + j * 8 * MMA_ROW_BYTES)
                         : "memory");
            product_by_warp(sum[j], v, w[0], w[1]);
            product_by_warp(sum[j + 1], v, w[2], w[3]);
        }
        if (NT % 2) {
            asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                         : "=r"(w[0]), "=r"(w[1])
                         : "r"((weights ^ s << 5) + (NT - 1) * 8 * MMA_ROW_BYTES)
                         : "memory");
            product_by_warp(sum[NT - 1], v, w[0], w[1]);
        }
    }
}

/* Where each image's numbers are of the two rows that a lane has of a product's operand. */
static __device__ __forceinline__ void find_images(const product_args &a, int (&image)[2], int64_t row)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int64_t r = row + i * 8 + (int)threadIdx.x % 32 / 4;
        image[i] = (int)(r < a.p.m ? r : a.p.m - 1) / a.p.pixels * a.p.k;
    }
}

template <int NT>
static __global__ void __launch_bounds__(THREADS, 2) product_kernel(const __grid_constant__ product_args a)
{
    typedef product_shape<NT> S;
    extern __shared__ __align__(1024) unsigned char shared[];
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32,
              first = (int)(blockIdx.x % (unsigned)a.pieces) * a.width,
              width = a.p.n - first < a.width ? a.p.n - first : a.width, step = (int)(gridDim.x / (unsigned)a.pieces);
    const uint32_t base = shared_address(shared), out = base + COEFFICIENT_BYTES + (uint32_t)(warp * S::OUT_BYTES),
                   stages = base + COEFFICIENT_BYTES + WARPS * S::OUT_BYTES, weights = stages + STAGES * STAGE_BYTES,
                   row_at = tile_at(0, warp * 16 + lane % 16, lane / 16),
                   weight_at = weights + tile_at(0, lane / 16 * 8 + lane % 8, lane / 8 % 2);
    int tile = (int)(blockIdx.x / (unsigned)a.pieces);
    row_reader reader(a, tile, step, stages);
    uint32_t stage = stages;
    if (!KN_HOPPER)
        return;
    kn_begin();
    load_weights(a, weights, S::COLUMNS, first);
    load_coefficients(a, (float2 *)shared, S::COLUMNS, first);
    for (int i = 0; i < STAGES - 1; i++)
        reader.next(a);
    for (; tile < a.tiles; tile += step) {
        float sum[NT][4] = {};
        int image[2] = {};
        const int64_t row = (int64_t)tile * ROWS + warp * 16;
        if (a.p.excite)
            find_images(a, image, row);
        for (int chunk = 0; chunk < a.chunks; chunk++) {
            const int steps = (a.p.k - chunk * CHUNK + 15) / 16;
            const uint32_t w = weight_at + (uint32_t)(chunk * S::COLUMNS * MMA_ROW_BYTES);
            asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
            __syncthreads(); /* what has arrived is seen by all; and the stage before this one is free */
            reader.next(a);
            if (a.p.excite)
                add_chunk<NT, true>(a, sum, stage + row_at, w, steps, image, chunk * CHUNK);
            else
                add_chunk<NT, false>(a, sum, stage + row_at, w, steps, image, chunk * CHUNK);
            stage = stage + STAGE_BYTES == weights ? stages : stage + STAGE_BYTES;
        }
#define FINISH(ACT) finish_tile<ACT, NT>(a, sum, (const float2 *)shared, out, row, first, width)
        switch (a.p.act) {
        case KN_ACT_SILU: FINISH(KN_ACT_SILU); break;
        case KN_ACT_HSWISH: FINISH(KN_ACT_HSWISH); break;
        case KN_ACT_RELU: FINISH(KN_ACT_RELU); break;
        case KN_ACT_RELU6: FINISH(KN_ACT_RELU6); break;
        default: FINISH(KN_ACT_NONE); break;
        }
    }
}

/* ---- which kernel, how many blocks ---- */

#define PRODUCT_SHAPES(X) X(2) X(3) X(4) X(5) X(6) X(8) X(9) X(10) X(12)

struct product_choice {
    int nt, pieces, width;
    size_t shared;
};

static product_choice choose(int n, int k)
{
    const int chunks = (int)kn_ceil(k, CHUNK);
    for (int pieces = (int)kn_ceil(n, COLUMNS_MOST);; pieces++) {
        product_choice c = {0, pieces, (int)kn_ceil(n, (int64_t)pieces * KN_VEC) * KN_VEC, 0};
#define TRY(NT)                                                                                      \
    if (!c.nt && c.width <= product_shape<NT>::COLUMNS) {                                            \
        c.nt = NT;                                                                                   \
        c.shared = COEFFICIENT_BYTES + WARPS * product_shape<NT>::OUT_BYTES + STAGES * STAGE_BYTES + \
                   (size_t)chunks * product_shape<NT>::COLUMNS * MMA_ROW_BYTES;                      \
    }
        PRODUCT_SHAPES(TRY)
        if (c.shared <= SHARED_MOST) {
            c.pieces = (int)kn_ceil(n, c.width);
            return c;
        }
        if (c.width <= 16)
            return {};
    }
}

bool kn_cuda_product_fits(int64_t m, int n, int k)
{
    return m > 0 && m < ROWS_MOST && n >= KN_VEC && k >= KN_VEC && k <= K_MOST && n % KN_VEC == 0 && k % KN_VEC == 0 &&
           choose(n, k).nt > 0;
}

template <int NT> static void launch(kn_cuda_device *dev, const product_args &a, const product_choice &c)
{
    static uint64_t done;
    const uint64_t bit = 1ull << (dev->index & 63);
    const int64_t most = (int64_t)dev->sms * (c.shared <= SHARED_HALF ? 2 : 1) / c.pieces,
                  below = a.tiles < most ? a.tiles : most;
    if (!(__atomic_load_n(&done, __ATOMIC_RELAXED) & bit)) {
        cudaFuncSetAttribute(product_kernel<NT>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_MOST);
        __atomic_fetch_or(&done, bit, __ATOMIC_RELAXED);
    }
    kn_launch(product_kernel<NT>, dim3((unsigned)((below < 1 ? 1 : below) * c.pieces)), dim3(THREADS), c.shared,
              dev->stream, a);
}

es_status kn_cuda_product(kn_cuda_device *dev, const kn_product *p, es_error *err)
{
    const product_choice c = choose(p->n, p->k);
    if (c.nt == 0 || !kn_aligned(p->a) || !kn_aligned(p->d) || !kn_aligned(p->residual))
        return es_fail(err, ES_INVALID, "cuda",
                       "a product of [%lld, %d] x [%d, %d] with addresses not a multiple of 16", (long long)p->m, p->k,
                       p->k, p->n);
    if (dev->preparing || p->m == 0)
        return ES_OK;
    product_args a = {*p, (int)kn_ceil(p->m, ROWS), c.pieces, c.width, (int)kn_ceil(p->k, CHUNK), false};
    a.vectors = kn_aligned(p->w) && p->ldw % KN_VEC == 0;
#define LAUNCH(NT)  \
    if (c.nt == NT) \
        launch<NT>(dev, a, c);
    PRODUCT_SHAPES(LAUNCH)
    KN_LAUNCHED("product");
    return ES_OK;
}
