#include "supernet/train/methods.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"

static sn_version *train_phase(lab *l, sn_phase phase, int part, const sn_version *meta, uint64_t stop_after)
{
    es_error err = {0};
    sn_trainer *t = lab_trainer(l);
    ck_assert_ok_err(sn_trainer_phase(t, phase, part, meta, &err), &err);
    if (stop_after && stop_after < sn_train_steps(t)) { /* the phase in two slices, each from a version alone */
        lab_run(t, stop_after);
        sn_version *half = lab_save(t);
        sn_trainer_destroy(&t);
        t = lab_trainer(l);
        ck_assert_ok_err(sn_trainer_phase(t, phase, part, NULL, &err), &err);
        ck_assert_ok_err(sn_trainer_load(t, half, &err), &err);
        sn_version_destroy(&half);
    }
    lab_run(t, UINT64_MAX);
    sn_version *v = lab_save(t);
    sn_trainer_destroy(&t);
    return v;
}

static double scored(lab *l, const sn_version *v)
{
    es_error err = {0};
    sn_evaluation e;
    sn_trainer *t = lab_trainer(l);
    ck_assert_ok_err(sn_trainer_load(t, v, &err), &err);
    ck_assert_ok_err(sn_evaluate(t, t->largest, SN_TEST_SPLIT, 0, &e, &err), &err);
    sn_trainer_destroy(&t);
    return (double)e.correct / (double)e.samples;
}

/* Every parameter outside the part keeps the meta model's value; every parameter inside changes. */
static void only_the_part_changed(lab *l, const sn_version *meta, const sn_version *part, int k)
{
    es_error err = {0};
    sn_trainer *t = lab_trainer(l);
    ck_assert_ok_err(sn_trainer_phase(t, SN_PHASE_PART, k, meta, &err), &err);
    const kn_params *p = sn_net_params(t->net);
    const float *before = sn_version_find(meta, "values")->data, *after = sn_version_find(part, "values")->data;
    int inside = 0, outside = 0;
    for (int i = 0; i < kn_params_count(p); i++) {
        const kn_param_def *d = kn_params_def(p, i);
        bool same = memcmp(before + d->offset, after + d->offset, (size_t)d->count * sizeof(float)) == 0;
        bool in = t->part_of[sn_net_param_unit(t->net, KN_SET_WEIGHTS, i)] == k - 1;
        ck_assert_msg(same != in, "%s is %s part %d and %s", d->name, in ? "in" : "outside", k,
                      same ? "unchanged" : "changed");
        inside += in;
        outside += !in;
    }
    ck_assert_int_gt(inside, 0);
    ck_assert_int_gt(outside, 0);
    sn_trainer_destroy(&t);
}

START_TEST(the_whole_way)
    {
        lab *l = lab_new("cpu", SN_METHOD_MODULES);
        es_error err = {0};
        sn_version *meta = train_phase(l, SN_PHASE_META, 0, NULL, 0);
        sn_version *parts[2] = {train_phase(l, SN_PHASE_PART, 1, meta, 0), train_phase(l, SN_PHASE_PART, 2, meta, 0)};
        sn_version *assembled = NULL;
        only_the_part_changed(l, meta, parts[0], 1);
        only_the_part_changed(l, meta, parts[1], 2);
        sn_trainer *t = lab_trainer(l);
        ck_assert_ok_err(sn_modules_assemble(t, (const sn_version *const *)parts, 2, &assembled, &err), &err);
        sn_trainer_destroy(&t);
        double before = scored(l, assembled);
        t = lab_trainer(l);
        ck_assert_ok_err(sn_trainer_phase(t, SN_PHASE_FINETUNE, 0, NULL, &err), &err);
        ck_assert_ok_err(sn_trainer_load(t, assembled, &err), &err);
        lab_run(t, UINT64_MAX);
        sn_version *tuned = lab_save(t);
        double after = scored(l, tuned);
        fprintf(stderr, "assembled %.3f, fine-tuned %.3f\n", before, after);
        ck_assert_double_ge(before, 0.5); /* far above chance, 0.25: the parts fit together (card 01) */
        ck_assert_double_ge(after, 0.9);
        sn_version_destroy(&meta);
        sn_version_destroy(&parts[0]);
        sn_version_destroy(&parts[1]);
        sn_version_destroy(&assembled);
        sn_version_destroy(&tuned);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

START_TEST(phases_resume_bit_for_bit)
    {
        lab *l = lab_new("cpu", SN_METHOD_MODULES);
        l->file.supernet.modules.epochs_meta = 0.5;
        l->file.supernet.modules.epochs_part = 0.5;
        sn_version *meta = train_phase(l, SN_PHASE_META, 0, NULL, 0),
                   *meta2 = train_phase(l, SN_PHASE_META, 0, NULL, 3);
        ck_assert(sn_version_equal(meta, meta2));
        for (int k = 1; k <= 2; k++) {
            sn_version *a = train_phase(l, SN_PHASE_PART, k, meta, 0), *b = train_phase(l, SN_PHASE_PART, k, meta2, 5);
            ck_assert(sn_version_equal(a, b));
            sn_version_destroy(&a);
            sn_version_destroy(&b);
        }
        sn_version_destroy(&meta);
        sn_version_destroy(&meta2);
        lab_destroy(&l);
    }
END_TEST

START_TEST(costs_add_up)
    {
        lab *l = lab_new("cpu", SN_METHOD_MODULES);
        es_error err = {0};
        sn_modules_plan p;
        sn_trainer *t = lab_trainer(l);
        ck_assert_ok_err(sn_modules_describe(t, &p, &err), &err);
        ck_assert_int_eq(p.parts, 2);
        ck_assert_int_eq(p.first_block[0], 0);
        ck_assert_int_gt(p.first_block[1], 0);
        ck_assert_int_eq(p.first_block[2], p.blocks);
        ck_assert_uint_eq(p.steps[SN_PHASE_META], 3 * 16);
        ck_assert_uint_eq(p.steps[SN_PHASE_PART], 2 * 16);
        sn_cost cost;
        ck_assert_ok_err(sn_space_cost(l->file.space, t->largest, &cost, &err), &err);
        ck_assert_double_eq_tol(p.macs[SN_PHASE_FINETUNE], 3.0 * (double)cost.macs * 32 * 16,
                                1e-6 * p.macs[SN_PHASE_FINETUNE]);
        ck_assert_double_lt(p.macs[SN_PHASE_META] / 3, p.macs[SN_PHASE_FINETUNE]);
        double all = p.macs[SN_PHASE_META] + p.macs[SN_PHASE_PART] + p.macs[SN_PHASE_FINETUNE];
        ck_assert_double_eq_tol(p.macs[SN_PHASE_END_TO_END] / all, 1, 0.03); /* whole steps */
        ck_assert_double_lt(p.critical_macs, all);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

START_TEST(refuses)
    {
        lab *l = lab_new("cpu", SN_METHOD_MODULES);
        es_error err = {0};
        sn_trainer *t = lab_trainer(l);
        ck_assert_uint_eq(sn_train_steps(t), 0);
        ck_assert_status(sn_trainer_phase(t, SN_PHASE_PART, 3, NULL, &err), ES_INVALID);
        ck_assert_has(err.text, "parts are 1 to 2");
        ck_assert_ok_err(sn_trainer_phase(t, SN_PHASE_META, 0, NULL, &err), &err);
        sn_version *meta = lab_save(t), *out = NULL;
        ck_assert_ok_err(sn_trainer_phase(t, SN_PHASE_PART, 1, meta, &err), &err);
        ck_assert_status(sn_trainer_load(t, meta, &err), ES_INVALID);
        ck_assert_has(err.text, "it is of phase 1, part 0; this training is phase 2, part 1");
        sn_version *part = lab_save(t);
        ck_assert_str_eq(part->kind, "module");
        ck_assert_status(sn_trainer_phase(t, SN_PHASE_PART, 2, part, &err), ES_INVALID);
        ck_assert_has(err.text, "a part starts from the meta model's");
        const sn_version *wrong[2] = {part, part};
        ck_assert_status(sn_modules_assemble(t, wrong, 2, &out, &err), ES_INVALID);
        ck_assert_has(err.text, "expected the weights of part 2");
        ck_assert_status(sn_modules_assemble(t, wrong, 1, &out, &err), ES_INVALID);
        ck_assert_has(err.text, "1 versions for 2 parts");
        sn_trainer_destroy(&t);
        l->file.supernet.modules.cuts = 2;
        t = lab_trainer(l);
        ck_assert_status(sn_trainer_phase(t, SN_PHASE_META, 0, NULL, &err), ES_INVALID);
        ck_assert_has(err.text, "2 cuts make 3 parts, but parts is 2");
        sn_trainer_destroy(&t);
        l->file.supernet.method = SN_METHOD_SANDWICH;
        t = lab_trainer(l);
        ck_assert_status(sn_trainer_phase(t, SN_PHASE_META, 0, NULL, &err), ES_INVALID);
        ck_assert_has(err.text, "only modules are trained in phases");
        sn_trainer_destroy(&t);
        sn_version_destroy(&meta);
        sn_version_destroy(&part);
        lab_destroy(&l);
    }
END_TEST

ES_TEST_MAIN("modules", the_whole_way, phases_resume_bit_for_bit, costs_add_up, refuses)
