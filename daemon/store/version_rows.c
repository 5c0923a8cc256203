/* Which weights versions rows need, and the rows of searches that were deleted. The rule is coord/retain.c's. */
#include <inttypes.h>
#include <string.h>

#include "daemon/store/internal.h"

enum { PURGE_ROWS = 500, PURGE_JOBS = 50 };

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
    while (more && (s = dm_stmt_row(q, err)) == ES_OK)
        more = fn(ctx, dm_stmt_text(q, 0));
    dm_stmt_end(q);
    return !more || s == ES_NOT_FOUND ? ES_OK : s;
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

es_status dm_search_set_pinned(dm_store *st, int64_t id, bool pinned, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET pinned = ? WHERE id = ?", err, "ii", (int64_t)pinned, id);
}

es_status dm_search_set_deleted(dm_store *st, int64_t id, int64_t now_ms, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET deleted_ms = ? WHERE id = ? AND deleted_ms IS NULL", err, "ii", now_ms,
                     id);
}

es_status dm_attempts_jump(dm_store *st, es_error *err)
{
    return dm_db_run(st->db, "UPDATE job SET attempt = attempt + 1000 WHERE state = 1 OR state = 2 OR state = 3", err,
                     "");
}

/* ---- deleting, a bounded number of rows at a time */

/* Jobs with all their children. The youngest job of all stays, so that no id comes twice; *n counts those that went. */
static es_status purge_jobs(dm_store *st, int64_t search, int *n, int64_t *left, es_error *err)
{
    struct {
        int64_t id;
        int state;
    } jobs[PURGE_JOBS];
    dm_stmt *q;
    es_status s;
    *n = 0;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT id, state FROM job WHERE search = ? AND key IS NOT NULL"
                          " AND id < (SELECT max(id) FROM job) LIMIT ?",
                          err, "ii", search, (int64_t)PURGE_JOBS));
    while ((s = dm_stmt_row(q, err)) == ES_OK) {
        jobs[*n].id = dm_stmt_i64(q, 0);
        jobs[(*n)++].state = (int)dm_stmt_i64(q, 1);
    }
    dm_stmt_end(q);
    if (s != ES_NOT_FOUND)
        return s;
    for (int i = 0; i < *n; i++) {
        ES_RETURN(dm_db_run(st->db, "DELETE FROM dependency WHERE needs = ?", err, "i", jobs[i].id));
        ES_RETURN(dm_db_run(st->db, "DELETE FROM dependency WHERE job = ?", err, "i", jobs[i].id));
        ES_RETURN(dm_db_run(st->db, "DELETE FROM attempt WHERE job = ?", err, "i", jobs[i].id));
        ES_RETURN(dm_db_run(st->db, "DELETE FROM gang_rank WHERE job = ?", err, "i", jobs[i].id));
        ES_RETURN(dm_db_run(st->db, "DELETE FROM checkpoint WHERE job = ?", err, "i", jobs[i].id));
        ES_RETURN(dm_db_run(st->db, "DELETE FROM job WHERE id = ?", err, "i", jobs[i].id));
        dm_store_count(st, search, jobs[i].state, -1);
    }
    return dm_db_get_i64(st->db, left, "SELECT count(*) FROM (SELECT 1 FROM job WHERE search = ? LIMIT 1)", err, "i",
                         search);
}

static es_status purge_facts(dm_store *st, int64_t search, int64_t *gone, es_error *err)
{
    ES_RETURN(dm_db_run(st->db, "DELETE FROM version_use WHERE search = ?", err, "i", search));
    ES_RETURN(dm_db_run(st->db,
                        "DELETE FROM result WHERE search = ? AND (id, weights, split, measure) IN"
                        " (SELECT id, weights, split, measure FROM result WHERE search = ? LIMIT ?)",
                        err, "iii", search, search, (int64_t)PURGE_ROWS));
    *gone = dm_db_changes(st->db);
    ES_RETURN(dm_db_run(st->db,
                        "DELETE FROM candidate WHERE search = ? AND ticket IN"
                        " (SELECT ticket FROM candidate WHERE search = ? LIMIT ?)",
                        err, "iii", search, search, (int64_t)PURGE_ROWS));
    *gone += dm_db_changes(st->db);
    ES_RETURN(dm_db_run(st->db,
                        "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE search = ? AND id <"
                        " (SELECT max(id) FROM event) LIMIT ?)",
                        err, "ii", search, (int64_t)PURGE_ROWS));
    *gone += dm_db_changes(st->db);
    return ES_OK;
}

es_status dm_search_purge(dm_store *st, int64_t after, int64_t *id, bool *busy, es_error *err)
{
    int64_t gone, left;
    int jobs;
    *busy = false;
    ES_RETURN(dm_db_get_i64(
        st->db, id,
        "SELECT id FROM search WHERE deleted_ms IS NOT NULL AND driver <> '' AND id > ? ORDER BY id LIMIT 1", err, "i",
        after));
    ES_RETURN(purge_facts(st, *id, &gone, err));
    *busy = gone > 0;
    if (*busy)
        return ES_OK;
    ES_RETURN(purge_jobs(st, *id, &jobs, &left, err));
    *busy = jobs > 0;
    if (left) /* more than one portion, or the youngest job: when there is a younger one */
        return ES_OK;
    return dm_db_run(st->db,
                     "UPDATE search SET driver = '', text = '', result = NULL, reason = NULL, name = '', user = '', "
                     "phase = 'deleted'"
                     " WHERE id = ?",
                     err, "i", *id);
}
