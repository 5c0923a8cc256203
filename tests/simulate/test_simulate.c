/* The simulator with a fixed set of seeds; with arguments, one run: simulate --seed N --steps M [--seeds K]. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "tests/simulate/simulate.h"

static void one(uint64_t seed, int64_t steps, const char *expected, sim_report *sum)
{
    sim_report r;
    sim_run(seed, steps, true, &r);
    if (strcmp(r.result, expected) != 0) {
        fprintf(stderr, "simulate: seed %" PRIu64 ": the search ends differently than without faults\n%s\n%s\n", seed,
                r.result, expected);
        abort();
    }
    free(r.result);
    int64_t *to = (int64_t *)(void *)sum;
    const int64_t *from = (const int64_t *)(void *)&r;
    for (size_t i = 0; i < offsetof(sim_report, result) / sizeof *to; i++)
        to[i] += from[i];
}

int main(int argc, char **argv)
{
    int64_t seed = 1, steps = 3000, seeds = 6;
    for (int i = 1; i + 1 < argc; i += 2) {
        int64_t *to = strcmp(argv[i], "--seed") == 0    ? &seed
                      : strcmp(argv[i], "--steps") == 0 ? &steps
                      : strcmp(argv[i], "--seeds") == 0 ? &seeds
                                                        : NULL;
        if (!to || !es_str_to_i64(argv[i + 1], true, to)) {
            fprintf(stderr, "usage: simulate [--seed N] [--steps M] [--seeds K]\n");
            return 2;
        }
        if (to == &seed)
            seeds = 1;
    }
    es_log_init("simulate", getenv("SIM_LOG") ? ES_LOG_DEBUG : ES_LOG_OFF);
    sim_report calm, sum = {0};
    sim_run(0, 10, false, &calm);
    for (int64_t i = 0; i < seeds; i++)
        one((uint64_t)(seed + i), steps, calm.result, &sum);
    free(calm.result);
    printf("%" PRId64 " seeds from %" PRId64 ", %" PRId64 " steps each: %.1f simulated days, %" PRId64
           " messages (%" PRId64 " lost, %" PRId64 " doubled), %" PRId64 " turns, %" PRId64 " crashes (%" PRId64
           " power cuts, %" PRId64 " blocks torn or old), %" PRId64 " disk faults, %" PRId64 " workers killed, %" PRId64
           " paused, %" PRId64 " lies; %" PRId64 " jobs, %" PRId64 " results accepted: every invariant held\n",
           seeds, seed, steps, (double)sum.simulated_ms / 86400000.0, sum.messages, sum.lost, sum.doubled, sum.turns,
           sum.crashes, sum.power_cuts, sum.torn, sum.disk_faults, sum.worker_deaths, sum.pauses, sum.lies, sum.jobs,
           sum.accepted);
    return 0;
}
