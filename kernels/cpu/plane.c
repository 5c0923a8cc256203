#include "kernels/cpu/plane.h"

kn_geometry kn_geometry_of(const kn_attr *a, const kn_shape *x, const kn_shape *y, int kh, int kw)
{
    return (kn_geometry){.n = x->d[0],
                         .h = x->d[1],
                         .w = x->d[2],
                         .c = x->d[3],
                         .oh = y->d[1],
                         .ow = y->d[2],
                         .kh = kh,
                         .kw = kw,
                         .stride = KN_MAX(a->stride, 1),
                         .pad = a->pad,
                         .dilation = KN_MAX(a->dilation, 1)};
}

static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

kn_window kn_window_forward(const kn_geometry *g, int64_t from, int64_t to)
{
    return (kn_window){from * g->stride - g->pad, (to - from - 1) * g->stride + (g->kh - 1) * g->dilation + 1, -g->pad,
                       (g->ow - 1) * g->stride + (g->kw - 1) * g->dilation + 1};
}

kn_window kn_window_backward(const kn_geometry *g, int64_t from, int64_t to)
{
    int64_t line = floor_div(from + g->pad - (int64_t)(g->kh - 1) * g->dilation, g->stride);
    int64_t col = floor_div(g->pad - (int64_t)(g->kw - 1) * g->dilation, g->stride);
    return (kn_window){line, (to - 1 + g->pad) / g->stride - line + 1, col, (g->w - 1 + g->pad) / g->stride - col + 1};
}

/* --- copying in --- */

enum { PLAIN, NORMALISED, GRADIENT };

/* One line's pixels [left, right): columns of the plane, `from` and `from_e` being column 0. */
KN_INLINE void fill_pixels(const int kind, kn_act act, const kn_plane_source *s, kn_vec *plane, kn_vec *slope,
                           const float *from, const float *from_e, int64_t left, int64_t right)
{
    const int lanes = s->lanes;
    kn_vec scale = {}, shift = {}, k_x = {}, k_1 = {};
    if (kind != PLAIN) {
        scale = kn_vec_load_n(s->scale, lanes);
        shift = kn_vec_load_n(s->shift, lanes);
    }
    if (kind == GRADIENT) {
        k_x = kn_vec_load_n(s->k_x, lanes);
        k_1 = kn_vec_load_n(s->k_1, lanes);
    }
    for (int64_t j = left; j < right; j++) {
        kn_vec v = kn_vec_load_n(from + j * s->c, lanes);
        __builtin_prefetch(from + j * s->c +
                           KN_LANES); /* the next block of channels; hardware does not see the stride */
        if (kind == GRADIENT)
            __builtin_prefetch(from_e + j * s->c + KN_LANES);
        if (kind == NORMALISED) {
            v = v * scale + shift;
            if (slope)
                slope[j] = kn_vec_act_slope(act, v);
            v = kn_vec_act(act, v);
        } else if (kind == GRADIENT) {
            kn_vec e = kn_vec_load_n(from_e + j * s->c, lanes);
            if (act != KN_ACT_NONE)
                v *= kn_vec_act_slope(act, e * scale + shift);
            v = v * scale + (e * k_x + k_1);
        }
        plane[j] = v;
    }
}

static void fill_line(const kn_plane_source *s, kn_vec *plane, kn_vec *slope, const float *from, const float *from_e,
                      int64_t left, int64_t right)
{
    if (s->scale == NULL) {
        fill_pixels(PLAIN, KN_ACT_NONE, s, plane, NULL, from, NULL, left, right);
    } else if (s->e) {
#define RUN(A) fill_pixels(GRADIENT, A, s, plane, NULL, from, from_e, left, right)
        KN_ACT_SWITCH(s->act, RUN)
#undef RUN
    } else if (slope) {
#define RUN(A) fill_pixels(NORMALISED, A, s, plane, slope, from, NULL, left, right)
        KN_ACT_SWITCH(s->act, RUN)
#undef RUN
    } else {
#define RUN(A) fill_pixels(NORMALISED, A, s, plane, NULL, from, NULL, left, right)
        KN_ACT_SWITCH(s->act, RUN)
#undef RUN
    }
}

void kn_plane_fill(kn_vec *plane, kn_window win, const kn_plane_source *s, kn_vec *slope)
{
    int64_t left = KN_MIN(win.cols, KN_MAX(-win.col, 0)), right = KN_MAX(left, KN_MIN(win.cols, s->w - win.col));
    for (int64_t i = 0; i < win.lines; i++, plane += win.cols) {
        int64_t line = win.line + i;
        if (line < 0 || line >= s->h) {
            memset(plane, 0, sizeof(kn_vec) * (size_t)win.cols);
            continue;
        }
        int64_t at = line * s->w + win.col;
        for (int64_t j = 0; j < left; j++)
            plane[j] = (kn_vec){};
        fill_line(s, plane, slope ? slope + at : NULL, s->x + at * s->c, s->e ? s->e + at * s->c : NULL, left, right);
        for (int64_t j = right; j < win.cols; j++)
            plane[j] = (kn_vec){};
    }
}

void kn_plane_weights(kn_vec *to, const kn_tensor *w, int64_t channel, int lanes)
{
    for (int i = 0; i < w->shape.d[0]; i++)
        for (int j = 0; j < w->shape.d[1]; j++)
            *to++ = kn_vec_load_n(kn_f(w) + i * w->stride[0] + j * w->stride[1] + channel, lanes);
}

/* --- summing taps --- */

KN_INLINE void pixels(const int count, const int step, const bool sloped, const kn_taps *t, int64_t first,
                      const kn_plane_target *to)
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
    const int lanes = to->lanes;
    kn_vec sum = {}, moment = {};
#pragma GCC unroll 16
    for (int p = 0; p < count; p++) {
        float *y = to->y + (first + p) * to->step;
        kn_vec v = acc[p];
        __builtin_prefetch(y + KN_LANES, 1);
        if (sloped) {
            v *= to->slope[(first + p) * to->slope_step];
            sum += v;
            moment += v * (kn_vec_load_n(to->x + (first + p) * to->step, lanes) - to->mean);
        }
        kn_vec_store_n(y, to->add ? v + kn_vec_load_n(y, lanes) : v, lanes);
    }
    if (sloped) {
        *to->sum += sum;
        *to->moment += moment;
    }
}

KN_INLINE void line_of(const int step, const bool sloped, const kn_taps *t, int64_t count, const kn_plane_target *to)
{
    int64_t p = 0;
    if (count % 14 == 0)
        for (; p < count; p += 14)
            pixels(14, step, sloped, t, p, to);
    for (; p + 16 <= count; p += 16)
        pixels(16, step, sloped, t, p, to);
    for (; p + 7 <= count; p += 7)
        pixels(7, step, sloped, t, p, to);
    for (; p + 4 <= count; p += 4)
        pixels(4, step, sloped, t, p, to);
    for (; p < count; p++)
        pixels(1, step, sloped, t, p, to);
}

void kn_plane_line(int step, const kn_taps *t, int64_t count, const kn_plane_target *to)
{
    if (to->slope)
        line_of(1, true, t, count, to); /* only dx has slopes, and it reads dy pixel by pixel */
    else if (step == 1)
        line_of(1, false, t, count, to);
    else if (step == 2)
        line_of(2, false, t, count, to);
    else
        line_of(step, false, t, count, to);
}

/* Columns that lie `phase` behind a multiple of the stride read the same taps. */
static int phase_taps(const kn_geometry *g, const kn_vec *plane, kn_window win, const kn_vec *weight, int64_t h,
                      int phase, kn_taps *t)
{
    t->n = 0;
    for (int i = 0; i < g->kh; i++) {
        int64_t at = h + g->pad - (int64_t)i * g->dilation;
        if (at - floor_div(at, g->stride) * g->stride != 0)
            continue;
        const kn_vec *row = plane + (floor_div(at, g->stride) - win.line) * win.cols;
        for (int j = 0; j < g->kw; j++) {
            int64_t col = phase + g->pad - (int64_t)j * g->dilation;
            if (col - floor_div(col, g->stride) * g->stride != 0)
                continue;
            t->at[t->n] = row + floor_div(col, g->stride) - win.col;
            t->weight[t->n++] = weight[i * g->kw + j];
        }
    }
    return t->n;
}

void kn_plane_dx_line(const kn_geometry *g, const kn_vec *plane, kn_window win, const kn_vec *weight, int64_t h,
                      const kn_plane_target *to)
{
    kn_taps t; /* large: only what is used is set */
    for (int phase = 0; phase < g->stride; phase++) {
        kn_plane_target at = *to;
        phase_taps(g, plane, win, weight, h, phase, &t);
        at.y += phase * to->step;
        at.x = to->x ? to->x + phase * to->step : NULL;
        at.slope = to->slope ? to->slope + phase * to->slope_step : NULL;
        at.step = to->step * g->stride;
        at.slope_step = to->slope_step * g->stride;
        kn_plane_line(1, &t, (g->w - phase + g->stride - 1) / g->stride, &at);
    }
}

/* --- dw --- */

/* Kernel lines [0, kh) of kw taps each, all in registers. */
KN_INLINE void taps_sum(const int kh, const int kw, const kn_geometry *g, const kn_vec *plane, int64_t cols,
                        const float *dy, int64_t dy_step, int64_t dy_line, int64_t lines, int lanes, kn_vec *sum)
{
    kn_vec acc[25];
#pragma GCC unroll 25
    for (int i = 0; i < kh * kw; i++)
        acc[i] = sum[i];
    const int64_t step = g->stride, down = g->dilation * cols, right = g->dilation;
    for (int64_t o = 0; o < lines; o++) {
        const kn_vec *row = plane + o * step * cols;
        const float *from = dy + o * dy_line;
        for (int64_t p = 0; p < g->ow; p++, row += step, from += dy_step) {
            kn_vec d = kn_vec_load_n(from, lanes);
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

void kn_plane_dw(const kn_geometry *g, const kn_vec *plane, int64_t cols, const float *dy, int64_t dy_step,
                 int64_t dy_line, int64_t lines, int lanes, kn_vec *sum)
{
    if (g->kh == 3 && g->kw == 3) {
        taps_sum(3, 3, g, plane, cols, dy, dy_step, dy_line, lines, lanes, sum);
    } else if (g->kh == 5 && g->kw == 5) {
        taps_sum(5, 5, g, plane, cols, dy, dy_step, dy_line, lines, lanes, sum);
    } else {
        for (int i = 0; i < g->kh; i++) {
            const kn_vec *from = plane + i * g->dilation * cols;
            int j = 0;
            for (; j + 7 <= g->kw; j += 7)
                taps_sum(1, 7, g, from + j * g->dilation, cols, dy, dy_step, dy_line, lines, lanes,
                         sum + i * g->kw + j);
            for (; j < g->kw; j++)
                taps_sum(1, 1, g, from + j * g->dilation, cols, dy, dy_step, dy_line, lines, lanes,
                         sum + i * g->kw + j);
        }
    }
}
