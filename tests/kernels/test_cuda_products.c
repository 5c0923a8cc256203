/* What an accelerator puts into the epilogue of a product (kernels/cuda/fuse_products.cu): gelu, its gradient and a residual sum in bf16, against the same network in fp32, and that
 * they are no launches of their own. Rows and widths of no particular size, weights that are slices of larger ones, a width that gelu's epilogues do not take. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"

typedef struct size {
    int rows, width, hidden,
        joined; /* launches that products take over; gelu's gradient is there twice, for dx and for the weights */
} size;
static const size sizes[] = {{64, 64, 128, 4}, {1000, 384, 768, 4}, {37, 24, 72, 4}, {200, 40, 20, 1}};
enum { RESULTS = 4 }; /* y, dx, gradients of both weights */

typedef struct net {
    const size *s;
    kn_params *params;
    kn_param up, down;
    kn_device *dev;
    kn_weights *weights;
    float *result[RESULTS];
    int64_t count[RESULTS];
    size_t steps;
} net;

static kn_val slice(kn_graph *g, kn_param id, int rows, int cols)
{
    const kn_box box = {.extent = {rows, cols, 1, 1, 1}};
    return kn_param_slice(g, KN_SET_WEIGHTS, id, &box);
}

static void open_net(net *n, kn_device *dev, const size *s)
{
    es_error err = {0};
    *n = (net){.s = s, .dev = dev, .params = kn_params_new()};
    ck_assert_ok_err(
        kn_params_add(n->params, "up", KN_SHAPE(s->hidden + 8, s->width + 16), KN_INIT_HE_OUT, 0, &n->up, &err), &err);
    ck_assert_ok_err(
        kn_params_add(n->params, "down", KN_SHAPE(s->width + 16, s->hidden + 8), KN_INIT_UNIFORM_IN, 0, &n->down, &err),
        &err);
    kn_params_seal(n->params);
    ck_assert_ok_err(kn_weights_new(dev, n->params, KN_WITH_GRAD, &n->weights, &err), &err);
    ck_assert_ok_err(kn_weights_init(n->weights, 3, &err), &err);
    n->count[0] = n->count[1] = (int64_t)s->rows * s->width;
    n->count[2] = n->count[3] = (int64_t)(s->hidden + 8) * (s->width + 16);
    for (int i = 0; i < RESULTS; i++)
        n->result[i] = calloc((size_t)n->count[i], sizeof(float));
}

static void close_net(net *n)
{
    for (int i = 0; i < RESULTS; i++)
        free(n->result[i]);
    kn_weights_destroy(&n->weights);
    kn_params_destroy(&n->params);
}

/* y = x + down gelu(up x), of x that the plan stores itself; loss = sum(y t). */
static void build(const net *n, kn_graph *g)
{
    static const int turn[] = {1, 0};
    const size *s = n->s;
    es_error err = {0};
    kn_val in = kn_input(g, 0, KN_SHAPE(s->width, s->rows), KN_F32), x = kn_transpose(g, in, turn), dx;
    kn_val a = kn_activate(g, kn_linear(g, x, slice(g, n->up, s->hidden, s->width)), KN_ACT_GELU);
    kn_val y = kn_transpose(g, kn_add(g, x, kn_linear(g, a, slice(g, n->down, s->width, s->hidden))), turn);
    kn_val loss = kn_reduce_sum(g, kn_mul(g, y, kn_input(g, 1, KN_SHAPE(s->width, s->rows), KN_F32)), KN_AXES_ALL);
    ck_assert_ok_err(kn_grad(g, loss, &in, 1, &dx, &err), &err);
    ck_assert_ok_err(kn_grad_params(g, loss, NULL, NULL, &err), &err);
    kn_output(g, 0, y);
    kn_output(g, 1, dx);
}

static void run(net *n, kn_precision precision)
{
    const size_t bytes = (size_t)n->count[0] * sizeof(float);
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    es_error err = {0};
    kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){n->params});
    void *memory[4] = {NULL};
    build(n, g);
    for (int i = 0; i < 4; i++) {
        es_rng r = es_rng_make(8, ES_USE_TEST, (uint64_t)i);
        for (int64_t k = 0; k < n->count[0]; k++)
            n->result[0][k] = es_rng_normal(&r);
        ck_assert_ok_err(kn_device_alloc(n->dev, bytes, &memory[i], &err), &err);
        ck_assert_ok_err(kn_device_upload(n->dev, memory[i], n->result[0], bytes, &err), &err);
    }
    ck_assert_ok_err(kn_weights_zero_grads(n->weights, &err), &err);
    ck_assert_ok_err(kn_plan_make(n->dev, g, &(kn_plan_options){.precision = precision}, &plan, &err), &err);
    n->steps = kn_plan_steps(plan);
    ck_assert_ok_err(kn_workspace_new(n->dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    const kn_binding b = {.in = {memory[0], memory[1]}, .out = {memory[2], memory[3]}, .weights = {n->weights}};
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    ck_assert_ok_err(kn_device_sync(n->dev, &err), &err);
    for (int i = 0; i < 2; i++)
        ck_assert_ok_err(kn_device_download(n->dev, n->result[i], memory[2 + i], bytes, &err), &err);
    const kn_param id[] = {n->up, n->down};
    for (int i = 0; i < 2; i++)
        ck_assert_ok_err(kn_device_download(n->dev, n->result[2 + i],
                                            kn_weights_grads(n->weights) + kn_params_def(n->params, id[i])->offset,
                                            (size_t)n->count[2] * sizeof(float), &err),
                         &err);
    for (int i = 0; i < 4; i++)
        kn_device_free(n->dev, memory[i]);
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
}

START_TEST(epilogues)
    {
        static const char *const names[RESULTS] = {"y", "dx", "gradient of up", "gradient of down"};
        kn_device *dev = es_test_accelerator("products with epilogues are for accelerators");
        if (!dev)
            return;
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            net exact, once, again;
            open_net(&exact, dev, &sizes[i]);
            open_net(&once, dev, &sizes[i]);
            open_net(&again, dev, &sizes[i]);
            run(&exact, KN_PRECISION_F32);
            run(&once, KN_PRECISION_BF16);
            run(&again, KN_PRECISION_BF16);
            ck_assert_int_eq((int)once.steps, (int)exact.steps - sizes[i].joined);
            for (int r = 0; r < RESULTS; r++) {
                double error = 0, square = 0;
                for (int64_t k = 0; k < exact.count[r]; k++) {
                    const double e = (double)once.result[r][k] - (double)exact.result[r][k];
                    ck_assert(once.result[r][k] == again.result[r][k]);
                    error += e * e;
                    square += (double)exact.result[r][k] * (double)exact.result[r][k];
                }
                ck_assert_msg(sqrt(error) <= 8e-3 * sqrt(square), "size %zu, %s: typical error %g", i, names[r],
                              sqrt(error / square));
            }
            close_net(&exact);
            close_net(&once);
            close_net(&again);
        }
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("cuda_products", epilogues)
