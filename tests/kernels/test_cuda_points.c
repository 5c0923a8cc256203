/* Convolutions of 1x1 that an accelerator runs with what stands around them (kernels/cuda/fuse_points.cu, product.cu), in bf16: a norm with given statistics and its activation, a
 * residual sum, squeeze-excite's scales. Against the same network in fp32 and without fusions, over random shapes: rows and widths of no particular size, weights that are slices
 * beginning anywhere; and twice, for the same bits. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/device/device_internal.h"
#include "kernels/plan/plan.h"
#include "kernels/plan/plan_internal.h"

enum { IN_X, IN_S, IN_R, INPUTS, NORM_IN = 6, RESIDUAL_IN, EXCITE_IN, MORE = 24, RANDOM = 40 };

typedef struct trial {
    int n, h, w, k, c; /* k channels in, c out */
    kn_act act;
    bool residual, excite;
    int start; /* where slices begin, of every dimension */
} trial;

typedef struct net {
    const trial *t;
    kn_device *dev;
    kn_params *params[KN_SETS];
    kn_param w, gamma, beta, mean, var;
    kn_weights *weights[KN_SETS];
    void *in[INPUTS], *out;
    int64_t results;
} net;

static kn_shape shape_of(const trial *t, int which)
{
    return which == IN_X   ? KN_SHAPE(t->n, t->h, t->w, t->k)
           : which == IN_S ? KN_SHAPE(t->n, 1, 1, t->k)
                           : KN_SHAPE(t->n, t->h, t->w, t->c);
}

static kn_param add(kn_params *p, const char *name, kn_shape shape)
{
    kn_param id;
    es_error err = {0};
    ck_assert_ok_err(kn_params_add(p, name, shape, KN_INIT_ZERO, 0, &id, &err), &err);
    return id;
}

/* Numbers around `mean`, at least `least`. */
static float *random_numbers(uint64_t seed, int64_t n, float mean, float deviation, float least)
{
    es_rng r = es_rng_make(seed, ES_USE_TEST, 0);
    float *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++) {
        v[i] = mean + deviation * es_rng_normal(&r);
        v[i] = v[i] < least ? least : v[i];
    }
    return v;
}

static void open_set(net *n, int set, float mean, float deviation, float least)
{
    es_error err = {0};
    kn_params_seal(n->params[set]);
    const int64_t count = kn_params_elements(n->params[set]);
    float *v = random_numbers(11 + (uint64_t)set, count, mean, deviation, least);
    ck_assert_ok_err(kn_weights_new(n->dev, n->params[set], 0, &n->weights[set], &err), &err);
    ck_assert_ok_err(kn_weights_upload(n->weights[set], v, &err), &err);
    ck_assert_ok_err(kn_weights_changed(n->weights[set], &err), &err);
    free(v);
}

static void open_net(net *n, kn_device *dev, const trial *t)
{
    es_error err = {0};
    *n = (net){.t = t, .dev = dev, .params = {kn_params_new(), kn_params_new()}};
    n->w = add(n->params[0], "w", KN_SHAPE(t->c + MORE, 1, 1, t->k + MORE));
    n->gamma = add(n->params[0], "gamma", KN_SHAPE(t->c + MORE));
    n->beta = add(n->params[0], "beta", KN_SHAPE(t->c + MORE));
    n->mean = add(n->params[1], "mean", KN_SHAPE(t->c + MORE));
    n->var = add(n->params[1], "var", KN_SHAPE(t->c + MORE));
    open_set(n, KN_SET_WEIGHTS, 0.1f, 1.0f / sqrtf((float)t->k), -9);
    open_set(n, KN_SET_STATS, 0.5f, 0.5f, 0.1f);
    for (int i = 0; i < INPUTS; i++) {
        const kn_shape s = shape_of(t, i);
        const size_t bytes = (size_t)kn_shape_count(&s) * sizeof(float);
        float *v = random_numbers(20 + (uint64_t)i, kn_shape_count(&s), 0.2f, 1, -9);
        ck_assert_ok_err(kn_device_alloc(dev, bytes, &n->in[i], &err), &err);
        ck_assert_ok_err(kn_device_upload(dev, n->in[i], v, bytes, &err), &err);
        ck_assert_ok_err(kn_device_sync(dev, &err), &err);
        free(v);
    }
    const kn_shape s = shape_of(t, IN_R);
    n->results = kn_shape_count(&s);
    ck_assert_ok_err(kn_device_alloc(dev, (size_t)n->results * sizeof(float), &n->out, &err), &err);
}

static void close_net(net *n)
{
    for (int i = 0; i < INPUTS; i++)
        kn_device_free(n->dev, n->in[i]);
    kn_device_free(n->dev, n->out);
    for (int set = 0; set < KN_SETS; set++) {
        kn_weights_destroy(&n->weights[set]);
        kn_params_destroy(&n->params[set]);
    }
}

static kn_val vector(const net *n, kn_graph *g, int set, kn_param id)
{
    const kn_box box = {.start = {n->t->start}, .extent = {n->t->c, 1, 1, 1, 1}};
    return kn_param_slice(g, set, id, &box);
}

static void build(const net *n, kn_graph *g)
{
    const trial *t = n->t;
    const kn_box box = {.start = {t->start, 0, 0, t->start}, .extent = {t->c, 1, 1, t->k, 1}};
    kn_val in[INPUTS];
    for (int i = 0; i < INPUTS; i++) /* of values that the plan stores itself */
        in[i] = kn_scale(g, kn_input(g, i, shape_of(t, i), KN_F32), 0.5f);
    kn_val x = t->excite ? kn_mul(g, in[IN_X], in[IN_S]) : in[IN_X];
    kn_val y = kn_conv2d(g, x, kn_param_slice(g, KN_SET_WEIGHTS, n->w, &box), 1, 0, 1, 1);
    y = kn_batch_norm_infer(g, y, vector(n, g, KN_SET_WEIGHTS, n->gamma), vector(n, g, KN_SET_WEIGHTS, n->beta),
                            vector(n, g, KN_SET_STATS, n->mean), vector(n, g, KN_SET_STATS, n->var), 1e-3f, t->act);
    if (t->residual)
        y = kn_add(g, y, in[IN_R]);
    kn_output_kept(g, 0, y);
}

static float widened(uint16_t v)
{
    const uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static int points_of(const kn_plan *p, int n_in)
{
    int n = 0;
    for (uint32_t i = 0; i < p->w->n_nodes; i++)
        n += p->w->nodes[i].op == KN_OP_CONV2D && p->w->nodes[i].n_in == n_in;
    return n;
}

/* The caller frees it. */
static float *run(net *n, kn_precision precision, bool no_fuse)
{
    const trial *t = n->t;
    const size_t bytes = (size_t)n->results * sizeof(float);
    const kn_plan_options o = {.precision = precision, .no_fuse = no_fuse};
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    es_error err = {0};
    float *y = malloc(bytes);
    kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){n->params[0], n->params[1]});
    build(n, g);
    memset(y, 0xff, bytes); /* not a number, where nothing is stored */
    ck_assert_ok_err(kn_device_upload(n->dev, n->out, y, bytes, &err), &err);
    ck_assert_ok_err(kn_plan_make(n->dev, g, &o, &plan, &err), &err);
    if (precision == KN_PRECISION_BF16 && !no_fuse &&
        n->dev->hopper) /* what this test is about did happen; others run each op by itself */
        ck_assert_int_eq(points_of(plan, t->excite ? EXCITE_IN : t->residual ? RESIDUAL_IN : NORM_IN), 1);
    ck_assert_ok_err(kn_workspace_new(n->dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    const kn_binding b = {
        .in = {n->in[0], n->in[1], n->in[2]}, .out = {n->out}, .weights = {n->weights[0], n->weights[1]}};
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    ck_assert_ok_err(kn_device_sync(n->dev, &err), &err);
    ck_assert_ok_err(kn_device_download(n->dev, y, n->out, bytes, &err), &err);
    if (precision == KN_PRECISION_BF16)
        for (int64_t i = n->results; i-- > 0;) {
            uint16_t v;
            memcpy(&v, (char *)y + 2 * i, sizeof v);
            y[i] = widened(v);
        }
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
    return y;
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

static void check_trial(kn_device *dev, const trial *t)
{
    net n;
    open_net(&n, dev, t);
    float *exact = run(&n, KN_PRECISION_F32, true), *plain = run(&n, KN_PRECISION_BF16, true),
          *fused = run(&n, KN_PRECISION_BF16, false), *again = run(&n, KN_PRECISION_BF16, false);
    const double with = distance(fused, exact, n.results), without = distance(plain, exact, n.results);
    ck_assert_int_eq(memcmp(fused, again, (size_t)n.results * sizeof *fused), 0);
    ck_assert_msg(with < 1e-3 + 1.1 * without && with < 1e-2,
                  "%d x %d x %d, %d to %d channels from %d, activation %d%s%s: %g from fp32, %g without fusions", t->n,
                  t->h, t->w, t->k, t->c, t->start, (int)t->act, t->residual ? ", residual" : "",
                  t->excite ? ", excite" : "", with, without);
    free(exact);
    free(plain);
    free(fused);
    free(again);
    close_net(&n);
}

START_TEST(points)
    {
        static const kn_act acts[] = {KN_ACT_NONE, KN_ACT_RELU, KN_ACT_SILU, KN_ACT_HSWISH, KN_ACT_RELU6};
        static const trial trials[] = {
            {70, 32, 32, 24, 144, KN_ACT_SILU, false, false, 0}, {70, 32, 32, 144, 24, KN_ACT_NONE, true, true, 8},
            {9, 2, 2, 224, 1344, KN_ACT_RELU, false, false, 0},  {600, 2, 2, 320, 128, KN_ACT_NONE, true, true, 3},
            {1, 1, 1, 8, 8, KN_ACT_HSWISH, true, false, 1},      {33, 5, 3, 72, 64, KN_ACT_RELU6, true, true, 0},
        };
        kn_device *dev = es_test_accelerator("bf16 is for accelerators");
        if (dev == NULL)
            return;
        for (size_t i = 0; i < sizeof trials / sizeof *trials; i++)
            check_trial(dev, &trials[i]);
        for (int i = 0; i < RANDOM; i++) {
            es_rng r = es_rng_make(77, ES_USE_TEST, (uint64_t)i);
            const trial t = {.n = 1 + (int)es_rng_below(&r, 60),
                             .h = 1 + (int)es_rng_below(&r, 9),
                             .w = 1 + (int)es_rng_below(&r, 9),
                             .k = 8 * (1 + (int)es_rng_below(&r, 40)),
                             .c = 8 * (1 + (int)es_rng_below(&r, 36)),
                             .act = acts[es_rng_below(&r, 5)],
                             .residual = es_rng_below(&r, 2),
                             .excite = es_rng_below(&r, 2),
                             .start = (int)es_rng_below(&r, 2) * (int)es_rng_below(&r, MORE)};
            check_trial(dev, &t);
        }
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("cuda_points", points)
