#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "supernet/train/methods.h"

enum { WARM_UP = 10, RUNS_MIN = 50, RUNS_MAX = 1000 };
static const int64_t BUDGET_NS = 100000000; /* beyond RUNS_MIN, go on for so long */
/* Beyond WARM_UP runs: an idle GPU takes a while to reach its clock. */
static const int64_t WARM_HOST_NS = 10000000, WARM_GPU_NS = 100000000;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between the order statistics. */
static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int low = (int)at;
    return low + 1 < n ? sorted[low] + (at - low) * (sorted[low + 1] - sorted[low]) : sorted[low];
}

es_status sn_measure_latency(sn_trainer *t, const sr_arch *a, sn_latency *out, es_error *err)
{
    es_clock *clock = es_clock_system();
    double ms[RUNS_MAX];
    int n = 0;
    sn_batch b;
    sn_lowered net;
    kn_graph_reset(t->graph);
    ES_RETURN(sn_net_lower(t->net, a, &(sn_lower_options){.batch = 1, .mode = SN_INFER}, t->graph, &net, err));
    kn_output(t->graph, SN_OUT_LOGITS, net.logits);
    ES_RETURN(sn_trainer_plan_to(t, &t->plan, true, err));
    /* Statistics as initialised (mean 0, variance 1): the time does not depend on their values as long as these are finite. */
    ES_RETURN(kn_weights_init(t->eval_stats, t->seed, err));
    ES_RETURN(sn_loader_eval(t->loader, SN_TRAIN_SPLIT, 0, 1, &b, err));
    kn_binding bind = {.in = {[SN_IN_IMAGES] = b.images},
                       .out = {[SN_OUT_LOGITS] = t->teacher},
                       .weights = {t->weights, t->eval_stats},
                       .seed = t->seed};
    const int64_t warm = kn_device_backend(t->dev) == KN_BACKEND_CUDA ? WARM_GPU_NS : WARM_HOST_NS,
                  begun = es_clock_mono_ns(clock);
    int64_t first = 0;
    for (int i = -WARM_UP; n < RUNS_MAX; i++) {
        int64_t start = es_clock_mono_ns(clock);
        if (i == 0 && start - begun < warm)
            i = -1;
        ES_RETURN(kn_run(t->plan, t->ws, &bind, err));
        ES_RETURN(kn_device_sync(t->dev, err));
        int64_t end = es_clock_mono_ns(clock);
        if (i == 0)
            first = start;
        if (i >= 0)
            ms[n++] = (double)(end - start) * 1e-6;
        if (n >= RUNS_MIN && end - first > BUDGET_NS)
            break;
    }
    kn_clocks clocks;
    kn_device_clocks(t->dev, &clocks);
    qsort(ms, (size_t)n, sizeof ms[0], by_value);
    *out = (sn_latency){.median_ms = quantile(ms, n, 0.5),
                        .low_ms = quantile(ms, n, 0.25),
                        .high_ms = quantile(ms, n, 0.75),
                        .runs = n,
                        .clocks = clocks};
    return ES_OK;
}
