/* The databases: what opens, what is refused, what stays. */
#include <sqlite3.h>

#include "base/file.h"
#include "daemon/store/attempt_rows.h"
#include "daemon/store/event_rows.h"
#include "daemon/store/internal.h"
#include "daemon/store/job.h"
#include "daemon/store/job_rows.h"
#include "daemon/store/pagesum.h"
#include "daemon/store/purge.h"
#include "daemon/store/result_rows.h"
#include "daemon/store/search_rows.h"
#include "daemon/store/version_rows.h"
#include "daemon/store/worker_rows.h"
#include "daemon/weights/weights.h"
#include "schemas/wire.pb-c.h"
#include "tests/check_main.h"

static char path[1200];

static dm_store *store(void)
{
    dm_store *st;
    es_error err;
    ck_assert_ok_err(dm_store_open(path, NULL, &st, &err), &err);
    return st;
}

static void fresh(void) { snprintf(path, sizeof path, "%s/state.db", es_test_dir()); }

static int64_t search(dm_store *st)
{
    dm_search_row r = {.token = "t", .name = "n", .user = "u", .driver = "noop", .text = "", .submitted_ms = 1};
    ck_assert_ok(dm_search_insert(st, &r, NULL));
    return r.id;
}

START_TEST(only_allowed_moves_and_only_from_the_state_believed)
    {
        fresh();
        dm_store *st = store();
        es_error err;
        int64_t first;
        ck_assert_ok(dm_store_begin(st, NULL));
        int64_t id = search(st);
        ck_assert_ok(dm_job_create_noops(st, id, 1, 1, &first, NULL));
        dm_job_move_args m = {.id = first,
                              .search = id,
                              .from = DM_JOB_READY,
                              .to = DM_JOB_RUNNING,
                              .worker = 1,
                              .attempt = 1,
                              .why = "test"};
        ck_assert_ok(dm_job_move(st, &m, NULL));
        ck_assert_status(dm_job_move(st, &m, &err), ES_LOST); /* it is running already */
        ck_assert_has(err.text, "is not ready");
        ck_assert_ok(dm_store_commit(st, NULL));
        dm_search_row r;
        ck_assert_ok(dm_search_get(st, id, &r, NULL));
        ck_assert_int_eq(r.n[DM_JOB_RUNNING], 1);
        ck_assert_int_eq(r.n[DM_JOB_READY], 0);
        dm_search_row_free(&r);
        dm_store_close(&st);
        for (int from = 1; from < DM_JOB_STATES; from++) /* done and cancelled are for ever */
            ck_assert(!dm_job_may(DM_JOB_DONE, from) && !dm_job_may(DM_JOB_CANCELLED, from));
    }
END_TEST

static void bad_move(void *st)
{
    dm_job_move_args m = {.id = 1, .search = 1, .from = DM_JOB_DONE, .to = DM_JOB_READY, .why = "test"};
    if (dm_job_move(st, &m, NULL) != ES_OK)
        return;
}

START_TEST(a_move_outside_the_table_is_our_bug)
    {
        fresh();
        dm_store *st = store();
        ck_assert(es_test_aborts(bad_move, st));
        dm_store_close(&st);
    }
END_TEST

START_TEST(rollback_takes_counts_back)
    {
        fresh();
        dm_store *st = store();
        int64_t first;
        ck_assert_ok(dm_store_begin(st, NULL));
        int64_t id = search(st);
        ck_assert_ok(dm_store_commit(st, NULL));
        ck_assert_ok(dm_store_begin(st, NULL));
        ck_assert_ok(dm_job_create_noops(st, id, 5, 1, &first, NULL));
        dm_store_rollback(st);
        dm_search_row r;
        ck_assert_ok(dm_search_get(st, id, &r, NULL));
        ck_assert_int_eq(r.n[DM_JOB_READY], 0);
        dm_search_row_free(&r);
        dm_store_close(&st);
    }
END_TEST

START_TEST(a_key_is_one_job)
    {
        fresh();
        dm_store *st = store();
        bool created;
        int64_t a, b, c;
        ck_assert_ok(dm_store_begin(st, NULL));
        int64_t id = search(st);
        dm_job_new j = {.search = id, .kind = 1, .key = "train", .spec = "x", .spec_bytes = 1};
        ck_assert_ok(dm_job_create(st, &j, &a, &created, NULL));
        ck_assert(created);
        ck_assert_ok(dm_job_create(st, &j, &b, &created, NULL));
        ck_assert(!created && a == b);
        dm_job_new after = {.search = id, .kind = 2, .key = "eval", .needs = &a, .needs_count = 1};
        ck_assert_ok(dm_job_create(st, &after, &c, &created, NULL));
        dm_job_row row;
        ck_assert_ok(dm_job_get(st, c, &row, NULL));
        ck_assert_int_eq(row.state, DM_JOB_WAITING);
        dm_job_row_free(&row);
        int64_t *ready;
        int n;
        ck_assert_ok(dm_job_release(st, a, &ready, &n, NULL));
        ck_assert(n == 1 && ready[0] == c);
        free(ready);
        ck_assert_ok(dm_store_commit(st, NULL));
        dm_store_close(&st);
    }
END_TEST

START_TEST(a_second_owner_is_refused)
    {
        fresh();
        dm_store *st = store(), *other;
        es_error err;
        ck_assert_status(dm_store_open(path, NULL, &other, &err), ES_BUSY);
        ck_assert_has(err.text, "another process holds the database");
        dm_store_close(&st);
        st = store();
        dm_store_close(&st);
    }
END_TEST

START_TEST(damage_is_refused_with_its_place)
    {
        es_error err;
        dm_store *st;
        fresh();
        FILE *f = fopen(path, "w");
        fprintf(f, "this is no database, and long enough to be asked for its header: %0200d", 7);
        fclose(f);
        ck_assert_status(dm_store_open(path, NULL, &st, &err), ES_CORRUPT);
        ck_assert_has(err.where, path);
        ck_assert_has(err.text, "restore the last backup");

        fresh();
        st = store();
        ck_assert_ok(dm_store_begin(st, NULL));
        int64_t id = search(st), first;
        ck_assert_ok(dm_job_create_noops(st, id, 5000, 1, &first, NULL));
        ck_assert_ok(dm_store_commit(st, NULL));
        dm_store_close(&st);
        f = fopen(path, "r+");
        fseek(f, 0, SEEK_END);
        long size = ftell(f);
        for (long at = 4096 * 12; at < size; at += 4096 * 3) { /* bytes flipped in the middle */
            fseek(f, at, SEEK_SET);
            fwrite("\xff\xff\xff\xff\xff\xff\xff\xff", 1, 8, f);
        }
        fclose(f);
        ck_assert_status(dm_store_open(path, NULL, &st, &err), ES_CORRUPT);
        ck_assert_has(err.text, "damaged");
        ck_assert_int_eq(truncate(path, size / 2), 0);
        ck_assert_status(dm_store_open(path, NULL, &st, &err), ES_CORRUPT);

        fresh(); /* the other database under this name */
        dm_weights *w;
        ck_assert_ok_err(dm_weights_open(path, &w, &err), &err);
        dm_weights_close(&w);
        ck_assert_status(dm_store_open(path, NULL, &st, &err), ES_CORRUPT);
        ck_assert_has(err.text, "this is not an Espalier state database");
    }
END_TEST

/* Whatever byte of the file is flipped, something says so: SQLite's own check sees only what breaks a tree, the sums of pages see the rest. */
START_TEST(every_flipped_byte_is_noticed)
    {
        es_error err;
        int64_t first;
        fresh();
        dm_store *st = store();
        ck_assert_ok(dm_store_begin(st, NULL));
        ck_assert_ok(dm_job_create_noops(st, search(st), 2000, 1, &first, NULL));
        ck_assert_ok(dm_store_commit(st, NULL));
        dm_store_close(&st);
        st = store(); /* of a file that is whole */
        dm_store_close(&st);
        FILE *f = fopen(path, "r+");
        fseek(f, 0, SEEK_END);
        long size = ftell(f);
        ck_assert_int_gt(size, 40 * 4096);
        for (long at = 0; at < size; at += 997) {
            fseek(f, at, SEEK_SET);
            int byte = fgetc(f);
            fseek(f, at, SEEK_SET);
            fputc(byte ^ 1 << at % 8, f);
            fflush(f);
            es_status s = dm_store_open(path, NULL, &st, &err);
            if (s == ES_OK) {
                s = dm_store_check(st, &err);
                dm_store_close(&st);
            }
            ck_assert_msg(s == ES_CORRUPT || s == ES_VERSION, "byte %ld flipped: status %s", at, es_status_name(s));
            fseek(f, at, SEEK_SET);
            fputc(byte, f);
            fflush(f);
        }
        fclose(f);
        st = store();
        ck_assert_ok_err(dm_store_check(st, &err), &err);
        dm_store_close(&st);
    }
END_TEST

START_TEST(a_newer_schema_is_refused)
    {
        fresh();
        dm_store *st = store();
        es_error err;
        dm_store_close(&st);
        sqlite3 *db;
        ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, dm_pagesum_vfs()), SQLITE_OK);
        sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL);
        sqlite3_close(db);
        ck_assert_status(dm_store_open(path, NULL, &st, &err), ES_VERSION);
        ck_assert_has(err.text, "schema 99");
        ck_assert_has(err.text, "use a newer espalierd");
    }
END_TEST

START_TEST(a_backup_opens)
    {
        fresh();
        dm_store *st = store();
        char copy[1300];
        int64_t first;
        es_error err;
        snprintf(copy, sizeof copy, "%s.copy", path);
        ck_assert_ok(dm_store_begin(st, NULL));
        int64_t id = search(st);
        ck_assert_ok(dm_job_create_noops(st, id, 100, 1, &first, NULL));
        ck_assert_ok(dm_store_commit(st, NULL));
        dm_copy *c;
        bool over = false;
        ck_assert_ok_err(dm_copy_begin(dm_store_db(st), copy, &c, &err), &err);
        ck_assert_ok(dm_copy_step(c, 2, &over, NULL));
        ck_assert(!over);
        ck_assert_ok(dm_store_begin(st, NULL)); /* while it is being copied: in the copy too */
        ck_assert_ok(dm_job_create_noops(st, id, 50, 1, &first, NULL));
        ck_assert_ok(dm_store_commit(st, NULL));
        while (!over)
            ck_assert_ok_err(dm_copy_step(c, 1, &over, &err), &err);
        dm_copy_end(&c);
        dm_store_close(&st);
        ck_assert_ok_err(dm_store_open(copy, NULL, &st, &err), &err);
        dm_search_row r;
        ck_assert_ok(dm_search_get(st, id, &r, NULL));
        ck_assert_int_eq(r.n[DM_JOB_READY], 150);
        dm_search_row_free(&r);
        dm_store_close(&st);
    }
END_TEST

START_TEST(picking_uses_the_index)
    {
        fresh();
        dm_store *st = store();
        dm_stmt *q;
        /* The very text of dm_job_ready: a scan of all jobs would be a disaster with ten million of them. */
        ck_assert_ok(dm_db_query(st->db, &q,
                                 "EXPLAIN QUERY PLAN SELECT id, attempt, kind, failures, losses, not_before_ms FROM "
                                 "job WHERE state = 2 AND search = ?"
                                 " ORDER BY not_before_ms, id LIMIT ?",
                                 NULL, "ii", (int64_t)1, (int64_t)10));
        ck_assert_ok(dm_stmt_row(q, NULL));
        ck_assert_has(dm_stmt_text(q, 3), "USING INDEX job_live");
        ck_assert_status(dm_stmt_row(q, NULL), ES_NOT_FOUND); /* and nothing is sorted */
        dm_stmt_end(q);
        dm_store_close(&st);
    }
END_TEST

ES_TEST_MAIN("store", only_allowed_moves_and_only_from_the_state_believed, a_move_outside_the_table_is_our_bug,
             rollback_takes_counts_back, a_key_is_one_job, a_second_owner_is_refused, damage_is_refused_with_its_place,
             every_flipped_byte_is_noticed, a_newer_schema_is_refused, a_backup_opens, picking_uses_the_index)
