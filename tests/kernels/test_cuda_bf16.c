/* The accelerator's kernels on bf16 tensors against the reference on the same (rounded) numbers, node by node, on shapes that reach every path of the bf16 kernels:
 * depthwise convolution and both gradients (strips, several images a block, odd sizes, channels that fill no slab), batch norm, products over pixels, pooling, stems.
 *
 * Storage as in a plan (kernels/cuda/store.cu): rank 2 and more is bf16, vectors and gradients of weights are fp32. A bf16 result may differ by its rounding, a sum in fp32
 * by the order of its terms. ESPALIER_TEST_DEVICE names another device than the accelerator that is tried otherwise. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/plan/plan.h"
#include "tests/kernels/op_cases.h"

#define SHAPE(...)                                                                                  \
    {                                                                                               \
        .rank = (int32_t)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), .d = { __VA_ARGS__ } \
    }
#define REAL(...)                                    \
    {                                                \
        .kind = OP_REAL, .shape = SHAPE(__VA_ARGS__) \
    }
#define PARAM(...)                                                                  \
    {                                                                               \
        .kind = OP_PARAM, .shape = SHAPE(__VA_ARGS__), .parent = SHAPE(__VA_ARGS__) \
    }

static kn_val depthwise(kn_graph *g, const kn_val *in, const op_case *c)
{
    return kn_depthwise(g, in[0], in[1], c->i[0], c->i[1], 1);
}
static kn_val batch_norm(kn_graph *g, const kn_val *in, const op_case *c)
{
    return kn_batch_norm(g, in[0], in[1], in[2], 1e-3f, (kn_act)c->i[0]).y;
}
static kn_val convolution(kn_graph *g, const kn_val *in, const op_case *c)
{
    return kn_conv2d(g, in[0], in[1], c->i[0], c->i[1], 1, 1);
}
static kn_val pool(kn_graph *g, const kn_val *in, const op_case *c)
{
    (void)c;
    return kn_global_avg_pool(g, in[0]);
}
static kn_val scale(kn_graph *g, const kn_val *in, const op_case *c) { return (void)c, kn_mul(g, in[0], in[1]); }
static kn_val layer_norm(kn_graph *g, const kn_val *in, const op_case *c)
{
    return kn_layer_norm(g, in[0], in[1], c->i[0] ? in[2] : KN_NONE, 1e-5f);
}
static kn_val activate(kn_graph *g, const kn_val *in, const op_case *c)
{
    return kn_activate(g, in[0], (kn_act)c->i[0]);
}
static kn_val linear(kn_graph *g, const kn_val *in, const op_case *c) { return (void)c, kn_linear(g, in[0], in[1]); }

static const op_case cases[] = {
    {"3", depthwise, {REAL(3, 7, 9, 24), PARAM(3, 3, 24)}, .i = {1, 1}},
    {"3, one pixel", depthwise, {REAL(5, 1, 1, 8), PARAM(3, 3, 8)}, .i = {1, 1}},
    {"3, strips", depthwise, {REAL(2, 5, 112, 24), PARAM(3, 3, 24)}, .i = {1, 1}},
    {"3, many images", depthwise, {REAL(37, 4, 4, 72), PARAM(3, 3, 72)}, .i = {1, 1}},
    {"3, odd channels", depthwise, {REAL(3, 5, 6, 7), PARAM(3, 3, 7)}, .i = {1, 1}},
    {"5", depthwise, {REAL(3, 14, 14, 96), PARAM(5, 5, 96)}, .i = {1, 2}},
    {"5, two pixels", depthwise, {REAL(19, 2, 2, 40), PARAM(5, 5, 40)}, .i = {1, 2}},
    {"5, wide", depthwise, {REAL(2, 9, 70, 32), PARAM(5, 5, 32)}, .i = {1, 2}},
    {"5, rounds", depthwise, {REAL(12800, 2, 1, 8), PARAM(5, 5, 8)}, .i = {1, 2}},
    {"7", depthwise, {REAL(2, 9, 8, 16), PARAM(7, 7, 16)}, .i = {1, 3}},
    {"3 / 2", depthwise, {REAL(3, 8, 8, 24), PARAM(3, 3, 24)}, .i = {2, 1}},
    {"3 / 2, odd", depthwise, {REAL(4, 7, 9, 40), PARAM(3, 3, 40)}, .i = {2, 1}},
    {"3 / 2, strips", depthwise, {REAL(2, 6, 150, 16), PARAM(3, 3, 16)}, .i = {2, 1}},
    {"5 / 2", depthwise, {REAL(3, 16, 16, 72), PARAM(5, 5, 72)}, .i = {2, 2}},
    {"5 / 2, odd", depthwise, {REAL(5, 9, 7, 32), PARAM(5, 5, 32)}, .i = {2, 2}},
    {"5 / 2, small", depthwise, {REAL(21, 4, 4, 64), PARAM(5, 5, 64)}, .i = {2, 2}},
    {"5 / 2, strips, rounds", depthwise, {REAL(133, 3, 140, 8), PARAM(5, 5, 8)}, .i = {2, 2}},
    {"norm", batch_norm, {REAL(4, 9, 9, 24), PARAM(24), PARAM(24)}, .i = {KN_ACT_NONE}},
    {"norm silu", batch_norm, {REAL(16, 12, 12, 24), PARAM(24), PARAM(24)}, .i = {KN_ACT_SILU}},
    {"norm hswish", batch_norm, {REAL(64, 7, 7, 16), PARAM(16), PARAM(16)}, .i = {KN_ACT_HSWISH}},
    {"norm columns", batch_norm, {REAL(8, 5, 5, 72), PARAM(72), PARAM(72)}, .i = {KN_ACT_SILU}},
    {"norm many columns", batch_norm, {REAL(16, 2, 2, 1344), PARAM(1344), PARAM(1344)}, .i = {KN_ACT_SILU}},
    {"norm as deep as fits", batch_norm, {REAL(64, 12, 12, 24), PARAM(24), PARAM(24)}, .i = {KN_ACT_SILU}},
    {"norm deeper", batch_norm, {REAL(130, 12, 12, 16), PARAM(16), PARAM(16)}, .i = {KN_ACT_SILU}},
    {"norm odd", batch_norm, {REAL(5, 3, 3, 13), PARAM(13), PARAM(13)}, .i = {KN_ACT_RELU}},
    {"norm gelu", batch_norm, {REAL(5, 3, 3, 40), PARAM(40), PARAM(40)}, .i = {KN_ACT_GELU}},
    {"stem", convolution, {REAL(3, 11, 12, 3), PARAM(16, 3, 3, 3)}, .i = {2, 1}},
    {"stem of one channel", convolution, {REAL(3, 9, 9, 1), PARAM(8, 5, 5, 1)}, .i = {1, 2}},
    {"point", convolution, {REAL(3, 5, 5, 24), PARAM(40, 1, 1, 24)}, .i = {1, 0}},
    {"dense", convolution, {REAL(2, 6, 6, 16), PARAM(24, 3, 3, 16)}, .i = {1, 1}},
    {"pool", pool, {REAL(3, 7, 7, 48)}, .i = {0}},
    {"pool large", pool, {REAL(2, 30, 31, 8)}, .i = {0}},
    {"pool odd", pool, {REAL(2, 5, 5, 7)}, .i = {0}},
    {"layer norm", layer_norm, {REAL(70, 96), PARAM(96)}, .i = {0}},
    {"layer norm of three dimensions", layer_norm, {REAL(2, 150, 384), PARAM(384)}, .i = {0}},
    {"layer norm with a shift", layer_norm, {REAL(37, 768), PARAM(768), PARAM(768)}, .i = {1}},
    {"layer norm, wide", layer_norm, {REAL(5, 3072), PARAM(3072)}, .i = {0}},
    {"layer norm, odd", layer_norm, {REAL(41, 13), PARAM(13)}, .i = {0}},
    {"gelu", activate, {REAL(33, 136)}, .i = {KN_ACT_GELU}},
    {"linear", linear, {REAL(70, 96), PARAM(64, 96)}, .i = {0}},
    {"excite", scale, {REAL(3, 6, 6, 40), REAL(3, 1, 1, 40)}, .i = {0}},
};

static bool stored_short(const kn_graph *g, const kn_node *n, kn_val v, bool output)
{
    if (output && (n->op == KN_OP_DEPTHWISE_DW || n->op == KN_OP_CONV2D_DW))
        return false;
    return kn_dtype_of(g, v) == KN_F32 && kn_shape_of(g, v).rank >= 2;
}

static float rounded(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&v, &u, sizeof v);
    return v;
}

static kn_tensor dense_of(const kn_tensor *t, void *p)
{
    kn_tensor d = *t;
    int64_t stride = 1;
    d.p = p;
    for (int i = d.shape.rank - 1; i >= 0; i--) {
        d.stride[i] = stride;
        stride *= d.shape.d[i];
    }
    return d;
}

/* A dense copy on the device, bf16 or as it is. */
static kn_tensor on_device(kn_device *dev, const kn_tensor *t, bool small)
{
    const int64_t n = kn_shape_count(&t->shape);
    const size_t bytes = (size_t)n * (small ? 2 : 4);
    kn_tensor to = *t;
    es_error err = {0};
    uint16_t *half = malloc((size_t)n * sizeof *half + 1);
    for (int64_t i = 0; small && i < n; i++) {
        uint32_t u;
        memcpy(&u, (const float *)t->p + i, sizeof u);
        half[i] = (uint16_t)(u >> 16);
    }
    to.dtype = small ? KN_BF16 : t->dtype;
    ck_assert_ok_err(kn_device_alloc(dev, bytes, &to.p, &err), &err);
    ck_assert_ok_err(kn_device_upload(dev, to.p, small ? (const void *)half : t->p, bytes, &err), &err);
    ck_assert_ok_err(kn_device_sync(dev, &err), &err);
    free(half);
    return to;
}

/* Largest error as a part of the largest number expected. */
static double error_of(kn_device *dev, const kn_tensor *got, const kn_tensor *want)
{
    const int64_t n = kn_shape_count(&want->shape);
    es_error err = {0};
    double worst = 0, largest = 0.01;
    uint16_t *half = malloc((size_t)n * 4);
    ck_assert_ok_err(kn_device_download(dev, half, got->p, (size_t)n * (got->dtype == KN_BF16 ? 2 : 4), &err), &err);
    for (int64_t i = 0; i < n; i++) {
        float v;
        uint32_t u = (uint32_t)half[i] << 16;
        memcpy(&v, got->dtype == KN_BF16 ? (void *)&u : (void *)(half + 2 * i), sizeof v);
        double e = fabs((double)v - ((const float *)want->p)[i]);
        worst = isnan(e) ? INFINITY : fmax(worst, e);
        largest = fmax(largest, fabs((double)((const float *)want->p)[i]));
    }
    free(half);
    return worst / largest;
}

typedef struct node_run {
    kn_call host, device;
    float *own[KN_IN_MAX + KN_OUT_MAX];
} node_run;

static void prepare(kn_device *dev, const op_rig *r, const op_values *v, const kn_node *n, bool adds, node_run *run)
{
    kn_call *h = &run->host, *d = &run->device;
    *h = *d = (kn_call){.a = &n->a, .n_in = n->n_in, .n_out = n->n_out, .seed = 99, .step = 7};
    d->dev = dev;
    d->accumulate = adds;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == KN_NONE)
            continue;
        const kn_tensor *from = &v->t[n->in[i]];
        const bool small = stored_short(r->g, n, n->in[i], false);
        run->own[i] = malloc((size_t)kn_shape_count(&from->shape) * sizeof(float) + 1);
        for (int64_t k = 0; k < kn_shape_count(&from->shape); k++) {
            float x = ((const float *)from->p)[op_nth(from, k)];
            run->own[i][k] = small ? rounded(x) : x;
        }
        h->in[i] = dense_of(from, run->own[i]);
        d->in[i] = on_device(dev, &h->in[i], small);
    }
    for (int i = 0; i < n->n_out; i++) {
        kn_tensor *out = &h->out[i];
        const kn_val o = n->out + (uint32_t)i;
        const int64_t count = kn_shape_count(&v->t[o].shape);
        run->own[KN_IN_MAX + i] = malloc((size_t)count * sizeof(float) + 1);
        *out = dense_of(&v->t[o], run->own[KN_IN_MAX + i]);
        for (int64_t k = 0; k < count; k++)
            run->own[KN_IN_MAX + i][k] = adds && i == 0 ? (float)(k % 5) : NAN;
        d->out[i] = on_device(dev, out, stored_short(r->g, n, o, true));
    }
}

static double run_node(kn_device *dev, const op_rig *r, const op_values *v, const kn_node *n, bool adds, double *limit)
{
    const kn_kernel_row *row = &dev->vt->kernels[n->op];
    node_run run = {0};
    es_error err = {0};
    double worst = 0;
    prepare(dev, r, v, n, adds, &run);
    const size_t scratch = row->scratch ? row->scratch(&run.device) : 0;
    if (scratch)
        ck_assert_ok_err(kn_device_alloc(dev, scratch, &run.device.scratch, &err), &err);
    ck_assert_ok_err(kn_op_table[n->op].reference(&run.host, &err), &err);
    ck_assert_ok_err(row->run(&run.device, &err), &err);
    ck_assert_ok_err(kn_device_sync(dev, &err), &err);
    *limit = 0;
    for (int i = 0; i < n->n_out; i++) {
        for (int64_t k = 0; adds && i == 0 && k < kn_shape_count(&run.host.out[0].shape); k++)
            run.own[KN_IN_MAX][k] += (float)(k % 5);
        double e = error_of(dev, &run.device.out[i], &run.host.out[i]),
               may = run.device.out[i].dtype == KN_BF16 ? 6e-3 : 3e-3;
        if (e / may > worst / fmax(*limit, 1e-9)) {
            worst = e;
            *limit = may;
        }
        kn_device_free(dev, run.device.out[i].p);
    }
    for (int i = 0; i < n->n_in; i++)
        kn_device_free(dev, run.device.in[i].p);
    kn_device_free(dev, run.device.scratch);
    for (int i = 0; i < KN_IN_MAX + KN_OUT_MAX; i++)
        free(run.own[i]);
    return worst;
}

START_TEST(kernels)
    {
        kn_device *dev = es_test_accelerator("bf16 is for accelerators");
        int bad = 0, trials = 0;
        if (dev == NULL)
            return;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            op_rig *r = op_rig_new(&cases[i], 1);
            op_values *v = op_values_new(r, OP_ALL);
            for (uint32_t k = 0; k < r->g->n_nodes; k++) {
                const kn_node *n = &r->g->nodes[k];
                const kn_kernel_row *row = &dev->vt->kernels[n->op];
                if (kn_op_table[n->op].reference == NULL || row->run == NULL || n->n_out == 0)
                    continue;
                for (int adds = 0; adds <= ((row->accumulate | row->sums) & 1); adds++, trials++) {
                    double limit, e = run_node(dev, r, v, n, adds != 0, &limit);
                    if (e <= limit)
                        continue;
                    fprintf(stderr, "%s: %s%s: error %g, allowed %g\n", cases[i].name, kn_op_table[n->op].name,
                            adds ? " added" : "", e, limit);
                    bad++;
                }
            }
            op_values_free(&v);
            op_rig_free(&r);
        }
        printf("%d trials\n", trials);
        ck_assert_int_eq(bad, 0);
        kn_device_close(&dev);
    }
END_TEST

/* y, mean and variance of a batch norm after a depthwise convolution. */
static void run_norm(kn_device *dev, const kn_shape *shape, int k, int stride, bool no_fuse, const float *x,
                     const float *w, float *out[3])
{
    enum { IN_X, IN_W };
    const kn_params *sets[KN_SETS] = {NULL};
    kn_graph *g = kn_graph_new(sets);
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    es_error err = {0};
    kn_tensor t[2] = {{.p = (void *)(uintptr_t)x, .shape = *shape}, {.p = (void *)(uintptr_t)w}};
    t[1].shape = KN_SHAPE(k, k, shape->d[3]);
    /* Inputs are fp32; what an op makes of them is bf16. */
    kn_val y = kn_depthwise(g, kn_scale(g, kn_input(g, IN_X, t[0].shape, KN_F32), 2.0f),
                            kn_scale(g, kn_input(g, IN_W, t[1].shape, KN_F32), 0.5f), stride, k / 2, 1);
    kn_bn n = kn_batch_norm(g, y, KN_NONE, KN_NONE, 1e-3f, KN_ACT_SILU);
    const kn_val made[3] = {n.y, n.mean, n.var};
    kn_binding b = {.seed = 1};
    for (int i = 0; i < 2; i++) {
        t[i].dtype = KN_F32;
        t[i] = on_device(dev, &t[i], false);
        b.in[i] = t[i].p;
    }
    for (int i = 0; i < 3; i++) {
        const kn_shape s = kn_shape_of(g, made[i]);
        kn_output(g, i, made[i]);
        ck_assert_ok_err(kn_device_alloc(dev, (size_t)kn_shape_count(&s) * sizeof(float), &b.out[i], &err), &err);
    }
    const kn_plan_options o = {.precision = KN_PRECISION_BF16, .no_fuse = no_fuse};
    ck_assert_ok_err(kn_plan_make(dev, g, &o, &plan, &err), &err);
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    for (int i = 0; i < 3; i++) {
        const kn_shape s = kn_shape_of(g, made[i]);
        const size_t bytes = (size_t)kn_shape_count(&s) * sizeof(float);
        out[i] = malloc(bytes);
        ck_assert_ok_err(kn_device_download(dev, out[i], b.out[i], bytes, &err), &err);
        kn_device_free(dev, b.out[i]);
    }
    for (int i = 0; i < 2; i++)
        kn_device_free(dev, t[i].p);
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
}

/* Statistics made by the convolution (fused) and by the norm (not), also twice: the same bits. */
START_TEST(statistics)
    {
        static const struct {
            int n, h, w, c, k, stride;
        } trial[] = {{3, 7, 9, 24, 3, 1},    {33, 4, 4, 72, 5, 1}, {2, 12, 112, 40, 5, 1},
                     {12800, 1, 2, 8, 3, 1}, {5, 9, 7, 64, 3, 2},  {7, 14, 14, 96, 5, 2},
                     {1, 3, 3, 8, 3, 1},     {2, 5, 6, 7, 3, 1},   {2, 9, 8, 16, 7, 1}};
        kn_device *dev = es_test_accelerator("bf16 is for accelerators");
        if (dev == NULL)
            return;
        for (size_t i = 0; i < sizeof trial / sizeof *trial; i++) {
            const kn_shape s = KN_SHAPE(trial[i].n, trial[i].h, trial[i].w, trial[i].c);
            const int64_t count = kn_shape_count(&s), weights = trial[i].k * trial[i].k * trial[i].c;
            const int oh = (trial[i].h - 1) / trial[i].stride + 1, ow = (trial[i].w - 1) / trial[i].stride + 1;
            const int64_t size[3] = {(int64_t)trial[i].n * oh * ow * trial[i].c, trial[i].c, trial[i].c};
            es_rng r = es_rng_make(11, ES_USE_TEST, i);
            float *x = malloc((size_t)count * sizeof *x), *w = malloc((size_t)weights * sizeof *w), *got[3][3];
            for (int64_t k = 0; k < count; k++)
                x[k] = es_rng_normal(&r) + 0.5f;
            for (int64_t k = 0; k < weights; k++)
                w[k] = es_rng_normal(&r);
            for (int run = 0; run < 3; run++)
                run_norm(dev, &s, trial[i].k, trial[i].stride, run == 2, x, w, got[run]);
            for (int o = 0; o < 3; o++) {
                double worst = 0, largest = 0.01;
                ck_assert_int_eq(memcmp(got[0][o], got[1][o], (size_t)size[o] * sizeof(float)), 0);
                for (int64_t k = 0; k < size[o]; k++) {
                    double e = fabs((double)got[0][o][k] - got[2][o][k]);
                    worst = isnan(e) ? INFINITY : fmax(worst, e);
                    largest = fmax(largest, fabs((double)got[2][o][k]));
                }
                ck_assert_msg(worst / largest < 0.02, "trial %zu, output %d: fused and not differ by %g of %g", i, o,
                              worst, largest);
                for (int run = 0; run < 3; run++)
                    free(got[run][o]);
            }
            free(x);
            free(w);
        }
        kn_device_close(&dev);
    }
END_TEST

/* A depthwise convolution and a norm with given statistics, all from parameters; the result as bf16. `out` has room for as many floats. */
static void run_given(kn_device *dev, const kn_shape *shape, int k, int stride, kn_act act, bool no_fuse, bool add,
                      const float *x, uint64_t seed, float *out)
{
    const int c = shape->d[3];
    kn_params *p[KN_SETS] = {kn_params_new(), kn_params_new()};
    kn_weights *w[KN_SETS] = {NULL};
    kn_param id[5];
    es_error err = {0};
    ck_assert_ok_err(kn_params_add(p[0], "w", KN_SHAPE(k, k, c), KN_INIT_HE_OUT, KN_PARAM_DEPTHWISE, &id[0], &err),
                     &err);
    ck_assert_ok_err(kn_params_add(p[0], "gamma", KN_SHAPE(c), KN_INIT_UNIFORM_IN, 0, &id[1], &err), &err);
    ck_assert_ok_err(kn_params_add(p[0], "beta", KN_SHAPE(c), KN_INIT_UNIFORM_IN, 0, &id[2], &err), &err);
    ck_assert_ok_err(kn_params_add(p[1], "mean", KN_SHAPE(c), KN_INIT_UNIFORM_IN, 0, &id[3], &err), &err);
    ck_assert_ok_err(kn_params_add(p[1], "var", KN_SHAPE(c), KN_INIT_ONE, 0, &id[4], &err), &err);
    kn_graph *g = NULL;
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    for (int i = 0; i < KN_SETS; i++) {
        kn_params_seal(p[i]);
        ck_assert_ok_err(kn_weights_new(dev, p[i], 0, &w[i], &err), &err);
        ck_assert_ok_err(kn_weights_init(w[i], seed, &err), &err);
    }
    g = kn_graph_new((const kn_params *const *)p);
    kn_val y = kn_depthwise(g, kn_scale(g, kn_input(g, 0, *shape, KN_F32), 2.0f), kn_param_slice(g, 0, id[0], NULL),
                            stride, k / 2, 1);
    y = kn_batch_norm_infer(g, y, kn_param_slice(g, 0, id[1], NULL), kn_param_slice(g, 0, id[2], NULL),
                            kn_param_slice(g, 1, id[3], NULL), kn_param_slice(g, 1, id[4], NULL), 1e-3f, act);
    if (add)
        y = kn_add(g, kn_scale(g, kn_input(g, 0, *shape, KN_F32), 3.0f), y);
    kn_output_kept(g, 0, y);
    const kn_shape s = kn_shape_of(g, y);
    const size_t n = (size_t)kn_shape_count(&s);
    kn_tensor in = {.p = (void *)(uintptr_t)x, .shape = *shape, .dtype = KN_F32};
    in = on_device(dev, &in, false);
    kn_binding b = {.in = {in.p}, .weights = {w[0], w[1]}, .seed = 1};
    uint16_t *half = malloc(n * sizeof *half);
    ck_assert_uint_eq(kn_kept_bytes(KN_PRECISION_BF16, &s), n * sizeof *half);
    ck_assert_ok_err(kn_device_alloc(dev, n * sizeof *half, &b.out[0], &err), &err);
    const kn_plan_options o = {.precision = KN_PRECISION_BF16, .no_fuse = no_fuse};
    ck_assert_ok_err(kn_plan_make(dev, g, &o, &plan, &err), &err);
    ck_assert_int_eq((int)kn_plan_steps(plan), (no_fuse ? 4 : act == KN_ACT_GELU ? 3 : 2) + (add ? 2 : 0));
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    ck_assert_ok_err(kn_device_download(dev, half, b.out[0], n * sizeof *half, &err), &err);
    for (size_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)half[i] << 16;
        memcpy(&out[i], &u, sizeof u);
    }
    free(half);
    kn_device_free(dev, b.out[0]);
    kn_device_free(dev, in.p);
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
    for (int i = 0; i < KN_SETS; i++) {
        kn_weights_destroy(&w[i]);
        kn_params_destroy(&p[i]);
    }
}

/* A norm with given statistics inside the convolution before it, on every kernel that may make it; the last trial adds to the result. */
START_TEST(normalised)
    {
        static const struct {
            int n, h, w, c, k, stride;
            kn_act act;
        } trial[] = {{3, 7, 9, 24, 3, 1, KN_ACT_SILU},    {33, 4, 4, 72, 5, 1, KN_ACT_HSWISH},
                     {2, 12, 112, 40, 5, 1, KN_ACT_NONE}, {12800, 1, 2, 8, 3, 1, KN_ACT_RELU},
                     {5, 9, 7, 64, 3, 2, KN_ACT_RELU6},   {7, 14, 14, 96, 5, 2, KN_ACT_SILU},
                     {1, 3, 3, 8, 3, 1, KN_ACT_GELU},     {2, 5, 6, 7, 3, 1, KN_ACT_SILU},
                     {2, 9, 8, 16, 7, 1, KN_ACT_SILU},    {3, 7, 9, 24, 3, 1, KN_ACT_SILU}};
        kn_device *dev = es_test_accelerator("bf16 is for accelerators");
        if (dev == NULL)
            return;
        for (size_t i = 0; i < sizeof trial / sizeof *trial; i++) {
            const kn_shape s = KN_SHAPE(trial[i].n, trial[i].h, trial[i].w, trial[i].c);
            const int oh = (trial[i].h - 1) / trial[i].stride + 1, ow = (trial[i].w - 1) / trial[i].stride + 1;
            const int64_t count = kn_shape_count(&s), size = (int64_t)trial[i].n * oh * ow * trial[i].c;
            es_rng r = es_rng_make(12, ES_USE_TEST, i);
            float *x = malloc((size_t)count * sizeof *x), *got[2];
            double worst = 0, largest = 0.01;
            for (int64_t k = 0; k < count; k++)
                x[k] = es_rng_normal(&r) + 0.5f;
            for (int run = 0; run < 2; run++) {
                got[run] = malloc((size_t)size * sizeof *got[run]);
                run_given(dev, &s, trial[i].k, trial[i].stride, trial[i].act, run == 1,
                          i + 1 == sizeof trial / sizeof *trial, x, i, got[run]);
            }
            for (int64_t k = 0; k < size; k++) {
                double e = fabs((double)got[0][k] - (double)got[1][k]);
                worst = isnan(e) ? INFINITY : fmax(worst, e);
                largest = fmax(largest, fabs((double)got[1][k]));
            }
            ck_assert_msg(worst / largest < 0.02, "trial %zu: fused and not differ by %g of %g", i, worst, largest);
            free(x);
            free(got[0]);
            free(got[1]);
        }
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("cuda_bf16", kernels, statistics, normalised)
