/* set.h - a backup as a folder: both databases as they were at one moment, and backup.json, which says what they must be.
 *
 *     char path[600];
 *     if (dm_backup_last(backups, path, &info) == ES_OK) ...                   // the newest that is whole
 *     dm_backup_verify(path, &info, err);
 *
 * A folder without backup.json is no backup: that file is written last. The folder gets its name when everything in it is on disk; one that replaces another
 * exchanges names with it (renameat2), so that there is a whole backup of that name at every moment.
 */
#ifndef DM_BACKUP_SET_H
#define DM_BACKUP_SET_H

#include "base/status.h"

typedef struct dm_backup_info {
    int64_t made_ms, searches, versions, state_bytes, weights_bytes;
} dm_backup_info;

/* Reads the two databases in `dir` from end to end (dm_store_check, dm_weights_check), and that every version state.db needs is in weights.db. */
es_status dm_backup_inspect(const char *dir, bool (*stop)(void *ctx), void *ctx, dm_backup_info *info,
                            es_error *err) ES_MUST_CHECK;
/* Inspects and writes backup.json. */
es_status dm_backup_seal(const char *dir, int64_t now_ms, bool (*stop)(void *ctx), void *ctx, dm_backup_info *info,
                         es_error *err) ES_MUST_CHECK;
/* The two files are, byte for byte, those that were sealed. ES_NOT_FOUND: no backup; ES_CORRUPT: not as it was made. */
es_status dm_backup_verify(const char *dir, dm_backup_info *info, es_error *err) ES_MUST_CHECK;
/* A backup that was about to replace another when the machine died may stand under neither's name: gives it its name back. Nothing to do: ES_OK. */
es_status dm_backup_recover(const char *dir, es_error *err) ES_MUST_CHECK;
/* The newest backup below `folder` that verifies; ES_NOT_FOUND: none. Damaged ones are skipped. */
es_status dm_backup_last(const char *folder, char path[600], dm_backup_info *info) ES_MUST_CHECK;
/* When the newest was made, verified or not; 0: none. */
int64_t dm_backup_newest_ms(const char *folder);
/* A name below `folder` for one made now; names sort by time. */
void dm_backup_name(const char *folder, int64_t now_ms, char path[600]);
/* Removes the oldest of those named by dm_backup_name, so that `keep` stay, and what an interrupted one left. Returns how many went. */
int dm_backup_prune(const char *folder, int keep);

#endif
