/* Who gets which worker: preemption by priority, fair shares over hours, room on a device, and what `why` says about each wait. */
#include <math.h>
#include <stdlib.h>

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
#include "tests/check_main.h"
#include "tests/daemon/work.h"
#include "tests/daemon/world.h"

enum { DONE = ESPALIER__WIRE__OUTCOME__OUTCOME_DONE, PREEMPTED = ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED };

static const char head[] = "seed: 5\ntask: {data: {train: /nowhere/a, test: /nowhere/b, validation: 100}}\n"
                           "space:\n  input: 8x8x1\n  stages:\n    - {block: conv, width: [8, 12], depth: [1, 2]}\n"
                           "  head: {classes: 10}\nsupernet: {epochs: 1, batch: 12, slice_steps: 10}\n"
                           "search: {algorithm: random, evaluations: 4}\n";

static uint64_t submit(world *w, const char *name, const char *user, int priority, const char *objectives, int gpus)
{
    char text[2048];
    snprintf(text, sizeof text, "name: %s\n%sobjectives: [%s]\nresources: {priority: %d, gpus: %d}\n", name, head,
             objectives, priority, gpus);
    uint64_t id = world_submit_as(w, name, user, text);
    ck_assert_msg(id, "%s", world_refusal());
    return id;
}

static world_held want(world *w, int worker)
{
    world_want(w, worker, 1);
    world_turn(w);
    return world_taken(w, worker);
}

/* A slice of training: it came as far as `step` of an endless training. */
static void trained(world *w, int worker, world_held h, int outcome, uint64_t step)
{
    static int versions;
    char seed[32], weights[80];
    dm_job_result r = ESPALIER__WIRE__JOB_RESULT__INIT;
    snprintf(seed, sizeof seed, "v%d", ++versions);
    snprintf(weights, sizeof weights, "%s", world_version(w, seed));
    r.weights = weights;
    r.step = step;
    r.steps = 1000000000;
    world_finish(w, worker, h.job, h.attempt, outcome, &r, NULL);
    world_turn(w);
    dm_to_peer *m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_FINISHED);
    ck_assert_ptr_nonnull(m);
    ck_assert_uint_eq(m->finished->n_accepted, 1);
    world_free_message(&m);
}

static void say(world *w, int worker, world_held h)
{
    dm_lease_id id = ESPALIER__WIRE__LEASE__INIT;
    id.job = h.job;
    id.attempt = h.attempt;
    world_heartbeat(w, worker, &id, h.job ? 1 : 0);
}

static void beat(world *w, int worker, world_held h)
{
    say(w, worker, h);
    world_turn(w);
}

/* Leases the worker has been told to hand back since the last call. */
static int told_to_preempt(world *w, int worker)
{
    int n = 0;
    for (dm_to_peer *m; (m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_HEARTBEAT)) != NULL;) {
        n += (int)m->heartbeat->n_preempt;
        world_free_message(&m);
    }
    return n;
}

static void why(world *w, uint64_t job, const char *text)
{
    char *json = world_query(w, "why", 0, job);
    ck_assert_ptr_nonnull(json);
    ck_assert_has(json, text);
    free(json);
}

START_TEST(the_lowest_priority_makes_room_at_its_next_step)
    {
        world *w = world_new(es_test_dir());
        world_held h[4];
        for (int i = 1; i <= 3; i++)
            world_hello(w, i, 1);
        submit(w, "middle", "u", 5, "accuracy: max", 1);
        h[1] = want(w, 1);
        submit(w, "low", "u", 1, "accuracy: max", 1);
        h[2] = want(w, 2);
        submit(w, "high", "u", 9, "accuracy: max", 1);
        world_pass(w, 1000);
        ck_assert_int_eq(told_to_preempt(w, 1) + told_to_preempt(w, 2), 0); /* worker 3 is free */
        h[3] = want(w, 3);
        ck_assert_uint_eq(h[3].search, 3);
        uint64_t urgent = submit(w, "urgent", "u", 7, "accuracy: max", 1);
        world_pass(w, 1000);
        ck_assert_int_eq(told_to_preempt(w, 1), 0);
        ck_assert_int_eq(told_to_preempt(w, 3), 0);
        ck_assert_int_eq(told_to_preempt(w, 2), 1); /* at once, and with every heartbeat until it has answered */
        why(w, 4, "job 2 of lower priority is making room");
        beat(w, 2, h[2]);
        ck_assert_int_eq(told_to_preempt(w, 2), 1);
        trained(w, 2, h[2], PREEMPTED, 4);
        world_held next = want(w, 2);
        ck_assert_uint_eq(next.search, urgent);
        trained(w, 2, next, DONE, 10);
        trained(w, 3, h[3], DONE, 10);
        world_command(w, ESPALIER__WIRE__VERB__VERB_CANCEL, urgent, 0);
        next = want(w, 2); /* 3 is ready again and of higher priority */
        ck_assert_uint_eq(next.search, 3);
        next = want(w, 3);
        ck_assert_uint_eq(next.search, 2);
        ck_assert_uint_eq(next.step, 4); /* it goes on where it stopped */
        char *show = world_query(w, "show", 2, 0);
        ck_assert_has(show, "\"failures\": 0");
        ck_assert_has(show, "\"losses\": 0");
        free(show);
        world_free(&w);
    }
END_TEST

START_TEST(equals_and_evaluations_are_not_preempted)
    {
        world *w = world_new(es_test_dir());
        world_hello(w, 1, 1);
        world_hello(w, 2, 1);
        submit(w, "a", "u", 5, "accuracy: max", 1);
        world_held h = want(w, 1);
        world_noops(w, "n", 5, 0);
        world_turn(w);
        ck_assert_uint_ne(want(w, 2).job, 0);
        submit(w, "b", "v", 5, "accuracy: max", 1);
        for (int i = 0; i < 10; i++) {
            world_pass(w, 1000);
            beat(w, 1, h);
        }
        ck_assert_int_eq(told_to_preempt(w, 1) + told_to_preempt(w, 2), 0);
        world_free(&w);
    }
END_TEST

START_TEST(a_gang_clears_as_many_workers_as_it_needs)
    {
        world *w = world_new(es_test_dir());
        world_held h[5];
        char name[16];
        for (int i = 1; i <= 4; i++) {
            world_hello(w, i, 1);
            snprintf(name, sizeof name, "s%d", i);
            submit(w, name, "u", i, "accuracy: max", 1);
            h[i] = want(w, i);
        }
        uint64_t gang = submit(w, "gang", "u", 9, "accuracy: max", 3);
        world_pass(w, 1000);
        for (int i = 1; i <= 4; i++)
            ck_assert_int_eq(told_to_preempt(w, i) > 0, i < 4);
        for (int i = 1; i <= 3; i++) {
            trained(w, i, h[i], PREEMPTED, 3);
            world_held got = want(w, i);
            ck_assert(i < 3 ? got.job == 0 : got.search == gang); /* kept for it until it is whole */
        }
        ck_assert_uint_eq(world_taken(w, 1).search, gang);
        ck_assert_uint_eq(world_taken(w, 2).search, gang);
        world_free(&w);
    }
END_TEST

/* ---- fair shares */

enum { FAIR_WORKERS = 3, FAIR_SEARCHES = 7 };

/* Three workers, slices of 20 s to 400 s (searches of even number have the long ones). Worker time of `hours` simulated hours, by search. */
static void share(world *w, int64_t hours, double out[FAIR_SEARCHES + 1])
{
    world_held h[FAIR_WORKERS + 1] = {{0}};
    int64_t until[FAIR_WORKERS + 1], began[FAIR_WORKERS + 1];
    uint64_t luck = 7;
    /* Hours of leases, and nothing here is about the disk. */
    ck_assert_ok(dm_db_run(dm_coord_store(w->c)->db, "PRAGMA synchronous = OFF", NULL, ""));
    for (int i = 1; i <= FAIR_WORKERS; i++)
        world_hello(w, i, 1);
    for (int64_t t = 0; t < hours * 3600000; t += 10000) {
        for (int i = 1; i <= FAIR_WORKERS; i++) {
            if (h[i].job && t >= until[i]) {
                trained(w, i, h[i], DONE, h[i].step + 10);
                out[h[i].search] += (double)(t - began[i]);
                h[i].job = 0;
            }
            if (!h[i].job) {
                h[i] = want(w, i);
                luck = luck * 6364136223846793005u + 1442695040888963407u;
                began[i] = t;
                until[i] = t + (h[i].search % 2 ? 20000 : 200000) + (int64_t)((luck >> 33) % 200000);
            }
            say(w, i, h[i]);
        }
        w->now_ms += 10000;
        world_turn(w);
        world_forget_sent(w);
    }
}

START_TEST(users_then_searches_get_equal_time)
    {
        world *w = world_new(es_test_dir());
        double used[FAIR_SEARCHES + 1] = {0}, all = 0;
        const char *user[FAIR_SEARCHES] = {"anna", "anna", "anna", "anna", "bert", "bert", "bert"};
        char name[16];
        for (int i = 0; i < FAIR_SEARCHES; i++) {
            snprintf(name, sizeof name, "f%d", i);
            submit(w, name, user[i], 0, "accuracy: max", 1);
        }
        share(w, 12, used);
        for (int i = 1; i <= FAIR_SEARCHES; i++)
            all += used[i];
        double anna = used[1] + used[2] + used[3] + used[4];
        fprintf(stderr, "shares: anna %.3f of 0.5; her searches %.3f %.3f %.3f %.3f; bert's %.3f %.3f %.3f\n",
                anna / all, used[1] / all, used[2] / all, used[3] / all, used[4] / all, used[5] / all, used[6] / all,
                used[7] / all);
        ck_assert_double_le(fabs(anna / all - 0.5), 0.02);
        for (int i = 1; i <= 4; i++)
            ck_assert_double_le(fabs(used[i] / all - 0.125), 0.02);
        for (int i = 5; i <= 7; i++)
            ck_assert_double_le(fabs(used[i] / all - 0.5 / 3), 0.02);
        world_free(&w);
    }
END_TEST

START_TEST(who_comes_late_gets_a_share_and_no_arrears)
    {
        world *w = world_new(es_test_dir());
        double used[FAIR_SEARCHES + 1] = {0};
        submit(w, "old1", "anna", 0, "accuracy: max", 1);
        submit(w, "old2", "anna", 0, "accuracy: max", 1);
        submit(w, "old3", "anna", 0, "accuracy: max", 1);
        submit(w, "old4", "anna", 0, "accuracy: max", 1);
        share(w, 3, used);
        submit(w, "new1", "bert", 0, "accuracy: max", 1);
        submit(w, "new2", "bert", 0, "accuracy: max", 1);
        world_goodbye(w, 1);
        world_goodbye(w, 2);
        world_goodbye(w, 3);
        world_turn(w);
        memset(used, 0, sizeof used);
        share(w, 1, used);
        double anna = used[1] + used[2] + used[3] + used[4], bert = used[5] + used[6];
        fprintf(stderr, "shares of the hour after: anna %.3f\n", anna / (anna + bert));
        ck_assert_double_le(fabs(anna / (anna + bert) - 0.5), 0.1);
        world_free(&w);
    }
END_TEST

/* Anna has had all workers for an hour; then the coordinator is killed, and nothing stands between her and bert but what she has used: 5,843 s are left of it by then, which he has
 * after 1,455 s, and half of the rest: 7,580 s of the hour's 10,800. With new accounts it would be half. */
START_TEST(accounts_outlive_the_coordinator)
    {
        world *w = world_new(es_test_dir());
        double used[FAIR_SEARCHES + 1] = {0};
        submit(w, "urgent", "anna", 1, "accuracy: max", 1);
        submit(w, "also urgent", "anna", 1, "accuracy: max", 1);
        submit(w, "urgent, too", "anna", 1, "accuracy: max", 1);
        for (int i = 0; i < 3; i++)
            submit(w, (const char *[]){"waits", "waits, too", "also waits"}[i], "bert", 0, "accuracy: max", 1);
        share(w, 1, used);
        ck_assert_double_gt(used[1] + used[2] + used[3], 9e6);
        ck_assert_double_eq(used[4] + used[5] + used[6], 0);
        for (int i = 1; i <= FAIR_WORKERS; i++)
            world_goodbye(w, i);
        world_turn(w);
        world_restart(w);
        for (uint64_t i = 1; i <= 3; i++)
            world_command(w, ESPALIER__WIRE__VERB__VERB_PRIORITY, i, 0);
        memset(used, 0, sizeof used);
        share(w, 1, used);
        fprintf(stderr, "shares of the hour after: anna %.0f s, bert %.0f s\n", (used[1] + used[2] + used[3]) / 1e3,
                (used[4] + used[5] + used[6]) / 1e3);
        ck_assert_double_gt(used[4] + used[5] + used[6], 2 * (used[1] + used[2] + used[3]));
        world_free(&w);
    }
END_TEST

/* ---- room on a device */

enum { MIB = 1 << 20 };

/* What one training of `head`'s space is predicted to need. */
static uint64_t predicted(world *w)
{
    dm_job_row r;
    ck_assert_ok(dm_job_get(dm_coord_store(w->c), 1, &r, NULL));
    uint64_t bytes = (uint64_t)r.memory_bytes;
    dm_job_row_free(&r);
    ck_assert_uint_gt(bytes, 1000);
    return bytes;
}

START_TEST(small_jobs_share_a_device_while_their_memory_fits)
    {
        world *w = world_new(es_test_dir());
        for (int i = 0; i < 4; i++) {
            char name[16];
            snprintf(name, sizeof name, "m%d", i);
            submit(w, name, "u", 0, "accuracy: max", 1);
        }
        uint64_t each = predicted(w);
        world_hello_as(w, 1, 4, "", 3 * each - 1, NULL); /* four slots, but room for two */
        world_held a = want(w, 1), b = want(w, 1);
        ck_assert_uint_ne(a.job, 0);
        ck_assert_uint_ne(b.job, 0);
        say(w, 1, a);
        say(w, 1, b);
        ck_assert_uint_eq(want(w, 1).job, 0);
        why(w, 4, "beside what is running: no worker has so much left");
        trained(w, 1, a, DONE, 10);
        ck_assert_uint_ne(want(w, 1).job, 0);
        ck_assert_uint_eq(want(w, 1).job, 0);
        world_free(&w);
    }
END_TEST

START_TEST(a_job_too_large_for_one_worker_waits_for_a_larger)
    {
        world *w = world_new(es_test_dir());
        submit(w, "m", "u", 0, "accuracy: max", 1);
        uint64_t each = predicted(w);
        world_hello_as(w, 1, 1, "", each - 1, NULL);
        world_hello_as(w, 2, 1, "", each + 1, NULL);
        world_turn(w);
        ck_assert_uint_eq(want(w, 1).job, 0);
        why(w, 1, "1 of 2 workers have less, the others are busy");
        ck_assert_uint_ne(want(w, 2).job, 0);
        world_free(&w);
        w = world_new(es_test_dir()); /* the largest there is may try: its plan knows better */
        submit(w, "m", "u", 0, "accuracy: max", 1);
        world_hello_as(w, 1, 1, "", each - 1, NULL);
        ck_assert_uint_ne(want(w, 1).job, 0);
        world_free(&w);
    }
END_TEST

START_TEST(latency_is_measured_alone)
    {
        world *w = world_new(es_test_dir());
        world_hello_as(w, 1, 4, "", 64 * MIB, NULL);
        submit(w, "m", "u", 0, "accuracy: max, latency_ms: min", 1);
        world_held h = want(w, 1);
        world_train_steps = 10;
        dm_job_result r = ESPALIER__WIRE__JOB_RESULT__INIT;
        char weights[80];
        snprintf(weights, sizeof weights, "%s", world_version(w, "final"));
        r.weights = weights;
        r.step = r.steps = 10;
        world_finish(w, 1, h.job, h.attempt, DONE, &r, NULL);
        world_turn(w);
        world_held eval = want(w, 1); /* eval/0, then latency/0 */
        ck_assert_int_eq(eval.kind, ESPALIER__WIRE__JOB_KIND__JOB_EVAL_SUBNETS);
        say(w, 1, eval);
        ck_assert_uint_eq(want(w, 1).job, 0);
        why(w, eval.job + 1, "measures latency alone on its device");
        world_noops(w, "n", 3, -1);
        world_turn(w);
        ck_assert_uint_eq(world_taken(w, 1).job,
                          0); /* nor does anything slip in before it, or it would never be alone */
        world_finish(w, 1, eval.job, eval.attempt, ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED, NULL, NULL);
        world_command(w, ESPALIER__WIRE__VERB__VERB_PRIORITY, 1, 1);
        world_finish(w, 1, eval.job, eval.attempt, ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED, NULL, NULL);
        world_held next = want(w, 1);
        ck_assert_uint_eq(next.search, 1);
        if (next.kind != ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY) { /* the evaluation came back first */
            world_finish(w, 1, next.job, next.attempt, ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED, NULL, NULL);
            next = want(w, 1);
        }
        say(w, 1, next);
        if (next.kind == ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY)
            ck_assert_uint_eq(want(w, 1).job, 0); /* nothing beside it */
        ck_assert_int_eq(next.kind, ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY);
        world_free(&w);
    }
END_TEST

/* ---- why */

START_TEST(why_says_what_a_job_waits_for)
    {
        world *w = world_new(es_test_dir());
        submit(w, "one", "u", 0, "accuracy: max", 1);
        why(w, 1, "no worker is connected");
        world_hello(w, 1, 1);
        world_held h = want(w, 1);
        why(w, 1, "runs on worker-1 since 0 s, attempt 1");
        uint64_t two = submit(w, "two", "u", 0, "accuracy: max", 1);
        why(w, 2, "all 1 workers that can do it are busy");
        world_command(w, ESPALIER__WIRE__VERB__VERB_PAUSE, two, 0);
        why(w, 2, "its search is paused");
        world_command(w, ESPALIER__WIRE__VERB__VERB_RESUME, two, 0);
        submit(w, "gang", "u", 0, "accuracy: max", 3);
        why(w, 3, "needs 3 free workers of one machine kind; at most 1 of a kind are connected and can do it");
        world_hello(w, 2, 1);
        world_hello(w, 3, 1);
        world_turn(w);
        why(w, 3, "waits for 3 free workers of one machine kind; 0 of 3 are free");
        world_command(w, ESPALIER__WIRE__VERB__VERB_CANCEL, two, 0);
        ck_assert_uint_eq(want(w, 2).job, 0);
        why(w, 3, "waits for 3 free workers of one machine kind; 1 of 3 are free and kept for it");
        world_command(w, ESPALIER__WIRE__VERB__VERB_PRIORITY, 1, 5);
        submit(w, "low", "u", -5, "accuracy: max", 1);
        why(w, 4, "all 3 workers that can do it are busy with searches of higher priority");
        trained(w, 1, h, DONE, 10);
        why(w, 2, "was cancelled with its search");
        world_free(&w);
    }
END_TEST

START_TEST(why_of_a_gang_that_gives_way)
    {
        world *w = world_new(es_test_dir());
        world_held h[4];
        w->options.hold_ms = 10000;
        dm_coord_set_options(w->c, &w->options);
        submit(w, "one", "u", 0, "accuracy: max", 1);
        submit(w, "two", "v", 0, "accuracy: max", 1);
        for (int i = 1; i <= 3; i++)
            world_hello(w, i, 1);
        h[1] = want(w, 1);
        h[2] = want(w, 2);
        h[3] = (world_held){0};
        submit(w, "gang", "x", 0, "accuracy: max", 3);
        ck_assert_uint_eq(want(w, 3).job, 0);
        world_noops(w, "n", 5, 0);
        world_turn(w);
        ck_assert_uint_eq(world_taken(w, 3).job, 0); /* kept */
        why(w, 3, "waits for 3 free workers of one machine kind; 1 of 3 are free and kept for it");
        for (int i = 0; i < 11; i++) {
            world_pass(w, 1000);
            for (int k = 1; k <= 3; k++)
                say(w, k, h[k]);
        }
        why(w, 3, "waits for 3 free workers of one machine kind, 0 are; lets smaller jobs go first for");
        ck_assert_uint_ne(world_taken(w, 3).job, 0);
        world_free(&w);
    }
END_TEST

START_TEST(why_of_drained_backoff_and_set_aside)
    {
        world *w = world_new(es_test_dir());
        world_hello(w, 1, 1);
        world_noops(w, "n", 5, 0);
        for (int i = 0; i < w->options.drain_after; i++) {
            world_held h = want(w, 1);
            world_finish(w, 1, h.job, h.attempt, ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, NULL, "io");
            world_turn(w);
            why(w, h.job, "attempt 1 failed (it broke); the next one starts in");
        }
        why(w, 5, "all 1 workers are drained: they get no more work");
        world_free(&w);
    }
END_TEST

START_TEST(a_job_set_aside_keeps_its_logs)
    {
        world *w = world_new(es_test_dir());
        submit(w, "killer", "u", 0, "accuracy: max", 1);
        for (int i = 1; i <= w->options.losses_max; i++) {
            world_hello(w, i, 1);
            ck_assert_uint_ne(want(w, i).job, 0);
            world_pass(w, w->options.lease_ms + 2000);
        }
        why(w, 1, "set aside: 3 workers in a row died or fell silent while they had it");
        char *logs = world_query(w, "logs", 1, 0);
        for (int i = 1; i <= w->options.losses_max; i++) { /* who they were, and what was last heard of the job */
            char part[32];
            snprintf(part, sizeof part, "\"worker\": \"worker-%d\"", i);
            ck_assert_has(logs, part);
        }
        ck_assert_has(logs, "\"outcome\": \"lost\"");
        ck_assert_has(logs, "at step 0 when last heard");
        free(logs);
        world_free(&w);
    }
END_TEST

ES_TEST_MAIN("sched", the_lowest_priority_makes_room_at_its_next_step, equals_and_evaluations_are_not_preempted,
             a_gang_clears_as_many_workers_as_it_needs, users_then_searches_get_equal_time,
             accounts_outlive_the_coordinator, who_comes_late_gets_a_share_and_no_arrears,
             small_jobs_share_a_device_while_their_memory_fits, a_job_too_large_for_one_worker_waits_for_a_larger,
             latency_is_measured_alone, why_says_what_a_job_waits_for, why_of_a_gang_that_gives_way,
             why_of_drained_backoff_and_set_aside, a_job_set_aside_keeps_its_logs)
