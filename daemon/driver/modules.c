/* Deep Model Assembling (supernet/train/train.h): the phases as a graph of jobs, so that parts train on different workers at once and a failed part is trained again alone.
 *
 *     meta -> part/1 .. part/K -> assemble -> finetune -> validation, test, export -> result
 *     end-to-end -> baseline/validation, baseline/test                                     (when the file asks for the comparison)
 *
 * All jobs exist from the start; a spec is completed with what its predecessors made when the last of them is done (`prepare`).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/coord/driver.h"
#include "daemon/coord/search.h"

enum { PARTS_MAX = 17 };

typedef struct modules {
    char *arch; /* the largest of the space: the one architecture trained */
    es_id id;
    sn_cost cost;
    char weights[72], meta[72], part[PARTS_MAX][72], *parts[PARTS_MAX]; /* what prepare lends to a spec */
    int64_t meta_job, finetune_job;
} modules;

static bool modules_takes(const sn_search_file *f)
{
    return f->task != SN_TASK_TABLE && f->supernet.method == SN_METHOD_MODULES;
}

/* ---- the graph */

static es_status training(dm_search *s, const char *key, int phase, int part, const int64_t *needs, int n, int64_t *id,
                          es_error *err)
{
    dm_job_spec spec = ESPALIER__WIRE__JOB_SPEC__INIT;
    spec.kind = ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_MODULE;
    spec.phase = (Espalier__Wire__Phase)phase;
    spec.part = (uint32_t)part;
    spec.until_step = (uint64_t)s->file->supernet.slice_steps;
    return dm_driver_job(s, key, &spec, needs, n, id, err);
}

static es_status use(dm_search *s, const char *key, int kind, const char *split, int64_t needs, int64_t *id,
                     es_error *err)
{
    modules *d = s->driver_state;
    dm_job_spec spec = ESPALIER__WIRE__JOB_SPEC__INIT;
    spec.kind = (Espalier__Wire__JobKind)kind;
    spec.split = dm_text(split);
    spec.n_architectures = 1;
    spec.architectures = &d->arch;
    return dm_driver_job(s, key, &spec, &needs, 1, id, err);
}

static es_status scores(dm_search *s, const char *prefix, int64_t needs, es_error *err)
{
    char key[32];
    int64_t id;
    snprintf(key, sizeof key, "%svalidation", prefix);
    ES_RETURN(use(s, key, ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS, "validation", needs, &id, err));
    snprintf(key, sizeof key, "%stest", prefix);
    return use(s, key, ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS, "test", needs, &id, err);
}

static es_status modules_open(dm_search *s, es_error *err)
{
    const sn_modules_config *m = &s->file->supernet.modules;
    modules *d = s->driver_state = es_xcalloc(1, sizeof *d);
    const sr_space *choices = sn_space_choices(s->file->space);
    sr_arch *a = sr_arch_new(choices);
    int64_t parts[PARTS_MAX], assemble, id;
    dm_job_spec spec = ESPALIER__WIRE__JOB_SPEC__INIT;
    sr_arch_largest(choices, a);
    sr_arch_id(choices, a, &d->id);
    d->arch = sn_arch_format(s->file->space, a);
    es_status status = sn_space_cost(s->file->space, a, &d->cost, err);
    free(a);
    ES_RETURN(status);
    if (m->parts < 1 || m->parts > PARTS_MAX)
        return es_fail(err, ES_INVALID, "supernet.modules.parts", "is %d, allowed are 1 to %d", m->parts, PARTS_MAX);
    ES_RETURN(training(s, "meta", ESPALIER__WIRE__PHASE__PHASE_META, 0, NULL, 0, &d->meta_job, err));
    for (int k = 0; k < m->parts; k++) {
        char key[32];
        snprintf(key, sizeof key, "part/%d", k + 1);
        ES_RETURN(training(s, key, ESPALIER__WIRE__PHASE__PHASE_PART, k + 1, &d->meta_job, 1, &parts[k], err));
    }
    spec.kind = ESPALIER__WIRE__JOB_KIND__JOB_ASSEMBLE;
    ES_RETURN(dm_driver_job(s, "assemble", &spec, parts, m->parts, &assemble, err));
    d->finetune_job = assemble;
    if (m->epochs_finetune > 0)
        ES_RETURN(
            training(s, "finetune", ESPALIER__WIRE__PHASE__PHASE_FINETUNE, 0, &assemble, 1, &d->finetune_job, err));
    ES_RETURN(scores(s, "", d->finetune_job, err));
    ES_RETURN(use(s, "export", ESPALIER__WIRE__JOB_KIND__JOB_EXPORT, "", d->finetune_job, &id, err));
    if (!m->end_to_end)
        return ES_OK;
    ES_RETURN(training(s, "end-to-end", ESPALIER__WIRE__PHASE__PHASE_END_TO_END, 0, NULL, 0, &id, err));
    return scores(s, "baseline/", id, err);
}

static void modules_close(dm_search *s)
{
    modules *d = s->driver_state;
    if (!d)
        return;
    free(d->arch);
    free(d);
    s->driver_state = NULL;
}

/* ---- completing specs */

static es_status made(dm_search *s, const char *key, char out[72], es_error *err)
{
    dm_job_result *r;
    ES_RETURN(dm_driver_job_result(s, key, &r, err));
    snprintf(out, 72, "%s", r->weights);
    dm_job_result_free(&r);
    return ES_OK;
}

static const char *final_key(const dm_search *s)
{
    return s->file->supernet.modules.epochs_finetune > 0 ? "finetune" : "assemble";
}

static es_status modules_prepare(dm_search *s, const dm_job_row *j, dm_job_spec *spec, es_error *err)
{
    modules *d = s->driver_state;
    bool baseline = strncmp(j->key, "baseline/", 9) == 0;
    if (spec->phase == ESPALIER__WIRE__PHASE__PHASE_PART) {
        ES_RETURN(made(s, "meta", d->meta, err));
        spec->meta_weights = d->meta;
        return ES_OK;
    }
    if (spec->kind == ESPALIER__WIRE__JOB_KIND__JOB_ASSEMBLE) {
        ES_RETURN(made(s, "meta", d->meta, err));
        spec->meta_weights = d->meta;
        spec->n_part_weights = (size_t)s->file->supernet.modules.parts;
        spec->part_weights = d->parts;
        for (int k = 0; k < s->file->supernet.modules.parts; k++) {
            char key[32];
            snprintf(key, sizeof key, "part/%d", k + 1);
            ES_RETURN(made(s, key, d->part[k], err));
            d->parts[k] = d->part[k];
        }
        return ES_OK;
    }
    bool tunes = spec->phase == ESPALIER__WIRE__PHASE__PHASE_FINETUNE;
    ES_RETURN(made(s, tunes ? "assemble" : baseline ? "end-to-end" : final_key(s), d->weights, err));
    spec->weights = d->weights;
    return ES_OK;
}

/* ---- results */

static es_status modules_done(dm_search *s, const dm_job_row *j, const dm_job_result *r, es_error *err)
{
    modules *d = s->driver_state;
    if (j->kind == ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS &&
        (r->n_evaluations != 1 || strcmp(r->evaluations[0]->architecture, d->arch) != 0 ||
         r->evaluations[0]->samples == 0 || r->evaluations[0]->correct > r->evaluations[0]->samples))
        return es_fail(err, ES_INVALID, "result", "is not one evaluation of the architecture asked for");
    bool stores = j->kind == ESPALIER__WIRE__JOB_KIND__JOB_EXPORT || j->kind == ESPALIER__WIRE__JOB_KIND__JOB_ASSEMBLE;
    if (j->kind == ESPALIER__WIRE__JOB_KIND__JOB_EXPORT && r->n_exported != 1)
        return es_fail(err, ES_INVALID, "result", "%zu exported versions for one architecture", r->n_exported);
    const char *version = j->kind == ESPALIER__WIRE__JOB_KIND__JOB_EXPORT ? r->exported[0] : r->weights;
    if (stores && s->c->env.has_version && !s->c->env.has_version(s->c->env.ctx, version))
        return es_fail(err, ES_INVALID, "result", "version \"%.16s\" is not in the weights store", version);
    return ES_OK;
}

static es_status put_score(dm_search *s, es_json *out, const char *prefix, es_error *err)
{
    static const char *const splits[] = {"validation", "test"}, *const names[] = {"accuracy", "test_accuracy"};
    for (int i = 0; i < 2; i++) {
        char key[48];
        dm_job_result *r;
        snprintf(key, sizeof key, "%s%s", prefix, splits[i]);
        ES_RETURN(dm_driver_job_result(s, key, &r, err));
        const Espalier__Wire__Evaluation *e = r->evaluations[0];
        es_json_f64(out, names[i], (double)e->correct / (double)e->samples);
        dm_job_result_free(&r);
    }
    return ES_OK;
}

static es_status put_result(dm_search *s, es_json *j, es_error *err)
{
    modules *d = s->driver_state;
    char weights[72];
    dm_job_result *exported;
    ES_RETURN(made(s, final_key(s), weights, err));
    es_json_object(j, NULL);
    es_json_str(j, "name", s->file->name);
    es_json_i64(j, "seed", (int64_t)s->file->seed);
    es_json_str(j, "algorithm", "modules");
    es_json_i64(j, "evaluations", 1);
    es_json_i64(j, "parts", s->file->supernet.modules.parts);
    es_json_str(j, "weights", weights);
    es_json_array(j, "front");
    es_json_object(j, NULL);
    es_json_str(j, "architecture", d->arch);
    ES_RETURN(put_score(s, j, "", err));
    es_json_i64(j, "params", d->cost.params);
    es_json_i64(j, "macs", d->cost.macs);
    es_json_raw(j, "latency_ms", "null");
    es_json_i64(j, "activation_bytes", d->cost.activation_bytes);
    ES_RETURN(dm_driver_job_result(s, "export", &exported, err));
    es_json_str(j, "weights", exported->exported[0]);
    dm_job_result_free(&exported);
    es_json_end(j);
    es_json_end(j);
    if (s->file->supernet.modules.end_to_end) {
        es_json_object(j, "end_to_end");
        ES_RETURN(put_score(s, j, "baseline/", err));
        es_json_end(j);
    }
    es_json_end(j);
    return ES_OK;
}

static bool modules_over(dm_search *s, const char *key)
{
    dm_job_result *r;
    bool yes = dm_driver_job_result(s, key, &r, NULL) == ES_OK;
    dm_job_result_free(&r);
    return yes;
}

static es_status modules_advance(dm_search *s, es_error *err)
{
    bool baseline = s->file->supernet.modules.end_to_end;
    if (!modules_over(s, "meta"))
        return dm_search_phase(s, err, "training the meta model");
    if (!modules_over(s, "assemble"))
        return dm_search_phase(s, err, "training the parts");
    if (!modules_over(s, final_key(s)))
        return dm_search_phase(s, err, "fine-tuning the assembled network");
    if (!modules_over(s, "validation") || !modules_over(s, "test") || !modules_over(s, "export"))
        return dm_search_phase(s, err, "scoring the assembled network");
    if (baseline && (!modules_over(s, "baseline/validation") || !modules_over(s, "baseline/test")))
        return dm_search_phase(s, err, "training end to end, to compare");
    es_json j;
    es_json_begin(&j, 2);
    es_status status = put_result(s, &j, err);
    if (status != ES_OK) {
        es_json_free(&j);
        return status;
    }
    char *json = es_json_finish(&j);
    status = dm_search_set_result(s->c->store, s->id, json, err);
    free(json);
    ES_RETURN(status);
    ES_RETURN(dm_search_phase(s, err, "done"));
    return dm_search_end(s->c, s, DM_SEARCH_DONE, NULL, err);
}

static void modules_show(dm_search *s, es_json *j)
{
    es_json_raw(j, "training", "null");
    es_json_object(j, "evaluations");
    es_json_i64(j, "done", modules_over(s, "validation"));
    es_json_i64(j, "total", 1);
    es_json_end(j);
    es_json_raw(j, "left_s", "null");
}

const dm_driver dm_driver_modules = {
    .name = "modules",
    .takes = modules_takes,
    .open = modules_open,
    .close = modules_close,
    .advance = modules_advance,
    .prepare = modules_prepare,
    .done = modules_done,
    .show = modules_show,
};
