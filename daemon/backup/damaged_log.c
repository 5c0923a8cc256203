#include "daemon/backup/damaged_log.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "daemon/backup/set.h"
#include "daemon/store/folder.h"
#include "daemon/store/wal_look.h"

static void keep_and_name(const char *log, const char *backups)
{
    char kept[640], last[600];
    dm_backup_info info;
    es_hash h;
    int64_t bytes;
    es_error err;
    snprintf(kept, sizeof kept, "%s.damaged", log);
    if (dm_file_copy(log, kept, &h, &bytes, &err) == ES_OK)
        es_log(ES_LOG_WARN, "the log as it was is kept as %s", kept);
    else
        es_log_error(ES_LOG_WARN, "the log as it was could not be kept", &err);
    if (dm_backup_last(backups, last, &info) == ES_OK)
        es_log(ES_LOG_WARN, "the last good backup is %s", last);
    else
        es_log(ES_LOG_WARN, "there is no good backup in %s", backups);
}

static es_status look(const char *db, char log[600], dm_wal_report *r, es_error *err)
{
    snprintf(log, 600, "%s-wal", db);
    return dm_wal_look(log, r, err);
}

void dm_damaged_log_tell(const char *db, const char *backups)
{
    char log[600];
    dm_wal_report r;
    es_error err;
    if (look(db, log, &r, &err) != ES_OK) {
        es_log_error(ES_LOG_WARN, "the log of a database", &err);
    } else if (r.damaged) {
        es_log(ES_LOG_WARN,
               "%s is damaged at frame %" PRId64 " of %" PRId64 ": it is used up to frame %" PRId64 ", and %" PRId64
               " whole frames behind it with the ends of %" PRId64
               " commits are lost, which had been acknowledged; what workers and clients say again is done again",
               log, r.bad_frame, r.frames, r.used, r.lost_frames, r.lost_commits);
        keep_and_name(log, backups);
    } else if (r.header_bad) {
        es_log(ES_LOG_WARN,
               "%s (%" PRId64 " bytes) has no whole header and is not used: if it had not been copied back into the "
               "database, acknowledged commits are lost",
               log, r.bytes);
        keep_and_name(log, backups);
    } else if (r.used < r.frames) { /* of every kill, and of every log that was begun anew: the usual */
        es_log(ES_LOG_INFO, "%s: %" PRId64 " of %" PRId64 " frames are used, the rest was never committed", log, r.used,
               r.frames);
    }
}

es_status dm_damaged_log_check(const char *db, es_error *err)
{
    char log[600];
    dm_wal_report r;
    ES_RETURN(look(db, log, &r, err));
    if (r.damaged)
        return es_fail(err, ES_CORRUPT, log,
                       "is damaged at frame %" PRId64 " of %" PRId64 ": %" PRId64
                       " whole frames behind it with the ends of %" PRId64
                       " commits cannot be used; a start goes on without them, or restore the last backup",
                       r.bad_frame, r.frames, r.lost_frames, r.lost_commits);
    if (r.header_bad)
        return es_fail(err, ES_CORRUPT, log, "has no whole header: what it holds cannot be used");
    return ES_OK;
}
