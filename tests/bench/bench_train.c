/* Trains a search file's supernet in this process, without a coordinator, and scores it: what to tune a recipe with.
 *
 *     bench_train examples/fashion.yaml [--steps N] [--evaluate N] [--device cpu]
 *
 * Prints processor seconds besides wall seconds: on a shared machine those are the numbers to compare. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/rng.h"
#include "base/str.h"
#include "supernet/train/train.h"

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static double wall_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void progress(void *ctx, uint64_t step, uint64_t steps, double loss, double images_per_s)
{
    int *n = ctx;
    if ((*n)++ % 10 == 0)
        printf("step %" PRIu64 " of %" PRIu64 ": loss %.4f, %.0f images/s\n", step, steps, loss, images_per_s);
    fflush(stdout);
}

static es_status show(sn_trainer *t, const sn_search_file *f, const char *what, const sr_arch *a, sn_split split,
                      int64_t limit, es_error *err)
{
    sn_evaluation e;
    sn_cost cost;
    sn_latency ms;
    double cpu = cpu_seconds();
    ES_RETURN(sn_evaluate(t, a, split, limit, &e, err));
    cpu = cpu_seconds() - cpu;
    ES_RETURN(sn_space_cost(f->space, a, &cost, err));
    ES_RETURN(sn_measure_latency(t, a, &ms, err));
    printf("%-9s %-10s accuracy %.4f loss %.4f params %" PRId64 " macs %" PRId64 " latency %.3f ms, %.2f cpu s\n", what,
           sn_split_name(split), (double)e.correct / (double)e.samples, e.loss, cost.params, cost.macs, ms.median_ms,
           cpu);
    return ES_OK;
}

static es_status train_and_score(const sn_search_file *f, kn_device *dev, uint64_t steps, int evaluations,
                                 es_error *err)
{
    const sr_space *choices = sn_space_choices(f->space);
    sr_arch *a = sr_arch_new(choices);
    sn_trainer *t = NULL;
    sn_report r;
    int told = 0;
    es_status s;
    ES_GOTO(sn_trainer_new(f, dev, &t, err));
    double wall = wall_seconds(), cpu = cpu_seconds();
    ES_GOTO(sn_trainer_run(t, steps ? steps : UINT64_MAX, &(sn_hooks){.ctx = &told, .progress = progress}, &r, err));
    wall = wall_seconds() - wall;
    cpu = cpu_seconds() - cpu;
    printf("%" PRIu64 " of %" PRIu64
           " steps in %.1f s, %.1f cpu s (%.1f ms a step; the whole: %.0f cpu s), loss %.4f, memory %zu MiB\n",
           r.step, sn_train_steps(t), wall, cpu, 1e3 * cpu / (double)r.step,
           cpu / (double)r.step * (double)sn_train_steps(t), r.mean_loss, sn_trainer_memory_bytes(t) >> 20);
    sr_arch_largest(choices, a);
    ES_GOTO(show(t, f, "largest", a, SN_TEST_SPLIT, 0, err));
    sr_arch_smallest(choices, a);
    ES_GOTO(show(t, f, "smallest", a, SN_TEST_SPLIT, 0, err));
    es_rng rng = es_rng_make(1, ES_USE_TEST, 0);
    for (int i = 0; i < evaluations; i++) {
        sr_arch_random(choices, &rng, a);
        ES_GOTO(show(t, f, "random", a, SN_VALIDATION_SPLIT, f->validation_limit, err));
    }
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("peak resident %ld MiB\n", u.ru_maxrss >> 10);
fail:
    sn_trainer_destroy(&t);
    free(a);
    return s;
}

int main(int argc, char **argv)
{
    const char *device = "cpu";
    int64_t steps = 0, evaluations = 4;
    sn_search_file *f = NULL;
    kn_device *dev = NULL;
    es_error err = {0};
    es_status s = ES_INVALID;
    char line[700];
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--device") == 0)
            device = argv[i + 1];
        else if (!(strcmp(argv[i], "--steps") == 0 && es_str_to_i64(argv[i + 1], true, &steps)) &&
                 !(strcmp(argv[i], "--evaluate") == 0 && es_str_to_i64(argv[i + 1], true, &evaluations)))
            argc = 0;
    }
    if (argc < 2 || argc % 2 != 0) {
        fprintf(stderr, "usage: bench_train SEARCH.yaml [--steps N] [--evaluate N] [--device cpu]\n");
        return 2;
    }
    ES_GOTO(sn_search_file_load(argv[1], &f, &err));
    ES_GOTO(kn_device_open(device, &dev, &err));
    ES_GOTO(train_and_score(f, dev, (uint64_t)steps, (int)evaluations, &err));
fail:
    if (s != ES_OK)
        fprintf(stderr, "bench_train: %s\n", es_error_line(&err, line, sizeof line));
    sn_search_file_destroy(&f);
    kn_device_close(&dev);
    return s == ES_OK ? 0 : 1;
}
