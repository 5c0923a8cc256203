/* The map against a plain array: the same keys put, replaced, removed and walked in any order. */
#include "base/map.h"

#include "base/rng.h"
#include "tests/check_main.h"

START_TEST(says_what_an_array_says)
    {
        enum { KEYS = 200, STEPS = 20000 };
        static int values[KEYS * 2];
        int *want[KEYS] = {0};
        es_map m = {0};
        es_rng r = es_rng_make(7, ES_USE_SAMPLE_SUBNET, 0);
        for (int step = 0; step < STEPS; step++) {
            int at = (int)es_rng_below(&r, KEYS);
            /* Neighbours and multiples of a power of two: what a weak hash would pile up. */
            uint64_t key = at % 2 ? (uint64_t)at + 1 : ((uint64_t)at + 1) << 40;
            if (es_rng_below(&r, 3) == 0) {
                es_map_remove(&m, key);
                want[at] = NULL;
            } else {
                want[at] = &values[es_rng_below(&r, KEYS * 2)];
                es_map_put(&m, key, want[at]);
            }
            ck_assert_ptr_eq(es_map_get(&m, key), want[at]);
        }
        size_t live = 0, walked = 0;
        for (int at = 0; at < KEYS; at++) {
            uint64_t key = at % 2 ? (uint64_t)at + 1 : ((uint64_t)at + 1) << 40;
            ck_assert_ptr_eq(es_map_get(&m, key), want[at]);
            live += want[at] != NULL;
        }
        for (size_t i = 0; es_map_next(&m, &i);)
            walked++;
        ck_assert_uint_eq(walked, live);
        ck_assert_uint_eq(m.live, live);
        es_map_free(&m);
    }
END_TEST

START_TEST(stays_as_small_as_what_lives)
    {
        es_map m = {0};
        int value;
        for (uint64_t key = 1; key <= 100000; key++) { /* never more than ten at once */
            es_map_put(&m, key, &value);
            if (key > 10)
                es_map_remove(&m, key - 10);
        }
        ck_assert_uint_eq(m.live, 10);
        ck_assert_uint_le(m.cap, 256);
        es_map_free(&m);
    }
END_TEST

START_TEST(the_current_key_may_go_while_walking)
    {
        es_map m = {0};
        int values[50];
        for (uint64_t key = 1; key <= 50; key++)
            es_map_put(&m, key, &values[key - 1]);
        int *p, seen = 0;
        for (size_t i = 0; (p = es_map_next(&m, &i)) != NULL; seen++)
            es_map_remove(&m, (uint64_t)(p - values) + 1);
        ck_assert_int_eq(seen, 50);
        ck_assert_uint_eq(m.live, 0);
        ck_assert_ptr_null(es_map_get(&m, 7));
        es_map_free(&m);
    }
END_TEST

ES_TEST_MAIN("base/map", says_what_an_array_says, stays_as_small_as_what_lives, the_current_key_may_go_while_walking)
