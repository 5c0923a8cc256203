/* What may still be stored: of one key, of the whole file, of its disk. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/log.h"
#include "daemon/weights/internal.h"

enum { LOG_EVERY_MS = 60000, KEYS_MAX = 20000 };

typedef struct key_use {
    dm_bucket bucket;
    int64_t logged_ms;
} key_use;

void dm_weights_set_quota(dm_weights *w, const dm_quota *q)
{
    key_use *k;
    double more = (double)q->per_key_bytes - (double)w->quota.per_key_bytes;
    for (size_t i = 0; (k = es_map_next(&w->keys, &i)) != NULL;)
        k->bucket.tokens += more; /* a larger quota helps at once whoever has used up the smaller one */
    w->quota = *q;
}

void dm_quota_free(dm_weights *w)
{
    key_use *k;
    for (size_t i = 0; (k = es_map_next(&w->keys, &i)) != NULL;)
        free(k);
    es_map_free(&w->keys);
}

static key_use *use_of(dm_weights *w, const char *name)
{
    es_id id;
    uint64_t key;
    es_id_bytes(name, strlen(name), &id);
    memcpy(&key, &id, sizeof key);
    key = key ? key : 1;
    key_use *k = es_map_get(&w->keys, key);
    if (!k && w->keys.live < KEYS_MAX) { /* as many as authorized_keys may have */
        k = es_xcalloc(1, sizeof *k);
        es_map_put(&w->keys, key, k);
    }
    return k;
}

static es_status key_room(dm_weights *w, const dm_who *who, double bytes, int64_t now_ms, es_error *why)
{
    double burst = (double)w->quota.per_key_bytes;
    key_use *k = who->local || !w->quota.per_key_bytes ? NULL : use_of(w, who->name);
    if (!k)
        return ES_OK;
    dm_bucket_fill(&k->bucket, burst / (double)(w->quota.per_key_ms > 0 ? w->quota.per_key_ms : 1), burst, now_ms);
    if (k->bucket.tokens >= bytes && dm_bucket_take(&k->bucket, bytes))
        return ES_OK;
    if (now_ms - k->logged_ms >= LOG_EVERY_MS || !k->logged_ms) {
        k->logged_ms = now_ms;
        es_log(ES_LOG_WARN, "%s stores more than a key may (weights_per_key_bytes: %" PRId64 " in %" PRId64 " s)",
               who->name, w->quota.per_key_bytes, w->quota.per_key_ms / 1000);
    }
    return es_fail(why, ES_BUSY, who->name,
                   "the key has stored %" PRId64 " bytes within %" PRId64
                   " s, as much as one may (weights_per_key_bytes)",
                   w->quota.per_key_bytes, w->quota.per_key_ms / 1000);
}

es_status dm_quota_take(dm_weights *w, const dm_who *who, size_t bytes, int64_t now_ms, es_error *why, es_error *err)
{
    int64_t pages, unused, size;
    struct statvfs disk;
    if (w->quota.max_bytes) {
        ES_RETURN(dm_db_get_i64(w->db, &pages, "PRAGMA page_count", err, ""));
        ES_RETURN(dm_db_get_i64(w->db, &unused, "PRAGMA freelist_count", err, ""));
        ES_RETURN(dm_db_get_i64(w->db, &size, "PRAGMA page_size", err, ""));
        if ((pages - unused) * size + (int64_t)bytes > w->quota.max_bytes) {
            es_fail(why, ES_DISK_FULL, dm_db_path(w->db),
                    "holds %" PRId64 " bytes, at most %" PRId64 " are allowed (weights_max_bytes)",
                    (pages - unused) * size, w->quota.max_bytes);
            return ES_OK;
        }
    }
    /* The last of the disk is for the coordinator and for this user's own programs. */
    if (!who->local && w->quota.free_bytes && statvfs(dm_db_path(w->db), &disk) == 0) {
        int64_t left = (int64_t)((uint64_t)disk.f_bavail * disk.f_frsize);
        if (left < w->quota.free_bytes + (int64_t)bytes) {
            es_fail(why, ES_DISK_FULL, dm_db_path(w->db),
                    "%" PRId64 " bytes of its disk are free, %" PRId64 " are kept so (weights_free_bytes)", left,
                    w->quota.free_bytes);
            return ES_OK;
        }
    }
    es_status s = key_room(w, who, (double)bytes, now_ms, why);
    if (s == ES_OK)
        why->code = ES_OK;
    return ES_OK;
}
