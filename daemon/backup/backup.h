/* backup.h - makes one backup at a time of both databases while they are in use.
 *
 *     dm_backup *b = dm_backup_new(store, "DIR/weights.db");
 *     dm_backup_start(b, to, now_ms, err);                              // ES_BUSY: one is under way
 *     each turn:  wait_ms = dm_backup_turn(b);                          // copies a piece of state.db; then a thread does the rest
 *                 if (dm_backup_ended(b, &report)) ...
 *     dm_backup_destroy(&b);                                            // gives up what is under way
 *
 * state.db first, by the main thread between its transactions (it alone may open it), a MiB a turn: the copy is of the moment of the last piece. Then
 * weights.db, as of a moment after that, by a thread. Nothing that the first names may be collected between the two: dm_backup_holds says so. The thread then
 * reads the copies from end to end, seals them (set.h) and gives the folder its name: a backup that exists is whole.
 */
#ifndef DM_BACKUP_H
#define DM_BACKUP_H

#include "daemon/backup/set.h"
#include "daemon/store/store.h"

typedef struct dm_backup dm_backup;
typedef struct dm_backup_report {
    es_status status;
    es_error err;
    char path[600];
    dm_backup_info info;
    double seconds;
} dm_backup_report;

dm_backup *dm_backup_new(dm_store *store, const char *weights_path);
void dm_backup_destroy(dm_backup **b);
/* `to` must not exist, be empty, or be a backup (which the new one replaces when it is whole). */
es_status dm_backup_start(dm_backup *b, const char *to, int64_t now_ms, es_error *err) ES_MUST_CHECK;
bool dm_backup_busy(const dm_backup *b);
bool dm_backup_holds(const dm_backup *b); /* nothing may be collected now */
/* In how many ms it wants to be called again. */
int dm_backup_turn(dm_backup *b);
bool dm_backup_ended(dm_backup *b, dm_backup_report *out); /* true once for each that was started */

#endif
