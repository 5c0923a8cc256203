/* The simulator with a fixed set of seeds; with --seed N --steps M, that run; with --seconds S, new seeds until then. A broken invariant names its seed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "tests/simulate/simulate.h"

static void one(uint64_t seed, int64_t steps, char *const *expected, sim_report *sum)
{
    sim_report r;
    sim_run(seed, steps, true, &r);
    for (int i = 0; i < SIM_SEARCHES; i++) {
        if (strcmp(r.result[i], expected[i]) != 0) {
            fprintf(stderr, "simulate: seed %" PRIu64 ": search %d ends differently than without faults\n%s\n%s\n",
                    seed, i, r.result[i], expected[i]);
            abort();
        }
        free(r.result[i]);
    }
    int64_t *to = (int64_t *)(void *)sum;
    const int64_t *from = (const int64_t *)(void *)&r;
    for (size_t i = 0; i < offsetof(sim_report, result) / sizeof *to; i++)
        to[i] += from[i];
}

static void tell(const sim_report *sum, int64_t seed, int64_t seeds, int64_t steps)
{
    printf("%" PRId64 " seeds from %" PRId64 ", %" PRId64 " steps each: %.1f simulated days, %" PRId64
           " messages (%" PRId64 " lost, %" PRId64 " doubled), %" PRId64 " turns, %" PRId64 " crashes (%" PRId64
           " power cuts, %" PRId64 " blocks torn or old), %" PRId64 " disk faults, %" PRId64 " workers killed, %" PRId64
           " paused, %" PRId64 " lies; %" PRId64 " gangs started, %" PRId64 " preemptions, %" PRId64 " jobs, %" PRId64
           " results accepted, %" PRId64 " leases with a rival, %" PRId64
           " accounts compared after crashes: every invariant held\n",
           seeds, seed, steps, (double)sum->simulated_ms / 86400000.0, sum->messages, sum->lost, sum->doubled,
           sum->turns, sum->crashes, sum->power_cuts, sum->torn, sum->disk_faults, sum->worker_deaths, sum->pauses,
           sum->lies, sum->gangs, sum->preempted, sum->jobs, sum->accepted, sum->rivals, sum->accounts);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int64_t seed = 1, steps = 3000, seeds = 6, seconds = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        int64_t *to = strcmp(argv[i], "--seed") == 0      ? &seed
                      : strcmp(argv[i], "--steps") == 0   ? &steps
                      : strcmp(argv[i], "--seeds") == 0   ? &seeds
                      : strcmp(argv[i], "--seconds") == 0 ? &seconds
                                                          : NULL;
        if (!to || !es_str_to_i64(argv[i + 1], true, to)) {
            fprintf(stderr,
                    "usage: simulate [--seed N] [--steps M] [--seeds K] [--seconds S: and so long with new seeds]\n");
            return 2;
        }
        if (to == &seed)
            seeds = 1;
    }
    es_log_init("simulate", getenv("SIM_LOG") ? ES_LOG_DEBUG : ES_LOG_OFF);
    es_clock *clock = es_clock_system();
    int64_t began = es_clock_mono_ms(clock), fresh = es_clock_wall_ms(clock), more = 0;
    sim_report calm, sum = {0}, new_sum = {0};
    sim_run(0, 10, false, &calm);
    for (int64_t i = 0; i < seeds; i++)
        one((uint64_t)(seed + i), steps, calm.result, &sum);
    tell(&sum, seed, seeds, steps);
    if (seconds > 0)
        printf("new seeds from %" PRId64 "\n", fresh);
    for (fflush(stdout); es_clock_mono_ms(clock) - began < seconds * 1000; more++)
        one((uint64_t)(fresh + more), steps, calm.result, &new_sum);
    if (more > 0)
        tell(&new_sum, fresh, more, steps);
    for (int i = 0; i < SIM_SEARCHES; i++)
        free(calm.result[i]);
    return 0;
}
