/* act.cuh - activations and their derivatives on the device, as kn_act_value (kernels/ops/activate.c) defines them.
 *
 * FAST uses the hardware's approximate exp and tanh: right to about 2^-10, for results that are stored as bf16. Otherwise full fp32 functions. A template on
 * the activation where arithmetic counts (kn_act_of<ACT>); kn_act_any branches at run time for everything else.
 */
#ifndef KN_CUDA_ACT_CUH
#define KN_CUDA_ACT_CUH

#include "kernels/graph/graph.h"

template <bool FAST> static __device__ __forceinline__ float kn_sigmoid(float x)
{
    if (FAST) {
        float t;
        asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(0.5f * x));
        return fmaf(0.5f, t, 0.5f);
    }
    return 1.0f / (1.0f + expf(-x));
}

static __device__ __forceinline__ float kn_sigmoid_order(float s, int order)
{
    float d = s * (1 - s);
    return order == 0 ? s : order == 1 ? d : order == 2 ? d * (1 - 2 * s) : d * (1 - 6 * s + 6 * s * s);
}

static __device__ __forceinline__ float kn_power(float x, float p, int order)
{
    float k = 1;
    for (int i = 0; i < order; i++)
        k *= p - (float)i;
    return k == 0 ? 0 : k * powf(x, p - (float)order);
}

/* FAST: the distribution's tail by a polynomial times the density's exponential (Abramowitz and Stegun 7.1.26, error 1.5e-7), which the derivative needs anyway. */
template <bool FAST> static __device__ __forceinline__ float kn_gelu(float x, int order)
{
    float cdf, pdf;
    if (FAST) {
        float e = __expf(-0.5f * x * x), t = __fdividef(1.f, fmaf(0.23164189f, fabsf(x), 1.f));
        float tail =
            0.5f * e * t *
            fmaf(t, fmaf(t, fmaf(t, fmaf(t, 1.061405429f, -1.453152027f), 1.421413741f), -0.284496736f), 0.254829592f);
        cdf = x < 0 ? tail : 1 - tail;
        pdf = 0.39894228f * e;
    } else {
        cdf = 0.5f * erfcf(-x * 0.70710678f);
        pdf = 0.39894228f * expf(-0.5f * x * x);
    }
    return order == 0   ? x * cdf
           : order == 1 ? cdf + x * pdf
           : order == 2 ? pdf * (2 - x * x)
                        : pdf * (x * x * x - 4 * x);
}

template <bool FAST> static __device__ __forceinline__ float kn_act_any(int act, int order, float x)
{
    switch (act) {
    case KN_ACT_NONE: return order == 0 ? x : order == 1 ? 1.f : 0.f;
    case KN_ACT_RELU: return x <= 0 ? 0 : order == 0 ? x : order == 1 ? 1.f : 0.f;
    case KN_ACT_RELU6: return x <= 0 ? 0 : x >= 6 ? (order == 0 ? 6.f : 0.f) : order == 0 ? x : order == 1 ? 1.f : 0.f;
    case KN_ACT_HSWISH:
        if (x <= -3)
            return 0;
        if (x >= 3)
            return order == 0 ? x : order == 1 ? 1.f : 0.f;
        return order == 0 ? x * (x + 3) * (1.f / 6) : order == 1 ? (2 * x + 3) * (1.f / 6) : order == 2 ? 1.f / 3 : 0.f;
    case KN_ACT_HSIGMOID:
        return x <= -3      ? 0
               : x >= 3     ? (order == 0 ? 1.f : 0.f)
               : order == 0 ? (x + 3) * (1.f / 6)
               : order == 1 ? 1.f / 6
                            : 0.f;
    case KN_ACT_SILU: {
        float s = kn_sigmoid<FAST>(x);
        return x * kn_sigmoid_order(s, order) + (order == 0 ? 0 : (float)order * kn_sigmoid_order(s, order - 1));
    }
    case KN_ACT_GELU: return kn_gelu<FAST>(x, order);
    case KN_ACT_SIGMOID: return kn_sigmoid_order(kn_sigmoid<FAST>(x), order);
    case KN_ACT_TANH: {
        float t = tanhf(x), d = 1 - t * t;
        return order == 0 ? t : order == 1 ? d : order == 2 ? -2 * t * d : d * (6 * t * t - 2);
    }
    case KN_ACT_EXP: return expf(x);
    case KN_ACT_LOG: return order == 0 ? logf(x) : kn_power(x, -1, order - 1);
    case KN_ACT_SQRT: return kn_power(x, 0.5f, order);
    case KN_ACT_RSQRT: return kn_power(x, -0.5f, order);
    case KN_ACT_RECIPROCAL: return kn_power(x, -1, order);
    case KN_ACT_SQUARE: return order == 0 ? x * x : order == 1 ? 2 * x : order == 2 ? 2.f : 0.f;
    case KN_ACT_ABS: return order == 0 ? fabsf(x) : order == 1 ? (float)((x > 0) - (x < 0)) : 0.f;
    default: return x;
    }
}

/* Compile-time activation: ACT < 0 means "look at run time". The compiler removes the switch. */
template <int ACT, bool FAST> static __device__ __forceinline__ float kn_act_of(int act, int order, float x)
{
    return kn_act_any<FAST>(ACT >= 0 ? ACT : act, order, x);
}

/* KN_WITH_ACT(act, ACT, call): instantiates `call` for the activations that networks use between convolutions. */
#define KN_WITH_ACT(act, ACT, ...)             \
    do {                                       \
        switch (act) {                         \
        case KN_ACT_NONE: {                    \
            constexpr int ACT = KN_ACT_NONE;   \
            __VA_ARGS__;                       \
            break;                             \
        }                                      \
        case KN_ACT_RELU: {                    \
            constexpr int ACT = KN_ACT_RELU;   \
            __VA_ARGS__;                       \
            break;                             \
        }                                      \
        case KN_ACT_SILU: {                    \
            constexpr int ACT = KN_ACT_SILU;   \
            __VA_ARGS__;                       \
            break;                             \
        }                                      \
        case KN_ACT_HSWISH: {                  \
            constexpr int ACT = KN_ACT_HSWISH; \
            __VA_ARGS__;                       \
            break;                             \
        }                                      \
        default: {                             \
            constexpr int ACT = -1;            \
            __VA_ARGS__;                       \
            break;                             \
        }                                      \
        }                                      \
    } while (0)

#endif
