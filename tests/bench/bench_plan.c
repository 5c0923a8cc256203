/* How long a subnet takes from nothing to ready: building the graph, differentiating it, planning it. No kernel runs.
 *
 *     bench_plan [blocks]      18 blocks of mbconv make a graph of about 300 nodes
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/str.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"

enum { RUNS = 300, BLOCKS_MAX = 64, CHANNELS = 32, EXPAND = 6, BATCH = 32 };

typedef struct layer {
    kn_param w, gamma, beta;
} layer;

typedef struct net {
    kn_params *params;
    layer stem, part[BLOCKS_MAX][3];
    kn_param head;
    int blocks;
} net;

static void must(es_status s, const es_error *err)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "%s\n", es_error_line(err, line, sizeof line));
    exit(1);
}

static kn_param declare(net *n, const char *kind, int index, kn_shape shape)
{
    es_error err;
    kn_param id = 0;
    char name[64];
    snprintf(name, sizeof name, "%s.%d", kind, index);
    must(kn_params_add(n->params, name, shape, KN_INIT_HE_OUT, shape.rank == 3 ? KN_PARAM_DEPTHWISE : 0, &id, &err),
         &err);
    return id;
}

static layer declare_layer(net *n, int index, kn_shape w, int channels)
{
    return (layer){declare(n, "w", index, w), declare(n, "gamma", index, KN_SHAPE(channels)),
                   declare(n, "beta", index, KN_SHAPE(channels))};
}

static void declare_net(net *n, int blocks)
{
    const int c = CHANNELS, e = CHANNELS * EXPAND;
    n->blocks = blocks;
    n->params = kn_params_new();
    n->stem = declare_layer(n, 0, KN_SHAPE(c, 3, 3, 3), c);
    for (int i = 0; i < blocks; i++) {
        n->part[i][0] = declare_layer(n, 3 * i + 1, KN_SHAPE(e, 1, 1, c), e);
        n->part[i][1] = declare_layer(n, 3 * i + 2, KN_SHAPE(5, 5, e), e);
        n->part[i][2] = declare_layer(n, 3 * i + 3, KN_SHAPE(c, 1, 1, e), c);
    }
    n->head = declare(n, "head", 0, KN_SHAPE(10, c));
    kn_params_seal(n->params);
}

/* The first `width` channels of a parameter in every dimension that has more than `keep`. */
static kn_val slice(kn_graph *g, const net *n, kn_param id, int out, int in)
{
    kn_box b = kn_box_full(&kn_params_def(n->params, id)->shape);
    const kn_shape *s = &kn_params_def(n->params, id)->shape;
    b.extent[s->rank == 3 ? 2 : 0] = out;
    if (s->rank == 4)
        b.extent[3] = in;
    if (s->rank == 3) { /* the centred 3 x 3 */
        b.start[0] = b.start[1] = 1;
        b.extent[0] = b.extent[1] = 3;
    }
    return kn_param_slice(g, KN_SET_WEIGHTS, id, &b);
}

static kn_val norm(kn_graph *g, const net *n, const layer *l, kn_val x, int channels, kn_act act)
{
    return kn_batch_norm(g, x, slice(g, n, l->gamma, channels, 0), slice(g, n, l->beta, channels, 0), 1e-5f, act).y;
}

static kn_val build(kn_graph *g, const net *n)
{
    const int c = CHANNELS - 8, e = (CHANNELS - 8) * (EXPAND - 2);
    kn_val x = kn_input(g, 0, KN_SHAPE(BATCH, 32, 32, 3), KN_F32), labels = kn_input(g, 1, KN_SHAPE(BATCH), KN_I32);
    x = norm(g, n, &n->stem, kn_conv2d(g, x, slice(g, n, n->stem.w, c, 3), 2, 1, 1, 1), c, KN_ACT_HSWISH);
    for (int i = 0; i < n->blocks; i++) {
        const layer *l = n->part[i];
        kn_val y = norm(g, n, &l[0], kn_conv2d(g, x, slice(g, n, l[0].w, e, c), 1, 0, 1, 1), e, KN_ACT_HSWISH);
        y = norm(g, n, &l[1], kn_depthwise(g, y, slice(g, n, l[1].w, e, 0), 1, 1, 1), e, KN_ACT_HSWISH);
        x = kn_add(g, x, norm(g, n, &l[2], kn_conv2d(g, y, slice(g, n, l[2].w, c, e), 1, 0, 1, 1), c, KN_ACT_NONE));
    }
    x = kn_reshape(g, kn_global_avg_pool(g, x), KN_SHAPE(BATCH, c));
    kn_box head = {.extent = {10, c}};
    x = kn_linear(g, x, kn_param_slice(g, KN_SET_WEIGHTS, n->head, &head));
    return kn_reduce_mean(g, kn_cross_entropy(g, x, labels, 0.0f), KN_AXES_ALL);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, int64_t *ns, int n)
{
    qsort(ns, (size_t)n, sizeof *ns, by_value);
    printf("  %-14s median %7.1f us   least %7.1f us\n", what, (double)ns[n / 2] * 1e-3, (double)ns[0] * 1e-3);
}

int main(int argc, char **argv)
{
    static int64_t built[RUNS], differentiated[RUNS], planned[RUNS], all[RUNS];
    int64_t blocks = 18;
    if ((argc > 1 && !es_str_to_i64(argv[1], false, &blocks)) || blocks < 1 || blocks > BLOCKS_MAX) {
        fprintf(stderr, "blocks: 1 to %d\n", BLOCKS_MAX);
        return 1;
    }
    net n = {0};
    es_error err;
    kn_device *dev = NULL;
    kn_plan *plan = NULL;
    es_clock *clock = es_clock_system();
    must(kn_device_open("cpu", &dev, &err), &err);
    declare_net(&n, (int)blocks);
    kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){n.params, NULL});
    size_t forward = 0, total = 0;
    for (int i = 0; i < RUNS; i++) {
        int64_t t0 = es_clock_mono_ns(clock);
        kn_graph_reset(g);
        kn_val loss = build(g, &n);
        forward = kn_graph_nodes(g);
        int64_t t1 = es_clock_mono_ns(clock);
        must(kn_grad_params(g, loss, NULL, NULL, &err), &err);
        kn_output(g, 0, loss);
        total = kn_graph_nodes(g);
        int64_t t2 = es_clock_mono_ns(clock);
        must(kn_plan_make(dev, g, NULL, &plan, &err), &err);
        int64_t t3 = es_clock_mono_ns(clock);
        built[i] = t1 - t0, differentiated[i] = t2 - t1, planned[i] = t3 - t2, all[i] = t3 - t0;
    }
    printf("%d blocks: %zu nodes, %zu with gradients, %zu steps, workspace %.1f MiB\n", n.blocks, forward, total,
           kn_plan_steps(plan), (double)kn_plan_workspace_bytes(plan) / (1 << 20));
    report("build", built, RUNS);
    report("differentiate", differentiated, RUNS);
    report("plan", planned, RUNS);
    report("all", all, RUNS);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
    kn_params_destroy(&n.params);
    kn_device_close(&dev);
    return 0;
}
