/* What is kept, and for how long: the rule of daemon/coord/retain.c, on whole searches. */
#include "base/arena.h"
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
#include "schemas/wire.pb-c.h"
#include "tests/check_main.h"
#include "tests/daemon/world.h"

enum {
    DAY_MS = 86400000,
    DELETE = ESPALIER__WIRE__VERB__VERB_DELETE,
    PIN = ESPALIER__WIRE__VERB__VERB_PIN,
    UNPIN = ESPALIER__WIRE__VERB__VERB_UNPIN,
    CANCEL = ESPALIER__WIRE__VERB__VERB_CANCEL
};

static const char search_text[] =
    "name: small\nseed: %d\n"
    "task: {data: {train: /nowhere/train, test: /nowhere/test, validation: 100}}\n"
    "space:\n  input: 8x8x1\n  stages:\n    - {block: conv, width: [8, 12, 16], depth: [1, 2], kernel: [1, 3]}\n"
    "  head: {classes: 10}\n"
    "supernet: {epochs: 1, batch: 8, slice_steps: 5}\n"
    "search: {algorithm: nsga2, population: 8, evaluations: 16}\n"
    "objectives: [accuracy: max, macs: min]\n";

static int64_t value(world *w, const char *sql) /* sql: a literal */
{
    int64_t n = -1;
    es_error err;
    ck_assert_ok_err(dm_db_get_i64(dm_coord_store(w->c)->db, &n, sql, &err, ""), &err);
    return n;
}

static uint64_t submit(world *w, int seed)
{
    char text[1024], token[32];
    snprintf(text, sizeof text, search_text, seed);
    snprintf(token, sizeof token, "token %d", seed);
    uint64_t id = world_submit(w, token, text);
    ck_assert_msg(id != 0, "%s", world_refusal());
    return id;
}

static uint64_t finish(world *w, int seed)
{
    world_hello(w, 1, 1); /* days may have passed */
    uint64_t id = submit(w, seed);
    char *result = NULL;
    for (int i = 0; i < 500 && !result; i++) {
        world_work(w, 1);
        w->now_ms += 10;
        result = world_query(w, "result", id, 0);
    }
    ck_assert_ptr_nonnull(result);
    free(result);
    return id;
}

static world *start(void)
{
    world *w = world_new(es_test_dir());
    world_hello(w, 1, 1);
    return w;
}

static void days(world *w, int n)
{
    w->now_ms += (int64_t)n * DAY_MS;
    for (int i = 0; i < 40; i++) {
        w->now_ms += 100;
        world_turn(w);
    }
}

START_TEST(a_running_search_keeps_its_newest_checkpoints)
    {
        world *w = start();
        submit(w, 1);
        world_work(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use"), 1);
        world_work(w, 1);
        world_work(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM checkpoint"), 3);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use"), 1);
        ck_assert_int_eq(value(w, "SELECT max(step) FROM checkpoint JOIN version_use ON version = weights"), 15);
        ck_assert_int_ge(w->dropped_n, 2);
        world_free(&w);

        w = start();
        dm_options o = w->options;
        o.retain.checkpoints = 2;
        dm_coord_set_options(w->c, &o);
        submit(w, 1);
        for (int i = 0; i < 3; i++)
            world_work(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use"), 2);
        days(w, 1000); /* however long it takes */
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use"), 2);
        world_free(&w);
    }
END_TEST

START_TEST(a_done_search_keeps_what_its_result_names_for_a_time)
    {
        world *w = start();
        uint64_t id = finish(w, 1);
        days(w, 1);
        int64_t kept = value(w, "SELECT count(*) FROM version_use");
        ck_assert_int_gt(kept, 1); /* the supernet and the front */
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use WHERE role <> 2"), 0);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use AS u WHERE instr((SELECT result FROM search), "
                                  "u.version) = 0"),
                         0);
        days(w, 1000); /* among the newest 100 */
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use"), kept);
        dm_options o = w->options;
        o.retain.final_searches = 1;
        dm_coord_set_options(w->c, &o);
        days(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use"), kept); /* still the newest */
        world_command(w, PIN, id, 0);
        finish(w, 2);
        days(w, 1000);
        ck_assert_int_gt(value(w, "SELECT count(*) FROM version_use WHERE search = 1"), 0); /* pinned */
        world_command(w, UNPIN, id, 0);
        days(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use WHERE search = 1"), 0);
        ck_assert_int_gt(value(w, "SELECT count(*) FROM version_use WHERE search = 2"), 0);
        char *result = world_query(w, "result", id, 0); /* what it found stays known */
        ck_assert_ptr_nonnull(result);
        free(result);
        world_free(&w);
    }
END_TEST

START_TEST(a_cancelled_search_keeps_none_and_a_failed_one_some_days)
    {
        world *w = start();
        uint64_t id = submit(w, 1);
        world_work(w, 1);
        world_command(w, CANCEL, id, 0);
        days(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use"), 0);
        world_hello(w, 1, 1);
        submit(w, 2);
        world_work(w, 1);
        world_want(w, 1, 1);
        world_turn(w);
        dm_to_peer *m = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);
        ck_assert_ptr_nonnull(m);
        const dm_lease_id *l = m->leases->granted[0]->lease;
        world_finish(w, 1, l->job, l->attempt, ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, NULL, "invalid");
        world_turn(w);
        world_free_message(&m);
        ck_assert_int_eq(value(w, "SELECT state FROM search WHERE id = 2"), DM_SEARCH_FAILED);
        days(w, 29);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use WHERE search = 2"), 1);
        days(w, 2);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use WHERE search = 2"), 0);
        world_free(&w);
    }
END_TEST

START_TEST(a_deleted_search_is_gone_bit_by_bit)
    {
        world *w = start();
        uint64_t id = finish(w, 1), second = submit(w, 2);
        world_work(w, 1);
        world_command(w, DELETE, second, 0);
        ck_assert_has(world_refusal(), "cancel it first");
        int64_t job = value(w, "SELECT max(id) FROM job");
        world_command(w, DELETE, id, 0);
        ck_assert_str_eq(world_refusal(), "");
        ck_assert_ptr_null(world_query(w, "show", id, 0));
        ck_assert_has(world_refusal(), "there is no search 1");
        char *list = world_query(w, "list", 0, 0);
        ck_assert_ptr_null(strstr(list, "\"id\":1,"));
        free(list);
        world_restart(w); /* in the middle of it */
        days(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM job WHERE search = 1"), 0);
        ck_assert_int_eq(value(w, "SELECT (SELECT count(*) FROM candidate) + (SELECT count(*) FROM result)"), 0);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM event WHERE search = 1"), 0);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM version_use WHERE search = 1"), 0);
        ck_assert_int_eq(value(w, "SELECT length(text) + n_done + n_ready FROM search WHERE id = 1"), 0);
        ck_assert_int_eq(value(w, "SELECT max(id) FROM job"), job);
        world_command(w, DELETE, id, 0);
        ck_assert_has(world_refusal(), "there is no search 1");
        /* The youngest job stays as long as it is the youngest: its id never comes twice. */
        world_command(w, CANCEL, second, 0);
        world_command(w, DELETE, second, 0);
        days(w, 1);
        ck_assert_int_eq(value(w, "SELECT max(id) FROM job"), job);
        uint64_t third = finish(w, 3);
        ck_assert_uint_gt(third, second);
        days(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM job WHERE search <> 3"), 0);
        world_free(&w);
    }
END_TEST

/* Jobs of a search that failed, as a long search collects them. */
static void fail_jobs(world *w, uint64_t search, int n)
{
    dm_store *st = dm_coord_store(w->c);
    ck_assert_ok(dm_store_begin(st, NULL));
    for (int i = 0; i < n; i++) {
        char key[32];
        bool created;
        int64_t id;
        snprintf(key, sizeof key, "test/%d", i);
        dm_job_new j = {.search = (int64_t)search, .kind = 1, .key = key, .spec = "", .now_ms = 1};
        ck_assert_ok(dm_job_create(st, &j, &id, &created, NULL));
        dm_job_move_args m = {.id = id,
                              .search = (int64_t)search,
                              .from = DM_JOB_READY,
                              .to = DM_JOB_RUNNING,
                              .why = "test",
                              .worker = 1,
                              .attempt = 1};
        ck_assert_ok(dm_job_move(st, &m, NULL));
        m.from = DM_JOB_RUNNING;
        m.to = DM_JOB_FAILED;
        m.failures = 3;
        m.error_code = m.error = "io";
        ck_assert_ok(dm_job_move(st, &m, NULL));
    }
    ck_assert_ok(dm_search_move(st, (int64_t)search, DM_SEARCH_RUNNING, DM_SEARCH_FAILED, "test", 1, NULL));
    ck_assert_ok(dm_store_commit(st, NULL));
}

/* The answer of client 200, or NULL. */
static char *heard(world *w)
{
    dm_to_peer *m = world_take(w, 200, ESPALIER__WIRE__TO_PEER__WHAT_DONE);
    char *text = m ? es_xstrdup(m->done->text) : NULL;
    if (m)
        world_free_message(&m);
    return text;
}

START_TEST(retry_brings_back_every_failed_job)
    {
        enum { JOBS = 1777 };
        world *w = start();
        uint64_t id = submit(w, 1);
        char *said = NULL;
        world_turn(w);
        fail_jobs(w, id, JOBS);
        world_restart(w);
        world_command(w, ESPALIER__WIRE__VERB__VERB_RETRY, id, 0);
        ck_assert_ptr_null(heard(w)); /* a part of them, in this turn */
        int64_t ready = value(w, "SELECT count(*) FROM job WHERE state = 2 AND key LIKE 'test/%'");
        ck_assert_int_gt(ready, 0);
        ck_assert_int_le(ready, 500);
        ck_assert_int_eq(value(w, "SELECT state FROM search"), DM_SEARCH_FAILED);
        world_restart(w); /* killed on the way: it is failed still, and is asked for again */
        world_command(w, ESPALIER__WIRE__VERB__VERB_RETRY, id, 0);
        world_command(w, ESPALIER__WIRE__VERB__VERB_RETRY, id, 0); /* said twice is once */
        for (int i = 0; i < 20 && !said; i++) {
            world_turn(w);
            said = heard(w);
        }
        ck_assert_ptr_nonnull(said);
        char want[80];
        snprintf(want, sizeof want, "goes on: %d failed jobs get every attempt again", (int)(JOBS - ready));
        ck_assert_str_eq(said, want);
        free(said);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM job WHERE state = 5"), 0);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM job WHERE state = 2 AND failures = 0 AND key LIKE 'test/%'"),
                         JOBS);
        ck_assert_int_eq(value(w, "SELECT n_failed FROM search"), 0);
        ck_assert_int_eq(value(w, "SELECT state FROM search"), DM_SEARCH_RUNNING);
        world_command(w, ESPALIER__WIRE__VERB__VERB_RETRY, id, 0);
        ck_assert_has(world_refusal(), "only a failed one can be retried");
        world_free(&w);
    }
END_TEST

START_TEST(workers_that_never_come_back_are_forgotten)
    {
        world *w = start();
        submit(w, 1);
        for (int i = 2; i < 20; i++)
            world_hello(w, i, 1);
        world_turn(w);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM worker"), 19);
        world_goodbye(w, 19); /* the youngest: its number must not come twice */
        world_want(w, 3, 1);
        world_turn(w);
        dm_to_peer *m = world_take(w, 3, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);
        ck_assert_ptr_nonnull(m);
        world_free_message(&m);
        for (int day = 0; day < 29; day++) { /* worker 1 is heard of now and then, the others are not */
            w->now_ms += DAY_MS;
            world_hello(w, 1, 1);
            world_turn(w);
        }
        ck_assert_int_eq(value(w, "SELECT count(*) FROM worker"), 19);
        days(w, 2);
        world_hello(w, 1, 1);
        days(w, 1);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM worker"), 2);
        ck_assert_int_eq(value(w, "SELECT min(id) FROM worker"), 1);
        ck_assert_int_eq(value(w, "SELECT max(id) FROM worker"), 19);
        ck_assert_int_eq(value(w, "SELECT count(*) FROM attempt WHERE worker = 3"), 1); /* what it did stays */
        world_hello(w, 4, 1);
        world_turn(w);
        ck_assert_int_eq(value(w, "SELECT max(id) FROM worker"), 20);
        world_free(&w);
    }
END_TEST

ES_TEST_MAIN("retain", a_running_search_keeps_its_newest_checkpoints,
             a_done_search_keeps_what_its_result_names_for_a_time,
             a_cancelled_search_keeps_none_and_a_failed_one_some_days, a_deleted_search_is_gone_bit_by_bit,
             retry_brings_back_every_failed_job, workers_that_never_come_back_are_forgotten)
