#include "daemon/backup/restore.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/store/attempt_rows.h"
#include "daemon/store/folder.h"
#include "daemon/store/store.h"
#include "daemon/weights/weights.h"

static const char *const files[] = {"state.db", "weights.db"};

static void when(int64_t ms, char text[32])
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(text, 32, "%Y-%m-%d %H:%M:%S UTC", &tm);
}

/* Copies what was sealed, and nothing else, and proves it by the hashes. */
static es_status restore_copy(const char *backup, const char *tmp, es_error *err)
{
    char from[700], to[700];
    dm_backup_info info;
    es_hash h;
    int64_t bytes;
    ES_RETURN(es_file_remove_tree(tmp, err));
    ES_RETURN(es_file_mkdirs(tmp, err));
    static const char *const all[] = {"state.db", "weights.db", "backup.json"};
    for (int i = 0; i < 3; i++) {
        snprintf(from, sizeof from, "%s/%s", backup, all[i]);
        snprintf(to, sizeof to, "%s/%s", tmp, all[i]);
        ES_RETURN(dm_file_copy(from, to, &h, &bytes, err));
    }
    return dm_backup_verify(tmp, &info, err);
}

static es_status restore_prepare(const char *tmp, es_error *err)
{
    char path[700];
    dm_backup_info info;
    dm_store *st = NULL;
    es_status s = ES_OK;
    ES_RETURN(dm_backup_inspect(tmp, NULL, NULL, &info, err));
    snprintf(path, sizeof path, "%s/state.db", tmp);
    ES_GOTO(dm_store_open(path, NULL, &st, err));
    ES_GOTO(dm_store_begin(st, err));
    ES_GOTO(dm_attempts_jump(st, err));
    ES_GOTO(dm_store_commit(st, err));
    dm_store_close(&st); /* leaves no log behind */
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", tmp, files[i]);
        ES_RETURN(dm_file_sync(path, err));
    }
    snprintf(path, sizeof path, "%s/backup.json", tmp);
    if (unlink(path) != 0)
        return es_fail_errno(err, path, "cannot remove");
    return dm_file_sync(tmp, err);
fail:
    if (st)
        dm_store_rollback(st);
    dm_store_close(&st);
    return s;
}

/* One database: the old one and its log aside, the new one in. Does nothing when that was done already. */
static es_status swap_file(const char *dir, const char *ready, const char *aside, const char *file, es_error *err)
{
    static const char *const parts[] = {"-wal", "-shm", "-journal",
                                        ""}; /* a log without its database is harmless, the other way round it is not */
    char from[700], to[700];
    snprintf(from, sizeof from, "%s/%s", ready, file);
    if (!es_file_exists(from))
        return ES_OK;
    for (int i = 0; i < 4; i++) {
        snprintf(from, sizeof from, "%s/%s%s", dir, file, parts[i]);
        snprintf(to, sizeof to, "%s/%s%s", aside, file, parts[i]);
        if (es_file_exists(from)) {
            ES_RETURN(es_file_mkdirs(aside, err));
            ES_RETURN(dm_file_rename(from, to, err));
        }
    }
    snprintf(from, sizeof from, "%s/%s", ready, file);
    snprintf(to, sizeof to, "%s/%s", dir, file);
    return dm_file_rename(from, to, err);
}

static es_status restore_swap(const char *dir, char aside[600], es_error *err)
{
    char ready[600], stamp[600];
    snprintf(ready, sizeof ready, "%s/restore.ready", dir);
    aside[0] = 0;
    if (!es_file_exists(ready))
        return ES_OK;
    dm_backup_name(dir, es_clock_wall_ms(es_clock_system()), stamp);
    snprintf(aside, 600, "%s/replaced-%s", dir, strrchr(stamp, '/') + 1);
    for (int i = 0; i < 2; i++)
        ES_RETURN(swap_file(dir, ready, aside, files[i], err));
    return es_file_remove_tree(ready, err);
}

es_status dm_restore_finish(const char *dir, es_error *err)
{
    char aside[600], tmp[600];
    ES_RETURN(restore_swap(dir, aside, err));
    if (aside[0])
        es_log(ES_LOG_WARN, "restore completed that was cut short old=%s", aside);
    snprintf(tmp, sizeof tmp, "%s/restore.tmp", dir);
    return es_file_remove_tree(tmp, err);
}

es_status dm_restore(const char *dir, const char *backup, bool force, char said[1600], es_error *err)
{
    char tmp[600], ready[600], path[600], aside[600], made[32];
    dm_backup_info info;
    int lock = -1;
    es_status s = ES_OK;
    ES_RETURN(dm_backup_recover(backup, err));
    ES_RETURN(dm_backup_verify(backup, &info, err));
    ES_RETURN(es_file_mkdirs(dir, err));
    ES_GOTO(dm_folder_lock(dir, &lock, err));
    snprintf(tmp, sizeof tmp, "%s/restore.tmp", dir);
    snprintf(ready, sizeof ready, "%s/restore.ready", dir);
    for (int i = 0; i < 2 && !force; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        if (es_file_exists(path))
            ES_GOTO(es_fail(err, ES_EXISTS, path,
                            "is there already: --force puts the backup in its place (it is kept aside)"));
    }
    ES_GOTO(es_file_remove_tree(ready, err)); /* a restore that was never completed: this one wins */
    ES_GOTO(restore_copy(backup, tmp, err));
    ES_GOTO(restore_prepare(tmp, err));
    ES_GOTO(dm_file_rename(tmp, ready, err));
    ES_GOTO(restore_swap(dir, aside, err));
    when(info.made_ms, made);
    snprintf(said, 1600, "%s: restored the backup of %s (%" PRId64 " searches, %" PRId64 " weights versions)%s%s", dir,
             made, info.searches, info.versions, es_file_exists(aside) ? "; what was there is in " : "",
             es_file_exists(aside) ? aside : "");
fail:
    if (lock >= 0)
        close(lock);
    return s;
}
