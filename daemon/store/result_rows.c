#include "daemon/store/result_rows.h"

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
    while (more && dm_stmt_next(q, &s, err)) {
        dm_candidate c = {.ticket = dm_stmt_i64(q, 0),
                          .architecture = dm_stmt_text(q, 2),
                          .params = dm_stmt_i64(q, 3),
                          .macs = dm_stmt_i64(q, 4),
                          .activation_bytes = dm_stmt_i64(q, 5)};
        read_id(q, 1, &c.id);
        more = fn(ctx, &c);
    }
    dm_stmt_end(q);
    return s;
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
    while (more && dm_stmt_next(q, &s, err)) {
        dm_result r;
        result_read(q, &r);
        more = fn(ctx, &r);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_candidate_curve(dm_store *st, int64_t search, int64_t from, int64_t limit,
                             bool (*fn)(void *ctx, const dm_candidate *c, double accuracy), void *ctx, es_error *err)
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
    while (more && dm_stmt_next(q, &s, err)) {
        dm_candidate c = {.ticket = dm_stmt_i64(q, 0), .params = dm_stmt_i64(q, 2), .macs = dm_stmt_i64(q, 3)};
        more = fn(ctx, &c, dm_stmt_f64(q, 1));
    }
    dm_stmt_end(q);
    return s;
}
