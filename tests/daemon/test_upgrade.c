/* Databases of every earlier schema are opened, brought to this one, and say what they said before. tests/daemon/fixtures/<db>-<n>.sql is such a database as
 * text, with searches in every state inside; scripts/make-fixtures writes them for the schema of the day, before a migration is added. */
#include <sqlite3.h>

#include "base/file.h"
#include "daemon/store/attempt_rows.h"
#include "daemon/store/event_rows.h"
#include "daemon/store/internal.h"
#include "daemon/store/job.h"
#include "daemon/store/job_rows.h"
#include "daemon/store/purge.h"
#include "daemon/store/result_rows.h"
#include "daemon/store/search_rows.h"
#include "daemon/store/version_rows.h"
#include "daemon/store/worker_rows.h"
#include "daemon/weights/weights.h"
#include "tests/check_main.h"

extern const char *const dm_state_sql[], *const dm_weights_sql[];

static int newest(const char *const *migrations)
{
    int n = 0;
    while (migrations[n])
        n++;
    return n;
}

/* The database of a fixture as a file; its path. */
static const char *build_fixture(const char *fixture)
{
    char name[80], *sql, *why = NULL;
    sqlite3 *h;
    snprintf(name, sizeof name, "tests/daemon/fixtures/%s.sql", fixture);
    const char *path = es_test_join(es_test_dir(), "old.db");
    es_error err;
    ck_assert_ok_err(es_file_read(es_test_source(name), 64 << 20, &sql, NULL, &err), &err);
    ck_assert_int_eq(sqlite3_open(path, &h), SQLITE_OK);
    ck_assert_msg(sqlite3_exec(h, sql, NULL, NULL, &why) == SQLITE_OK, "%s: %s", name, why);
    sqlite3_close(h);
    free(sql);
    return path;
}

static const char *build(const char *db, int version)
{
    char name[32];
    snprintf(name, sizeof name, "%s-%d", db, version);
    return build_fixture(name);
}

static int64_t value(dm_db *db, const char *sql)
{
    int64_t n = -1;
    es_error err;
    ck_assert_ok_err(dm_db_get_i64(db, &n, sql, &err, ""), &err);
    return n;
}

static bool in_weights(void *ctx, const char *hex)
{
    ck_assert_msg(dm_weights_has(ctx, hex), "version %s is needed, and not there", hex);
    return true;
}

START_TEST(every_earlier_schema_is_brought_to_this_one)
    {
        static const char *const weights[] = {
            [1] = "weights-1", [2] = "weights-1", [3] = "weights-2", [4] = "weights-2-of-4"}; /* of the same run */
        int now = newest(dm_state_sql);
        ck_assert_int_eq(now, sizeof weights / sizeof *weights);
        for (int v = 1; v < now; v++) {
            dm_store *st;
            dm_search_row r;
            es_error err;
            char *result;
            const char *path = build("state", v);
            ck_assert_ok_err(dm_store_open(path, NULL, &st, &err), &err);
            ck_assert_ok_err(dm_store_check(st, &err), &err);
            ck_assert_int_eq(value(st->db, "PRAGMA user_version"), now);
            ck_assert_int_eq(value(st->db, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
            static const dm_search_state states[] = {DM_SEARCH_DONE, DM_SEARCH_RUNNING, DM_SEARCH_PAUSED,
                                                     DM_SEARCH_CANCELLED};
            static const char *const names[] = {"first", "second", "third", "fourth"};
            for (int i = 0; i < 4; i++) {
                ck_assert_ok_err(dm_search_get(st, i + 1, &r, &err), &err);
                ck_assert_str_eq(r.name, names[i]);
                ck_assert_int_eq(r.state, states[i]);
                ck_assert_int_gt((int64_t)strlen(r.text), 300);
                dm_search_row_free(&r);
            }
            ck_assert_ok(dm_search_result(st, 1, &result, NULL));
            ck_assert_has(result, "\"front\"");
            free(result);
            ck_assert_int_ge(value(st->db, "SELECT count(*) FROM candidate WHERE search = 1"), 8);
            /* What the finished search found and what the running one stands on is known to be needed. */
            ck_assert_int_eq(value(st->db, "SELECT count(*) FROM result AS r WHERE measure = 4 AND NOT EXISTS"
                                           " (SELECT 1 FROM version_use WHERE version = r.text)"),
                             0);
            ck_assert_int_ge(value(st->db, "SELECT count(*) FROM version_use WHERE search = 1"), 2);
            ck_assert_int_ge(value(st->db, "SELECT count(*) FROM version_use WHERE search = 2"), 1);
            dm_weights *w;
            ck_assert_ok_err(dm_weights_open(build_fixture(weights[v]), &w, &err), &err);
            ck_assert_ok_err(dm_version_each(st, in_weights, w, &err), &err);
            dm_weights_close(&w);
            dm_store_close(&st);
        }
    }
END_TEST

START_TEST(weights_of_every_earlier_schema_stay_whole)
    {
        int now = newest(dm_weights_sql);
        for (int v = 1; v < now; v++) {
            dm_weights *w;
            dm_weights_size size;
            es_error err;
            int64_t n;
            ck_assert_ok_err(dm_weights_open(build("weights", v), &w, &err), &err);
            ck_assert_ok_err(dm_weights_check(w, NULL, NULL, &err), &err);
            ck_assert_ok(dm_weights_sizes(w, &size, NULL));
            ck_assert_int_gt(size.versions, 3);
            ck_assert_ok(dm_weights_begin(w, NULL));
            ck_assert_ok_err(dm_weights_collect(w, INT64_MAX, &n, &err), &err); /* the table of orphans is right */
            ck_assert_ok(dm_weights_commit(w, NULL));
            ck_assert_ok_err(dm_weights_check(w, NULL, NULL, &err), &err);
            dm_weights_close(&w);
        }
    }
END_TEST

START_TEST(a_newer_schema_is_refused_with_both_numbers)
    {
        static const char *const dbs[] = {"state", "weights"};
        for (int i = 0; i < 2; i++) {
            char want[80];
            int known = newest(i ? dm_weights_sql : dm_state_sql);
            const char *path = build(dbs[i], 1);
            dm_store *st;
            dm_weights *w;
            es_error err;
            sqlite3 *h;
            snprintf(want, sizeof want, "has schema %d, this program knows up to %d", known + 1, known);
            ck_assert_int_eq(sqlite3_open(path, &h), SQLITE_OK);
            char sql[64];
            snprintf(sql, sizeof sql, "PRAGMA user_version = %d", known + 1);
            sqlite3_exec(h, sql, NULL, NULL, NULL);
            sqlite3_close(h);
            ck_assert_status(i ? dm_weights_open(path, &w, &err) : dm_store_open(path, NULL, &st, &err), ES_VERSION);
            ck_assert_has(err.text, want);
        }
    }
END_TEST

ES_TEST_MAIN("upgrade", every_earlier_schema_is_brought_to_this_one, weights_of_every_earlier_schema_stay_whole,
             a_newer_schema_is_refused_with_both_numbers)
