/* A trainer's state as a weights version, and back. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "supernet/train/methods.h"

/* What the flat arrays mean: every parameter's name, shape and place. */
static void layout_hex(const sn_net *net, char hex[ES_HASH_HEX])
{
    es_hasher *h = es_hasher_new();
    es_hash sum;
    for (int set = 0; set < KN_SETS; set++) {
        const kn_params *p = set == KN_SET_WEIGHTS ? sn_net_params(net) : sn_net_stats(net);
        for (int i = 0; i < kn_params_count(p); i++) {
            const kn_param_def *d = kn_params_def(p, i);
            char shape[64], line[320];
            int n = snprintf(line, sizeof line, "%d %s %s %" PRId64 "\n", set, d->name, kn_shape_text(&d->shape, shape),
                             d->offset);
            es_hasher_add(h, line, (size_t)n);
        }
    }
    es_hasher_end(&h, &sum);
    es_hash_hex(&sum, hex);
}

static void identity_hex(const sn_trainer *t, char hex[ES_HASH_HEX])
{
    es_hash sum;
    es_hash_bytes(t->file->text, strlen(t->file->text), &sum);
    es_hash_hex(&sum, hex);
}

static char *meta_text(const sn_trainer *t, sn_phase phase, int part, uint64_t step, uint64_t updates)
{
    char identity[ES_HASH_HEX], layout[ES_HASH_HEX];
    es_json j;
    identity_hex(t, identity);
    layout_hex(t->net, layout);
    es_json_begin(&j, 0);
    es_json_object(&j, NULL);
    es_json_str(&j, "search", identity);
    es_json_str(&j, "layout", layout);
    es_json_i64(&j, "phase", phase);
    es_json_i64(&j, "part", part);
    es_json_i64(&j, "step", (int64_t)step);
    es_json_i64(&j, "updates", (int64_t)updates);
    es_json_end(&j);
    return es_json_finish(&j);
}

static es_status add_flat(sn_version *v, const char *name, const float *host, int64_t n, es_error *err)
{
    if (n > INT32_MAX)
        return es_fail(err, ES_UNSUPPORTED, name, "%" PRId64 " elements: at most 2^31 - 1", n);
    kn_shape shape = KN_SHAPE((int32_t)n);
    return sn_version_add(v, name, KN_F32, &shape, host, err);
}

static es_status add_weights(sn_version *v, const char *name, kn_weights *w, es_error *err)
{
    int64_t n = kn_params_elements(kn_weights_params(w));
    float *host = es_xcalloc((size_t)n + 1, sizeof *host);
    es_status s;
    ES_GOTO(kn_weights_download(w, host, err));
    ES_GOTO(add_flat(v, name, host, n, err));
fail:
    free(host);
    return s;
}

es_status sn_trainer_save(sn_trainer *t, sn_version **out, es_error *err)
{
    sn_version *v = sn_version_new(t->part >= 0 ? "module" : "supernet");
    int64_t n = kn_params_elements(sn_net_params(t->net));
    float *host = es_xcalloc((size_t)n + 1, sizeof *host);
    char *meta = NULL;
    es_status s;
    ES_GOTO(kn_device_sync(t->dev, err));
    ES_GOTO(add_weights(v, "values", t->weights, err));
    for (int i = 0; i < kn_optim_arrays(t->optim); i++) {
        ES_GOTO(kn_optim_save(t->optim, i, host, err));
        ES_GOTO(add_flat(v, kn_optim_array_name(t->optim, i), host, n, err));
    }
    if (t->phase == SN_PHASE_PART)
        ES_GOTO(add_weights(v, "stats", t->stats, err));
    meta = meta_text(t, t->phase, t->part + 1, t->step, kn_optim_count(t->optim));
    sn_version_meta(v, meta);
    *out = v;
    v = NULL;
fail:
    free(host);
    free(meta);
    sn_version_destroy(&v);
    return s;
}

static es_status flat(const sn_version *v, const char *name, int64_t n, const float **out, es_error *err)
{
    const sn_array *a = sn_version_find(v, name);
    if (!a)
        return es_fail(err, ES_INVALID, "weights version", "no array \"%s\": it holds no state of this training", name);
    if (a->dtype != KN_F32 || a->shape.rank != 1 || a->shape.d[0] != n)
        return es_fail(err, ES_INVALID, "weights version",
                       "array \"%s\" has %zu bytes, this space needs %" PRId64 " elements of F32", name, a->bytes, n);
    *out = a->data;
    return ES_OK;
}

es_status sn_trainer_upload(kn_weights *w, const sn_version *v, const char *name, es_error *err)
{
    const float *host = NULL;
    ES_RETURN(flat(v, name, kn_params_elements(kn_weights_params(w)), &host, err));
    ES_RETURN(kn_weights_upload(w, host, err));
    return kn_weights_changed(w, err);
}

static es_status check(const sn_trainer *t, const sn_version *v, const json_t *meta, es_error *err)
{
    char identity[ES_HASH_HEX], layout[ES_HASH_HEX];
    const char *search = json_string_value(json_object_get(meta, "search"));
    const char *place = json_string_value(json_object_get(meta, "layout"));
    identity_hex(t, identity);
    layout_hex(t->net, layout);
    if (!search || !place)
        return es_fail(err, ES_INVALID, "weights version", "kind \"%s\": expected the state of a training", v->kind);
    if (strcmp(place, layout) != 0)
        return es_fail(err, ES_INVALID, "weights version", "its parameters are not those of this search's space");
    if (strcmp(search, identity) != 0)
        return es_fail(err, ES_INVALID, "weights version", "it belongs to another search (%.12s..., this is %.12s...)",
                       search, identity);
    return ES_OK;
}

static json_t *meta_of(const sn_version *v)
{
    json_error_t je;
    return v->meta ? json_loads(v->meta, 0, &je) : NULL;
}

static int64_t number(const json_t *meta, const char *key) { return json_integer_value(json_object_get(meta, key)); }

es_status sn_trainer_check(const sn_trainer *t, const sn_version *v, int *phase, int *part, es_error *err)
{
    json_t *meta = meta_of(v);
    es_status s = check(t, v, meta, err);
    *phase = (int)number(meta, "phase");
    *part = (int)number(meta, "part");
    json_decref(meta);
    return s;
}

/* Optimiser arrays are absent in assembled versions: training starts from zero there. */
static es_status load_optimiser(sn_trainer *t, const sn_version *v, bool fresh, uint64_t updates, es_error *err)
{
    int64_t n = kn_params_elements(sn_net_params(t->net));
    if (fresh)
        return sn_trainer_optim(t, err);
    for (int i = 0; i < kn_optim_arrays(t->optim); i++) {
        const float *host = NULL;
        ES_RETURN(flat(v, kn_optim_array_name(t->optim, i), n, &host, err));
        ES_RETURN(kn_optim_load(t->optim, i, host, err));
    }
    kn_optim_set_count(t->optim, updates);
    return ES_OK;
}

es_status sn_trainer_load(sn_trainer *t, const sn_version *v, es_error *err)
{
    json_t *meta = meta_of(v);
    int64_t phase = number(meta, "phase"), part = number(meta, "part"), step = number(meta, "step"),
            updates = number(meta, "updates");
    es_status s;
    ES_GOTO(check(t, v, meta, err));
    bool evaluates = t->phase == SN_PHASE_SUPERNET; /* any whole network's weights may be scored */
    if ((!evaluates && phase != t->phase) || part != t->part + 1 || step < 0 || updates < 0)
        ES_GOTO(es_fail(err, ES_INVALID, "weights version",
                        "it is of phase %d, part %d; this training is phase %d, part %d", (int)phase, (int)part,
                        (int)t->phase, t->part + 1));
    ES_GOTO(sn_trainer_upload(t->weights, v, "values", err));
    ES_GOTO(load_optimiser(t, v, step == 0 && updates == 0, (uint64_t)updates, err));
    if (t->phase == SN_PHASE_PART)
        ES_GOTO(sn_trainer_upload(t->stats, v, "stats", err));
    ES_GOTO(kn_weights_zero_grads(t->weights, err));
    t->step = (uint64_t)step;
    t->pending = 0;
fail:
    json_decref(meta);
    return s;
}

char *sn_trainer_assembled_meta(const sn_trainer *t) { return meta_text(t, SN_PHASE_FINETUNE, 0, 0, 0); }
