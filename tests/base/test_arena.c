#include "base/arena.h"

#include "tests/check_main.h"

START_TEST(zeroed_aligned_and_apart)
    {
        es_arena *a = es_arena_new(1024);
        unsigned char *last = NULL;
        for (size_t i = 1; i < 500; i++) {
            unsigned char *p = es_arena_alloc(a, i);
            ck_assert_uint_eq((uintptr_t)p % 16, 0);
            for (size_t k = 0; k < i; k++)
                ck_assert_uint_eq(p[k], 0);
            memset(p, 0xff, i);
            if (last)
                ck_assert_uint_eq(last[0], 0xff);
            last = p;
        }
        es_arena_destroy(&a);
        ck_assert_ptr_null(a);
        es_arena_destroy(&a);
    }
END_TEST

static void build(es_arena *a)
{
    for (size_t i = 0; i < 300; i++) {
        unsigned char *p = es_arena_alloc(a, 1 + i * 37 % 3000); /* some larger than a block */
        ck_assert_uint_eq(p[0], 0);
        p[0] = 1;
    }
}

START_TEST(reset_keeps_the_blocks)
    {
        es_arena *a = es_arena_new(1024);
        build(a);
        size_t held = es_arena_bytes(a);
        ck_assert_uint_ge(held, 300u * 1500u);
        for (int round = 0; round < 10; round++) {
            es_arena_reset(a);
            build(a);
            ck_assert_uint_eq(es_arena_bytes(a), held);
        }
        es_arena_destroy(&a);
    }
END_TEST

START_TEST(a_different_shape_after_reset_does_not_leak_blocks)
    {
        es_arena *a = es_arena_new(256);
        for (int round = 0; round < 200; round++) {
            es_arena_reset(a);
            for (int i = 0; i < 20; i++)
                memset(es_arena_alloc(a, (size_t)(1 + (round * 131 + i * 57) % 900)), 1, 1);
        }
        ck_assert_uint_lt(es_arena_bytes(a), 200u * 1024u);
        es_arena_destroy(&a);
    }
END_TEST

START_TEST(strings)
    {
        es_arena *a = es_arena_new(0);
        char *s = es_arena_strdup(a, "espalier"), *t = es_arena_printf(a, "%d/%s", 7, "x");
        ck_assert_str_eq(s, "espalier");
        ck_assert_str_eq(t, "7/x");
        ck_assert_str_eq(es_arena_printf(a, "%s", ""), "");
        es_arena_destroy(&a);
        char *d = es_xstrdup("");
        ck_assert_str_eq(d, "");
        d = es_xrealloc(d, 100);
        memset(d, 'x', 100);
        free(d);
        int *z = es_xcalloc(0, 4);
        ck_assert_ptr_nonnull(z);
        free(z);
    }
END_TEST

static void too_much(void *ctx)
{
    es_arena *a = ctx;
    es_arena_alloc(a, SIZE_MAX - 3);
}

START_TEST(running_out_ends_the_process)
    {
        es_arena *a = es_arena_new(256);
        ck_assert(es_test_aborts(too_much, a));
        es_arena_destroy(&a);
    }
END_TEST

ES_TEST_MAIN("base/arena", zeroed_aligned_and_apart, reset_keeps_the_blocks,
             a_different_shape_after_reset_does_not_leak_blocks, strings, running_out_ends_the_process)
