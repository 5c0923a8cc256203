/* A batch of architectures against one weights version: each is recalibrated and scored on the split asked for. A search against a published table looks them up. */
#include "worker/job.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static es_status parse_split(const char *text, sn_split *out, es_error *err)
{
    static const char *const names[] = {"train", "validation", "test"};
    for (int i = 0; i < 3; i++) {
        if (!strcmp(text, names[i])) {
            *out = (sn_split)i;
            return ES_OK;
        }
    }
    return es_fail(err, ES_INVALID, "split", "\"%s\" is none of train, validation, test", text);
}

/* The session with what its evaluations need: a table, or a trainer with weights. */
static es_status open_session(wk_job *j, wk_session **out, es_error *err)
{
    ES_RETURN(wk_session_get(j->sessions, j->spec->search_text, out, err));
    return (*out)->file->task == SN_TASK_TABLE ? wk_session_table(*out, err) : wk_job_session(j, out, err);
}

static es_status evaluate(const wk_session *s, const sr_arch *arch, sn_split split, sn_evaluation *out, es_error *err)
{
    if (s->table)
        return sn_table_evaluate(s->table, arch, split, out, err);
    return sn_evaluate(s->trainer, arch, split, split == SN_VALIDATION_SPLIT ? s->file->validation_limit : 0, out, err);
}

es_status wk_run_eval_subnets(wk_job *j, dm_job_result *r, es_error *err)
{
    es_status s = ES_OK;
    sr_arch *arch = NULL;
    wk_session *session;
    sn_split split = SN_VALIDATION_SPLIT;
    size_t n = j->spec->n_architectures;
    es_clock *clock = es_clock_system();
    ES_GOTO(parse_split(j->spec->split, &split, err));
    ES_GOTO(open_session(j, &session, err));
    const sn_space *space = session->file->space;
    arch = sr_arch_new(sn_space_choices(space));
    r->evaluations = es_arena_alloc(j->arena, sizeof *r->evaluations * (n + 1));
    int64_t began = es_clock_mono_ns(clock);
    for (size_t i = 0; i < n; i++) {
        if (wk_job_stopping(j) != WK_GO) {
            s = es_fail(err, ES_CANCELLED, NULL, "stopped after %zu of %zu evaluations", i, n);
            goto fail;
        }
        ES_GOTO(sn_arch_parse(space, j->spec->architectures[i], arch, err));
        sn_evaluation e;
        ES_GOTO(evaluate(session, arch, split, &e, err));
        Espalier__Wire__Evaluation *out = es_arena_alloc(j->arena, sizeof *out);
        espalier__wire__evaluation__init(out);
        out->architecture = j->spec->architectures[i];
        out->correct = e.correct;
        out->samples = e.samples;
        out->loss = e.loss;
        r->evaluations[r->n_evaluations++] = out;
        r->seconds = (double)(es_clock_mono_ns(clock) - began) / 1e9;
        r->per_second = (double)(i + 1) / r->seconds;
        j->tell(j->ctx, i + 1, n, e.loss, r->per_second);
    }
fail:
    free(arch);
    return s;
}
