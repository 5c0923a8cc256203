/* vec.h - sixteen floats at a time, through the compiler's vector extensions.
 *
 *     for (int64_t i = 0; i < n; i += KN_LANES) {
 *         int left = n - i < KN_LANES ? (int)(n - i) : KN_LANES;
 *         kn_vec_store_n(y + i, kn_vec_exp(kn_vec_load_n(x + i, left)), left);
 *     }
 *
 * With AVX-512 one kn_vec is one register; elsewhere the compiler cuts it into two or four and the same code runs. Loads and stores need no
 * alignment. The _n forms touch exactly n elements (1 to 16); missing lanes read as zero. The functions are within 2 ulp of the exact
 * value over the range where the result is a normal number (kn_vec_erf: 2e-7 absolute).
 * Sources: exp and tanh by argument reduction and minimax polynomials in the manner of Cephes (Moshier, 1989); erf by Abramowitz and
 * Stegun, Handbook of Mathematical Functions, 7.1.26.
 */
#ifndef KN_CPU_VEC_H
#define KN_CPU_VEC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

enum { KN_LANES = 16 };
#define KN_INLINE static inline __attribute__((always_inline, unused))

typedef float kn_vec __attribute__((vector_size(64)));
typedef int32_t kn_ivec __attribute__((vector_size(64)));
typedef float kn_vec_u __attribute__((vector_size(64), aligned(4), may_alias));

KN_INLINE kn_vec kn_vec_set(float x) { return x - (kn_vec){}; } /* minus zero is exact, so only the broadcast is left */
KN_INLINE kn_vec kn_vec_load(const float *p) { return (kn_vec) * (const kn_vec_u *)(const void *)p; }
KN_INLINE void kn_vec_store(float *p, kn_vec v) { *(kn_vec_u *)(void *)p = (kn_vec_u)v; }

KN_INLINE kn_vec kn_vec_load_n(const float *p, int n)
{
#ifdef __AVX512F__
    return (kn_vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    kn_vec v = {};
    memcpy(&v, p, sizeof(float) * (size_t)n);
    return v;
#endif
}

KN_INLINE void kn_vec_store_n(float *p, kn_vec v, int n)
{
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)v);
#else
    memcpy(p, &v, sizeof(float) * (size_t)n);
#endif
}

/* mask ? a : b, with a mask as comparisons give it (all ones or zero). */
KN_INLINE kn_vec kn_vec_pick(kn_ivec mask, kn_vec a, kn_vec b)
{
    return (kn_vec)((mask & (kn_ivec)a) | (~mask & (kn_ivec)b));
}

#ifdef __AVX512F__
/* As written by the operators these become compare and blend; a NaN in `a` stays. */
KN_INLINE kn_vec kn_vec_max(kn_vec a, kn_vec b) { return (kn_vec)_mm512_max_ps((__m512)b, (__m512)a); }
KN_INLINE kn_vec kn_vec_min(kn_vec a, kn_vec b) { return (kn_vec)_mm512_min_ps((__m512)b, (__m512)a); }
#else
KN_INLINE kn_vec kn_vec_max(kn_vec a, kn_vec b) { return kn_vec_pick(b > a, b, a); }
KN_INLINE kn_vec kn_vec_min(kn_vec a, kn_vec b) { return kn_vec_pick(b < a, b, a); }
#endif

/* Lane by lane, in a fixed order. */
KN_INLINE float kn_vec_sum(kn_vec v)
{
    float h[8], s[4];
    for (int i = 0; i < 8; i++)
        h[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; i++)
        s[i] = h[i] + h[i + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

KN_INLINE float kn_vec_max_lane(kn_vec v)
{
    float m = v[0];
    for (int i = 1; i < KN_LANES; i++)
        m = v[i] > m ? v[i] : m;
    return m;
}

/* 1 / x for 2^-126 < |x| < 2^126; one Newton step from the 14-bit estimate. */
KN_INLINE kn_vec kn_vec_reciprocal(kn_vec x)
{
#ifdef __AVX512F__
    kn_vec r = (kn_vec)_mm512_rcp14_ps((__m512)x);
    return r + r * (1.0f - x * r);
#else
    return 1.0f / x;
#endif
}

KN_INLINE kn_vec kn_vec_exp(kn_vec x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = kn_vec_min(kn_vec_max(x, kn_vec_set(-104.0f)), kn_vec_set(88.8f));
    kn_vec n = (x * 1.44269504088896341f + magic) - magic;
    kn_vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    kn_vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
#ifdef __AVX512F__
    return (kn_vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    /* In two factors, so that the ends of the range neither overflow early nor miss the denormals. */
    kn_ivec e = __builtin_convertvector(n, kn_ivec), h = e >> 1;
    return p * (kn_vec)((h + 127) << 23) * (kn_vec)((e - h + 127) << 23);
#endif
}

KN_INLINE kn_vec kn_vec_sigmoid(kn_vec x)
{
    return kn_vec_reciprocal(1.0f + kn_vec_exp(kn_vec_min(-x, kn_vec_set(86.0f))));
}

KN_INLINE kn_vec kn_vec_abs(kn_vec x) { return (kn_vec)((kn_ivec)x & 0x7fffffff); }

KN_INLINE kn_vec kn_vec_tanh(kn_vec x)
{
    kn_vec a = kn_vec_abs(x), z = x * x;
    kn_vec p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z + -5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z + -3.33332819422e-1f;
    p = p * z * x + x;
    kn_vec q = 1.0f - 2.0f * kn_vec_reciprocal(1.0f + kn_vec_exp(kn_vec_min(a + a, kn_vec_set(40.0f))));
    q = (kn_vec)((kn_ivec)q | ((kn_ivec)x & (int32_t)0x80000000));
    return kn_vec_pick(a < 0.625f, p, q);
}

/* exp(-x^2) is handed back too: the derivative needs it. */
KN_INLINE kn_vec kn_vec_erf(kn_vec x, kn_vec *exp_minus_square)
{
    kn_vec a = kn_vec_abs(x), t = kn_vec_reciprocal(1.0f + a * 0.3275911f);
    kn_vec e = kn_vec_exp(-(x * x));
    kn_vec p = t * 1.061405429f + -1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t + -0.284496736f;
    p = p * t + 0.254829592f;
    *exp_minus_square = e;
    return (kn_vec)((kn_ivec)(1.0f - p * t * e) | ((kn_ivec)x & (int32_t)0x80000000));
}

#endif
