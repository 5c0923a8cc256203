/* What SQLite drops of a log without a word, told from what was never committed: every frame of a real log damaged in turn, every length of it cut. */
#include <errno.h>

#include "base/file.h"
#include "daemon/backup/damaged_log.h"
#include "daemon/store/internal.h"
#include "daemon/store/wal_look.h"
#include "tests/check_main.h"

enum { COMMITS = 7 };

/* A store in `dir` whose process was killed behind its last commit: with a log of several commits. `again`: the log had been full once, and was begun anew. */
static const char *killed_store(const char *dir, bool again)
{
    int status;
    es_error e;
    const char *path = es_test_join(dir, "state.db");
    pid_t child = fork();
    if (child == 0) {
        dm_store *st;
        int64_t last = 1;
        if (dm_store_open(path, NULL, &st, &e) != ES_OK)
            _exit(1);
        for (int i = 0; i < (again ? 4 : 1) * COMMITS; i++) {
            if (again && i == 3 * COMMITS &&
                dm_db_get_i64(st->db, &last, "PRAGMA wal_checkpoint(RESTART)", &e, "") != ES_OK)
                _exit(2);
            if (dm_store_begin(st, &e) != ES_OK ||
                dm_db_run(st->db, "INSERT INTO event (id, ms, kind, json) VALUES (?, 1, 'x', '{}')", &e, "i",
                          (int64_t)i + 1) != ES_OK ||
                dm_store_commit(st, &e) != ES_OK)
                _exit(3);
        }
        kill(getpid(), SIGKILL);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    return path;
}

static int64_t events(const char *path)
{
    dm_store *st;
    int64_t n = 0;
    es_error e;
    ck_assert_ok_err(dm_store_open(path, NULL, &st, &e), &e);
    ck_assert_ok(dm_db_get_i64(st->db, &n, "SELECT count(*) FROM event", &e, ""));
    dm_store_close(&st);
    return n;
}

/* es_file_write would sync each of some hundred files. */
static void put(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
}

/* The database and a log of these bytes, in a folder of its own. */
static const char *with_log(const char *db, const char *log, size_t n)
{
    char *bytes;
    size_t size;
    es_error e;
    const char *dir = es_test_dir(), *path = es_test_join(dir, "state.db");
    ck_assert_ok(es_file_read(db, 1 << 24, &bytes, &size, &e));
    put(path, bytes, size);
    free(bytes);
    put(es_test_join(dir, "state.db-wal"), log, n);
    return path;
}

static dm_wal_report look(const char *db)
{
    dm_wal_report r;
    es_error e;
    char log[1200];
    snprintf(log, sizeof log, "%s-wal", db);
    ck_assert_ok_err(dm_wal_look(log, &r, &e), &e);
    return r;
}

static void harm_everywhere(bool again)
{
    char db[1000], wal[1100], *log;
    size_t n, page = 4096, frame = page + 24;
    es_error e;
    snprintf(db, sizeof db, "%s", killed_store(es_test_dir(), again));
    snprintf(wal, sizeof wal, "%s-wal", db);
    ck_assert_ok_err(es_file_read(wal, 1 << 24, &log, &n, &e), &e);
    dm_wal_report whole = look(db);
    ck_assert(!whole.damaged && !whole.header_bad);
    ck_assert_int_ge(whole.used, COMMITS);
    ck_assert_int_eq(whole.frames > whole.used, again); /* leftovers of the log before are no damage */
    ck_assert_ok_err(dm_damaged_log_check(db, &e), &e);
    int64_t all = (again ? 4 : 1) * COMMITS, found = 0;
    for (int64_t i = 0; i < whole.used; i++) {
        size_t at = 32 + (size_t)i * frame + (i % 3 == 0 ? 100 : i % 3 == 1 ? 9 : 17); /* page, salt, checksum */
        log[at] ^= 4;
        const char *copy = with_log(db, log, n);
        log[at] ^= 4;
        dm_wal_report r = look(copy);
        ck_assert_int_eq(r.bad_frame, i + 1);
        ck_assert_int_le(r.used, i);
        found += r.damaged;
        ck_assert_status(dm_damaged_log_check(copy, &e), r.damaged ? ES_CORRUPT : ES_OK);
        int64_t left = events(copy);
        if (r.damaged)
            ck_assert_int_lt(left, all);
        /* All that is lost without being called damage is the last commits, of which nothing whole stands behind. */
        if (!r.damaged)
            ck_assert_int_ge(left, all - 2);
    }
    ck_assert_int_ge(found, whole.used - 6);
    for (size_t cut = n; cut > frame; cut -= cut > 1500 ? 1499 : cut) { /* torn anywhere: never damage */
        dm_wal_report r = look(with_log(db, log, cut));
        ck_assert_msg(!r.damaged, "cut at %zu of %zu", cut, n);
    }
    log[20] ^= 1;
    ck_assert(look(with_log(db, log, n)).header_bad);
    free(log);
}

START_TEST(damage_is_told_from_what_was_never_committed)
    {
        harm_everywhere(false);
    }
END_TEST

START_TEST(leftovers_of_an_earlier_log_are_no_damage)
    {
        harm_everywhere(true);
    }
END_TEST

START_TEST(no_log_is_no_loss)
    {
        dm_wal_report r;
        es_error e;
        ck_assert_ok(dm_wal_look(es_test_join(es_test_dir(), "none"), &r, &e));
        ck_assert(r.bytes == 0 && !r.damaged && !r.header_bad);
        const char *path = es_test_join(es_test_dir(), "empty");
        ck_assert_ok(es_file_write(path, "", 0, &e));
        ck_assert_ok(dm_wal_look(path, &r, &e));
        ck_assert(!r.damaged && !r.header_bad);
    }
END_TEST

ES_TEST_MAIN("wal_look", damage_is_told_from_what_was_never_committed, leftovers_of_an_earlier_log_are_no_damage,
             no_log_is_no_loss)
