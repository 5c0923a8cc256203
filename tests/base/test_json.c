#include "base/json.h"

#include <jansson.h>
#include <math.h>

#include "tests/check_main.h"

START_TEST(one_line)
    {
        es_json j;
        es_json_begin(&j, 0);
        es_json_object(&j, NULL);
        es_json_i64(&j, "n", -3);
        es_json_array(&j, "l");
        es_json_f64(&j, NULL, 0.1);
        es_json_f64(&j, NULL, NAN);
        es_json_f64(&j, NULL, -INFINITY);
        es_json_bool(&j, NULL, true);
        es_json_str(&j, NULL, NULL);
        es_json_end(&j);
        es_json_object(&j, "empty");
        es_json_end(&j);
        es_json_raw(&j, "raw", "{\"x\": 1}");
        es_json_end(&j);
        char *s = es_json_finish(&j);
        ck_assert_str_eq(s, "{\"n\": -3, \"l\": [0.1, null, null, true, null], \"empty\": {}, \"raw\": {\"x\": 1}}");
        free(s);
    }
END_TEST

START_TEST(indented)
    {
        es_json j;
        es_json_begin(&j, 2);
        es_json_array(&j, NULL);
        es_json_object(&j, NULL);
        es_json_str(&j, "a", "b");
        es_json_i64(&j, "c", INT64_MIN);
        es_json_end(&j);
        es_json_end(&j);
        char *s = es_json_finish(&j);
        ck_assert_str_eq(s, "[\n  {\n    \"a\": \"b\",\n    \"c\": -9223372036854775808\n  }\n]\n");
        free(s);
    }
END_TEST

/* Every byte in every position reads back with an independent reader; invalid UTF-8 becomes U+FFFD. */
START_TEST(any_text_is_valid_json)
    {
        static const char *const texts[] = {"plain",
                                            "quote \" back \\ tab \t new \n",
                                            "\x01\x1f\x7f",
                                            "ä€𝄞",
                                            "\xff\xfe",
                                            "\xc3",
                                            "a\xe2\x82",
                                            "\xed\xa0\x80",
                                            "\xf4\x90\x80\x80",
                                            "\xc0\xaf"};
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            es_json j;
            es_json_begin(&j, 0);
            es_json_object(&j, NULL);
            es_json_str(&j, "t", texts[i]);
            es_json_end(&j);
            char *s = es_json_finish(&j);
            json_error_t e;
            json_t *doc = json_loads(s, 0, &e);
            ck_assert_msg(doc != NULL, "%s: %s", s, e.text);
            const char *back = json_string_value(json_object_get(doc, "t"));
            if (i < 4)
                ck_assert_str_eq(back, texts[i]);
            else
                ck_assert_has(back, "\xef\xbf\xbd");
            json_decref(doc);
            free(s);
        }
    }
END_TEST

static void key_in_array(void *ctx)
{
    es_json *j = ctx;
    es_json_array(j, NULL);
    es_json_i64(j, "key", 1);
}

static void no_key_in_object(void *ctx)
{
    es_json *j = ctx;
    es_json_object(j, NULL);
    es_json_i64(j, NULL, 1);
}

static void unfinished(void *ctx)
{
    es_json *j = ctx;
    es_json_object(j, NULL);
    free(es_json_finish(j));
}

static void two_values(void *ctx)
{
    es_json *j = ctx;
    es_json_i64(j, NULL, 1);
    es_json_i64(j, NULL, 2);
}

static void too_deep(void *ctx)
{
    es_json *j = ctx;
    for (int i = 0; i < ES_JSON_DEPTH; i++)
        es_json_array(j, NULL);
}

static void over_closed(void *ctx) { es_json_end(ctx); }

START_TEST(wrong_nesting_is_an_assertion)
    {
        static void (*const wrong[])(void *) = {key_in_array, no_key_in_object, unfinished,
                                                two_values,   too_deep,         over_closed};
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            es_json j;
            es_json_begin(&j, 0);
            ck_assert_msg(es_test_aborts(wrong[i], &j), "case %zu", i);
            es_json_free(&j);
        }
    }
END_TEST

ES_TEST_MAIN("base/json", one_line, indented, any_text_is_valid_json, wrong_nesting_is_an_assertion)
