#include "daemon/store/attempt_rows.h"

#include <stdio.h>
#include <string.h>

#include "daemon/store/internal.h"
#include "schemas/wire.pb-c.h"

es_status dm_attempt_insert(dm_store *st, const dm_attempt_row *r, es_error *err)
{
    return dm_db_run(st->db,
                     "INSERT INTO attempt (job, attempt, worker, outcome, leased_ms, ended_ms, error_code, error, log)"
                     " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                     err, "iiiiiisss", r->job, r->attempt, r->worker, (int64_t)r->outcome, r->leased_ms, r->ended_ms,
                     r->error_code, r->error, r->log);
}

es_status dm_attempt_ended_so(dm_store *st, int64_t job, int64_t attempt, int64_t worker, int said, bool *yes,
                              es_error *err)
{
    int64_t outcome;
    es_status s =
        dm_db_get_i64(st->db, &outcome, "SELECT outcome FROM attempt WHERE job = ? AND attempt = ? AND worker = ?", err,
                      "iii", job, attempt, worker);
    *yes = s == ES_OK &&
           (outcome == said || (outcome == DM_OUTCOME_SLICE && said == ESPALIER__WIRE__OUTCOME__OUTCOME_DONE));
    return s == ES_NOT_FOUND ? ES_OK : s;
}

es_status dm_attempt_each(dm_store *st, int64_t job, bool (*fn)(void *ctx, const dm_attempt_row *r), void *ctx,
                          es_error *err)
{
    dm_stmt *q;
    es_status s;
    bool more = true;
    ES_RETURN(dm_db_query(
        st->db, &q,
        "SELECT attempt, worker, outcome, leased_ms, ended_ms, error_code, error, log FROM attempt WHERE job = ?"
        " ORDER BY attempt",
        err, "i", job));
    while (more && dm_stmt_next(q, &s, err)) {
        dm_attempt_row r = {.job = job,
                            .attempt = dm_stmt_i64(q, 0),
                            .worker = dm_stmt_i64(q, 1),
                            .outcome = (int)dm_stmt_i64(q, 2),
                            .leased_ms = dm_stmt_i64(q, 3),
                            .ended_ms = dm_stmt_i64(q, 4),
                            .error_code = dm_stmt_text(q, 5),
                            .error = dm_stmt_text(q, 6),
                            .log = dm_stmt_text(q, 7)};
        more = fn(ctx, &r);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_gang_insert(dm_store *st, const dm_gang_row *r, es_error *err)
{
    if (r->rank == 0)
        ES_RETURN(dm_db_run(st->db, "DELETE FROM gang_rank WHERE job = ?", err, "i", r->job));
    return dm_db_run(st->db, "INSERT INTO gang_rank (job, rank, attempt, size, worker) VALUES (?, ?, ?, ?, ?)", err,
                     "iiiii", r->job, (int64_t)r->rank, r->attempt, (int64_t)r->size, r->worker);
}

es_status dm_gang_leave(dm_store *st, int64_t job, int rank, es_error *err)
{
    return dm_db_run(st->db, "DELETE FROM gang_rank WHERE job = ? AND rank = ?", err, "ii", job, (int64_t)rank);
}

es_status dm_gang_set_id(dm_store *st, int64_t job, const void *id, size_t n, es_error *err)
{
    return dm_db_run(st->db, "UPDATE gang_rank SET id = ? WHERE job = ? AND rank = 0", err, "bi", id, n, job);
}

es_status dm_gang_each(dm_store *st, int64_t job, int64_t attempt,
                       bool (*fn)(void *ctx, const dm_gang_row *r, const void *id, size_t n), void *ctx, es_error *err)
{
    dm_stmt *q;
    es_status s;
    bool more = true;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT rank, size, worker, id FROM gang_rank WHERE job = ? AND attempt = ? ORDER BY rank",
                          err, "ii", job, attempt));
    while (more && dm_stmt_next(q, &s, err)) {
        size_t n = 0;
        const void *id = dm_stmt_blob(q, 3, &n);
        dm_gang_row r = {.job = job,
                         .attempt = attempt,
                         .rank = (int)dm_stmt_i64(q, 0),
                         .size = (int)dm_stmt_i64(q, 1),
                         .worker = dm_stmt_i64(q, 2)};
        more = fn(ctx, &r, id, n);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_checkpoint_insert(dm_store *st, const dm_checkpoint *c, es_error *err)
{
    return dm_db_run(st->db,
                     "INSERT OR REPLACE INTO checkpoint (job, step, steps, weights, loss, per_second, seconds) VALUES "
                     "(?, ?, ?, ?, ?, ?, ?)",
                     err, "iiisddd", c->job, c->step, c->steps, c->weights, c->loss, c->per_second, c->seconds);
}

es_status dm_checkpoint_forget(dm_store *st, int64_t job, es_error *err)
{
    return dm_db_run(st->db, "DELETE FROM checkpoint WHERE job = ?", err, "i", job);
}

es_status dm_checkpoint_last(dm_store *st, int64_t job, dm_checkpoint *out, char weights[72], es_error *err)
{
    dm_stmt *q;
    memset(out, 0, sizeof *out);
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT step, steps, weights, loss, per_second, seconds FROM checkpoint WHERE job = ? ORDER "
                          "BY step DESC LIMIT 1",
                          err, "i", job));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK) {
        snprintf(weights, 72, "%s", dm_stmt_text(q, 2));
        *out = (dm_checkpoint){.job = job,
                               .step = dm_stmt_i64(q, 0),
                               .steps = dm_stmt_i64(q, 1),
                               .weights = weights,
                               .loss = dm_stmt_f64(q, 3),
                               .per_second = dm_stmt_f64(q, 4),
                               .seconds = dm_stmt_f64(q, 5)};
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_checkpoint_seconds(dm_store *st, int64_t job, double *out, es_error *err)
{
    int64_t ms;
    es_status s = dm_db_get_i64(
        st->db, &ms, "SELECT CAST(sum(seconds) * 1000 AS INTEGER) FROM checkpoint WHERE job = ?", err, "i", job);
    *out = (double)ms / 1000;
    return s;
}

es_status dm_attempts_jump(dm_store *st, es_error *err)
{
    return dm_db_run(st->db, "UPDATE job SET attempt = attempt + 1000 WHERE state = 1 OR state = 2 OR state = 3", err,
                     "");
}

es_status dm_checkpoint_curve(dm_store *st, int64_t search, int64_t limit,
                              bool (*fn)(void *ctx, const dm_checkpoint *c), void *ctx, es_error *err)
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
    for (; more && dm_stmt_next(q, &s, err); i++) {
        dm_checkpoint c = {.job = dm_stmt_i64(q, 0), .step = dm_stmt_i64(q, 1), .loss = dm_stmt_f64(q, 2)};
        if (every < 2 || i % every == every - 1 || i == total - 1)
            more = fn(ctx, &c);
    }
    dm_stmt_end(q);
    return s;
}
