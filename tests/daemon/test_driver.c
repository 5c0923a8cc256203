/* A whole supernet search through the coordinator, with workers whose results are functions of the job: one worker or three, restarted or not, the result is the
 * same bytes. */
#include <jansson.h>

#include "base/rng.h"
#include "daemon/store/db.h"
#include "daemon/store/store.h"
#include "supernet/searchfile/searchfile.h"
#include "tests/check_main.h"
#include "tests/daemon/world.h"

static char *run(const char *text, int workers, uint64_t chaos_seed, char **show)
{
    world *w = world_new(es_test_dir());
    es_rng r = es_rng_make(chaos_seed, ES_USE_TEST, 0);
    uint64_t id = world_submit(w, "token", text);
    ck_assert_msg(id != 0, "%s", world_refusal());
    ck_assert_uint_eq(world_submit(w, "token", text), id);
    for (int i = 1; i <= workers; i++)
        world_hello(w, i, 1);
    char *result = NULL;
    for (int step = 0; step < 3000 && !result; step++) {
        world_work(w, 1 + (chaos_seed ? (int)es_rng_below(&r, (uint32_t)workers) : step % workers));
        if (chaos_seed && es_rng_below(&r, 7) == 0) {
            world_restart(w);
            for (int i = 1; i <= workers; i++)
                world_hello(w, i, 1);
        }
        w->now_ms += 10;
        result = world_query(w, "result", id, 0);
        if (!result)
            ck_assert_msg(strstr(world_refusal(), "busy") != NULL, "%s", world_refusal());
    }
    ck_assert_ptr_nonnull(result);
    if (show)
        *show = world_query(w, "show", id, 0);
    world_free(&w);
    return result;
}

START_TEST(a_search_ends_with_a_front)
    {
        char *show, *text = run(world_small_search, 1, 0, &show);
        json_t *result = json_loads(text, 0, NULL), *state = json_loads(show, 0, NULL);
        ck_assert_ptr_nonnull(result);
        ck_assert_int_eq(json_integer_value(json_object_get(result, "evaluations")), 50);
        json_t *front = json_object_get(result, "front"), *m;
        size_t i;
        ck_assert_uint_gt(json_array_size(front), 1);
        double last_accuracy = 2;
        json_int_t last_macs = INT64_MAX;
        json_array_foreach(front, i, m)
        {
            double accuracy = json_number_value(json_object_get(m, "accuracy"));
            json_int_t macs = json_integer_value(json_object_get(m, "macs"));
            ck_assert(accuracy < last_accuracy && macs < last_macs); /* a front of two objectives, best first */
            ck_assert_uint_eq(strlen(json_string_value(json_object_get(m, "weights"))), 64);
            ck_assert(json_is_number(json_object_get(m, "test_accuracy")));
            json_t *interval = json_object_get(m, "accuracy_95");
            ck_assert(json_number_value(json_array_get(interval, 0)) < accuracy &&
                      accuracy < json_number_value(json_array_get(interval, 1)));
            last_accuracy = accuracy;
            last_macs = macs;
        }
        ck_assert_str_eq(json_string_value(json_object_get(json_object_get(state, "search"), "state")), "done");
        json_t *jobs = json_object_get(state, "jobs");
        ck_assert_str_eq(json_string_value(json_object_get(json_array_get(jobs, 0), "key")), "train");
        ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(jobs, 0), "attempt")),
                         3); /* 25 steps in slices of 10 */
        json_decref(result);
        json_decref(state);
        free(text);
        free(show);
    }
END_TEST

START_TEST(the_same_bytes_for_any_number_of_workers_and_restarts)
    {
        char *one = run(world_small_search, 1, 0, NULL), *three = run(world_small_search, 3, 0, NULL);
        ck_assert_str_eq(one, three);
        for (uint64_t seed = 1; seed <= 5; seed++) {
            char *other = run(world_small_search, 1 + (int)(seed % 3), seed, NULL);
            ck_assert_str_eq(one, other);
            free(other);
        }
        free(one);
        free(three);
    }
END_TEST

START_TEST(old_checkpoints_are_let_go)
    {
        world *w = world_new(es_test_dir());
        world_hello(w, 1, 1);
        ck_assert_uint_ne(world_submit(w, "a", world_small_search), 0);
        for (int i = 0; i < 3; i++)
            ck_assert_int_eq(world_work(w, 1), 1);
        ck_assert_int_eq(w->dropped_n, 2); /* steps 10 and 20; 25 is what everything after refers to */
        ck_assert_str_eq(w->dropped[0], w->versions[0]);
        ck_assert_str_eq(w->dropped[1], w->versions[1]);
        world_free(&w);
    }
END_TEST

/* What a newer program wrote, or one with other rules: the search fails at the start, and goes on when it can be read again. */
static void unreadable(const char *spoil, const char *mend)
{
    world *w = world_new(es_test_dir());
    world_hello(w, 1, 1);
    uint64_t id = world_submit(w, "a", world_small_search);
    world_want(w, 1, 1);
    world_turn(w);
    ck_assert_int_eq(world_count(w, "running"), 1);
    ck_assert_int_eq(dm_db_run(dm_store_db(dm_coord_store(w->c)), spoil, NULL, ""), ES_OK);
    world_restart(w);
    world_hello(w, 1, 1);
    world_turn(w);
    ck_assert_int_eq(world_count(w, "running"), 0);
    ck_assert_int_eq(world_count(w, "ready"), 1);
    ck_assert_int_eq(dm_db_run(dm_store_db(dm_coord_store(w->c)), mend, NULL, ""), ES_OK);
    world_command(w, ESPALIER__WIRE__VERB__VERB_RETRY, id, 0);
    world_turn(w);
    ck_assert_int_eq(world_work(w, 1), 1);
    world_free(&w);
}

START_TEST(a_search_that_cannot_be_read_loses_no_job)
    {
        unreadable("UPDATE search SET driver = 'x' || driver", "UPDATE search SET driver = substr(driver, 2)");
        unreadable("UPDATE search SET text = 'x' || text", "UPDATE search SET text = substr(text, 2)");
    }
END_TEST

START_TEST(bad_searches_and_results_are_refused)
    {
        world *w = world_new(es_test_dir());
        ck_assert_uint_eq(world_submit(w, "a", "name: x\nspacee: 1\n"), 0);
        ck_assert_has(world_refusal(), "spacee");
        ck_assert_uint_eq(world_submit(w, "", world_small_search), 0);
        ck_assert_has(world_refusal(), "token must have");
        uint64_t id = world_submit(w, "b", world_small_search);
        ck_assert_uint_ne(id, 0);
        world_hello(w, 1, 1);
        w->options.drain_after = 0;
        w->options.backoff_ms = 1;
        dm_coord_set_options(w->c, &w->options);
        for (int i = 0; i < 3; i++) { /* a version that is not in the weights store */
            world_want(w, 1, 1);
            world_turn(w);
            dm_to_peer *m = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);
            ck_assert_ptr_nonnull(m);
            dm_job_result r = ESPALIER__WIRE__JOB_RESULT__INIT;
            char hex[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
            r.weights = hex;
            r.step = 10;
            r.steps = 25;
            world_finish(w, 1, m->leases->granted[0]->lease->job, m->leases->granted[0]->lease->attempt,
                         ESPALIER__WIRE__OUTCOME__OUTCOME_DONE, &r, NULL);
            world_free_message(&m);
            world_pass(w, 100);
        }
        char *show = world_query(w, "show", id, 0);
        ck_assert_has(show, "\"state\": \"failed\"");
        ck_assert_has(show, "is not in the weights store");
        free(show);
        world_command(w, ESPALIER__WIRE__VERB__VERB_RETRY, id, 0);
        ck_assert_str_eq(world_refusal(), "");
        for (int i = 0; i < 400 && world_work(w, 1); i++)
            w->now_ms += 10;
        char *result = world_query(w, "result", id, 0);
        ck_assert_ptr_nonnull(result);
        free(result);
        world_free(&w);
    }
END_TEST

static const char modules_text[] =
    "name: parts\nseed: 3\n"
    "task: {data: {train: /nowhere/train, test: /nowhere/test, validation: 100}}\n"
    "space:\n  input: 8x8x1\n  stages:\n    - {block: conv, width: 8, depth: 6, kernel: 3}\n  head: {classes: 10}\n"
    "supernet: {method: modules, epochs: 3, batch: 8, slice_steps: 10, modules: {parts: 3, end_to_end: true}}\n";

START_TEST(modules_are_a_graph_of_jobs)
    {
        char *show, *text = run(modules_text, 1, 0, &show), *many = run(modules_text, 4, 9, NULL);
        ck_assert_str_eq(text, many);
        ck_assert_has(text, "\"end_to_end\"");
        json_t *state = json_loads(show, 0, NULL), *jobs = json_object_get(state, "jobs"), *j;
        size_t i, needs_of_assemble = 0;
        json_array_foreach(jobs, i, j)
        {
            ck_assert_str_eq(json_string_value(json_object_get(j, "state")), "done");
            if (strcmp(json_string_value(json_object_get(j, "key")), "assemble") == 0)
                needs_of_assemble = json_array_size(json_object_get(j, "needs"));
        }
        ck_assert_uint_eq(json_array_size(jobs), 12);
        ck_assert_uint_eq(needs_of_assemble, 3);
        json_decref(state);
        free(text);
        free(many);
        free(show);
    }
END_TEST

START_TEST(a_failed_part_is_trained_again_alone)
    {
        world *w = world_new(es_test_dir());
        world_hello(w, 1, 1);
        w->options.drain_after = 0;
        dm_coord_set_options(w->c, &w->options);
        uint64_t id = world_submit(w, "m", modules_text);
        ck_assert_msg(id != 0, "%s", world_refusal());
        for (int i = 0; i < 6; i++) /* the meta model and the end-to-end run: three slices each */
            ck_assert_int_eq(world_work(w, 1), 1);
        world_want(w, 1, 1);
        world_turn(w);
        dm_to_peer *m = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);
        ck_assert_ptr_nonnull(m);
        world_finish(w, 1, m->leases->granted[0]->lease->job, 1, ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, NULL,
                     "invalid"); /* final at once */
        world_free_message(&m);
        world_turn(w);
        char *show = world_query(w, "show", id, 0);
        ck_assert_has(show, "\"state\": \"failed\"");
        free(show);
        world_command(w, ESPALIER__WIRE__VERB__VERB_RETRY, id, 0);
        int jobs = 0;
        while (world_work(w, 1))
            jobs++;
        char *result = world_query(w, "result", id, 0);
        ck_assert_msg(result != NULL, "%s", world_refusal());
        ck_assert_int_eq(
            jobs, 3 * 3 + 1 + 3 + 3 +
                      2); /* parts, assemble, fine-tune, scores and export, baseline scores: nothing a second time */
        free(result);
        world_free(&w);
    }
END_TEST

START_TEST(a_table_needs_no_worker)
    {
        const char *dir = es_test_dir();
        char path[1200], text[2000];
        snprintf(path, sizeof path, "%s/table.csv", dir);
        FILE *f = fopen(path, "w");
        fprintf(f, "arch,valid,test\n");
        for (int width = 0; width < 4; width++)
            for (int kernel = 0; kernel < 3; kernel++)
                fprintf(f, "\"%s\",%d,%d\n", "", 50 + width * 10 + kernel, 40 + width * 10 + kernel);
        fclose(f);
        snprintf(text, sizeof text,
                 "name: t\ntask: {kind: table, file: %s, architecture: arch, value: valid, report: test}\n"
                 "space:\n  input: 8x8x1\n  stages:\n    - {block: conv, width: [8, 16], kernel: [1, 3]}\n  head: "
                 "{classes: 10}\n"
                 "search: {algorithm: random, evaluations: 4}\nobjectives: [accuracy: max, macs: min]\n",
                 path);
        world *w = world_new(dir);
        uint64_t id = world_submit(w, "t", text);
        ck_assert_msg(id != 0, "%s", world_refusal());
        world_pass(w, 1000);
        char *show = world_query(w, "show", id, 0);
        ck_assert_has(show, "\"state\": \"failed\""); /* the rows name no architecture of the space */
        ck_assert_has(show, "the table cannot be used");
        free(show);
        world_free(&w);
    }
END_TEST

/* A table of every architecture of a space with so many stages, and a search file for it; *rows of them. */
static void table_search(const char *dir, int stages, int evaluations, char text[2000], int *rows)
{
    char path[1200], space[600] = "space:\n  input: 8x8x1\n  stages:\n";
    for (int i = 0; i < stages; i++)
        snprintf(space + strlen(space), sizeof space - strlen(space),
                 "    - {block: conv, width: [8, 12, 16, 24], kernel: [1, 3, 5]}\n");
    snprintf(space + strlen(space), sizeof space - strlen(space), "  head: {classes: 10}\n");
    snprintf(text, 2000, "name: t\ntask: {data: {train: a, validation: 1}}\n%s", space);
    sn_search_file *file;
    es_error err;
    ck_assert_ok_err(sn_search_file_parse("t", text, strlen(text), NULL, &file, &err), &err);
    sr_arch *a = sr_arch_new(sn_space_choices(file->space));
    snprintf(path, sizeof path, "%s/table.csv", dir);
    FILE *f = fopen(path, "w");
    fprintf(f, "arch,valid,test\n");
    for (*rows = 0; sr_arch_nth(sn_space_choices(file->space), (uint64_t)*rows, a); ++*rows) {
        char *name = sn_arch_format(file->space, a);
        fprintf(f, "\"%s\",%d,%d\n", name, 50 + *rows % 40, 40 + *rows % 40);
        free(name);
    }
    fclose(f);
    free(a);
    sn_search_file_destroy(&file);
    snprintf(text, 2000,
             "name: t\ntask: {kind: table, file: %s, architecture: arch, value: valid, report: test}\n%s"
             "search: {algorithm: random, evaluations: %d}\nobjectives: [accuracy: max]\n",
             path, space, evaluations);
}

START_TEST(a_table_is_searched)
    {
        const char *dir = es_test_dir();
        char text[2000];
        int rows;
        table_search(dir, 1, 100, text, &rows);
        ck_assert_int_eq(rows, 12);
        world *w = world_new(dir);
        uint64_t id = world_submit(w, "t", text);
        ck_assert_msg(id != 0, "%s", world_refusal());
        world_pass(w, 1000);
        char *result = world_query(w, "result", id, 0);
        ck_assert_msg(result != NULL, "%s", world_refusal());
        ck_assert_has(result, "\"evaluations\": 12"); /* the space is smaller than the budget */
        ck_assert_has(result, "\"accuracy\": 0.61,");
        ck_assert_has(result, "\"test_accuracy\": 0.51,");
        ck_assert_ptr_null(strstr(result, "accuracy_95")); /* nobody knows of how many samples */
        free(result);
        world_free(&w);
    }
END_TEST

static int looked_up(world *w, uint64_t id)
{
    char *show = world_query(w, "show", id, 0), *at = strstr(show, "\"evaluations\": {\"done\": ");
    ck_assert_msg(at != NULL, "%s", show);
    int n = (int)strtol(at + strlen("\"evaluations\": {\"done\": "), NULL, 10);
    free(show);
    return n;
}

START_TEST(a_paused_table_search_looks_nothing_up)
    {
        const char *dir = es_test_dir();
        char text[2000], *result[2];
        int rows;
        table_search(dir, 3, 1500, text, &rows);
        ck_assert_int_eq(rows, 12 * 12 * 12);
        world *w = world_new(dir);
        for (int pauses = 0; pauses < 2; pauses++) {
            uint64_t id = world_submit(w, pauses ? "b" : "a", text);
            ck_assert_msg(id != 0, "%s", world_refusal());
            if (pauses) {
                world_command(w, ESPALIER__WIRE__VERB__VERB_PAUSE, id, 0);
                int before = looked_up(w, id);
                ck_assert_int_gt(before, 0);
                ck_assert_int_lt(before, 1000);
                world_turn(w);
                for (int i = 0; i < 50; i++)
                    ck_assert_int_gt(world_turn(w), 0); /* nor does it spin */
                ck_assert_int_eq(looked_up(w, id), before);
                world_restart(w); /* it is read again up to there, and not on */
                for (int i = 0; i < 50; i++)
                    world_turn(w);
                ck_assert_int_gt(world_turn(w), 0);
                ck_assert_int_eq(looked_up(w, id), before);
                world_command(w, ESPALIER__WIRE__VERB__VERB_RESUME, id, 0);
            }
            for (int i = 0; i < 100; i++)
                world_turn(w);
            result[pauses] = world_query(w, "result", id, 0);
            ck_assert_msg(result[pauses] != NULL, "%s", world_refusal());
        }
        ck_assert_has(result[0], "\"evaluations\": 1500");
        ck_assert_str_eq(strstr(result[0], "\"front\""), strstr(result[1], "\"front\""));
        free(result[0]);
        free(result[1]);
        world_free(&w);
    }
END_TEST

ES_TEST_MAIN("driver", a_table_is_searched, a_paused_table_search_looks_nothing_up, modules_are_a_graph_of_jobs,
             a_failed_part_is_trained_again_alone, a_table_needs_no_worker, a_search_ends_with_a_front,
             the_same_bytes_for_any_number_of_workers_and_restarts, old_checkpoints_are_let_go,
             a_search_that_cannot_be_read_loses_no_job, bad_searches_and_results_are_refused)
