/* What searches found, and the small tables: workers, events, enqueue tokens. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/store/internal.h"

es_status dm_candidate_insert(dm_store *st, int64_t search, const dm_candidate *c, es_error *err)
{
    return dm_db_run(st->db,
                     "INSERT INTO candidate (search, ticket, id, architecture, params, macs, activation_bytes) VALUES "
                     "(?, ?, ?, ?, ?, ?, ?)",
                     err, "iibsiii", search, c->ticket, c->id.b, (size_t)ES_ID_BYTES, c->architecture, c->params,
                     c->macs, c->activation_bytes);
}

static void read_id(dm_stmt *q, int column, es_id *out)
{
    size_t n;
    const void *p = dm_stmt_blob(q, column, &n);
    memset(out, 0, sizeof *out);
    if (p && n == ES_ID_BYTES)
        memcpy(out->b, p, n);
}

es_status dm_candidate_each(dm_store *st, int64_t search, int64_t from, int64_t limit,
                            bool (*fn)(void *ctx, const dm_candidate *c), void *ctx, es_error *err)
{
    dm_stmt *q;
    es_status s;
    bool more = true;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT ticket, id, architecture, params, macs, activation_bytes FROM candidate WHERE search "
                          "= ? AND ticket >= ?"
                          " ORDER BY ticket LIMIT ?",
                          err, "iii", search, from, limit));
    while (more && (s = dm_stmt_row(q, err)) == ES_OK) {
        dm_candidate c = {.ticket = dm_stmt_i64(q, 0),
                          .architecture = dm_stmt_text(q, 2),
                          .params = dm_stmt_i64(q, 3),
                          .macs = dm_stmt_i64(q, 4),
                          .activation_bytes = dm_stmt_i64(q, 5)};
        read_id(q, 1, &c.id);
        more = fn(ctx, &c);
    }
    dm_stmt_end(q);
    return !more || s == ES_NOT_FOUND ? ES_OK : s;
}

es_status dm_result_insert(dm_store *st, int64_t search, const dm_result *r, bool *fresh, es_error *err)
{
    int64_t ok = r->ok;
    /* nullif: a result that no job made refers to none. */
    ES_RETURN(dm_db_run(st->db,
                        "INSERT OR IGNORE INTO result (search, id, weights, split, measure, job, ok, value, low, high, "
                        "loss, correct, samples,"
                        " text) VALUES (?, ?, ?, ?, ?, nullif(?, 0), ?, ?, ?, ?, ?, ?, ?, ?)",
                        err, "ibsiiiiddddiis", search, r->id.b, (size_t)ES_ID_BYTES, r->weights ? r->weights : "",
                        (int64_t)r->split, (int64_t)r->measure, r->job, ok, r->value, r->low, r->high, r->loss,
                        r->correct, r->samples, r->text));
    *fresh = dm_db_changes(st->db) == 1;
    return ES_OK;
}

#define RESULT_COLUMNS "id, weights, split, measure, job, ok, value, low, high, loss, correct, samples, text"

static void result_read(dm_stmt *q, dm_result *r)
{
    memset(r, 0, sizeof *r);
    read_id(q, 0, &r->id);
    r->weights = dm_stmt_text(q, 1);
    r->split = (dm_split)dm_stmt_i64(q, 2);
    r->measure = (dm_measure)dm_stmt_i64(q, 3);
    r->job = dm_stmt_i64(q, 4);
    r->ok = dm_stmt_i64(q, 5) != 0;
    r->value = dm_stmt_f64(q, 6);
    r->low = dm_stmt_f64(q, 7);
    r->high = dm_stmt_f64(q, 8);
    r->loss = dm_stmt_f64(q, 9);
    r->correct = dm_stmt_i64(q, 10);
    r->samples = dm_stmt_i64(q, 11);
    r->text = dm_stmt_text(q, 12);
}

es_status dm_result_get(dm_store *st, int64_t search, const es_id *id, const char *weights, dm_split split,
                        dm_measure measure, dm_result *out, char text[256], es_error *err)
{
    dm_stmt *q;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT " RESULT_COLUMNS
                          " FROM result WHERE search = ? AND id = ? AND weights = ? AND split = ? AND measure = ?",
                          err, "ibsii", search, id->b, (size_t)ES_ID_BYTES, weights, (int64_t)split, (int64_t)measure));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK) {
        result_read(q, out);
        snprintf(text, 256, "%s", out->text);
        out->text = text;
        out->weights = weights;
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_result_each(dm_store *st, int64_t search, bool (*fn)(void *ctx, const dm_result *r), void *ctx,
                         es_error *err)
{
    dm_stmt *q;
    es_status s;
    bool more = true;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT " RESULT_COLUMNS " FROM result WHERE search = ?", err, "i", search));
    while (more && (s = dm_stmt_row(q, err)) == ES_OK) {
        dm_result r;
        result_read(q, &r);
        more = fn(ctx, &r);
    }
    dm_stmt_end(q);
    return !more || s == ES_NOT_FOUND ? ES_OK : s;
}

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

es_status dm_event_each(dm_store *st, int64_t search, int64_t after, int64_t limit,
                        bool (*fn)(void *ctx, int64_t id, const char *json), void *ctx, es_error *err)
{
    dm_stmt *q;
    es_status s;
    bool more = true;
    if (search)
        ES_RETURN(dm_db_query(st->db, &q, "SELECT id, json FROM event WHERE search = ? AND id > ? ORDER BY id LIMIT ?",
                              err, "iii", search, after, limit));
    else
        ES_RETURN(dm_db_query(st->db, &q, "SELECT id, json FROM event WHERE id > ? ORDER BY id LIMIT ?", err, "ii",
                              after, limit));
    while (more && (s = dm_stmt_row(q, err)) == ES_OK)
        more = fn(ctx, dm_stmt_i64(q, 0), dm_stmt_text(q, 1));
    dm_stmt_end(q);
    return !more || s == ES_NOT_FOUND ? ES_OK : s;
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

/* ---- curves */

es_status dm_curve_loss(dm_store *st, int64_t search, int64_t limit,
                        bool (*fn)(void *ctx, int64_t job, int64_t step, double loss), void *ctx, es_error *err)
{
    int64_t total;
    dm_stmt *q;
    es_status s = ES_OK;
    bool more = true;
    ES_RETURN(dm_db_get_i64(st->db, &total,
                            "SELECT count(*) FROM job AS j JOIN checkpoint AS c ON c.job = j.id WHERE j.search = ? AND"
                            " j.key IS NOT NULL",
                            err, "i", search));
    int64_t every = limit > 0 ? (total + limit - 1) / limit : 1, i = 0;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT c.job, c.step, c.loss FROM job AS j JOIN checkpoint AS c ON c.job = j.id WHERE"
                          " j.search = ? AND j.key IS NOT NULL ORDER BY c.job, c.step",
                          err, "i", search));
    for (; more && (s = dm_stmt_row(q, err)) == ES_OK; i++)
        if (every < 2 || i % every == every - 1 || i == total - 1)
            more = fn(ctx, dm_stmt_i64(q, 0), dm_stmt_i64(q, 1), dm_stmt_f64(q, 2));
    dm_stmt_end(q);
    return !more || s == ES_NOT_FOUND ? ES_OK : s;
}

es_status dm_curve_values(dm_store *st, int64_t search, int64_t from, int64_t limit,
                          bool (*fn)(void *ctx, int64_t ticket, double value, int64_t params, int64_t macs), void *ctx,
                          es_error *err)
{
    dm_stmt *q;
    es_status s = ES_OK;
    bool more = true;
    ES_RETURN(dm_db_query(
        st->db, &q,
        "SELECT c.ticket, (SELECT r.value FROM result AS r WHERE r.search = c.search AND r.id = c.id AND r.split = 1 "
        "AND"
        " r.measure = 1 AND r.ok = 1 LIMIT 1) AS v, ifnull(c.params, 0), ifnull(c.macs, 0) FROM candidate AS c"
        " WHERE c.search = ? AND c.ticket >= ? AND v IS NOT NULL ORDER BY c.ticket LIMIT ?",
        err, "iii", search, from, limit));
    while (more && (s = dm_stmt_row(q, err)) == ES_OK)
        more = fn(ctx, dm_stmt_i64(q, 0), dm_stmt_f64(q, 1), dm_stmt_i64(q, 2), dm_stmt_i64(q, 3));
    dm_stmt_end(q);
    return !more || s == ES_NOT_FOUND ? ES_OK : s;
}
