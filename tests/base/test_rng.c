#include "base/rng.h"

#include <math.h>

#include "tests/check_main.h"

/* Known answers of Philox4x32-10 published with Random123 (kat_vectors): counter, key, output. The use is word 1's top byte. */
START_TEST(known_answers)
    {
        uint32_t v[4];
        es_philox(0, ES_USE_TEST, 0, 0, v);
        ck_assert_uint_eq(v[0], 0x6627e8d5);
        ck_assert_uint_eq(v[1], 0xe169c58d);
        ck_assert_uint_eq(v[2], 0xbc57ac4c);
        ck_assert_uint_eq(v[3], 0x9b00dbd8);
        es_philox(UINT64_MAX, ES_USE_TEST, UINT64_MAX, UINT64_MAX, v);
        ck_assert_uint_eq(v[0], 0x408f276d);
        ck_assert_uint_eq(v[1], 0x41c83b0e);
        ck_assert_uint_eq(v[2], 0xa20bc7c6);
        ck_assert_uint_eq(v[3], 0x6d5451fd);
        /* counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0: digits of pi */
        es_philox(0x299f31d0a4093822, ES_USE_TEST, 0x0370734413198a2e, 0x85a308d3243f6a88, v);
        ck_assert_uint_eq(v[0], 0xd16cfe09);
        ck_assert_uint_eq(v[1], 0x94fdcceb);
        ck_assert_uint_eq(v[2], 0x5001e420);
        ck_assert_uint_eq(v[3], 0x24126ea1);
    }
END_TEST

START_TEST(uses_steps_and_seeds_do_not_meet)
    {
        uint32_t a[4], b[4], c[4], d[4];
        es_philox(1, ES_USE_INIT, 5, 9, a);
        es_philox(1, ES_USE_SHUFFLE, 5, 9, b);
        es_philox(1, ES_USE_INIT, 6, 9, c);
        es_philox(2, ES_USE_INIT, 5, 9, d);
        ck_assert_int_ne(memcmp(a, b, sizeof a), 0);
        ck_assert_int_ne(memcmp(a, c, sizeof a), 0);
        ck_assert_int_ne(memcmp(a, d, sizeof a), 0);
    }
END_TEST

START_TEST(a_stream_is_its_struct)
    {
        es_rng r = es_rng_make(42, ES_USE_SEARCH, 3);
        for (int i = 0; i < 7; i++)
            es_rng_u32(&r);
        es_rng copy = r;
        for (int i = 0; i < 100; i++)
            ck_assert_uint_eq(es_rng_u32(&r), es_rng_u32(&copy));
        /* and is the random-access blocks in order */
        es_rng s = es_rng_make(42, ES_USE_SEARCH, 3);
        for (uint64_t block = 0; block < 10; block++) {
            uint32_t v[4];
            es_philox(42, ES_USE_SEARCH, 3, block, v);
            for (int k = 0; k < 4; k++)
                ck_assert_uint_eq(es_rng_u32(&s), v[k]);
        }
    }
END_TEST

START_TEST(below_is_flat)
    {
        enum { N = 7, DRAWS = 70000 };
        int count[N] = {0};
        es_rng r = es_rng_make(1, ES_USE_TEST, 0);
        for (int i = 0; i < DRAWS; i++)
            count[es_rng_below(&r, N)]++;
        double chi2 = 0;
        for (int i = 0; i < N; i++)
            chi2 += pow(count[i] - DRAWS / N, 2) / (DRAWS / N);
        ck_assert_msg(chi2 < 22.5, "chi2 %g, 6 degrees of freedom, p = 0.001", chi2);
        ck_assert_uint_eq(es_rng_below(&r, 1), 0);
        /* just above half the range: a biased modulo would favour small numbers two to one */
        int small = 0;
        for (int i = 0; i < 30000; i++)
            small += es_rng_below(&r, 0xC0000000u) < 0x60000000u;
        ck_assert_int_gt(small, 14500);
        ck_assert_int_lt(small, 15500);
    }
END_TEST

START_TEST(moments)
    {
        enum { N = 200000 };
        es_rng r = es_rng_make(9, ES_USE_TEST, 1);
        double mu = 0, sq = 0, mn = 0, vn = 0, quart = 0;
        for (int i = 0; i < N; i++) {
            float u = es_rng_uniform(&r);
            ck_assert(u >= 0.0f && u < 1.0f);
            double f = es_rng_uniform_f64(&r);
            ck_assert(f >= 0.0 && f < 1.0);
            mu += (u + f) / 2;
            sq += (double)u * u;
            double z = es_rng_normal(&r);
            mn += z;
            vn += z * z;
            quart += z * z * z * z;
        }
        ck_assert_double_eq_tol(mu / N, 0.5, 0.003);
        ck_assert_double_eq_tol(sq / N, 1.0 / 3, 0.004);
        ck_assert_double_eq_tol(mn / N, 0, 0.01);
        ck_assert_double_eq_tol(vn / N, 1, 0.02);
        ck_assert_double_eq_tol(quart / N, 3, 0.15);
    }
END_TEST

START_TEST(shuffle_permutes_evenly)
    {
        int first[5] = {0};
        es_rng r = es_rng_make(3, ES_USE_SHUFFLE, 0);
        for (int round = 0; round < 10000; round++) {
            uint32_t v[5] = {0, 1, 2, 3, 4}, seen = 0;
            es_rng_shuffle(&r, v, 5);
            for (int i = 0; i < 5; i++)
                seen |= 1u << v[i];
            ck_assert_uint_eq(seen, 31);
            first[v[0]]++;
        }
        for (int i = 0; i < 5; i++)
            ck_assert_int_lt(abs(first[i] - 2000), 200);
        es_rng_shuffle(&r, NULL, 0);
    }
END_TEST

START_TEST(derived_seeds)
    {
        uint64_t a = es_seed_derive(7, "search"), b = es_seed_derive(7, "module 1"), c = es_seed_derive(8, "search");
        ck_assert(a != b && a != c && b != c && a != 7);
        ck_assert(a == es_seed_derive(7, "search"));
    }
END_TEST

ES_TEST_MAIN("base/rng", known_answers, uses_steps_and_seeds_do_not_meet, a_stream_is_its_struct, below_is_flat,
             moments, shuffle_permutes_evenly, derived_seeds)
