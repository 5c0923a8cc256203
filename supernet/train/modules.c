/* The phases of Deep Model Assembling: where the network is cut, what each phase costs, what it starts from, and the assembly. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "supernet/train/methods.h"

es_status sn_modules_cut(const sn_trainer *t, int *part_of, es_error *err)
{
    const sn_modules_config *c = &t->file->supernet.modules;
    if (c->parts < 1 || c->parts > SN_PARTS_MAX)
        return es_fail(err, ES_INVALID, "supernet.modules.parts", "%d: allowed are 1 to %d", c->parts, SN_PARTS_MAX);
    if (c->cuts > 0 && c->cuts != c->parts - 1)
        return es_fail(err, ES_INVALID, "supernet.modules.cuts", "%d cuts make %d parts, but parts is %d", c->cuts,
                       c->cuts + 1, c->parts);
    return sn_net_cut(t->net, t->largest, c->parts, c->cuts > 0 ? c->cut : NULL, part_of, err);
}

bool sn_modules_trains(const sn_trainer *t, int set, kn_param id)
{
    return t->phase != SN_PHASE_PART || t->part_of[sn_net_param_unit(t->net, set, id)] == t->part;
}

/* Multiply-adds an image of one network: trained is the part that learns, -1 all. Gradients of inputs are needed from the end down to the trained part, gradients of
 * weights in it alone. (The very first layer's input gradient is counted though never computed: below 1 %.) */
static double training_macs(const sn_block *b, int n, const int *part_of, const uint8_t *flags, int trained)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        int part = part_of[b[i].unit];
        if (flags && flags[b[i].unit] & SN_UNIT_SKIP)
            continue;
        int passes = 1 + (part >= trained) + (trained < 0 || part == trained);
        sum += (double)passes * (double)b[i].macs;
    }
    return sum;
}

static es_status fill_plan(const sn_trainer *t, const sn_block *b, int *part_of, uint8_t *flags, sn_modules_plan *p,
                           es_error *err)
{
    const sn_modules_config *c = &t->file->supernet.modules;
    double batch = (double)t->file->supernet.batch, dearest = 0;
    ES_RETURN(sn_modules_cut(t, part_of, err));
    p->parts = c->parts;
    for (int i = p->blocks - 1; i >= 0; i--)
        p->first_block[part_of[b[i].unit]] = i;
    p->first_block[p->parts] = p->blocks;
    p->steps[SN_PHASE_META] = sn_trainer_steps_of(t, c->epochs_meta);
    p->steps[SN_PHASE_PART] = sn_trainer_steps_of(t, c->epochs_part);
    p->steps[SN_PHASE_FINETUNE] = sn_trainer_steps_of(t, c->epochs_finetune);
    double whole = training_macs(b, p->blocks, part_of, NULL, -1) * batch;
    ES_RETURN(sn_net_part_flags(t->net, t->largest, part_of, -1, flags, err));
    p->macs[SN_PHASE_META] = training_macs(b, p->blocks, part_of, flags, -1) * batch * (double)p->steps[SN_PHASE_META];
    for (int k = 0; k < p->parts; k++) {
        ES_RETURN(sn_net_part_flags(t->net, t->largest, part_of, k, flags, err));
        p->part_macs[k] = training_macs(b, p->blocks, part_of, flags, k) * batch * (double)p->steps[SN_PHASE_PART];
        p->macs[SN_PHASE_PART] += p->part_macs[k];
        dearest = fmax(dearest, p->part_macs[k]);
    }
    p->macs[SN_PHASE_FINETUNE] = whole * (double)p->steps[SN_PHASE_FINETUNE];
    double all = p->macs[SN_PHASE_META] + p->macs[SN_PHASE_PART] + p->macs[SN_PHASE_FINETUNE];
    p->critical_macs = p->macs[SN_PHASE_META] + dearest + p->macs[SN_PHASE_FINETUNE];
    p->steps[SN_PHASE_END_TO_END] = (uint64_t)fmax(1, round(all / whole));
    p->macs[SN_PHASE_END_TO_END] = whole * (double)p->steps[SN_PHASE_END_TO_END];
    return ES_OK;
}

es_status sn_modules_describe(const sn_trainer *t, sn_modules_plan *out, es_error *err)
{
    sn_block *blocks = NULL;
    int *part_of = NULL;
    uint8_t *flags = NULL;
    es_status s;
    memset(out, 0, sizeof *out);
    if (t->file->supernet.method != SN_METHOD_MODULES)
        return es_fail(err, ES_INVALID, "supernet.method", "only modules are trained in phases");
    ES_GOTO(sn_net_blocks(t->net, t->largest, &blocks, &out->blocks, err));
    out->units = sn_net_units(t->net);
    part_of = es_xcalloc((size_t)out->units, sizeof *part_of);
    flags = es_xcalloc((size_t)out->units, 1);
    ES_GOTO(fill_plan(t, blocks, part_of, flags, out, err));
fail:
    free(blocks);
    free(part_of);
    free(flags);
    return s;
}

/* The parameters of one part from one flat buffer into another. */
static void copy_part(const sn_trainer *t, const int *part_of, int part, const float *from, float *to)
{
    const kn_params *p = sn_net_params(t->net);
    for (int i = 0; i < kn_params_count(p); i++) {
        const kn_param_def *d = kn_params_def(p, i);
        if (part_of[sn_net_param_unit(t->net, KN_SET_WEIGHTS, i)] == part)
            memcpy(to + d->offset, from + d->offset, (size_t)d->count * sizeof *to);
    }
}

/* The part's parameters drawn afresh by the phase's seed, the others as they are. */
static es_status draw_part(sn_trainer *t, es_error *err)
{
    size_t n = (size_t)kn_params_elements(sn_net_params(t->net));
    float *kept = es_xcalloc(n, sizeof *kept), *drawn = es_xcalloc(n, sizeof *drawn);
    es_status s;
    ES_GOTO(kn_weights_download(t->weights, kept, err));
    ES_GOTO(kn_weights_init(t->weights, t->seed, err));
    ES_GOTO(kn_weights_download(t->weights, drawn, err));
    copy_part(t, t->part_of, t->part, drawn, kept);
    ES_GOTO(kn_weights_upload(t->weights, kept, err));
    ES_GOTO(kn_weights_changed(t->weights, err));
fail:
    free(kept);
    free(drawn);
    return s;
}

es_status sn_modules_start(sn_trainer *t, const sn_version *meta, es_error *err)
{
    int phase = 0, part = 0;
    uint8_t *flags = NULL;
    es_status s;
    if (t->phase != SN_PHASE_PART || !meta)
        return kn_weights_init(t->weights, t->seed, err);
    ES_GOTO(sn_trainer_check(t, meta, &phase, &part, err));
    if (phase != SN_PHASE_META)
        ES_GOTO(es_fail(err, ES_INVALID, "weights version", "phase %d: a part starts from the meta model's (phase %d)",
                        phase, SN_PHASE_META));
    ES_GOTO(sn_trainer_upload(t->weights, meta, "values", err));
    flags = es_xcalloc((size_t)sn_net_units(t->net), 1);
    ES_GOTO(sn_net_part_flags(t->net, t->largest, t->part_of, -1, flags, err));
    ES_GOTO(sn_calibrate(t, t->largest, flags, t->weights, t->stats, err));
    ES_GOTO(draw_part(t, err));
fail:
    free(flags);
    return s;
}

es_status sn_modules_assemble(sn_trainer *t, const sn_version *const *parts, int n, sn_version **out, es_error *err)
{
    int *part_of = es_xcalloc((size_t)sn_net_units(t->net), sizeof *part_of);
    sn_version *v = sn_version_new("supernet");
    char *meta = NULL;
    float *host = NULL;
    int64_t elements = kn_params_elements(sn_net_params(t->net));
    kn_shape shape = KN_SHAPE((int32_t)elements);
    es_status s;
    ES_GOTO(sn_modules_cut(t, part_of, err));
    if (n != t->file->supernet.modules.parts)
        ES_GOTO(es_fail(err, ES_INVALID, "assemble", "%d versions for %d parts", n, t->file->supernet.modules.parts));
    for (int k = 0; k < n; k++) {
        int phase = 0, part = 0;
        ES_GOTO(sn_trainer_check(t, parts[k], &phase, &part, err));
        const sn_array *a = sn_version_find(parts[k], "values");
        if (phase != SN_PHASE_PART || part != k + 1 || !a || a->dtype != KN_F32 || !kn_shape_equal(&a->shape, &shape))
            ES_GOTO(es_fail(err, ES_INVALID, "assemble",
                            "version %d of the list is phase %d, part %d: expected the weights of part %d", k + 1,
                            phase, part, k + 1));
        if (k == 0) { /* parameters that the architecture does not use come from here */
            host = es_xcalloc((size_t)elements, sizeof *host);
            memcpy(host, a->data, a->bytes);
        }
        copy_part(t, part_of, k, a->data, host);
    }
    ES_GOTO(sn_version_add(v, "values", KN_F32, &shape, host, err));
    meta = sn_trainer_assembled_meta(t);
    sn_version_meta(v, meta);
    *out = v;
    v = NULL;
fail:
    sn_version_destroy(&v);
    free(part_of);
    free(host);
    free(meta);
    return s;
}
