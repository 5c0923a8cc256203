#include "daemon/backup/set.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "daemon/store/folder.h"
#include "daemon/store/search_rows.h"
#include "daemon/store/store.h"
#include "daemon/store/version_rows.h"
#include "daemon/weights/weights.h"

enum { KEEP_MAX = 1024, NAME_BYTES = 24 };

static const char *const files[] = {"state.db", "weights.db"};

/* ---- looking inside */

typedef struct inspect_context {
    dm_weights *weights;
    dm_backup_info *info;
    char missing[72];
} inspect_context;

static bool inspect_version(void *ctx, const char *hex)
{
    inspect_context *x = ctx;
    x->info->versions++;
    if (!dm_weights_has(x->weights, hex))
        snprintf(x->missing, sizeof x->missing, "%s", hex);
    return !x->missing[0];
}

es_status dm_backup_inspect(const char *dir, bool (*stop)(void *ctx), void *ctx, dm_backup_info *info, es_error *err)
{
    char state[600], weights[600];
    dm_store *store = NULL;
    inspect_context x = {.info = info};
    int64_t counts[6];
    es_status s = ES_OK;
    snprintf(state, sizeof state, "%s/state.db", dir);
    snprintf(weights, sizeof weights, "%s/weights.db", dir);
    memset(info, 0, sizeof *info);
    if (!es_file_exists(state))
        return es_fail(err, ES_NOT_FOUND, state, "there is no database to check");
    if (!es_file_exists(weights))
        return es_fail(err, ES_CORRUPT, weights, "is missing; restore the last backup");
    ES_GOTO(dm_store_open(state, NULL, &store, err));
    ES_GOTO(dm_store_check(store, err));
    ES_GOTO(dm_weights_open(weights, &x.weights, err));
    ES_GOTO(dm_weights_check(x.weights, stop, ctx, err));
    ES_GOTO(dm_version_each(store, inspect_version, &x, err));
    if (x.missing[0])
        s = es_fail(err, ES_CORRUPT, weights,
                    "weights version %.16s... is missing, which state.db needs; restore the last backup", x.missing);
    if (s == ES_OK)
        s = dm_search_counts(store, counts, err);
    for (int i = 0; s == ES_OK && i < 6; i++)
        info->searches += counts[i];
fail:
    dm_weights_close(&x.weights);
    dm_store_close(&store);
    return s;
}

es_status dm_backup_seal(const char *dir, int64_t now_ms, bool (*stop)(void *ctx), void *ctx, dm_backup_info *info,
                         es_error *err)
{
    es_json j;
    char path[600], hex[ES_HASH_HEX];
    es_status s = ES_OK;
    ES_RETURN(dm_backup_inspect(dir, stop, ctx, info, err));
    info->made_ms = now_ms;
    es_json_begin(&j, 2);
    es_json_object(&j, NULL);
    es_json_i64(&j, "format", 1);
    es_json_i64(&j, "made_ms", now_ms);
    es_json_i64(&j, "searches", info->searches);
    es_json_i64(&j, "versions", info->versions);
    for (int i = 0; i < 2 && s == ES_OK; i++) {
        es_hash h;
        int64_t *bytes = i ? &info->weights_bytes : &info->state_bytes;
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        s = dm_file_sync(path, err);
        if (s == ES_OK)
            s = dm_file_copy(path, NULL, &h, bytes, err);
        es_hash_hex(&h, hex);
        es_json_object(&j, files[i]);
        es_json_i64(&j, "bytes", *bytes);
        es_json_str(&j, "blake2b", hex);
        es_json_end(&j);
    }
    es_json_end(&j);
    char *text = es_json_finish(&j);
    snprintf(path, sizeof path, "%s/backup.json", dir);
    if (s == ES_OK)
        s = es_file_write(path, text, strlen(text), err);
    free(text);
    return s;
}

/* ---- verifying */

static es_status verify_file(const char *dir, const char *file, const json_t *told, int64_t *bytes, es_error *err)
{
    char path[600], hex[ES_HASH_HEX];
    es_hash h;
    const char *want = json_string_value(json_object_get(told, "blake2b"));
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (!want)
        return es_fail(err, ES_CORRUPT, dir, "backup.json does not say what %s is", file);
    if (!es_file_exists(path))
        return es_fail(err, ES_CORRUPT, path, "is missing from the backup");
    ES_RETURN(dm_file_copy(path, NULL, &h, bytes, err));
    es_hash_hex(&h, hex);
    if (strcmp(hex, want) != 0)
        return es_fail(err, ES_CORRUPT, path, "is not as it was made (%" PRId64 " bytes, then %" PRId64 ")", *bytes,
                       (int64_t)json_integer_value(json_object_get(told, "bytes")));
    return ES_OK;
}

static es_status read_seal(const char *dir, json_t **out, es_error *err)
{
    char path[600], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/backup.json", dir);
    if (!es_file_exists(path))
        return es_fail(err, ES_NOT_FOUND, dir, "is no backup: it has no backup.json");
    ES_RETURN(es_file_read(path, 1 << 20, &text, &n, err));
    *out = json_loadb(text, n, 0, NULL);
    free(text);
    if (!*out || json_integer_value(json_object_get(*out, "format")) != 1) {
        json_decref(*out);
        return es_fail(err, ES_CORRUPT, path, "is no description of a backup this program knows");
    }
    return ES_OK;
}

es_status dm_backup_verify(const char *dir, dm_backup_info *info, es_error *err)
{
    json_t *seal;
    memset(info, 0, sizeof *info);
    ES_RETURN(read_seal(dir, &seal, err));
    info->made_ms = json_integer_value(json_object_get(seal, "made_ms"));
    info->searches = json_integer_value(json_object_get(seal, "searches"));
    info->versions = json_integer_value(json_object_get(seal, "versions"));
    es_status s = verify_file(dir, files[0], json_object_get(seal, files[0]), &info->state_bytes, err);
    if (s == ES_OK)
        s = verify_file(dir, files[1], json_object_get(seal, files[1]), &info->weights_bytes, err);
    json_decref(seal);
    return s;
}

es_status dm_backup_recover(const char *dir, es_error *err)
{
    static const char *const endings[] = {".partial", ".old.partial"}; /* the newer one first */
    char path[700];
    dm_backup_info info;
    for (int i = 0; i < 2 && !es_file_exists(dir); i++) {
        snprintf(path, sizeof path, "%s%s", dir, endings[i]);
        if (dm_backup_verify(path, &info, NULL) != ES_OK)
            continue;
        ES_RETURN(dm_file_rename(path, dir, err));
        es_log(ES_LOG_WARN, "%s has its name back: it was being replaced when something died", dir);
    }
    return ES_OK;
}

/* ---- a folder of them */

static int compare(const void *a, const void *b) { return strcmp(a, b); }

/* Names of dm_backup_name that hold a seal, oldest first. */
static int list(const char *folder, char names[KEEP_MAX][NAME_BYTES])
{
    DIR *d = opendir(folder);
    struct dirent *e;
    int n = 0;
    while (d && n < KEEP_MAX && (e = readdir(d)) != NULL) {
        char path[900];
        snprintf(path, sizeof path, "%s/%s/backup.json", folder, e->d_name);
        if (strlen(e->d_name) == 20 && e->d_name[8] == 'T' && e->d_name[19] == 'Z' && es_file_exists(path))
            snprintf(names[n++], NAME_BYTES, "%s", e->d_name);
    }
    if (d)
        closedir(d);
    qsort(names, (size_t)n, NAME_BYTES, compare);
    return n;
}

void dm_backup_name(const char *folder, int64_t now_ms, char path[600])
{
    time_t t = (time_t)(now_ms / 1000);
    struct tm tm;
    char name[NAME_BYTES];
    gmtime_r(&t, &tm);
    strftime(name, sizeof name, "%Y%m%dT%H%M%S", &tm);
    snprintf(path, 600, "%s/%s.%03dZ", folder, name, (int)(now_ms % 1000));
}

es_status dm_backup_last(const char *folder, char path[600], dm_backup_info *info)
{
    static char names[KEEP_MAX][NAME_BYTES]; /* at the start and the end of a process only */
    for (int i = list(folder, names); i-- > 0;) {
        snprintf(path, 600, "%s/%s", folder, names[i]);
        if (dm_backup_verify(path, info, NULL) == ES_OK)
            return ES_OK;
    }
    return ES_NOT_FOUND;
}

int64_t dm_backup_newest_ms(const char *folder)
{
    char(*names)[NAME_BYTES] = calloc(KEEP_MAX, NAME_BYTES), path[700];
    int n = names ? list(folder, names) : 0;
    json_t *seal = NULL;
    int64_t ms = 0;
    if (n > 0) {
        snprintf(path, sizeof path, "%s/%s", folder, names[n - 1]);
        if (read_seal(path, &seal, NULL) == ES_OK)
            ms = json_integer_value(json_object_get(seal, "made_ms"));
        json_decref(seal);
    }
    free(names);
    return ms;
}

int dm_backup_prune(const char *folder, int keep)
{
    char(*names)[NAME_BYTES] = calloc(KEEP_MAX, NAME_BYTES), path[900];
    int n = names ? list(folder, names) : 0, gone = 0;
    struct dirent *e;
    es_error err;
    for (int i = 0; i < n - keep; i++, gone++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (es_file_remove_tree(path, &err) != ES_OK)
            es_log_error(ES_LOG_WARN, "removing an old backup", &err);
    }
    free(names);
    DIR *d = opendir(folder);
    while (d && (e = readdir(d)) != NULL) {
        size_t k = strlen(e->d_name);
        if (k > 8 && strcmp(e->d_name + k - 8, ".partial") == 0) {
            int base = k > 12 && strcmp(e->d_name + k - 12, ".old.partial") == 0 ? (int)k - 12 : (int)k - 8;
            snprintf(path, sizeof path, "%s/%.*s", folder, base, e->d_name);
            if (dm_backup_recover(path, &err) != ES_OK)
                es_log_error(ES_LOG_WARN, "a backup that was being replaced", &err);
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            if (es_file_remove_tree(path, &err) != ES_OK)
                es_log_error(ES_LOG_WARN, "removing what an interrupted backup left", &err);
        }
    }
    if (d)
        closedir(d);
    return gone;
}
