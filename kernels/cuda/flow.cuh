/* flow.cuh - rows of up to four tensors on their way to a thread. bf16 passes through slots of shared memory that are the thread's own: no barrier, and no register held
 * by what has not arrived; DEPTH - 1 rows are under way while one is used, enough to keep memory busy with two blocks on a multiprocessor. fp32, whose rows are twice as
 * long, goes straight to registers: of its slots only two fit, and a step was 9 % slower with them. (bf16 in registers: 10 % slower on mbconv224.)
 *
 *     const kn_flow_from from = {{x, dy, scale}, {KN_BF16, KN_BF16, KN_BF16}, pixels};
 *     kn_flow<2, 8, KN_BF16, 1> flow(k, p, shared, from);
 *     ...                                                              what else must be loaded first
 *     flow.rows([&](const kn_raw<8, KN_BF16> (&v)[3], int64_t i) { ... });
 *
 * calls back for each of this thread's rows, in order, with 8 elements of each tensor and the index of those of the first. N tensors are [rows][channels]; E more are
 * [rows / pixels][channels], one row for each image (the scales of squeeze-excite), which the cache of a multiprocessor keeps. The callback may write to where it was
 * read from. Dynamic shared memory: kn_flow_bytes; free for other use after a __syncthreads.
 */
#ifndef KN_CUDA_FLOW_CUH
#define KN_CUDA_FLOW_CUH

#include "kernels/cuda/columns.cuh"

enum { KN_FLOW_MOST = 4 };

struct kn_flow_from {
    const void *p[KN_FLOW_MOST];
    int type[KN_FLOW_MOST];
    int pixels;
};

/* Rows that fit the shared memory of two blocks a multiprocessor. */
static inline __host__ __device__ constexpr int kn_flow_depth(int tensors)
{
    return tensors == 1 ? 6 : tensors == 2 ? 5 : 4;
}
static inline size_t kn_flow_bytes(const kn_columns &k, int tensors, int type)
{
    return type == KN_BF16 ? (size_t)(k.groups * k.lanes * tensors * kn_flow_depth(tensors)) * 16 : 0;
}

#ifdef __CUDACC__
/* Which image a thread's rows are in, without a division a row. */
struct kn_image_walk {
    int image, at, pixels, jump, rest;

    __device__ __forceinline__ kn_image_walk(int64_t row, int step, int pixels_) : pixels(pixels_)
    {
        image = (int)(row / pixels);
        at = (int)(row - (int64_t)image * pixels);
        jump = step / pixels;
        rest = step - jump * pixels;
    }
    __device__ __forceinline__ void next()
    {
        image += jump;
        at += rest;
        if (at >= pixels) {
            at -= pixels;
            image++;
        }
    }
};

/* 8 channels of bf16 a thread. The first rows are asked for when it is made. */
template <int N, int W, int TYPE, int E = 0> struct kn_flow {
    static_assert(W == 8 && TYPE == KN_BF16, "slots are for bf16");
    enum { T = N + E, DEPTH = kn_flow_depth(T), SIZE = 2 };
    const char *from[T];
    int64_t i, step, image_step;
    kn_image_walk walk;
    int left, ahead;
    uint32_t chunk, slot_bytes, first, end, fill, use;

    __device__ __forceinline__ kn_flow(const kn_columns &k, const kn_place &p, void *shared, const kn_flow_from &f)
        : walk(p.first + p.lane, k.lanes, E ? f.pixels : 1)
    {
        chunk = (uint32_t)(k.groups * k.lanes * 16);
        slot_bytes = T * chunk;
        first = fill = use = (uint32_t)__cvta_generic_to_shared(shared) + threadIdx.x * 16;
        end = first + DEPTH * slot_bytes;
        step = (int64_t)k.lanes * k.channels;
        image_step = (int64_t)k.channels * SIZE;
        i = (p.first + p.lane) * k.channels + p.channel;
#pragma unroll
        for (int n = 0; n < T; n++)
            from[n] = (const char *)f.p[n] + (n < N ? i : p.channel) * SIZE;
        left = p.first + p.lane < p.end ? (int)((p.end - p.first - p.lane + k.lanes - 1) / k.lanes) : 0;
        ahead = left;
#pragma unroll
        for (int s = 0; s < DEPTH - 1; s++)
            issue();
    }
    __device__ __forceinline__ void issue()
    {
        if (ahead-- > 0) {
#pragma unroll
            for (int n = 0; n < N; n++) {
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(fill + n * chunk), "l"(from[n])
                             : "memory");
                from[n] += step * SIZE;
            }
#pragma unroll
            for (int n = N; n < T; n++)
                asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(fill + n * chunk),
                             "l"(from[n] + walk.image * image_step)
                             : "memory");
            if (E)
                walk.next();
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        fill = fill + slot_bytes == end ? first : fill + slot_bytes;
    }
    template <typename F> __device__ __forceinline__ void rows(F each)
    {
        for (; left > 0; left--, i += step) {
            issue();
            asm volatile("cp.async.wait_group %0;" ::"n"(DEPTH - 1) : "memory");
            kn_raw<8, TYPE> v[T];
#pragma unroll
            for (int n = 0; n < T; n++)
                v[n].u = kn_shared_load(use + n * chunk);
            each(v, i);
            use = use + slot_bytes == end ? first : use + slot_bytes;
        }
    }
};

/* 8 channels of fp32 a thread: two rows of one tensor, or one of two, under way. */
template <int N> struct kn_flow<N, 8, KN_F32, 0> {
    enum { BATCH = N == 1 ? 2 : 1 };
    const kn_columns &k;
    const kn_place &p;
    const kn_flow_from &f;
    kn_raw<8, KN_F32> v[BATCH][N];

    __device__ __forceinline__ kn_flow(const kn_columns &k_, const kn_place &p_, void *, const kn_flow_from &f_)
        : k(k_), p(p_), f(f_)
    {
        load(p.first + p.lane);
    }
    __device__ __forceinline__ void load(int64_t r)
    {
#pragma unroll
        for (int b = 0; b < BATCH; b++)
            if (r + b * k.lanes < p.end)
#pragma unroll
                for (int n = 0; n < N; n++)
                    v[b][n].load(f.p[n], KN_F32, (r + b * k.lanes) * k.channels + p.channel);
    }
    template <typename F> __device__ __forceinline__ void rows(F each)
    {
        for (int64_t r = p.first + p.lane; r < p.end; r += BATCH * k.lanes, load(r))
#pragma unroll
            for (int b = 0; b < BATCH; b++)
                if (r + b * k.lanes < p.end)
                    each(v[b], (r + b * k.lanes) * k.channels + p.channel);
    }
};

/* One channel a thread, types known only at run time: plain loads, one row at a time. */
template <int N, int E> struct kn_flow<N, 1, KN_ANY_TYPE, E> {
    enum { T = N + E };
    const kn_columns &k;
    const kn_place &p;
    const kn_flow_from &f;

    __device__ __forceinline__ kn_flow(const kn_columns &k_, const kn_place &p_, void *, const kn_flow_from &f_)
        : k(k_), p(p_), f(f_)
    {
    }
    template <typename F> __device__ __forceinline__ void rows(F each)
    {
        kn_image_walk walk(p.first + p.lane, k.lanes, E ? f.pixels : 1);
        for (int64_t r = p.first + p.lane; r < p.end; r += k.lanes, walk.next()) {
            const int64_t i = r * k.channels + p.channel;
            kn_raw<1, KN_ANY_TYPE> v[T];
#pragma unroll
            for (int n = 0; n < T; n++)
                v[n].load(f.p[n], f.type[n], n < N ? i : (int64_t)walk.image * k.channels + p.channel);
            each(v, i);
        }
    }
};
#endif

#endif
