/* The time of one forward pass per architecture, alone on this device. Weights do not change it, so the trainer's own are used as they are. */
#include "worker/job.h"

#include "base/log.h"

#include <stdlib.h>

es_status wk_run_measure_latency(wk_job *j, dm_job_result *r, es_error *err)
{
    es_status s = ES_OK;
    sr_arch *arch = NULL;
    wk_session *session;
    size_t n = j->spec->n_architectures;
    ES_GOTO(wk_session_get(j->sessions, j->spec->search_text, &session, err));
    if (!session->trainer)
        ES_GOTO(wk_job_session(j, &session, err));
    const sn_space *space = session->file->space;
    arch = sr_arch_new(sn_space_choices(space));
    r->latencies = es_arena_alloc(j->arena, sizeof *r->latencies * (n + 1));
    for (size_t i = 0; i < n; i++) {
        if (wk_job_stopping(j) != WK_GO) {
            s = es_fail(err, ES_CANCELLED, NULL, "stopped after %zu of %zu measurements", i, n);
            goto fail;
        }
        ES_GOTO(sn_arch_parse(space, j->spec->architectures[i], arch, err));
        sn_latency l;
        ES_GOTO(sn_measure_latency(session->trainer, arch, &l, err));
        Espalier__Wire__Latency *out = es_arena_alloc(j->arena, sizeof *out);
        espalier__wire__latency__init(out);
        out->architecture = j->spec->architectures[i];
        out->median_ms = l.median_ms;
        out->low_ms = l.low_ms;
        out->high_ms = l.high_ms;
        out->runs = (uint32_t)l.runs;
        out->machine_kind = es_arena_strdup(j->arena, kn_device_model(j->dev));
        out->clocks = es_arena_strdup(j->arena, l.clocks.text);
        r->latencies[r->n_latencies++] = out;
        es_log(ES_LOG_DEBUG, "latency %s: %.4f ms (%.4f to %.4f, %d runs) at %s", out->architecture, l.median_ms,
               l.low_ms, l.high_ms, l.runs, l.clocks.text[0] ? l.clocks.text : "unknown clocks");
        j->tell(j->ctx, i + 1, n, 0, 0);
    }
fail:
    free(arch);
    return s;
}
