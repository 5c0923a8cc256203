/* The supernet search: train the shared weights in slices, evaluate what the algorithm asks for against the final version, score the front once on the test
 * set, cut its members' weights out.
 *
 *     train -> eval/0, eval/1 ... (latency/0 ...) -> test/0 ..., export/0 ... -> result
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/coord/search.h"
#include "daemon/driver/hunt.h"

typedef struct supernet {
    dm_hunt *hunt;
    int64_t train_job;
    char weights[72]; /* the final version; "" until trained */
    int64_t *front;   /* once everything is told */
    int front_n;
    bool finals; /* test and export jobs exist */
} supernet;

static bool supernet_takes(const sn_search_file *f)
{
    return f->task != SN_TASK_TABLE && f->supernet.method != SN_METHOD_MODULES;
}

static es_status supernet_batch(dm_hunt *h, int64_t number, int64_t first, int count, es_error *err);

static es_status supernet_open(dm_search *s, es_error *err)
{
    supernet *d = s->driver_state = es_xcalloc(1, sizeof *d);
    ES_RETURN(dm_hunt_open(s, supernet_batch, &d->hunt, err));
    dm_job_spec spec = ESPALIER__WIRE__JOB_SPEC__INIT;
    spec.kind = ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET;
    spec.until_step = (uint64_t)s->file->supernet.slice_steps;
    return dm_driver_job(s, "train", &spec, NULL, 0, &d->train_job, err);
}

static void supernet_close(dm_search *s)
{
    supernet *d = s->driver_state;
    if (!d)
        return;
    dm_hunt_close(&d->hunt);
    free(d->front);
    free(d);
    s->driver_state = NULL;
}

/* One job over some architectures: eval, latency, test, export. */
static es_status supernet_job(dm_search *s, const char *prefix, int64_t number, int kind, const char *split,
                              const int64_t *tickets, int count, es_error *err)
{
    supernet *d = s->driver_state;
    dm_job_spec spec = ESPALIER__WIRE__JOB_SPEC__INIT;
    char key[48], *archs[DM_HUNT_BATCH] = {0};
    int64_t id;
    ES_ASSERT(count <= DM_HUNT_BATCH);
    for (int i = 0; i < count; i++)
        archs[i] = dm_hunt_text(d->hunt, tickets[i]);
    snprintf(key, sizeof key, "%s/%" PRId64, prefix, number);
    spec.kind = (Espalier__Wire__JobKind)kind;
    spec.weights = d->weights;
    spec.n_architectures = (size_t)count;
    spec.architectures = archs;
    spec.split = dm_text(split);
    es_status status = dm_driver_job(s, key, &spec, NULL, 0, &id, err);
    for (int i = 0; i < count; i++)
        free(archs[i]);
    return status;
}

static es_status supernet_batch(dm_hunt *h, int64_t number, int64_t first, int count, es_error *err)
{
    int64_t tickets[DM_HUNT_BATCH];
    for (int i = 0; i < count; i++)
        tickets[i] = first + i;
    ES_RETURN(supernet_job(h->s, "eval", number, ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS, "validation", tickets,
                           count, err));
    if (!h->needs_latency)
        return ES_OK;
    return supernet_job(h->s, "latency", number, ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY, "", tickets, count,
                        err);
}

/* Is training over? Then its weights are what everything after refers to. */
static es_status supernet_trained(dm_search *s, bool *yes, es_error *err)
{
    supernet *d = s->driver_state;
    dm_job_result *r;
    *yes = d->weights[0] != 0;
    if (*yes)
        return ES_OK;
    es_status status = dm_driver_job_result(s, "train", &r, err);
    if (status == ES_NOT_FOUND)
        return ES_OK;
    ES_RETURN(status);
    snprintf(d->weights, sizeof d->weights, "%s", r->weights);
    dm_job_result_free(&r);
    *yes = true;
    return ES_OK;
}

static es_status supernet_finals(dm_search *s, es_error *err)
{
    supernet *d = s->driver_state;
    if (!d->finals) {
        d->front_n = dm_hunt_front(d->hunt, &d->front);
        if (d->front_n == 0)
            return es_fail(err, ES_INFEASIBLE, "constraints",
                           "none of the %" PRId64 " evaluated architectures meets every constraint",
                           sr_told(d->hunt->search));
        ES_RETURN(dm_search_phase(s, err, "scoring the front on the test set"));
        for (int i = 0; i < d->front_n; i += DM_HUNT_BATCH) {
            int n = d->front_n - i < DM_HUNT_BATCH ? d->front_n - i : DM_HUNT_BATCH;
            ES_RETURN(supernet_job(s, "test", i / DM_HUNT_BATCH, ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS, "test",
                                   d->front + i, n, err));
            ES_RETURN(supernet_job(s, "export", i / DM_HUNT_BATCH, ESPALIER__WIRE__JOB_KIND__JOB_EXPORT, "",
                                   d->front + i, n, err));
        }
        d->finals = true;
    }
    for (int i = 0; i < d->front_n; i++) {
        const dm_found *f = &d->hunt->found[d->front[i]];
        if (!f->test_known || !f->exported[0])
            return ES_OK;
    }
    char *json = dm_report_result(d->hunt, d->weights);
    es_status status = dm_search_set_result(s->c->store, s->id, json, err);
    free(json);
    ES_RETURN(status);
    ES_RETURN(dm_search_phase(s, err, "done"));
    return dm_search_end(s->c, s, DM_SEARCH_DONE, NULL, err);
}

static es_status supernet_advance(dm_search *s, es_error *err)
{
    supernet *d = s->driver_state;
    bool trained;
    ES_RETURN(supernet_trained(s, &trained, err));
    if (!trained)
        return dm_search_phase(s, err, "training the supernet");
    if (!dm_hunt_over(d->hunt))
        ES_RETURN(dm_hunt_advance(d->hunt, err));
    if (!dm_hunt_over(d->hunt))
        return dm_search_phase(s, err, "evaluating subnets");
    return supernet_finals(s, err);
}

/* ---- results */

static es_status result_shape(const dm_job_spec *spec, size_t n, const char *what, es_error *err)
{
    if (n != spec->n_architectures)
        return es_fail(err, ES_INVALID, "result", "%zu %s for %zu architectures", n, what, spec->n_architectures);
    return ES_OK;
}

static es_status result_arch(const dm_job_spec *spec, size_t i, const char *told, es_error *err)
{
    if (strcmp(spec->architectures[i], told ? told : "") != 0)
        return es_fail(err, ES_INVALID, "result", "entry %zu is of another architecture than was asked for", i);
    return ES_OK;
}

static es_status arch_id(dm_search *s, const char *text, es_id *id, es_error *err)
{
    supernet *d = s->driver_state;
    ES_RETURN(sn_arch_parse(s->file->space, text, d->hunt->arch, err));
    sr_arch_id(sn_space_choices(s->file->space), d->hunt->arch, id);
    return ES_OK;
}

static es_status evaluations_check(const dm_job_spec *spec, const dm_job_result *r, es_error *err)
{
    ES_RETURN(result_shape(spec, r->n_evaluations, "evaluations", err));
    for (size_t i = 0; i < r->n_evaluations; i++) {
        const Espalier__Wire__Evaluation *e = r->evaluations[i];
        ES_RETURN(result_arch(spec, i, e->architecture, err));
        if (e->samples == 0 || e->correct > e->samples)
            return es_fail(err, ES_INVALID, "result", "%" PRIu64 " correct of %" PRIu64 " samples", e->correct,
                           e->samples);
    }
    return ES_OK;
}

static es_status done_eval(dm_search *s, const dm_job_row *j, const dm_job_spec *spec, const dm_job_result *r,
                           es_error *err)
{
    supernet *d = s->driver_state;
    ES_RETURN(evaluations_check(spec, r, err));
    for (size_t i = 0; i < r->n_evaluations; i++) {
        const Espalier__Wire__Evaluation *e = r->evaluations[i];
        dm_result row = {.weights = spec->weights,
                         .split = strcmp(spec->split, "test") == 0 ? DM_SPLIT_TEST : DM_SPLIT_VALIDATION,
                         .measure = DM_MEASURE_ACCURACY,
                         .job = j->id,
                         .ok = true,
                         .value = (double)e->correct / (double)e->samples,
                         .loss = e->loss,
                         .correct = (int64_t)e->correct,
                         .samples = (int64_t)e->samples};
        ES_RETURN(arch_id(s, e->architecture, &row.id, err));
        ES_RETURN(dm_hunt_result(d->hunt, &row, err));
    }
    return ES_OK;
}

static es_status done_latency(dm_search *s, const dm_job_row *j, const dm_job_spec *spec, const dm_job_result *r,
                              es_error *err)
{
    supernet *d = s->driver_state;
    ES_RETURN(result_shape(spec, r->n_latencies, "latencies", err));
    for (size_t i = 0; i < r->n_latencies; i++) {
        const Espalier__Wire__Latency *l = r->latencies[i];
        ES_RETURN(result_arch(spec, i, l->architecture, err));
        if (!(l->low_ms > 0 && l->low_ms <= l->median_ms && l->median_ms <= l->high_ms && isfinite(l->high_ms)))
            return es_fail(err, ES_INVALID, "result", "a latency of %g ms with quartiles %g and %g", l->median_ms,
                           l->low_ms, l->high_ms);
    }
    for (size_t i = 0; i < r->n_latencies; i++) {
        const Espalier__Wire__Latency *l = r->latencies[i];
        char machine[400];
        snprintf(machine, sizeof machine, "%.200s%s%.150s", l->machine_kind, l->clocks && l->clocks[0] ? "; " : "",
                 l->clocks ? l->clocks : "");
        dm_result row = {.weights = "",
                         .split = DM_SPLIT_NONE,
                         .measure = DM_MEASURE_LATENCY,
                         .job = j->id,
                         .ok = true,
                         .value = l->median_ms,
                         .low = l->low_ms,
                         .high = l->high_ms,
                         .samples = l->runs,
                         .text = machine};
        ES_RETURN(arch_id(s, l->architecture, &row.id, err));
        ES_RETURN(dm_hunt_result(d->hunt, &row, err));
    }
    return ES_OK;
}

static es_status done_export(dm_search *s, const dm_job_row *j, const dm_job_spec *spec, const dm_job_result *r,
                             es_error *err)
{
    supernet *d = s->driver_state;
    dm_coord *c = s->c;
    ES_RETURN(result_shape(spec, r->n_exported, "exported versions", err));
    for (size_t i = 0; i < r->n_exported; i++) {
        es_hash id;
        if (es_hash_parse(r->exported[i], &id, NULL) != ES_OK ||
            (c->env.has_version && !c->env.has_version(c->env.ctx, r->exported[i])))
            return es_fail(err, ES_INVALID, "result", "version \"%.16s\" is not in the weights store", r->exported[i]);
    }
    for (size_t i = 0; i < r->n_exported; i++) {
        dm_result row = {.weights = spec->weights,
                         .split = DM_SPLIT_NONE,
                         .measure = DM_MEASURE_EXPORT,
                         .job = j->id,
                         .ok = true,
                         .text = r->exported[i]};
        ES_RETURN(arch_id(s, spec->architectures[i], &row.id, err));
        ES_RETURN(dm_hunt_result(d->hunt, &row, err));
    }
    return ES_OK;
}

static es_status with_spec(dm_search *s, const dm_job_row *j, const dm_job_result *r,
                           es_status (*fn)(dm_search *s, const dm_job_row *j, const dm_job_spec *spec,
                                           const dm_job_result *r, es_error *err),
                           es_error *err)
{
    ProtobufCMessage *base = NULL;
    ES_RETURN(dm_decode(&espalier__wire__job_spec__descriptor, j->spec, j->spec_bytes, &base, err));
    es_status status = fn(s, j, (const dm_job_spec *)base, r, err);
    dm_message_free(&base);
    return status;
}

static es_status supernet_done(dm_search *s, const dm_job_row *j, const dm_job_result *r, es_error *err)
{
    switch (j->kind) {
    case ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS: return with_spec(s, j, r, done_eval, err);
    case ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY: return with_spec(s, j, r, done_latency, err);
    case ESPALIER__WIRE__JOB_KIND__JOB_EXPORT: return with_spec(s, j, r, done_export, err);
    default: return ES_OK; /* training: `advance` reads the job's result */
    }
}

static es_status mark_failed(dm_search *s, const dm_job_row *j, const dm_job_spec *spec, const dm_job_result *r,
                             es_error *err)
{
    supernet *d = s->driver_state;
    (void)r;
    for (size_t i = 0; i < spec->n_architectures; i++) {
        dm_result row = {.weights = spec->weights,
                         .split = DM_SPLIT_VALIDATION,
                         .measure = DM_MEASURE_ACCURACY,
                         .job = j->id,
                         .ok = false};
        if (j->kind == ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY) {
            row.weights = "";
            row.split = DM_SPLIT_NONE;
            row.measure = DM_MEASURE_LATENCY;
        }
        ES_RETURN(arch_id(s, spec->architectures[i], &row.id, err));
        ES_RETURN(dm_hunt_result(d->hunt, &row, err));
    }
    return ES_OK;
}

/* Architectures that cannot be evaluated count as worst, as long as others can be. */
static es_status supernet_failed(dm_search *s, const dm_job_row *j, bool *survives, es_error *err)
{
    supernet *d = s->driver_state;
    bool search_job = j->key && (strncmp(j->key, "eval/", 5) == 0 || strncmp(j->key, "latency/", 8) == 0);
    *survives = false;
    for (int64_t t = 0; search_job && t < d->hunt->n && !*survives; t++)
        *survives = d->hunt->found[t].accuracy_known;
    if (!*survives)
        return ES_OK;
    s->busy = true;
    return with_spec(s, j, NULL, mark_failed, err);
}

/* ---- for people */

static double supernet_left_s(const dm_search *s, const supernet *d, int64_t step, int64_t steps, double per_second)
{
    if (!d->weights[0])
        return steps > 0 && per_second > 0 ? (double)(steps - step) * s->file->supernet.batch / per_second : -1;
    const dm_hunt *h = d->hunt;
    int64_t told = sr_told(h->search), since = told - h->told_since;
    if (h->first_told_ms == 0 || since < 1)
        return -1;
    return (double)(s->c->wall_ms - h->first_told_ms) / 1000.0 / (double)since *
           (double)(h->problem.evaluations - told);
}

static void supernet_show(dm_search *s, es_json *j)
{
    supernet *d = s->driver_state;
    dm_checkpoint cp = {0};
    char weights[72];
    if (dm_checkpoint_last(s->c->store, d->train_job, &cp, weights, NULL) != ES_OK)
        cp.loss = cp.per_second = NAN;
    int64_t step = cp.step, steps = cp.steps;
    double loss = cp.loss, per_second = cp.per_second;
    const dm_lease *l = es_map_get(&s->c->leases, (uint64_t)d->train_job);
    if (l && l->steps > 0) {
        step = (int64_t)l->step;
        steps = (int64_t)l->steps;
        loss = l->loss;
        per_second = l->per_second;
    }
    es_json_object(j, "training");
    es_json_i64(j, "step", step);
    es_json_i64(j, "steps", steps);
    es_json_f64(j, "epochs", s->file->supernet.epochs);
    es_json_f64(j, "loss", loss);
    es_json_f64(j, "images_per_s", per_second);
    es_json_end(j);
    es_json_object(j, "evaluations");
    es_json_i64(j, "done", sr_told(d->hunt->search));
    es_json_i64(j, "total", d->hunt->problem.evaluations);
    es_json_end(j);
    double left = supernet_left_s(s, d, step, steps, per_second);
    if (left >= 0)
        es_json_f64(j, "left_s", left);
    else
        es_json_raw(j, "left_s", "null");
}

static void supernet_pareto(dm_search *s, es_json *j)
{
    supernet *d = s->driver_state;
    int64_t *front;
    int n = dm_hunt_front(d->hunt, &front);
    for (int i = 0; i < n; i++)
        dm_report_member(d->hunt, front[i], false, j);
    free(front);
}

const dm_driver dm_driver_supernet = {
    .name = "supernet",
    .takes = supernet_takes,
    .open = supernet_open,
    .close = supernet_close,
    .advance = supernet_advance,
    .done = supernet_done,
    .failed = supernet_failed,
    .show = supernet_show,
    .pareto = supernet_pareto,
};
