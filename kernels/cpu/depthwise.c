/* Depthwise convolution, sixteen channels at a time. A plane (some lines of one image, one block of channels) is copied with its zero border into a
 * buffer that stays in cache; behind that there are no edges: an output pixel is a list of taps, each a plane address and a weight, and
 * up to sixteen neighbouring pixels are summed in registers. dx is the same sum over dy, with other taps for each phase of the stride. */
#include "kernels/cpu/cpu.h"

enum { TAPS_MAX = 121, PLANE_BYTES = 128 << 10, PARTIALS = 16 };

typedef struct geometry {
    int64_t n, h, w, c, oh, ow;
    int kh, kw, stride, pad, dilation;
} geometry;

static geometry geometry_of(const kn_attr *a, const kn_shape *x, const kn_shape *y, int kh, int kw)
{
    return (geometry){x->d[0],
                      x->d[1],
                      x->d[2],
                      x->d[3],
                      y->d[1],
                      y->d[2],
                      kh,
                      kw,
                      KN_MAX(a->stride, 1),
                      a->pad,
                      KN_MAX(a->dilation, 1)};
}

/* Lines [line, line + lines) and columns [col, col + cols) of an image, which may lie outside of it. */
typedef struct window {
    int64_t line, lines, col, cols;
} window;

static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

/* What output lines [from, to) read of the input. */
static window window_forward(const geometry *g, int64_t from, int64_t to)
{
    return (window){from * g->stride - g->pad, (to - from - 1) * g->stride + (g->kh - 1) * g->dilation + 1, -g->pad,
                    (g->ow - 1) * g->stride + (g->kw - 1) * g->dilation + 1};
}

/* What lines [from, to) of dx read of dy. */
static window window_backward(const geometry *g, int64_t from, int64_t to)
{
    int64_t line = floor_div(from + g->pad - (int64_t)(g->kh - 1) * g->dilation, g->stride);
    int64_t col = floor_div(g->pad - (int64_t)(g->kw - 1) * g->dilation, g->stride);
    return (window){line, (to - 1 + g->pad) / g->stride - line + 1, col, (g->w - 1 + g->pad) / g->stride - col + 1};
}

/* Copies a window of channels [0, lanes) of x (an image h x w with c channels) into the plane. */
static void plane_fill(kn_vec *plane, window win, const float *x, int64_t h, int64_t w, int64_t c, int lanes)
{
    int64_t left = KN_MIN(win.cols, KN_MAX(-win.col, 0)), right = KN_MAX(left, KN_MIN(win.cols, w - win.col));
    for (int64_t i = 0; i < win.lines; i++, plane += win.cols) {
        int64_t line = win.line + i;
        if (line < 0 || line >= h) {
            memset(plane, 0, sizeof(kn_vec) * (size_t)win.cols);
            continue;
        }
        const float *from = x + (line * w + win.col) * c;
        for (int64_t j = 0; j < left; j++)
            plane[j] = (kn_vec){};
        if (lanes == KN_LANES)
            for (int64_t j = left; j < right; j++)
                plane[j] = kn_vec_load(from + j * c);
        else
            for (int64_t j = left; j < right; j++)
                plane[j] = kn_vec_load_n(from + j * c, lanes);
        for (int64_t j = right; j < win.cols; j++)
            plane[j] = (kn_vec){};
    }
}

static void weights_fill(kn_vec *to, const kn_tensor *w, int64_t channel, int lanes)
{
    for (int i = 0; i < w->shape.d[0]; i++)
        for (int j = 0; j < w->shape.d[1]; j++)
            *to++ = kn_vec_load_n(kn_f(w) + i * w->stride[0] + j * w->stride[1] + channel, lanes);
}

typedef struct taps {
    int n;
    const kn_vec *at[TAPS_MAX];
    kn_vec weight[TAPS_MAX];
} taps;

KN_INLINE void pixels(const int count, const int step, const taps *t, int64_t first, float *y, int64_t ldy, int lanes,
                      bool add)
{
    kn_vec acc[16];
#pragma GCC unroll 16
    for (int p = 0; p < count; p++)
        acc[p] = (kn_vec){};
    for (int i = 0; i < t->n; i++) {
        const kn_vec *from = t->at[i] + first * step;
        kn_vec w = t->weight[i];
#pragma GCC unroll 16
        for (int p = 0; p < count; p++)
            acc[p] += from[p * step] * w;
    }
#pragma GCC unroll 16
    for (int p = 0; p < count; p++) {
        float *to = y + (first + p) * ldy;
        kn_vec_store_n(to, add ? acc[p] + kn_vec_load_n(to, lanes) : acc[p], lanes);
    }
}

/* Output pixels 0 .. count - 1 at y, ldy apart; pixel p reads each tap `step` p further on. */
KN_INLINE void line_of(const int step, const taps *t, int64_t count, float *y, int64_t ldy, int lanes, bool add)
{
    int64_t p = 0;
    if (count % 14 == 0)
        for (; p < count; p += 14)
            pixels(14, step, t, p, y, ldy, lanes, add);
    for (; p + 16 <= count; p += 16)
        pixels(16, step, t, p, y, ldy, lanes, add);
    for (; p + 7 <= count; p += 7)
        pixels(7, step, t, p, y, ldy, lanes, add);
    for (; p + 4 <= count; p += 4)
        pixels(4, step, t, p, y, ldy, lanes, add);
    for (; p < count; p++)
        pixels(1, step, t, p, y, ldy, lanes, add);
}
static __attribute__((noinline)) void line(int step, const taps *t, int64_t count, float *y, int64_t ldy, int lanes,
                                           bool add)
{
    if (step == 1)
        line_of(1, t, count, y, ldy, lanes, add);
    else if (step == 2)
        line_of(2, t, count, y, ldy, lanes, add);
    else
        line_of(step, t, count, y, ldy, lanes, add);
}

/* Lines per piece such that the plane they read fits the buffer. */
static kn_pieces strips(const geometry *g, bool backward)
{
    int64_t all = backward ? g->h : g->oh, lines = all;
    for (; lines > 1; lines = (lines + 1) / 2) {
        window win = backward ? window_backward(g, 0, lines) : window_forward(g, 0, lines);
        if ((win.lines + 1) * win.cols * (int64_t)sizeof(kn_vec) <= PLANE_BYTES)
            break;
    }
    return (kn_pieces){lines, (all + lines - 1) / lines};
}

static size_t plane_bytes(const geometry *g, bool backward)
{
    int64_t lines = strips(g, backward).rows;
    window win = backward ? window_backward(g, 0, lines) : window_forward(g, 0, lines);
    return kn_align((size_t)((win.lines + 1) * win.cols) * sizeof(kn_vec));
}

static kn_vec *plane_of(const kn_call *c, size_t bytes, size_t before)
{
    return (kn_vec *)(void *)((char *)c->scratch + before + (size_t)kn_cpu_self() * bytes);
}

static es_status check(const geometry *g, es_error *err)
{
    if (g->kh * g->kw > TAPS_MAX)
        return es_fail(err, ES_UNSUPPORTED, "depthwise", "kernel %d x %d: at most %d weights per channel", g->kh, g->kw,
                       TAPS_MAX);
    return ES_OK;
}

/* --- y --- */

static geometry forward_of(const kn_call *c)
{
    return geometry_of(c->a, &c->in[0].shape, &c->out[0].shape, c->in[1].shape.d[0], c->in[1].shape.d[1]);
}

size_t kn_cpu_depthwise_scratch(const kn_call *c)
{
    geometry g = forward_of(c);
    return (size_t)kn_cpu_threads(c) * plane_bytes(&g, false);
}

es_status kn_cpu_depthwise(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, depthwise);
    geometry g = forward_of(c);
    ES_RETURN(check(&g, err));
    kn_pieces s = strips(&g, false);
    const size_t bytes = plane_bytes(&g, false);
    const bool add = c->accumulate & 1;
    KN_CPU_FOR(c, p, g.n * s.count)
    {
        kn_vec *plane = plane_of(c, bytes, 0);
        int64_t image = p / s.count, from = p % s.count * s.rows, to = KN_MIN(from + s.rows, g.oh);
        window win = window_forward(&g, from, to);
        const float *x = kn_f(&c->in[0]) + image * g.h * g.w * g.c;
        float *y = kn_fo(&c->out[0]) + image * g.oh * g.ow * g.c;
        taps t;
        t.n = g.kh * g.kw;
        for (int64_t q = 0; q < g.c; q += KN_LANES) {
            int lanes = (int)KN_MIN(KN_LANES, g.c - q);
            plane_fill(plane, win, x + q, g.h, g.w, g.c, lanes);
            weights_fill(t.weight, &c->in[1], q, lanes);
            for (int64_t o = from; o < to; o++) {
                for (int i = 0; i < t.n; i++)
                    t.at[i] =
                        plane + ((o - from) * g.stride + i / g.kw * g.dilation) * win.cols + i % g.kw * g.dilation;
                line(g.stride, &t, g.ow, y + o * g.ow * g.c + q, g.c, lanes, add);
            }
        }
    }
    return ES_OK;
}

/* --- dx --- */

static geometry dx_of(const kn_call *c)
{
    return geometry_of(c->a, &c->out[0].shape, &c->in[0].shape, c->in[1].shape.d[0], c->in[1].shape.d[1]);
}

size_t kn_cpu_depthwise_dx_scratch(const kn_call *c)
{
    geometry g = dx_of(c);
    return (size_t)kn_cpu_threads(c) * plane_bytes(&g, true);
}

/* Columns of line h of dx that lie `phase` behind a multiple of the stride; they read the same taps. */
static void dx_line(const geometry *g, const kn_vec *plane, window win, const kn_vec *weight, int64_t h, int phase,
                    float *dx, int lanes, bool add)
{
    taps t; /* large: only what is used is set */
    t.n = 0;
    for (int i = 0; i < g->kh; i++) {
        int64_t at = h + g->pad - (int64_t)i * g->dilation;
        if (at - floor_div(at, g->stride) * g->stride != 0)
            continue;
        const kn_vec *row = plane + (floor_div(at, g->stride) - win.line) * win.cols;
        for (int j = 0; j < g->kw; j++) {
            int64_t col = phase + g->pad - (int64_t)j * g->dilation;
            if (col - floor_div(col, g->stride) * g->stride != 0)
                continue;
            t.at[t.n] = row + floor_div(col, g->stride) - win.col;
            t.weight[t.n++] = weight[i * g->kw + j];
        }
    }
    int64_t count = (g->w - phase + g->stride - 1) / g->stride;
    line(1, &t, count, dx + phase * g->c, g->c * g->stride, lanes, add);
}

es_status kn_cpu_depthwise_dx(const kn_call *c, es_error *err)
{
    KN_CPU_NEED_FLAT(c, depthwise_dx);
    geometry g = dx_of(c);
    ES_RETURN(check(&g, err));
    kn_pieces s = strips(&g, true);
    const size_t bytes = plane_bytes(&g, true);
    const bool add = c->accumulate & 1;
    KN_CPU_FOR(c, p, g.n * s.count)
    {
        kn_vec *plane = plane_of(c, bytes, 0), weight[TAPS_MAX];
        int64_t image = p / s.count, from = p % s.count * s.rows, to = KN_MIN(from + s.rows, g.h);
        window win = window_backward(&g, from, to);
        const float *dy = kn_f(&c->in[0]) + image * g.oh * g.ow * g.c;
        float *dx = kn_fo(&c->out[0]) + image * g.h * g.w * g.c;
        for (int64_t q = 0; q < g.c; q += KN_LANES) {
            int lanes = (int)KN_MIN(KN_LANES, g.c - q);
            plane_fill(plane, win, dy + q, g.oh, g.ow, g.c, lanes);
            weights_fill(weight, &c->in[1], q, lanes);
            for (int64_t h = from; h < to; h++)
                for (int phase = 0; phase < g.stride; phase++)
                    dx_line(&g, plane, win, weight, h, phase, dx + h * g.w * g.c + q, lanes, add);
        }
    }
    return ES_OK;
}

/* --- dw --- */

/* Kernel lines [0, kh) of kw taps each, all in registers: sum over a strip of dy(pixel) x(pixel, tap). */
KN_INLINE void taps_sum(const int kh, const int kw, const geometry *g, const kn_vec *plane, int64_t cols,
                        const float *dy, int64_t lines, int lanes, kn_vec *sum)
{
    kn_vec acc[25];
#pragma GCC unroll 25
    for (int i = 0; i < kh * kw; i++)
        acc[i] = sum[i];
    const int64_t step = g->stride, down = g->dilation * cols, right = g->dilation;
    for (int64_t o = 0; o < lines; o++) {
        const kn_vec *row = plane + o * step * cols;
        for (int64_t p = 0; p < g->ow; p++, row += step, dy += g->c) {
            kn_vec d = kn_vec_load_n(dy, lanes);
#pragma GCC unroll 5
            for (int i = 0; i < kh; i++)
#pragma GCC unroll 7
                for (int j = 0; j < kw; j++)
                    acc[i * kw + j] += d * row[i * down + j * right];
        }
    }
#pragma GCC unroll 25
    for (int i = 0; i < kh * kw; i++)
        sum[i] = acc[i];
}

static __attribute__((noinline)) void strip_sum(const geometry *g, const kn_vec *plane, int64_t cols, const float *dy,
                                                int64_t lines, int lanes, kn_vec *sum)
{
    if (g->kh == 3 && g->kw == 3) {
        taps_sum(3, 3, g, plane, cols, dy, lines, lanes, sum);
    } else if (g->kh == 5 && g->kw == 5) {
        taps_sum(5, 5, g, plane, cols, dy, lines, lanes, sum);
    } else {
        for (int i = 0; i < g->kh; i++) {
            const kn_vec *from = plane + i * g->dilation * cols;
            int j = 0;
            for (; j + 7 <= g->kw; j += 7)
                taps_sum(1, 7, g, from + j * g->dilation, cols, dy, lines, lanes, sum + i * g->kw + j);
            for (; j < g->kw; j++)
                taps_sum(1, 1, g, from + j * g->dilation, cols, dy, lines, lanes, sum + i * g->kw + j);
        }
    }
}

static geometry dw_of(const kn_call *c)
{
    return geometry_of(c->a, &c->in[0].shape, &c->in[1].shape, c->a->kh, c->a->kw);
}

static int64_t padded(int64_t c) { return (c + KN_LANES - 1) / KN_LANES * KN_LANES; }

static size_t dw_partial_bytes(const geometry *g)
{
    return kn_align(sizeof(float) * (size_t)(kn_pieces_at_most(g->n, PARTIALS).count * g->kh * g->kw * padded(g->c)));
}

size_t kn_cpu_depthwise_dw_scratch(const kn_call *c)
{
    geometry g = dw_of(c);
    return dw_partial_bytes(&g) + (size_t)kn_cpu_threads(c) * plane_bytes(&g, false);
}

/* One image into sums [channel block][tap]. */
static void dw_image(const geometry *g, kn_pieces s, kn_vec *plane, const float *x, const float *dy, kn_vec *sum)
{
    for (int64_t q = 0; q < g->c; q += KN_LANES, sum += g->kh * g->kw) {
        int lanes = (int)KN_MIN(KN_LANES, g->c - q);
        for (int64_t from = 0; from < g->oh; from += s.rows) {
            int64_t to = KN_MIN(from + s.rows, g->oh);
            window win = window_forward(g, from, to);
            plane_fill(plane, win, x + q, g->h, g->w, g->c, lanes);
            strip_sum(g, plane, win.cols, dy + from * g->ow * g->c + q, to - from, lanes, sum);
        }
    }
}

es_status kn_cpu_depthwise_dw(const kn_call *c, es_error *err)
{
    geometry g = dw_of(c);
    ES_RETURN(check(&g, err));
    kn_pieces s = strips(&g, false), images = kn_pieces_at_most(g.n, PARTIALS);
    const size_t bytes = plane_bytes(&g, false);
    const int64_t n_taps = (int64_t)g.kh * g.kw, blocks = padded(g.c) / KN_LANES;
    kn_vec *partial = c->scratch;
    KN_CPU_FOR(c, p, images.count)
    {
        kn_vec *plane = plane_of(c, bytes, dw_partial_bytes(&g)), *sum = partial + p * blocks * n_taps;
        memset(sum, 0, sizeof(kn_vec) * (size_t)(blocks * n_taps));
        for (int64_t image = p * images.rows; image < KN_MIN((p + 1) * images.rows, g.n); image++)
            dw_image(&g, s, plane, kn_f(&c->in[0]) + image * g.h * g.w * g.c,
                     kn_f(&c->in[1]) + image * g.oh * g.ow * g.c, sum);
    }
    const bool add = c->accumulate & 1;
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < n_taps; i++) {
            int lanes = (int)KN_MIN(KN_LANES, g.c - b * KN_LANES);
            float *to =
                kn_fo(&c->out[0]) + i / g.kw * c->out[0].stride[0] + i % g.kw * c->out[0].stride[1] + b * KN_LANES;
            kn_vec total = partial[b * n_taps + i];
            for (int64_t p = 1; p < images.count; p++)
                total += partial[(p * blocks + b) * n_taps + i];
            kn_vec_store_n(to, add ? total + kn_vec_load_n(to, lanes) : total, lanes);
        }
    return ES_OK;
}
