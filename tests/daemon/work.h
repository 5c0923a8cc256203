/* work.h - what a job's result would be, as a function of the job alone: a worker without a network or a tensor. */
#ifndef TESTS_DAEMON_WORK_H
#define TESTS_DAEMON_WORK_H

#include "daemon/wire/codec.h"

enum { WORK_ARCHS = 16 };
typedef struct work_result {
    dm_job_result result; /* points into the rest */
    uint64_t from;        /* training: the step it began at, and the weights */
    char began[80];
    Espalier__Wire__Evaluation evaluation[WORK_ARCHS], *evaluations[WORK_ARCHS];
    Espalier__Wire__Latency latency[WORK_ARCHS], *latencies[WORK_ARCHS];
    char weights[80], exported[WORK_ARCHS][80], *exports[WORK_ARCHS], archs[WORK_ARCHS][256];
} work_result;

/* `put` stores a version made of a seed text and returns its id. */
void work_do(work_result *out, const Espalier__Wire__Granted *g, int train_steps,
             const char *(*put)(void *ctx, const char *seed), void *ctx);

#endif
