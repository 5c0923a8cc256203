/* Batch norm, forward with its statistics and backward, in one launch that reads its tensors once: where memory of a cluster of blocks holds a column of channels.
 *
 * A column is 32 channels; a cluster of up to 16 blocks shares its rows. A thread asks for all of its rows at once (cp.async into slots that are its own), adds each to
 * its sums as it arrives, blocks add lanes by shuffles and warps in order, every block reads the sums of its cluster through distributed shared memory, in rank
 * order, in double, and goes on to its rows, which are still there. Against two launches: three passes over memory instead of five (forward two instead of
 * three), and one latency less, which is most of the time of a tensor of a few MB. No counters, nobody spins: a cluster is resident as a whole or not at all.
 */
#include <cooperative_groups.h>

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/batch_norm.cuh"

enum {
    WHOLE_THREADS = 256,
    WHOLE_GROUPS = 4, /* of 8 channels: a column */
    WHOLE_LANES = WHOLE_THREADS / WHOLE_GROUPS,
    WHOLE_CHANNELS = WHOLE_GROUPS * KN_VEC,
    WHOLE_WARPS = WHOLE_THREADS / 32,
    WHOLE_STAGES = 8,   /* groups of rows that are waited for one by one */
    WHOLE_SIZE = 16,    /* blocks of a cluster at most, where a device has room for so large a one */
    WHOLE_SURE = 8,     /* what every device with clusters takes */
    WHOLE_RESIDENT = 3, /* blocks a multiprocessor */
    WHOLE_BYTES = 72 << 10
};

struct whole_grid {
    int rows, channels, size, columns, rows_each, depth; /* depth: rows of a thread */
};

template <int N> static __device__ __forceinline__ void whole_wait_for(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
/* All but the last `stages` groups have arrived; a constant after unrolling. */
static __device__ __forceinline__ void whole_wait(int stages)
{
    switch (stages) {
    case 0: return whole_wait_for<0>();
    case 1: return whole_wait_for<1>();
    case 2: return whole_wait_for<2>();
    case 3: return whole_wait_for<3>();
    case 4: return whole_wait_for<4>();
    case 5: return whole_wait_for<5>();
    case 6: return whole_wait_for<6>();
    default: return whole_wait_for<7>();
    }
}

/* Which block this is: of its cluster, and of the columns; each: rows of a stage. */
struct whole_place {
    int rank, column, each;

    __device__ __forceinline__ whole_place(const whole_grid &g)
        : rank((int)blockIdx.x % g.size), column((int)blockIdx.x / g.size),
          each((g.depth + WHOLE_STAGES - 1) / WHOLE_STAGES)
    {
    }
};

/* This thread's rows of N tensors, in slots of shared memory. */
template <int N> struct whole_rows {
    int channel, group, first, count; /* count: rows */
    int64_t at, step;                 /* element of the first row; between rows */
    uint32_t slot;
    bool active;

    __device__ __forceinline__ whole_rows(const whole_grid &g, const whole_place &p, void *shared)
    {
        const int lane = (int)threadIdx.x / WHOLE_GROUPS, start = p.rank * g.rows_each,
                  end = min(start + g.rows_each, g.rows);
        group = (int)threadIdx.x % WHOLE_GROUPS;
        channel = (p.column * WHOLE_GROUPS + group) * KN_VEC;
        active = channel < g.channels;
        first = start + lane;
        count = active && first < end ? (end - first + WHOLE_LANES - 1) / WHOLE_LANES : 0;
        at = (int64_t)first * g.channels + channel;
        step = (int64_t)WHOLE_LANES * g.channels;
        slot = (uint32_t)__cvta_generic_to_shared(shared) + threadIdx.x * 16;
    }
    __device__ __forceinline__ uint32_t where(int row, int n) const
    {
        return slot + (uint32_t)(row * N + n) * (WHOLE_THREADS * 16);
    }
    __device__ __forceinline__ void issue(const kn_flow_from &f, int each)
    {
        int row = 0;
#pragma unroll
        for (int s = 0; s < WHOLE_STAGES; s++) {
            for (int b = 0; b < each; b++, row++)
                if (row < count)
#pragma unroll
                    for (int n = 0; n < N; n++)
                        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(where(row, n)),
                                     "l"((const __nv_bfloat16 *)f.p[n] + at + row * step)
                                     : "memory");
            asm volatile("cp.async.commit_group;" ::: "memory");
        }
    }
    /* Calls back for each row as it arrives. */
    template <typename F> __device__ __forceinline__ void arriving(int each, F call)
    {
        int row = 0;
#pragma unroll
        for (int s = 0; s < WHOLE_STAGES; s++) {
            whole_wait(WHOLE_STAGES - 1 - s);
            for (int b = 0; b < each; b++, row++)
                if (row < count)
                    call(row);
        }
    }
    __device__ __forceinline__ kn_raw<8, KN_BF16> get(int row, int n) const
    {
        kn_raw<8, KN_BF16> v;
        v.u = kn_shared_load(where(row, n));
        return v;
    }
};

/* Blocks of a cluster wait for each other; where another's `p` is. */
#if KN_HOPPER
static __device__ __forceinline__ void whole_meet(void) { cooperative_groups::this_cluster().sync(); }
static __device__ __forceinline__ const float *whole_theirs(float *p, int rank)
{
    return cooperative_groups::this_cluster().map_shared_rank(p, rank);
}
#else
static __device__ __forceinline__ void whole_meet(void) {}
static __device__ __forceinline__ const float *whole_theirs(float *p, int) { return p; }
#endif

/* Adds v over a cluster: in every block, thread i < WHOLE_CHANNELS gets the totals of the column's channel i. `sums` must stay until the cluster has met again. */
static __device__ __forceinline__ void whole_totals(const whole_grid &g, float (&v)[2][KN_VEC],
                                                    float (&part)[WHOLE_WARPS][2 * WHOLE_CHANNELS],
                                                    float (&sums)[2 * WHOLE_CHANNELS], double (&total)[2])
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int w = 0; w < KN_VEC; w++) {
#pragma unroll
            for (int o = WHOLE_GROUPS; o < 32; o *= 2)
                v[n][w] += __shfl_xor_sync(0xffffffffu, v[n][w], o);
            if (lane < WHOLE_GROUPS)
                part[warp][n * WHOLE_CHANNELS + lane * KN_VEC + w] = v[n][w];
        }
    __syncthreads();
    if (threadIdx.x < 2 * WHOLE_CHANNELS) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < WHOLE_WARPS; i++)
            sum += part[i][threadIdx.x];
        sums[threadIdx.x] = sum;
    }
    whole_meet();
    total[0] = total[1] = 0;
    if (threadIdx.x < WHOLE_CHANNELS)
#pragma unroll 16
        for (int r = 0; r < g.size; r++) {
            const float *theirs = whole_theirs(sums, r);
            total[0] += (double)theirs[threadIdx.x];
            total[1] += (double)theirs[WHOLE_CHANNELS + threadIdx.x];
        }
}

/* SHORTCUT (0 or 1): its rows are added to the result. */
template <int ACT, int SHORTCUT>
static __global__ void __launch_bounds__(WHOLE_THREADS, WHOLE_RESIDENT)
    whole_kernel(const __grid_constant__ whole_grid g, const __grid_constant__ bn_args a,
                 const __grid_constant__ bn_sums s)
{
    extern __shared__ __align__(16) float shared[];
    __shared__ float part[WHOLE_WARPS][2 * WHOLE_CHANNELS], sums[2 * WHOLE_CHANNELS], coef[2][WHOLE_CHANNELS];
    if (!KN_HOPPER)
        return;
    kn_begin();
    const whole_place p(g);
    whole_rows<1 + SHORTCUT> rows(g, p, shared);
    kn_raw<8, KN_BF16> first = {};
    float v[2][KN_VEC] = {};
    rows.issue(a.from, p.each);
    if (rows.active)
        first.load(a.from.p[0], KN_BF16, rows.channel);
    rows.arriving(p.each, [&](int row) {
        const kn_raw<8, KN_BF16> x = rows.get(row, 0);
#pragma unroll
        for (int w = 0; w < KN_VEC; w++) {
            const float d = x.get(w) - first.get(w);
            v[0][w] += d;
            v[1][w] = fmaf(d, d, v[1][w]);
        }
    });
    double total[2];
    const int i = (int)threadIdx.x, channel = p.column * WHOLE_CHANNELS + i;
    const bool mine = i < WHOLE_CHANNELS && channel < g.channels;
    const float shift = mine ? kn_load(a.from.p[0], KN_BF16, channel) : 0.f; /* before anybody writes over it */
    whole_totals(g, v, part, sums, total);
    if (mine) {
        const double m = total[0] / g.rows, var = total[1] / g.rows - m * m;
        const float mean = (float)(m + shift), variance = (float)(var > 0 ? var : 0);
        coef[0][i] = (a.norm.gamma ? a.norm.gamma[channel] : 1.f) * rsqrtf(variance + a.norm.eps);
        coef[1][i] = (a.norm.beta ? a.norm.beta[channel] : 0.f) - mean * coef[0][i];
        if (p.rank == 0)
            s.a[channel] = mean, s.b[channel] = variance;
    }
    __syncthreads();
    float scale[KN_VEC], offset[KN_VEC];
#pragma unroll
    for (int w = 0; w < KN_VEC; w++) {
        scale[w] = coef[0][rows.group * KN_VEC + w];
        offset[w] = coef[1][rows.group * KN_VEC + w];
    }
    for (int row = 0; row < rows.count; row++) {
        const kn_raw<8, KN_BF16> x = rows.get(row, 0);
        float y[KN_VEC];
#pragma unroll
        for (int w = 0; w < KN_VEC; w++)
            y[w] = kn_act_of<ACT, true>(a.act, 0, fmaf(x.get(w), scale[w], offset[w]));
        if (SHORTCUT) {
            const kn_raw<8, KN_BF16> r = rows.get(row, 1);
#pragma unroll
            for (int w = 0; w < KN_VEC; w++)
                y[w] += r.get(w);
        }
        kn_store8(y, a.out, KN_BF16, rows.at + row * rows.step);
    }
    whole_meet(); /* nobody leaves while its sums are read */
}

/* dy from its parts, for the rows in slot 1 that hold d: what each image has is asked for one row ahead. */
struct whole_excite {
    kn_image_walk walk;
    kn_raw<8, KN_BF16> s, q;

    __device__ __forceinline__ whole_excite(int row, int pixels) : walk(row, WHOLE_LANES, pixels) {}
    __device__ __forceinline__ void load(const bn_args &a, int channels, int channel)
    {
        const int64_t at = (int64_t)walk.image * channels + channel;
        s.load(a.from.p[2], KN_BF16, at);
        q.load(a.from.p[3], KN_BF16, at);
        walk.next();
    }
};

static __device__ __forceinline__ void whole_unpack(const kn_raw<8, KN_BF16> &from, float (&v)[KN_VEC])
{
#pragma unroll
    for (int w = 0; w < KN_VEC; w++)
        v[w] = from.get(w);
}

/* dy of a row, rounded as where it is stored, and in the slot of its d, where the second pass finds the same. */
static __device__ __forceinline__ void whole_dy(uint32_t slot, const kn_raw<8, KN_BF16> &d, const whole_excite &image,
                                                float alpha, float (&dy)[KN_VEC])
{
    kn_raw<8, KN_BF16> r;
    __nv_bfloat162 *h = (__nv_bfloat162 *)&r.u;
#pragma unroll
    for (int w = 0; w < KN_VEC; w++)
        dy[w] = fmaf(d.get(w), image.s.get(w), alpha * image.q.get(w));
#pragma unroll
    for (int w = 0; w < KN_VEC / 2; w++)
        h[w] = __floats2bfloat162_rn(dy[2 * w], dy[2 * w + 1]);
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(slot), "r"(r.u.x), "r"(r.u.y), "r"(r.u.z), "r"(r.u.w)
                 : "memory");
    whole_unpack(r, dy);
}

template <int ACT, bool EXCITED>
static __global__ void __launch_bounds__(WHOLE_THREADS, WHOLE_RESIDENT)
    whole_grad_kernel(const __grid_constant__ whole_grid g, const __grid_constant__ bn_args a,
                      const __grid_constant__ bn_sums s)
{
    extern __shared__ __align__(16) float shared[];
    __shared__ float part[WHOLE_WARPS][2 * WHOLE_CHANNELS], sums[2 * WHOLE_CHANNELS], coef[2][WHOLE_CHANNELS];
    if (!KN_HOPPER)
        return;
    kn_begin();
    const whole_place p(g);
    whole_rows<2> rows(g, p, shared);
    whole_excite image(rows.first, EXCITED ? a.from.pixels : 1);
    float v[2][KN_VEC] = {}, scale[KN_VEC] = {}, mean[KN_VEC] = {}, beta[KN_VEC] = {};
    rows.issue(a.from, p.each);
    if (rows.active)
        kn_norm_centred<KN_VEC>(a.norm, rows.channel, scale, mean, beta);
    if (EXCITED && rows.count > 0)
        image.load(a, g.channels, rows.channel);
    rows.arriving(p.each, [&](int row) {
        const kn_raw<8, KN_BF16> x = rows.get(row, 0), d = rows.get(row, 1);
        const whole_excite now = image;
        float dy[KN_VEC];
        if (EXCITED && row + 1 < rows.count)
            image.load(a, g.channels, rows.channel);
        if (EXCITED)
            whole_dy(rows.where(row, 1), d, now, a.alpha, dy);
        else
            whole_unpack(d, dy);
#pragma unroll
        for (int w = 0; w < KN_VEC; w++) {
            const float c = x.get(w) - mean[w], z = dy[w] * kn_act_of<ACT, true>(a.act, 1, fmaf(c, scale[w], beta[w]));
            v[0][w] += z;
            v[1][w] = fmaf(z, c, v[1][w]);
        }
    });
    double total[2];
    const int i = (int)threadIdx.x, channel = p.column * WHOLE_CHANNELS + i;
    whole_totals(g, v, part, sums, total);
    if (i < WHOLE_CHANNELS && channel < g.channels) {
        const float rstd = rsqrtf(a.norm.var[channel] + a.norm.eps), db = (float)total[0],
                    dg = (float)(total[1] * (double)rstd), n = 1.f / (float)g.rows,
                    gamma = a.norm.gamma ? a.norm.gamma[channel] : 1.f;
        /* dx = scale (z - mean z) - c1 (x - mean): what stands beside each x */
        coef[0][i] = gamma * rstd * dg * n * rstd;
        coef[1][i] = gamma * rstd * db * n;
        if (p.rank == 0 && s.dgamma)
            s.dgamma[channel] = dg + (s.add_gamma ? s.dgamma[channel] : 0.f);
        if (p.rank == 0 && s.dbeta)
            s.dbeta[channel] = db + (s.add_beta ? s.dbeta[channel] : 0.f);
    }
    __syncthreads();
    for (int row = 0; row < rows.count; row++) {
        const kn_raw<8, KN_BF16> x = rows.get(row, 0), d = rows.get(row, 1);
        const int64_t at = rows.at + row * rows.step;
        float r[KN_VEC], old[KN_VEC];
        if (a.accumulate)
            kn_load8(old, a.out, KN_BF16, at);
#pragma unroll
        for (int w = 0; w < KN_VEC; w++) {
            const float c = x.get(w) - mean[w],
                        z = d.get(w) * kn_act_of<ACT, true>(a.act, 1, fmaf(c, scale[w], beta[w]));
            r[w] = fmaf(scale[w], z, -fmaf(coef[0][rows.group * KN_VEC + w], c, coef[1][rows.group * KN_VEC + w]));
            if (a.accumulate)
                r[w] += old[w];
        }
        kn_store8(r, a.out, KN_BF16, at);
    }
    whole_meet();
}

static cudaLaunchAttribute clusters_of(int blocks)
{
    cudaLaunchAttribute a = {};
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim.x = (unsigned)blocks;
    a.val.clusterDim.y = a.val.clusterDim.z = 1;
    return a;
}

/* kn_launch with clusters. */
template <typename... P>
static void launch(const kn_call *c, void (*kernel)(P...), const whole_grid &g, int tensors, P... p)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute[2] = {};
    attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute[0].val.programmaticStreamSerializationAllowed = 1;
    attribute[1] = clusters_of(g.size);
    config.gridDim = dim3((unsigned)(g.columns * g.size));
    config.blockDim = dim3(WHOLE_THREADS);
    config.dynamicSmemBytes = (size_t)(g.depth * tensors * WHOLE_THREADS * 16);
    config.stream = kn_stream(c);
    config.attrs = attribute;
    config.numAttrs = 2;
    cudaLaunchKernelEx(&config, kernel, p...); /* KN_LAUNCHED sees its error */
}

/* Clusters of more than 8 blocks, and their memory, must be asked for. */
template <typename... P> static void whole_allow(void (*kernel)(P...))
{
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, WHOLE_BYTES);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
}

/* With whole_allow the first time that a kernel is launched on a device. */
#define WHOLE_LAUNCH(c, kernel, g, tensors, a, s)                               \
    do {                                                                        \
        static uint64_t done_;                                                  \
        const uint64_t bit_ = 1ull << (kn_cuda(c)->index & 63);                 \
        if (!(__atomic_load_n(&done_, __ATOMIC_RELAXED) & bit_)) {              \
            whole_allow(kernel);                                                \
            __atomic_fetch_or(&done_, bit_, __ATOMIC_RELAXED);                  \
        }                                                                       \
        launch<whole_grid, bn_args, bn_sums>(c, (kernel), g, tensors, g, a, s); \
    } while (0)

/* Blocks of the largest cluster that the device takes: asked once, for the kernel that needs most. */
static int most_blocks(const kn_cuda_device *dev)
{
    static int known[64]; /* by device; 0: not asked */
    int *at = &known[dev->index & 63], most = __atomic_load_n(at, __ATOMIC_RELAXED), clusters = 0;
    if (most != 0)
        return most;
    void (*kernel)(whole_grid, bn_args, bn_sums) = whole_grad_kernel<KN_ACT_SILU, true>;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = clusters_of(WHOLE_SIZE);
    config.gridDim = dim3(WHOLE_SIZE);
    config.blockDim = dim3(WHOLE_THREADS);
    config.dynamicSmemBytes = WHOLE_BYTES;
    config.attrs = &attribute;
    config.numAttrs = 1;
    whole_allow(kernel);
    if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) != cudaSuccess)
        clusters = 0;
    (void)cudaGetLastError(); /* a refusal is an answer */
    most = clusters > 0 ? WHOLE_SIZE : WHOLE_SURE;
    __atomic_store_n(at, most, __ATOMIC_RELAXED);
    return most;
}

/* STAGES stages of up to `each` rows; `each` * 8 >= depth. Depth 0: no. */
static whole_grid grid_of(const kn_cuda_device *dev, int64_t rows, int channels, int tensors)
{
    whole_grid g = {};
    if (!dev->can.hopper)
        return g;
    const int most = WHOLE_BYTES / (WHOLE_THREADS * 16 * tensors), blocks = most_blocks(dev);
    g.channels = channels;
    g.columns = (int)kn_ceil(channels, WHOLE_CHANNELS);
    if (rows > (int64_t)most * WHOLE_LANES * blocks)
        return g;
    g.rows = (int)rows;
    g.size = blocks;
    while (g.size > 1 && g.size * g.columns > WHOLE_RESIDENT * dev->sms)
        g.size /= 2;
    while (g.size > 1 && (int64_t)g.size * WHOLE_LANES / 2 >= rows) /* a row a lane at least */
        g.size /= 2;
    while (kn_ceil(kn_ceil(rows, g.size), WHOLE_LANES) > most)
        g.size *= 2;
    g.rows_each = (int)kn_ceil(rows, g.size);
    g.depth = (int)kn_ceil(g.rows_each, WHOLE_LANES);
    return g;
}

bool kn_cuda_norm_whole(const kn_call *c, const bn_args &a, const bn_sums &s, int64_t rows, int channels, bool shortcut)
{
    const whole_grid g = grid_of(kn_cuda(c), rows, channels, shortcut ? 2 : 1);
    if (g.depth == 0)
        return false;
    if (shortcut)
        WHOLE_LAUNCH(c, (whole_kernel<KN_ACT_NONE, 1>), g, 2, a, s);
    else
        KN_WITH_ACT(a.act, ACT, WHOLE_LAUNCH(c, (whole_kernel<ACT, 0>), g, 1, a, s));
    return true;
}

bool kn_cuda_norm_grad_whole(const kn_call *c, const bn_args &a, const bn_sums &s, int64_t rows, int channels,
                             bool excited)
{
    const whole_grid g = grid_of(kn_cuda(c), rows, channels, 2);
    if (g.depth == 0)
        return false;
    if (excited)
        KN_WITH_ACT(a.act, ACT, WHOLE_LAUNCH(c, (whole_grad_kernel<ACT, true>), g, 2, a, s));
    else
        KN_WITH_ACT(a.act, ACT, WHOLE_LAUNCH(c, (whole_grad_kernel<ACT, false>), g, 2, a, s));
    return true;
}
