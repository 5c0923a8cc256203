#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "supernet/train/methods.h"

/* The box of a dense row-major tensor, as a dense tensor. */
static void cut(const float *from, const kn_shape *shape, const kn_box *box, float *to)
{
    int64_t index[KN_RANK_MAX] = {0}, stride[KN_RANK_MAX] = {0};
    int rank = shape->rank;
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape->d[i];
    }
    if (rank == 0) {
        to[0] = from[0];
        return;
    }
    size_t row = (size_t)box->extent[rank - 1] * sizeof *to;
    for (;;) {
        int64_t at = 0;
        for (int i = 0; i < rank; i++)
            at += (box->start[i] + index[i]) * stride[i];
        memcpy(to, from + at, row);
        to += box->extent[rank - 1];
        int i = rank - 2;
        while (i >= 0 && ++index[i] == box->extent[i])
            index[i--] = 0;
        if (i < 0)
            return;
    }
}

static es_status add_slice(sn_version *v, const kn_params *p, const sn_slice *sl, const float *flat, es_error *err)
{
    const kn_param_def *d = kn_params_def(p, sl->id);
    kn_shape shape = kn_shape_make(d->shape.rank, sl->box.extent);
    float *dense = es_xcalloc((size_t)kn_shape_count(&shape), sizeof *dense);
    cut(flat + d->offset, &d->shape, &sl->box, dense);
    es_status s = sn_version_add(v, d->name, KN_F32, &shape, dense, err);
    free(dense);
    return s;
}

static char *subnet_meta(const sn_trainer *t, const sr_arch *a)
{
    char *text = sn_arch_format(t->file->space, a);
    es_json j;
    es_json_begin(&j, 0);
    es_json_object(&j, NULL);
    es_json_str(&j, "architecture", text);
    es_json_i64(&j, "step", (int64_t)t->step);
    es_json_end(&j);
    free(text);
    return es_json_finish(&j);
}

es_status sn_extract(sn_trainer *t, const sr_arch *a, sn_version **out, es_error *err)
{
    const kn_params *sets[KN_SETS] = {sn_net_params(t->net), sn_net_stats(t->net)};
    kn_weights *weights[KN_SETS] = {NULL, t->eval_stats};
    float *flat[KN_SETS] = {NULL, NULL};
    sn_slice *slices = NULL;
    int count = 0;
    char *meta = NULL;
    sn_version *v = sn_version_new("subnet");
    es_status s;
    ES_GOTO(sn_trainer_eval_weights(t, &weights[KN_SET_WEIGHTS], err));
    ES_GOTO(sn_calibrate(t, a, NULL, weights[KN_SET_WEIGHTS], t->eval_stats, err));
    ES_GOTO(kn_device_sync(t->dev, err));
    for (int i = 0; i < KN_SETS; i++) {
        flat[i] = es_xcalloc((size_t)kn_params_elements(sets[i]) + 1, sizeof(float));
        ES_GOTO(kn_weights_download(weights[i], flat[i], err));
    }
    ES_GOTO(sn_net_slices(t->net, a, &slices, &count, err));
    for (int i = 0; i < count; i++)
        ES_GOTO(add_slice(v, sets[slices[i].set], &slices[i], flat[slices[i].set], err));
    meta = subnet_meta(t, a);
    sn_version_meta(v, meta);
    *out = v;
    v = NULL;
fail:
    sn_version_destroy(&v);
    free(slices);
    free(flat[0]);
    free(flat[1]);
    free(meta);
    return s;
}

static es_status load_set(const sn_version *v, kn_weights *w, es_error *err)
{
    const kn_params *p = kn_weights_params(w);
    float *flat = es_xcalloc((size_t)kn_params_elements(p) + 1, sizeof *flat);
    es_status s;
    for (int i = 0; i < kn_params_count(p); i++) {
        const kn_param_def *d = kn_params_def(p, i);
        const sn_array *a = sn_version_find(v, d->name);
        char text[64];
        if (!a || a->dtype != KN_F32 || !kn_shape_equal(&a->shape, &d->shape))
            ES_GOTO(es_fail(err, ES_INVALID, d->name, "%s: expected F32 %s",
                            a ? "another shape or type" : "no such array in the version",
                            kn_shape_text(&d->shape, text)));
        memcpy(flat + d->offset, a->data, a->bytes);
    }
    ES_GOTO(kn_weights_upload(w, flat, err));
    ES_GOTO(kn_weights_changed(w, err));
fail:
    free(flat);
    return s;
}

es_status sn_subnet_load(const sn_version *v, kn_weights *weights, kn_weights *stats, es_error *err)
{
    ES_RETURN(load_set(v, weights, err));
    return load_set(v, stats, err);
}
