#include <math.h>

#include "supernet/methods.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"

static sn_evaluation evaluate(sn_trainer *t, const sr_arch *a, sn_split split, int64_t limit)
{
    es_error err = {0};
    sn_evaluation e;
    ck_assert_ok_err(sn_evaluate(t, a, split, limit, &e, &err), &err);
    return e;
}

/* Training with evaluations, latencies and extractions in between ends with the same bits as training without. */
START_TEST(leaves_training_alone)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH);
        es_error err = {0};
        sn_trainer *plain = lab_trainer(l), *busy = lab_trainer(l);
        sr_arch *a = lab_arch(l, 1);
        for (uint64_t step = 2; step <= 8; step += 2) {
            sn_latency ms;
            sn_version *v = NULL;
            lab_run(plain, step);
            lab_run(busy, step);
            evaluate(busy, a, SN_VALIDATION_SPLIT, 0);
            ck_assert_ok_err(sn_measure_latency(busy, a, &ms, &err), &err);
            ck_assert_ok_err(sn_extract(busy, a, &v, &err), &err);
            sn_version_destroy(&v);
        }
        sn_version *x = lab_save(plain), *y = lab_save(busy);
        ck_assert(sn_version_equal(x, y));
        sn_version_destroy(&x);
        sn_version_destroy(&y);
        free(a);
        sn_trainer_destroy(&plain);
        sn_trainer_destroy(&busy);
        lab_destroy(&l);
    }
END_TEST

/* An evaluation depends on weights and architecture alone: not on what was evaluated before, nor on the trainer. */
START_TEST(is_a_function_of_weights_and_architecture)
    {
        lab *l = lab_new("cpu:1", SN_METHOD_SANDWICH);
        es_error err = {0};
        sn_trainer *t = lab_trainer(l), *fresh = lab_trainer(l);
        sr_arch *a = lab_arch(l, 1), *b = lab_arch(l, 2);
        lab_run(t, 10);
        sn_evaluation first = evaluate(t, a, SN_VALIDATION_SPLIT, 0);
        evaluate(t, b, SN_VALIDATION_SPLIT, 0);
        sn_evaluation again = evaluate(t, a, SN_VALIDATION_SPLIT, 0);
        ck_assert_uint_eq(first.correct, again.correct);
        ck_assert_double_eq(first.loss, again.loss);
        sn_version *v = lab_save(t);
        ck_assert_ok_err(sn_trainer_load(fresh, v, &err), &err);
        sn_evaluation other = evaluate(fresh, a, SN_VALIDATION_SPLIT, 0);
        ck_assert_double_eq(first.loss, other.loss);
        ck_assert_uint_gt(first.correct, 40); /* better than chance on 128 of 4 classes */
        sn_version_destroy(&v);
        free(a);
        free(b);
        sn_trainer_destroy(&t);
        sn_trainer_destroy(&fresh);
        lab_destroy(&l);
    }
END_TEST

START_TEST(limit_takes_the_first_samples)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH);
        es_error err = {0};
        sn_trainer *t = lab_trainer(l);
        sn_evaluation e = evaluate(t, t->largest, SN_TEST_SPLIT, 131); /* a whole batch and a part of one */
        ck_assert_uint_eq(e.samples, 131);
        sn_evaluation whole = evaluate(t, t->largest, SN_TEST_SPLIT, 1000);
        ck_assert_uint_eq(whole.samples, 150);
        ck_assert_uint_ge(whole.correct, e.correct);
        ck_assert_uint_le(whole.correct, e.correct + 19);
        sn_trainer_destroy(&t);
        l->file.data.validation = 0;
        l->file.data.test[0] = 0;
        t = lab_trainer(l);
        ck_assert_status(sn_evaluate(t, t->largest, SN_VALIDATION_SPLIT, 0, &e, &err), ES_INVALID);
        ck_assert_str_eq(err.where, "task.data.validation");
        ck_assert_status(sn_evaluate(t, t->largest, SN_TEST_SPLIT, 0, &e, &err), ES_INVALID);
        ck_assert_str_eq(err.where, "task.data.test");
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

/* The statistics are the average of the batches' own: checked on the stem, whose input does not depend on other statistics. */
START_TEST(calibration_is_the_cumulative_average)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH);
        es_error err = {0};
        l->file.supernet.calibration = 3 * SN_EVAL_BATCH;
        sn_trainer *t = lab_trainer(l);
        const kn_params *p = sn_net_stats(t->net);
        const kn_param_def *mean = NULL;
        for (int i = 0; i < kn_params_count(p) && !mean; i++)
            if (strncmp(kn_params_def(p, i)->name, "stem", 4) == 0 && strstr(kn_params_def(p, i)->name, "mean"))
                mean = kn_params_def(p, i);
        ck_assert_ptr_nonnull(mean);
        float sum[8] = {0}, average[8];
        ck_assert_int_eq(mean->count, 8);
        for (int i = 0; i < 3; i++) { /* each batch alone, by shifting the calibration samples */
            sn_batch b;
            sn_lowered net;
            ck_assert_ok_err(sn_loader_calibration(t->loader, i * SN_EVAL_BATCH, SN_EVAL_BATCH, &b, &err), &err);
            kn_graph_reset(t->graph);
            ck_assert_ok_err(sn_net_lower(t->net, t->largest,
                                          &(sn_lower_options){.batch = SN_EVAL_BATCH, .mode = SN_CALIBRATE}, t->graph,
                                          &net, &err),
                             &err);
            ck_assert_ok_err(sn_trainer_plan(t, &err), &err);
            kn_binding bind = {.in = {b.images}, .scalar = {1}, .weights = {t->weights, t->eval_stats}};
            ck_assert_ok_err(kn_run(t->plan, t->ws, &bind, &err), &err);
            for (int c = 0; c < 8; c++)
                sum[c] += kn_weights_values(t->eval_stats)[mean->offset + c];
        }
        ck_assert_ok_err(sn_calibrate(t, t->largest, NULL, t->weights, t->eval_stats, &err), &err);
        memcpy(average, kn_weights_values(t->eval_stats) + mean->offset, sizeof average);
        for (int c = 0; c < 8; c++) {
            ck_assert_float_eq_tol(average[c], sum[c] / 3, 1e-5f);
            ck_assert_float_ne(average[c], 0);
        }
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

START_TEST(latency_is_measured)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH);
        es_error err = {0};
        sn_latency ms;
        sn_trainer *t = lab_trainer(l);
        ck_assert_ok_err(sn_measure_latency(t, t->largest, &ms, &err), &err);
        ck_assert_int_ge(ms.runs, 50);
        ck_assert_double_gt(ms.low_ms, 0);
        ck_assert_double_le(ms.low_ms, ms.median_ms);
        ck_assert_double_le(ms.median_ms, ms.high_ms);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

ES_TEST_MAIN("evaluate", leaves_training_alone, is_a_function_of_weights_and_architecture,
             limit_takes_the_first_samples, calibration_is_the_cumulative_average, latency_is_measured)
