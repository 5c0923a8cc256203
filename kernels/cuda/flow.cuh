/* flow.cuh - rows of one or two tensors on their way to a thread through slots of shared memory that are its own: no barrier, and no register held by what has not
 * arrived. DEPTH - 1 rows are under way while one is used, enough to keep memory busy with two blocks on a multiprocessor.
 *
 *     kn_flow<2, 8, KN_BF16> both(k, p, shared, x, KN_BF16, dy, KN_BF16);
 *     ...                                                              what else must be loaded first
 *     both.rows([&](const kn_raw<8, KN_BF16> &a, const kn_raw<8, KN_BF16> &b, int64_t i) { ... });
 *
 * calls back for each of this thread's rows, in order, with 8 elements of each tensor and their index. The callback may write to where it was read from. Dynamic
 * shared memory: kn_flow_bytes; free for other use after a __syncthreads.
 */
#ifndef KN_CUDA_FLOW_CUH
#define KN_CUDA_FLOW_CUH

#include "kernels/cuda/columns.cuh"

/* Rows that fit the shared memory of two blocks a multiprocessor. */
static inline __host__ __device__ constexpr int kn_flow_depth(int tensors, int type)
{
    return (tensors == 1 ? 6 : 5) / (type == KN_BF16 ? 1 : 2);
}
static inline size_t kn_flow_bytes(const kn_columns &k, int tensors, int type)
{
    return (size_t)(k.groups * k.lanes * tensors * kn_flow_depth(tensors, type)) * (type == KN_BF16 ? 16 : 32);
}

#ifdef __CUDACC__
/* N tensors of 8 channels a thread, all of TYPE. The first rows are asked for when it is made. */
template <int N, int W, int TYPE> struct kn_flow {
    enum { DEPTH = kn_flow_depth(N, TYPE), SIZE = TYPE == KN_BF16 ? 2 : 4, CHUNKS = SIZE / 2 };
    const char *from[N];
    int64_t i, step;
    int left, ahead;
    uint32_t chunk, slot_bytes, first, end, fill, use;

    __device__ __forceinline__ kn_flow(const kn_columns &k, const kn_place &p, void *shared, const void *x, int,
                                       const void *y, int)
    {
        chunk = (uint32_t)(k.groups * k.lanes * 16);
        slot_bytes = N * CHUNKS * chunk;
        first = fill = use = (uint32_t)__cvta_generic_to_shared(shared) + threadIdx.x * 16;
        end = first + DEPTH * slot_bytes;
        step = (int64_t)k.lanes * k.channels;
        i = (p.first + p.lane) * k.channels + p.channel;
        from[0] = (const char *)x + i * SIZE;
        if (N == 2)
            from[N - 1] = (const char *)y + i * SIZE;
        left = p.first + p.lane < p.end ? (int)((p.end - p.first - p.lane + k.lanes - 1) / k.lanes) : 0;
        ahead = left;
#pragma unroll
        for (int s = 0; s < DEPTH - 1; s++)
            issue();
    }
    __device__ __forceinline__ void issue()
    {
        if (ahead-- > 0)
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int q = 0; q < CHUNKS; q++)
                    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(fill + (n * CHUNKS + q) * chunk),
                                 "l"(from[n] + q * 16)
                                 : "memory");
                from[n] += step * SIZE;
            }
        asm volatile("cp.async.commit_group;" ::: "memory");
        fill = fill + slot_bytes == end ? first : fill + slot_bytes;
    }
    template <typename F> __device__ __forceinline__ void rows(F each)
    {
        for (; left > 0; left--, i += step) {
            issue();
            asm volatile("cp.async.wait_group %0;" ::"n"(DEPTH - 1) : "memory");
            kn_raw<8, TYPE> v[N];
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int q = 0; q < CHUNKS; q++) {
                    uint4 u;
                    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(u.x), "=r"(u.y), "=r"(u.z), "=r"(u.w)
                                 : "r"(use + (n * CHUNKS + q) * chunk));
                    v[n].put(q, u);
                }
            each(v[0], v[N - 1], i);
            use = use + slot_bytes == end ? first : use + slot_bytes;
        }
    }
};

/* One channel a thread, types known only at run time: plain loads, one row at a time. */
template <int N> struct kn_flow<N, 1, KN_ANY_TYPE> {
    const kn_columns &k;
    const kn_place &p;
    const void *x, *y;
    int x_type, y_type;

    __device__ __forceinline__ kn_flow(const kn_columns &k_, const kn_place &p_, void *, const void *x_, int xt,
                                       const void *y_, int yt)
        : k(k_), p(p_), x(x_), y(y_), x_type(xt), y_type(yt)
    {
    }
    template <typename F> __device__ __forceinline__ void rows(F each)
    {
        for (int64_t r = p.first + p.lane; r < p.end; r += k.lanes) {
            const int64_t i = r * k.channels + p.channel;
            kn_raw<1, KN_ANY_TYPE> v[N];
            v[0].load(x, x_type, i);
            if (N == 2)
                v[N - 1].load(y, y_type, i);
            each(v[0], v[N - 1], i);
        }
    }
};
#endif

#endif
