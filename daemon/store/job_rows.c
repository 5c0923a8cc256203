#include "daemon/store/job_rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "daemon/store/internal.h"
#include "daemon/store/job.h"
#include "schemas/wire.pb-c.h"

void dm_job_row_free(dm_job_row *r)
{
    free(r->key);
    free(r->spec);
    free(r->result);
    free(r->error_code);
    free(r->error);
    memset(r, 0, sizeof *r);
}

static es_status job_count_unmet(dm_store *st, const dm_job_new *j, int64_t *unmet, es_error *err)
{
    *unmet = 0;
    for (int i = 0; i < j->needs_count; i++) {
        int64_t state;
        es_status s = dm_db_get_i64(st->db, &state, "SELECT state FROM job WHERE id = ?", err, "i", j->needs[i]);
        if (s == ES_NOT_FOUND)
            return es_fail(err, ES_NOT_FOUND, NULL, "a job needs job %" PRId64 ", which does not exist", j->needs[i]);
        ES_RETURN(s);
        *unmet += state != DM_JOB_DONE;
    }
    return ES_OK;
}

es_status dm_job_create(dm_store *st, const dm_job_new *j, int64_t *id, bool *created, es_error *err)
{
    *created = false;
    if (j->key) {
        es_status s =
            dm_db_get_i64(st->db, id, "SELECT id FROM job WHERE search = ? AND key = ?", err, "is", j->search, j->key);
        if (s != ES_NOT_FOUND)
            return s;
    }
    int64_t unmet;
    ES_RETURN(job_count_unmet(st, j, &unmet, err));
    int state = unmet ? DM_JOB_WAITING : DM_JOB_READY;
    ES_RETURN(dm_db_run(st->db,
                        "INSERT INTO job (search, kind, state, waits, created_ms, memory_bytes, key, spec) VALUES (?, "
                        "?, ?, ?, ?, ?, ?, ?)",
                        err, "iiiiiisb", j->search, (int64_t)j->kind, (int64_t)state, unmet, j->now_ms, j->memory_bytes,
                        j->key, j->spec, j->spec_bytes));
    *id = dm_db_last_id(st->db);
    *created = true;
    for (int i = 0; i < j->needs_count; i++)
        ES_RETURN(dm_db_run(st->db, "INSERT OR IGNORE INTO dependency (needs, job) VALUES (?, ?)", err, "ii",
                            j->needs[i], *id));
    dm_store_count(st, j->search, state, 1);
    return ES_OK;
}

es_status dm_job_create_noops(dm_store *st, int64_t search, int64_t count, int64_t now_ms, int64_t *first,
                              es_error *err)
{
    *first = 0;
    for (int64_t i = 0; i < count; i++) {
        ES_RETURN(dm_db_run(st->db, "INSERT INTO job (search, kind, state, created_ms) VALUES (?, ?, 2, ?)", err, "iii",
                            search, (int64_t)ESPALIER__WIRE__JOB_KIND__JOB_NOOP, now_ms));
        if (i == 0)
            *first = dm_db_last_id(st->db);
    }
    dm_store_count(st, search, DM_JOB_READY, count);
    return ES_OK;
}

#define JOB_COLUMNS                                                                                             \
    "id, search, kind, state, not_before_ms, attempt, failures, losses, waits, worker, created_ms, leased_ms, " \
    "ended_ms, key, error_code,"                                                                                \
    " error, memory_bytes"

static void job_read(dm_stmt *q, dm_job_row *r)
{
    memset(r, 0, sizeof *r);
    r->id = dm_stmt_i64(q, 0);
    r->search = dm_stmt_i64(q, 1);
    r->kind = (int)dm_stmt_i64(q, 2);
    r->state = (int)dm_stmt_i64(q, 3);
    r->not_before_ms = dm_stmt_i64(q, 4);
    r->attempt = dm_stmt_i64(q, 5);
    r->failures = (int)dm_stmt_i64(q, 6);
    r->losses = (int)dm_stmt_i64(q, 7);
    r->waits = (int)dm_stmt_i64(q, 8);
    r->worker = dm_stmt_i64(q, 9);
    r->created_ms = dm_stmt_i64(q, 10);
    r->leased_ms = dm_stmt_i64(q, 11);
    r->ended_ms = dm_stmt_i64(q, 12);
    r->key = dm_store_dup(dm_stmt_text(q, 13));
    r->error_code = dm_store_dup(dm_stmt_text(q, 14));
    r->error = dm_store_dup(dm_stmt_text(q, 15));
    r->memory_bytes = dm_stmt_i64(q, 16);
}

static uint8_t *job_blob(dm_stmt *q, int column, size_t *n)
{
    const void *p = dm_stmt_blob(q, column, n);
    if (!p)
        return NULL;
    uint8_t *copy = es_xcalloc(1, *n + 1);
    memcpy(copy, p, *n);
    return copy;
}

static es_status job_read_one(dm_stmt *q, dm_job_row *out, es_error *err)
{
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK) {
        job_read(q, out);
        out->spec = job_blob(q, 17, &out->spec_bytes);
        out->result = job_blob(q, 18, &out->result_bytes);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_job_get(dm_store *st, int64_t id, dm_job_row *out, es_error *err)
{
    dm_stmt *q;
    memset(out, 0, sizeof *out);
    ES_RETURN(dm_db_query(st->db, &q, "SELECT " JOB_COLUMNS ", spec, result FROM job WHERE id = ?", err, "i", id));
    es_status s = job_read_one(q, out, err);
    return s == ES_NOT_FOUND ? es_fail(err, s, NULL, "there is no job %" PRId64, id) : s;
}

es_status dm_job_by_key(dm_store *st, int64_t search, const char *key, dm_job_row *out, es_error *err)
{
    dm_stmt *q;
    memset(out, 0, sizeof *out);
    ES_RETURN(dm_db_query(st->db, &q, "SELECT " JOB_COLUMNS ", spec, result FROM job WHERE search = ? AND key = ?", err,
                          "is", search, key));
    es_status s = job_read_one(q, out, err);
    return s == ES_NOT_FOUND ? es_fail(err, s, NULL, "search %" PRId64 " has no job \"%s\"", search, key) : s;
}

es_status dm_job_peek(dm_store *st, int64_t id, int *state, int64_t *attempt, int64_t *worker, es_error *err)
{
    dm_stmt *q;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT state, attempt, worker FROM job WHERE id = ?", err, "i", id));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK) {
        *state = (int)dm_stmt_i64(q, 0);
        *attempt = dm_stmt_i64(q, 1);
        *worker = dm_stmt_i64(q, 2);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_job_set_spec(dm_store *st, int64_t id, const void *spec, size_t bytes, es_error *err)
{
    return dm_db_run(st->db, "UPDATE job SET spec = ? WHERE id = ?", err, "bi", spec, bytes, id);
}

es_status dm_job_ready(dm_store *st, int64_t search, int64_t now_ms, int limit, dm_ready *out, int *count,
                       int64_t *next_due_ms, es_error *err)
{
    dm_stmt *q;
    es_status s = ES_OK;
    *count = 0;
    *next_due_ms = INT64_MAX;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT id, attempt, kind, failures, losses, not_before_ms, memory_bytes FROM job WHERE "
                          "state = 2 AND search = ?"
                          " ORDER BY not_before_ms, id LIMIT ?",
                          err, "ii", search, (int64_t)limit + 1));
    while (*count < limit && dm_stmt_next(q, &s, err)) {
        if (dm_stmt_i64(q, 5) > now_ms) {
            *next_due_ms = dm_stmt_i64(q, 5);
            break;
        }
        out[(*count)++] = (dm_ready){.id = dm_stmt_i64(q, 0),
                                     .attempt = dm_stmt_i64(q, 1),
                                     .kind = (int)dm_stmt_i64(q, 2),
                                     .failures = (int)dm_stmt_i64(q, 3),
                                     .losses = (int)dm_stmt_i64(q, 4),
                                     .memory_bytes = dm_stmt_i64(q, 6)};
    }
    if (*count == limit) { /* is there more behind the window, and when? */
        s = dm_stmt_row(q, err);
        if (s == ES_OK)
            *next_due_ms = dm_stmt_i64(q, 5);
    }
    dm_stmt_end(q);
    return s == ES_NOT_FOUND ? ES_OK : s;
}

static es_status job_each(dm_stmt *q, bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err)
{
    es_status s = ES_OK;
    bool more = true;
    while (more && dm_stmt_next(q, &s, err)) {
        dm_job_row r;
        job_read(q, &r);
        more = fn(ctx, &r);
        dm_job_row_free(&r);
    }
    dm_stmt_end(q);
    return s;
}

es_status dm_job_each_live(dm_store *st, int64_t search, int state, int64_t limit,
                           bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err)
{
    dm_stmt *q;
    /* The state must stand in the text for the partial index to be used. */
    if (state == DM_JOB_WAITING)
        ES_RETURN(dm_db_query(st->db, &q, "SELECT " JOB_COLUMNS " FROM job WHERE state = 1 AND search = ? LIMIT ?", err,
                              "ii", search, limit));
    else if (state == DM_JOB_READY)
        ES_RETURN(dm_db_query(st->db, &q, "SELECT " JOB_COLUMNS " FROM job WHERE state = 2 AND search = ? LIMIT ?", err,
                              "ii", search, limit));
    else
        ES_RETURN(dm_db_query(st->db, &q, "SELECT " JOB_COLUMNS " FROM job WHERE state = 3 AND search = ? LIMIT ?", err,
                              "ii", search, limit));
    return job_each(q, fn, ctx, err);
}

es_status dm_job_each_running(dm_store *st, bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err)
{
    dm_stmt *q;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT " JOB_COLUMNS " FROM job WHERE state = 3", err, ""));
    return job_each(q, fn, ctx, err);
}

es_status dm_job_each_keyed(dm_store *st, int64_t search, int64_t after, int64_t limit,
                            bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err)
{
    dm_stmt *q;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT " JOB_COLUMNS
                          " FROM job WHERE search = ? AND key IS NOT NULL AND id > ? ORDER BY id LIMIT ?",
                          err, "iii", search, after, limit));
    return job_each(q, fn, ctx, err);
}

es_status dm_job_failed_after(dm_store *st, int64_t search, char key[DM_JOB_KEY_MAX], int limit, int64_t *ids, int *n,
                              bool *more, es_error *err)
{
    dm_stmt *q;
    es_status s;
    int seen = 0;
    *n = 0;
    ES_RETURN(dm_db_query(st->db, &q,
                          "SELECT id, state, key FROM job WHERE search = ? AND key > ? AND key IS NOT NULL ORDER BY key"
                          " LIMIT ?",
                          err, "isi", search, key, (int64_t)limit));
    while (dm_stmt_next(q, &s, err)) {
        const char *text = dm_stmt_text(q, 2);
        ES_ASSERT(strlen(text) < DM_JOB_KEY_MAX); /* drivers' keys have 48 bytes at most */
        snprintf(key, DM_JOB_KEY_MAX, "%s", text);
        seen++;
        if (dm_stmt_i64(q, 1) == DM_JOB_FAILED)
            ids[(*n)++] = dm_stmt_i64(q, 0);
    }
    dm_stmt_end(q);
    *more = seen == limit;
    return s;
}

static es_status job_ids(dm_stmt *q, int64_t **ids, int *count, es_error *err)
{
    dm_ids l = {0};
    es_status s;
    while (dm_stmt_next(q, &s, err))
        dm_ids_add(&l, dm_stmt_i64(q, 0));
    dm_stmt_end(q);
    *ids = l.p;
    *count = l.n;
    return s;
}

es_status dm_job_dependents(dm_store *st, int64_t id, int64_t **jobs, int *count, es_error *err)
{
    dm_stmt *q;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT job FROM dependency WHERE needs = ?", err, "i", id));
    return job_ids(q, jobs, count, err);
}

es_status dm_job_needs(dm_store *st, int64_t id, int64_t **jobs, int *count, es_error *err)
{
    dm_stmt *q;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT needs FROM dependency WHERE job = ?", err, "i", id));
    return job_ids(q, jobs, count, err);
}

es_status dm_job_release(dm_store *st, int64_t id, int64_t **ready, int *count, es_error *err)
{
    int64_t *jobs = NULL;
    int n = 0;
    es_status s = ES_OK;
    dm_ids l = {0};
    *ready = NULL;
    *count = 0;
    ES_GOTO(dm_job_dependents(st, id, &jobs, &n, err));
    for (int i = 0; i < n; i++) {
        int64_t waits;
        ES_GOTO(dm_db_run(st->db, "UPDATE job SET waits = waits - 1 WHERE id = ? AND state = 1 AND waits > 0", err, "i",
                          jobs[i]));
        if (dm_db_changes(st->db) == 0)
            continue;
        ES_GOTO(dm_db_get_i64(st->db, &waits, "SELECT waits FROM job WHERE id = ?", err, "i", jobs[i]));
        if (waits == 0)
            dm_ids_add(&l, jobs[i]);
    }
    *ready = l.p;
    *count = l.n;
    l.p = NULL;
fail:
    free(l.p);
    free(jobs);
    return s;
}

es_status dm_job_counts(dm_store *st, int64_t counts[7], es_error *err)
{
    dm_stmt *q;
    memset(counts, 0, 7 * sizeof *counts);
    ES_RETURN(dm_store_flush_counts(st, err));
    ES_RETURN(dm_db_query(
        st->db, &q,
        "SELECT sum(n_waiting), sum(n_ready), sum(n_running), sum(n_done), sum(n_failed), sum(n_cancelled) FROM search",
        err, ""));
    es_status s = dm_stmt_row(q, err);
    for (int i = 1; s == ES_OK && i < DM_JOB_STATES; i++)
        counts[i] = dm_stmt_i64(q, i - 1);
    dm_stmt_end(q);
    return s;
}

es_status dm_job_kinds(dm_store *st, int64_t search, int64_t counts[4][16], es_error *err)
{
    dm_stmt *q;
    es_status s = ES_OK;
    for (int state = DM_JOB_WAITING; state <= DM_JOB_RUNNING; state++) {
        /* The state must stand in the text for the partial index to be used. */
        if (state == DM_JOB_WAITING)
            ES_RETURN(dm_db_query(st->db, &q,
                                  "SELECT kind, count(*) FROM job WHERE state = 1 AND search = ? GROUP BY kind", err,
                                  "i", search));
        else if (state == DM_JOB_READY)
            ES_RETURN(dm_db_query(st->db, &q,
                                  "SELECT kind, count(*) FROM job WHERE state = 2 AND search = ? GROUP BY kind", err,
                                  "i", search));
        else
            ES_RETURN(dm_db_query(st->db, &q,
                                  "SELECT kind, count(*) FROM job WHERE state = 3 AND search = ? GROUP BY kind", err,
                                  "i", search));
        while (dm_stmt_next(q, &s, err)) {
            int64_t kind = dm_stmt_i64(q, 0);
            if (kind > 0 && kind < 16)
                counts[state][kind] += dm_stmt_i64(q, 1);
        }
        dm_stmt_end(q);
        ES_RETURN(s);
    }
    return ES_OK;
}
