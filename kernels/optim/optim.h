/* optim.h - optimisers over the flat buffers of a kn_weights: one pass over memory per update, state saved and restored as flat arrays.
 *
 *     kn_optim_config c = {.kind = KN_SGD, .momentum = 0.9f, .nesterov = true, .decay = 1e-5f, .clip_norm = 0};
 *     kn_optim *o; kn_optim_new(&c, weights, &o, err);
 *     kn_optim_update(o, lr, err);           // reads gradients, clips, updates values, refreshes the shadow; zeroes the gradients of the trained set
 *     float lr = kn_schedule_at(&s, step);
 *
 * Decay applies where KN_PARAM_DECAY is set (coupled L2 for SGD and Adam, decoupled for AdamW), once per update however often a storage was used. Only trainable
 * parameters are clipped, updated and zeroed.
 * Sources: SGD momentum and Nesterov as in Sutskever et al. 2013 (v = m v + g; w -= lr (g + m v) for Nesterov); Adam, arXiv:1412.6980; AdamW, arXiv:1711.05101.
 */
#ifndef KN_OPTIM_H
#define KN_OPTIM_H

#include "kernels/params/params.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kn_optim_kind { KN_SGD, KN_ADAM, KN_ADAMW } kn_optim_kind;

typedef struct kn_optim_config {
    kn_optim_kind kind;
    float momentum; /* SGD */
    bool nesterov;
    float beta1, beta2, eps; /* Adam: 0.9, 0.999, 1e-8 when all zero */
    float decay;
    float clip_norm;  /* 0: off; global L2 norm over the trainable set */
    float clip_value; /* 0: off; elementwise, before the norm */
    float ema;        /* 0: off; decay of an exponential moving average of the values */
} kn_optim_config;

typedef struct kn_optim kn_optim;

es_status kn_optim_new(const kn_optim_config *c, kn_weights *w, kn_optim **out,
                       es_error *err) ES_MUST_CHECK; /* borrows w */
void kn_optim_destroy(kn_optim **o);
void kn_optim_trainable(kn_optim *o, bool (*is)(void *ctx, kn_param id),
                        void *ctx); /* default: all; call before the first update */
es_status kn_optim_update(kn_optim *o, float lr, es_error *err) ES_MUST_CHECK;
es_status kn_optim_norm(kn_optim *o, float *out, es_error *err)
    ES_MUST_CHECK; /* global gradient norm before clipping, of the last update; waits for the device */

/* State as flat fp32 arrays of kn_params_elements length (momentum; first and second moment; moving average), plus the update count. */
int kn_optim_arrays(const kn_optim *o);
const char *kn_optim_array_name(const kn_optim *o, int i); /* "momentum", "m", "v", "ema" */
es_status kn_optim_save(kn_optim *o, int i, float *host, es_error *err) ES_MUST_CHECK;
es_status kn_optim_load(kn_optim *o, int i, const float *host, es_error *err) ES_MUST_CHECK;
uint64_t kn_optim_count(const kn_optim *o);
void kn_optim_set_count(kn_optim *o, uint64_t count);

typedef enum kn_schedule_kind { KN_CONSTANT, KN_COSINE, KN_STEP, KN_EXPONENTIAL } kn_schedule_kind;
typedef struct kn_schedule {
    kn_schedule_kind kind;
    float lr, lr_min;       /* COSINE ends at lr_min; EXPONENTIAL never goes below it ("constant end", BigNAS) */
    uint64_t warmup, total; /* steps; linear warm-up from lr / warmup */
    uint64_t every;
    float factor; /* STEP and EXPONENTIAL: lr * factor ^ (t / every), floored exponent for STEP */
} kn_schedule;
float kn_schedule_at(const kn_schedule *s, uint64_t step);

#ifdef __cplusplus
}
#endif
#endif
