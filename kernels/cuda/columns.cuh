/* columns.cuh - the shape of every per-channel pass over [rows, channels]: a thread keeps one group of W channels and walks rows.
 *
 * A block has `groups` threads side by side (one per channel group, so that a row is read coalesced) and `lanes` rows of them; blocks split the rows, and the
 * channels too when there are many. Per-channel numbers are loaded once into registers. Partial sums are reduced over a block's lanes in shared memory in lane order,
 * written per block, and reduced over blocks by a second kernel in block order: the same bits every time.
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

/* `most` bounds the row blocks: partial sums need row_blocks * channels numbers each. */
static inline kn_columns kn_columns_make(int64_t rows, int channels, int width, int sms, int waves)
{
    kn_columns k;
    int all = channels / width;
    k.rows = rows;
    k.channels = channels;
    k.col_blocks = (int)kn_ceil(all, 256);
    k.groups = (int)kn_ceil(all, k.col_blocks);
    k.lanes = 256 / k.groups > 0 ? 256 / k.groups : 1;
    int64_t want = (int64_t)sms * waves / k.col_blocks;
    /* At least eight rows a thread: below that the reduction costs more than the reading. */
    int64_t most = kn_ceil(rows, (int64_t)k.lanes * 8);
    k.row_blocks = (int)(want < most ? want : most);
    if (k.row_blocks < 1)
        k.row_blocks = 1;
    k.rows_each = kn_ceil(rows, k.row_blocks);
    k.row_blocks = (int)kn_ceil(rows, k.rows_each);
    if (k.row_blocks < 1)
        k.row_blocks = 1;
    return k;
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

/* Adds v[N][W] over the lanes of the block in lane order and writes partial[(block * N + n) * channels + channel]. Shared memory: threads * N * W floats. */
template <int N, int W>
static __device__ __forceinline__ void kn_block_partial(const kn_columns &k, const kn_place &p, float (*v)[W],
                                                        float *partial, float *shared)
{
    const int stride = k.groups * k.lanes;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int w = 0; w < W; w++)
            shared[(n * W + w) * stride + threadIdx.x] = v[n][w];
    __syncthreads();
    for (int i = threadIdx.x; i < k.groups * N * W; i += stride) {
        int group = i % k.groups, nw = i / k.groups;
        float sum = 0;
        for (int lane = 0; lane < k.lanes; lane++)
            sum += shared[nw * stride + lane * k.groups + group];
        int channel = (blockIdx.y * k.groups + group) * W + nw % W;
        if (channel < k.channels)
            partial[((int64_t)blockIdx.x * N + nw / W) * k.channels + channel] = sum;
    }
}

/* Sum over blocks of partial number n of a channel, in double, by 32 threads a channel-column: thread y takes blocks y, y + 32 ...; then in y order. */
static __device__ __forceinline__ double kn_partial_sum(const float *partial, int blocks, int n_of, int n, int channels,
                                                        int channel, double (*shared)[33])
{
    double sum = 0;
    if (channel < channels)
        for (int b = threadIdx.y; b < blocks; b += 32)
            sum += partial[((int64_t)b * n_of + n) * channels + channel];
    __syncthreads();
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (int y = 0; y < 32; y++)
        sum += shared[y][threadIdx.x];
    return sum;
}
#endif

#endif
