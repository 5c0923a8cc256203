#include "search/algorithm.h"

#include <math.h>

#include "tests/check_main.h"

enum { GENES = 8, OPTIONS = 4 };

static sr_space *grid(int genes)
{
    static const char *const labels[] = {"0", "1", "2", "3"};
    sr_space *sp = sr_space_new();
    for (int i = 0; i < genes; i++) {
        char name[16];
        snprintf(name, sizeof name, "g%d", i);
        sr_space_add(sp, name, labels, OPTIONS, -1, 0);
    }
    return sp;
}

/* A smooth objective with a known optimum (every gene 2) and a cost (sum of genes). */
static double score(const sr_arch *a)
{
    double s = 0;
    for (int i = 0; i < a->n; i++)
        s -= (a->gene[i] - 2.0) * (a->gene[i] - 2.0) * (1 + i % 3);
    return s;
}

static void cost(void *ctx, const sr_arch *a, double *out)
{
    (void)ctx;
    out[0] = 0;
    for (int i = 0; i < a->n; i++)
        out[0] += a->gene[i];
}

static sr_problem problem(const sr_space *sp, int64_t evaluations, int objectives)
{
    return (sr_problem){.space = sp,
                        .objectives = objectives,
                        .maximise = {true, false},
                        .names = {"score", "cost"},
                        .costs = cost,
                        .n_costs = 1,
                        .evaluations = evaluations};
}

/* Runs to the end, asking as far ahead as allowed up to `ahead`; returns the best score and writes the sequence's genes to `trace`. */
static double run(const char *name, const sr_problem *p, uint64_t seed, int ahead, uint8_t *trace, int64_t *evaluations)
{
    sr_options o = sr_options_default(name);
    sr_search *s = NULL;
    es_error err;
    double best = -INFINITY;
    sr_arch *a = sr_arch_new(p->space);
    o.population = 20;
    if (o.sample > 5)
        o.sample = 5;
    ck_assert_ok_err(sr_search_new(name, &o, p, seed, &s, &err), &err);
    for (;;) {
        int64_t ticket;
        while (sr_asked(s) - sr_told(s) < ahead && sr_lookahead(s) > 0 && sr_ask(s, &ticket, a, &err) == ES_OK)
            if (trace)
                memcpy(trace + ticket * a->n, a->gene, (size_t)a->n);
        if (sr_told(s) == sr_asked(s))
            break;
        const sr_arch *b = sr_asked_arch(s, sr_told(s));
        double values[2] = {score(b)};
        cost(NULL, b, values + 1);
        best = fmax(best, values[0]);
        sr_tell(s, sr_told(s), values, true);
    }
    *evaluations = sr_told(s);
    free(a);
    sr_search_destroy(&s);
    return best;
}

START_TEST(every_algorithm_repeats_itself)
    {
        sr_space *sp = grid(GENES);
        sr_problem p = problem(sp, 120, 2);
        for (const char *const *name = sr_algorithm_names(); *name; name++) {
            uint8_t x[120 * GENES], y[120 * GENES], z[120 * GENES];
            int64_t n;
            run(*name, &p, 7, 6, x, &n);
            ck_assert_int_eq(n, 120);
            run(*name, &p, 7, 6, y, &n);
            run(*name, &p, 8, 6, z, &n);
            ck_assert_mem_eq(x, y, sizeof x);
            ck_assert_mem_ne(x, z, sizeof x);
            for (int i = 0; i < 120; i++)
                for (int j = 0; j < i; j++)
                    ck_assert_mem_ne(x + i * GENES, x + j * GENES, GENES);
        }
        sr_space_destroy(&sp);
    }
END_TEST

/* Replaying the same tells brings a new search to the same next question: what a restarted coordinator does. */
START_TEST(replay_goes_on_where_it_was)
    {
        sr_space *sp = grid(GENES);
        sr_problem p = problem(sp, 200, 2);
        for (const char *const *name = sr_algorithm_names(); *name; name++) {
            sr_options o = sr_options_default(*name);
            sr_search *s[2];
            sr_arch *a[2] = {sr_arch_new(sp), sr_arch_new(sp)};
            o.population = 16;
            o.sample = 4 < o.sample ? 4 : o.sample;
            for (int k = 0; k < 2; k++) {
                ck_assert_ok(sr_search_new(*name, &o, &p, 3, &s[k], NULL));
                for (int64_t i = 0, t; i < 77; i++) {
                    ck_assert_ok(sr_ask(s[k], &t, a[k], NULL));
                    double v[2] = {score(a[k])};
                    cost(NULL, a[k], v + 1);
                    sr_tell(s[k], t, v, i % 9 != 4);
                }
            }
            int64_t t;
            ck_assert_ok(sr_ask(s[0], &t, a[0], NULL));
            ck_assert_ok(sr_ask(s[1], &t, a[1], NULL));
            ck_assert(sr_arch_equal(a[0], a[1]));
            for (int k = 0; k < 2; k++) {
                free(a[k]);
                sr_search_destroy(&s[k]);
            }
        }
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(guided_search_beats_random)
    {
        sr_space *sp = grid(GENES);
        sr_problem p = problem(sp, 300, 1);
        double mean[8] = {0};
        int k = 0, at_random = -1;
        for (const char *const *name = sr_algorithm_names(); *name; name++, k++) {
            int64_t n;
            if (strcmp(*name, "random") == 0)
                at_random = k;
            for (uint64_t seed = 0; seed < 10; seed++)
                mean[k] += run(*name, &p, seed, 8, NULL, &n) / 10;
        }
        for (int i = 0; i < k; i++)
            if (i != at_random)
                ck_assert_double_gt(mean[i], mean[at_random]);
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(known_constraints_are_met)
    {
        sr_space *sp = grid(GENES);
        sr_problem p = problem(sp, 60, 2);
        p.constraints = 1;
        p.constraint[0] = (sr_constraint){"cost", -INFINITY, 3, 0}; /* 165 of 65,536 architectures */
        for (const char *const *name = sr_algorithm_names(); *name; name++) {
            uint8_t trace[60 * GENES];
            int64_t n;
            run(*name, &p, 1, 8, trace, &n);
            ck_assert_int_eq(n, 60);
            for (int i = 0; i < 60; i++) {
                int sum = 0;
                for (int g = 0; g < GENES; g++)
                    sum += trace[i * GENES + g];
                ck_assert_int_le(sum, 3);
            }
        }
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(infeasible_is_said_not_looped_on)
    {
        sr_space *sp = grid(GENES);
        sr_problem p = problem(sp, 60, 2);
        p.constraints = 1;
        p.constraint[0] = (sr_constraint){"cost", 100, INFINITY, 0}; /* the largest has 24 */
        for (const char *const *name = sr_algorithm_names(); *name; name++) {
            sr_options o = sr_options_default(*name);
            sr_search *s;
            sr_arch *a = sr_arch_new(sp);
            int64_t t;
            es_error err;
            ck_assert_ok(sr_search_new(*name, &o, &p, 1, &s, NULL));
            ck_assert_status(sr_ask(s, &t, a, &err), ES_INFEASIBLE);
            ck_assert_has(err.text, "cost >= 100: the closest found has 24");
            free(a);
            sr_search_destroy(&s);
        }
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(small_space_ends_early)
    {
        sr_space *sp = grid(3);
        sr_problem p = problem(sp, 1000, 2);
        for (const char *const *name = sr_algorithm_names(); *name; name++) {
            int64_t n;
            run(*name, &p, 1, 8, NULL, &n);
            ck_assert_int_eq(n, 64);
        }
        p.constraints = 1;
        p.constraint[0] = (sr_constraint){"cost", -INFINITY, 2, 0}; /* 10 of 64 */
        for (const char *const *name = sr_algorithm_names(); *name; name++) {
            int64_t n;
            run(*name, &p, 1, 8, NULL, &n);
            ck_assert_int_eq(n, 10);
        }
        sr_space_destroy(&sp);
    }
END_TEST

START_TEST(bad_options_are_named)
    {
        sr_space *sp = grid(3);
        sr_problem p = problem(sp, 10, 1);
        sr_options o = sr_options_default("nsga2");
        sr_search *s = NULL;
        es_error err;
        ck_assert_status(sr_search_new("nsga3", &o, &p, 1, &s, &err), ES_INVALID);
        ck_assert_has(err.text, "\"nsga3\" is not an algorithm");
        o.population = 1;
        ck_assert_status(sr_search_new("nsga2", &o, &p, 1, &s, &err), ES_INVALID);
        ck_assert_str_eq(err.where, "search.population");
        o = sr_options_default("nsga2");
        o.mutation = 1.5;
        ck_assert_status(sr_search_new("nsga2", &o, &p, 1, &s, &err), ES_INVALID);
        ck_assert_str_eq(err.where, "search.mutation");
        ck_assert_ptr_null(s);
        sr_space_destroy(&sp);
    }
END_TEST

ES_TEST_MAIN("algorithm", every_algorithm_repeats_itself, replay_goes_on_where_it_was, guided_search_beats_random,
             known_constraints_are_met, infeasible_is_said_not_looped_on, small_space_ends_early, bad_options_are_named)
