/* Self-attention is attention of its thirds: the same bits from one tensor of queries, keys and values and from three, with the gradient, on every device.
 *
 * A transpose on either side keeps the values between in the plan's own storage. ESPALIER_TEST_DEVICE names another device than the accelerator that is tried otherwise. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"

typedef struct size {
    int n, t, heads, d;
    bool causal;
} size;
static const size sizes[] = {{2, 128, 3, 64, true}, {1, 200, 2, 64, true}, {2, 70, 1, 64, false}, {1, 9, 2, 5, true}};
enum { IN_QKV, IN_WEIGHT, OUT_Y, OUT_DQKV };

/* Adds y and the gradient of qkv to g, as outputs. */
static void build(kn_graph *g, const size *s, bool together)
{
    static const int turn[] = {0, 2, 1, 3};
    const kn_shape shape = KN_SHAPE(s->n, s->heads, s->t, 3 * s->d), y_shape = KN_SHAPE(s->n, s->heads, s->t, s->d);
    const float scale = 0.125f;
    es_error err = {0};
    kn_val x = kn_input(g, IN_QKV, shape, KN_F32), qkv = kn_transpose(g, x, turn), y, dx, part[3];
    kn_shape turned = kn_shape_of(g, qkv);
    kn_box box = kn_box_full(&turned);
    box.extent[3] = s->d;
    for (int i = 0; i < 3; i++) {
        box.start[3] = i * s->d;
        part[i] = kn_slice(g, qkv, &box);
    }
    y = together ? kn_self_attention(g, qkv, scale, s->causal)
                 : kn_attention(g, part[0], part[1], part[2], scale, s->causal);
    y = kn_transpose(g, y, turn);
    kn_val loss = kn_reduce_sum(g, kn_mul(g, y, kn_input(g, IN_WEIGHT, y_shape, KN_F32)), KN_AXES_ALL);
    ck_assert_ok_err(kn_grad(g, loss, &x, 1, &dx, &err), &err);
    kn_output(g, OUT_Y, y);
    kn_output(g, OUT_DQKV, dx);
}

static void *on_device(kn_device *dev, int64_t count, uint64_t use)
{
    const size_t bytes = (size_t)count * sizeof(float);
    float *v = malloc(bytes);
    void *p = NULL;
    es_error err = {0};
    es_rng r = es_rng_make(6, ES_USE_TEST, use);
    for (int64_t i = 0; i < count; i++)
        v[i] = es_rng_normal(&r);
    ck_assert_ok_err(kn_device_alloc(dev, bytes, &p, &err), &err);
    ck_assert_ok_err(kn_device_upload(dev, p, v, bytes, &err), &err);
    free(v);
    return p;
}

static void run(kn_device *dev, kn_precision precision, const size *s, bool together, float *y, float *dqkv)
{
    const int64_t count = (int64_t)s->n * s->heads * s->t * s->d;
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    es_error err = {0};
    kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){NULL});
    build(g, s, together);
    void *memory[] = {on_device(dev, 3 * count, 0), on_device(dev, count, 1), on_device(dev, count, 2),
                      on_device(dev, 3 * count, 3)};
    kn_binding b = {.in = {memory[IN_QKV], memory[IN_WEIGHT]},
                    .out = {[OUT_Y] = memory[OUT_Y], [OUT_DQKV] = memory[OUT_DQKV]}};
    ck_assert_ok_err(kn_plan_make(dev, g, &(kn_plan_options){.precision = precision}, &plan, &err), &err);
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    ck_assert_ok_err(kn_device_sync(dev, &err), &err);
    ck_assert_ok_err(kn_device_download(dev, y, memory[OUT_Y], (size_t)count * sizeof *y, &err), &err);
    ck_assert_ok_err(kn_device_download(dev, dqkv, memory[OUT_DQKV], 3 * (size_t)count * sizeof *dqkv, &err), &err);
    for (int i = 0; i < 4; i++)
        kn_device_free(dev, memory[i]);
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
}

static void compare(const char *device, kn_precision precision)
{
    kn_device *dev = NULL;
    es_error err = {0};
    ck_assert_ok_err(kn_device_open(device, &dev, &err), &err);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size *s = &sizes[i];
        const size_t count = (size_t)(s->n * s->heads * s->t * s->d);
        float *y[2], *d[2];
        for (int k = 0; k < 2; k++) {
            y[k] = malloc(count * sizeof **y);
            d[k] = malloc(3 * count * sizeof **d);
            run(dev, precision, s, k == 0, y[k], d[k]);
        }
        for (size_t k = 0; k < 3 * count; k++)
            ck_assert_msg((k >= count || y[0][k] == y[1][k]) && d[0][k] == d[1][k], "%s, size %zu, element %zu", device,
                          i, k);
        for (int k = 0; k < 2; k++) {
            free(y[k]);
            free(d[k]);
        }
    }
    kn_device_close(&dev);
}

START_TEST(processor)
    {
        compare("reference", KN_PRECISION_F32);
        compare("cpu:2", KN_PRECISION_F32);
    }
END_TEST

START_TEST(accelerator)
    {
        kn_device *dev = es_test_accelerator(NULL);
        if (!dev)
            return;
        const char *device = es_test_accelerator_name();
        const bool cuda = kn_device_backend(dev) == KN_BACKEND_CUDA;
        kn_device_close(&dev);
        compare(device, KN_PRECISION_F32);
        if (cuda)
            compare(device, KN_PRECISION_BF16);
    }
END_TEST

ES_TEST_MAIN("self_attention", processor, accelerator)
