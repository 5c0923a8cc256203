#include "daemon/store/event_rows.h"

#include "daemon/store/internal.h"

es_status dm_event_insert(dm_store *st, int64_t id, int64_t ms, int64_t search, int64_t job, const char *kind,
                          const char *json, es_error *err)
{
    return dm_db_run(
        st->db, "INSERT INTO event (id, ms, search, job, kind, json) VALUES (?, ?, nullif(?, 0), nullif(?, 0), ?, ?)",
        err, "iiiiss", id, ms, search, job, kind, json);
}

es_status dm_event_last(dm_store *st, int64_t *id, es_error *err)
{
    return dm_db_get_i64(st->db, id, "SELECT max(id) FROM event", err, "");
}

es_status dm_event_first(dm_store *st, int64_t *id, es_error *err)
{
    return dm_db_get_i64(st->db, id, "SELECT min(id) FROM event", err, "");
}

es_status dm_event_each(dm_store *st, int64_t search, int64_t after, int64_t limit,
                        bool (*fn)(void *ctx, int64_t id, const char *json), void *ctx, es_error *err)
{
    dm_stmt *q = NULL;
    es_status s;
    bool more = true;
    if (search)
        ES_RETURN(dm_db_query(st->db, &q, "SELECT id, json FROM event WHERE search = ? AND id > ? ORDER BY id LIMIT ?",
                              err, "iii", search, after, limit));
    else
        ES_RETURN(dm_db_query(st->db, &q, "SELECT id, json FROM event WHERE id > ? ORDER BY id LIMIT ?", err, "ii",
                              after, limit));
    while (more && dm_stmt_next(q, &s, err))
        more = fn(ctx, dm_stmt_i64(q, 0), dm_stmt_text(q, 1));
    dm_stmt_end(q);
    return more ? s : ES_OK;
}

es_status dm_event_prune(dm_store *st, int64_t keep, es_error *err)
{
    return dm_db_run(
        st->db,
        "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE id < (SELECT max(id) FROM event) - ? LIMIT 1000)",
        err, "i", keep);
}

es_status dm_enqueue_find(dm_store *st, const char *token, int64_t *search, es_error *err)
{
    return dm_db_get_i64(st->db, search, "SELECT search FROM enqueue WHERE token = ?", err, "s", token);
}

es_status dm_enqueue_insert(dm_store *st, const char *token, int64_t search, es_error *err)
{
    return dm_db_run(st->db, "INSERT INTO enqueue (token, search) VALUES (?, ?)", err, "si", token, search);
}
