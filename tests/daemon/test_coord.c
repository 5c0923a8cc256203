/* The coordinator as its peers see it: what they send, what they get, what survives. */
#include "tests/check_main.h"
#include "tests/daemon/world.h"

enum { DONE = ESPALIER__WIRE__OUTCOME__OUTCOME_DONE, FAILED = ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED };

/* Takes one lease of `worker`; 0: none came. */
static uint64_t lease(world *w, int worker, unsigned *attempt)
{
    world_held h = world_taken(w, worker);
    *attempt = h.attempt;
    return h.job;
}

static uint64_t want_one(world *w, int worker, unsigned *attempt)
{
    world_want(w, worker, 1);
    world_turn(w);
    return lease(w, worker, attempt);
}

static bool finish(world *w, int worker, uint64_t job, unsigned attempt, int outcome)
{
    world_finish(w, worker, job, attempt, outcome, NULL, "io");
    world_turn(w);
    dm_to_peer *m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_FINISHED);
    ck_assert_ptr_nonnull(m);
    bool yes = m->finished->n_accepted == 1;
    ck_assert_uint_eq(m->finished->n_accepted + m->finished->n_stale, 1);
    world_free_message(&m);
    return yes;
}

START_TEST(noops_run_and_count)
    {
        world *w = world_new(es_test_dir());
        world_hello(w, 1, 4);
        world_noops(w, "t1", 3, 0);
        world_noops(w, "t1", 3, 0); /* the same request again */
        world_turn(w);
        ck_assert_int_eq(world_count(w, "ready"), 3);
        unsigned a;
        for (int i = 0; i < 3; i++) {
            uint64_t job = want_one(w, 1, &a);
            ck_assert_uint_ne(job, 0);
            ck_assert(finish(w, 1, job, a, DONE));
            ck_assert(finish(w, 1, job, a, DONE)); /* its answer was lost: acknowledged again, counted once */
        }
        ck_assert_int_eq(world_count(w, "done"), 3);
        ck_assert_uint_eq(want_one(w, 1, &a), 0);
        world_noops(w, "t2", 1, 0); /* the want is remembered */
        world_turn(w);
        ck_assert_uint_ne(lease(w, 1, &a), 0);
        world_free(&w);
    }
END_TEST

START_TEST(nothing_is_sent_before_the_turn_is_committed)
    {
        world *w = world_new(es_test_dir());
        world_hello(w, 1, 1);
        world_noops(w, "t", 1, 0);
        ck_assert_int_eq(w->sent_n, 0);
        world_turn(w);
        ck_assert_int_eq(w->sent_n, 2);
        world_free(&w);
    }
END_TEST

START_TEST(a_lost_worker_costs_nothing_else)
    {
        world *w = world_new(es_test_dir());
        unsigned a, b;
        world_hello(w, 1, 1);
        world_hello(w, 2, 1);
        world_noops(w, "t", 1, 0);
        uint64_t job = want_one(w, 1, &a);
        world_want(w, 2, 1);
        world_pass(w, w->options.lease_ms / 2);
        world_heartbeat(w, 2, NULL, 0);
        world_pass(w, w->options.lease_ms / 2);
        ck_assert_uint_eq(lease(w, 2, &b), 0);
        world_heartbeat(w, 2, NULL, 0);
        world_pass(w, 1000);
        ck_assert_uint_eq(lease(w, 2, &b), job);
        ck_assert_uint_gt(b, a);
        ck_assert(!finish(w, 1, job, a, DONE)); /* the dead man's result comes late: not his any more */
        ck_assert(finish(w, 2, job, b, DONE));
        ck_assert_int_eq(world_count(w, "done"), 1);
        ck_assert_int_eq(world_count(w, "failed"), 0);
        world_free(&w);
    }
END_TEST

START_TEST(leases_survive_a_restart)
    {
        world *w = world_new(es_test_dir());
        unsigned a, b;
        world_hello(w, 1, 1);
        world_noops(w, "t", 2, 0);
        uint64_t job = want_one(w, 1, &a);
        world_restart(w);
        world_heartbeat(w, 1, NULL, 0);
        world_turn(w);
        dm_to_peer *m = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_HEARTBEAT);
        ck_assert(m->heartbeat->unknown_worker);
        world_free_message(&m);
        ck_assert(finish(w, 1, job, a, DONE)); /* accepted although it has not said hello again */
        ck_assert(finish(w, 1, job, a, DONE));
        world_hello(w, 1, 1);
        uint64_t second = want_one(w, 1, &b);
        ck_assert_uint_ne(second, 0);
        ck_assert_uint_ne(second, job);
        world_free(&w);
    }
END_TEST

START_TEST(a_lost_grant_is_given_again)
    {
        world *w = world_new(es_test_dir());
        unsigned a, b;
        world_hello(w, 1, 1);
        world_noops(w, "t", 2, 0);
        uint64_t job = want_one(w, 1, &a);
        ck_assert_uint_eq(want_one(w, 1, &b), job); /* it never heard of the first: the same lease, not a second job */
        ck_assert_uint_eq(a, b);
        world_heartbeat(
            w, 1, &(dm_lease_id){.base = {.descriptor = &espalier__wire__lease__descriptor}, .job = job, .attempt = a},
            1);
        world_turn(w);
        ck_assert_uint_eq(want_one(w, 1, &b), 0); /* now it has named it: its one slot is full */
        world_free(&w);
    }
END_TEST

START_TEST(failures_are_retried_with_backoff_then_final)
    {
        world *w = world_new(es_test_dir());
        unsigned a;
        w->options.drain_after = 0;
        dm_coord_set_options(w->c, &w->options);
        world_hello(w, 1, 1);
        world_noops(w, "t", 1, 0);
        uint64_t job = want_one(w, 1, &a);
        ck_assert(finish(w, 1, job, a, FAILED));
        ck_assert(finish(w, 1, job, a, FAILED));
        ck_assert(
            !finish(w, 1, job, a, DONE)); /* the grant came once more, late: no result of a failed attempt counts */
        ck_assert_uint_eq(want_one(w, 1, &a), 0); /* backing off */
        char *why = world_query(w, "why", 0, job);
        ck_assert_has(why, "the next one starts in");
        free(why);
        for (int i = 1; i < w->options.failures_max; i++) {
            world_pass(w, 10000);
            world_heartbeat(w, 1, NULL, 0);
            world_turn(w);
            ck_assert_uint_eq(lease(w, 1, &a), job);
            ck_assert(finish(w, 1, job, a, FAILED));
            world_want(w, 1, 1);
        }
        world_pass(w, 20000);
        ck_assert_uint_eq(lease(w, 1, &a), 0);
        ck_assert_int_eq(world_count(w, "failed"), 1);
        world_free(&w);
    }
END_TEST

START_TEST(a_worker_that_keeps_failing_is_drained)
    {
        world *w = world_new(es_test_dir());
        unsigned a;
        world_hello(w, 1, 1);
        world_noops(w, "t", 5, 0);
        for (int i = 0; i < w->options.drain_after; i++) {
            uint64_t job = want_one(w, 1, &a);
            ck_assert_uint_ne(job, 0);
            ck_assert(finish(w, 1, job, a, FAILED));
        }
        ck_assert_uint_eq(want_one(w, 1, &a), 0);
        dm_to_peer *m = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_ERROR);
        ck_assert_has(m->error->text, "3 jobs in a row failed");
        world_free_message(&m);
        char *json = world_query(w, "workers", 0, 0);
        ck_assert_has(json, "\"state\": \"drained\"");
        free(json);
        world_free(&w);
    }
END_TEST

START_TEST(a_job_that_kills_its_workers_is_set_aside)
    {
        world *w = world_new(es_test_dir());
        unsigned a;
        world_noops(w, "t", 1, 0);
        for (int i = 1; i <= w->options.losses_max; i++) {
            world_hello(w, i, 1);
            ck_assert_uint_ne(want_one(w, i, &a), 0);
            world_pass(w, w->options.lease_ms + 2000);
        }
        ck_assert_int_eq(world_count(w, "failed"), 1);
        char *json = world_query(w, "why", 0, 1);
        ck_assert_has(json, "set aside");
        free(json);
        world_free(&w);
    }
END_TEST

START_TEST(higher_priority_first_and_fair_within)
    {
        world *w = world_new(es_test_dir());
        unsigned a;
        world_hello(w, 1, 100);
        world_noops(w, "low", 4, 0);
        world_noops(w, "high", 2, 5);
        world_turn(w);
        uint64_t first = want_one(w, 1, &a), second = want_one(w, 1, &a), third = want_one(w, 1, &a);
        ck_assert_uint_eq(first, 5); /* jobs 1..4 are low, 5 and 6 high */
        ck_assert_uint_eq(second, 6);
        ck_assert_uint_eq(third, 1);
        world_free(&w);
    }
END_TEST

START_TEST(cancel_stops_everything)
    {
        world *w = world_new(es_test_dir());
        unsigned a;
        world_hello(w, 1, 1);
        world_noops(w, "t", 2000, 0);
        uint64_t job = want_one(w, 1, &a);
        world_command(w, ESPALIER__WIRE__VERB__VERB_CANCEL, 1, 0);
        ck_assert_str_eq(world_refusal(), "");
        ck_assert(!finish(w, 1, job, a, DONE));
        world_pass(w, 2000); /* a little at a time */
        ck_assert_int_eq(world_count(w, "cancelled"), 2000);
        world_heartbeat(
            w, 1, &(dm_lease_id){.base = {.descriptor = &espalier__wire__lease__descriptor}, .job = job, .attempt = a},
            1);
        world_turn(w);
        dm_to_peer *m = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_HEARTBEAT);
        ck_assert_uint_eq(m->heartbeat->n_stop, 1);
        world_free_message(&m);
        world_command(w, ESPALIER__WIRE__VERB__VERB_PAUSE, 1, 0);
        ck_assert_has(world_refusal(), "is cancelled already");
        world_free(&w);
    }
END_TEST

START_TEST(another_protocol_version_is_refused)
    {
        world *w = world_new(es_test_dir());
        Espalier__Wire__Want want = ESPALIER__WIRE__WANT__INIT;
        dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
        m.version = 99;
        m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_WANT;
        m.want = &want;
        world_send(w, 7, &m);
        world_turn(w);
        dm_to_peer *e = world_take(w, 7, ESPALIER__WIRE__TO_PEER__WHAT_ERROR);
        ck_assert_str_eq(e->error->code, "version");
        ck_assert_has(e->error->text, "protocol 99");
        ck_assert_has(e->error->text, "protocol 1");
        world_free_message(&e);
        dm_addr from = {.n = 1, .id = {7}};
        dm_coord_deliver(w->c, &from, "\xff\xff\xff", 3);
        world_turn(w);
        e = world_take(w, 7, ESPALIER__WIRE__TO_PEER__WHAT_ERROR);
        ck_assert_str_eq(e->error->code, "corrupt");
        world_free_message(&e);
        world_free(&w);
    }
END_TEST

START_TEST(pause_and_resume)
    {
        world *w = world_new(es_test_dir());
        unsigned a;
        world_hello(w, 1, 2);
        world_noops(w, "t", 2, 0);
        world_turn(w);
        world_command(w, ESPALIER__WIRE__VERB__VERB_PAUSE, 1, 0);
        ck_assert_uint_eq(want_one(w, 1, &a), 0);
        world_restart(w);
        world_hello(w, 1, 2);
        ck_assert_uint_eq(want_one(w, 1, &a), 0);
        world_command(w, ESPALIER__WIRE__VERB__VERB_RESUME, 1, 0);
        ck_assert_uint_ne(lease(w, 1, &a), 0);
        world_free(&w);
    }
END_TEST

ES_TEST_MAIN("coord", noops_run_and_count, nothing_is_sent_before_the_turn_is_committed,
             a_lost_worker_costs_nothing_else, leases_survive_a_restart, a_lost_grant_is_given_again,
             failures_are_retried_with_backoff_then_final, a_worker_that_keeps_failing_is_drained,
             a_job_that_kills_its_workers_is_set_aside, higher_priority_first_and_fair_within, cancel_stops_everything,
             another_protocol_version_is_refused, pause_and_resume)
