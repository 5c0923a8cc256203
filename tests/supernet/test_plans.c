/* The table of plans that repeat: what was asked for is found again by all that its plan depends on, and the one not asked for the longest makes room. */
#include "supernet/train/plans.h"

#include <stdlib.h>

#include "tests/check_main.h"
#include "tests/supernet/spaces.h"

enum { BATCH = 32 };

static bool ask(sn_plans *p, const sn_pass *pass, int batch, kn_precision precision)
{
    sn_kept_plan *k = sn_plans_at(p, pass, batch, precision);
    bool made = k->made;
    ck_assert(sr_arch_equal(k->arch, pass->arch));
    k->made = true;
    return made;
}

static sr_arch *arch_of(const sn_space *sp, uint64_t seed)
{
    sr_arch *a = sr_arch_new(sn_space_choices(sp));
    es_rng r = es_rng_make(seed, ES_USE_TEST, 0);
    sr_arch_random(sn_space_choices(sp), &r, a);
    return a;
}

START_TEST(all_of_the_key_counts)
    {
        enum { OTHERS = 6 };
        sn_space *sp = space_load("fashion");
        sr_arch *a = arch_of(sp, 1), *b = arch_of(sp, 2), *same = arch_of(sp, 1);
        sn_plans *p = sn_plans_new();
        const sn_pass first = {.arch = a, .loss = SN_LOSS_LABELS, .scale = 1};
        sn_pass other[OTHERS];
        for (int i = 0; i < OTHERS; i++)
            other[i] = first;
        other[0].arch = b;
        other[1].loss = SN_LOSS_KL;
        other[2].teaches = true;
        other[3].regularise = true;
        other[4].reports = true;
        other[5].scale = 0.5f;
        ck_assert(!ask(p, &first, BATCH, KN_PRECISION_F32));
        for (int i = 0; i < OTHERS; i++)
            ck_assert(!ask(p, &other[i], BATCH, KN_PRECISION_F32));
        ck_assert(!ask(p, &first, BATCH, KN_PRECISION_BF16));
        for (int i = 0; i < OTHERS; i++)
            ck_assert(ask(p, &other[i], BATCH, KN_PRECISION_F32));
        ck_assert(ask(p, &(sn_pass){.arch = same, .loss = SN_LOSS_LABELS, .scale = 1}, BATCH, KN_PRECISION_F32));
        ck_assert(!ask(p, &first, BATCH / 2, KN_PRECISION_F32));
        sn_plans_forget(p);
        ck_assert(!ask(p, &first, BATCH, KN_PRECISION_F32));
        sn_plans_destroy(&p);
        sn_plans_destroy(&p);
        free(a);
        free(b);
        free(same);
        sn_space_destroy(&sp);
    }
END_TEST

START_TEST(the_oldest_makes_room)
    {
        sn_space *sp = space_load("fashion");
        sr_arch *a = arch_of(sp, 1);
        sn_plans *p = sn_plans_new();
        const sn_pass pass = {.arch = a, .scale = 1};
        for (int i = 1; i <= SN_PLANS_MAX; i++)
            ck_assert(!ask(p, &pass, i, KN_PRECISION_F32));
        ck_assert(ask(p, &pass, 1, KN_PRECISION_F32)); /* is younger than 2 now */
        ck_assert(!ask(p, &pass, SN_PLANS_MAX + 1, KN_PRECISION_F32));
        ck_assert(ask(p, &pass, 1, KN_PRECISION_F32));
        for (int i = 3; i <= SN_PLANS_MAX + 1; i++)
            ck_assert(ask(p, &pass, i, KN_PRECISION_F32));
        ck_assert(!ask(p, &pass, 2, KN_PRECISION_F32));
        sn_plans_destroy(&p);
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

ES_TEST_MAIN("plans", all_of_the_key_counts, the_oldest_makes_room)
