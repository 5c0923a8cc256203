/* Gangs, as their workers see them: whole or not at all, one id, one result, and what happens when a rank is lost. */
#include <stdlib.h>

#include "tests/check_main.h"
#include "tests/daemon/work.h"
#include "tests/daemon/world.h"

enum {
    DONE = ESPALIER__WIRE__OUTCOME__OUTCOME_DONE,
    FAILED = ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED,
    CANCELLED = ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED
};

static const char text[] = "name: gang\nseed: 5\n"
                           "task: {data: {train: /nowhere/a, test: /nowhere/b, validation: 100}}\n"
                           "space:\n  input: 8x8x1\n  stages:\n    - {block: conv, width: [8, 12], depth: [1, 2]}\n"
                           "  head: {classes: 10}\nsupernet: {epochs: 1, batch: 9, slice_steps: 10}\n"
                           "search: {algorithm: random, evaluations: 4}\nobjectives: [accuracy: max, macs: min]\n"
                           "resources: {gpus: 3}\n";

/* Three workers hold the first attempt; rank by worker, from 1. */
static world *started(world_held r[4])
{
    world *w = world_new(es_test_dir());
    for (int i = 1; i <= 3; i++)
        world_hello(w, i, 1);
    ck_assert_uint_ne(world_submit(w, "g", text), 0);
    for (int i = 1; i <= 3; i++)
        world_want(w, i, 1);
    world_turn(w);
    for (int i = 1; i <= 3; i++) {
        r[i] = world_taken(w, i);
        ck_assert_uint_ne(r[i].job, 0);
        ck_assert_uint_eq(r[i].size, 3);
        ck_assert_uint_eq(r[i].rank, (unsigned)i - 1);
        ck_assert_uint_eq(r[i].attempt, r[1].attempt);
    }
    return w;
}

static dm_lease_id lease_id(world_held r)
{
    dm_lease_id id = ESPALIER__WIRE__LEASE__INIT;
    id.job = r.job;
    id.attempt = r.attempt;
    return id;
}

/* Heartbeat of a worker with its rank; how many leases it is told to stop. */
static size_t beat(world *w, int worker, world_held r)
{
    dm_lease_id id = lease_id(r);
    world_heartbeat(w, worker, &id, 1);
    world_turn(w);
    dm_to_peer *m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_HEARTBEAT);
    size_t n = m ? m->heartbeat->n_stop : 0;
    if (m)
        world_free_message(&m);
    return n;
}

static bool finished(world *w, int worker, world_held r, int outcome, const dm_job_result *result, const char *code)
{
    world_finish(w, worker, r.job, r.attempt, outcome, result, code);
    world_turn(w);
    dm_to_peer *m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_FINISHED);
    bool yes = m->finished->n_accepted == 1;
    world_free_message(&m);
    return yes;
}

static bool why_has(world *w, uint64_t job, const char *part)
{
    char *json = world_query(w, "why", 0, job);
    bool yes = json && strstr(json, part);
    if (!yes)
        fprintf(stderr, "why: %s\n", json);
    free(json);
    return yes;
}

static bool job_has(world *w, const char *part)
{
    char *json = world_query(w, "show", 1, 0);
    bool yes = strstr(json, part) != NULL;
    if (!yes)
        fprintf(stderr, "show: %s\n", json);
    free(json);
    return yes;
}

START_TEST(whole_or_not_at_all_and_of_one_machine_kind)
    {
        world *w = world_new(es_test_dir());
        ck_assert_uint_ne(world_submit(w, "g", text), 0);
        for (int i = 1; i <= 4; i++) {
            world_hello_as(w, i, 2, i == 2 ? "other" : "same", 0, NULL);
            world_want(w, i, 2); /* two free slots are no two workers */
            world_turn(w);
            if (i < 4)
                for (int k = 1; k <= i; k++)
                    ck_assert_uint_eq(world_taken(w, k).job, 0);
        }
        unsigned seen = 0;
        for (int i = 1; i <= 4; i++) {
            world_held r = world_taken(w, i);
            ck_assert((r.job != 0) == (i != 2));
            if (r.job)
                seen |= 1u << r.rank;
        }
        ck_assert_uint_eq(seen, 7);
        world_free(&w);
    }
END_TEST

START_TEST(the_id_reaches_every_rank)
    {
        world_held r[4];
        world *w = started(r);
        world_offer(w, 2, r[2].job, r[2].attempt, "not from rank 1");
        world_turn(w);
        dm_to_peer *e = world_take(w, 2, ESPALIER__WIRE__TO_PEER__WHAT_ERROR);
        ck_assert_str_eq(e->error->code, "lost");
        world_free_message(&e);
        char long_id[300];
        memset(long_id, 'x', sizeof long_id);
        long_id[257] = 0;
        world_offer(w, 1, r[1].job, r[1].attempt, long_id);
        world_turn(w);
        e = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_ERROR);
        ck_assert_has(e->error->text, "has 257 bytes, allowed are 1 to 256");
        world_free_message(&e);
        world_offer(w, 1, r[1].job, r[1].attempt, "meet here");
        world_turn(w);
        for (int i = 1; i <= 3; i++) {
            dm_to_peer *m = world_take(w, i, ESPALIER__WIRE__TO_PEER__WHAT_GANG_ID);
            ck_assert_ptr_nonnull(m);
            ck_assert_uint_eq(m->gang_id->lease->job, r[i].job);
            ck_assert_uint_eq(m->gang_id->id.len, 9);
            ck_assert_mem_eq(m->gang_id->id.data, "meet here", 9);
            world_free_message(&m);
        }
        dm_lease_id id = lease_id(r[3]);
        world_restart(w); /* it outlives the coordinator, too */
        world_hello_as(w, 3, 1, "", 0, &id);
        world_turn(w);
        dm_to_peer *m = world_take(w, 3, ESPALIER__WIRE__TO_PEER__WHAT_GANG_ID);
        ck_assert_ptr_nonnull(m);
        world_free_message(&m);
        world_free(&w);
    }
END_TEST

static void train(world *w, world_held r, work_result *out)
{
    static char weights[80];
    memset(out, 0, sizeof *out);
    espalier__wire__job_result__init(&out->result);
    snprintf(weights, sizeof weights, "%s", world_version(w, "slice"));
    out->result.weights = weights;
    out->result.step = 10;
    out->result.steps = 20;
    (void)r;
}

START_TEST(one_result_and_slots_come_back)
    {
        world_held r[4];
        work_result result;
        world *w = started(r);
        train(w, r[1], &result);
        ck_assert(finished(w, 2, r[2], DONE, NULL, NULL)); /* gives back its slot */
        ck_assert(finished(w, 2, r[2], DONE, NULL, NULL)); /* and says so again */
        ck_assert_int_eq(world_count(w, "running"), 1);
        ck_assert(finished(w, 1, r[1], DONE, &result.result, NULL));
        ck_assert_int_eq(world_count(w, "running"), 0);
        ck_assert(finished(w, 3, r[3], DONE, NULL, NULL)); /* later than the result: in good order */
        ck_assert(job_has(w, "\"step\": 10"));
        for (int i = 1; i <= 3; i++)
            world_want(w, i, 1);
        world_turn(w);
        for (int i = 1; i <= 3; i++) {
            world_held next = world_taken(w, i);
            ck_assert_uint_eq(next.job, r[1].job);
            ck_assert_uint_eq(next.attempt, r[1].attempt + 1);
        }
        world_free(&w);
    }
END_TEST

START_TEST(a_silent_rank_takes_the_attempt_with_it)
    {
        world_held r[4];
        world *w = started(r);
        for (int64_t t = 0; t <= w->options.lease_ms + 2000; t += 5000) {
            world_pass(w, 5000);
            beat(w, 1, r[1]);
            beat(w, 3, r[3]);
        }
        ck_assert_int_eq(world_count(w, "running"), 0);
        ck_assert(job_has(w, "\"losses\": 1"));
        ck_assert(job_has(w, "\"failures\": 0"));
        ck_assert_uint_eq(beat(w, 1, r[1]), 1);
        ck_assert_uint_eq(beat(w, 3, r[3]), 1);
        world_free(&w);
    }
END_TEST

START_TEST(a_rank_that_lost_its_peers_ends_the_attempt_without_blame)
    {
        world_held r[4];
        world *w = started(r);
        ck_assert(finished(w, 3, r[3], FAILED, NULL, "lost-peer"));
        ck_assert_int_eq(world_count(w, "running"), 1); /* until it is known who is dead */
        ck_assert_uint_eq(beat(w, 1, r[1]), 1);
        ck_assert_uint_eq(beat(w, 2, r[2]), 1);
        ck_assert(finished(w, 1, r[1], FAILED, NULL, "lost-peer"));
        ck_assert(finished(w, 2, r[2], CANCELLED, NULL, NULL));
        ck_assert_int_eq(world_count(w, "ready"), 1);
        ck_assert(job_has(w, "\"losses\": 0"));
        ck_assert(job_has(w, "\"failures\": 0"));
        world_free(&w);
    }
END_TEST

/* Workers that cannot reach each other would be given the job for ever. */
START_TEST(a_gang_that_never_meets_ends_with_the_reason)
    {
        world_held r[4];
        world *w = started(r);
        int rounds = 0;
        for (; r[1].job && rounds < 100; rounds++) {
            for (int i = 1; i <= 3; i++)
                ck_assert(finished(w, i, r[i], FAILED, NULL, "lost-peer"));
            for (int t = 0; t < 70 && world_count(w, "ready") == 1; t++) { /* the pause doubles, up to a minute */
                w->now_ms += 1000;
                for (int i = 1; i <= 3; i++)
                    world_heartbeat(w, i, NULL, 0);
                for (int i = 1; i <= 3; i++)
                    world_want(w, i, 1);
                world_turn(w);
            }
            for (int i = 1; i <= 3; i++)
                r[i] = world_taken(w, i);
            world_forget_sent(w);
        }
        ck_assert_int_eq(rounds, 8 + w->options.failures_max);
        char *show = world_query(w, "show", 1, 0);
        ck_assert_has(show, "\"state\": \"failed\"");
        ck_assert_has(show, "can the workers reach each other (--address)?");
        free(show);
        char *workers = world_query(w, "workers", 0, 0);
        ck_assert_ptr_null(strstr(workers, "drained"));
        free(workers);
        world_free(&w);
    }
END_TEST

START_TEST(the_vanished_rank_counts_even_if_the_others_speak_first)
    {
        world_held r[4];
        world *w = started(r);
        for (int loss = 1; loss <= w->options.losses_max; loss++) {
            if (loss > 1) {
                world_hello(w, 2 + loss, 1); /* in the place of the dead one */
                r[2] = r[1];
                r[2].attempt++;
                for (int i = 1; i <= 2 + loss; i++)
                    if (i == 1 || i == 3 || i == 2 + loss)
                        world_want(w, i, 1);
                world_turn(w);
                r[1] = world_taken(w, 1);
                r[3] = world_taken(w, 3);
                ck_assert_uint_ne(r[1].job, 0);
            }
            ck_assert(finished(w, 1, r[1], FAILED, NULL, "lost-peer"));
            ck_assert(finished(w, 3, r[3], FAILED, NULL, "lost-peer"));
            for (int64_t t = 0; t <= w->options.lease_ms + 2000; t += 5000) {
                world_pass(w, 5000);
                world_heartbeat(w, 1, NULL, 0);
                world_heartbeat(w, 3, NULL, 0);
                world_turn(w);
            }
        }
        ck_assert_int_eq(world_count(w, "failed"), 1);
        ck_assert(why_has(w, r[1].job, "set aside: 3 workers in a row"));
        world_free(&w);
    }
END_TEST

START_TEST(a_failed_rank_is_a_failed_attempt)
    {
        world_held r[4];
        world *w = started(r);
        ck_assert(finished(w, 1, r[1], FAILED, NULL, "lost-peer"));
        ck_assert(finished(w, 2, r[2], FAILED, NULL, "io")); /* the cause */
        ck_assert_int_eq(world_count(w, "ready"), 1);
        ck_assert(job_has(w, "\"failures\": 1"));
        ck_assert_uint_eq(beat(w, 3, r[3]), 1);
        world_free(&w);
    }
END_TEST

START_TEST(goodbye_of_a_rank)
    {
        world_held r[4];
        world *w = started(r);
        world_goodbye(w, 2);
        world_turn(w);
        ck_assert_int_eq(world_count(w, "ready"), 1);
        ck_assert(job_has(w, "\"losses\": 0"));
        ck_assert_uint_eq(beat(w, 1, r[1]), 1);
        ck_assert(why_has(w, r[1].job, "needs 3 free workers of one machine kind"));
        world_free(&w);
    }
END_TEST

START_TEST(a_restart_keeps_the_gang_if_all_come_back)
    {
        world_held r[4];
        work_result result;
        world *w = started(r);
        train(w, r[1], &result);
        world_restart(w);
        for (int i = 1; i <= 3; i++) {
            dm_lease_id id = lease_id(r[i]);
            world_hello_as(w, i, 1, "", 0, &id);
        }
        world_pass(w, w->options.lease_ms - 1000);
        for (int i = 1; i <= 3; i++)
            ck_assert_uint_eq(beat(w, i, r[i]), 0);
        world_pass(w, w->options.lease_ms - 1000);
        ck_assert(finished(w, 1, r[1], DONE, &result.result, NULL));
        ck_assert(job_has(w, "\"step\": 10"));
        world_free(&w);
        w = started(r);
        world_restart(w);
        for (int i = 1; i <= 2; i++) {
            dm_lease_id id = lease_id(r[i]);
            world_hello_as(w, i, 1, "", 0, &id);
        }
        for (int64_t t = 0; t <= w->options.lease_ms + 2000; t += 5000) {
            world_pass(w, 5000);
            beat(w, 1, r[1]);
            beat(w, 2, r[2]);
        }
        ck_assert_int_eq(world_count(w, "running"), 0);
        world_free(&w);
    }
END_TEST

/* Three workers busy with small jobs of the same priority, each taking `ms`: after how long does the gang start? Small jobs done meanwhile: *done. */
static int64_t gang_starts_after(int64_t ms, int64_t limit, int *done)
{
    world *w = world_new(es_test_dir());
    world_held held[4] = {0};
    int64_t until[4] = {0}, began = 0;
    w->options.hold_ms = 60000;
    dm_coord_set_options(w->c, &w->options);
    world_noops(w, "small", 10000, 0);
    for (int i = 1; i <= 3; i++)
        world_hello(w, i, 1);
    *done = 0;
    for (int64_t t = 0; t < limit; t += 500) {
        if (t == ms)
            ck_assert_uint_ne(world_submit(w, "g", text), 0);
        for (int i = 1; i <= 3; i++) {
            if (held[i].job && t >= until[i]) {
                finished(w, i, held[i], DONE, NULL, NULL);
                held[i].job = 0;
                *done += t > ms;
            }
            if (!held[i].job) {
                world_want(w, i, 1);
                world_turn(w);
                held[i] = world_taken(w, i);
                until[i] = t + ms + 700 * i; /* never all at once by chance */
            }
        }
        for (int i = 1; i <= 3; i++) {
            world_held late = world_taken(w, i);
            if (late.job)
                held[i] = late, until[i] = t + ms;
            if (held[i].size == 3)
                began = t;
            beat(w, i, held[i]);
        }
        if (began)
            break;
        world_pass(w, 500);
    }
    world_free(&w);
    return began ? began - ms : -1;
}

START_TEST(small_jobs_do_not_starve_a_gang_nor_it_them)
    {
        int done;
        int64_t after = gang_starts_after(20000, 400000, &done);
        ck_assert_int_ge(after, 0);
        ck_assert_int_le(after, 45000); /* when the last of the three running ones is over */
        after = gang_starts_after(100000, 4000000, &done);
        ck_assert_int_ge(after, 0); /* jobs longer than a hold: the second or third hold is long enough */
        ck_assert_int_ge(done, 1);
    }
END_TEST

ES_TEST_MAIN("gang", whole_or_not_at_all_and_of_one_machine_kind, the_id_reaches_every_rank,
             one_result_and_slots_come_back, a_silent_rank_takes_the_attempt_with_it,
             a_rank_that_lost_its_peers_ends_the_attempt_without_blame, a_gang_that_never_meets_ends_with_the_reason,
             the_vanished_rank_counts_even_if_the_others_speak_first, a_failed_rank_is_a_failed_attempt,
             goodbye_of_a_rank, a_restart_keeps_the_gang_if_all_come_back, small_jobs_do_not_starve_a_gang_nor_it_them)
