/* ESPALIER_TEST_DEVICE names another device than the processor, such as cuda:0. */
#include <math.h>

#include "base/arena.h"
#include "base/rng.h"
#include "supernet/train/methods.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"
#include "tests/supernet/spaces.h"

static const char *device(void)
{
    const char *named = getenv("ESPALIER_TEST_DEVICE");
    return named ? named : "cpu";
}

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
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
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
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
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
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
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

enum { BATCH = 128 };

/* The statistics are the average of the batches' own: checked on the stem, whose input does not depend on other statistics. */
START_TEST(calibration_is_the_cumulative_average)
    {
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
        es_error err = {0};
        l->file.supernet.calibration = 3 * BATCH;
        l->file.supernet.calibration_batch = BATCH;
        sn_trainer *t = lab_trainer(l);
        const kn_params *p = sn_net_stats(t->net);
        const kn_param_def *mean = NULL;
        for (int i = 0; i < kn_params_count(p) && !mean; i++)
            if (strncmp(kn_params_def(p, i)->name, "stem", 4) == 0 && strstr(kn_params_def(p, i)->name, "mean"))
                mean = kn_params_def(p, i);
        ck_assert_ptr_nonnull(mean);
        float sum[8] = {0}, average[8];
        float *stats = es_xcalloc((size_t)kn_params_elements(p), sizeof *stats);
        ck_assert_int_eq(mean->count, 8);
        for (int i = 0; i < 3; i++) { /* each batch alone, by shifting the calibration samples */
            sn_batch b;
            sn_lowered net;
            ck_assert_ok_err(sn_loader_calibration(t->loader, i * BATCH, BATCH, &b, &err), &err);
            kn_graph_reset(t->graph);
            ck_assert_ok_err(sn_net_lower(t->net, t->largest, &(sn_lower_options){.batch = BATCH, .mode = SN_CALIBRATE},
                                          t->graph, &net, &err),
                             &err);
            ck_assert_ok_err(sn_trainer_plan(t, &err), &err);
            kn_binding bind = {.in = {b.images}, .scalar = {1}, .weights = {t->weights, t->eval_stats}};
            ck_assert_ok_err(kn_run(t->plan, t->ws, &bind, &err), &err);
            ck_assert_ok_err(kn_weights_download(t->eval_stats, stats, &err), &err);
            for (int c = 0; c < 8; c++)
                sum[c] += stats[mean->offset + c];
        }
        ck_assert_ok_err(sn_calibrate(t, t->largest, NULL, t->weights, t->eval_stats, &err), &err);
        ck_assert_ok_err(kn_weights_download(t->eval_stats, stats, &err), &err);
        memcpy(average, stats + mean->offset, sizeof average);
        free(stats);
        for (int c = 0; c < 8; c++) {
            ck_assert_float_eq_tol(average[c], sum[c] / 3, 1e-5f);
            ck_assert_float_ne(average[c], 0);
        }
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

/* A family as a search breeds it: `count` architectures from few parents, most of them one gene away from another. Caller frees each. */
static void family(const lab *l, sr_arch **a, int count)
{
    es_rng r = es_rng_make(5, ES_USE_TEST, 1);
    for (int i = 0; i < count; i++) {
        a[i] = lab_arch(l, (uint64_t)(i % 3));
        sr_arch *other = lab_arch(l, 100 + (uint64_t)i);
        if (i >= 3) { /* the genes of a parent up to somewhere, then another's: what crossover gives */
            int at = (int)es_rng_below(&r, (uint32_t)a[i]->n);
            memcpy(a[i]->gene + at, other->gene + at, (size_t)(a[i]->n - at) * sizeof *other->gene);
        }
        free(other);
    }
}

/* Scored together, with any memory for what they share, each gets what it gets alone, bit for bit. */
START_TEST(many_are_each_alone)
    {
        enum { N = 12 };
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
        es_error err = {0};
        l->file.supernet.calibration = 120;
        l->file.supernet.calibration_batch = 60;
        sn_trainer *t = lab_trainer(l);
        sr_arch *a[N];
        sn_evaluation alone[N], many[N];
        int64_t asked = 0, run = 0, asked_before, run_before, least = INT64_MAX;
        family(l, a, N);
        lab_run(t, 10);
        for (int i = 0; i < N; i++)
            alone[i] = evaluate(t, a[i], SN_TEST_SPLIT, 70);
        sn_trainer_sharing(t, &asked, &run);
        ck_assert_int_eq(asked, run);
        static const size_t budgets[] = {0, 100000, 1000000, SIZE_MAX};
        for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++) {
            sn_trainer_sharing(t, &asked_before, &run_before);
            sn_trainer_keep_bytes(t, budgets[b]);
            memset(many, 0, sizeof many);
            ck_assert_ok_err(sn_evaluate_many(t, (const sr_arch *const *)a, N, SN_TEST_SPLIT, 70, NULL, many, &err),
                             &err);
            for (int i = 0; i < N; i++) {
                ck_assert_uint_eq(many[i].correct, alone[i].correct);
                ck_assert_uint_eq(many[i].samples, alone[i].samples);
                ck_assert_mem_eq(&many[i].loss, &alone[i].loss, sizeof alone[i].loss);
            }
            sn_trainer_sharing(t, &asked, &run);
            asked -= asked_before;
            run -= run_before;
            fprintf(stderr, "keeping at most %zu bytes: %d of %d units computed\n", budgets[b], (int)run, (int)asked);
            ck_assert_int_le(run, least); /* more memory never means more work */
            ck_assert(b > 0 || run == asked);
            least = run;
        }
        ck_assert_int_lt(4 * run, 3 * asked); /* and it is worth it */
        for (int i = 0; i < N; i++)
            free(a[i]);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

/* Cut into links, a network computes what it computes whole. */
static void compare_with_the_network(lab *l)
{
    es_error err = {0};
    sn_trainer *t = lab_trainer(l);
    lab_run(t, 10);
    sn_trainer_exact(t);
    for (uint64_t seed = 0; seed < 4; seed++) {
        sr_arch *a = lab_arch(l, seed);
        sn_evaluation e = evaluate(t, a, SN_TEST_SPLIT, 100);
        sn_lowered net;
        sn_batch b;
        void *out = NULL;
        float loss = 0;
        ck_assert_ok_err(kn_device_alloc(t->dev, sizeof loss, &out, &err), &err);
        kn_graph_reset(t->graph);
        ck_assert_ok_err(
            sn_net_lower(t->net, a, &(sn_lower_options){.batch = 100, .mode = SN_INFER}, t->graph, &net, &err), &err);
        kn_val labels = kn_input(t->graph, SN_IN_LABELS, KN_SHAPE(100), KN_I32);
        kn_output(t->graph, SN_OUT_LOSS,
                  kn_reduce_mean(t->graph, kn_cross_entropy(t->graph, net.logits, labels, 0), KN_AXES_ALL));
        ck_assert_ok_err(sn_trainer_plan(t, &err), &err);
        ck_assert_ok_err(sn_loader_eval(t->loader, SN_TEST_SPLIT, 0, 100, &b, &err), &err);
        kn_binding bind = {.in = {b.images, b.labels}, .out = {out}, .weights = {t->weights, t->eval_stats}};
        ck_assert_ok_err(kn_run(t->plan, t->ws, &bind, &err), &err);
        ck_assert_ok_err(kn_device_download(t->dev, &loss, out, sizeof loss, &err), &err);
        ck_assert_double_eq_tol(e.loss, (double)loss, 1e-4 * (1 + e.loss));
        kn_device_free(t->dev, out);
        free(a);
    }
    sn_trainer_destroy(&t);
}

START_TEST(links_are_the_network)
    {
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
        compare_with_the_network(l);
        lab_destroy(&l);
    }
END_TEST

/* Units that do nothing have no op to tell them apart, and yet are not the same where their shapes differ. */
START_TEST(links_that_do_nothing)
    {
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
        sn_space_destroy(&l->file.space);
        l->file.space = space_parse("input: 12x12x1\n"
                                    "stem: {width: 4, kernel: 3, stride: 1}\n"
                                    "stages:\n"
                                    "  - {block: dropout}\n"
                                    "  - {block: mbconv, width: 16, kernel: [3, 5], expand: 2}\n"
                                    "  - {block: dropout}\n"
                                    "head: {width: 16, classes: 4}\n");
        compare_with_the_network(l);
        lab_destroy(&l);
    }
END_TEST

START_TEST(latency_is_measured)
    {
        lab *l = lab_new(device(), SN_METHOD_SANDWICH);
        es_error err = {0};
        sn_latency ms;
        sn_trainer *t = lab_trainer(l);
        ck_assert_ok_err(sn_measure_latency(t, t->largest, &ms, &err), &err);
        ck_assert_int_ge(ms.runs, 50);
        ck_assert_double_gt(ms.low_ms, 0);
        ck_assert_double_le(ms.low_ms, ms.median_ms);
        ck_assert_double_le(ms.median_ms, ms.high_ms);
        fprintf(stderr, "clocks: %s\n", ms.clocks.text[0] ? ms.clocks.text : "unknown");
        ck_assert_int_eq(ms.clocks.mhz > 0, ms.clocks.text[0] != 0);
        if (ms.clocks.most_mhz > 0)
            ck_assert_int_le(ms.clocks.mhz, 2 * ms.clocks.most_mhz);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

ES_TEST_MAIN("evaluate", leaves_training_alone, is_a_function_of_weights_and_architecture,
             limit_takes_the_first_samples, calibration_is_the_cumulative_average, many_are_each_alone,
             links_are_the_network, links_that_do_nothing, latency_is_measured)
