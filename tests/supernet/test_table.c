#include "supernet/table.h"

#include "tests/check_main.h"
#include "tests/supernet/spaces.h"

static const char *const SMALL = "key,valid,test,params\n"
                                 "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,9.5,10,1\n"
                                 "\"|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|\",94.25,93.5,2\r\n";

static es_status parse(const sn_table_config *c, const sn_space *sp, const char *text, sn_table **t, es_error *err)
{
    return sn_table_parse(c, sp, text, strlen(text), t, err);
}

START_TEST(answers_by_architecture)
    {
        const sn_table_config c = {.file = "small.csv", .key = "key", .value = "valid", .report = "test"};
        sn_space *sp = space_load("nas-bench-201");
        sn_table *t = NULL;
        es_error err = {0};
        ck_assert_ok_err(parse(&c, sp, SMALL, &t, &err), &err);
        ck_assert_int_eq(sn_table_rows(t), 2);
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        ck_assert_ok_err(sn_arch_parse(sp, "|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|", a, &err), &err);
        double v;
        sn_evaluation e;
        ck_assert_ok_err(sn_table_value(t, a, SN_VALIDATION_SPLIT, &v, &err), &err);
        ck_assert_double_eq_tol(v, 0.9425, 1e-12);
        ck_assert_ok_err(sn_table_evaluate(t, a, SN_TEST_SPLIT, &e, &err), &err);
        ck_assert_uint_eq(e.correct, 935000000);
        ck_assert_uint_eq(e.samples, 1000000000);
        ck_assert_ok_err(sn_arch_parse(sp, "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|none~2|", a, &err), &err);
        ck_assert_status(sn_table_value(t, a, SN_VALIDATION_SPLIT, &v, &err), ES_NOT_FOUND);
        ck_assert_has(err.text, "no row for architecture |nor_conv_1x1~0|");
        free(a);
        sn_table_close(&t);
        sn_space_destroy(&sp);
    }
END_TEST

START_TEST(refuses)
    {
        sn_table_config c = {.file = "small.csv", .key = "key", .value = "accuracy", .report = "test"};
        sn_space *sp = space_load("nas-bench-201");
        sn_table *t = NULL;
        es_error err = {0};
        ck_assert_status(parse(&c, sp, SMALL, &t, &err), ES_INVALID);
        ck_assert_str_eq(err.where, "small.csv:1");
        ck_assert_has(err.text, "no column \"accuracy\" (task.value); there are key, valid, test, params");
        snprintf(c.value, sizeof c.value, "valid");
        ck_assert_status(parse(&c, sp, "", &t, &err), ES_INVALID);
        ck_assert_status(parse(&c, sp, "key,valid,test\n", &t, &err), ES_INVALID);
        ck_assert_has(err.text, "no rows");
        ck_assert_status(parse(&c, sp, "key,valid,test\n|none~0|,1,2\n", &t, &err), ES_INVALID);
        ck_assert_has(err.where, "small.csv:2");
        ck_assert_status(
            parse(&c, sp, "key,valid,test\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,x,2\n", &t, &err),
            ES_INVALID);
        ck_assert_has(err.text, "column 2: \"x\" is no number");
        ck_assert_status(parse(&c, sp, "key,valid,test\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,3\n", &t, &err),
                         ES_INVALID);
        ck_assert_has(err.text, "column 3 is missing");
        ck_assert_status(parse(&c, sp,
                               "key,valid,test\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,3,2\n\n"
                               "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,3,2\n",
                               &t, &err),
                         ES_INVALID);
        ck_assert_str_eq(err.where, "small.csv:4");
        ck_assert_has(err.text, "the same architecture as in line 2");
        ck_assert_status(
            parse(&c, sp, "key,valid,test\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,9150,91\n", &t, &err),
            ES_INVALID);
        ck_assert_str_eq(err.where, "small.csv:2");
        ck_assert_has(err.text, "accuracies of 91.5 and 0.91: expected 0 to 1, or percent");
        ck_assert_ptr_null(t);
        sn_space_destroy(&sp);
    }
END_TEST

static void published(const char *space, const char *file, const char *key, const char *value, int64_t rows,
                      double best)
{
    sn_table_config c = {0};
    sn_space *sp = NULL;
    sn_table *t = NULL;
    es_error err = {0};
    double most = 0;
    snprintf(c.file, sizeof c.file, "%s", es_test_shared(file));
    ES_TEST_NEEDS(c.file);
    snprintf(c.key, sizeof c.key, "%s", key);
    snprintf(c.value, sizeof c.value, "%s", value);
    sp = space_load(space);
    ck_assert_ok_err(sn_table_open(&c, sp, &t, &err), &err);
    ck_assert_int_eq(sn_table_rows(t), rows);
    sr_arch *a = sr_arch_new(sn_space_choices(sp));
    for (uint64_t i = 0; sr_arch_nth(sn_space_choices(sp), i, a); i++) {
        double v;
        ck_assert_ok_err(sn_table_value(t, a, SN_VALIDATION_SPLIT, &v, &err),
                         &err); /* every architecture has its row */
        most = v > most ? v : most;
    }
    ck_assert_double_eq_tol(most, best, 1e-9);
    free(a);
    sn_table_close(&t);
    sn_space_destroy(&sp);
}

START_TEST(nas_bench_201)
    {
        published("nas-bench-201", "data/nas/nas_bench_201.csv", "arch", "cifar10_test", 15625, 0.943733);
    }
END_TEST

START_TEST(entangled_cell)
    {
        published("entangled-cell", "data/nas/entangled_cell_fashion_mnist.csv", "n0,n1,n2,r0,r1,r2", "test_acc", 4096,
                  0.9163);
    }
END_TEST

ES_TEST_MAIN("table", answers_by_architecture, refuses, nas_bench_201, entangled_cell)
