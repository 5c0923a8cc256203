/* One slice of training, of the supernet or of a phase of module training: from a weights version at spec.step to a new version at spec.until_step, or earlier when
 * preempted, when `slice_seconds` have passed (a slow machine saves as often as a fast one), or when there is nothing more to train. */
#include "worker/job.h"

#include "base/clock.h"

#include <inttypes.h>

typedef struct slice {
    wk_job *job;
    int64_t end_ns; /* 0: no limit */
    bool begun;     /* a slice is one step at least */
} slice;

static bool should_stop(void *ctx)
{
    slice *s = ctx;
    bool begun = s->begun;
    s->begun = true;
    return wk_job_stopping(s->job) != WK_GO || (begun && s->end_ns && es_clock_mono_ns(es_clock_system()) >= s->end_ns);
}

static void on_progress(void *ctx, uint64_t step, uint64_t steps, double loss, double images_per_s)
{
    wk_job *j = ((slice *)ctx)->job;
    j->tell(j->ctx, step, steps, loss, images_per_s);
}

es_status wk_run_train(wk_job *j, dm_job_result *r, es_error *err)
{
    wk_session *session;
    es_status s = ES_OK;
    sn_version *made = NULL;
    ES_GOTO(wk_job_session(j, &session, err));
    if (sn_trainer_step(session->trainer) != j->spec->step) {
        s = es_fail(err, ES_CORRUPT, j->spec->weights,
                    "the weights are at step %" PRIu64 ", the job begins at step %" PRIu64,
                    sn_trainer_step(session->trainer), j->spec->step);
        goto fail;
    }
    uint64_t steps = sn_train_steps(session->trainer),
             until = j->spec->until_step < steps ? j->spec->until_step : steps;
    double seconds = session->file->supernet.slice_seconds;
    slice sl = {.job = j, .end_ns = seconds > 0 ? es_clock_mono_ns(es_clock_system()) + (int64_t)(seconds * 1e9) : 0};
    sn_hooks hooks = {.ctx = &sl, .stop = should_stop, .progress = on_progress};
    sn_report report = {0};
    wk_session_dirty(session);
    ES_GOTO(sn_trainer_run(session->trainer, until, &hooks, &report, err));
    if (wk_job_stopping(j) == WK_CANCEL) {
        s = es_fail(err, ES_CANCELLED, NULL, "cancelled at step %" PRIu64, report.step);
        goto fail;
    }
    j->partial = sn_trainer_step(session->trainer) < until;
    ES_GOTO(sn_trainer_save(session->trainer, &made, err));
    ES_GOTO(wk_job_put(j, made, &r->weights, err));
    wk_session_holds(session, r->weights);
    r->step = sn_trainer_step(session->trainer);
    r->steps = steps;
    r->loss = report.mean_loss;
    r->per_second = report.images_per_s;
    r->seconds = report.seconds;
fail:
    sn_version_destroy(&made);
    return s;
}
