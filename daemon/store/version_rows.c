#include "daemon/store/version_rows.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/store/internal.h"

es_status dm_version_use(dm_store *st, const char *version, int64_t search, int64_t job, es_error *err)
{
    return dm_db_run(st->db, "INSERT OR IGNORE INTO version_use (version, search, job, role) VALUES (?, ?, ?, 1)", err,
                     "sii", version, search, job);
}

es_status dm_version_keep_newest(dm_store *st, int64_t job, int64_t keep, es_error *err)
{
    return dm_db_run(st->db,
                     "DELETE FROM version_use WHERE job = ? AND version NOT IN"
                     " (SELECT weights FROM checkpoint WHERE job = ? ORDER BY step DESC LIMIT ?)",
                     err, "iii", job, job, keep);
}

es_status dm_version_needed(dm_store *st, const char *hex, bool *yes, es_error *err)
{
    int64_t one;
    es_status s = dm_db_get_i64(st->db, &one, "SELECT 1 FROM version_use WHERE version = ? LIMIT 1", err, "s", hex);
    *yes = s != ES_NOT_FOUND;
    return s == ES_NOT_FOUND ? ES_OK : s;
}

es_status dm_version_each(dm_store *st, bool (*fn)(void *ctx, const char *hex), void *ctx, es_error *err)
{
    dm_stmt *q;
    es_status s;
    bool more = true;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT DISTINCT version FROM version_use", err, ""));
    while (more && dm_stmt_next(q, &s, err))
        more = fn(ctx, dm_stmt_text(q, 0));
    dm_stmt_end(q);
    return s;
}

es_status dm_retain_next(dm_store *st, int64_t after, dm_retain_row *out, es_error *err)
{
    dm_stmt *q;
    memset(out, 0, sizeof *out);
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT id, state, ifnull(ended_ms, 0), pinned, deleted_ms IS NOT NULL,"
                          " EXISTS (SELECT 1 FROM version_use WHERE search = s.id AND role = 1) FROM search AS s"
                          " WHERE id = (SELECT search FROM version_use WHERE search > ? ORDER BY search LIMIT 1)",
                          err, "i", after));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK)
        *out = (dm_retain_row){.id = dm_stmt_i64(q, 0),
                               .state = (dm_search_state)dm_stmt_i64(q, 1),
                               .ended_ms = dm_stmt_i64(q, 2),
                               .pinned = dm_stmt_i64(q, 3) != 0,
                               .deleted = dm_stmt_i64(q, 4) != 0,
                               .work = dm_stmt_i64(q, 5) != 0};
    dm_stmt_end(q);
    return s;
}

es_status dm_retain_newer(dm_store *st, int64_t ended_ms, int64_t limit, int64_t *count, es_error *err)
{
    return dm_db_get_i64(
        st->db, count,
        "SELECT count(*) FROM (SELECT 1 FROM search WHERE state = 3 AND ended_ms > ? AND deleted_ms IS NULL LIMIT ?)",
        err, "ii", ended_ms, limit);
}

es_status dm_retain_release_work(dm_store *st, int64_t search, es_error *err)
{
    ES_RETURN(dm_db_run(st->db,
                        "UPDATE version_use SET role = 2 WHERE search = ? AND role = 1"
                        " AND instr((SELECT result FROM search WHERE id = version_use.search), version) > 0",
                        err, "i", search));
    return dm_db_run(st->db, "DELETE FROM version_use WHERE search = ? AND role = 1", err, "i", search);
}

es_status dm_retain_release_all(dm_store *st, int64_t search, es_error *err)
{
    return dm_db_run(st->db, "DELETE FROM version_use WHERE search = ?", err, "i", search);
}
