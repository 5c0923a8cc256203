/* Attention at the sizes that language models have, on every device against the reference: several blocks of queries and keys, ragged ends, a past, and on an accelerator
 * the bf16 way with its gradients (test_ops_device.c has the small and odd shapes, in fp32).
 *
 * Inputs are numbers that bf16 holds exactly, so what is compared is the arithmetic. A transpose on either side keeps the values between in the plan's own storage. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"

typedef struct size {
    int n, heads, tq, tk, d;
    bool causal;
    /* What keys behind the first 70 are multiplied by, 0: nothing: scores that leave those of the first keys far behind. */
    float grown;
} size;

static const size sizes[] = {
    {2, 3, 128, 128, 64, true, 0},  {1, 2, 200, 200, 64, true, 0}, {1, 2, 70, 333, 64, true, 0},
    {2, 1, 129, 65, 64, false, 0},  {1, 1, 1, 300, 64, true, 0},   {1, 2, 100, 100, 32, true, 0},
    {1, 1, 40, 90, 80, false, 0},   {1, 3, 193, 193, 64, true, 0}, {1, 1, 200, 200, 64, true, 8},
    {1, 1, 130, 300, 64, true, 32},
};
enum { RESULTS = 4 };

static float *numbers(int64_t count, uint64_t use, float scale)
{
    float *v = malloc((size_t)count * sizeof *v);
    es_rng r = es_rng_make(4, ES_USE_TEST, use);
    for (int64_t i = 0; i < count; i++)
        v[i] = roundf(es_rng_normal(&r) * 32) / 32 * scale; /* at most 8 significant bits below 4 */
    return v;
}

/* y, dq, dk, dv for sum(y w), each [n, heads, t, d]. */
static void run(const char *device, kn_precision precision, const size *s, float *const result[RESULTS])
{
    static const int turn[] = {0, 2, 1, 3};
    const kn_shape q = KN_SHAPE(s->n, s->heads, s->tq, s->d), k = KN_SHAPE(s->n, s->heads, s->tk, s->d);
    const kn_shape shapes[] = {q, k, k, q};
    es_error err = {0};
    kn_device *dev;
    kn_plan *plan = NULL;
    kn_workspace *ws;
    kn_graph *g = kn_graph_new(NULL);
    kn_val in[4], turned[4], d[3];
    ck_assert_ok_err(kn_device_open(device, &dev, &err), &err);
    for (int i = 0; i < 4; i++) {
        in[i] = kn_input(g, i, shapes[i], KN_F32);
        turned[i] = kn_transpose(g, in[i], turn);
    }
    kn_val y = kn_attention(g, turned[0], turned[1], turned[2], 1 / sqrtf((float)s->d), s->causal);
    kn_val loss = kn_reduce_sum(g, kn_mul(g, kn_transpose(g, y, turn), in[3]), KN_AXES_ALL);
    ck_assert_ok_err(kn_grad(g, loss, in, 3, d, &err), &err);
    kn_output(g, 0, kn_transpose(g, y, turn));
    for (int i = 0; i < 3; i++)
        kn_output(g, 1 + i, d[i]);
    ck_assert_ok_err(kn_plan_make(dev, g, &(kn_plan_options){.precision = precision}, &plan, &err), &err);
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    kn_binding b = {0};
    const kn_shape *outs[] = {&q, &q, &k, &k};
    for (int i = 0; i < 4; i++) {
        const size_t bytes = (size_t)kn_shape_count(&shapes[i]) * sizeof(float);
        float *v = numbers(kn_shape_count(&shapes[i]), (uint64_t)i, 1);
        void *p = NULL;
        for (int64_t e = 0; i == 1 && s->grown > 0 && e < kn_shape_count(&k); e++)
            v[e] *= e / s->d % s->tk >= 70 ? s->grown : 1;
        ck_assert_ok_err(kn_device_alloc(dev, bytes, &p, &err), &err);
        ck_assert_ok_err(kn_device_upload(dev, p, v, bytes, &err), &err);
        b.in[i] = p;
        free(v);
        ck_assert_ok_err(kn_device_alloc(dev, (size_t)kn_shape_count(outs[i]) * sizeof(float), &p, &err), &err);
        b.out[i] = p;
    }
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    ck_assert_ok_err(kn_device_sync(dev, &err), &err);
    for (int i = 0; i < RESULTS; i++)
        ck_assert_ok_err(
            kn_device_download(dev, result[i], b.out[i], (size_t)kn_shape_count(outs[i]) * sizeof(float), &err), &err);
    for (int i = 0; i < 4; i++) {
        kn_device_free(dev, (void *)(uintptr_t)b.in[i]);
        kn_device_free(dev, b.out[i]);
    }
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
    kn_device_close(&dev);
}

/* Largest difference as a part of the largest number, and root of the mean square of it over that of what is expected. */
static void compare_one(const char *device, size_t i, const char *name, const float *got, const float *want,
                        int64_t count, double most, double typical)
{
    double worst = 0, largest = 0, error = 0, square = 0;
    for (int64_t k = 0; k < count; k++) {
        double e = fabs((double)got[k] - (double)want[k]);
        worst = isnan(e) ? INFINITY : fmax(worst, e);
        largest = fmax(largest, fabs((double)want[k]));
        error += e * e;
        square += (double)want[k] * (double)want[k];
    }
    ck_assert_msg(worst <= most * largest && sqrt(error) <= typical * sqrt(square),
                  "%s, size %zu, %s: largest error %g of %g, typical %g", device, i, name, worst, largest,
                  sqrt(error / square));
}

/* bf16 rounds probabilities and gradients of scores to 8 bits. `sharp`: where scores have grown, how much more is allowed: gradients are differences of like numbers there.
 * Twice must give the same bits. */
static void compare(const char *device, kn_precision precision, double most, double typical, double sharp)
{
    static const char *const names[] = {"y", "dq", "dk", "dv"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size *s = &sizes[i];
        const int64_t rows = (int64_t)s->n * s->heads * s->d,
                      counts[] = {rows * s->tq, rows * s->tq, rows * s->tk, rows * s->tk};
        const double slack = s->grown > 0 ? sharp : 1;
        float *want[RESULTS], *got[RESULTS], *again[RESULTS];
        for (int r = 0; r < RESULTS; r++) {
            want[r] = calloc((size_t)counts[r], sizeof(float));
            got[r] = calloc((size_t)counts[r], sizeof(float));
            again[r] = calloc((size_t)counts[r], sizeof(float));
        }
        run("reference", KN_PRECISION_F32, s, want);
        run(device, precision, s, got);
        run(device, precision, s, again);
        for (int r = 0; r < RESULTS; r++) {
            compare_one(device, i, names[r], got[r], want[r], counts[r], most * slack, typical * slack);
            ck_assert_msg(memcmp(got[r], again[r], (size_t)counts[r] * sizeof(float)) == 0,
                          "%s, size %zu, %s: two runs differ", device, i, names[r]);
            free(want[r]);
            free(got[r]);
            free(again[r]);
        }
    }
}

START_TEST(processor)
    {
        compare("cpu:1", KN_PRECISION_F32, 2e-5, 2e-6, 10);
    }
END_TEST

START_TEST(accelerator_fp32)
    {
        const char *device = es_test_accelerator_name();
        if (device)
            compare(device, KN_PRECISION_F32, 2e-5, 2e-6, 10);
    }
END_TEST

START_TEST(accelerator_bf16)
    {
        const char *device = es_test_accelerator_name();
        if (device)
            compare(device, KN_PRECISION_BF16, 2e-2, 6e-3, 3);
    }
END_TEST

/* What every GPU from 8.0 on runs (kernels/cuda/attention_warps.cu), on a newer one too. */
START_TEST(accelerator_bf16_by_warps)
    {
        setenv("ESPALIER_TEST_CAPABILITY", "8.0", 1);
        const char *device = es_test_accelerator_name();
        if (device)
            compare(device, KN_PRECISION_BF16, 2e-2, 6e-3, 3);
    }
END_TEST

ES_TEST_MAIN("attention", processor, accelerator_fp32, accelerator_bf16, accelerator_bf16_by_warps)
