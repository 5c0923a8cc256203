/* Modules: the trained parts become one network's weights. */
#include "worker/job.h"

es_status wk_run_assemble(wk_job *j, dm_job_result *r, es_error *err)
{
    es_status s = ES_OK;
    size_t n = j->spec->n_part_weights;
    sn_version **parts = es_arena_alloc(j->arena, sizeof *parts * (n + 1)), *made = NULL;
    wk_session *session;
    ES_GOTO(wk_job_session(j, &session, err));
    for (size_t i = 0; i < n; i++)
        ES_GOTO(dm_weights_get(j->data, j->spec->part_weights[i], &j->transfer, &parts[i], err));
    ES_GOTO(sn_modules_assemble(session->trainer, (const sn_version *const *)parts, (int)n, &made, err));
    ES_GOTO(wk_job_put(j, made, &r->weights, err));
fail:
    for (size_t i = 0; i < n; i++)
        sn_version_destroy(&parts[i]);
    sn_version_destroy(&made);
    return s;
}
