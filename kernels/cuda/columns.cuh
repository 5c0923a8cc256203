/* columns.cuh - the shape of every per-channel pass over [rows, channels]: a thread keeps one group of W channels and walks rows.
 *
 * A block stands on a column of groups and has as many lanes of rows as fit in 384 threads (85 registers, two blocks a multiprocessor); row blocks share the
 * rows of a column. A column is at most 8 groups wide (128 bytes of bf16 a row) where sums are made of little, so that there is little to add at the end, 2 where one block can take
 * all rows (then there is nobody to wait for), and up to 48 where memory counts: pieces of 96 or 128 bytes with other blocks' between them took 2.7 TB/s, and a fifth more bytes
 * than asked for where they did not end with a sector pair. Per-channel numbers are loaded once into registers.
 *
 * Sums: a block adds its lanes in shared memory, in an order that the shape sets, and writes its partial sums. Of 16 row blocks side by side (a span) the last to arrive adds theirs,
 * the last span of a column to arrive those of all spans, in block order, in double, and goes on alone to finish the column: a thread that adds 88 or 264 partial sums
 * waits for memory three or nine times. Which block is last varies, what it computes does not: the same bits every time, and no second launch.
 */
#ifndef KN_CUDA_COLUMNS_CUH
#define KN_CUDA_COLUMNS_CUH

#include "kernels/cuda/cuda.cuh"

struct kn_columns {
    int64_t rows;
    int channels;
    int groups;        /* threads along channels in a block */
    int lanes;         /* threads along rows in a block */
    int col_blocks;    /* gridDim.y */
    int row_blocks;    /* gridDim.x */
    int64_t rows_each; /* rows of a block */
    int span;          /* row blocks whose partial sums are added first, before those of all spans; 1: all at once */
};

enum {
    KN_COLUMN_THREADS = 384,
    KN_COLUMN_GROUPS = 8,
    KN_COLUMN_WIDE = 48,
    KN_COLUMN_WAVES = 2,
    KN_COLUMN_MOST = 65535,
    KN_COLUMN_FEW = 768,       /* rows that one block takes */
    KN_COLUMN_SPAN = 16,       /* partial sums that a thread asks for at once */
    KN_COLUMN_LARGE = 16 << 20 /* elements of a tensor from which wide columns pay even with sums */
};

/* At most KN_COLUMN_MOST columns and spans may have sums (kn_cuda_device.arrived). Spans are where a column has more than 32 row blocks, so where columns are few: sms / 8 spans at most. */
static inline kn_columns kn_columns_make(int64_t rows, int channels, int width, int sms, bool wide)
{
    kn_columns k;
    int all = channels / width, most_groups = wide && width > 1 ? KN_COLUMN_WIDE
                                              : width == 1      ? 4 * KN_COLUMN_GROUPS
                                                                : KN_COLUMN_GROUPS;
    if (!wide && rows <= KN_COLUMN_FEW)
        most_groups /= 4;
    k.rows = rows;
    k.channels = channels;
    k.col_blocks = (int)kn_ceil(all, most_groups);
    k.groups = (int)kn_ceil(all, k.col_blocks);
    k.lanes = KN_COLUMN_THREADS / k.groups;
    int64_t want = kn_ceil((int64_t)sms * KN_COLUMN_WAVES, k.col_blocks), most = kn_ceil(rows, (int64_t)k.lanes * 4);
    k.row_blocks = (int)(want < most ? want : most);
    if (k.row_blocks < 1)
        k.row_blocks = 1;
    k.rows_each = kn_ceil(rows, k.row_blocks);
    k.row_blocks = k.rows_each ? (int)kn_ceil(rows, k.rows_each) : 1;
    k.span = k.row_blocks > 2 * KN_COLUMN_SPAN ? KN_COLUMN_SPAN : 1;
    return k;
}

/* Bytes of partial sums, n of them a channel; the width is not known when scratch is asked for, so the larger of both is given. */
static inline size_t kn_columns_scratch(int64_t rows, int channels, int n, int sms)
{
    size_t most = 0;
    for (int width = 1; width <= KN_VEC; width += KN_VEC - 1)
        for (int wide = 0; wide < 2; wide++) {
            kn_columns k = kn_columns_make(rows, channels, channels % width ? 1 : width, sms, wide);
            size_t bytes = (size_t)k.row_blocks * (size_t)k.col_blocks *
                           (size_t)(k.groups * (channels % width ? 1 : width)) * (size_t)n * sizeof(float);
            most = bytes > most ? bytes : most;
        }
    return most;
}

#ifdef __CUDACC__
/* Where this thread stands. `active` false: beyond the last channel group. */
struct kn_place {
    int channel, lane;
    int64_t first, end;
    bool active;
};
template <int W> static __device__ __forceinline__ kn_place kn_where(const kn_columns &k)
{
    kn_place p;
    int group = (int)threadIdx.x % k.groups;
    p.lane = (int)threadIdx.x / k.groups;
    p.channel = (blockIdx.y * k.groups + group) * W;
    p.first = blockIdx.x * k.rows_each;
    p.end = p.first + k.rows_each < k.rows ? p.first + k.rows_each : k.rows;
    p.active = p.channel < k.channels;
    return p;
}

/* Is this the last of n blocks that come here? To it, what the others wrote is visible. */
static __device__ __forceinline__ bool kn_column_last(unsigned *arrived, int n)
{
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(arrived, 1u) == (unsigned)n - 1;
        if (last)
            *arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

/* Adds v[N][W] over all rows. True in the one block that arrives last at its column, with sum number n of the block's channel i in
 * total[n * groups * W + i]; channel i is blockIdx.y * groups * W + i. Shared memory: kn_columns_shared; `total` may be its beginning. */
template <int N, int W>
static __device__ __forceinline__ bool kn_column_sums(const kn_columns &k, float (*v)[W], float *partial,
                                                      unsigned *arrived, float *shared, double *total)
{
    const int threads = k.groups * k.lanes, items = k.groups * N * W, stride = threads + k.groups; /* other banks */
    const int parts = threads / items > 0 ? threads / items : 1;
    float *mine = partial + ((int64_t)blockIdx.y * k.row_blocks + blockIdx.x) * items, *some = shared + N * W * stride;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int w = 0; w < W; w++)
            shared[(n * W + w) * stride + threadIdx.x] = v[n][w];
    __syncthreads();
    /* Thread (part, item) adds every parts-th lane; then the parts in order. */
    for (int i = threadIdx.x; i < items * parts; i += threads) {
        const int item = i % items, group = item % k.groups, nw = item / k.groups;
        float sum = 0;
#pragma unroll 8
        for (int lane = i / items; lane < k.lanes; lane += parts)
            sum += shared[nw * stride + lane * k.groups + group];
        some[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < items; i += threads) {
        const int group = i % k.groups, nw = i / k.groups, at = (nw / W * k.groups + group) * W + nw % W;
        float sum = 0;
        for (int p = 0; p < parts; p++)
            sum += some[p * items + i];
        if (k.row_blocks == 1)
            total[at] = sum;
        else
            mine[at] = sum;
    }
    if (k.row_blocks == 1) { /* nobody to wait for */
        __syncthreads();
        return true;
    }
    const int spans = (k.row_blocks + k.span - 1) / k.span;
    float *column = partial + (int64_t)blockIdx.y * k.row_blocks * items;
    if (k.span > 1) {
        const int mate = (int)blockIdx.x / k.span, from = mate * k.span, n = min(k.span, k.row_blocks - from);
        if (!kn_column_last(&arrived[gridDim.y + blockIdx.y * spans + mate], n))
            return false;
        for (int i = threadIdx.x; i < items; i += threads) {
            float *at = column + (int64_t)from * items + i;
            double sum = 0;
#pragma unroll 16
            for (int b = 0; b < n; b++)
                sum += __ldcg(at + (int64_t)b * items);
            *at = (float)sum;
        }
    }
    if (!kn_column_last(&arrived[blockIdx.y], spans))
        return false;
    /* Thread (segment, item) adds every segments-th span; then the segments in order. */
    double *part = (double *)shared;
    const int segments = threads / items > 0 ? threads / items : 1;
    for (int i = threadIdx.x; i < items * segments; i += threads) {
        double sum = 0;
#pragma unroll 32
        for (int b = i / items; b < spans; b += segments)
            sum += __ldcg(column + (int64_t)b * k.span * items + i % items);
        part[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < items; i += threads) {
        double sum = 0;
        for (int s = 0; s < segments; s++)
            sum += part[s * items + i];
        total[i] = sum;
    }
    __syncthreads();
    return true;
}

/* Dynamic shared memory of a kernel that makes N sums: the lanes' numbers, later the segments' (in double). */
static inline size_t kn_columns_shared(const kn_columns &k, int n, int width)
{
    size_t lanes = ((size_t)(k.groups * (k.lanes + 1)) * (size_t)(n * width) + (size_t)(k.groups * k.lanes) +
                    (size_t)(k.groups * n * width)) *
                   sizeof(float);
    size_t parts = (size_t)(k.groups * k.lanes > k.groups * n * width ? k.groups * k.lanes : k.groups * n * width) *
                   sizeof(double);
    return lanes > parts ? lanes : parts;
}
#endif

#endif
