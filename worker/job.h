/* job.h - the table of job kinds, and what a job may use while it runs.
 *
 * To add a job kind: one file job_<name>.c with an `es_status run(wk_job *j, dm_job_result *r, es_error *err)`, one line in
 * WK_JOB_KINDS. A kind that is new to the protocol needs its number in schemas/wire.proto, whose name is the name everywhere.
 *
 * A run function fills in the result; what the result points to comes from j->arena. It asks wk_job_stopping between steps and returns soon when that is not
 * WK_GO: with ES_CANCELLED when there is nothing to hand back, or with ES_OK and j->partial set when the result holds the work done so far.
 */
#ifndef WK_JOB_H
#define WK_JOB_H

#include "base/arena.h"
#include "daemon/wire/transfer.h"
#include "kernels/collective/collective.h"
#include "kernels/device/device.h"
#include "worker/session.h"

typedef enum wk_stop { WK_GO, WK_PREEMPT, WK_CANCEL } wk_stop;

typedef struct wk_job wk_job;
struct wk_job {
    uint64_t id, search;
    uint32_t attempt;
    const dm_job_spec *spec;
    kn_device *dev;
    wk_sessions *sessions;
    dm_peer *data; /* the weights endpoint */
    dm_transfer_options transfer;
    es_arena *arena;
    int rank, size;      /* of a gang; 0 of 1 alone */
    const char *address; /* where other ranks reach this worker */
    bool partial;        /* set by run: stopped early, and the result is good as far as it goes */
    bool lost_peer;      /* set by run when it failed because another rank of the gang is gone: nobody's fault here */
    void *ctx;
    wk_stop (*stop)(void *ctx);
    void (*tell)(void *ctx, uint64_t step, uint64_t steps, double loss, double per_second);
    /* Through the coordinator: rank 0 offers its id (and goes on), the others wait for it (offer NULL). */
    es_status (*gang_id)(void *ctx, const kn_gang_id *offer, kn_gang_id *out, es_error *err);
};

typedef struct wk_job_kind {
    Espalier__Wire__JobKind kind;
    es_status (*run)(wk_job *j, dm_job_result *r, es_error *err);
} wk_job_kind;

const wk_job_kind *wk_job_kinds(int *count);
const wk_job_kind *wk_job_find(Espalier__Wire__JobKind kind); /* NULL when this worker does not know it */

static inline wk_stop wk_job_stopping(wk_job *j) { return j->stop(j->ctx); }

/* The session of j's search with its trainer in the phase and part of j's spec, holding the spec's weights. */
es_status wk_job_session(wk_job *j, wk_session **out, es_error *err) ES_MUST_CHECK;
/* Sends a version to the store; its id lives in j->arena. */
es_status wk_job_put(wk_job *j, const sn_version *v, char **id, es_error *err) ES_MUST_CHECK;

/* The kinds this worker can do, one line each: X(the wire's name without JOB_, function). */
#define WK_JOB_KINDS(X)                 \
    X(TRAIN_SUPERNET, train)            \
    X(EVAL_SUBNETS, eval_subnets)       \
    X(MEASURE_LATENCY, measure_latency) \
    X(TRAIN_MODULE, train)              \
    X(ASSEMBLE, assemble)               \
    X(EXPORT, export)                   \
    X(NOOP, noop)
#define X(KIND, name) es_status wk_run_##name(wk_job *j, dm_job_result *r, es_error *err) ES_MUST_CHECK;
WK_JOB_KINDS(X)
#undef X

#endif
