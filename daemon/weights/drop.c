/* Letting go of weights, and proving that what is kept is whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "daemon/weights/internal.h"

enum { ORPHANS_AT_ONCE = 64 }; /* at most 64 MiB of chunks in one transaction */

es_status dm_weights_drop(dm_weights *w, const char *hex, int64_t before_ms, int64_t now_ms, es_error *err)
{
    int64_t touched;
    es_status s = dm_db_get_i64(w->db, &touched, "SELECT touched_ms FROM version WHERE id = ?", err, "s", hex);
    if (s == ES_NOT_FOUND || (s == ES_OK && touched >= before_ms))
        return ES_OK;
    ES_RETURN(s);
    ES_RETURN(dm_db_run(
        w->db,
        "INSERT OR IGNORE INTO orphan (chunk, since_ms) SELECT chunk, ? FROM version_chunk AS v WHERE version = ?"
        " AND NOT EXISTS (SELECT 1 FROM version_chunk AS o WHERE o.chunk = v.chunk AND o.version <> v.version)",
        err, "is", now_ms, hex));
    ES_RETURN(dm_db_run(w->db, "DELETE FROM version_chunk WHERE version = ?", err, "s", hex));
    return dm_db_run(w->db, "DELETE FROM version WHERE id = ?", err, "s", hex);
}

es_status dm_weights_collect(dm_weights *w, int64_t before_ms, int64_t *collected, es_error *err)
{
    es_hash gone[ORPHANS_AT_ONCE];
    dm_stmt *q;
    int n = 0;
    es_status s;
    *collected = 0;
    ES_RETURN(dm_db_query(w->db, &q, "SELECT chunk FROM orphan WHERE since_ms < ? ORDER BY since_ms LIMIT ?", err, "ii",
                          before_ms, (int64_t)ORPHANS_AT_ONCE));
    while (dm_stmt_next(q, &s, err)) {
        size_t bytes;
        const void *p = dm_stmt_blob(q, 0, &bytes);
        if (bytes == ES_HASH_BYTES)
            memcpy(gone[n++].b, p, bytes);
    }
    dm_stmt_end(q);
    ES_RETURN(s);
    for (int i = 0; i < n; i++) {
        ES_RETURN(dm_db_run(w->db, "DELETE FROM orphan WHERE chunk = ?", err, "b", gone[i].b, (size_t)ES_HASH_BYTES));
        ES_RETURN(dm_db_run(w->db, "DELETE FROM chunk WHERE hash = ?", err, "b", gone[i].b, (size_t)ES_HASH_BYTES));
    }
    *collected = n;
    return ES_OK;
}

es_status dm_weights_shrink(dm_weights *w, int64_t *left, es_error *err) { return dm_db_shrink(w->db, left, err); }

es_status dm_weights_idle(dm_weights *w, const char *after, int64_t before_ms, int limit, char (*out)[72], int *count,
                          es_error *err)
{
    dm_stmt *q;
    es_status s;
    *count = 0;
    ES_RETURN(dm_db_query(w->db, &q, "SELECT id FROM version WHERE id > ? AND touched_ms < ? ORDER BY id LIMIT ?", err,
                          "sii", after, before_ms, (int64_t)limit));
    while (dm_stmt_next(q, &s, err))
        snprintf(out[(*count)++], 72, "%s", dm_stmt_text(q, 0));
    dm_stmt_end(q);
    return s;
}

es_status dm_weights_sizes(dm_weights *w, dm_weights_size *out, es_error *err)
{
    memset(out, 0, sizeof *out);
    ES_RETURN(dm_db_get_i64(w->db, &out->versions, "SELECT count(*) FROM version", err, ""));
    ES_RETURN(dm_db_get_i64(w->db, &out->orphans, "SELECT count(*) FROM orphan", err, ""));
    ES_RETURN(dm_db_get_i64(w->db, &out->pages, "PRAGMA page_count", err, ""));
    ES_RETURN(dm_db_get_i64(w->db, &out->free_pages, "PRAGMA freelist_count", err, ""));
    return dm_db_get_i64(w->db, &out->page_bytes, "PRAGMA page_size", err, "");
}

/* ---- checking */

static es_status damaged(dm_weights *w, es_error *err, const char *what, const char *id)
{
    return es_fail(err, ES_CORRUPT, dm_db_path(w->db), "%s %.16s...: the database is damaged; restore the last backup",
                   what, id);
}

/* Every chunk the manifest names is a row, and says so in version_chunk. */
static es_status check_manifest(dm_weights *w, const char *id, const void *bytes, size_t n, es_error *err)
{
    ProtobufCMessage *base = NULL;
    es_hash h;
    char hex[ES_HASH_HEX];
    es_status s = ES_OK;
    es_hash_bytes(bytes, n, &h);
    es_hash_hex(&h, hex);
    if (strcmp(hex, id) != 0)
        return damaged(w, err, "the manifest has another hash than its version", id);
    if (dm_decode(&espalier__wire__manifest__descriptor, bytes, n, &base, NULL) != ES_OK)
        return damaged(w, err, "the manifest cannot be read of version", id);
    const Espalier__Wire__Manifest *m = (const Espalier__Wire__Manifest *)base;
    for (size_t i = 0; s == ES_OK && i < m->n_arrays; i++)
        for (size_t k = 0; s == ES_OK && k < m->arrays[i]->n_chunks; k++) {
            int64_t one;
            s = dm_db_get_i64(
                w->db, &one,
                "SELECT 1 FROM chunk JOIN version_chunk AS v ON v.chunk = hash WHERE hash = ? AND v.version = ?", err,
                "bs", m->arrays[i]->chunks[k].data, m->arrays[i]->chunks[k].len, id);
            if (s == ES_NOT_FOUND)
                s = damaged(w, err, "a chunk is missing of version", id);
        }
    dm_message_free(&base);
    return s;
}

static es_status check_versions(dm_weights *w, bool (*stop)(void *ctx), void *ctx, es_error *err)
{
    dm_stmt *q;
    es_status s;
    ES_RETURN(dm_db_query(w->db, &q, "SELECT id, manifest FROM version", err, ""));
    while (dm_stmt_next(q, &s, err)) {
        size_t n;
        const void *bytes = dm_stmt_blob(q, 1, &n);
        s = stop && stop(ctx) ? es_fail(err, ES_CANCELLED, NULL, "told to stop")
                              : check_manifest(w, dm_stmt_text(q, 0), bytes, n, err);
        if (s != ES_OK)
            break;
    }
    dm_stmt_end(q);
    return s;
}

static es_status check_chunks(dm_weights *w, bool (*stop)(void *ctx), void *ctx, es_error *err)
{
    dm_stmt *q;
    es_status s;
    ES_RETURN(dm_db_query(w->db, &q, "SELECT hash, data FROM chunk", err, ""));
    while (dm_stmt_next(q, &s, err)) {
        size_t n, bytes;
        const void *hash = dm_stmt_blob(q, 0, &n), *data = dm_stmt_blob(q, 1, &bytes);
        es_hash h;
        char hex[ES_HASH_HEX];
        es_hash_bytes(data, bytes, &h);
        es_hash_hex(&h, hex);
        if (n != ES_HASH_BYTES || memcmp(h.b, hash, n) != 0) {
            s = damaged(w, err, "a chunk has other bytes than its address says, they hash to", hex);
            break;
        }
        if (stop && stop(ctx)) {
            s = es_fail(err, ES_CANCELLED, NULL, "told to stop");
            break;
        }
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_weights_check(dm_weights *w, bool (*stop)(void *ctx), void *ctx, es_error *err)
{
    ES_RETURN(dm_db_check(w->db, err));
    ES_RETURN(check_versions(w, stop, ctx, err));
    return check_chunks(w, stop, ctx, err);
}
