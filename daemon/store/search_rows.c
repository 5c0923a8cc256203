#include "daemon/store/search_rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "daemon/store/internal.h"

static const char *const state_names[] = {"", "running", "paused", "done", "failed", "cancelled"};

const char *dm_search_state_name(dm_search_state s)
{
    return s >= DM_SEARCH_RUNNING && s <= DM_SEARCH_CANCELLED ? state_names[s] : "unknown";
}

#define TO(state) (1u << DM_SEARCH_##state)
static const unsigned successors[] = {
    [DM_SEARCH_RUNNING] = TO(PAUSED) | TO(DONE) | TO(FAILED) | TO(CANCELLED),
    [DM_SEARCH_PAUSED] =
        TO(RUNNING) | TO(DONE) | TO(FAILED) | TO(CANCELLED), /* done: its last result came after the pause */
    [DM_SEARCH_FAILED] = TO(RUNNING),                        /* an operator retries */
    [DM_SEARCH_DONE] = 0,
    [DM_SEARCH_CANCELLED] = 0,
};
#undef TO

bool dm_search_may(dm_search_state from, dm_search_state to)
{
    return from >= DM_SEARCH_RUNNING && from <= DM_SEARCH_CANCELLED && (successors[from] >> to & 1);
}

void dm_search_row_free(dm_search_row *r)
{
    free(r->token);
    free(r->name);
    free(r->user);
    free(r->driver);
    free(r->phase);
    free(r->text);
    free(r->reason);
    memset(r, 0, sizeof *r);
}

es_status dm_search_insert(dm_store *st, dm_search_row *r, es_error *err)
{
    ES_RETURN(dm_db_run(st->db,
                        "INSERT INTO search (token, name, user, driver, priority, state, text, submitted_ms)"
                        " VALUES (?, ?, ?, ?, ?, 1, ?, ?)",
                        err, "ssssisi", r->token, r->name, r->user, r->driver, r->priority, r->text, r->submitted_ms));
    r->id = dm_db_last_id(st->db);
    r->state = DM_SEARCH_RUNNING;
    return ES_OK;
}

es_status dm_search_find_token(dm_store *st, const char *token, int64_t *id, es_error *err)
{
    return dm_db_get_i64(st->db, id, "SELECT id FROM search WHERE token = ?", err, "s", token);
}

#define SEARCH_COLUMNS                                                                                            \
    "id, token, name, user, driver, priority, state, phase, submitted_ms, ended_ms, reason, n_waiting, n_ready, " \
    "n_running, n_done,"                                                                                          \
    " n_failed, n_cancelled, pinned, used_ms"

static void search_read(dm_stmt *q, dm_search_row *r)
{
    memset(r, 0, sizeof *r);
    r->id = dm_stmt_i64(q, 0);
    r->token = es_xstrdup(dm_stmt_text(q, 1));
    r->name = es_xstrdup(dm_stmt_text(q, 2));
    r->user = es_xstrdup(dm_stmt_text(q, 3));
    r->driver = es_xstrdup(dm_stmt_text(q, 4));
    r->priority = dm_stmt_i64(q, 5);
    r->state = (dm_search_state)dm_stmt_i64(q, 6);
    r->phase = es_xstrdup(dm_stmt_text(q, 7));
    r->submitted_ms = dm_stmt_i64(q, 8);
    r->ended_ms = dm_stmt_i64(q, 9);
    r->reason = dm_store_dup(dm_stmt_text(q, 10));
    for (int i = 1; i < DM_JOB_STATES; i++)
        r->n[i] = dm_stmt_i64(q, 10 + i);
    r->pinned = dm_stmt_i64(q, 17) != 0;
    r->used_ms = dm_stmt_f64(q, 18);
}

es_status dm_search_get(dm_store *st, int64_t id, dm_search_row *out, es_error *err)
{
    dm_stmt *q = NULL;
    memset(out, 0, sizeof *out);
    ES_RETURN(dm_store_flush_counts(st, err));
    ES_RETURN(dm_db_query(st->db, &q, "SELECT " SEARCH_COLUMNS ", text FROM search WHERE id = ? AND deleted_ms IS NULL",
                          err, "i", id));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK) {
        search_read(q, out);
        out->text = es_xstrdup(dm_stmt_text(q, 19));
    } else if (s == ES_NOT_FOUND) {
        s = es_fail(err, ES_NOT_FOUND, NULL, "there is no search %" PRId64, id);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_search_move(dm_store *st, int64_t id, dm_search_state from, dm_search_state to, const char *reason,
                         int64_t now_ms, es_error *err)
{
    ES_ASSERT(dm_search_may(from, to));
    bool over = to != DM_SEARCH_RUNNING && to != DM_SEARCH_PAUSED;
    ES_RETURN(dm_db_run(st->db,
                        "UPDATE search SET state = ?, reason = ?, ended_ms = nullif(?, 0) WHERE id = ? AND state = ?",
                        err, "isiii", (int64_t)to, reason, over ? now_ms : (int64_t)0, id, (int64_t)from));
    if (dm_db_changes(st->db) != 1)
        return es_fail(err, ES_LOST, NULL, "search %" PRId64 " is not %s", id, state_names[from]);
    return ES_OK;
}

es_status dm_search_set_phase(dm_store *st, int64_t id, const char *phase, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET phase = ? WHERE id = ?", err, "si", phase, id);
}

es_status dm_search_set_priority(dm_store *st, int64_t id, int64_t priority, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET priority = ? WHERE id = ?", err, "ii", priority, id);
}

es_status dm_search_set_result(dm_store *st, int64_t id, const char *json, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET result = ? WHERE id = ?", err, "si", json, id);
}

es_status dm_search_result(dm_store *st, int64_t id, char **json, es_error *err)
{
    dm_stmt *q = NULL;
    *json = NULL;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT result FROM search WHERE id = ? AND deleted_ms IS NULL", err, "i", id));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK)
        *json = dm_store_dup(dm_stmt_text(q, 0));
    else if (s == ES_NOT_FOUND)
        s = es_fail(err, ES_NOT_FOUND, NULL, "there is no search %" PRId64, id);
    dm_stmt_end(q);
    return s;
}

es_status dm_search_each(dm_store *st, int64_t before, int64_t limit, bool (*fn)(void *ctx, const dm_search_row *r),
                         void *ctx, es_error *err)
{
    dm_stmt *q = NULL;
    es_status s;
    ES_RETURN(dm_store_flush_counts(st, err));
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT " SEARCH_COLUMNS
                          " FROM search WHERE id < ? AND deleted_ms IS NULL ORDER BY id DESC LIMIT ?",
                          err, "ii", before ? before : INT64_MAX, limit));
    bool more = true;
    while (more && dm_stmt_next(q, &s, err)) {
        dm_search_row r;
        search_read(q, &r);
        more = fn(ctx, &r);
        dm_search_row_free(&r);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_search_live(dm_store *st, int64_t **ids, int *count, es_error *err)
{
    dm_stmt *q = NULL;
    dm_ids l = {0};
    es_status s;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT id FROM search WHERE state = 1 OR state = 2 ORDER BY id", err, ""));
    while (dm_stmt_next(q, &s, err))
        dm_ids_add(&l, dm_stmt_i64(q, 0));
    dm_stmt_end(q);
    *ids = l.p;
    *count = l.n;
    return s;
}

es_status dm_search_unswept(dm_store *st, int64_t *id, es_error *err)
{
    ES_RETURN(dm_store_flush_counts(st, err));
    return dm_db_get_i64(
        st->db, id,
        "SELECT id FROM search WHERE (state = 3 OR state = 5) AND n_waiting + n_ready + n_running > 0 LIMIT 1", err,
        "");
}

es_status dm_search_counts(dm_store *st, int64_t counts[6], es_error *err)
{
    dm_stmt *q;
    es_status s;
    memset(counts, 0, 6 * sizeof *counts);
    ES_RETURN(
        dm_db_query(st->db, &q, "SELECT state, count(*) FROM search WHERE deleted_ms IS NULL GROUP BY state", err, ""));
    while (dm_stmt_next(q, &s, err))
        counts[dm_stmt_i64(q, 0)] = dm_stmt_i64(q, 1);
    dm_stmt_end(q);
    return s;
}

es_status dm_search_set_pinned(dm_store *st, int64_t id, bool pinned, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET pinned = ? WHERE id = ?", err, "ii", (int64_t)pinned, id);
}
