/* The optimisers' passes in host memory: block by block with the state in registers, pieces shared out among the threads. */
#include "kernels/optim/optim_internal.h"

#include <math.h>
#include <string.h>

#include "kernels/device/device_internal.h"

enum { N = KN_OPTIM_BLOCK, LANES = 8 };

/* Sum of squares in double, in an order that is fixed and that the compiler can keep in vector registers. */
static double block_squares(const float *g)
{
    double lane[LANES] = {0}, sum = 0;
    for (int i = 0; i < N; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += (double)g[i + k] * g[i + k];
    for (int k = 0; k < LANES; k++)
        sum += lane[k];
    return sum;
}

static void clip_values(float *restrict to, const float *restrict g, float limit)
{
    for (int i = 0; i < N; i++)
        to[i] = g[i] > limit ? limit : g[i] < -limit ? -limit : g[i];
}

static int64_t piece_end(const kn_optim_pass *p, int64_t piece)
{
    int64_t end = (piece + 1) * KN_OPTIM_PIECE;
    return end < p->blocks ? end : p->blocks;
}

static es_status host_norm(kn_device *dev, const kn_optim_pass *p, es_error *err)
{
    double sum = 0;
    (void)err;
#pragma omp parallel for num_threads(kn_device_threads(dev)) schedule(static)
    for (int64_t piece = 0; piece < p->pieces; piece++) {
        double part = 0;
        for (int64_t b = piece * KN_OPTIM_PIECE; b < piece_end(p, piece); b++) {
            float clipped[N];
            const float *g = p->g + b * N;
            if (!(p->flags[b] & KN_OPTIM_TRAIN))
                continue;
            if (p->c->clip_value > 0) {
                clip_values(clipped, g, p->c->clip_value);
                g = clipped;
            }
            part += block_squares(g);
        }
        p->partial[piece] = part;
    }
    for (int64_t i = 0; i < p->pieces; i++)
        sum += p->partial[i];
    *p->norm = (float)sqrt(sum);
    return ES_OK;
}

/* The gradient as it is used: clipped, scaled, with coupled decay. */
static void block_gradient(const kn_optim_pass *p, float scale, float decay, const float *restrict g,
                           const float *restrict w, float *restrict to)
{
    if (p->c->clip_value > 0)
        clip_values(to, g, p->c->clip_value);
    else
        memcpy(to, g, N * sizeof *to);
    for (int i = 0; i < N; i++)
        to[i] = to[i] * scale + decay * w[i];
}

static void block_sgd(const kn_optim_pass *p, float *restrict w, const float *restrict g, float *restrict v)
{
    float m = p->c->momentum, lr = p->lr, look = p->c->nesterov ? 1.0f : 0.0f; /* w -= lr (look g + use v') */
    float use = p->c->nesterov ? m : 1.0f;
    if (!v) {
        for (int i = 0; i < N; i++)
            w[i] -= lr * g[i];
        return;
    }
    for (int i = 0; i < N; i++) {
        float next = m * v[i] + g[i];
        v[i] = next;
        w[i] -= lr * (look * g[i] + use * next);
    }
}

static void block_adam(const kn_optim_pass *p, float shrink, float *restrict w, const float *restrict g,
                       float *restrict m, float *restrict v)
{
    float b1 = p->c->beta1, b2 = p->c->beta2, eps = p->c->eps, rate = p->lr / p->bias1, root = 1.0f / sqrtf(p->bias2);
    for (int i = 0; i < N; i++) {
        m[i] = b1 * m[i] + (1 - b1) * g[i];
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
        w[i] = w[i] * shrink - rate * m[i] / (sqrtf(v[i]) * root + eps);
    }
}

static void block_average(const kn_optim_pass *p, const float *restrict w, float *restrict ema)
{
    float part = 1 - p->c->ema;
    for (int i = 0; i < N; i++)
        ema[i] += part * (w[i] - ema[i]);
}

static void block_update(const kn_optim_pass *p, int64_t b, float scale)
{
    bool decays = p->flags[b] & KN_OPTIM_DECAY;
    float coupled = decays && p->c->kind != KN_ADAMW ? p->c->decay : 0;
    float shrink = decays && p->c->kind == KN_ADAMW ? 1 - p->lr * p->c->decay : 1;
    float *w = p->w + b * N, g[N];
    block_gradient(p, scale, coupled, p->g + b * N, w, g);
    if (p->c->kind == KN_SGD)
        block_sgd(p, w, g, p->a ? p->a + b * N : NULL);
    else
        block_adam(p, shrink, w, g, p->a + b * N, p->b + b * N);
    memset(p->g + b * N, 0, N * sizeof *g);
}

static es_status host_update(kn_device *dev, const kn_optim_pass *p, es_error *err)
{
    float scale = p->c->clip_norm > 0 && *p->norm > p->c->clip_norm ? p->c->clip_norm / *p->norm : 1.0f;
    (void)err;
#pragma omp parallel for num_threads(kn_device_threads(dev)) schedule(static)
    for (int64_t piece = 0; piece < p->pieces; piece++) {
        double part = 0;
        for (int64_t b = piece * KN_OPTIM_PIECE; b < piece_end(p, piece); b++) {
            if (p->flags[b] & KN_OPTIM_TRAIN) {
                part += block_squares(p->g + b * N);
                block_update(p, b, scale);
            }
            if (p->ema)
                block_average(p, p->w + b * N, p->ema + b * N);
        }
        p->partial[piece] = part;
    }
    return ES_OK;
}

const kn_optim_kernels kn_host_optim = {.norm = host_norm, .update = host_update};
