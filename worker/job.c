#include "worker/job.h"

static const wk_job_kind kinds[] = {
#define X(KIND, name) {ESPALIER__WIRE__JOB_KIND__JOB_##KIND, wk_run_##name},
    WK_JOB_KINDS(X)
#undef X
};

const wk_job_kind *wk_job_kinds(int *count)
{
    *count = (int)(sizeof kinds / sizeof kinds[0]);
    return kinds;
}

const wk_job_kind *wk_job_find(Espalier__Wire__JobKind kind)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].kind == kind)
            return &kinds[i];
    return NULL;
}

es_status wk_job_session(wk_job *j, wk_session **out, es_error *err)
{
    wk_session *s;
    const dm_job_spec *spec = j->spec;
    wk_want want = {
        .phase = (sn_phase)spec->phase, .part = (int)spec->part, .meta = spec->meta_weights, .weights = spec->weights};
    ES_RETURN(wk_session_get(j->sessions, spec->search_text, &s, err));
    ES_RETURN(wk_session_load(j->sessions, s, j->data, &want, &j->transfer, err));
    *out = s;
    return ES_OK;
}

es_status wk_job_put(wk_job *j, const sn_version *v, char **id, es_error *err)
{
    char hex[ES_HASH_HEX];
    ES_RETURN(dm_weights_put(j->data, v, &j->transfer, hex, err));
    *id = es_arena_strdup(j->arena, hex);
    return ES_OK;
}
