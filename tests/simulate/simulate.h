/* simulate.h - the real coordinator code in a world of its own: clock, randomness, disk and network are simulated; workers die, sleep, lie and come back; messages
 * are lost, doubled, late and reordered; the disk fills up, fails and is torn by power cuts. Everything follows from the seed.
 *
 * After every turn: a job's state moves only along the table; what was acknowledged is on disk, also after a crash, and a turn is there as a whole or not at
 * all; no result counts for two leases, and none but the holder's for its own attempt; nothing of a lower priority is leased while a higher one waits, and among equals nobody
 * gets a lease while another who has used less worker time waits (fair.c has the bound), and accounts outlive crashes; a gang
 * is whole, on distinct workers of one machine kind; weights that a lease names exist. At the end, after the faults stop: every accepted job is
 * done, and the result of every search is the bytes of an undisturbed run.
 *
 * That it finds mistakes is tested, too: tests/simulate/mutate plants them one by one.
 */
#ifndef TESTS_SIMULATE_SIMULATE_H
#define TESTS_SIMULATE_SIMULATE_H

#include <stdbool.h>
#include <stdint.h>

enum { SIM_SEARCHES = 4 };

typedef struct sim_report {
    int64_t simulated_ms, messages, turns, crashes, power_cuts, torn, disk_faults, worker_deaths, pauses, lost, doubled,
        lies, gangs, preempted, jobs, accepted, rivals, accounts;
    char *result[SIM_SEARCHES]; /* of the searches; caller frees */
} sim_report;

/* faults false: the undisturbed run. Ends the process with a message and the seed on the first broken invariant. */
void sim_run(uint64_t seed, int64_t steps, bool faults, sim_report *out);

#endif
