#include "daemon/store/worker_rows.h"

#include <stdio.h>
#include <string.h>

#include "daemon/store/internal.h"

es_status dm_worker_upsert(dm_store *st, dm_worker_row *r, es_error *err)
{
    ES_RETURN(
        dm_db_run(st->db,
                  "INSERT INTO worker (uid, name, device, machine_kind, memory_bytes, first_seen_ms, last_seen_ms)"
                  " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uid) DO UPDATE SET last_seen_ms = excluded.last_seen_ms",
                  err, "bsssiii", r->uid, sizeof r->uid, r->name, r->device, r->machine_kind, r->memory_bytes,
                  r->first_seen_ms, r->first_seen_ms));
    return dm_db_get_i64(st->db, &r->id, "SELECT id FROM worker WHERE uid = ?", err, "b", r->uid, sizeof r->uid);
}

es_status dm_worker_get(dm_store *st, int64_t id, dm_worker_row *out, dm_worker_text *text, es_error *err)
{
    dm_stmt *q;
    size_t n;
    memset(out, 0, sizeof *out);
    ES_RETURN(dm_db_query(
        st->db, &q,
        "SELECT uid, name, device, machine_kind, memory_bytes, first_seen_ms, drained FROM worker WHERE id = ?", err,
        "i", id));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK) {
        const void *uid = dm_stmt_blob(q, 0, &n);
        if (n == sizeof out->uid)
            memcpy(out->uid, uid, n);
        snprintf(text->name, sizeof text->name, "%s", dm_stmt_text(q, 1));
        snprintf(text->device, sizeof text->device, "%s", dm_stmt_text(q, 2));
        snprintf(text->machine_kind, sizeof text->machine_kind, "%s", dm_stmt_text(q, 3));
        snprintf(text->drained, sizeof text->drained, "%s", dm_stmt_text(q, 6));
        out->id = id;
        out->memory_bytes = dm_stmt_i64(q, 4);
        out->first_seen_ms = dm_stmt_i64(q, 5);
        out->name = text->name;
        out->device = text->device;
        out->machine_kind = text->machine_kind;
        out->drained = text->drained[0] ? text->drained : NULL;
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_worker_seen(dm_store *st, int64_t id, int64_t now_ms, es_error *err)
{
    return dm_db_run(st->db, "UPDATE worker SET last_seen_ms = ? WHERE id = ?", err, "ii", now_ms, id);
}

es_status dm_worker_stale(dm_store *st, int64_t before_ms, int64_t *id, es_error *err)
{
    return dm_db_get_i64(st->db, id,
                         "SELECT id FROM worker WHERE last_seen_ms < ? AND id < (SELECT max(id) FROM worker)"
                         " ORDER BY last_seen_ms LIMIT 1",
                         err, "i", before_ms);
}

es_status dm_worker_delete(dm_store *st, int64_t id, es_error *err)
{
    return dm_db_run(st->db, "DELETE FROM worker WHERE id = ?", err, "i", id);
}

es_status dm_worker_find(dm_store *st, const uint8_t uid[16], int64_t *id, es_error *err)
{
    return dm_db_get_i64(st->db, id, "SELECT id FROM worker WHERE uid = ?", err, "b", uid, (size_t)16);
}

es_status dm_worker_set_drained(dm_store *st, int64_t id, const char *why, es_error *err)
{
    return dm_db_run(st->db, "UPDATE worker SET drained = ? WHERE id = ?", err, "si", why, id);
}
