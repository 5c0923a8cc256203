/* Batch norm on the accelerator in bf16, where more than one op is at work: squeeze-excite made inside the norm before it, forward and backward, and a
 * bottleneck whose last norm adds the shortcut, against the same plans without fusions and against fp32; and statistics of numbers far from zero (mean 100, deviation 1) against double precision on the host, from the norm's own kernels
 * and from the depthwise convolution's.
 *
 * ESPALIER_TEST_DEVICE names another device than the accelerator that is tried otherwise. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/device/device_internal.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan_internal.h"

enum { IN_X, IN_R, SQUEEZED = 8, PROJECTED = 16 };

static void *upload(kn_device *dev, const void *from, size_t bytes)
{
    void *p = NULL;
    es_error err = {0};
    ck_assert_ok_err(kn_device_alloc(dev, bytes, &p, &err), &err);
    ck_assert_ok_err(kn_device_upload(dev, p, from, bytes, &err), &err);
    ck_assert_ok_err(kn_device_sync(dev, &err), &err);
    return p;
}

static float *normals(uint64_t seed, int64_t n, float mean)
{
    es_rng r = es_rng_make(seed, ES_USE_TEST, 0);
    float *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++)
        v[i] = mean + es_rng_normal(&r);
    return v;
}

typedef struct trial {
    int n, h, w, c, k, stride;
    kn_act act, gate;
} trial;

typedef struct param_row {
    const char *name;
    kn_shape shape;
    kn_init_kind init;
} param_row;

enum { PARAMS_MOST = 8 };

/* What is built of a trial. */
typedef struct network {
    int params, in_channels; /* in_channels 0: as many as the trial says */
    void (*rows)(const trial *t, param_row *rows);
    void (*build)(kn_graph *g, const trial *t, const kn_param *id);
    void (*check)(const kn_plan *plan, const trial *t); /* what the trial is about did happen */
} network;

static int out_size(int size, int stride) { return (size - 1) / stride + 1; }

static kn_params *declare(const network *net, const trial *t, kn_param *id)
{
    param_row rows[PARAMS_MOST];
    kn_params *p = kn_params_new();
    es_error err = {0};
    net->rows(t, rows);
    for (int i = 0; i < net->params; i++)
        ck_assert_ok_err(kn_params_add(p, rows[i].name, rows[i].shape, rows[i].init, 0, &id[i], &err), &err);
    kn_params_seal(p);
    return p;
}

static void finish(kn_graph *g, const trial *t, kn_val y)
{
    kn_val r =
        kn_input(g, IN_R, KN_SHAPE(t->n, out_size(t->h, t->stride), out_size(t->w, t->stride), PROJECTED), KN_F32);
    kn_val loss = kn_scale(g, kn_reduce_sum(g, kn_mul(g, y, r), KN_AXES_ALL), 1.0f / (float)t->n);
    es_error err = {0};
    kn_output(g, 0, kn_reshape(g, loss, kn_shape_make(0, NULL)));
    ck_assert_ok_err(kn_graph_status(g, &err), &err);
    ck_assert_ok_err(kn_grad_params(g, loss, NULL, NULL, &err), &err);
}

static int nodes_of(const kn_plan *p, kn_op op, int n_in)
{
    int n = 0;
    for (uint32_t i = 0; i < p->w->n_nodes; i++)
        n += p->w->nodes[i].op == op && (n_in == 0 || p->w->nodes[i].n_in == n_in);
    return n;
}

/* --- squeeze-excite --- */

enum { W, GAMMA, BETA, SE1, BIAS1, SE2, BIAS2, PROJECT, EXCITE_PARAMS };

static void excite_rows(const trial *t, param_row *rows)
{
    const param_row all[EXCITE_PARAMS] = {{"w", KN_SHAPE(t->k, t->k, t->c), KN_INIT_HE_OUT},
                                          {"gamma", KN_SHAPE(t->c), KN_INIT_ONE},
                                          {"beta", KN_SHAPE(t->c), KN_INIT_UNIFORM_IN},
                                          {"se1", KN_SHAPE(SQUEEZED, t->c), KN_INIT_HE_IN},
                                          {"bias1", KN_SHAPE(SQUEEZED), KN_INIT_ZERO},
                                          {"se2", KN_SHAPE(t->c, SQUEEZED), KN_INIT_HE_IN},
                                          {"bias2", KN_SHAPE(t->c), KN_INIT_ZERO},
                                          {"project", KN_SHAPE(PROJECTED, 1, 1, t->c), KN_INIT_HE_OUT}};
    memcpy(rows, all, sizeof all);
}

static void excite_build(kn_graph *g, const trial *t, const kn_param *id)
{
    kn_val p[EXCITE_PARAMS];
    for (int i = 0; i < EXCITE_PARAMS; i++)
        p[i] = kn_param_slice(g, KN_SET_WEIGHTS, id[i], NULL);
    kn_val x = kn_scale(g, kn_input(g, IN_X, KN_SHAPE(t->n, t->h, t->w, t->c), KN_F32), 2.0f);
    kn_val y = kn_batch_norm(g, kn_depthwise(g, x, p[W], t->stride, t->k / 2, 1), p[GAMMA], p[BETA], 1e-3f, t->act).y;
    kn_val s = kn_reshape(g, kn_global_avg_pool(g, y), KN_SHAPE(t->n, t->c));
    s = kn_activate(g, kn_bias_act(g, kn_linear(g, s, p[SE1]), p[BIAS1], KN_ACT_NONE), KN_ACT_SILU);
    s = kn_bias_act(g, kn_linear(g, s, p[SE2]), p[BIAS2], t->gate);
    y = kn_mul(g, y, kn_reshape(g, s, KN_SHAPE(t->n, 1, 1, t->c)));
    finish(g, t, kn_conv2d(g, y, p[PROJECT], 1, 0, 1, 1));
}

static void excite_check(const kn_plan *plan, const trial *t)
{
    (void)t;
    ck_assert_int_eq(nodes_of(plan, KN_OP_REDUCE_SUM, 5), 1);
    ck_assert_int_eq(nodes_of(plan, KN_OP_MUL_REDUCE, 6), 1);
    ck_assert_int_eq(nodes_of(plan, KN_OP_BATCH_NORM_INFER, 6), 1);
    ck_assert_int_eq(nodes_of(plan, KN_OP_BATCH_NORM_INFER, 5), 0);
    ck_assert_int_eq(nodes_of(plan, KN_OP_BATCH_NORM_GRAD, 8), 1);
    ck_assert_int_eq(nodes_of(plan, KN_OP_BROADCAST, 0), 0);
}

static const network excited = {EXCITE_PARAMS, 0, excite_rows, excite_build, excite_check};

/* --- a shortcut; gate: the last norm's activation --- */

enum { EXPAND, GAMMA1, BETA1, DEPTHWISE, NARROW, GAMMA2, BETA2, BOTTLENECK_PARAMS };

static void bottleneck_rows(const trial *t, param_row *rows)
{
    const param_row all[BOTTLENECK_PARAMS] = {{"expand", KN_SHAPE(t->c, 1, 1, PROJECTED), KN_INIT_HE_OUT},
                                              {"gamma1", KN_SHAPE(t->c), KN_INIT_ONE},
                                              {"beta1", KN_SHAPE(t->c), KN_INIT_UNIFORM_IN},
                                              {"depthwise", KN_SHAPE(t->k, t->k, t->c), KN_INIT_HE_OUT},
                                              {"narrow", KN_SHAPE(PROJECTED, 1, 1, t->c), KN_INIT_HE_OUT},
                                              {"gamma2", KN_SHAPE(PROJECTED), KN_INIT_ONE},
                                              {"beta2", KN_SHAPE(PROJECTED), KN_INIT_UNIFORM_IN}};
    memcpy(rows, all, sizeof all);
}

static void bottleneck_build(kn_graph *g, const trial *t, const kn_param *id)
{
    kn_val p[BOTTLENECK_PARAMS];
    for (int i = 0; i < BOTTLENECK_PARAMS; i++)
        p[i] = kn_param_slice(g, KN_SET_WEIGHTS, id[i], NULL);
    const kn_val x = kn_scale(g, kn_input(g, IN_X, KN_SHAPE(t->n, t->h, t->w, PROJECTED), KN_F32), 2.0f);
    kn_val y = kn_batch_norm(g, kn_conv2d(g, x, p[EXPAND], 1, 0, 1, 1), p[GAMMA1], p[BETA1], 1e-3f, t->act).y;
    y = kn_conv2d(g, kn_depthwise(g, y, p[DEPTHWISE], t->stride, t->k / 2, 1), p[NARROW], 1, 0, 1, 1);
    y = kn_batch_norm(g, y, p[GAMMA2], p[BETA2], 1e-3f, t->gate).y;
    finish(g, t, t->stride == 1 ? kn_add(g, y, x) : y);
}

static void bottleneck_check(const kn_plan *plan, const trial *t)
{
    const bool shortcut = t->stride == 1 && t->gate == KN_ACT_NONE;
    ck_assert_int_eq(nodes_of(plan, KN_OP_BATCH_NORM, 4), shortcut);
    ck_assert_int_eq(nodes_of(plan, KN_OP_ADD, 0), t->stride == 1 && !shortcut);
}

static const network bottleneck = {BOTTLENECK_PARAMS, PROJECTED, bottleneck_rows, bottleneck_build, bottleneck_check};

/* --- both --- */

/* All gradients; the caller frees them. */
static float *run_block(kn_device *dev, const network *net, const trial *t, const kn_params *params, const kn_param *id,
                        kn_precision precision, bool no_fuse, float *loss)
{
    const int64_t n_x = (int64_t)t->n * t->h * t->w * (net->in_channels ? net->in_channels : t->c),
                  n_r = (int64_t)t->n * out_size(t->h, t->stride) * out_size(t->w, t->stride) * PROJECTED,
                  n_w = kn_params_elements(params);
    const kn_params *sets[KN_SETS] = {params};
    float *x = normals(1, n_x, 0.3f), *r = normals(2, n_r, 0.1f), *grads = malloc((size_t)n_w * sizeof *grads);
    kn_graph *g = kn_graph_new(sets);
    kn_weights *w = NULL;
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    es_error err = {0};
    net->build(g, t, id);
    ck_assert_ok_err(kn_weights_new(dev, params, KN_WITH_GRAD, &w, &err), &err);
    ck_assert_ok_err(kn_weights_init(w, 3, &err), &err);
    ck_assert_ok_err(kn_weights_zero_grads(w, &err), &err);
    kn_binding b = {.in = {upload(dev, x, (size_t)n_x * sizeof *x), upload(dev, r, (size_t)n_r * sizeof *r)},
                    .out = {upload(dev, loss, sizeof *loss)},
                    .weights = {w},
                    .seed = 1};
    const kn_plan_options o = {.precision = precision, .no_fuse = no_fuse};
    ck_assert_ok_err(kn_plan_make(dev, g, &o, &plan, &err), &err);
    if (precision == KN_PRECISION_BF16 && !no_fuse)
        net->check(plan, t);
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    ck_assert_ok_err(kn_device_download(dev, grads, kn_weights_grads(w), (size_t)n_w * sizeof *grads, &err), &err);
    ck_assert_ok_err(kn_device_download(dev, loss, b.out[0], sizeof *loss, &err), &err);
    for (int i = 0; i < 2; i++)
        kn_device_free(dev, (void *)(uintptr_t)b.in[i]);
    kn_device_free(dev, b.out[0]);
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_weights_destroy(&w);
    kn_graph_destroy(&g);
    free(x);
    free(r);
    return grads;
}

/* Root of mean squares of the difference, as a part of those of `want`. */
static double distance(const float *got, const float *want, int64_t n)
{
    double d = 0, all = 1e-12;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        all += (double)want[i] * want[i];
    }
    return isnan(d) ? INFINITY : sqrt(d / all);
}

static void compare(kn_device *dev, const network *net, const trial *t, size_t number)
{
    kn_param id[PARAMS_MOST];
    kn_params *params = declare(net, t, id);
    float loss[4] = {0};
    float *exact = run_block(dev, net, t, params, id, KN_PRECISION_F32, true, &loss[0]),
          *plain = run_block(dev, net, t, params, id, KN_PRECISION_BF16, true, &loss[1]),
          *fused = run_block(dev, net, t, params, id, KN_PRECISION_BF16, false, &loss[2]),
          *again = run_block(dev, net, t, params, id, KN_PRECISION_BF16, false, &loss[3]);
    ck_assert_int_eq(memcmp(fused, again, (size_t)kn_params_elements(params) * sizeof *fused), 0);
    ck_assert_int_eq(memcmp(&loss[2], &loss[3], sizeof *loss), 0);
    for (int k = 0; k < net->params; k++) {
        const kn_param_def *d = kn_params_def(params, id[k]);
        const int64_t n = kn_shape_count(&d->shape);
        const double without = distance(plain + d->offset, exact + d->offset, n),
                     with = distance(fused + d->offset, exact + d->offset, n);
        ck_assert_msg(with < 0.03 + 1.3 * without && with < 0.1,
                      "trial %zu, gradient of %s: %g from fp32, %g without fusions", number, d->name, with, without);
    }
    free(exact);
    free(plain);
    free(fused);
    free(again);
    kn_params_destroy(&params);
}

START_TEST(excite)
    {
        static const trial trials[] = {
            {3, 7, 9, 24, 3, 1, KN_ACT_SILU, KN_ACT_SIGMOID},     {33, 4, 4, 72, 5, 1, KN_ACT_HSWISH, KN_ACT_HSIGMOID},
            {2, 30, 31, 40, 5, 1, KN_ACT_SILU, KN_ACT_SIGMOID},   {160, 8, 8, 24, 3, 1, KN_ACT_SILU, KN_ACT_SIGMOID},
            {9, 4, 4, 64, 5, 2, KN_ACT_RELU, KN_ACT_SIGMOID},     {2, 5, 6, 7, 3, 1, KN_ACT_SILU, KN_ACT_SIGMOID},
            {300, 8, 8, 40, 3, 1, KN_ACT_RELU6, KN_ACT_HSIGMOID},
        };
        kn_device *dev = es_test_accelerator("bf16 is for accelerators");
        if (dev == NULL)
            return;
        for (size_t i = 0; i < sizeof trials / sizeof *trials; i++)
            compare(dev, &excited, &trials[i], i);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(shortcut)
    {
        static const trial trials[] = {
            {160, 8, 8, 24, 3, 1, KN_ACT_SILU, KN_ACT_NONE}, {300, 8, 8, 24, 5, 1, KN_ACT_HSWISH, KN_ACT_NONE},
            {9, 4, 4, 64, 3, 1, KN_ACT_SILU, KN_ACT_NONE},   {8, 80, 81, 24, 3, 1, KN_ACT_RELU, KN_ACT_NONE},
            {160, 8, 8, 24, 7, 1, KN_ACT_SILU, KN_ACT_RELU}, {12, 32, 31, 40, 3, 2, KN_ACT_SILU, KN_ACT_NONE},
        };
        kn_device *dev = es_test_accelerator("bf16 is for accelerators");
        if (dev == NULL)
            return;
        for (size_t i = 0; i < sizeof trials / sizeof *trials; i++)
            compare(dev, &bottleneck, &trials[i], i);
        kn_device_close(&dev);
    }
END_TEST

/* --- statistics far from zero --- */

static float rounded(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&v, &u, sizeof v);
    return v;
}

/* One channel's result of a depthwise convolution of [n][size][size][c], or x itself (k 0). */
static double value_at(const trial *t, const float *x, const float *w, int n, int y, int col, int c)
{
    double sum = 0;
    if (t->k == 0)
        return rounded(2 * x[((n * t->h + y) * t->w + col) * t->c + c]);
    for (int ky = 0; ky < t->k; ky++)
        for (int kx = 0; kx < t->k; kx++) {
            const int iy = y * t->stride + ky - t->k / 2, ix = col * t->stride + kx - t->k / 2;
            if (iy >= 0 && iy < t->h && ix >= 0 && ix < t->w)
                sum += (double)rounded(2 * x[((n * t->h + iy) * t->w + ix) * t->c + c]) *
                       (double)rounded(0.5f * w[(ky * t->k + kx) * t->c + c]);
        }
    return sum;
}

static void statistics_of(kn_device *dev, const trial *t, const float *x, const float *w, float *out[2])
{
    const kn_params *sets[KN_SETS] = {NULL};
    const kn_shape shape = KN_SHAPE(t->n, t->h, t->w, t->c), kernel = KN_SHAPE(t->k, t->k, t->c);
    kn_graph *g = kn_graph_new(sets);
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    es_error err = {0};
    kn_val y = kn_scale(g, kn_input(g, IN_X, shape, KN_F32), 2.0f);
    if (t->k > 0)
        y = kn_depthwise(g, y, kn_scale(g, kn_input(g, IN_R, kernel, KN_F32), 0.5f), t->stride, t->k / 2, 1);
    kn_bn n = kn_batch_norm(g, y, KN_NONE, KN_NONE, 1e-3f, t->act);
    kn_output_kept(g, 0, n.y);
    kn_output(g, 1, n.mean);
    kn_output(g, 2, n.var);
    const kn_shape made = kn_shape_of(g, n.y);
    float *zero = calloc((size_t)kn_shape_count(&made), sizeof *zero);
    kn_binding b = {.seed = 1};
    b.in[IN_X] = upload(dev, x, (size_t)kn_shape_count(&shape) * sizeof *x);
    b.in[IN_R] = t->k > 0 ? upload(dev, w, (size_t)kn_shape_count(&kernel) * sizeof *w) : NULL;
    for (int i = 0; i < 3; i++)
        b.out[i] = upload(dev, zero, (size_t)kn_shape_count(&made) * sizeof *zero);
    const kn_plan_options o = {.precision = KN_PRECISION_BF16};
    ck_assert_ok_err(kn_plan_make(dev, g, &o, &plan, &err), &err);
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    for (int i = 0; i < 2; i++)
        ck_assert_ok_err(kn_device_download(dev, out[i], b.out[i + 1], (size_t)t->c * sizeof(float), &err), &err);
    for (int i = 0; i < 3; i++)
        kn_device_free(dev, b.out[i]);
    for (int i = 0; i < 2; i++)
        kn_device_free(dev, (void *)(uintptr_t)b.in[i]);
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
    free(zero);
}

START_TEST(far_from_zero)
    {
        /* One pixel an image: no zeros at borders, whose variance would hide what is lost. k 0: the norm's own statistics, in a cluster and in columns. */
        static const trial trials[] = {
            {.n = 512, .h = 1, .w = 1, .c = 40, .k = 3, .stride = 1},
            {.n = 512, .h = 1, .w = 1, .c = 40, .k = 5, .stride = 1},
            {.n = 512, .h = 2, .w = 2, .c = 24, .k = 3, .stride = 2},
            {.n = 4, .h = 96, .w = 96, .c = 8, .k = 3, .stride = 1},
            {.n = 512, .h = 2, .w = 2, .c = 40, .k = 0, .stride = 1},
            {.n = 300, .h = 8, .w = 8, .c = 24, .k = 0, .stride = 1},
            {.n = 4, .h = 96, .w = 96, .c = 40, .k = 0, .stride = 1},
            {.n = 512, .h = 2, .w = 2, .c = 7, .k = 0, .stride = 1},
        };
        kn_device *dev = es_test_accelerator("bf16 is for accelerators");
        if (dev == NULL)
            return;
        for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
            const trial *t = &trials[i];
            const int oh = (t->h - 1) / t->stride + 1, ow = (t->w - 1) / t->stride + 1;
            float *x = normals(5, (int64_t)t->n * t->h * t->w * t->c, 100.0f), *w = normals(6, 25 * t->c, 0.0f);
            float mean[64], var[64], *out[2] = {mean, var};
            statistics_of(dev, t, x, w, out);
            for (int c = 0; c < t->c; c++) {
                const double n = (double)t->n * oh * ow;
                double m = 0, v = 0;
                for (int pass = 0; pass < 2; pass++)
                    for (int q = 0; q < t->n * oh * ow; q++) {
                        const double y = value_at(t, x, w, q / (oh * ow), q / ow % oh, q % ow, c);
                        if (pass == 0)
                            m += y / n;
                        else
                            v += (y - m) * (y - m) / n;
                    }
                ck_assert_msg(fabs(mean[c] - m) < 1e-3 * sqrt(v) + 1e-6 * fabs(m) && fabs(var[c] - v) < 1e-3 * v,
                              "trial %zu, channel %d: mean %g (%g), variance %g (%g)", i, c, (double)mean[c], m,
                              (double)var[c], v);
            }
            free(x);
            free(w);
        }
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("cuda_norm", excite, shortcut, far_from_zero)
