/* One slice of training, of the supernet or of a phase of module training: from a weights version at spec.step to a new version at spec.until_step, or earlier when
 * preempted, when `slice_seconds` have passed (a slow machine saves as often as a fast one), or when there is nothing more to train. A gang meets anew for every slice. */
#include "worker/gang.h"

#include "base/clock.h"
#include "supernet/train/gang.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct slice {
    wk_job *job;
    const sn_trainer *trainer;
    int64_t end_ns; /* 0: no limit */
} slice;

static bool should_stop(void *ctx)
{
    slice *s = ctx;
    bool begun = sn_trainer_step(s->trainer) > s->job->spec->step; /* a slice is one step at least */
    return wk_job_stopping(s->job) != WK_GO || (begun && s->end_ns && es_clock_mono_ns(es_clock_system()) >= s->end_ns);
}

static void on_progress(void *ctx, uint64_t step, uint64_t steps, double loss, double images_per_s)
{
    wk_job *j = ((slice *)ctx)->job;
    j->tell(j->ctx, step, steps, loss, images_per_s);
}

/* Trains, alone or as a rank; `gang` is still open afterwards. */
static es_status run_slice(wk_job *j, sn_trainer *t, uint64_t until, double seconds, kn_collective **gang,
                           sn_report *report, es_error *err)
{
    if (j->size > 1) {
        ES_RETURN(wk_gang_open(j, gang, err));
        ES_RETURN(sn_trainer_join(t, *gang, err));
    }
    slice sl = {.job = j,
                .trainer = t,
                .end_ns = seconds > 0 ? es_clock_mono_ns(es_clock_system()) + (int64_t)(seconds * 1e9) : 0};
    sn_hooks hooks = {.ctx = &sl, .stop = should_stop, .progress = on_progress};
    ES_RETURN(sn_trainer_run(t, until, &hooks, report, err));
    return wk_job_stopping(j) == WK_CANCEL
               ? es_fail(err, ES_CANCELLED, NULL, "cancelled at step %" PRIu64, report->step)
               : ES_OK;
}

/* Rank 0 (or the only one) hands the version in; the others hear its name, so that they know what they hold. */
static es_status hand_in(wk_job *j, sn_trainer *t, kn_collective *gang, char id[ES_HASH_HEX], dm_job_result *r,
                         es_error *err)
{
    sn_version *made = NULL;
    es_status s = ES_OK;
    memset(id, 0, ES_HASH_HEX);
    if (j->rank == 0) {
        ES_GOTO(sn_trainer_save(t, &made, err));
        ES_GOTO(wk_job_put(j, made, &r->weights, err));
        snprintf(id, ES_HASH_HEX, "%s", r->weights);
    }
    if (gang)
        ES_GOTO(kn_collective_share(gang, id, ES_HASH_HEX, err));
fail:
    sn_version_destroy(&made);
    return s;
}

es_status wk_run_train(wk_job *j, dm_job_result *r, es_error *err)
{
    wk_session *session;
    es_status s = ES_OK;
    kn_collective *gang = NULL;
    char id[ES_HASH_HEX];
    ES_GOTO(wk_job_session(j, &session, err));
    sn_trainer *t = session->trainer;
    if (sn_trainer_step(t) != j->spec->step)
        return es_fail(err, ES_CORRUPT, j->spec->weights,
                       "the weights are at step %" PRIu64 ", the job begins at step %" PRIu64, sn_trainer_step(t),
                       j->spec->step);
    uint64_t steps = sn_train_steps(t), until = j->spec->until_step < steps ? j->spec->until_step : steps;
    sn_report report = {0};
    wk_session_dirty(session);
    s = run_slice(j, t, until, session->file->supernet.slice_seconds, &gang, &report, err);
    if (s == ES_OK)
        s = hand_in(j, t, gang, id, r, err);
    if (j->size > 1) {
        j->lost_peer = s == ES_LOST || s == ES_TIMEOUT;
        if (s != ES_OK && gang)
            kn_collective_abort(gang);
        es_status alone = sn_trainer_join(t, NULL, NULL);
        kn_collective_close(&gang);
        ES_ASSERT(alone == ES_OK);
    }
    ES_GOTO(s);
    wk_session_holds(session, id);
    if (j->rank > 0)
        return ES_OK; /* its part is over: rank 0 has the result */
    j->partial = sn_trainer_step(t) < until;
    r->step = sn_trainer_step(t);
    r->steps = steps;
    r->loss = report.mean_loss;
    r->per_second = report.images_per_s;
    r->seconds = report.seconds;
fail:
    return s;
}
