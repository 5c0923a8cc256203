/* A batch of architectures against one weights version: each is recalibrated and scored on the split asked for, what they have in common once. A search against a
 * published table looks them up. */
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

static bool stopping(void *ctx) { return wk_job_stopping(ctx) != WK_GO; }
static void tell(void *ctx, uint64_t done, uint64_t of, double loss, double per_second)
{
    wk_job *j = ctx;
    j->tell(j->ctx, done, of, loss, per_second);
}

static es_status look_up(wk_job *j, const wk_session *s, sr_arch *const *archs, size_t n, sn_split split,
                         sn_evaluation *out, es_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (stopping(j))
            return es_fail(err, ES_CANCELLED, NULL, "stopped after %zu of %zu evaluations", i, n);
        ES_RETURN(sn_table_evaluate(s->table, archs[i], split, &out[i], err));
        tell(j, i + 1, n, out[i].loss, 0);
    }
    return ES_OK;
}

static es_status evaluate(wk_job *j, const wk_session *s, sr_arch *const *archs, size_t n, sn_split split,
                          sn_evaluation *out, es_error *err)
{
    if (s->table)
        return look_up(j, s, archs, n, split, out, err);
    const sn_hooks hooks = {.ctx = j, .stop = stopping, .progress = tell};
    return sn_evaluate_many(s->trainer, (const sr_arch *const *)archs, (int)n, split,
                            split == SN_VALIDATION_SPLIT ? s->file->validation_limit : 0, &hooks, out, err);
}

static void report(wk_job *j, const sn_evaluation *e, size_t n, double seconds, dm_job_result *r)
{
    r->evaluations = es_arena_alloc(j->arena, sizeof *r->evaluations * (n + 1));
    r->seconds = seconds;
    r->per_second = seconds > 0 ? (double)n / seconds : 0;
    for (size_t i = 0; i < n; i++) {
        Espalier__Wire__Evaluation *out = es_arena_alloc(j->arena, sizeof *out);
        espalier__wire__evaluation__init(out);
        out->architecture = j->spec->architectures[i];
        out->correct = e[i].correct;
        out->samples = e[i].samples;
        out->loss = e[i].loss;
        r->evaluations[r->n_evaluations++] = out;
    }
}

es_status wk_run_eval_subnets(wk_job *j, dm_job_result *r, es_error *err)
{
    es_status s = ES_OK;
    wk_session *session;
    sn_split split = SN_VALIDATION_SPLIT;
    size_t n = j->spec->n_architectures;
    es_clock *clock = es_clock_system();
    sr_arch **archs = es_xcalloc(n + 1, sizeof *archs);
    sn_evaluation *e = es_xcalloc(n + 1, sizeof *e);
    ES_GOTO(parse_split(j->spec->split, &split, err));
    ES_GOTO(open_session(j, &session, err));
    const sn_space *space = session->file->space;
    for (size_t i = 0; i < n; i++) {
        archs[i] = sr_arch_new(sn_space_choices(space));
        ES_GOTO(sn_arch_parse(space, j->spec->architectures[i], archs[i], err));
    }
    int64_t began = es_clock_mono_ns(clock);
    ES_GOTO(evaluate(j, session, archs, n, split, e, err));
    report(j, e, n, (double)(es_clock_mono_ns(clock) - began) / 1e9, r);
fail:
    for (size_t i = 0; i < n; i++)
        free(archs[i]);
    free(archs);
    free(e);
    return s;
}
