/* line.h - per-channel arithmetic on rows of channels, as flat loops: batch norm and its gradient, whole or for one piece.
 *
 *     kn_line l = kn_line_of(channels);
 *     kn_line_spread(&l, scale);                                       // scale[channels] repeated along the line; room for kn_line_padded(&l)
 *     kn_line_apply(KN_ACT_SILU, &l, x, scale, shift, y, rows * channels);   // y = act(scale x + shift)
 *
 * A line is as many rows as make whole vectors (for few channels: several), so per-channel numbers are laid out once and the loops have no
 * remainders inside. Ranges begin at a row's start.
 *
 * With z = scale x + shift, dz = dy act'(z): the gradient of batch norm is dx = scale dz + k_x x + k_1 per channel, k_x and k_1 from the sums of dz and of
 * dz (x - mean).
 */
#ifndef KN_CPU_LINE_H
#define KN_CPU_LINE_H

#include "kernels/cpu/cpu.h"

typedef struct kn_line {
    int64_t c, rows, length,
        vecs; /* channels, rows per line, rows * c, vectors per line; length is a multiple of 16 unless rows is 1 */
} kn_line;

kn_line kn_line_of(int64_t c);
static inline int64_t kn_line_padded(const kn_line *l) { return l->vecs * KN_LANES; }
void kn_line_spread(const kn_line *l, float *to);
/* The same for channels that lie elsewhere. */
void kn_line_spread_from(const kn_line *l, float *to, const float *channels);

/* Runs BODY(at, j, n) for every vector of elements [from, to), from being the start of a row: at is its place, j its place in the line, n its length. */
#define KN_LINES(l, from, to, BODY)                                                            \
    for (int64_t base_ = (from); base_ < (to); base_ += (l)->length) {                         \
        int64_t size_ = KN_MIN((l)->length, (to)-base_), whole_ = size_ / KN_LANES * KN_LANES; \
        for (int64_t j_ = 0; j_ < whole_; j_ += KN_LANES)                                      \
            BODY(base_ + j_, j_, KN_LANES);                                                    \
        if (whole_ < size_)                                                                    \
            BODY(base_ + whole_, whole_, (int)(size_ - whole_));                               \
    }

typedef struct kn_line_grad {
    const float *dy, *x;
    const float *scale, *shift, *mean, *k_x, *k_1; /* lines */
    float *dx;
} kn_line_grad;

void kn_line_apply(kn_act act, const kn_line *l, const float *x, const float *scale, const float *shift, float *y,
                   int64_t n);
/* sums[line] += dz, sums[padded + line] += dz (x - mean). */
void kn_line_grad_sums(kn_act act, const kn_line *l, const kn_line_grad *b, int64_t n, float *sums);
/* The same, and dx = dz (which may be dy). */
void kn_line_grad_slope(kn_act act, const kn_line *l, const kn_line_grad *b, int64_t n, float *sums);
/* dx (+)= scale dz + k_x x + k_1 */
void kn_line_grad_apply(kn_act act, const kn_line *l, const kn_line_grad *b, bool add, int64_t n);

#endif
