/* Pooling and upsampling, NHWC: one image is one piece, channels are the inner loop. */
#include "kernels/cpu/cpu.h"

#include <math.h>

typedef struct window {
    int64_t h0, h1, w0, w1;
} window;

/* The part of window (oh, ow) that lies inside the image. */
static window clip(const kn_attr *a, int64_t oh, int64_t ow, int64_t h, int64_t w)
{
    int64_t top = oh * a->stride - a->pad, left = ow * a->stride - a->pad;
    return (window){KN_MAX(top, 0), KN_MIN(top + a->kernel, h), KN_MAX(left, 0), KN_MIN(left + a->kernel, w)};
}

typedef struct sizes {
    int64_t n, h, w, c, oh, ow;
} sizes;

static sizes sizes_of(const kn_shape *x, const kn_shape *y)
{
    return (sizes){x->d[0], x->d[1], x->d[2], x->d[3], y->d[1], y->d[2]};
}

/* --- max: y takes from v where x has its first maximum; the gradient gives back there --- */

static void max_line(const kn_attr *a, sizes s, const float *x, const float *v, float *y, int64_t oh, bool add)
{
    for (int64_t ow = 0; ow < s.ow; ow++, y += s.c) {
        window k = clip(a, oh, ow, s.h, s.w);
        for (int64_t q = 0; q < s.c; q += KN_LANES) {
            int n = (int)KN_MIN(KN_LANES, s.c - q);
            kn_vec best = {}, picked = {};
            bool first = true;
            for (int64_t i = k.h0; i < k.h1; i++)
                for (int64_t j = k.w0; j < k.w1; j++) {
                    int64_t at = (i * s.w + j) * s.c + q;
                    kn_vec b = kn_vec_load_n(x + at, n), p = kn_vec_load_n(v + at, n);
                    kn_ivec more = first ? ~(kn_ivec){} : (kn_ivec)(b > best);
                    best = kn_vec_pick(more, b, best);
                    picked = kn_vec_pick(more, p, picked);
                    first = false;
                }
            kn_vec_store_n(y + q, add ? picked + kn_vec_load_n(y + q, n) : picked, n);
        }
    }
}

static es_status max_pick(const kn_call *c, const kn_tensor *v, const kn_tensor *x)
{
    sizes s = sizes_of(&x->shape, &c->out[0].shape);
    KN_CPU_FOR(c, i, s.n * s.oh)
    {
        int64_t image = i / s.oh * s.h * s.w * s.c;
        max_line(c->a, s, kn_f(x) + image, kn_f(v) + image, kn_fo(&c->out[0]) + i * s.ow * s.c, i % s.oh,
                 c->accumulate & 1);
    }
    return ES_OK;
}

es_status kn_cpu_max_pool(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, max_pool);
    return max_pick(c, &c->in[0], &c->in[0]);
}

es_status kn_cpu_max_pool_pick(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, max_pool_pick);
    return max_pick(c, &c->in[0], &c->in[1]);
}

es_status kn_cpu_max_pool_grad(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, max_pool_grad);
    sizes s = sizes_of(&c->in[1].shape, &c->in[0].shape);
    const float *all_d = kn_f(&c->in[0]), *all_x = kn_f(&c->in[1]);
    KN_CPU_FOR(c, image, s.n)
    {
        const float *d = all_d + image * s.oh * s.ow * s.c, *x = all_x + image * s.h * s.w * s.c;
        float *dx = kn_fo(&c->out[0]) + image * s.h * s.w * s.c;
        if (!(c->accumulate & 1))
            memset(dx, 0, sizeof(float) * (size_t)(s.h * s.w * s.c));
        for (int64_t o = 0; o < s.oh * s.ow; o++) {
            window k = clip(c->a, o / s.ow, o % s.ow, s.h, s.w);
            for (int64_t q = 0; q < s.c; q++) {
                int64_t where = -1;
                for (int64_t i = k.h0; i < k.h1; i++)
                    for (int64_t j = k.w0; j < k.w1; j++) {
                        int64_t at = (i * s.w + j) * s.c + q;
                        where = where < 0 || x[at] > x[where] ? at : where;
                    }
                if (where >= 0)
                    dx[where] += d[o * s.c + q];
            }
        }
    }
    return ES_OK;
}

/* --- average --- */

static float share(const kn_attr *a, window k)
{
    return 1.0f / (float)(a->count_pad ? (int64_t)a->kernel * a->kernel : (k.h1 - k.h0) * (k.w1 - k.w0));
}

es_status kn_cpu_avg_pool(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, avg_pool);
    sizes s = sizes_of(&c->in[0].shape, &c->out[0].shape);
    const float *all = kn_f(&c->in[0]);
    KN_CPU_FOR(c, line, s.n * s.oh)
    {
        const float *x = all + line / s.oh * s.h * s.w * s.c;
        float *y = kn_fo(&c->out[0]) + line * s.ow * s.c;
        for (int64_t ow = 0; ow < s.ow; ow++, y += s.c) {
            window k = clip(c->a, line % s.oh, ow, s.h, s.w);
            for (int64_t q = 0; q < s.c; q += KN_LANES) {
                int n = (int)KN_MIN(KN_LANES, s.c - q);
                kn_vec sum = {};
                for (int64_t i = k.h0; i < k.h1; i++)
                    for (int64_t j = k.w0; j < k.w1; j++)
                        sum += kn_vec_load_n(x + (i * s.w + j) * s.c + q, n);
                sum *= share(c->a, k);
                kn_vec_store_n(y + q, c->accumulate & 1 ? sum + kn_vec_load_n(y + q, n) : sum, n);
            }
        }
    }
    return ES_OK;
}

es_status kn_cpu_avg_pool_grad(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, avg_pool_grad);
    sizes s = sizes_of(&c->out[0].shape, &c->in[0].shape);
    const float *all = kn_f(&c->in[0]);
    KN_CPU_FOR(c, image, s.n)
    {
        const float *d = all + image * s.oh * s.ow * s.c;
        float *dx = kn_fo(&c->out[0]) + image * s.h * s.w * s.c;
        if (!(c->accumulate & 1))
            memset(dx, 0, sizeof(float) * (size_t)(s.h * s.w * s.c));
        for (int64_t o = 0; o < s.oh * s.ow; o++) {
            window k = clip(c->a, o / s.ow, o % s.ow, s.h, s.w);
            const float f = share(c->a, k);
            for (int64_t i = k.h0; i < k.h1; i++)
                for (int64_t j = k.w0; j < k.w1; j++) {
                    float *to = dx + (i * s.w + j) * s.c;
                    for (int64_t q = 0; q < s.c; q++)
                        to[q] += d[o * s.c + q] * f;
                }
        }
    }
    return ES_OK;
}

/* --- upsampling --- */

es_status kn_cpu_upsample(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, upsample);
    sizes s = sizes_of(&c->in[0].shape, &c->out[0].shape);
    const int f = c->a->kernel;
    KN_CPU_FOR(c, line, s.n * s.oh)
    {
        const float *x = kn_f(&c->in[0]) + (line / s.oh * s.h + line % s.oh / f) * s.w * s.c;
        float *y = kn_fo(&c->out[0]) + line * s.ow * s.c;
        for (int64_t ow = 0; ow < s.ow; ow++)
            for (int64_t q = 0; q < s.c; q++) {
                float v = x[ow / f * s.c + q], *to = &y[ow * s.c + q];
                *to = c->accumulate & 1 ? *to + v : v;
            }
    }
    return ES_OK;
}

es_status kn_cpu_upsample_grad(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, upsample_grad);
    sizes s = sizes_of(&c->out[0].shape, &c->in[0].shape);
    const int f = c->a->kernel;
    KN_CPU_FOR(c, line, s.n * s.h)
    {
        const float *d = kn_f(&c->in[0]) + (line / s.h * s.oh + line % s.h * f) * s.ow * s.c;
        float *dx = kn_fo(&c->out[0]) + line * s.w * s.c;
        if (!(c->accumulate & 1))
            memset(dx, 0, sizeof(float) * (size_t)(s.w * s.c));
        for (int i = 0; i < f; i++)
            for (int64_t ow = 0; ow < s.ow; ow++)
                for (int64_t q = 0; q < s.c; q++)
                    dx[ow / f * s.c + q] += d[(i * s.ow + ow) * s.c + q];
    }
    return ES_OK;
}
