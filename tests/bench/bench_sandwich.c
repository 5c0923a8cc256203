/* The sandwich training step on the benchmark spaces, beside which the same step in PyTorch is measured (compare_cpu.sh, compare_gpu.sh).
 *
 *     build/tests/bench/bench_sandwich --workload fashion --batch 256 --steps 5 --device cpu
 *
 *     build/tests/bench/bench_sandwich --workload mbconv224 --single max --batch 128 --device cuda:0 --precision bf16
 *
 * One step: the largest, the smallest and two random subnets, each a whole forward and backward pass over one batch, gradients summed; the largest learns from
 * labels and gives soft targets to the others; then one update by SGD with momentum. Building the graph, differentiating, planning of random subnets: all inside the
 * measured time; each subnet is prepared while the device works on the one before ("host_s" is what the host did of a step, waiting excluded). The largest and the smallest
 * come again in every step and are planned once (kn_plan_options.repeats: a GPU runs them as graphs); --keep 0 plans and launches them anew, too. --rehearse N: so many steps
 * without an update before the first (2 on a GPU, as the trainer does), of other random subnets; "prepare_s" is what that and the first plan took, "prepare_MiB" the device memory
 * that went away meanwhile, "first_s" the first steps in order. One JSON line per run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "base/str.h"
#include "kernels/device/device_internal.h"
#include "kernels/graph/autodiff.h"
#include "kernels/optim/optim.h"
#include "kernels/plan/plan.h"

enum {
    CHOICES = 8,
    STAGES = 8,
    BLOCKS = 8,
    IN_IMAGES = 0,
    IN_LABELS = 1,
    IN_TARGETS = 2,
    OUT_LOSS = 0,
    OUT_TARGETS = 1
};

typedef struct choice {
    int n, v[CHOICES];
} choice;

typedef struct stage {
    choice width, depth, kernel, expand;
    int stride;
    bool se;
} stage;

typedef struct space {
    const char *name;
    int size, channels, classes, stem_stride;
    choice stem, last;
    int n_stages;
    stage stages[STAGES];
} space;

/* The stages of AttentiveNAS: width, depth, kernel, expand, stride, squeeze-excite. */
#define MBCONV_STAGES                                                                              \
    {                                                                                              \
        {{2, {16, 24}}, {2, {1, 2}}, {2, {3, 5}}, {1, {1}}, 1, false},                             \
            {{2, {24, 32}}, {3, {3, 4, 5}}, {2, {3, 5}}, {3, {4, 5, 6}}, 2, false},                \
            {{2, {32, 40}}, {4, {3, 4, 5, 6}}, {2, {3, 5}}, {3, {4, 5, 6}}, 2, true},              \
            {{2, {64, 72}}, {4, {3, 4, 5, 6}}, {2, {3, 5}}, {3, {4, 5, 6}}, 2, false},             \
            {{3, {112, 120, 128}}, {6, {3, 4, 5, 6, 7, 8}}, {2, {3, 5}}, {3, {4, 5, 6}}, 1, true}, \
            {{4, {192, 200, 208, 216}}, {6, {3, 4, 5, 6, 7, 8}}, {2, {3, 5}}, {1, {6}}, 2, true},  \
        {                                                                                          \
            {2, {216, 224}}, {2, {1, 2}}, {2, {3, 5}}, {1, {6}}, 1, true                           \
        }                                                                                          \
    }

static const space spaces[] = {
    {"fashion",
     28,
     1,
     10,
     1,
     {2, {8, 16}},
     {2, {128, 256}},
     2,
     {{{2, {16, 24}}, {3, {1, 2, 3}}, {2, {3, 5}}, {3, {3, 4, 6}}, 2, false},
      {{2, {32, 40}}, {3, {1, 2, 3}}, {2, {3, 5}}, {3, {3, 4, 6}}, 2, false}}},
    {"mbconv32", 32, 3, 10, 1, {2, {16, 24}}, {2, {1792, 1984}}, 7, MBCONV_STAGES},
    {"mbconv224", 224, 3, 1000, 2, {2, {16, 24}}, {2, {1792, 1984}}, 7, MBCONV_STAGES},
};

/* --- the supernet's parameters --- */

typedef struct norm {
    kn_param gamma, beta, mean, var;
} norm;

typedef struct block {
    kn_param expand, depthwise, project, se1, se1_bias, se2, se2_bias;
    norm expand_norm, depthwise_norm, project_norm;
} block;

typedef struct supernet {
    const space *s;
    kn_params *params, *stats;
    kn_param stem, head, last, fc, fc_bias;
    norm stem_norm, head_norm;
    block blocks[STAGES][BLOCKS];
} supernet;

static int largest(const choice *c)
{
    int v = c->v[0];
    for (int i = 1; i < c->n; i++)
        v = c->v[i] > v ? c->v[i] : v;
    return v;
}
static int smallest(const choice *c)
{
    int v = c->v[0];
    for (int i = 1; i < c->n; i++)
        v = c->v[i] < v ? c->v[i] : v;
    return v;
}

static void check(es_status s, const es_error *e)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "bench_sandwich: %s\n", es_error_line(e, line, sizeof line));
    exit(1);
}

static kn_param add(kn_params *p, const char *scope, const char *name, kn_shape shape, kn_init_kind init,
                    unsigned flags)
{
    char full[96];
    kn_param id = 0;
    es_error e;
    snprintf(full, sizeof full, "%s.%s", scope, name);
    check(kn_params_add(p, full, shape, init, flags, &id, &e), &e);
    return id;
}

static norm add_norm(supernet *n, const char *scope, const char *name, int c)
{
    char at[64];
    snprintf(at, sizeof at, "%s.%s", scope, name);
    return (norm){add(n->params, at, "gamma", KN_SHAPE(c), KN_INIT_ONE, KN_PARAM_DECAY),
                  add(n->params, at, "beta", KN_SHAPE(c), KN_INIT_ZERO, KN_PARAM_DECAY),
                  add(n->stats, at, "mean", KN_SHAPE(c), KN_INIT_ZERO, 0),
                  add(n->stats, at, "var", KN_SHAPE(c), KN_INIT_ONE, 0)};
}

static block add_block(supernet *n, const char *at, int ci, int co, int e, bool se)
{
    kn_params *p = n->params;
    const int m = ci * e;
    block b = {0};
    if (e > 1) {
        b.expand = add(p, at, "expand", KN_SHAPE(m, 1, 1, ci), KN_INIT_HE_OUT, KN_PARAM_DECAY);
        b.expand_norm = add_norm(n, at, "expand_norm", m);
    }
    b.depthwise = add(p, at, "depthwise", KN_SHAPE(5, 5, m), KN_INIT_HE_OUT, KN_PARAM_DECAY | KN_PARAM_DEPTHWISE);
    b.depthwise_norm = add_norm(n, at, "depthwise_norm", m);
    if (se) {
        b.se1 = add(p, at, "se1", KN_SHAPE(m / 4, m), KN_INIT_UNIFORM_IN, KN_PARAM_DECAY);
        b.se1_bias = add(p, at, "se1_bias", KN_SHAPE(m / 4), KN_INIT_ZERO, KN_PARAM_DECAY);
        b.se2 = add(p, at, "se2", KN_SHAPE(m, m / 4), KN_INIT_UNIFORM_IN, KN_PARAM_DECAY);
        b.se2_bias = add(p, at, "se2_bias", KN_SHAPE(m), KN_INIT_ZERO, KN_PARAM_DECAY);
    }
    b.project = add(p, at, "project", KN_SHAPE(co, 1, 1, m), KN_INIT_HE_OUT, KN_PARAM_DECAY);
    b.project_norm = add_norm(n, at, "project_norm", co);
    return b;
}

static supernet *supernet_new(const space *s)
{
    supernet *n = calloc(1, sizeof *n);
    int ci = largest(&s->stem);
    n->s = s;
    n->params = kn_params_new();
    n->stats = kn_params_new();
    n->stem = add(n->params, "stem", "conv", KN_SHAPE(ci, 3, 3, s->channels), KN_INIT_HE_OUT, KN_PARAM_DECAY);
    n->stem_norm = add_norm(n, "stem", "norm", ci);
    for (int i = 0; i < s->n_stages; i++)
        for (int j = 0; j < largest(&s->stages[i].depth); j++) {
            char at[32];
            snprintf(at, sizeof at, "stages.%d.%d", i, j);
            n->blocks[i][j] =
                add_block(n, at, ci, largest(&s->stages[i].width), largest(&s->stages[i].expand), s->stages[i].se);
            ci = largest(&s->stages[i].width);
        }
    n->head = add(n->params, "head", "conv", KN_SHAPE(ci * 6, 1, 1, ci), KN_INIT_HE_OUT, KN_PARAM_DECAY);
    n->head_norm = add_norm(n, "head", "norm", ci * 6);
    n->last = add(n->params, "last", "conv", KN_SHAPE(largest(&s->last), ci * 6), KN_INIT_HE_OUT, KN_PARAM_DECAY);
    n->fc = add(n->params, "fc", "weight", KN_SHAPE(s->classes, largest(&s->last)), KN_INIT_UNIFORM_IN, KN_PARAM_DECAY);
    n->fc_bias = add(n->params, "fc", "bias", KN_SHAPE(s->classes), KN_INIT_ZERO, KN_PARAM_DECAY);
    kn_params_seal(n->params);
    kn_params_seal(n->stats);
    return n;
}

/* --- architectures --- */

typedef struct architecture {
    int stem, last, width[STAGES], depth[STAGES], kernel[STAGES][BLOCKS], expand[STAGES][BLOCKS];
} architecture;

typedef enum mode { LARGEST, SMALLEST, RANDOM } mode;

static int pick(const choice *c, mode m, es_rng *r)
{
    return m == LARGEST ? largest(c) : m == SMALLEST ? smallest(c) : c->v[es_rng_below(r, (uint32_t)c->n)];
}

static architecture sample(const space *s, mode m, es_rng *r)
{
    architecture a = {.stem = pick(&s->stem, m, r), .last = pick(&s->last, m, r)};
    for (int i = 0; i < s->n_stages; i++) {
        a.width[i] = pick(&s->stages[i].width, m, r);
        a.depth[i] = pick(&s->stages[i].depth, m, r);
        for (int j = 0; j < a.depth[i]; j++) {
            a.kernel[i][j] = pick(&s->stages[i].kernel, m, r);
            a.expand[i][j] = pick(&s->stages[i].expand, m, r);
        }
    }
    return a;
}

/* --- a subnet as a graph --- */

static kn_val slice(kn_graph *g, kn_param id, kn_shape extent, int centre)
{
    kn_box b = kn_box_full(&extent);
    if (extent.rank == 3) /* depthwise: the middle of the kernel */
        b.start[0] = b.start[1] = centre;
    return kn_param_slice(g, KN_SET_WEIGHTS, id, &b);
}

static kn_val normalise(kn_graph *g, kn_val x, const norm *n, kn_act act)
{
    kn_shape s = kn_shape_of(g, x), c = KN_SHAPE(s.d[3]);
    kn_box box = kn_box_full(&c);
    kn_bn y = kn_batch_norm(g, x, slice(g, n->gamma, c, 0), slice(g, n->beta, c, 0), 1e-5f, act);
    kn_val momentum = kn_constant(g, kn_shape_make(0, NULL), 0.1f);
    kn_blend_param(g, KN_SET_STATS, n->mean, &box, y.mean, momentum);
    kn_blend_param(g, KN_SET_STATS, n->var, &box, y.var, momentum);
    return y.y;
}

static kn_val point(kn_graph *g, kn_val x, kn_param w, int co)
{
    return kn_conv2d(g, x, slice(g, w, KN_SHAPE(co, 1, 1, kn_shape_of(g, x).d[3]), 0), 1, 0, 1, 1);
}

static kn_val dense(kn_graph *g, kn_val x, kn_param w, kn_param b, int out, kn_act act)
{
    kn_val y = kn_linear(g, x, slice(g, w, KN_SHAPE(out, kn_shape_of(g, x).d[1]), 0));
    return kn_bias_act(g, y, slice(g, b, KN_SHAPE(out), 0), act);
}

static kn_val mbconv(kn_graph *g, kn_val x, const block *b, int co, int k, int e, int stride, bool se)
{
    kn_val y = x;
    const int ci = kn_shape_of(g, x).d[3], m = ci * e, batch = kn_shape_of(g, x).d[0];
    if (e > 1)
        y = normalise(g, point(g, y, b->expand, m), &b->expand_norm, KN_ACT_SILU);
    y = kn_depthwise(g, y, slice(g, b->depthwise, KN_SHAPE(k, k, m), (5 - k) / 2), stride, k / 2, 1);
    y = normalise(g, y, &b->depthwise_norm, KN_ACT_SILU);
    if (se) {
        kn_val s = kn_reshape(g, kn_global_avg_pool(g, y), KN_SHAPE(batch, m));
        s = dense(g, s, b->se1, b->se1_bias, m / 4, KN_ACT_SILU);
        s = dense(g, s, b->se2, b->se2_bias, m, KN_ACT_SIGMOID);
        y = kn_mul(g, y, kn_reshape(g, s, KN_SHAPE(batch, 1, 1, m)));
    }
    y = normalise(g, point(g, y, b->project, co), &b->project_norm, KN_ACT_NONE);
    return stride == 1 && ci == co ? kn_add(g, x, y) : y;
}

static kn_val forward(kn_graph *g, const supernet *n, const architecture *a, kn_val x)
{
    const space *s = n->s;
    const int batch = kn_shape_of(g, x).d[0];
    x = kn_conv2d(g, x, slice(g, n->stem, KN_SHAPE(a->stem, 3, 3, s->channels), 0), s->stem_stride, 1, 1, 1);
    x = normalise(g, x, &n->stem_norm, KN_ACT_SILU);
    for (int i = 0; i < s->n_stages; i++)
        for (int j = 0; j < a->depth[i]; j++)
            x = mbconv(g, x, &n->blocks[i][j], a->width[i], a->kernel[i][j], a->expand[i][j],
                       j == 0 ? s->stages[i].stride : 1, s->stages[i].se);
    const int c = kn_shape_of(g, x).d[3];
    x = normalise(g, point(g, x, n->head, c * 6), &n->head_norm, KN_ACT_SILU);
    x = kn_reshape(g, kn_global_avg_pool(g, x), KN_SHAPE(batch, c * 6));
    x = kn_activate(g, kn_linear(g, x, slice(g, n->last, KN_SHAPE(a->last, c * 6), 0)), KN_ACT_SILU);
    x = kn_linear(g, x, slice(g, n->fc, KN_SHAPE(s->classes, a->last), 0));
    return kn_bias_act(g, x, slice(g, n->fc_bias, KN_SHAPE(s->classes), 0), KN_ACT_NONE);
}

/* --- one step --- */

typedef struct bench {
    supernet *net;
    kn_device *dev;
    kn_weights *weights, *stats;
    kn_optim *optim;
    kn_graph *graph;
    kn_plan *plan, *kept[2], *now; /* of random subnets; LARGEST, SMALLEST; the one to be run next */
    bool keep;
    kn_workspace *ws;
    int batch;
    float *images, *targets, loss;
    float *loss_device;
    int32_t *labels;
    size_t peak;
    double prepare_s, build_s,
        host_s;    /* before the first step; spent by the host: on plans; on everything but waiting */
    uint64_t step; /* to be run next */
    int next;      /* pass of it that the plan is for */
    es_rng rng;
    kn_plan_options options;
    bool rehearsing;
    int single; /* LARGEST or SMALLEST alone instead of a sandwich; -1: a sandwich */
} bench;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Processor time of all threads: steadier than the clock on a machine that others use too. */
static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Builds, differentiates and plans the subnet that runs next, while the device is busy with what was launched before. */
static void prepare(bench *b)
{
    static const mode modes[] = {LARGEST, SMALLEST, RANDOM, RANDOM};
    const space *s = b->net->s;
    const double start = now_s();
    kn_graph *g = b->graph;
    es_error e;
    if (b->next == 0)
        b->rng = es_rng_make(1, ES_USE_SAMPLE_SUBNET, b->step);
    const mode m = b->single < 0 ? modes[b->next] : (mode)b->single;
    kn_plan **plan = b->keep && m != RANDOM ? &b->kept[m] : &b->plan;
    const bool planned = plan != &b->plan && *plan != NULL;
    b->now = *plan;
    if (planned)
        return;
    const architecture a = sample(s, m, &b->rng);
    kn_plan_options options = b->options;
    options.repeats = plan != &b->plan;
    kn_graph_reset(g);
    kn_val z =
        forward(g, b->net, &a, kn_input(g, IN_IMAGES, KN_SHAPE(b->batch, s->size, s->size, s->channels), KN_F32));
    kn_val loss = b->next == 0
                      ? kn_cross_entropy(g, z, kn_input(g, IN_LABELS, KN_SHAPE(b->batch), KN_I32), 0.0f)
                      : kn_soft_cross_entropy(g, z, kn_input(g, IN_TARGETS, KN_SHAPE(b->batch, s->classes), KN_F32));
    loss = kn_reduce_mean(g, loss, KN_AXES_ALL);
    if (b->next == 0)
        kn_output(g, OUT_TARGETS, kn_softmax(g, kn_detach(g, z)));
    kn_output(g, OUT_LOSS, kn_reshape(g, loss, kn_shape_make(0, NULL)));
    check(kn_grad_params(g, loss, NULL, NULL, &e), &e);
    check(kn_plan_make(b->dev, g, &options, plan, &e), &e);
    b->now = *plan;
    if (kn_plan_workspace_bytes(b->now) > b->peak)
        b->peak = kn_plan_workspace_bytes(b->now);
    check(kn_workspace_reserve(b->ws, b->peak, &e), &e);
    b->build_s += now_s() - start;
}

/* One step; it ends with the first subnet of the next one prepared. */
static void step(bench *b)
{
    const int passes = b->single < 0 ? 4 : 1;
    const double start = now_s();
    es_error e;
    for (int i = 0; i < passes; i++) {
        kn_binding bind = {.in = {b->images, b->labels, b->targets},
                           .out = {b->loss_device, b->targets},
                           .weights = {b->weights, b->stats},
                           .seed = 1,
                           .step = b->step};
        check(kn_run(b->now, b->ws, &bind, &e), &e);
        if (i + 1 == passes) {
            if (!b->rehearsing)
                check(kn_optim_update(b->optim, 0.01f, &e), &e);
            b->step++;
        }
        b->next = (i + 1) % passes;
        prepare(b);
    }
    b->host_s += now_s() - start;
    check(kn_device_sync(b->dev, &e), &e);
}

/* Steps of other subnets than those to come, of which nothing is left; the first subnet of the first step is prepared. */
static void start(bench *b, int rehearse)
{
    const uint64_t elsewhere = 1ull << 40;
    const double begun = now_s();
    es_error e;
    b->rehearsing = true;
    b->step = elsewhere;
    if (rehearse > 0)
        prepare(b);
    for (int i = 0; i < rehearse; i++)
        step(b);
    b->rehearsing = false;
    if (rehearse > 0) {
        check(kn_weights_zero_grads(b->weights, &e), &e);
        check(kn_weights_init(b->stats, 1, &e), &e);
    }
    b->step = 0;
    b->next = 0;
    prepare(b);
    check(kn_device_sync(b->dev, &e), &e);
    b->prepare_s = now_s() - begun;
}

static void *upload(bench *b, const void *from, size_t bytes)
{
    void *p = NULL;
    es_error e;
    check(kn_device_alloc(b->dev, bytes, &p, &e), &e);
    check(kn_device_upload(b->dev, p, from, bytes, &e), &e);
    return p;
}

static void bench_open(bench *b, const char *device)
{
    const space *s = b->net->s;
    const size_t pixels = (size_t)b->batch * (size_t)(s->size * s->size * s->channels);
    float *images = malloc(pixels * sizeof *images), *zero = calloc((size_t)(b->batch * s->classes), sizeof *zero);
    int32_t *labels = malloc((size_t)b->batch * sizeof *labels);
    es_error e;
    es_rng r = es_rng_make(1, ES_USE_TEST, 0);
    for (size_t i = 0; i < pixels; i++)
        images[i] = es_rng_normal(&r);
    for (int i = 0; i < b->batch; i++)
        labels[i] = (int32_t)es_rng_below(&r, (uint32_t)s->classes);
    check(kn_device_open(device, &b->dev, &e), &e);
    check(kn_weights_new(b->dev, b->net->params, KN_WITH_GRAD, &b->weights, &e), &e);
    check(kn_weights_new(b->dev, b->net->stats, 0, &b->stats, &e), &e);
    check(kn_weights_init(b->weights, 1, &e), &e);
    check(kn_weights_init(b->stats, 1, &e), &e);
    check(kn_weights_zero_grads(b->weights, &e), &e);
    check(kn_optim_new(&(kn_optim_config){.kind = KN_SGD, .momentum = 0.9f, .decay = 1e-5f}, b->weights, &b->optim, &e),
          &e);
    check(kn_workspace_new(b->dev, &b->ws, &e), &e);
    b->graph = kn_graph_new((const kn_params *const[KN_SETS]){b->net->params, b->net->stats});
    b->images = upload(b, images, pixels * sizeof *images);
    b->labels = upload(b, labels, (size_t)b->batch * sizeof *labels);
    b->targets = upload(b, zero, (size_t)(b->batch * s->classes) * sizeof *zero);
    b->loss_device = upload(b, zero, sizeof *zero);
    free(images);
    free(labels);
    free(zero);
}

typedef struct times {
    double s[1000], cpu;
    kn_device_count before, after;
} times;

static void measure(bench *b, int steps, int warmup, times *t)
{
    for (int i = 0; i < warmup; i++)
        step(b);
    b->build_s = b->host_s = 0.0;
    t->before = b->dev->count;
    t->cpu = cpu_s();
    for (int i = 0; i < steps; i++) {
        double start = now_s();
        step(b);
        t->s[i] = now_s() - start;
    }
    t->cpu = (cpu_s() - t->cpu) / steps;
    t->after = b->dev->count;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_first(const times *t, int steps)
{
    printf("\"first_s\": [");
    for (int i = 0; i < steps && i < 10; i++)
        printf("%s%.5f", i ? ", " : "", t->s[i]);
    printf("], ");
}

static void print(const bench *b, times *t, int steps, double prepare_MiB)
{
    const double passes = b->single < 0 ? 4.0 : 1.0;
    const kn_device_count *x = &t->before, *y = &t->after;
    printf("{\"workload\": \"%s\", \"mode\": \"%s\", \"dtype\": \"%s\", \"batch\": %d, ", b->net->s->name,
           b->single < 0          ? "train"
           : b->single == LARGEST ? "largest"
                                  : "smallest",
           b->options.precision == KN_PRECISION_BF16 ? "bf16" : "fp32", b->batch);
    print_first(t, steps);
    qsort(t->s, (size_t)steps, sizeof *t->s, by_size);
    printf("\"median_s\": %.5f, \"min_s\": %.5f, \"max_s\": %.5f, \"cpu_s\": %.5f, \"samples_per_s\": %.2f, "
           "\"build_s_per_subnet\": %.6f, \"host_s\": %.5f, ",
           t->s[steps / 2], t->s[0], t->s[steps - 1], t->cpu, b->batch / t->s[steps / 2], b->build_s / (passes * steps),
           b->host_s / steps);
    printf("\"calls\": %.1f, \"replays\": %.1f, \"searches\": %.1f, \"refused\": %llu, \"prepare_s\": %.4f, "
           "\"prepare_MiB\": %.0f, \"workspace_MiB\": %.1f, \"loss\": %.5f, \"device\": \"%s\"}\n",
           (double)(y->calls - x->calls) / steps, (double)(y->replays - x->replays) / steps,
           (double)(y->searches - x->searches) / steps, (unsigned long long)y->refused, b->prepare_s, prepare_MiB,
           (double)b->peak / (1 << 20), (double)b->loss, kn_device_model(b->dev));
}

static bool number(const char *text, int *to)
{
    int64_t v = 0;
    bool ok = es_str_to_i64(text, false, &v) && v >= 0 && v <= 100000;
    *to = (int)v;
    return ok;
}

int main(int argc, char **argv)
{
    const char *workload = "fashion", *device = "cpu";
    int batch = 256, steps = 5, warmup = 2, single = -1, keep = 1, rehearse = -1;
    kn_plan_options options = {.precision = KN_PRECISION_F32};
    for (int i = 1; i < argc; i += 2) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        bool ok = true;
        if (strcmp(argv[i], "--workload") == 0)
            workload = v;
        else if (strcmp(argv[i], "--device") == 0)
            device = v;
        else if (strcmp(argv[i], "--precision") == 0 && strcmp(v, "bf16") == 0)
            options.precision = KN_PRECISION_BF16;
        else if (strcmp(argv[i], "--precision") == 0)
            ok = strcmp(v, "fp32") == 0;
        else if (strcmp(argv[i], "--single") == 0 && strcmp(v, "max") == 0)
            single = LARGEST;
        else if (strcmp(argv[i], "--single") == 0)
            single = SMALLEST, ok = strcmp(v, "min") == 0;
        else if (strcmp(argv[i], "--batch") == 0)
            ok = number(v, &batch);
        else if (strcmp(argv[i], "--steps") == 0)
            ok = number(v, &steps);
        else if (strcmp(argv[i], "--keep") == 0)
            ok = number(v, &keep);
        else if (strcmp(argv[i], "--rehearse") == 0)
            ok = number(v, &rehearse);
        else
            ok = strcmp(argv[i], "--warmup") == 0 && number(v, &warmup);
        if (!ok)
            return fprintf(stderr, "bench_sandwich: %s %s is no option\n", argv[i], v), 2;
    }
    bench b = {.batch = batch, .options = options, .single = single, .keep = keep > 0};
    es_error e;
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        if (strcmp(spaces[i].name, workload) == 0)
            b.net = supernet_new(&spaces[i]);
    if (b.net == NULL || batch < 1 || steps < 1 || steps > 1000)
        return fprintf(stderr,
                       "bench_sandwich: workload fashion, mbconv32 or mbconv224, batch at least 1, 1 to 1000 steps\n"),
               2;
    bench_open(&b, device);
    size_t before = 0, after = 0, total;
    static times t;
    check(kn_device_memory(b.dev, &before, &total, &e), &e);
    start(&b, rehearse >= 0 ? rehearse : kn_device_backend(b.dev) == KN_BACKEND_CUDA ? 2 : 0);
    check(kn_device_memory(b.dev, &after, &total, &e), &e);
    measure(&b, steps, warmup, &t);
    check(kn_device_download(b.dev, &b.loss, b.loss_device, sizeof b.loss, &e), &e);
    print(&b, &t, steps, before > after ? (double)(before - after) / (1 << 20) : 0.0);
    kn_plan_destroy(&b.plan);
    for (int i = 0; i < 2; i++)
        kn_plan_destroy(&b.kept[i]);
    return 0;
}
