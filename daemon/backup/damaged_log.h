/* damaged_log.h - says what is lost with a write-ahead log that is damaged, before SQLite drops it.
 *
 *     dm_damaged_log_tell("DIR/state.db", backups);         // at the start: logs it, names the last good backup, keeps the log as DIR/state.db-wal.damaged
 *     dm_damaged_log_check("DIR/state.db", err);            // espalierd --check: ES_CORRUPT
 */
#ifndef DM_DAMAGED_LOG_H
#define DM_DAMAGED_LOG_H

#include "base/status.h"

void dm_damaged_log_tell(const char *db, const char *backups);
es_status dm_damaged_log_check(const char *db, es_error *err) ES_MUST_CHECK;

#endif
