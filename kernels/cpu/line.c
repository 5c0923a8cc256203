#include "kernels/cpu/line.h"

kn_line kn_line_of(int64_t c)
{
    int64_t rows = 1;
    if (c < 128) {
        while (rows * c % KN_LANES != 0)
            rows *= 2;
        while (rows * c < 128)
            rows *= 2;
    }
    return (kn_line){c, rows, rows * c, (rows * c + KN_LANES - 1) / KN_LANES};
}

void kn_line_spread(const kn_line *l, float *to)
{
    for (int64_t r = 1; r < l->rows; r++)
        memcpy(to + r * l->c, to, sizeof(float) * (size_t)l->c);
    for (int64_t i = l->length; i < kn_line_padded(l); i++)
        to[i] = 0.0f;
}

void kn_line_spread_from(const kn_line *l, float *to, const float *channels)
{
    memcpy(to, channels, sizeof(float) * (size_t)l->c);
    kn_line_spread(l, to);
}

KN_INLINE void apply_act(kn_act act, const kn_line *l, const float *x, const float *scale, const float *shift, float *y,
                         int64_t n_all)
{
#define BODY(at, j, n)                                                                                                \
    kn_vec_store_n(y + (at),                                                                                          \
                   kn_vec_act(act, kn_vec_load_n(x + (at), n) * kn_vec_load(scale + (j)) + kn_vec_load(shift + (j))), \
                   n)
    KN_LINES(l, 0, n_all, BODY)
#undef BODY
}

void kn_line_apply(kn_act act, const kn_line *l, const float *x, const float *scale, const float *shift, float *y,
                   int64_t n){
#define RUN(A) apply_act(A, l, x, scale, shift, y, n)
    KN_ACT_SWITCH(act, RUN)
#undef RUN
}

/* dz at one place; x is handed back. */
KN_INLINE kn_vec slope(kn_act act, const kn_line_grad *b, int64_t at, int64_t j, int n, kn_vec *x)
{
    kn_vec d = kn_vec_load_n(b->dy + at, n);
    *x = kn_vec_load_n(b->x + at, n);
    return act == KN_ACT_NONE ? d
                              : d * kn_vec_act_slope(act, *x * kn_vec_load(b->scale + j) + kn_vec_load(b->shift + j));
}

KN_INLINE void sums_act(kn_act act, const kn_line *l, const kn_line_grad *b, bool keep, int64_t n_all, float *sums)
{
    float *moments = sums + kn_line_padded(l);
#define BODY(at, j, n)                                                                                    \
    do {                                                                                                  \
        kn_vec x_, d_ = slope(act, b, at, j, n, &x_);                                                     \
        if (keep)                                                                                         \
            kn_vec_store_n(b->dx + (at), d_, n);                                                          \
        kn_vec_store(sums + (j), kn_vec_load(sums + (j)) + d_);                                           \
        kn_vec_store(moments + (j), kn_vec_load(moments + (j)) + d_ * (x_ - kn_vec_load(b->mean + (j)))); \
    } while (0)
    KN_LINES(l, 0, n_all, BODY)
#undef BODY
}

void kn_line_grad_sums(kn_act act, const kn_line *l, const kn_line_grad *b, int64_t n, float *sums)
{
#define RUN(A) sums_act(A, l, b, false, n, sums)
    KN_ACT_SWITCH(act, RUN)
#undef RUN
}

void kn_line_grad_slope(kn_act act, const kn_line *l, const kn_line_grad *b, int64_t n, float *sums){
#define RUN(A) sums_act(A, l, b, true, n, sums)
    KN_ACT_SWITCH(act, RUN)
#undef RUN
}

KN_INLINE void grad_act(kn_act act, const kn_line *l, const kn_line_grad *b, bool add, int64_t n_all)
{
#define BODY(at, j, n)                                                                                        \
    do {                                                                                                      \
        kn_vec x_, d_ = slope(act, b, at, j, n, &x_);                                                         \
        d_ = d_ * kn_vec_load(b->scale + (j)) + (x_ * kn_vec_load(b->k_x + (j)) + kn_vec_load(b->k_1 + (j))); \
        kn_vec_store_n(b->dx + (at), add ? d_ + kn_vec_load_n(b->dx + (at), n) : d_, n);                      \
    } while (0)
    KN_LINES(l, 0, n_all, BODY)
#undef BODY
}

void kn_line_grad_apply(kn_act act, const kn_line *l, const kn_line_grad *b, bool add, int64_t n)
{
#define RUN(A) grad_act(A, l, b, add, n)
    KN_ACT_SWITCH(act, RUN)
#undef RUN
}
