/* Batch norm inside convolutions (kernels/cpu/fuse.h): a training step of inverted bottlenecks gives the same loss and gradients fused, as built, and on
 * the reference device; fused, it gives the same bits whatever the number of threads. */
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"

enum { BLOCKS = 3, BATCH = 8, CLASSES = 5, WEIGHTS = 8 };

typedef struct block {
    int expand, out, kernel, stride; /* expand 1: no first convolution */
    kn_act act;
    kn_param w[WEIGHTS]; /* expand, its gamma and beta, depthwise, gamma, beta, project, gamma */
} block;

typedef struct net {
    block b[BLOCKS];
    kn_param stem, stem_gamma, fc;
    kn_params *params;
} net;

static kn_param add(net *n, const char *name, int i, kn_shape shape, kn_init_kind init)
{
    char full[32];
    kn_param id = 0;
    es_error err;
    snprintf(full, sizeof full, "%s.%d", name, i);
    /* One more of everything than a subnet uses: slices are strided. */
    for (int d = 0; d < shape.rank; d++)
        shape.d[d] += shape.d[d] == 1 ? 0 : shape.rank == 3 && d < 2 ? 2 : 3;
    ck_assert_ok_err(kn_params_add(n->params, full, shape, init, 0, &id, &err), &err);
    return id;
}

static net make_net(kn_act act)
{
    /* Channel counts with and without whole vectors; a stride; a residual; a block without expansion. */
    net n = {.b = {{3, 12, 5, 2, act}, {6, 12, 3, 1, act}, {1, 16, 3, 1, act}}, .params = kn_params_new()};
    int ci = 16;
    n.stem = add(&n, "stem", 0, KN_SHAPE(16, 3, 3, 1), KN_INIT_HE_IN);
    n.stem_gamma = add(&n, "stem.gamma", 0, KN_SHAPE(16), KN_INIT_ONE);
    for (int i = 0; i < BLOCKS; i++) {
        block *b = &n.b[i];
        const int m = ci * b->expand;
        b->w[0] = add(&n, "expand", i, KN_SHAPE(m, 1, 1, ci), KN_INIT_HE_IN);
        b->w[1] = add(&n, "expand.gamma", i, KN_SHAPE(m), KN_INIT_ONE);
        b->w[2] = add(&n, "expand.beta", i, KN_SHAPE(m), KN_INIT_NORMAL_002);
        b->w[3] = add(&n, "depthwise", i, KN_SHAPE(b->kernel, b->kernel, m), KN_INIT_UNIFORM_IN);
        b->w[4] = add(&n, "depthwise.gamma", i, KN_SHAPE(m), KN_INIT_ONE);
        b->w[5] = add(&n, "depthwise.beta", i, KN_SHAPE(m), KN_INIT_NORMAL_002);
        b->w[6] = add(&n, "project", i, KN_SHAPE(b->out, 1, 1, m), KN_INIT_HE_IN);
        b->w[7] = add(&n, "project.gamma", i, KN_SHAPE(b->out), KN_INIT_ONE);
        ci = b->out;
    }
    n.fc = add(&n, "fc", 0, KN_SHAPE(CLASSES, ci), KN_INIT_HE_IN);
    kn_params_seal(n.params);
    return n;
}

static kn_val slice(kn_graph *g, kn_param id, kn_shape extent)
{
    kn_box b = kn_box_full(&extent);
    if (extent.rank == 3)
        b.start[0] = b.start[1] = 1;
    return kn_param_slice(g, KN_SET_WEIGHTS, id, &b);
}

static kn_val bottleneck(kn_graph *g, const block *b, kn_val x)
{
    const int ci = kn_shape_of(g, x).d[3], m = ci * b->expand;
    kn_val y = x;
    if (b->expand > 1) {
        y = kn_conv2d(g, y, slice(g, b->w[0], KN_SHAPE(m, 1, 1, ci)), 1, 0, 1, 1);
        y = kn_batch_norm(g, y, slice(g, b->w[1], KN_SHAPE(m)), slice(g, b->w[2], KN_SHAPE(m)), 1e-3f, b->act).y;
    }
    y = kn_depthwise(g, y, slice(g, b->w[3], KN_SHAPE(b->kernel, b->kernel, m)), b->stride, b->kernel / 2, 1);
    y = kn_batch_norm(g, y, slice(g, b->w[4], KN_SHAPE(m)), slice(g, b->w[5], KN_SHAPE(m)), 1e-3f, b->act).y;
    y = kn_conv2d(g, y, slice(g, b->w[6], KN_SHAPE(b->out, 1, 1, m)), 1, 0, 1, 1);
    y = kn_batch_norm(g, y, slice(g, b->w[7], KN_SHAPE(b->out)), KN_NONE, 1e-3f, KN_ACT_NONE).y;
    return b->stride == 1 && ci == b->out ? kn_add(g, x, y) : y;
}

/* One training step without the update; `grads` gets all gradients, the return value is the loss. */
static float run(const net *n, const char *device, bool no_fuse, float *grads, size_t *steps, size_t *bytes)
{
    kn_device *dev = NULL;
    kn_weights *w = NULL;
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){n->params, NULL});
    es_error err = {0};
    static float images[BATCH * 18 * 18], loss;
    int32_t labels[BATCH];
    es_rng r = es_rng_make(3, ES_USE_TEST, 0);
    for (size_t i = 0; i < sizeof images / sizeof *images; i++)
        images[i] = es_rng_normal(&r);
    for (int i = 0; i < BATCH; i++)
        labels[i] = i % CLASSES;
    ck_assert_ok_err(kn_device_open(device, &dev, &err), &err);
    ck_assert_ok_err(kn_weights_new(dev, n->params, KN_WITH_GRAD, &w, &err), &err);
    ck_assert_ok_err(kn_weights_init(w, 5, &err), &err);
    ck_assert_ok_err(kn_weights_zero_grads(w, &err), &err);
    kn_val x = kn_input(g, 0, KN_SHAPE(BATCH, 18, 18, 1), KN_F32);
    x = kn_conv2d(g, x, slice(g, n->stem, KN_SHAPE(16, 3, 3, 1)), 1, 1, 1, 1);
    x = kn_batch_norm(g, x, slice(g, n->stem_gamma, KN_SHAPE(16)), KN_NONE, 1e-3f, n->b[0].act).y;
    for (int i = 0; i < BLOCKS; i++)
        x = bottleneck(g, &n->b[i], x);
    const int c = kn_shape_of(g, x).d[3];
    x = kn_linear(g, kn_reshape(g, kn_global_avg_pool(g, x), KN_SHAPE(BATCH, c)),
                  slice(g, n->fc, KN_SHAPE(CLASSES, c)));
    kn_val l = kn_reduce_mean(g, kn_cross_entropy(g, x, kn_input(g, 1, KN_SHAPE(BATCH), KN_I32), 0.0f), KN_AXES_ALL);
    kn_output(g, 0, kn_reshape(g, l, kn_shape_make(0, NULL)));
    ck_assert_ok_err(kn_grad_params(g, l, NULL, NULL, &err), &err);
    ck_assert_ok_err(kn_plan_make(dev, g, &(kn_plan_options){.no_fuse = no_fuse}, &plan, &err), &err);
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    kn_binding b = {.in = {images, labels}, .out = {&loss}, .weights = {w}};
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    memcpy(grads, kn_weights_grads(w), sizeof *grads * (size_t)kn_params_elements(n->params));
    *steps = kn_plan_steps(plan);
    *bytes = kn_plan_workspace_bytes(plan);
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
    kn_weights_destroy(&w);
    kn_device_close(&dev);
    return loss;
}

static float *room(const net *n) { return calloc((size_t)kn_params_elements(n->params), sizeof(float)); }

/* Per parameter, relative to its largest gradient. */
static void compare(const net *n, const float *a, const float *b, const char *what)
{
    for (int i = 0; i < kn_params_count(n->params); i++) {
        const kn_param_def *d = kn_params_def(n->params, i);
        double most = 1e-3, far = 0.0;
        for (int64_t j = d->offset; j < d->offset + d->count; j++) {
            most = fabs(b[j]) > most ? fabs(b[j]) : most;
            far = fabs(a[j] - b[j]) > far ? fabs(a[j] - b[j]) : far;
        }
        ck_assert_msg(far <= 2e-4 * most, "%s, gradient of %s: differs by %g where the largest is %g", what, d->name,
                      far, most);
    }
}

START_TEST(same_gradients)
    {
        const kn_act acts[] = {KN_ACT_SILU, KN_ACT_RELU, KN_ACT_HSWISH, KN_ACT_GELU};
        for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
            net n = make_net(acts[i]);
            float *fused = room(&n), *plain = room(&n), *reference = room(&n);
            size_t steps[3], bytes[3];
            float loss[3] = {run(&n, "cpu", false, fused, &steps[0], &bytes[0]),
                             run(&n, "cpu", true, plain, &steps[1], &bytes[1]),
                             run(&n, "reference", true, reference, &steps[2], &bytes[2])};
            ck_assert_float_eq_tol(loss[0], loss[2], 1e-5f);
            ck_assert_float_eq_tol(loss[1], loss[2], 1e-5f);
            compare(&n, plain, reference, "as built");
            compare(&n, fused, reference, "fused");
            /* It did happen: six norms need no tensor, six convolutions one pass backward. */
            ck_assert_uint_lt(steps[0] + 6, steps[1]);
            ck_assert_uint_lt(4 * bytes[0], 3 * bytes[1]);
            free(fused);
            free(plain);
            free(reference);
            kn_params_destroy(&n.params);
        }
    }
END_TEST

START_TEST(any_number_of_threads)
    {
        net n = make_net(KN_ACT_SILU);
        float *one = room(&n), *more = room(&n);
        size_t steps, bytes;
        float loss = run(&n, "cpu:1", false, one, &steps, &bytes);
        for (int t = 2; t <= 5; t++) {
            char name[16];
            snprintf(name, sizeof name, "cpu:%d", t);
            ck_assert_float_eq(run(&n, name, false, more, &steps, &bytes), loss);
            ck_assert_mem_eq(one, more, sizeof *one * (size_t)kn_params_elements(n.params));
        }
        free(one);
        free(more);
        kn_params_destroy(&n.params);
    }
END_TEST

ES_TEST_MAIN("cpu_fuse", same_gradients, any_number_of_threads)
