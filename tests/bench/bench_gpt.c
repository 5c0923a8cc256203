/* The gpt space's training step, beside which the same step in PyTorch is measured (compare_gpu.sh).
 *
 *     build/tests/bench/bench_gpt --device cuda:0 --precision bf16 --batch 16 --steps 10                 one sandwich step: largest, smallest, two random
 *     build/tests/bench/bench_gpt --device cuda:0 --precision bf16 --batch 16 --single max               the largest alone, on the labels
 *
 * As the twin: windows of random tokens, every subnet a whole forward and backward pass on the same batch, gradients summed, the largest learns from the labels and gives soft
 * targets to the others, one update by SGD with momentum. Lowering, differentiating, planning of random subnets: all inside the measured time; the largest and the smallest, which come
 * again in every step, are planned once, and a GPU runs them as graphs (kn_plan_options.repeats; --keep 0: anew in every step, too). As a trainer does, the host prepares each
 * subnet while the device works on the one before ("host_s" is what it did of a step, waiting excluded). One JSON line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "base/str.h"
#include "kernels/graph/autodiff.h"
#include "kernels/optim/optim.h"
#include "kernels/plan/plan.h"
#include "supernet/net/net.h"

enum { IN_TARGETS = 2, OUT_LOSS = 0, OUT_TARGETS = 1, STEPS_MAX = 1000 };

typedef struct bench {
    sn_space *space;
    sn_net *net;
    kn_device *dev;
    kn_weights *weights;
    kn_optim *optim;
    kn_graph *graph;
    kn_plan *plan, *kept[2], *now; /* of random subnets; of the largest and the smallest; the one to be run next */
    kn_workspace *ws;
    kn_plan_options options;
    sr_arch *arch;
    int batch, rows, symbols, keep;
    void *tokens, *next_tokens, *targets, *loss;
    size_t peak;
    double build_s, host_s; /* spent by the host: on plans; on everything but waiting */
    uint64_t step;          /* to be run next */
    int next;               /* pass of it that the plan is for */
    es_rng rng;
    char single; /* 'l'argest, 's'mallest; 0: a sandwich */
} bench;

static void check(es_status s, const es_error *e)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "bench_gpt: %s\n", es_error_line(e, line, sizeof line));
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The architecture of pass b->next of step b->step, into b->arch. 0: the largest, 1: the smallest, -1: a random one. */
static int choose(bench *b)
{
    const sr_space *choices = sn_space_choices(b->space);
    if (b->next == 0)
        b->rng = es_rng_make(1, ES_USE_SAMPLE_SUBNET, b->step);
    const int which = b->single == 's' || (!b->single && b->next == 1) ? 1 : b->next == 0 ? 0 : -1;
    if (which == 1)
        sr_arch_smallest(choices, b->arch);
    else if (which == 0)
        sr_arch_largest(choices, b->arch);
    else
        sr_arch_random(choices, &b->rng, b->arch);
    return which;
}

/* Builds, differentiates and plans the subnet that runs next, while the device is busy with what was launched before. */
static void prepare(bench *b)
{
    const double start = now_s();
    const bool teacher = b->next == 0;
    const int which = choose(b), repeats = b->keep ? which : -1;
    kn_plan **plan = repeats < 0 ? &b->plan : &b->kept[repeats];
    kn_plan_options options = b->options;
    kn_graph *g = b->graph;
    es_error e;
    sn_lowered low;
    b->now = *plan;
    if (repeats >= 0 && *plan)
        return;
    options.repeats = repeats >= 0;
    kn_graph_reset(g);
    check(sn_net_lower(b->net, b->arch, &(sn_lower_options){.batch = b->batch, .mode = SN_TRAIN}, g, &low, &e), &e);
    kn_val loss =
        teacher ? kn_cross_entropy(g, low.logits, kn_input(g, SN_IN_LABELS, KN_SHAPE(b->rows), KN_I32), 0)
                : kn_soft_cross_entropy(g, low.logits, kn_input(g, IN_TARGETS, KN_SHAPE(b->rows, b->symbols), KN_F32));
    loss = kn_reduce_mean(g, loss, KN_AXES_ALL);
    if (teacher && !b->single)
        kn_output(g, OUT_TARGETS, kn_softmax(g, kn_detach(g, low.logits)));
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
    const int passes = b->single ? 1 : 4;
    const double start = now_s();
    es_error e;
    for (int i = 0; i < passes; i++) {
        kn_binding bind = {.in = {b->tokens, b->next_tokens, b->targets},
                           .out = {b->loss, b->targets},
                           .weights = {b->weights},
                           .seed = 1,
                           .step = b->step};
        check(kn_run(b->now, b->ws, &bind, &e), &e);
        if (i + 1 == passes) {
            check(kn_optim_update(b->optim, 0.01f, &e), &e);
            b->step++;
        }
        b->next = (i + 1) % passes;
        prepare(b);
    }
    b->host_s += now_s() - start;
    check(kn_device_sync(b->dev, &e), &e);
}

static void *tokens(const bench *b, uint64_t use)
{
    int32_t *host = malloc((size_t)b->rows * sizeof *host);
    void *p = NULL;
    es_error e;
    es_rng r = es_rng_make(1, ES_USE_TEST, use);
    for (int i = 0; i < b->rows; i++)
        host[i] = (int32_t)es_rng_below(&r, (uint32_t)b->symbols);
    check(kn_device_alloc(b->dev, (size_t)b->rows * sizeof *host, &p, &e), &e);
    check(kn_device_upload(b->dev, p, host, (size_t)b->rows * sizeof *host, &e), &e);
    free(host);
    return p;
}

static void bench_open(bench *b, const char *space, const char *device)
{
    es_error e;
    check(sn_space_load(space, &b->space, &e), &e);
    b->rows = b->batch * sn_space_positions(b->space);
    b->symbols = sn_space_classes(b->space);
    b->arch = sr_arch_new(sn_space_choices(b->space));
    check(sn_net_new(b->space, &b->net, &e), &e);
    check(kn_device_open(device, &b->dev, &e), &e);
    check(kn_weights_new(b->dev, sn_net_params(b->net), KN_WITH_GRAD, &b->weights, &e), &e);
    check(kn_weights_init(b->weights, 1, &e), &e);
    check(kn_weights_zero_grads(b->weights, &e), &e);
    check(kn_optim_new(&(kn_optim_config){.kind = KN_SGD, .momentum = 0.9f, .decay = 1e-5f}, b->weights, &b->optim, &e),
          &e);
    check(kn_workspace_new(b->dev, &b->ws, &e), &e);
    b->graph = kn_graph_new((const kn_params *const[KN_SETS]){sn_net_params(b->net), sn_net_stats(b->net)});
    b->tokens = tokens(b, 0);
    b->next_tokens = tokens(b, 1);
    check(kn_device_alloc(b->dev, (size_t)b->rows * (size_t)b->symbols * sizeof(float), &b->targets, &e), &e);
    check(kn_device_alloc(b->dev, sizeof(float), &b->loss, &e), &e);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool number(const char *text, int *to)
{
    int64_t v = 0;
    bool ok = es_str_to_i64(text, false, &v) && v >= 0 && v <= STEPS_MAX;
    *to = (int)v;
    return ok;
}

static void report(bench *b, double *t, int steps)
{
    float loss;
    es_error e;
    check(kn_device_download(b->dev, &loss, b->loss, sizeof loss, &e), &e);
    qsort(t, (size_t)steps, sizeof *t, by_size);
    printf("{\"workload\": \"gpt\", \"mode\": \"%s\", \"dtype\": \"%s\", \"batch\": %d, \"median_s\": %.5f, \"min_s\": "
           "%.5f, "
           "\"max_s\": %.5f, \"tokens_per_s\": %.0f, \"build_s_per_subnet\": %.6f, \"host_s\": %.5f, "
           "\"workspace_MiB\": %.1f, \"loss\": "
           "%.5f, "
           "\"device\": \"%s\"}\n",
           b->single == 'l'   ? "largest"
           : b->single == 's' ? "smallest"
                              : "train",
           b->options.precision == KN_PRECISION_BF16 ? "bf16" : "fp32", b->batch, t[steps / 2], t[0], t[steps - 1],
           b->rows / t[steps / 2], b->build_s / ((b->single ? 1.0 : 4.0) * steps), b->host_s / steps,
           (double)b->peak / (1 << 20), (double)loss, kn_device_model(b->dev));
}

static void bench_close(bench *b)
{
    void *memory[] = {b->tokens, b->next_tokens, b->targets, b->loss};
    for (int i = 0; i < 4; i++)
        kn_device_free(b->dev, memory[i]);
    kn_plan_destroy(&b->plan);
    for (int i = 0; i < 2; i++)
        kn_plan_destroy(&b->kept[i]);
    kn_workspace_destroy(&b->ws);
    kn_graph_destroy(&b->graph);
    kn_optim_destroy(&b->optim);
    kn_weights_destroy(&b->weights);
    kn_device_close(&b->dev);
    free(b->arch);
    sn_net_destroy(&b->net);
    sn_space_destroy(&b->space);
}

int main(int argc, char **argv)
{
    const char *space = "examples/spaces/gpt.yaml", *device = "cpu";
    int steps = 5, warmup = 2;
    bench b = {.batch = 1, .keep = 1, .options = {.precision = KN_PRECISION_F32}};
    double t[STEPS_MAX];
    for (int i = 1; i < argc; i += 2) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        bool ok = *v != 0;
        if (strcmp(argv[i], "--space") == 0)
            space = v;
        else if (strcmp(argv[i], "--device") == 0)
            device = v;
        else if (strcmp(argv[i], "--precision") == 0 && strcmp(v, "bf16") == 0)
            b.options.precision = KN_PRECISION_BF16;
        else if (strcmp(argv[i], "--precision") == 0)
            ok = strcmp(v, "fp32") == 0;
        else if (strcmp(argv[i], "--single") == 0)
            b.single = strcmp(v, "max") == 0 ? 'l' : 's', ok = b.single == 'l' || strcmp(v, "min") == 0;
        else if (strcmp(argv[i], "--batch") == 0)
            ok = number(v, &b.batch);
        else if (strcmp(argv[i], "--steps") == 0)
            ok = number(v, &steps);
        else if (strcmp(argv[i], "--keep") == 0)
            ok = number(v, &b.keep);
        else
            ok = strcmp(argv[i], "--warmup") == 0 && number(v, &warmup);
        if (!ok || b.batch < 1 || steps < 1)
            return fprintf(stderr, "bench_gpt: %s %s is no option\n", argv[i], v), 2;
    }
    bench_open(&b, space, device);
    prepare(&b);
    for (int i = 0; i < warmup; i++)
        step(&b);
    b.build_s = b.host_s = 0;
    for (int i = 0; i < steps; i++) {
        double start = now_s();
        step(&b);
        t[i] = now_s() - start;
    }
    report(&b, t, steps);
    bench_close(&b);
    return 0;
}
