/* Optimisers, the part that is the same everywhere: configuration, state, which parameters are trained. The arithmetic is a back end's
 * (optim_internal.h). */
#include "kernels/optim/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "kernels/device/device_internal.h"
#include "kernels/optim/optim_internal.h"

enum { ARRAYS_MAX = 3 };

struct kn_optim {
    kn_optim_config c;
    kn_weights *w;
    kn_device *dev;
    const kn_optim_kernels *kernels;
    int64_t elements, blocks, pieces;
    uint8_t *flags; /* host */
    bool flags_new; /* not on the device yet */
    int n_arrays;
    const char *name[ARRAYS_MAX];
    float *array[ARRAYS_MAX];
    float *a, *b, *ema; /* the same, by use */
    uint8_t *device_flags;
    double *partial;
    float *norm;
    uint64_t count;
};

static bool in_unit(float v) { return v >= 0 && v < 1; }
static bool not_negative(float v) { return v >= 0 && isfinite(v); }

static es_status check(const kn_optim_config *c, es_error *err)
{
    if (c->kind != KN_SGD && c->kind != KN_ADAM && c->kind != KN_ADAMW)
        return es_fail(err, ES_INVALID, "optimizer.kind", "kind %d is unknown: allowed are sgd, adam and adamw",
                       (int)c->kind);
    if (!in_unit(c->momentum))
        return es_fail(err, ES_INVALID, "optimizer.momentum", "is %g, allowed is 0 up to but not including 1",
                       (double)c->momentum);
    if (c->nesterov && c->momentum == 0)
        return es_fail(err, ES_INVALID, "optimizer.nesterov", "needs a momentum above 0");
    if (!in_unit(c->beta1) || !in_unit(c->beta2))
        return es_fail(err, ES_INVALID, "optimizer.beta", "are %g and %g, allowed is 0 up to but not including 1",
                       (double)c->beta1, (double)c->beta2);
    if (c->kind != KN_SGD && !(c->eps > 0))
        return es_fail(err, ES_INVALID, "optimizer.eps", "is %g, a number above 0 is needed", (double)c->eps);
    if (!not_negative(c->decay) || !not_negative(c->clip_norm) || !not_negative(c->clip_value))
        return es_fail(err, ES_INVALID, "optimizer",
                       "decay %g, clip norm %g, clip value %g: finite numbers of at least 0 are needed",
                       (double)c->decay, (double)c->clip_norm, (double)c->clip_value);
    if (!in_unit(c->ema))
        return es_fail(err, ES_INVALID, "optimizer.ema", "is %g, allowed is 0 up to but not including 1",
                       (double)c->ema);
    return ES_OK;
}

static es_status add_array(kn_optim *o, const char *name, float **use, es_error *err)
{
    size_t bytes = (size_t)o->elements * sizeof(float);
    ES_RETURN(kn_device_alloc(o->dev, bytes, (void **)use, err));
    o->name[o->n_arrays] = name;
    o->array[o->n_arrays++] = *use;
    return kn_device_zero(o->dev, *use, bytes, err);
}

/* Flags of all blocks; a parameter starts at a block and its padding belongs to it. */
static void set_flags(kn_optim *o, bool (*is)(void *ctx, kn_param id), void *ctx)
{
    const kn_params *p = kn_weights_params(o->w);
    memset(o->flags, 0, (size_t)o->blocks);
    for (kn_param id = 0; id < kn_params_count(p); id++) {
        const kn_param_def *d = kn_params_def(p, id);
        if (is && !is(ctx, id))
            continue;
        uint8_t flags = KN_OPTIM_TRAIN | ((d->flags & KN_PARAM_DECAY) ? KN_OPTIM_DECAY : 0);
        ES_ASSERT(d->offset % KN_OPTIM_BLOCK == 0);
        memset(o->flags + d->offset / KN_OPTIM_BLOCK, flags,
               (size_t)((d->count + KN_OPTIM_BLOCK - 1) / KN_OPTIM_BLOCK));
    }
    o->flags_new = true;
}

static es_status make_state(kn_optim *o, es_error *err)
{
    if (o->c.kind == KN_SGD && o->c.momentum > 0)
        ES_RETURN(add_array(o, "momentum", &o->a, err));
    if (o->c.kind != KN_SGD) {
        ES_RETURN(add_array(o, "m", &o->a, err));
        ES_RETURN(add_array(o, "v", &o->b, err));
    }
    if (o->c.ema > 0) {
        ES_RETURN(add_array(o, "ema", &o->ema, err));
        ES_RETURN(kn_device_copy(o->dev, o->ema, kn_weights_values(o->w), (size_t)o->elements * sizeof(float), err));
    }
    ES_RETURN(kn_device_alloc(o->dev, (size_t)o->blocks, (void **)&o->device_flags, err));
    ES_RETURN(kn_device_alloc(o->dev, (size_t)o->pieces * sizeof(double), (void **)&o->partial, err));
    ES_RETURN(kn_device_zero(o->dev, o->partial, (size_t)o->pieces * sizeof(double), err));
    return kn_device_alloc(o->dev, sizeof(float), (void **)&o->norm, err);
}

es_status kn_optim_new(const kn_optim_config *c, kn_weights *w, kn_optim **out, es_error *err)
{
    kn_optim *o = es_xcalloc(1, sizeof *o);
    es_status s = ES_OK;
    *out = NULL;
    o->c = *c;
    o->w = w;
    o->dev = kn_weights_device(w);
    o->kernels = o->dev->vt->optim ? o->dev->vt->optim : &kn_host_optim;
    if (o->c.kind != KN_SGD && o->c.beta1 == 0 && o->c.beta2 == 0 && o->c.eps == 0) {
        o->c.beta1 = 0.9f;
        o->c.beta2 = 0.999f;
        o->c.eps = 1e-8f;
    }
    ES_GOTO(check(&o->c, err));
    o->elements = kn_params_elements(kn_weights_params(w));
    ES_ASSERT(o->elements % KN_OPTIM_BLOCK == 0);
    if (o->elements == 0 || kn_weights_grads(w) == NULL) {
        s = es_fail(err, ES_INVALID, "optimizer", "these weights have no %s",
                    o->elements == 0 ? "elements" : "gradients");
        goto fail;
    }
    o->blocks = o->elements / KN_OPTIM_BLOCK;
    o->pieces = (o->blocks + KN_OPTIM_PIECE - 1) / KN_OPTIM_PIECE;
    o->flags = es_xcalloc((size_t)o->blocks, 1);
    set_flags(o, NULL, NULL);
    ES_GOTO(make_state(o, err));
    *out = o;
    return ES_OK;
fail:
    kn_optim_destroy(&o);
    return s;
}

void kn_optim_destroy(kn_optim **op)
{
    kn_optim *o = *op;
    if (!o)
        return;
    for (int i = 0; i < o->n_arrays; i++)
        kn_device_free(o->dev, o->array[i]);
    kn_device_free(o->dev, o->device_flags);
    kn_device_free(o->dev, o->partial);
    kn_device_free(o->dev, o->norm);
    free(o->flags);
    free(o);
    *op = NULL;
}

void kn_optim_trainable(kn_optim *o, bool (*is)(void *ctx, kn_param id), void *ctx) { set_flags(o, is, ctx); }

es_status kn_optim_update(kn_optim *o, float lr, es_error *err)
{
    uint64_t t = o->count + 1;
    void *shadow = kn_weights_shadow(o->w);
    kn_optim_pass p = {.c = &o->c,
                       .blocks = o->blocks,
                       .pieces = o->pieces,
                       .flags = o->device_flags,
                       .a = o->a,
                       .b = o->b,
                       .ema = o->ema,
                       .lr = lr,
                       .partial = o->partial,
                       .norm = o->norm};
    if (!not_negative(lr))
        return es_fail(err, ES_INVALID, "optimizer.lr", "is %g, a finite number of at least 0 is needed", (double)lr);
    p.w = kn_weights_values(o->w);
    p.g = kn_weights_grads(o->w);
    p.shadow = o->kernels->writes_shadow ? shadow : NULL;
    p.bias1 = (float)(1 - pow(o->c.beta1, (double)t));
    p.bias2 = (float)(1 - pow(o->c.beta2, (double)t));
    if (o->flags_new)
        ES_RETURN(kn_device_upload(o->dev, o->device_flags, o->flags, (size_t)o->blocks, err));
    o->flags_new = false;
    if (o->c.clip_norm > 0)
        ES_RETURN(o->kernels->norm(o->dev, &p, err));
    ES_RETURN(o->kernels->update(o->dev, &p, err));
    o->count = t;
    return shadow && !o->kernels->writes_shadow ? kn_weights_changed(o->w, err) : ES_OK;
}

es_status kn_optim_norm(kn_optim *o, float *out, es_error *err)
{
    double sum = 0, *partial = es_xcalloc((size_t)o->pieces, sizeof *partial);
    es_status s = ES_OK;
    ES_GOTO(kn_device_sync(o->dev, err));
    ES_GOTO(kn_device_download(o->dev, partial, o->partial, (size_t)o->pieces * sizeof *partial, err));
    for (int64_t i = 0; i < o->pieces; i++)
        sum += partial[i];
    *out = (float)sqrt(sum);
fail:
    free(partial);
    return s;
}

int kn_optim_arrays(const kn_optim *o) { return o->n_arrays; }

const char *kn_optim_array_name(const kn_optim *o, int i)
{
    ES_ASSERT(i >= 0 && i < o->n_arrays);
    return o->name[i];
}

es_status kn_optim_save(kn_optim *o, int i, float *host, es_error *err)
{
    ES_ASSERT(i >= 0 && i < o->n_arrays);
    ES_RETURN(kn_device_sync(o->dev, err));
    return kn_device_download(o->dev, host, o->array[i], (size_t)o->elements * sizeof(float), err);
}

es_status kn_optim_load(kn_optim *o, int i, const float *host, es_error *err)
{
    ES_ASSERT(i >= 0 && i < o->n_arrays);
    return kn_device_upload(o->dev, o->array[i], host, (size_t)o->elements * sizeof(float), err);
}

uint64_t kn_optim_count(const kn_optim *o) { return o->count; }
void kn_optim_set_count(kn_optim *o, uint64_t count) { o->count = count; }
