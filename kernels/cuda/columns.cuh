/* columns.cuh - the shape of every per-channel pass over [rows, channels]: a thread keeps one group of W channels and walks rows.
 *
 * A block stands on a column of groups and has as many lanes of rows as fit in 384 threads (85 registers, two blocks a multiprocessor); row blocks share the
 * rows of a column. A column is at most 8 groups wide (128 bytes of bf16 a row) where sums are made of little, so that the last block has little to add, and up to 48 where
 * memory counts: pieces of 96 or 128 bytes with other blocks' between them took 2.7 TB/s, and a fifth more bytes than asked for where they did not end with a sector pair. Per-channel numbers are loaded once into registers. Sums: a block adds its lanes in shared memory in lane order and writes its
 * partial sums; the last block of a column to arrive adds the partial sums of all row blocks, in block order, in double, and goes on alone to finish the column.
 * Which block that is varies, what it computes does not: the same bits every time, and no second launch.
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
};

enum {
    KN_COLUMN_THREADS = 384,
    KN_COLUMN_GROUPS = 8,
    KN_COLUMN_WIDE = 48,
    KN_COLUMN_WAVES = 2,
    KN_COLUMN_MOST = 65535,
    KN_COLUMN_LARGE = 16 << 20
}; /* elements of a tensor from which wide columns pay even with sums */

/* At most KN_COLUMN_MOST columns may have sums (kn_cuda_device.arrived). */
static inline kn_columns kn_columns_make(int64_t rows, int channels, int width, int sms, bool wide)
{
    kn_columns k;
    int all = channels / width, most_groups = wide && width > 1 ? KN_COLUMN_WIDE
                                              : width == 1      ? 4 * KN_COLUMN_GROUPS
                                                                : KN_COLUMN_GROUPS;
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

/* Adds v[N][W] over all rows. True in the one block that arrives last at its column, with sum number n of the block's channel i in
 * total[n * groups * W + i]; channel i is blockIdx.y * groups * W + i. Shared memory: kn_columns_shared; `total` may be its beginning. */
template <int N, int W>
static __device__ __forceinline__ bool kn_column_sums(const kn_columns &k, float (*v)[W], float *partial,
                                                      unsigned *arrived, float *shared, double *total)
{
    __shared__ bool last;
    const int threads = k.groups * k.lanes, items = k.groups * N * W, stride = threads + k.groups; /* other banks */
    float *mine = partial + ((int64_t)blockIdx.y * k.row_blocks + blockIdx.x) * items;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int w = 0; w < W; w++)
            shared[(n * W + w) * stride + threadIdx.x] = v[n][w];
    __syncthreads();
    for (int i = threadIdx.x; i < items; i += threads) {
        int group = i % k.groups, nw = i / k.groups;
        float sum = 0;
#pragma unroll 8
        for (int lane = 0; lane < k.lanes; lane++)
            sum += shared[nw * stride + lane * k.groups + group];
        mine[(nw / W * k.groups + group) * W + nw % W] = sum;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        last = atomicAdd(&arrived[blockIdx.y], 1u) == (unsigned)k.row_blocks - 1;
    __syncthreads();
    if (!last)
        return false;
    __threadfence();
    /* Thread (segment, item) adds every segments-th row block; then the segments in order. */
    double *part = (double *)shared;
    const float *column = partial + (int64_t)blockIdx.y * k.row_blocks * items;
    const int segments = threads / items > 0 ? threads / items : 1;
    for (int i = threadIdx.x; i < items * segments; i += threads) {
        double sum = 0;
#pragma unroll 32
        for (int b = i / items; b < k.row_blocks; b += segments)
            sum += __ldcg(column + (int64_t)b * items + i % items);
        part[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < items; i += threads) {
        double sum = 0;
        for (int s = 0; s < segments; s++)
            sum += part[s * items + i];
        total[i] = sum;
    }
    if (threadIdx.x == 0)
        arrived[blockIdx.y] = 0;
    __syncthreads();
    return true;
}

/* Dynamic shared memory of a kernel that makes N sums: the lanes' numbers, later the segments' (in double). */
static inline size_t kn_columns_shared(const kn_columns &k, int n, int width)
{
    size_t lanes = (size_t)(k.groups * (k.lanes + 1)) * (size_t)(n * width) * sizeof(float);
    size_t parts = (size_t)(k.groups * k.lanes > k.groups * n * width ? k.groups * k.lanes : k.groups * n * width) *
                   sizeof(double);
    return lanes > parts ? lanes : parts;
}
#endif

#endif
