#include "tests/daemon/work.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

static uint32_t text_number(const char *text, const char *salt)
{
    es_hasher *h = es_hasher_new();
    es_hash out;
    es_hasher_add(h, text, strlen(text));
    es_hasher_add(h, salt, strlen(salt));
    es_hasher_end(&h, &out);
    return (uint32_t)out.b[0] << 16 | (uint32_t)out.b[1] << 8 | out.b[2];
}

static void work_train(work_result *out, const dm_job_spec *spec, int steps,
                       const char *(*put)(void *ctx, const char *seed), void *ctx)
{
    char seed[200];
    dm_job_result *r = &out->result;
    out->from = spec->step;
    snprintf(out->began, sizeof out->began, "%s", spec->weights ? spec->weights : "");
    r->steps = (uint64_t)steps;
    r->step = spec->until_step < r->steps ? spec->until_step : r->steps;
    snprintf(seed, sizeof seed, "%u at %" PRIu64 " %d %u", text_number(spec->search_text, ""), r->step,
             (int)spec->phase, spec->part);
    snprintf(out->weights, sizeof out->weights, "%s", put(ctx, seed));
    r->weights = out->weights;
    r->loss = 1;
}

static void work_archs(work_result *out, const dm_job_spec *spec, int kind,
                       const char *(*put)(void *ctx, const char *seed), void *ctx)
{
    for (size_t i = 0; i < spec->n_architectures && i < WORK_ARCHS; i++) {
        snprintf(out->archs[i], sizeof out->archs[i], "%s", spec->architectures[i]);
        espalier__wire__evaluation__init(&out->evaluation[i]);
        espalier__wire__latency__init(&out->latency[i]);
        out->evaluation[i].architecture = out->latency[i].architecture = out->archs[i];
        out->evaluation[i].samples = 10000;
        out->evaluation[i].correct = text_number(out->archs[i], spec->split) % 10000;
        out->latency[i].median_ms = 1 + text_number(out->archs[i], "latency") % 100;
        out->latency[i].low_ms = out->latency[i].high_ms = out->latency[i].median_ms;
        out->latency[i].runs = 50;
        if (kind == ESPALIER__WIRE__JOB_KIND__JOB_EXPORT)
            snprintf(out->exported[i], sizeof out->exported[i], "%s", put(ctx, out->archs[i]));
        out->evaluations[i] = &out->evaluation[i];
        out->latencies[i] = &out->latency[i];
        out->exports[i] = out->exported[i];
    }
}

void work_do(work_result *out, const Espalier__Wire__Granted *g, int train_steps,
             const char *(*put)(void *ctx, const char *seed), void *ctx)
{
    ProtobufCMessage *base = NULL;
    if (dm_decode(&espalier__wire__job_spec__descriptor, g->spec.data, g->spec.len, &base, NULL) != ES_OK)
        abort();
    const dm_job_spec *spec = (const dm_job_spec *)base;
    dm_job_result *r = &out->result;
    espalier__wire__job_result__init(r);
    work_archs(out, spec, (int)g->kind, put, ctx);
    switch (g->kind) {
    case ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET:
    case ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_MODULE: work_train(out, spec, train_steps, put, ctx); break;
    case ESPALIER__WIRE__JOB_KIND__JOB_ASSEMBLE:
        snprintf(out->weights, sizeof out->weights, "%s", put(ctx, "assembled"));
        r->weights = out->weights;
        break;
    case ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS:
        r->n_evaluations = spec->n_architectures;
        r->evaluations = out->evaluations;
        break;
    case ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY:
        r->n_latencies = spec->n_architectures;
        r->latencies = out->latencies;
        break;
    case ESPALIER__WIRE__JOB_KIND__JOB_EXPORT:
        r->n_exported = spec->n_architectures;
        r->exported = out->exports;
        break;
    default: break;
    }
    dm_message_free(&base);
}
