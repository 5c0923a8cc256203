#include "search/space.h"

#include <math.h>

#include "tests/check_main.h"

static const char *const depths[] = {"1", "2", "3"}, *const kernels[] = {"3", "5"}, *const widths[] = {"16", "24"};

/* depth in {1, 2, 3}; a kernel per layer, present when the depth reaches it; a width. 2 * (2 + 4 + 8) = 28 architectures. */
static sr_space *small(void)
{
    sr_space *sp = sr_space_new();
    int depth = sr_space_add(sp, "depth", depths, 3, -1, 0);
    sr_space_add(sp, "k0", kernels, 2, depth, 7);
    sr_space_add(sp, "k1", kernels, 2, depth, 6);
    sr_space_add(sp, "k2", kernels, 2, depth, 4);
    sr_space_add(sp, "width", widths, 2, -1, 0);
    return sp;
}

START_TEST(counts_and_enumerates)
    {
        sr_space *sp = small();
        uint64_t n = 0;
        sr_arch *a = sr_arch_new(sp), *c = sr_arch_new(sp);
        ck_assert(sr_space_count(sp, &n));
        ck_assert_uint_eq(n, 28);
        ck_assert_double_eq_tol(sr_space_log10_size(sp), log10(28), 1e-9);
        char *seen[28];
        for (uint64_t i = 0; i < 28; i++) {
            ck_assert(sr_arch_nth(sp, i, a));
            sr_arch_copy(c, a);
            sr_arch_canonicalise(sp, c);
            ck_assert(sr_arch_equal(a, c));
            seen[i] = sr_arch_text(sp, a);
            for (uint64_t j = 0; j < i; j++)
                ck_assert_str_ne(seen[i], seen[j]);
        }
        ck_assert(!sr_arch_nth(sp, 28, a));
        for (int i = 0; i < 28; i++)
            free(seen[i]);
        free(a);
        free(c);
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(random_is_canonical_and_covers)
    {
        sr_space *sp = small();
        sr_arch *a = sr_arch_new(sp), *b = sr_arch_new(sp);
        es_rng r = es_rng_make(1, ES_USE_TEST, 0);
        int by_depth[3] = {0};
        for (int i = 0; i < 3000; i++) {
            sr_arch_random(sp, &r, a);
            sr_arch_copy(b, a);
            sr_arch_canonicalise(sp, b);
            ck_assert(sr_arch_equal(a, b));
            by_depth[a->gene[0]]++;
        }
        for (int d = 0; d < 3; d++) /* mean 1000, sd 26 */
            ck_assert_int_lt(abs(by_depth[d] - 1000), 130);
        free(a);
        free(b);
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(text_round_trip)
    {
        sr_space *sp = small();
        sr_arch *a = sr_arch_new(sp), *b = sr_arch_new(sp);
        for (uint64_t i = 0; i < 28; i++) {
            es_error err;
            sr_arch_nth(sp, i, a);
            char *text = sr_arch_text(sp, a);
            ck_assert_ok_err(sr_arch_parse(sp, text, b, &err), &err);
            ck_assert(sr_arch_equal(a, b));
            free(text);
        }
        free(a);
        free(b);
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(parse_says_what_is_wrong)
    {
        static const struct {
            const char *text, *message;
        } cases[] = {
            {"depth=4;k0=3;width=16", "has no option \"4\"; its options are 1, 2, 3"},
            {"dept=1;k0=3;width=16", "no choice \"dept\""},
            {"depth=1;k0=3", "\"width\" is missing"},
            {"depth=1;k0=3;k1=3;width=16", "\"k1\" is not present under depth=1"},
            {"depth=1;depth=1;k0=3;width=16", "\"depth\" stands twice"},
            {"depth", "not of the form choice=option"},
        };
        sr_space *sp = small();
        sr_arch *a = sr_arch_new(sp);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            es_error err;
            ck_assert_status(sr_arch_parse(sp, cases[i].text, a, &err), ES_INVALID);
            ck_assert_has(err.text, cases[i].message);
        }
        free(a);
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(mutation_changes_and_stays_inside)
    {
        sr_space *sp = small();
        sr_arch *a = sr_arch_new(sp), *b = sr_arch_new(sp), *c = sr_arch_new(sp);
        es_rng r = es_rng_make(2, ES_USE_TEST, 0);
        for (int i = 0; i < 5000; i++) {
            sr_arch_random(sp, &r, a);
            sr_arch_mutate(sp, &r, i % 2 ? 0.3 : 0.0, a, b);
            ck_assert(!sr_arch_equal(a, b));
            sr_arch_copy(c, b);
            sr_arch_canonicalise(sp, c);
            ck_assert(sr_arch_equal(b, c));
            for (int g = 0; g < b->n; g++)
                ck_assert_int_lt(b->gene[g], sr_space_choice(sp, g)->options);
        }
        free(a);
        free(b);
        free(c);
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(crossover_takes_from_parents)
    {
        sr_space *sp = small();
        sr_arch *a = sr_arch_new(sp), *b = sr_arch_new(sp), *c = sr_arch_new(sp);
        es_rng r = es_rng_make(3, ES_USE_TEST, 0);
        for (int i = 0; i < 2000; i++) {
            sr_arch_random(sp, &r, a);
            sr_arch_random(sp, &r, b);
            sr_arch_crossover(sp, &r, a, b, c);
            for (int g = 0; g < c->n; g++)
                if (sr_arch_active(sp, c, g))
                    ck_assert((sr_arch_active(sp, a, g) && c->gene[g] == a->gene[g]) ||
                              (sr_arch_active(sp, b, g) && c->gene[g] == b->gene[g]));
                else
                    ck_assert_int_eq(c->gene[g], 0);
        }
        free(a);
        free(b);
        free(c);
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(extremes_and_ids)
    {
        sr_space *sp = small();
        sr_arch *a = sr_arch_new(sp), *b = sr_arch_new(sp);
        es_id x, y;
        sr_arch_smallest(sp, a);
        sr_arch_largest(sp, b);
        char *ta = sr_arch_text(sp, a), *tb = sr_arch_text(sp, b);
        ck_assert_str_eq(ta, "depth=1;k0=3;width=16");
        ck_assert_str_eq(tb, "depth=3;k0=5;k1=5;k2=5;width=24");
        sr_arch_id(sp, a, &x);
        sr_arch_id(sp, b, &y);
        ck_assert(!es_id_equal(&x, &y));
        free(ta);
        free(tb);
        free(a);
        free(b);
        sr_space_destroy(&sp);
    }
END_TEST

ES_TEST_MAIN("space", counts_and_enumerates, random_is_canonical_and_covers, text_round_trip, parse_says_what_is_wrong,
             mutation_changes_and_stays_inside, crossover_takes_from_parents, extremes_and_ids)
