#include "supernet/train/train.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/device/device_internal.h"
#include "supernet/train/methods.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"

static void resume(const char *device, sn_method method, kn_optim_kind kind)
{
    lab *l = lab_new(device, method);
    es_error err = {0};
    l->file.supernet.optimizer.kind = kind;
    l->file.supernet.optimizer.ema = 0.99f;
    sn_trainer *straight = lab_trainer(l), *before = lab_trainer(l), *after = lab_trainer(l), *fresh = lab_trainer(l);
    lab_run(straight, 12);
    lab_run(before, 6);
    sn_version *half = lab_save(before);
    lab_run(after, 2); /* what it did before loading must not matter */
    ck_assert_ok_err(sn_trainer_load(after, half, &err), &err);
    ck_assert_uint_eq(sn_trainer_step(after), 6);
    lab_run(after, 12);
    ck_assert_ok_err(sn_trainer_load(fresh, half, &err), &err); /* a GPU's rehearsal comes in the middle then */
    lab_run(fresh, 12);
    sn_version *a = lab_save(straight), *b = lab_save(after), *c = lab_save(fresh);
    ck_assert(sn_version_equal(a, b));
    ck_assert(sn_version_equal(a, c));
    ck_assert(!sn_version_equal(a, half));
    sn_version_destroy(&a);
    sn_version_destroy(&b);
    sn_version_destroy(&c);
    sn_version_destroy(&half);
    sn_trainer_destroy(&straight);
    sn_trainer_destroy(&before);
    sn_trainer_destroy(&after);
    sn_trainer_destroy(&fresh);
    lab_destroy(&l);
}

START_TEST(resumed_bit_for_bit_sandwich)
    {
        resume("cpu:1", SN_METHOD_SANDWICH, KN_SGD);
    }
END_TEST
START_TEST(resumed_bit_for_bit_single_path_adam)
    {
        resume("cpu:1", SN_METHOD_SINGLE_PATH, KN_ADAMW);
    }
END_TEST

/* NULL: none is named, and the test is skipped. */
static const char *accelerator(void)
{
    const char *named = getenv("ESPALIER_TEST_DEVICE");
    if (named && strncmp(named, "cuda", 4) == 0)
        return named;
    es_test_skip("ESPALIER_TEST_DEVICE names no accelerator");
    return NULL;
}

START_TEST(resumed_bit_for_bit_on_an_accelerator)
    {
        const char *device = accelerator();
        if (!device)
            return;
        resume(device, SN_METHOD_SANDWICH, KN_SGD);
        resume(device, SN_METHOD_SINGLE_PATH, KN_ADAMW);
    }
END_TEST

/* The largest and the smallest subnet of a sandwich step; they were recorded before the first step. */
START_TEST(what_repeats_is_one_launch)
    {
        enum { BEFORE = 1, STEPS = 5 };
        const char *device = accelerator();
        if (!device)
            return;
        lab *l = lab_new(device, SN_METHOD_SANDWICH);
        sn_trainer *t = lab_trainer(l);
        lab_run(t, BEFORE);
        const kn_device_count a = l->dev->count;
        ck_assert_uint_eq(a.recordings, 2);
        ck_assert_uint_eq(a.replays,
                          2 * (1 + BEFORE)); /* the rehearsal's second step records, and runs what it recorded */
        lab_run(t, BEFORE + STEPS);
        const kn_device_count b = l->dev->count;
        ck_assert_uint_eq(b.replays - a.replays, 2 * STEPS);
        ck_assert_uint_eq(b.recordings, a.recordings);
        ck_assert_uint_eq(b.refused, 0);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

START_TEST(threads_do_not_matter)
    {
#ifdef __SANITIZE_THREAD__
        es_test_skip("two OpenMP threads: the thread sanitizer does not see OpenMP's barriers");
        return;
#endif
        lab *one = lab_new("cpu:1", SN_METHOD_SANDWICH), *two = lab_new("cpu:2", SN_METHOD_SANDWICH);
        sn_trainer *a = lab_trainer(one), *b = lab_trainer(two);
        lab_run(a, 5);
        lab_run(b, 5);
        sn_version *va = lab_save(a), *vb = lab_save(b);
        ck_assert(sn_version_equal(va, vb));
        sn_version_destroy(&va);
        sn_version_destroy(&vb);
        sn_trainer_destroy(&a);
        sn_trainer_destroy(&b);
        lab_destroy(&one);
        lab_destroy(&two);
    }
END_TEST

static double accuracy(sn_trainer *t, const sr_arch *a, sn_split split)
{
    es_error err = {0};
    sn_evaluation e;
    ck_assert_ok_err(sn_evaluate(t, a, split, 0, &e, &err), &err);
    ck_assert_uint_eq(e.samples, split == SN_TEST_SPLIT ? 150 : 128);
    return (double)e.correct / (double)e.samples;
}

static void learns(sn_method method, sn_distill distill)
{
    lab *l = lab_new("cpu", method);
    l->file.supernet.distill = distill;
    l->file.supernet.epochs = method == SN_METHOD_SINGLE_PATH ? 12 : 6;
    sn_trainer *t = lab_trainer(l);
    lab_run(t, UINT64_MAX);
    sr_arch *a = lab_arch(l, 3);
    double large = accuracy(t, t->largest, SN_TEST_SPLIT), small = accuracy(t, t->smallest, SN_TEST_SPLIT),
           any = accuracy(t, a, SN_VALIDATION_SPLIT);
    fprintf(stderr, "method %d distill %d: largest %.3f smallest %.3f random %.3f\n", (int)method, (int)distill, large,
            small, any);
    ck_assert_double_ge(large, 0.85);
    ck_assert_double_ge(small, 0.7);
    ck_assert_double_ge(any, 0.7);
    free(a);
    sn_trainer_destroy(&t);
    lab_destroy(&l);
}

START_TEST(learns_sandwich_alpha)
    {
        learns(SN_METHOD_SANDWICH, SN_DISTILL_ALPHA);
    }
END_TEST
START_TEST(learns_sandwich_kl)
    {
        learns(SN_METHOD_SANDWICH, SN_DISTILL_KL);
    }
END_TEST
START_TEST(learns_sandwich_labels)
    {
        learns(SN_METHOD_SANDWICH, SN_DISTILL_NONE);
    }
END_TEST
START_TEST(learns_single_path)
    {
        learns(SN_METHOD_SINGLE_PATH, SN_DISTILL_NONE);
    }
END_TEST

/* The gradients of a sandwich step are the sum of its passes' gradients, each made alone. */
START_TEST(gradients_are_summed)
    {
        lab *l = lab_new("cpu:1", SN_METHOD_SANDWICH);
        es_error err = {0};
        l->file.supernet.random_subnets = 0;
        l->file.supernet.distill = SN_DISTILL_NONE;
        sn_trainer *t = lab_trainer(l);
        int64_t n = kn_params_elements(sn_net_params(t->net));
        float *sum = calloc((size_t)n, sizeof *sum);
        ck_assert_ok_err(sn_loader_train(t->loader, 0, &t->batch, &err), &err);
        const sr_arch *archs[2] = {t->largest, t->smallest};
        for (int i = 0; i < 2; i++) {
            ck_assert_ok_err(kn_weights_zero_grads(t->weights, &err), &err);
            ck_assert_ok_err(
                sn_trainer_pass(t, &(sn_pass){.arch = archs[i], .regularise = i == 0, .reports = i == 0, .scale = 1},
                                &err),
                &err);
            for (int64_t k = 0; k < n; k++)
                sum[k] += kn_weights_grads(t->weights)[k];
        }
        ck_assert_ok_err(kn_weights_zero_grads(t->weights, &err), &err);
        ck_assert_ok_err(sn_method_sandwich.step(t, 0, &err), &err);
        double biggest = 0;
        for (int64_t k = 0; k < n; k++) {
            ck_assert_float_eq_tol(kn_weights_grads(t->weights)[k], sum[k],
                                   1e-5f + 1e-4f * (sum[k] < 0 ? -sum[k] : sum[k]));
            biggest = sum[k] > biggest ? (double)sum[k] : biggest;
        }
        ck_assert_double_gt(biggest, 1e-3);
        free(sum);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

static bool stop_at_3(void *ctx) { return ++*(int *)ctx > 3; }

START_TEST(stops_between_steps)
    {
        lab *l = lab_new("cpu", SN_METHOD_SINGLE_PATH);
        es_error err = {0};
        sn_report r;
        int asked = 0;
        sn_trainer *t = lab_trainer(l);
        ck_assert_ok_err(sn_trainer_run(t, 10, &(sn_hooks){.ctx = &asked, .stop = stop_at_3}, &r, &err), &err);
        ck_assert_uint_eq(r.step, 3);
        ck_assert_uint_eq(sn_trainer_step(t), 3);
        ck_assert_uint_eq(sn_train_steps(t), 4 * (512 / 32));
        ck_assert_double_gt(r.mean_loss, 0.1);
        ck_assert_uint_gt(sn_trainer_memory_bytes(t), 100000);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

typedef struct heard {
    int64_t begun_ns, at_ns;
    uint64_t step;
    double rate;
} heard;

static void hear(void *ctx, uint64_t step, uint64_t steps, double loss, double images_per_s)
{
    heard *x = ctx;
    (void)steps;
    ck_assert_double_gt(loss, 0);
    if (x->at_ns == 0)
        *x = (heard){x->begun_ns, es_clock_mono_ns(es_clock_system()), step, images_per_s};
}

static bool has_heard(void *ctx) { return ((heard *)ctx)->at_ns != 0; }

/* What is told after the first second: at most all its images in that second, at least over all the time that was. */
START_TEST(says_how_fast_it_is)
    {
        lab *l = lab_new("cpu", SN_METHOD_SINGLE_PATH);
        es_error err = {0};
        sn_report r;
        l->file.supernet.epochs = 1000000;
        sn_trainer *t = lab_trainer(l);
        heard x = {.begun_ns = es_clock_mono_ns(es_clock_system())};
        const sn_hooks hooks = {&x, has_heard, hear};
        ck_assert_ok_err(sn_trainer_run(t, UINT64_MAX, &hooks, &r, &err), &err);
        double images = (double)x.step * 32;
        ck_assert_double_le(x.rate, images / 1.0 * 1.000001);
        ck_assert_double_ge(x.rate, images / ((double)(x.at_ns - x.begun_ns) * 1e-9) * 0.999999);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

/* A processor that says it is a GPU is rehearsed on like one: two steps of four passes before the first. Told to stop, it does not wait for their end, forgets what it
 * has done of them, and goes on later as if nothing had been. */
START_TEST(stops_in_the_rehearsal)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH), *plain = lab_new("cpu", SN_METHOD_SANDWICH);
        es_error err = {0};
        sn_report r;
        int asked = 0;
        l->file.supernet.random_subnets = plain->file.supernet.random_subnets = 2;
        l->dev->backend = KN_BACKEND_CUDA;
        sn_trainer *t = lab_trainer(l), *other = lab_trainer(plain);
        sn_trainer_exact(t);
        const sn_hooks hooks = {.ctx = &asked, .stop = stop_at_3};
        ck_assert_ok_err(sn_trainer_run(t, 10, &hooks, &r, &err), &err);
        ck_assert_uint_eq(r.step, 0);
        ck_assert_int_eq(asked, 4); /* three passes, and not one more */
        uint64_t calls = l->dev->count.calls;
        ck_assert_uint_gt(calls, 0);
        asked = -8;
        ck_assert_ok_err(sn_trainer_run(t, 10, &hooks, &r, &err), &err);
        ck_assert_uint_eq(r.step, 3); /* after a whole rehearsal */
        ck_assert_uint_gt(l->dev->count.calls - calls, 4 * calls);
        lab_run(other, 3);
        sn_version *a = lab_save(t), *b = lab_save(other);
        ck_assert(sn_version_equal(a, b));
        sn_version_destroy(&a);
        sn_version_destroy(&b);
        sn_trainer_destroy(&t);
        sn_trainer_destroy(&other);
        l->dev->backend = KN_BACKEND_CPU;
        lab_destroy(&l);
        lab_destroy(&plain);
    }
END_TEST

START_TEST(divergence_is_said)
    {
        lab *l = lab_new("cpu", SN_METHOD_SINGLE_PATH);
        es_error err = {0};
        sn_report r;
        l->file.supernet.schedule.lr = 1e30f;
        l->file.supernet.warmup_epochs = 0;
        sn_trainer *t = lab_trainer(l);
        ck_assert_status(sn_trainer_run(t, 40, NULL, &r, &err), ES_INVALID);
        ck_assert_has(err.text, "training diverged: the loss of step ");
        ck_assert_has(err.text, "lower supernet.optimizer.lr");
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

START_TEST(refuses_what_is_not_its_own)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH), *other = lab_new("cpu", SN_METHOD_SANDWICH);
        es_error err = {0};
        free(other->file.text);
        other->file.text = strdup("another search");
        sn_trainer *t = lab_trainer(l), *u = lab_trainer(other);
        sn_version *v = lab_save(t), *empty = sn_version_new("subnet");
        ck_assert_status(sn_trainer_load(u, v, &err), ES_INVALID);
        ck_assert_has(err.text, "it belongs to another search");
        ck_assert_status(sn_trainer_load(u, empty, &err), ES_INVALID);
        ck_assert_has(err.text, "kind \"subnet\": expected the state of a training");
        sn_version_destroy(&v);
        sn_version_destroy(&empty);
        sn_trainer_destroy(&t);
        sn_trainer_destroy(&u);
        l->file.supernet.batch = 513;
        ck_assert_status(sn_trainer_new(&l->file, l->dev, &t, &err), ES_INVALID);
        ck_assert_has(err.text, "allowed are 1 to 512");
        l->file.supernet.batch = 32;
        snprintf(l->file.data.test, sizeof l->file.data.test, "/nonexistent/t10k");
        ck_assert_status(sn_trainer_new(&l->file, l->dev, &t, &err), ES_NOT_FOUND);
        ck_assert_has(err.where, "/nonexistent/t10k-images-idx3-ubyte");
        lab_destroy(&l);
        lab_destroy(&other);
    }
END_TEST

ES_TEST_MAIN("train", resumed_bit_for_bit_sandwich, resumed_bit_for_bit_single_path_adam,
             resumed_bit_for_bit_on_an_accelerator, what_repeats_is_one_launch, threads_do_not_matter,
             learns_sandwich_alpha, learns_sandwich_kl, learns_sandwich_labels, learns_single_path,
             gradients_are_summed, stops_between_steps, says_how_fast_it_is, stops_in_the_rehearsal, divergence_is_said,
             refuses_what_is_not_its_own)
