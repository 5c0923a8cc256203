/* How long random subnets of a space take from architecture to plan: lowering, differentiating, planning; training mode, no kernel runs.
 *
 *     bench_lower examples/spaces/ofa-mbv3.yaml [batch]
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/str.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"
#include "supernet/net/net.h"

enum { SUBNETS = 100, PARTS = 4 };

static void must(es_status s, const es_error *err)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "%s\n", es_error_line(err, line, sizeof line));
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Adds one subnet's times in ns: lower, differentiate, plan, all. */
static size_t measure(const sn_net *net, const sr_arch *arch, int batch, kn_device *dev, kn_graph *g, kn_plan **plan,
                      int64_t ns[PARTS])
{
    es_error err;
    es_clock *clock = es_clock_system();
    sn_lowered low;
    int64_t t0 = es_clock_mono_ns(clock);
    kn_graph_reset(g);
    must(sn_net_lower(net, arch, &(sn_lower_options){.batch = batch, .mode = SN_TRAIN}, g, &low, &err), &err);
    size_t forward = kn_graph_nodes(g);
    int64_t t1 = es_clock_mono_ns(clock);
    kn_val labels = kn_input(g, SN_IN_LABELS, KN_SHAPE(batch), KN_I32);
    kn_val loss = kn_reduce_mean(g, kn_cross_entropy(g, low.logits, labels, 0.0f), KN_AXES_ALL);
    must(kn_grad_params(g, loss, NULL, NULL, &err), &err);
    kn_output(g, 0, loss);
    int64_t t2 = es_clock_mono_ns(clock);
    must(kn_plan_make(dev, g, NULL, plan, &err), &err);
    int64_t t3 = es_clock_mono_ns(clock);
    ns[0] = t1 - t0, ns[1] = t2 - t1, ns[2] = t3 - t2, ns[3] = t3 - t0;
    return forward;
}

int main(int argc, char **argv)
{
    static int64_t ns[PARTS][SUBNETS];
    static const char *const names[PARTS] = {"lower", "differentiate", "plan", "all"};
    sn_space *space = NULL;
    sn_net *net = NULL;
    kn_device *dev = NULL;
    kn_plan *plan = NULL;
    es_error err;
    int64_t batch = 32;
    if (argc < 2 || (argc > 2 && !es_str_to_i64(argv[2], false, &batch)) || batch < 1) {
        fprintf(stderr, "usage: bench_lower SPACE.yaml [batch]\n");
        return 1;
    }
    must(sn_space_load(argv[1], &space, &err), &err);
    must(sn_net_new(space, &net, &err), &err);
    must(kn_device_open("cpu", &dev, &err), &err);
    kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){sn_net_params(net), sn_net_stats(net)});
    const sr_space *choices = sn_space_choices(space);
    sr_arch *arch = sr_arch_new(choices);
    es_rng rng = es_rng_make(1, ES_USE_TEST, 0);
    double nodes = 0, steps = 0;
    for (int i = -SUBNETS / 10; i < SUBNETS; i++) { /* the first few fill the arenas */
        int64_t t[PARTS];
        sr_arch_random(choices, &rng, arch);
        size_t n = measure(net, arch, (int)batch, dev, g, &plan, t);
        for (int k = 0; i >= 0 && k < PARTS; k++)
            ns[k][i] = t[k];
        nodes += i >= 0 ? (double)n : 0;
        steps += i >= 0 ? (double)kn_plan_steps(plan) : 0;
    }
    printf("%s: %d random subnets, on average %.0f nodes, %.0f steps with gradients\n", argv[1], SUBNETS,
           nodes / SUBNETS, steps / SUBNETS);
    for (int k = 0; k < PARTS; k++) {
        qsort(ns[k], SUBNETS, sizeof ns[k][0], by_value);
        printf("  %-14s median %7.1f us   most %7.1f us\n", names[k], (double)ns[k][SUBNETS / 2] * 1e-3,
               (double)ns[k][SUBNETS - 1] * 1e-3);
    }
    free(arch);
    kn_graph_destroy(&g);
    kn_plan_destroy(&plan);
    kn_device_close(&dev);
    sn_net_destroy(&net);
    sn_space_destroy(&space);
    return 0;
}
