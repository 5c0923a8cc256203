#include "base/str.h"

#include <math.h>

#include "base/rng.h"
#include "tests/check_main.h"

START_TEST(grows_and_is_always_terminated)
    {
        es_str s = ES_STR_INIT;
        ck_assert_str_eq(s.p, "");
        es_str_clear(&s);
        for (int i = 0; i < 1000; i++)
            es_str_addf(&s, "%d,", i % 10);
        ck_assert_uint_eq(s.len, 2000);
        ck_assert_uint_eq(strlen(s.p), 2000);
        es_str_clear(&s);
        es_str_add(&s, "ab");
        es_str_addn(&s, "cdef", 2);
        ck_assert_str_eq(s.p, "abcd");
        char *p = es_str_take(&s);
        ck_assert_str_eq(p, "abcd");
        ck_assert_str_eq(s.p, "");
        free(p);
        p = es_str_take(&s);
        ck_assert_str_eq(p, "");
        free(p);
        es_str_free(&s);
        es_str_free(&s);
    }
END_TEST

START_TEST(closest_word)
    {
        static const char *const names[] = {"width", "depth", "kernel", "expand", "stride", "lr", NULL};
        ck_assert_str_eq(es_str_closest("widht", names), "width");
        ck_assert_str_eq(es_str_closest("kernal", names), "kernel");
        ck_assert_str_eq(es_str_closest("Strides", names), "stride");
        ck_assert_str_eq(es_str_closest("expansion", (const char *const[]){"expand", "expansions", NULL}),
                         "expansions");
        ck_assert_ptr_null(es_str_closest("banana", names));
        ck_assert_ptr_null(es_str_closest("x", names));
        ck_assert_ptr_null(es_str_closest("", names));
        ck_assert_ptr_null(es_str_closest("width", (const char *const[]){NULL}));
        char endless[300];
        memset(endless, 'a', sizeof endless - 1);
        endless[sizeof endless - 1] = '\0';
        ck_assert_ptr_null(es_str_closest(endless, names));
    }
END_TEST

START_TEST(shortest_doubles)
    {
        static const struct {
            double v;
            const char *text;
        } known[] = {{0.1, "0.1"},
                     {1e-5, "1e-05"},
                     {3, "3"},
                     {1.0 / 3, "0.3333333333333333"},
                     {0.1 + 0.2, "0.30000000000000004"},
                     {-0.0, "-0"},
                     {1e300, "1e+300"},
                     {5e-324, "5e-324"},
                     {123456789, "123456789"}};
        char buf[32];
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            ck_assert_str_eq(es_str_double(known[i].v, buf), known[i].text);
        es_rng r = es_rng_make(1, ES_USE_TEST, 0);
        for (int i = 0; i < 20000; i++) {
            uint64_t bits = es_rng_u64(&r);
            double v;
            memcpy(&v, &bits, sizeof v);
            if (!isfinite(v))
                continue;
            ck_assert(strtod(es_str_double(v, buf), NULL) == v);
        }
    }
END_TEST

START_TEST(strict_integers)
    {
        int64_t v = -1;
        ck_assert(es_str_to_i64("42", false, &v) && v == 42);
        ck_assert(es_str_to_i64("-7", false, &v) && v == -7);
        ck_assert(es_str_to_i64("500k", true, &v) && v == 500000);
        ck_assert(es_str_to_i64("2M", true, &v) && v == 2000000);
        ck_assert(es_str_to_i64("1.5M", true, &v) && v == 1500000);
        ck_assert(es_str_to_i64("1.5G", true, &v) && v == 1500000000);
        ck_assert(es_str_to_i64("9223372036854775807", false, &v) && v == INT64_MAX);
        v = 5;
        static const char *const bad[] = {"",    " 1",         "1 ",   "0x10",
                                          "1e3", "abc",        "k",    "9223372036854775808",
                                          "-",   "1.2",        "1.23", "99999999999999999G",
                                          "1kk", "1.0000001k", "+-1",  NULL};
        for (const char *const *b = bad; *b; b++)
            ck_assert_msg(!es_str_to_i64(*b, true, &v) && v == 5, "%s", *b);
        ck_assert(!es_str_to_i64("5k", false, &v));
    }
END_TEST

START_TEST(strict_doubles)
    {
        double v = 0;
        ck_assert(es_str_to_double("0.25", false, &v) && v == 0.25);
        ck_assert(es_str_to_double("-1e-3", false, &v) && v == -1e-3);
        ck_assert(es_str_to_double(".5", false, &v) && v == 0.5);
        ck_assert(es_str_to_double("1.5k", true, &v) && v == 1500);
        static const char *const bad[] = {"",   "nan", "inf", "0x1p3", "1e999",  " 1",
                                          "1 ", "1,5", "k",   "--1",   "1e308G", NULL};
        for (const char *const *b = bad; *b; b++)
            ck_assert_msg(!es_str_to_double(*b, true, &v), "%s", *b);
        ck_assert(!es_str_to_double("5k", false, &v));
    }
END_TEST

ES_TEST_MAIN("base/str", grows_and_is_always_terminated, closest_word, shortest_doubles, strict_integers,
             strict_doubles)
