/* Device memory of one set of parameters. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"
#include "kernels/device/device_internal.h"
#include "kernels/params/params.h"

struct kn_weights {
    kn_device *dev;
    const kn_params *params;
    float *values, *grads;
    void *shadow;
    size_t bytes; /* of values */
};

es_status kn_weights_new(kn_device *dev, const kn_params *p, unsigned flags, kn_weights **out, es_error *err)
{
    kn_weights *w = es_xcalloc(1, sizeof *w);
    es_status s = ES_OK;
    w->dev = dev;
    w->params = p;
    w->bytes = (size_t)kn_params_elements(p) * sizeof(float);
    *out = NULL;
    if (w->bytes > 0) {
        ES_GOTO(kn_device_alloc(dev, w->bytes, (void **)&w->values, err));
        ES_GOTO(kn_device_zero(dev, w->values, w->bytes, err));
        if ((flags & KN_WITH_GRAD) != 0) {
            ES_GOTO(kn_device_alloc(dev, w->bytes, (void **)&w->grads, err));
            ES_GOTO(kn_device_zero(dev, w->grads, w->bytes, err));
        }
        if (dev->vt->shadow != NULL) {
            ES_GOTO(kn_device_alloc(dev, w->bytes / 2, &w->shadow, err));
            ES_GOTO(kn_device_zero(dev, w->shadow, w->bytes / 2, err));
        }
    }
    *out = w;
    return ES_OK;
fail:
    kn_weights_destroy(&w);
    return s;
}

void kn_weights_destroy(kn_weights **w)
{
    if (*w == NULL)
        return;
    kn_device_free((*w)->dev, (*w)->values);
    kn_device_free((*w)->dev, (*w)->grads);
    kn_device_free((*w)->dev, (*w)->shadow);
    free(*w);
    *w = NULL;
}

const kn_params *kn_weights_params(const kn_weights *w) { return w->params; }
kn_device *kn_weights_device(const kn_weights *w) { return w->dev; }
float *kn_weights_values(kn_weights *w) { return w->values; }
float *kn_weights_grads(kn_weights *w) { return w->grads; }
void *kn_weights_shadow(kn_weights *w) { return w->shadow; }

/* Inputs and outputs per weight, for the scale of its initial values. Vectors count as [n][1]. */
static void fans(const kn_param_def *d, double *in, double *out)
{
    const int32_t *s = d->shape.d;
    switch (d->shape.rank) {
    case 1: *in = s[0], *out = s[0]; break;
    case 2: *in = s[1], *out = s[0]; break;
    case 3: *in = *out = (double)s[0] * s[1]; break; /* depthwise [kh][kw][c]: a channel sees and feeds only itself */
    default: *in = (double)s[1] * s[2] * s[3], *out = (double)s[1] * s[2] * s[0]; break; /* conv OHWI */
    }
    if (d->shape.rank == 3 && (d->flags & KN_PARAM_DEPTHWISE) == 0) /* a stack of [out][in] matrices */
        *in = s[2], *out = s[1];
}

static void init_one(const kn_param_def *d, uint64_t seed, float *to)
{
    es_rng r = es_rng_make(es_seed_derive(seed, d->name), ES_USE_INIT, 0);
    double in = 1, out = 1;
    fans(d, &in, &out);
    switch (d->init) {
    case KN_INIT_ZERO: break; /* the buffer is zeroed */
    case KN_INIT_ONE:
        for (int64_t i = 0; i < d->count; i++)
            to[i] = 1.0f;
        break;
    case KN_INIT_UNIFORM_IN:
        for (int64_t i = 0; i < d->count; i++)
            to[i] = (float)((2.0 * es_rng_uniform(&r) - 1.0) / sqrt(in));
        break;
    case KN_INIT_HE_OUT:
    case KN_INIT_HE_IN:
    case KN_INIT_NORMAL_002: {
        double std = d->init == KN_INIT_HE_OUT ? sqrt(2.0 / out) : d->init == KN_INIT_HE_IN ? sqrt(2.0 / in) : 0.02;
        for (int64_t i = 0; i < d->count; i++)
            to[i] = (float)(std * es_rng_normal(&r));
        break;
    }
    }
}

es_status kn_weights_init(kn_weights *w, uint64_t seed, es_error *err)
{
    if (w->bytes == 0)
        return ES_OK;
    float *host = calloc(1, w->bytes);
    if (host == NULL)
        return es_fail(err, ES_NO_MEMORY, "weights", "no memory for %zu bytes of initial values", w->bytes);
    for (int i = 0; i < kn_params_count(w->params); i++) {
        const kn_param_def *d = kn_params_def(w->params, i);
        init_one(d, seed, host + d->offset);
    }
    es_status s = kn_weights_upload(w, host, err);
    free(host);
    return s;
}

es_status kn_weights_zero_grads(kn_weights *w, es_error *err)
{
    if (w->bytes == 0)
        return ES_OK;
    if (w->grads == NULL)
        return es_fail(err, ES_INVALID, "weights", "made without gradients (KN_WITH_GRAD)");
    return kn_device_zero(w->dev, w->grads, w->bytes, err);
}

es_status kn_weights_changed(kn_weights *w, es_error *err)
{
    if (w->shadow == NULL)
        return ES_OK;
    return w->dev->vt->shadow(w->dev, w->shadow, w->values, (int64_t)(w->bytes / sizeof(float)), err);
}

es_status kn_weights_upload(kn_weights *w, const float *host, es_error *err)
{
    if (w->bytes == 0)
        return ES_OK;
    ES_RETURN(kn_device_upload(w->dev, w->values, host, w->bytes, err));
    return kn_weights_changed(w, err);
}

es_status kn_weights_download(kn_weights *w, float *host, es_error *err)
{
    return w->bytes == 0 ? ES_OK : kn_device_download(w->dev, host, w->values, w->bytes, err);
}

es_status kn_weights_copy(kn_weights *to, kn_weights *from, es_error *err)
{
    if (to->params != from->params || to->dev != from->dev)
        return es_fail(err, ES_INVALID, "weights",
                       "a copy needs the same parameters and the same device on both sides");
    if (to->bytes == 0)
        return ES_OK;
    ES_RETURN(kn_device_copy(to->dev, to->values, from->values, to->bytes, err));
    return kn_weights_changed(to, err);
}
