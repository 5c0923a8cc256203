/* A worker that lies about weights: its attempt fails, and the next worker's does not. */
#include "tests/check_main.h"
#include "tests/daemon/world.h"

static int asked;
static bool lies;
static es_status alike(void *ctx, const char *hex, const char *like, es_error *err)
{
    (void)ctx;
    asked++;
    ck_assert_str_ne(hex, like);
    return lies ? es_fail(err, ES_CORRUPT, hex, "array stem.weight has another type or shape") : ES_OK;
}

START_TEST(weights_of_other_shapes_are_a_failed_attempt)
    {
        world *w = world_new(es_test_dir());
        w->env.alike = alike;
        w->options.backoff_ms = 1;
        world_restart(w);
        uint64_t id = world_submit(w, "token", world_small_search);
        world_hello(w, 1, 1);
        ck_assert_int_eq(world_work(w, 1),
                         1); /* the first slice begins from the seed: there is nothing to compare with */
        ck_assert_int_eq(asked, 0);
        lies = true;
        w->now_ms += 10;
        ck_assert_int_eq(world_work(w, 1), 1);
        ck_assert_int_eq(asked, 1);
        char *show = world_query(w, "show", id, 0);
        ck_assert_has(show, "array stem.weight has another type or shape");
        ck_assert_has(show, "\"state\": \"running\"");
        ck_assert_has(show, "\"failures\": 1");
        free(show);
        lies = false;
        char *result = NULL;
        for (int i = 0; i < 1000 && !result; i++) {
            w->now_ms += 100;
            world_work(w, 1);
            result = world_query(w, "result", id, 0);
        }
        ck_assert_msg(result != NULL, "%s", world_refusal());
        ck_assert_int_gt(asked, 1);
        free(result);
        world_free(&w);
    }
END_TEST

/* The first job the worker is given; job 0: none. */
static dm_lease_id granted(world *w, int worker)
{
    dm_lease_id id = {.job = 0};
    world_want(w, worker, 1);
    world_turn(w);
    dm_to_peer *m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);
    if (m)
        id = (dm_lease_id){.job = m->leases->granted[0]->lease->job, .attempt = m->leases->granted[0]->lease->attempt};
    world_free_message(&m);
    return id;
}

static void worker_says(world *w, int worker, dm_lease_id l, const char *seed, int outcome, uint64_t step,
                        uint64_t steps)
{
    dm_job_result r = ESPALIER__WIRE__JOB_RESULT__INIT;
    char hex[80];
    snprintf(hex, sizeof hex, "%s", world_version(w, seed));
    r.weights = hex;
    r.step = step;
    r.steps = steps;
    world_finish(w, worker, l.job, l.attempt, outcome, &r, NULL);
    world_turn(w);
    w->now_ms += 10;
}

static void says_of(world *w, const char *seed, int outcome, uint64_t step, uint64_t steps)
{
    dm_lease_id l = granted(w, 1);
    ck_assert_uint_ne(l.job, 0);
    worker_says(w, 1, l, seed, outcome, step, steps);
}

static void says(world *w, int outcome, uint64_t step, uint64_t steps)
{
    char seed[32];
    snprintf(seed, sizeof seed, "at step %d", (int)step);
    says_of(w, seed, outcome, step, steps);
}

START_TEST(a_slice_without_progress_is_a_failed_attempt)
    {
        world *w = world_new(es_test_dir());
        int done = ESPALIER__WIRE__OUTCOME__OUTCOME_DONE;
        w->options.backoff_ms = 1;
        w->options.failures_max = 4;
        w->options.drain_after = 0;
        world_restart(w);
        uint64_t id = world_submit(w, "token", world_small_search);
        world_hello(w, 1, 1);
        says(w, done, 0, 40); /* has done nothing */
        char *show = world_query(w, "show", id, 0);
        ck_assert_has(show, "is still 0 after a slice that is said to be done");
        ck_assert_has(show, "\"failures\": 1");
        free(show);
        says(w, done, 10, 40);
        says(w, done, 10, 40); /* nor now */
        show = world_query(w, "show", id, 0);
        ck_assert_has(show, "is still 10 after a slice that is said to be done");
        ck_assert_has(show, "\"failures\": 2");
        free(show);
        says_of(w, "at step 10", done, 20, 40); /* nor so */
        show = world_query(w, "show", id, 0);
        ck_assert_has(show, "are those that the slice began from, 10 steps ago");
        ck_assert_has(show, "\"failures\": 3");
        free(show);
        says(w, done, 15, 15); /* and that is not all of it */
        show = world_query(w, "show", id, 0);
        ck_assert_has(show, "\"state\": \"failed\"");
        ck_assert_has(show, "is 15, the slice before said 40");
        free(show);
        world_free(&w);
    }
END_TEST

/* A worker of another key is asked how long a training is before it is over: eve's say 10 steps, and are not asked again while anna's is there, who says 40. */
START_TEST(one_key_alone_does_not_say_how_long_a_training_is)
    {
        enum { EVE = 1, ANNA = 2, EVE_TOO = 3, DONE = ESPALIER__WIRE__OUTCOME__OUTCOME_DONE };
        world *w = world_new(es_test_dir());
        w->options.backoff_ms = 1;
        w->options.drain_after = 0;
        world_restart(w);
        uint64_t id = world_submit(w, "token", world_small_search);
        static const char *const keys[] = {"", "eve", "anna", "eve"};
        for (int i = EVE; i <= EVE_TOO; i++) {
            w->key = keys[i];
            world_hello(w, i, 1);
        }
        w->key = NULL;
        world_turn(w);
        w->now_ms += w->options.lease_ms; /* whoever was there before the restart would have been heard */
        for (int i = EVE; i <= EVE_TOO; i++)
            world_heartbeat(w, i, NULL, 0);
        world_turn(w);
        dm_lease_id l = granted(w, EVE);
        worker_says(w, EVE, l, "at step 10", DONE, 10, 10);
        ck_assert_uint_eq(granted(w, EVE).job, 0);
        ck_assert_uint_eq(granted(w, EVE_TOO).job, 0);
        char *text = world_query(w, "why", 0, l.job);
        ck_assert_has(text, "another, of another key, is to say it, too");
        free(text);
        l = granted(w, ANNA);
        ck_assert_uint_ne(l.job, 0);
        worker_says(w, ANNA, l, "at step 20", DONE, 20, 40);
        text = world_query(w, "show", id, 0);
        ck_assert_has(text, "is 40, the slice before said 10: other data, or a broken worker; nobody knows which");
        ck_assert_has(text, "\"step\": null"); /* it begins anew */
        ck_assert_has(text, "\"failures\": 1");
        free(text);
        world_goodbye(w, EVE);
        world_goodbye(w, EVE_TOO);
        world_turn(w);
        world_forget_sent(w);
        for (uint64_t step = 10; step <= 40; step += 10) {
            char seed[32];
            w->key = "eve";
            if (step == 40)
                world_hello(w, EVE, 1);
            w->key = NULL;
            snprintf(seed, sizeof seed, "at step %d", (int)step);
            l = granted(w, ANNA);
            worker_says(w, ANNA, l, seed, DONE, step, 40);
        }
        text = world_query(w, "show", id, 0);
        ck_assert_has(text, "\"phase\": \"training the supernet\"");
        free(text);
        l = granted(w, EVE);
        ck_assert_uint_ne(l.job, 0);
        worker_says(w, EVE, l, "other weights", DONE, 40, 40);
        text = world_query(w, "show", id, 0);
        ck_assert_has(text, "are others than at the training's end");
        free(text);
        l = granted(w, EVE);
        worker_says(w, EVE, l, "at step 40", DONE, 40, 40);
        text = world_query(w, "show", id, 0);
        ck_assert_has(text, "\"phase\": \"evaluating subnets\"");
        free(text);
        world_free(&w);
    }
END_TEST

/* Told to hand back at the very end of its slice: what is given next is no empty slice, which nobody could bring on. */
START_TEST(a_slice_handed_back_at_its_end_is_followed_by_a_whole_one)
    {
        world *w = world_new(es_test_dir());
        uint64_t id = world_submit(w, "token", world_small_search);
        world_hello(w, 1, 1);
        says(w, ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED, 10, 40);
        says(w, ESPALIER__WIRE__OUTCOME__OUTCOME_DONE, 20, 40);
        char *show = world_query(w, "show", id, 0);
        ck_assert_has(show, "\"failures\": 0");
        ck_assert_has(show, "\"step\": 20");
        free(show);
        world_free(&w);
    }
END_TEST

/* Weights of a step that it says it has not reached would be the failure of every worker after it. */
START_TEST(a_hand_back_without_progress_leaves_the_weights)
    {
        world *w = world_new(es_test_dir());
        uint64_t id = world_submit(w, "token", world_small_search);
        world_hello(w, 1, 1);
        says_of(w, "at step 10", ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED, 0, 40);
        says(w, ESPALIER__WIRE__OUTCOME__OUTCOME_DONE, 10, 40);
        says_of(w, "at step 20", ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED, 10, 40);
        says(w, ESPALIER__WIRE__OUTCOME__OUTCOME_DONE, 20, 40);
        char *show = world_query(w, "show", id, 0);
        ck_assert_has(show, "\"failures\": 0");
        ck_assert_has(show, "\"step\": 20");
        free(show);
        world_free(&w);
    }
END_TEST

START_TEST(who_only_hands_back_gets_no_more)
    {
        world *w = world_new(es_test_dir());
        int back[] = {ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED, ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED};
        w->options.drain_after = 3;
        world_restart(w);
        uint64_t id = world_submit(w, "token", world_small_search);
        world_hello(w, 1, 1);
        for (int i = 0; i < 3; i++) /* a slot and two more: nothing is said yet, and a step makes it good again */
            says(w, back[0], 0, 40);
        says(w, back[0], 1, 40);
        for (int i = 0; i < 4; i++) {
            dm_lease_id l = granted(w, 1);
            world_finish(w, 1, l.job, l.attempt, back[i % 2], NULL, NULL);
            world_turn(w);
        }
        char *workers = world_query(w, "workers", 0, 0), *show = world_query(w, "show", id, 0);
        ck_assert_has(workers, "it handed back 4 jobs in a row, unasked and with nothing done");
        ck_assert_has(show, "\"failures\": 0");
        ck_assert_has(show, "\"state\": \"running\"");
        free(workers);
        free(show);
        world_want(w, 1, 1);
        world_turn(w);
        ck_assert_ptr_null(world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_LEASES));
        world_free(&w);
    }
END_TEST

/* A message as somebody else than this user. */
static const char *refused(world *w, const dm_who *who, dm_from_peer *m)
{
    static char code[64];
    dm_addr from = {.n = 1, .id = {77}};
    dm_bytes b;
    m->version = DM_WIRE_VERSION;
    m->request_id = 5;
    ck_assert_ok(dm_encode(&m->base, DM_CONTROL_MAX, &b, NULL));
    dm_coord_deliver_as(w->c, &from, who, b.data, b.n);
    free(b.data);
    int before = w->sent_n;
    world_turn(w);
    code[0] = 0;
    for (int i = before; i < w->sent_n; i++) {
        ProtobufCMessage *base = NULL;
        ck_assert_ok(dm_decode(&espalier__wire__to_peer__descriptor, w->sent[i].bytes, w->sent[i].n, &base, NULL));
        const dm_to_peer *t = (const dm_to_peer *)base;
        if (t->what_case == ESPALIER__WIRE__TO_PEER__WHAT_ERROR)
            snprintf(code, sizeof code, "%s", t->error->code);
        dm_message_free(&base);
    }
    return code;
}

START_TEST(whose_search_it_is_decides)
    {
        world *w = world_new(es_test_dir());
        dm_who ann = {.role = DM_ROLE_CLIENT, .name = "ann"}, bob = {.role = DM_ROLE_CLIENT, .name = "bob"},
               gpu = {.role = DM_ROLE_WORKER, .name = "gpu"}, root = {.role = DM_ROLE_ADMIN, .name = "root"},
               nobody = {.role = DM_ROLE_NONE};
        Espalier__Wire__Submit s = ESPALIER__WIRE__SUBMIT__INIT;
        Espalier__Wire__Command k = ESPALIER__WIRE__COMMAND__INIT;
        dm_from_peer m = DM_FROM_PEER(SUBMIT, submit, &s), c = DM_FROM_PEER(COMMAND, command, &k);
        s.token = dm_text("t");
        s.user = dm_text("bob"); /* ann says that she is bob */
        s.text = dm_text(world_small_search);
        ck_assert_str_eq(refused(w, &gpu, &m), "denied");
        ck_assert_str_eq(refused(w, &nobody, &m), "denied");
        s.priority = 101;
        ck_assert_str_eq(refused(w, &ann, &m), "denied");
        s.priority = 0;
        ck_assert_str_eq(refused(w, &ann, &m), "");
        char *list = world_query(w, "list", 0, 0);
        ck_assert_has(list, "\"user\": \"ann\"");
        free(list);
        k.search = 1;
        static const int verbs[] = {ESPALIER__WIRE__VERB__VERB_PAUSE,  ESPALIER__WIRE__VERB__VERB_RESUME,
                                    ESPALIER__WIRE__VERB__VERB_CANCEL, ESPALIER__WIRE__VERB__VERB_RETRY,
                                    ESPALIER__WIRE__VERB__VERB_PIN,    ESPALIER__WIRE__VERB__VERB_DELETE,
                                    ESPALIER__WIRE__VERB__VERB_UNPIN,  ESPALIER__WIRE__VERB__VERB_PRIORITY};
        for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
            k.verb = (Espalier__Wire__Verb)verbs[i];
            ck_assert_str_eq(refused(w, &bob, &c), "denied");
            ck_assert_str_eq(refused(w, &gpu, &c), "denied");
        }
        k.verb = ESPALIER__WIRE__VERB__VERB_PRIORITY;
        k.value = 101;
        ck_assert_str_eq(refused(w, &ann, &c), "denied");
        ck_assert_str_eq(refused(w, &root, &c), "");
        k.verb = ESPALIER__WIRE__VERB__VERB_PAUSE;
        ck_assert_str_eq(refused(w, &ann, &c), "");
        k.verb = ESPALIER__WIRE__VERB__VERB_SHUTDOWN;
        ck_assert_str_eq(refused(w, &ann, &c), "denied");
        ck_assert(!dm_coord_shutdown_asked(w->c));
        k.verb = ESPALIER__WIRE__VERB__VERB_CANCEL;
        ck_assert_str_eq(refused(w, &root, &c), "");
        world_free(&w);
    }
END_TEST

ES_TEST_MAIN("trust", weights_of_other_shapes_are_a_failed_attempt, a_slice_without_progress_is_a_failed_attempt,
             one_key_alone_does_not_say_how_long_a_training_is,
             a_slice_handed_back_at_its_end_is_followed_by_a_whole_one, a_hand_back_without_progress_leaves_the_weights,
             who_only_hands_back_gets_no_more, whose_search_it_is_decides)
