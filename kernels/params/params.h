/* params.h - what a supernet's weights are: named tensors in one flat space, declared once at their largest.
 *
 *     kn_params *p = kn_params_new();
 *     kn_param w; kn_params_add(p, "stages.0.blocks.1.expand.weight", KN_SHAPE(144, 24), KN_INIT_HE_OUT, KN_PARAM_DECAY, &w, err);
 *     kn_params_seal(p);                                     // offsets are fixed now
 *
 *     kn_weights *v; kn_weights_new(dev, p, KN_WITH_GRAD, &v, err);
 *     kn_weights_init(v, seed, err);                          // every element a function of (seed, name, index)
 *
 * A graph refers to a slice of a parameter by (set, id, box). A set is one kn_params; a run binds a kn_weights to each set. Set KN_SET_WEIGHTS
 * holds what is trained; KN_SET_STATS holds batch-norm statistics, so that every evaluated subnet can have its own while the weights are shared.
 *
 * Offsets are multiples of KN_PARAM_ALIGN (padding elements are zero and stay zero), ordered as declared: the flat buffers are what checkpoints, optimisers and
 * collectives work on. One storage may serve several layers: declare it once and use its id twice.
 */
#ifndef KN_PARAMS_H
#define KN_PARAMS_H

#include "kernels/device/device.h"
#include "kernels/tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t kn_param;     /* index into a kn_params */
enum { KN_PARAM_ALIGN = 64 }; /* elements: of the offset of every parameter */

typedef enum kn_init_kind {
    KN_INIT_ZERO,
    KN_INIT_ONE,
    KN_INIT_HE_OUT, /* N(0, 2 / (kh kw out)), He et al. 2015 fan-out, as the twin benchmark uses; depthwise: out = 1 per channel group */
    KN_INIT_HE_IN,      /* N(0, 2 / fan_in) */
    KN_INIT_UNIFORM_IN, /* U(-1/sqrt(fan_in), 1/sqrt(fan_in)): the usual linear layer */
    KN_INIT_NORMAL_002, /* N(0, 0.02^2): embeddings and transformers */
} kn_init_kind;

enum {
    KN_PARAM_DECAY = 1,     /* weight decay applies */
    KN_PARAM_DEPTHWISE = 2, /* layout [kh][kw][c]: changes fan computation only */
};

typedef struct kn_param_def {
    const char *name; /* unique, dotted; becomes the safetensors name */
    kn_shape shape;
    int64_t offset, count; /* elements in the flat buffer */
    kn_init_kind init;
    unsigned flags;
} kn_param_def;

typedef struct kn_params kn_params;

kn_params *kn_params_new(void);
void kn_params_destroy(kn_params **p);
es_status kn_params_add(kn_params *p, const char *name, kn_shape shape, kn_init_kind init, unsigned flags,
                        kn_param *out, es_error *err) ES_MUST_CHECK;
void kn_params_seal(kn_params *p);
int kn_params_count(const kn_params *p);
const kn_param_def *kn_params_def(const kn_params *p, kn_param id);
bool kn_params_find(const kn_params *p, const char *name, kn_param *out);
int64_t kn_params_elements(const kn_params *p); /* flat length with padding; valid after sealing */

enum { KN_SET_WEIGHTS = 0, KN_SET_STATS = 1, KN_SETS = 2 };

/* Device memory for one set: fp32 values, fp32 gradients when asked. On an accelerator a bf16 shadow of the values is kept by the backend and
 * refreshed by kn_weights_changed (the optimiser does that itself). */
typedef struct kn_weights kn_weights;
enum { KN_WITH_GRAD = 1 };

es_status kn_weights_new(kn_device *dev, const kn_params *p, unsigned flags, kn_weights **out,
                         es_error *err) ES_MUST_CHECK;
void kn_weights_destroy(kn_weights **w);
const kn_params *kn_weights_params(const kn_weights *w);
kn_device *kn_weights_device(const kn_weights *w);
float *kn_weights_values(kn_weights *w); /* device pointer, flat */
float *kn_weights_grads(kn_weights *w);  /* device pointer, flat, or NULL */
void *kn_weights_shadow(kn_weights *w);  /* bf16 device pointer, flat, or NULL */
es_status kn_weights_init(kn_weights *w, uint64_t seed, es_error *err) ES_MUST_CHECK;
es_status kn_weights_zero_grads(kn_weights *w, es_error *err) ES_MUST_CHECK;
es_status kn_weights_changed(kn_weights *w, es_error *err) ES_MUST_CHECK;
es_status kn_weights_upload(kn_weights *w, const float *host, es_error *err) ES_MUST_CHECK; /* whole flat buffer */
es_status kn_weights_download(kn_weights *w, float *host, es_error *err) ES_MUST_CHECK;
es_status kn_weights_copy(kn_weights *to, kn_weights *from,
                          es_error *err) ES_MUST_CHECK; /* same kn_params, same device: snapshot and restore */

#ifdef __cplusplus
}
#endif
#endif
