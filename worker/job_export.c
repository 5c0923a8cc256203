/* Cuts subnets out of a weights version to stand alone; each becomes a version of kind "subnet" in the store. */
#include "worker/job.h"

#include <stdlib.h>

es_status wk_run_export(wk_job *j, dm_job_result *r, es_error *err)
{
    es_status s = ES_OK;
    sr_arch *arch = NULL;
    sn_version *subnet = NULL;
    wk_session *session;
    size_t n = j->spec->n_architectures;
    ES_GOTO(wk_job_session(j, &session, err));
    arch = sr_arch_new(sn_space_choices(session->file->space));
    r->exported = es_arena_alloc(j->arena, sizeof *r->exported * (n + 1));
    for (size_t i = 0; i < n; i++) {
        if (wk_job_stopping(j) != WK_GO) {
            s = es_fail(err, ES_CANCELLED, NULL, "stopped after %zu of %zu exports", i, n);
            goto fail;
        }
        ES_GOTO(sn_arch_parse(session->file->space, j->spec->architectures[i], arch, err));
        ES_GOTO(sn_extract(session->trainer, arch, &subnet, err));
        ES_GOTO(wk_job_put(j, subnet, &r->exported[i], err));
        sn_version_destroy(&subnet);
        r->n_exported = i + 1;
        j->tell(j->ctx, i + 1, n, 0, 0);
    }
fail:
    sn_version_destroy(&subnet);
    free(arch);
    return s;
}
