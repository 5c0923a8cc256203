#include "daemon/coord/slice.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/coord/driver.h"
#include "daemon/coord/failure.h"
#include "daemon/coord/fit.h"
#include "daemon/coord/sched.h"
#include "daemon/coord/turn.h"
#include "daemon/coord/worker.h"

#include "supernet/searchfile/searchfile.h"

/* steps_known: what the slice before said of the whole training; 0: this is the first. */
static es_status slice_check(dm_coord *c, const dm_slice *x, const dm_job_spec *spec, uint64_t steps_known,
                             es_error *why)
{
    const dm_job_result *r = x->result;
    es_hash id;
    if (es_hash_parse(r->weights ? r->weights : "", &id, NULL) != ES_OK)
        return es_fail(why, ES_CORRUPT, "result.weights", "\"%.80s\" is no weights version", r->weights);
    if (r->step < spec->step || r->step > spec->until_step)
        return es_fail(why, ES_CORRUPT, "result.step", "is %" PRIu64 ", the slice is %" PRIu64 " to %" PRIu64, r->step,
                       spec->step, spec->until_step);
    if (r->steps == 0)
        return es_fail(why, ES_CORRUPT, "result.steps", "is missing: how long the whole training is");
    if (steps_known && r->steps != steps_known)
        return es_fail(why, ES_CORRUPT, "result.steps",
                       "is %" PRIu64 ", the slice before said %" PRIu64 ": other data, or a broken worker%s", r->steps,
                       steps_known, spec->length_agreed ? "" : "; nobody knows which, and the training begins anew");
    if (x->done && r->step == spec->step && r->step < r->steps && spec->step < spec->until_step)
        return es_fail(why, ES_CORRUPT, "result.step",
                       "is still %" PRIu64 " after a slice that is said to be done: a slice is one step at least",
                       r->step);
    if (r->step > spec->step && spec->weights && strcmp(r->weights, spec->weights) == 0) /* a version says its step */
        return es_fail(why, ES_CORRUPT, "result.weights", "are those that the slice began from, %" PRIu64 " steps ago",
                       r->step - spec->step);
    if (steps_known && spec->step >= steps_known && strcmp(r->weights, spec->weights) != 0)
        return es_fail(why, ES_CORRUPT, "result.weights",
                       "are others than at the training's end, which was before this slice");
    if (c->env.has_version && !c->env.has_version(c->env.ctx, r->weights))
        return es_fail(why, ES_NOT_FOUND, "result.weights", "version %.16s is not in the weights store", r->weights);
    /* Weights of other shapes would be the next worker's failure, and its search's. */
    if (x->row->kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET && spec->step > 0 && spec->weights[0] &&
        c->env.alike)
        return c->env.alike(c->env.ctx, r->weights, spec->weights, why);
    return ES_OK;
}

static es_status slice_event(dm_coord *c, const dm_slice *x, const dm_checkpoint *cp, es_error *err)
{
    dm_event e;
    es_json *j = dm_event_begin(c, &e, "slice", x->lease->search, x->lease->job, true);
    es_json_str(j, "key", x->row->key);
    es_json_i64(j, "step", cp->step);
    es_json_i64(j, "steps", cp->steps);
    es_json_f64(j, "loss", cp->loss);
    es_json_f64(j, "per_second", cp->per_second);
    es_json_str(j, "weights", cp->weights);
    return dm_event_end(c, &e, err);
}

/* What the slice made is a checkpoint of its job. */
static es_status slice_keep(dm_coord *c, const dm_slice *x, const dm_job_spec *spec, es_error *err)
{
    const dm_lease *l = x->lease;
    const dm_job_result *r = x->result;
    dm_checkpoint cp = {.job = l->job,
                        .step = (int64_t)r->step,
                        .steps = (int64_t)r->steps,
                        .weights = r->weights,
                        .loss = r->loss,
                        .per_second = r->per_second,
                        .seconds = r->seconds};
    ES_RETURN(dm_checkpoint_insert(c->store, &cp, err));
    ES_RETURN(dm_version_use(c->store, r->weights, l->search->id, l->job, err));
    ES_RETURN(dm_version_keep_newest(c->store, l->job, c->o.retain.checkpoints, err));
    ES_RETURN(slice_event(c, x, &cp, err));
    /* Only the newest checkpoint of a job is needed: the one this slice began from may go. */
    if (c->env.drop_version && spec->weights && spec->weights[0] && strcmp(spec->weights, r->weights) != 0 &&
        spec->step > 0)
        dm_coord_drop_version(c, spec->weights);
    return ES_OK;
}

/* Back to ready, from the new weights on. */
static es_status slice_next(dm_coord *c, const dm_slice *x, dm_job_spec *spec, es_error *err)
{
    const dm_lease *l = x->lease;
    const dm_job_result *r = x->result;
    dm_attempt_row a = {.job = l->job,
                        .attempt = l->attempt,
                        .worker = l->worker->id,
                        .outcome = x->done ? DM_OUTCOME_SLICE : ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED,
                        .leased_ms = l->leased_ms,
                        .ended_ms = c->wall_ms};
    ES_RETURN(dm_attempt_insert(c->store, &a, err));
    spec->weights = r->weights;
    spec->step = r->step;
    if (x->done || spec->until_step <= r->step) /* handed back at its very end: no slice is empty */
        spec->until_step = r->step + (uint64_t)(l->search->file ? l->search->file->supernet.slice_steps : 1);
    dm_bytes b;
    ES_RETURN(dm_encode(&spec->base, DM_SPEC_TEXT_MAX, &b, err));
    dm_job_move_args m = {.id = l->job,
                          .search = l->search->id,
                          .from = DM_JOB_RUNNING,
                          .to = DM_JOB_READY,
                          .why = x->done ? "slice finished" : "preempted",
                          .failures = l->failures,
                          .spec = b.data,
                          .spec_bytes = b.n};
    es_status s = dm_job_move(c->store, &m, err);
    free(b.data);
    return s;
}

/* Two have said different lengths, each alone: what is trained may be too little, or of other data. The attempt fails; the next one has nothing to go on from. */
static es_status slice_anew(dm_coord *c, const dm_slice *x, dm_job_spec *spec, es_error *err)
{
    dm_search *search = x->lease->search;
    int64_t job = x->lease->job, *needs = NULL;
    int n = 0;
    dm_bytes b = {0};
    spec->step = 0;
    spec->until_step = (uint64_t)search->file->supernet.slice_steps;
    spec->weights = spec->length_from = dm_text("");
    spec->length_agreed = false;
    es_status s = dm_checkpoint_forget(c->store, job, err);
    if (s == ES_OK)
        s = dm_version_keep_newest(c->store, job, 0, err);
    if (s == ES_OK)
        s = dm_job_needs(c->store, job, &needs, &n, err);
    if (s == ES_OK && n > 0 && search->driver->prepare)
        s = search->driver->prepare(search, x->row, spec, err);
    if (s == ES_OK)
        s = dm_encode(&spec->base, DM_SPEC_TEXT_MAX, &b, err);
    if (s == ES_OK)
        s = dm_job_set_spec(c->store, job, b.data, b.n, err);
    free(b.data);
    free(needs);
    return s;
}

/* Who says how long the training is. A gang's rank 0 speaks for all, and a local worker is trusted: neither is asked again. */
static void slice_length_said(const dm_slice *x, dm_job_spec *spec, bool first, char key[DM_KEY_NAME_MAX])
{
    const char *name = x->lease->worker->name, *end = strchr(name, '/');
    snprintf(key, DM_KEY_NAME_MAX, "%.*s", end ? (int)(end - name) : 0, name);
    if (first)
        spec->length_from = key;
    else if (spec->length_from && strcmp(spec->length_from, key) != 0)
        spec->length_agreed = true;
}

/* The training is over by the word of workers of one key only, while there are others: one of them is to say so, too, with a slice that has nothing left to do. */
static bool slice_wants_witness(const dm_coord *c, const dm_slice *x, const dm_job_spec *spec)
{
    dm_ready r = dm_lease_ready(x->lease);
    r.asked = dm_worker_key(x->lease->worker);
    return !spec->length_agreed && !x->lease->gang && r.asked && dm_others_may(c, &r);
}

static void slice_give_back(dm_coord *c, const dm_slice *x, bool witness)
{
    dm_search *search = x->lease->search;
    dm_ready again = dm_lease_ready(x->lease);
    again.losses = 0;
    again.asked = witness ? dm_worker_key(x->lease->worker) : 0;
    if (x->done)
        dm_sched_took(x->lease);
    dm_lease_drop(c, x->lease);
    dm_sched_added(search, &again);
}

es_status dm_slice_finish(dm_coord *c, const dm_slice *x, bool *over, es_error *why, es_error *err)
{
    ProtobufCMessage *base = NULL;
    dm_checkpoint before = {0};
    char hex[72], key[DM_KEY_NAME_MAX];
    es_status s = ES_OK;
    *over = false;
    ES_GOTO(dm_decode(&espalier__wire__job_spec__descriptor, x->row->spec, x->row->spec_bytes, &base, err));
    dm_job_spec spec = *(dm_job_spec *)base;
    s = dm_checkpoint_last(c->store, x->lease->job, &before, hex, err);
    if (s != ES_OK && s != ES_NOT_FOUND)
        goto fail;
    if (slice_check(c, x, &spec, (uint64_t)before.steps, why) != ES_OK) { /* why->code says so: a failed attempt */
        bool other = before.steps && x->result->steps && x->result->steps != (uint64_t)before.steps;
        s = other && !spec.length_agreed && !x->lease->gang ? slice_anew(c, x, &spec, err) : ES_OK;
        goto fail;
    }
    why->code = ES_OK;
    slice_length_said(x, &spec, before.steps == 0, key);
    bool progress = x->result->step > spec.step;
    if (progress) {
        dm_worker_did_well(x->lease->worker);
        x->lease->search->broken_in_row = 0;
    }
    *over = x->result->step >= x->result->steps;
    ES_GOTO(dm_worker_handed_back(c, x->lease, progress || *over, err));
    bool witness = *over && slice_wants_witness(c, x, &spec);
    if (!progress && !x->done &&
        !*over) { /* nothing was done: weights handed in all the same would be of another step */
        s = dm_lease_return(c, x->lease, ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED, "preempted", 0, err);
        goto fail;
    }
    if (progress || spec.step == 0)
        ES_GOTO(slice_keep(c, x, &spec, err));
    *over = *over && !witness;
    if (!*over) {
        ES_GOTO(slice_next(c, x, &spec, err));
        slice_give_back(c, x, witness);
    }
fail:
    dm_message_free(&base);
    return s;
}
