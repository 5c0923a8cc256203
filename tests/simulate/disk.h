/* disk.h - a disk made of memory, as an SQLite VFS: what is written is there, what is synced stays, and a crash tears the rest.
 *
 *     sim_disk *d = sim_disk_new(&rng, "sim-1");             // registers the VFS "sim-1"
 *     sim_disk_full(d, true);                                 // every write that would grow a file fails with SQLITE_FULL
 *     sim_disk_die_after(d, 17);                              // from the 17th operation on everything fails, as when the process is gone
 *     sim_disk_crash(d, true);                                // power is lost: blocks that were not synced are old, new or half of each
 *
 * A process that is only killed loses nothing that it wrote (power = false).
 */
#ifndef TESTS_SIMULATE_DISK_H
#define TESTS_SIMULATE_DISK_H

#include "base/rng.h"

typedef struct sim_disk sim_disk;
sim_disk *sim_disk_new(es_rng *rng, const char *vfs);
void sim_disk_free(sim_disk **d);
void sim_disk_full(sim_disk *d, bool full);
void sim_disk_fail_writes(sim_disk *d, int count); /* the next so many writes fail with SQLITE_IOERR */
void sim_disk_die_after(sim_disk *d, int64_t operations);
bool sim_disk_dead(const sim_disk *d);
void sim_disk_crash(sim_disk *d, bool power);
int64_t sim_disk_torn(const sim_disk *d); /* blocks that a crash left old or torn, so far */
int64_t sim_disk_syncs(const sim_disk *d);

#endif
