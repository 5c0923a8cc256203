/* plane.h - depthwise convolution, sixteen channels at a time.
 *
 * A plane (some lines of one image, one block of channels) is copied with its zero border into a buffer that stays in cache; behind that there are no edges:
 * an output pixel is a list of taps, each a plane address and a weight, and up to sixteen neighbouring pixels are summed in registers. dx is the same sum over
 * dy, with other taps for each phase of the stride. What is copied may be normalised on the way (kn_plane_source), what is written multiplied by a slope and
 * summed (kn_plane_slope): batch norm inside the convolution (fuse.h).
 */
#ifndef KN_CPU_PLANE_H
#define KN_CPU_PLANE_H

#include "kernels/cpu/cpu.h"

enum { KN_TAPS_MAX = 121, KN_DEPTHWISE_PARTIALS = 16 };

typedef struct kn_geometry {
    int64_t n, h, w, c, oh, ow;
    int kh, kw, stride, pad, dilation;
} kn_geometry;

kn_geometry kn_geometry_of(const kn_attr *a, const kn_shape *x, const kn_shape *y, int kh, int kw);

/* Lines [line, line + lines) and columns [col, col + cols) of an image, which may lie outside of it. */
typedef struct kn_window {
    int64_t line, lines, col, cols;
} kn_window;

kn_window kn_window_forward(const kn_geometry *g, int64_t from,
                            int64_t to); /* what output lines [from, to) read of the input */
kn_window kn_window_backward(const kn_geometry *g, int64_t from,
                             int64_t to); /* what lines [from, to) of dx read of dy */
static inline size_t kn_window_bytes(kn_window w)
{
    return kn_align((size_t)((w.lines + 1) * w.cols) * sizeof(kn_vec));
}

/* An image h x w x c from its first channel of a block on, and how it is seen: as it is (scale NULL); as act(scale x + shift); or, with e, as the
 * gradient scale dz + k_x e + k_1 with dz = x act'(scale e + shift). Coefficients begin at the block's first channel. */
typedef struct kn_plane_source {
    const float *x, *e;
    int64_t h, w, c;
    int lanes;
    kn_act act;
    const float *scale, *shift, *k_x, *k_1;
} kn_plane_source;

/* slope, if not NULL, gets act'(scale x + shift) of the image's own pixels, row by row. */
void kn_plane_fill(kn_vec *plane, kn_window win, const kn_plane_source *s, kn_vec *slope);
void kn_plane_weights(kn_vec *to, const kn_tensor *w, int64_t channel, int lanes);

typedef struct kn_taps {
    int n;
    const kn_vec *at[KN_TAPS_MAX];
    kn_vec weight[KN_TAPS_MAX];
} kn_taps;

/* Where pixels are written: `lanes` floats each, `step` floats apart. With slope (its entries slope_step apart): the pixel is multiplied by it, and sum and moment
 * take it and it times (x - mean), x lying like the pixels. */
typedef struct kn_plane_target {
    float *y;
    int64_t step;
    int lanes;
    bool add;
    const kn_vec *slope;
    int64_t slope_step;
    const float *x;
    kn_vec mean, *sum, *moment;
} kn_plane_target;

/* Pixels 0 .. count - 1; pixel p reads each tap `step` p further on. */
void kn_plane_line(int step, const kn_taps *t, int64_t count, const kn_plane_target *to);
/* Line h of dx (its first column at to->y), from a plane of dy. */
void kn_plane_dx_line(const kn_geometry *g, const kn_vec *plane, kn_window win, const kn_vec *weight, int64_t h,
                      const kn_plane_target *to);
/* sum[tap] += dy(pixel) x(pixel, tap) over `lines` output lines; dy's pixels and lines are dy_step and dy_line floats apart. */
void kn_plane_dw(const kn_geometry *g, const kn_vec *plane, int64_t cols, const float *dy, int64_t dy_step,
                 int64_t dy_line, int64_t lines, int lanes, kn_vec *sum);

#endif
