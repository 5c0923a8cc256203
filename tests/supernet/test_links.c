/* The table of link plans: what was asked for is found again, and when it is full the one not asked for the longest makes room. */
#include "supernet/train/links.h"

#include <string.h>

#include "tests/check_main.h"

static sn_link_key key(int i)
{
    sn_link_key k = {.batch = 32};
    es_hash_bytes(&i, sizeof i, &k.unit);
    return k;
}

static bool ask(sn_link_plans *p, sn_link_key k)
{
    sn_link_plan *e = sn_link_plans_at(p, &k);
    bool made = e->made;
    ck_assert_mem_eq(&e->key, &k, sizeof k);
    e->made = true;
    return made;
}

START_TEST(found_again)
    {
        sn_link_plans *p = sn_link_plans_new();
        for (int i = 0; i < 100; i++)
            ck_assert(!ask(p, key(i)));
        for (int i = 99; i >= 0; i--)
            ck_assert(ask(p, key(i)));
        ck_assert_int_eq(sn_link_plans_count(p), 100);
        sn_link_plans_destroy(&p);
        sn_link_plans_destroy(&p);
    }
END_TEST

START_TEST(all_of_the_key_counts)
    {
        sn_link_plans *p = sn_link_plans_new();
        sn_link_key other[6];
        ck_assert(!ask(p, key(1)));
        for (int i = 0; i < 6; i++)
            other[i] = key(1);
        other[0].batch = 31;
        other[1].calibrates = 1;
        other[2].first = 1;
        other[3].last = 1;
        other[4].precision = 1;
        other[5] = key(2);
        for (int i = 0; i < 6; i++)
            ck_assert(!ask(p, other[i]));
        for (int i = 0; i < 6; i++)
            ck_assert(ask(p, other[i]));
        sn_link_plans_destroy(&p);
    }
END_TEST

START_TEST(the_oldest_makes_room)
    {
        enum { MORE = 100 };
        sn_link_plans *p = sn_link_plans_new();
        for (int i = 0; i < SN_LINK_PLANS_MAX; i++)
            ck_assert(!ask(p, key(i)));
        ck_assert(ask(p, key(0))); /* is younger than 1 now */
        for (int i = 0; i < MORE; i++)
            ck_assert(!ask(p, key(SN_LINK_PLANS_MAX + i)));
        ck_assert_int_eq(sn_link_plans_count(p), SN_LINK_PLANS_MAX);
        ck_assert(ask(p, key(0)));
        for (int i = MORE + 1; i < SN_LINK_PLANS_MAX + MORE; i++)
            ck_assert(ask(p, key(i)));
        ck_assert(!ask(p, key(1)));
        sn_link_plans_destroy(&p);
    }
END_TEST

ES_TEST_MAIN("links", found_again, all_of_the_key_counts, the_oldest_makes_room)
