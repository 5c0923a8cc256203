/* A small supernet of inverted residual blocks trained for 20 steps, two subnets a step with their gradients summed: the fast CPU device follows the
 * reference device, one thread and two give the same bits, and the loss falls. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/optim/optim.h"
#include "kernels/plan/plan.h"

enum { STEPS = 20, BATCH = 6, SIZE = 10, CLASSES = 4, BLOCKS = 3, WIDTH = 16, EXPAND = 4, KERNEL = 5, SQUEEZE = 4 };
enum { IN_IMAGES, IN_LABELS, OUT_LOSS = 0, OUT_CORRECT = 1, SCALAR_MOMENTUM = 0 };

typedef struct norm {
    kn_param gamma, beta, mean, var;
} norm;

typedef struct block {
    kn_param expand, depthwise, project, squeeze, squeeze_bias, excite, excite_bias;
    norm n1, n2, n3;
} block;

typedef struct net {
    kn_params *weights, *stats;
    kn_param stem, head, head_bias;
    norm stem_norm;
    block blocks[BLOCKS];
} net;

/* What is chosen per subnet: channel prefixes, a centred kernel, how many blocks. */
typedef struct subnet {
    int width, expand, kernel, depth;
} subnet;

static kn_param declare(kn_params *p, const char *name, kn_shape shape, kn_init_kind init, unsigned flags)
{
    kn_param id;
    es_error err = {0};
    ck_assert_ok_err(kn_params_add(p, name, shape, init, flags, &id, &err), &err);
    return id;
}

static const char *name_of(const char *a, int i, const char *b)
{
    static char buf[64];
    snprintf(buf, sizeof buf, "%s%d.%s", a, i, b);
    return buf;
}

static norm declare_norm(net *n, const char *a, int i, const char *b, int c)
{
    char base[64], name[80];
    norm m;
    snprintf(base, sizeof base, "%s", name_of(a, i, b));
    snprintf(name, sizeof name, "%s.gamma", base);
    m.gamma = declare(n->weights, name, KN_SHAPE(c), KN_INIT_ONE, 0);
    snprintf(name, sizeof name, "%s.beta", base);
    m.beta = declare(n->weights, name, KN_SHAPE(c), KN_INIT_ZERO, 0);
    snprintf(name, sizeof name, "%s.mean", base);
    m.mean = declare(n->stats, name, KN_SHAPE(c), KN_INIT_ZERO, 0);
    snprintf(name, sizeof name, "%s.var", base);
    m.var = declare(n->stats, name, KN_SHAPE(c), KN_INIT_ONE, 0);
    return m;
}

static net net_make(void)
{
    net n = {.weights = kn_params_new(), .stats = kn_params_new()};
    kn_params *w = n.weights;
    int mid = WIDTH * EXPAND;
    n.stem = declare(w, "stem", KN_SHAPE(WIDTH, 3, 3, 3), KN_INIT_HE_OUT, KN_PARAM_DECAY);
    n.stem_norm = declare_norm(&n, "stem", 0, "norm", WIDTH);
    for (int i = 0; i < BLOCKS; i++) {
        block *b = &n.blocks[i];
        b->expand =
            declare(w, name_of("block", i, "expand"), KN_SHAPE(mid, 1, 1, WIDTH), KN_INIT_HE_OUT, KN_PARAM_DECAY);
        b->depthwise = declare(w, name_of("block", i, "depthwise"), KN_SHAPE(KERNEL, KERNEL, mid), KN_INIT_HE_OUT,
                               KN_PARAM_DECAY | KN_PARAM_DEPTHWISE);
        b->project =
            declare(w, name_of("block", i, "project"), KN_SHAPE(WIDTH, 1, 1, mid), KN_INIT_HE_OUT, KN_PARAM_DECAY);
        b->squeeze = declare(w, name_of("block", i, "squeeze"), KN_SHAPE(SQUEEZE, mid), KN_INIT_HE_IN, KN_PARAM_DECAY);
        b->squeeze_bias = declare(w, name_of("block", i, "squeeze_bias"), KN_SHAPE(SQUEEZE), KN_INIT_ZERO, 0);
        b->excite = declare(w, name_of("block", i, "excite"), KN_SHAPE(mid, SQUEEZE), KN_INIT_HE_IN, KN_PARAM_DECAY);
        b->excite_bias = declare(w, name_of("block", i, "excite_bias"), KN_SHAPE(mid), KN_INIT_ZERO, 0);
        b->n1 = declare_norm(&n, "block", i, "n1", mid);
        b->n2 = declare_norm(&n, "block", i, "n2", mid);
        b->n3 = declare_norm(&n, "block", i, "n3", WIDTH);
    }
    n.head = declare(w, "head", KN_SHAPE(CLASSES, WIDTH), KN_INIT_UNIFORM_IN, KN_PARAM_DECAY);
    n.head_bias = declare(w, "head_bias", KN_SHAPE(CLASSES), KN_INIT_ZERO, 0);
    kn_params_seal(n.weights);
    kn_params_seal(n.stats);
    return n;
}

/* The leading part of a parameter of a given extent; `skip` moves its start in dims 0 and 1, to the middle of a kernel. */
static kn_val part(kn_graph *g, int set, kn_param id, kn_shape extent, int skip)
{
    kn_box box = {.start = {skip, skip}};
    memcpy(box.extent, extent.d, sizeof box.extent);
    return kn_param_slice(g, set, id, &box);
}

static kn_val whole(kn_graph *g, kn_param id, kn_shape extent) { return part(g, KN_SET_WEIGHTS, id, extent, 0); }

static kn_val normalise(kn_graph *g, kn_val x, const norm *n, kn_act act)
{
    int c = kn_shape_of(g, x).d[3];
    kn_val coef = kn_scalar(g, SCALAR_MOMENTUM);
    kn_box box = {.extent = {c, 1, 1, 1, 1}};
    kn_bn bn = kn_batch_norm(g, x, whole(g, n->gamma, KN_SHAPE(c)), whole(g, n->beta, KN_SHAPE(c)), 1e-5f, act);
    kn_blend_param(g, KN_SET_STATS, n->mean, &box, bn.mean, coef);
    kn_blend_param(g, KN_SET_STATS, n->var, &box, bn.var, coef);
    return bn.y;
}

static kn_val squeeze_excite(kn_graph *g, kn_val x, const block *b)
{
    kn_shape s = kn_shape_of(g, x);
    kn_val z = kn_reshape(g, kn_global_avg_pool(g, x), KN_SHAPE(s.d[0], s.d[3]));
    z = kn_bias_act(g, kn_linear(g, z, whole(g, b->squeeze, KN_SHAPE(SQUEEZE, s.d[3]))),
                    whole(g, b->squeeze_bias, KN_SHAPE(SQUEEZE)), KN_ACT_RELU);
    z = kn_bias_act(g, kn_linear(g, z, whole(g, b->excite, KN_SHAPE(s.d[3], SQUEEZE))),
                    whole(g, b->excite_bias, KN_SHAPE(s.d[3])), KN_ACT_HSIGMOID);
    return kn_mul(g, x, kn_reshape(g, z, KN_SHAPE(s.d[0], 1, 1, s.d[3])));
}

static void build(kn_graph *g, const net *n, const subnet *s)
{
    int c = s->width, mid = s->width * s->expand;
    kn_val x = kn_input(g, IN_IMAGES, KN_SHAPE(BATCH, SIZE, SIZE, 3), KN_F32),
           labels = kn_input(g, IN_LABELS, KN_SHAPE(BATCH), KN_I32);
    x = kn_conv2d(g, x, whole(g, n->stem, KN_SHAPE(c, 3, 3, 3)), 2, 1, 1, 1);
    x = normalise(g, x, &n->stem_norm, KN_ACT_HSWISH);
    for (int i = 0; i < s->depth; i++) {
        const block *b = &n->blocks[i];
        int stride = i == 1 ? 2 : 1;
        kn_val y = kn_conv2d(g, x, whole(g, b->expand, KN_SHAPE(mid, 1, 1, c)), 1, 0, 1, 1);
        y = normalise(g, y, &b->n1, KN_ACT_RELU6);
        kn_val w = part(g, KN_SET_WEIGHTS, b->depthwise, KN_SHAPE(s->kernel, s->kernel, mid), (KERNEL - s->kernel) / 2);
        y = normalise(g, kn_depthwise(g, y, w, stride, s->kernel / 2, 1), &b->n2, KN_ACT_SILU);
        y = squeeze_excite(g, y, b);
        y = normalise(g, kn_conv2d(g, y, whole(g, b->project, KN_SHAPE(c, 1, 1, mid)), 1, 0, 1, 1), &b->n3,
                      KN_ACT_NONE);
        x = stride == 1 ? kn_add(g, x, kn_drop_path(g, y, 0.1f, (uint32_t)i)) : y;
    }
    x = kn_reshape(g, kn_global_avg_pool(g, x), KN_SHAPE(BATCH, c));
    x = kn_dropout(g, x, 0.1f, 100, false);
    x = kn_bias_act(g, kn_linear(g, x, whole(g, n->head, KN_SHAPE(CLASSES, c))),
                    kn_param_slice(g, KN_SET_WEIGHTS, n->head_bias, NULL), KN_ACT_NONE);
    kn_val loss =
        kn_reshape(g, kn_reduce_mean(g, kn_cross_entropy(g, x, labels, 0.1f), KN_AXES_ALL), kn_shape_make(0, NULL));
    es_error err = {0};
    ck_assert_ok_err(kn_graph_status(g, &err), &err);
    ck_assert_ok_err(kn_grad_params(g, loss, NULL, NULL, &err), &err);
    kn_output(g, OUT_LOSS, loss);
    kn_output(g, OUT_CORRECT, kn_correct(g, x, labels));
}

/* Images whose class shows in the mean of one colour and in a stripe. */
static void make_batch(int step, float *images, int32_t *labels)
{
    es_rng r = es_rng_make(31, ES_USE_TEST, (uint64_t)step);
    for (int i = 0; i < BATCH; i++) {
        labels[i] = (int32_t)es_rng_below(&r, CLASSES);
        for (int p = 0; p < SIZE * SIZE; p++)
            for (int c = 0; c < 3; c++) {
                bool stripe = labels[i] == 3 && p % SIZE % 4 == 0;
                images[(i * SIZE * SIZE + p) * 3 + c] =
                    es_rng_normal(&r) * 0.5f + (labels[i] == c ? 1.0f : 0) + (stripe ? 2.0f : 0);
            }
    }
}

typedef struct result {
    float loss[STEPS][2];
    float *weights, *stats;
    int64_t n_weights, n_stats;
} result;

typedef struct run {
    kn_device *dev;
    kn_graph *g;
    kn_plan *plan;
    kn_workspace *ws;
    kn_weights *w, *s;
    kn_optim *o;
    float *images, *loss, *correct;
    int32_t *labels;
    kn_plan_options options;
    kn_plan *kept; /* of the largest subnet, when options.repeats */
} run;

static void step_subnet(run *r, const net *n, const subnet *s, int step, int which, float *loss)
{
    es_error err = {0};
    const bool keep = r->options.repeats && which == 0;
    kn_plan **plan = keep ? &r->kept : &r->plan;
    if (!keep || step == 0) {
        kn_graph_reset(r->g);
        build(r->g, n, s);
        ck_assert_ok_err(kn_plan_make(r->dev, r->g, &r->options, plan, &err), &err);
        ck_assert_ok_err(kn_workspace_reserve(r->ws, kn_plan_workspace_bytes(*plan), &err), &err);
    }
    kn_binding b = {.in = {r->images, r->labels},
                    .out = {r->loss, r->correct},
                    .scalar = {0.1f},
                    .weights = {r->w, r->s},
                    .seed = 5};
    b.step = (uint64_t)(2 * step + which);
    ck_assert_ok_err(kn_run(*plan, r->ws, &b, &err), &err);
    ck_assert_ok_err(kn_device_sync(r->dev, &err), &err);
    ck_assert_ok_err(kn_device_download(r->dev, loss, r->loss, sizeof *loss, &err), &err);
}

static result train_keeping(const char *device, kn_precision precision, bool repeats)
{
    static const subnet small[] = {{8, 2, 3, 1}, {12, 3, 3, 2}, {16, 2, 5, 3}, {8, 4, 3, 3}};
    const subnet largest = {WIDTH, EXPAND, KERNEL, BLOCKS};
    const kn_optim_config config = {
        .kind = KN_SGD, .momentum = 0.9f, .nesterov = true, .decay = 1e-4f, .clip_norm = 5.0f};
    net n = net_make();
    run r = {.options = {.precision = precision, .repeats = repeats}};
    result out = {0};
    es_error err = {0};
    float images[BATCH * SIZE * SIZE * 3];
    int32_t labels[BATCH];
    const kn_params *sets[KN_SETS] = {n.weights, n.stats};
    ck_assert_ok_err(kn_device_open(device, &r.dev, &err), &err);
    ck_assert_ok_err(kn_weights_new(r.dev, n.weights, KN_WITH_GRAD, &r.w, &err), &err);
    ck_assert_ok_err(kn_weights_new(r.dev, n.stats, 0, &r.s, &err), &err);
    ck_assert_ok_err(kn_weights_init(r.w, 1, &err), &err);
    ck_assert_ok_err(kn_weights_init(r.s, 1, &err), &err);
    ck_assert_ok_err(kn_optim_new(&config, r.w, &r.o, &err), &err);
    ck_assert_ok_err(kn_workspace_new(r.dev, &r.ws, &err), &err);
    ck_assert_ok_err(kn_device_alloc(r.dev, sizeof images, (void **)&r.images, &err), &err);
    ck_assert_ok_err(kn_device_alloc(r.dev, sizeof labels, (void **)&r.labels, &err), &err);
    ck_assert_ok_err(kn_device_alloc(r.dev, sizeof(float), (void **)&r.loss, &err), &err);
    ck_assert_ok_err(kn_device_alloc(r.dev, BATCH * sizeof(float), (void **)&r.correct, &err), &err);
    r.g = kn_graph_new(sets);
    for (int t = 0; t < STEPS; t++) {
        make_batch(t, images, labels);
        ck_assert_ok_err(kn_device_upload(r.dev, r.images, images, sizeof images, &err), &err);
        ck_assert_ok_err(kn_device_upload(r.dev, r.labels, labels, sizeof labels, &err), &err);
        step_subnet(&r, &n, &largest, t, 0, &out.loss[t][0]);
        step_subnet(&r, &n, &small[t % 4], t, 1, &out.loss[t][1]);
        /* Rounding that puts one relu6 on the other side of its kink is amplified by training: a gentle rate keeps 20 steps comparable. */
        ck_assert_ok_err(kn_optim_update(r.o, 0.02f, &err), &err);
    }
    out.n_weights = kn_params_elements(n.weights);
    out.n_stats = kn_params_elements(n.stats);
    out.weights = malloc((size_t)out.n_weights * sizeof(float));
    out.stats = malloc((size_t)out.n_stats * sizeof(float));
    ck_assert_ok_err(kn_weights_download(r.w, out.weights, &err), &err);
    ck_assert_ok_err(kn_weights_download(r.s, out.stats, &err), &err);
    void *memory[] = {r.images, r.labels, r.loss, r.correct};
    for (int i = 0; i < 4; i++)
        kn_device_free(r.dev, memory[i]);
    kn_optim_destroy(&r.o);
    kn_plan_destroy(&r.plan);
    kn_plan_destroy(&r.kept);
    kn_workspace_destroy(&r.ws);
    kn_graph_destroy(&r.g);
    kn_weights_destroy(&r.w);
    kn_weights_destroy(&r.s);
    kn_device_close(&r.dev);
    kn_params_destroy(&n.weights);
    kn_params_destroy(&n.stats);
    return out;
}

static result train(const char *device, kn_precision precision) { return train_keeping(device, precision, false); }

static void result_free(result *r)
{
    free(r->weights);
    free(r->stats);
}

static double largest_difference(const float *a, const float *b, int64_t n)
{
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = fabs((double)a[i] - b[i]);
        worst = isnan(e) ? INFINITY : fmax(worst, e);
    }
    return worst;
}

/* The largest subnet planned once (an accelerator records it and gives it as one launch), with other dropout in every step. */
static void kept_plans_change_no_bit(const char *device, kn_precision precision)
{
    result a = train(device, precision), b = train_keeping(device, precision, true);
    ck_assert_mem_eq(a.loss, b.loss, sizeof a.loss);
    ck_assert_mem_eq(a.weights, b.weights, (size_t)a.n_weights * sizeof(float));
    ck_assert_mem_eq(a.stats, b.stats, (size_t)a.n_stats * sizeof(float));
    result_free(&a);
    result_free(&b);
}

static void follows_reference(const char *device)
{
    result a = train("reference", KN_PRECISION_F32), b = train(device, KN_PRECISION_F32);
    double loss = largest_difference(&a.loss[0][0], &b.loss[0][0], (int64_t)STEPS * 2);
    double weights = largest_difference(a.weights, b.weights, a.n_weights),
           stats = largest_difference(a.stats, b.stats, a.n_stats);
    double first = 0, last = 0;
    for (int t = 0; t < 5; t++) {
        first += (double)a.loss[t][0] / 5;
        last += (double)a.loss[STEPS - 1 - t][0] / 5;
    }
    printf("%s beside the reference after %d steps: losses differ by %.2g, weights by %.2g, statistics by %.2g; loss "
           "%.3f to %.3f\n",
           device, STEPS, loss, weights, stats, first, last);
    ck_assert_double_lt(loss, 2e-3);
    ck_assert_double_lt(weights, 2e-3);
    ck_assert_double_lt(stats, 2e-2);
    ck_assert_double_lt(last, 0.8 * first);
    result_free(&a);
    result_free(&b);
}

START_TEST(cpu_follows_reference)
    {
        follows_reference("cpu:2");
    }
END_TEST

START_TEST(keeping_a_plan_changes_no_bit)
    {
        kept_plans_change_no_bit("cpu:2", KN_PRECISION_F32);
    }
END_TEST

START_TEST(threads_change_no_bit)
    {
        result a = train("cpu:1", KN_PRECISION_F32), b = train("cpu:2", KN_PRECISION_F32);
        ck_assert_mem_eq(a.loss, b.loss, sizeof a.loss);
        ck_assert_mem_eq(a.weights, b.weights, (size_t)a.n_weights * sizeof(float));
        ck_assert_mem_eq(a.stats, b.stats, (size_t)a.n_stats * sizeof(float));
        result_free(&a);
        result_free(&b);
    }
END_TEST

START_TEST(accelerator_follows_reference)
    {
        const char *device = es_test_accelerator_name();
        if (device)
            follows_reference(device);
    }
END_TEST

/* bf16 keeps 8 bits: the loss of one small batch may be off by a tenth after 20 steps, the average of the last ten batches by a few hundredths. */
START_TEST(accelerator_learns_in_bf16)
    {
        const char *device = es_test_accelerator_name();
        if (!device)
            return;
        result a = train("reference", KN_PRECISION_F32), b = train(device, KN_PRECISION_BF16);
        double loss = largest_difference(&a.loss[0][0], &b.loss[0][0], (int64_t)STEPS * 2), last = 0, want = 0;
        for (int t = STEPS - 5; t < STEPS; t++) {
            last += ((double)b.loss[t][0] + (double)b.loss[t][1]) / 10;
            want += ((double)a.loss[t][0] + (double)a.loss[t][1]) / 10;
        }
        printf("%s in bf16 beside the reference after %d steps: losses differ by %.2g; the last ten %.4f and %.4f\n",
               device, STEPS, loss, last, want);
        ck_assert_double_lt(loss, 0.25);
        ck_assert_double_lt(fabs(last - want), 0.06);
        result_free(&a);
        result_free(&b);
    }
END_TEST

START_TEST(accelerator_repeats_every_bit)
    {
        const char *device = es_test_accelerator_name();
        for (kn_precision p = KN_PRECISION_F32; device && p <= KN_PRECISION_BF16; p++) {
            result a = train(device, p), b = train(device, p);
            ck_assert_mem_eq(a.loss, b.loss, sizeof a.loss);
            ck_assert_mem_eq(a.weights, b.weights, (size_t)a.n_weights * sizeof(float));
            ck_assert_mem_eq(a.stats, b.stats, (size_t)a.n_stats * sizeof(float));
            result_free(&a);
            result_free(&b);
        }
    }
END_TEST

START_TEST(accelerator_recording_changes_no_bit)
    {
        const char *device = es_test_accelerator_name();
        for (kn_precision p = KN_PRECISION_F32; device && p <= KN_PRECISION_BF16; p++)
            kept_plans_change_no_bit(device, p);
    }
END_TEST

ES_TEST_MAIN("training", cpu_follows_reference, threads_change_no_bit, keeping_a_plan_changes_no_bit,
             accelerator_follows_reference, accelerator_learns_in_bf16, accelerator_repeats_every_bit,
             accelerator_recording_changes_no_bit)
