/* restore.h - puts a backup in the place of damaged databases.
 *
 *     dm_restore(dir, backup, force, said, err);            // espalierd --restore: nothing else runs in `dir`
 *     dm_restore_finish(dir, err);                          // at every start: a restore that a crash cut short is completed
 *
 * The backup is verified, copied to DIR/restore.tmp and read from end to end there; then one rename, to DIR/restore.ready, decides. From there on the swap is only
 * renames, in an order that can be taken up again anywhere: the old files go to DIR/replaced-TIME, where they stay. Attempts of jobs that were not over
 * jump, so that a worker that still works from the time before cannot hand in a result for an attempt of the time after.
 */
#ifndef DM_RESTORE_H
#define DM_RESTORE_H

#include "daemon/backup/set.h"

/* ES_EXISTS: there are databases already, and `force` is not set. `said` gets one line for people. */
es_status dm_restore(const char *dir, const char *backup, bool force, char said[1600], es_error *err) ES_MUST_CHECK;
es_status dm_restore_finish(const char *dir, es_error *err) ES_MUST_CHECK;

#endif
