#include "client/progress.h"
#include "client/results.h"
#include "client/table.h"
#include "tests/check_main.h"

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(j);
    return j;
}

START_TEST(progress_line)
    {
        char line[512];
        json_t *j = parse(
            "{\"name\": \"a\", \"state\": \"running\", \"phase\": \"training\", \"progress\": {\"training\": "
            "{\"step\": 50, \"steps\": 200, \"epochs\": 20,"
            "\"loss\": 0.5, \"images_per_s\": 1234}, \"evaluations\": {\"done\": 3, \"total\": 10}, \"left_s\": 75}}");
        cl_progress_line(j, 5, line, sizeof line);
        ck_assert_str_eq(
            line, "a: training  epoch 5.0/20  loss 0.500  1234 images/s  evaluations 3/10  5 s, left 1 min 15 s");
        json_decref(j);
        j = parse("{\"name\": \"a\", \"state\": \"paused\", \"phase\": \"training\", \"progress\": null}");
        cl_progress_line(j, 5, line, sizeof line);
        ck_assert_str_eq(line, "a: paused  5 s");
        json_decref(j);
    }
END_TEST

START_TEST(front_as_csv)
    {
        json_t *j = parse("[{\"architecture\": \"a,b\\\"c\", \"accuracy\": 0.5, \"test_accuracy\": null, \"params\": "
                          "1000000, \"macs\": 2}]");
        es_str s = ES_STR_INIT;
        cl_front_csv(j, &s);
        ck_assert_str_eq(s.p, "architecture,accuracy,test_accuracy,params,macs,latency_ms,activation_bytes\n\"a,"
                              "b\"\"c\",0.5,,1000000,2,,\n");
        es_str_free(&s);
        json_decref(j);
    }
END_TEST

START_TEST(tables_align)
    {
        char text[256] = {0}, n[32];
        FILE *f = fmemopen(text, sizeof text, "w");
        cl_table t;
        cl_table_begin(&t, "name", "n>", "end", NULL);
        cl_table_cell(&t, "%s", "a");
        cl_table_cell(&t, "%d", 100);
        cl_table_cell(&t, "%s", "x");
        cl_table_end(&t, f);
        fclose(f);
        ck_assert_str_eq(text, "name    n  end\na     100  x\n");
        ck_assert_str_eq(cl_count(999, n), "999");
        ck_assert_str_eq(cl_count(12345, n), "12.3k");
        ck_assert_str_eq(cl_count(1234567, n), "1.23M");
        ck_assert_str_eq(cl_duration(59.4, n), "59 s");
        ck_assert_str_eq(cl_duration(3600, n), "1 h 00 min");
    }
END_TEST

ES_TEST_MAIN("views", progress_line, front_as_csv, tables_align)
