#include "search/pareto.h"

#include <math.h>

#include "base/rng.h"
#include "tests/check_main.h"

START_TEST(dominance)
    {
        ck_assert(sr_dominates((double[]){1, 2}, (double[]){1, 3}, 2));
        ck_assert(!sr_dominates((double[]){1, 2}, (double[]){1, 2}, 2));
        ck_assert(!sr_dominates((double[]){1, 3}, (double[]){2, 2}, 2));
        ck_assert(!sr_dominates((double[]){NAN, 0}, (double[]){9, 9}, 2));
        ck_assert(sr_dominates((double[]){9, 9}, (double[]){NAN, 0}, 2));
    }
END_TEST

/* The fast 2-D front against the definition, on coarse random points so that ties and duplicates are common. */
START_TEST(front_matches_definition)
    {
        es_rng r = es_rng_make(4, ES_USE_TEST, 0);
        for (int round = 0; round < 200; round++) {
            double v[60 * 3];
            int members[60], rank[60];
            int n = 1 + (int)es_rng_below(&r, 60), m = 2 + round % 2;
            for (int i = 0; i < n * m; i++)
                v[i] = es_rng_below(&r, 8);
            int count = sr_pareto(v, n, m, members);
            sr_rank_fronts(v, NULL, n, m, rank);
            for (int i = 0; i < n; i++) {
                bool dominated = false, listed = false;
                for (int j = 0; j < n; j++)
                    dominated |= sr_dominates(v + j * m, v + i * m, m);
                for (int k = 0; k < count; k++)
                    listed |= members[k] == i;
                ck_assert(listed == !dominated);
                ck_assert((rank[i] == 0) == !dominated);
            }
            for (int k = 1; k < count; k++)
                ck_assert_int_lt(members[k - 1], members[k]);
        }
    }
END_TEST

START_TEST(constraint_domination)
    {
        const double v[] = {1, 1, 5, 5, 0, 0, 0, 0};
        const double violation[] = {0, 0, 0.5, 2};
        int rank[4];
        sr_rank_fronts(v, violation, 4, 2, rank);
        for (int i = 0; i < 4; i++)
            ck_assert_int_eq(rank[i], i);
    }
END_TEST

START_TEST(crowding_ends_are_infinite)
    {
        const double v[] = {0, 4, 1, 2, 2, 1.5, 4, 0};
        const int members[] = {0, 1, 2, 3};
        double d[4];
        sr_crowding(v, members, 4, 2, d);
        ck_assert(isinf(d[0]) && isinf(d[3]));
        ck_assert_double_eq_tol(d[1], 2.0 / 4 + 2.5 / 4, 1e-12);
        ck_assert_double_eq_tol(d[2], 3.0 / 4 + 2.0 / 4, 1e-12);
    }
END_TEST

/* Against the share of random points dominated (Monte Carlo) and a hand-made case. */
START_TEST(hypervolume)
    {
        const double v[] = {1, 3, 2, 2, 3, 1}, reference[] = {4, 4, 4};
        ck_assert_double_eq_tol(sr_hypervolume(v, 3, 2, reference), 6, 1e-12);
        const double beyond[] = {5, 0, 2, 2};
        ck_assert_double_eq_tol(sr_hypervolume(beyond, 2, 2, reference), 4, 1e-12);

        es_rng r = es_rng_make(5, ES_USE_TEST, 0);
        double p[10 * 3];
        for (int i = 0; i < 30; i++)
            p[i] = es_rng_uniform_f64(&r);
        const double one[] = {1, 1, 1};
        int hits = 0, draws = 200000;
        for (int i = 0; i < draws; i++) {
            double x[3] = {es_rng_uniform_f64(&r), es_rng_uniform_f64(&r), es_rng_uniform_f64(&r)};
            bool hit = false;
            for (int j = 0; j < 10; j++)
                hit |= p[3 * j] <= x[0] && p[3 * j + 1] <= x[1] && p[3 * j + 2] <= x[2];
            hits += hit;
        }
        ck_assert_double_eq_tol(sr_hypervolume(p, 10, 3, one), (double)hits / draws, 0.005);
    }
END_TEST

ES_TEST_MAIN("pareto", dominance, front_matches_definition, constraint_domination, crowding_ends_are_infinite,
             hypervolume)
