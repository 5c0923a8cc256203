#include "daemon/store/purge.h"

#include <inttypes.h>

#include "daemon/store/internal.h"

enum { PURGE_ROWS = 500, PURGE_JOBS = 50 };

es_status dm_search_set_deleted(dm_store *st, int64_t id, int64_t now_ms, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET deleted_ms = ? WHERE id = ? AND deleted_ms IS NULL", err, "ii", now_ms,
                     id);
}

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
    while (dm_stmt_next(q, &s, err)) {
        jobs[*n].id = dm_stmt_i64(q, 0);
        jobs[(*n)++].state = (int)dm_stmt_i64(q, 1);
    }
    dm_stmt_end(q);
    ES_RETURN(s);
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
