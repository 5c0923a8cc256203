/* Pooling, upsampling and dropout: a thread per result, gathering; nothing scatters. */
#include "base/rng.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/philox.cuh"

struct window_args {
    const void *x, *v;
    int x_type, v_type;
    void *out;
    int out_type, accumulate;
    int n, h, w, c, oh, ow; /* the larger (input) and the smaller (pooled) side */
    int kernel, stride, pad, count_pad;
    int64_t count;
};

static __device__ __forceinline__ void put(void *p, int type, int accumulate, int64_t i, float v)
{
    kn_store(p, type, i, v + (accumulate ? kn_load(p, type, i) : 0.f));
}

#define EACH(a, i)                                              \
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; \
    if (i >= (a).count)                                         \
    return

static __device__ __forceinline__ int64_t first_max(const window_args &a, int64_t image, int py, int px, int ch)
{
    int64_t best_at = -1;
    float best = 0;
    for (int iy = py * a.stride - a.pad; iy < py * a.stride - a.pad + a.kernel; iy++)
        for (int ix = px * a.stride - a.pad; ix < px * a.stride - a.pad + a.kernel; ix++) {
            if (iy < 0 || ix < 0 || iy >= a.h || ix >= a.w)
                continue;
            int64_t o = ((image * a.h + iy) * a.w + ix) * a.c + ch;
            float v = kn_load(a.x, a.x_type, o);
            if (best_at < 0 || v > best)
                best = v, best_at = o;
        }
    return best_at;
}

static __global__ void max_pool_kernel(const __grid_constant__ window_args a)
{
    EACH(a, i);
    int ch = (int)(i % a.c), px = (int)(i / a.c % a.ow), py = (int)(i / a.c / a.ow % a.oh);
    put(a.out, a.out_type, a.accumulate, i, kn_load(a.v, a.v_type, first_max(a, i / a.c / a.ow / a.oh, py, px, ch)));
}

/* Pooled rows whose window covers input coordinate `at`: [first, last]. */
static __device__ __forceinline__ void covering(const window_args &a, int at, int size, int *first, int *last)
{
    int low = at + a.pad - a.kernel + 1;
    *first = low <= 0 ? 0 : (low + a.stride - 1) / a.stride;
    *last = (at + a.pad) / a.stride;
    if (*last > size - 1)
        *last = size - 1;
}

static __global__ void max_pool_grad_kernel(const __grid_constant__ window_args a)
{
    EACH(a, i);
    int ch = (int)(i % a.c), ix = (int)(i / a.c % a.w), iy = (int)(i / a.c / a.w % a.h), y0, y1, x0, x1;
    int64_t image = i / a.c / a.w / a.h;
    float sum = 0;
    covering(a, iy, a.oh, &y0, &y1);
    covering(a, ix, a.ow, &x0, &x1);
    for (int py = y0; py <= y1; py++)
        for (int px = x0; px <= x1; px++)
            if (first_max(a, image, py, px, ch) == i)
                sum += kn_load(a.v, a.v_type, ((image * a.oh + py) * a.ow + px) * a.c + ch);
    put(a.out, a.out_type, a.accumulate, i, sum);
}

static __device__ __forceinline__ float divisor(const window_args &a, int py, int px)
{
    int y0 = py * a.stride - a.pad, x0 = px * a.stride - a.pad, y1 = y0 + a.kernel, x1 = x0 + a.kernel;
    if (a.count_pad)
        return (float)(a.kernel * a.kernel);
    y0 = y0 < 0 ? 0 : y0, x0 = x0 < 0 ? 0 : x0, y1 = y1 > a.h ? a.h : y1, x1 = x1 > a.w ? a.w : x1;
    return (float)((y1 - y0) * (x1 - x0));
}

static __global__ void avg_pool_kernel(const __grid_constant__ window_args a)
{
    EACH(a, i);
    int ch = (int)(i % a.c), px = (int)(i / a.c % a.ow), py = (int)(i / a.c / a.ow % a.oh);
    int64_t image = i / a.c / a.ow / a.oh;
    float sum = 0;
    for (int iy = py * a.stride - a.pad; iy < py * a.stride - a.pad + a.kernel; iy++)
        for (int ix = px * a.stride - a.pad; ix < px * a.stride - a.pad + a.kernel; ix++)
            if (iy >= 0 && ix >= 0 && iy < a.h && ix < a.w)
                sum += kn_load(a.x, a.x_type, ((image * a.h + iy) * a.w + ix) * a.c + ch);
    put(a.out, a.out_type, a.accumulate, i, sum / divisor(a, py, px));
}

static __global__ void avg_pool_grad_kernel(const __grid_constant__ window_args a)
{
    EACH(a, i);
    int ch = (int)(i % a.c), ix = (int)(i / a.c % a.w), iy = (int)(i / a.c / a.w % a.h), y0, y1, x0, x1;
    int64_t image = i / a.c / a.w / a.h;
    float sum = 0;
    covering(a, iy, a.oh, &y0, &y1);
    covering(a, ix, a.ow, &x0, &x1);
    for (int py = y0; py <= y1; py++)
        for (int px = x0; px <= x1; px++)
            sum += kn_load(a.v, a.v_type, ((image * a.oh + py) * a.ow + px) * a.c + ch) / divisor(a, py, px);
    put(a.out, a.out_type, a.accumulate, i, sum);
}

static window_args arguments(const kn_call *c, const kn_shape *large, const kn_shape *small)
{
    window_args a = {};
    a.out = c->out[0].p, a.out_type = c->out[0].dtype, a.accumulate = c->accumulate & 1;
    a.n = large->d[0], a.h = large->d[1], a.w = large->d[2], a.c = large->d[3], a.oh = small->d[1], a.ow = small->d[2];
    a.kernel = c->a->kernel, a.stride = c->a->stride, a.pad = c->a->pad, a.count_pad = c->a->count_pad;
    a.count = kn_shape_count(&c->out[0].shape);
    return a;
}

static void set_x(window_args *a, const kn_tensor *t) { a->x = t->p, a->x_type = t->dtype; }
static void set_v(window_args *a, const kn_tensor *t) { a->v = t->p, a->v_type = t->dtype; }

#define WINDOW_LAUNCH(kernel, a)                                                    \
    do {                                                                            \
        if ((a).count > 0)                                                          \
            kernel<<<(unsigned)kn_ceil((a).count, 256), 256, 0, kn_stream(c)>>>(a); \
        KN_LAUNCHED(#kernel);                                                       \
        return ES_OK;                                                               \
    } while (0)

extern "C" es_status kn_cuda_max_pool(const kn_call *c, es_error *err)
{
    window_args a = arguments(c, &c->in[0].shape, &c->out[0].shape);
    set_x(&a, &c->in[0]);
    set_v(&a, &c->in[0]);
    WINDOW_LAUNCH(max_pool_kernel, a);
}

extern "C" es_status kn_cuda_max_pool_pick(const kn_call *c, es_error *err)
{
    window_args a = arguments(c, &c->in[1].shape, &c->out[0].shape);
    set_x(&a, &c->in[1]);
    set_v(&a, &c->in[0]);
    WINDOW_LAUNCH(max_pool_kernel, a);
}

extern "C" es_status kn_cuda_max_pool_grad(const kn_call *c, es_error *err)
{
    window_args a = arguments(c, &c->in[1].shape, &c->in[0].shape);
    set_x(&a, &c->in[1]);
    set_v(&a, &c->in[0]);
    WINDOW_LAUNCH(max_pool_grad_kernel, a);
}

extern "C" es_status kn_cuda_avg_pool(const kn_call *c, es_error *err)
{
    window_args a = arguments(c, &c->in[0].shape, &c->out[0].shape);
    set_x(&a, &c->in[0]);
    WINDOW_LAUNCH(avg_pool_kernel, a);
}

extern "C" es_status kn_cuda_avg_pool_grad(const kn_call *c, es_error *err)
{
    window_args a = arguments(c, &c->out[0].shape, &c->in[0].shape);
    set_v(&a, &c->in[0]);
    WINDOW_LAUNCH(avg_pool_grad_kernel, a);
}

/* ---- upsampling: nearest, by a whole factor ---- */

static __global__ void upsample_kernel(const __grid_constant__ window_args a)
{
    EACH(a, i);
    int ch = (int)(i % a.c), x = (int)(i / a.c % a.w), y = (int)(i / a.c / a.w % a.h);
    int64_t image = i / a.c / a.w / a.h;
    put(a.out, a.out_type, a.accumulate, i,
        kn_load(a.v, a.v_type, ((image * a.oh + y / a.kernel) * a.ow + x / a.kernel) * a.c + ch));
}

static __global__ void upsample_grad_kernel(const __grid_constant__ window_args a)
{
    EACH(a, i);
    int ch = (int)(i % a.c), x = (int)(i / a.c % a.ow), y = (int)(i / a.c / a.ow % a.oh);
    int64_t image = i / a.c / a.ow / a.oh;
    float sum = 0;
    for (int dy = 0; dy < a.kernel; dy++)
        for (int dx = 0; dx < a.kernel; dx++)
            sum += kn_load(a.x, a.x_type, ((image * a.h + y * a.kernel + dy) * a.w + x * a.kernel + dx) * a.c + ch);
    put(a.out, a.out_type, a.accumulate, i, sum);
}

extern "C" es_status kn_cuda_upsample(const kn_call *c, es_error *err)
{
    window_args a = arguments(c, &c->out[0].shape, &c->in[0].shape);
    set_v(&a, &c->in[0]);
    WINDOW_LAUNCH(upsample_kernel, a);
}

extern "C" es_status kn_cuda_upsample_grad(const kn_call *c, es_error *err)
{
    window_args a = arguments(c, &c->in[0].shape, &c->out[0].shape);
    set_x(&a, &c->in[0]);
    WINDOW_LAUNCH(upsample_grad_kernel, a);
}

/* ---- dropout: the mask of kernels/ops/dropout.c, computed where it is used ---- */

struct dropout_args {
    const void *x;
    void *out;
    int x_type, out_type, accumulate, rank;
    int32_t d[KN_RANK_MAX];
    uint32_t axes, use_index, threshold;
    const kn_cuda_now *now; /* NULL: seed and step are here */
    uint64_t seed, step;
    float keep;
    int64_t count;
};

static __global__ void dropout_kernel(const __grid_constant__ dropout_args a)
{
    EACH(a, i);
    uint64_t element = 0, scale = 1;
    int64_t rest = i;
    uint32_t lanes[4];
    for (int d = a.rank - 1; d >= 0; d--) {
        int64_t next = rest / a.d[d];
        if (!(a.axes >> d & 1)) {
            element += scale * (uint64_t)(rest - next * a.d[d]);
            scale *= (uint64_t)a.d[d];
        }
        rest = next;
    }
    const uint64_t seed = a.now ? a.now->seed : a.seed, step = a.now ? a.now->step : a.step;
    kn_philox(seed, ES_USE_DROPOUT, step, (uint64_t)a.use_index << 32 | element / 4, lanes);
    put(a.out, a.out_type, a.accumulate, i,
        lanes[element % 4] >= a.threshold ? kn_load(a.x, a.x_type, i) * a.keep : 0.f);
}

extern "C" es_status kn_cuda_dropout(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0];
    dropout_args a = {};
    a.x = x->p, a.x_type = x->dtype, a.out = c->out[0].p, a.out_type = c->out[0].dtype,
    a.accumulate = c->accumulate & 1;
    a.rank = x->shape.rank;
    for (int d = 0; d < a.rank; d++)
        a.d[d] = x->shape.d[d];
    a.axes = c->a->axes, a.use_index = c->a->use_index, a.now = (const kn_cuda_now *)c->now, a.seed = c->seed,
    a.step = c->step;
    a.threshold = (uint32_t)((double)c->a->rate * 4294967296.0);
    a.keep = (float)(1.0 / (1.0 - (double)c->a->rate));
    a.count = kn_shape_count(&x->shape);
    WINDOW_LAUNCH(dropout_kernel, a);
}
