/* A language model trained for real and scored: bits per character of the largest, the smallest and some random subnets on held-out and on test text.
 *
 *     build/tests/bench/bench_text SEARCH.yaml [DEVICE] [RANDOM_SUBNETS]
 *
 * The supernet of the search file as a worker trains and evaluates it, in one process: no coordinator. A line with the hash of the trained weights, by which two runs can be
 * compared bit for bit; then one a subnet. tests/bench/text_gpu.yaml is a search file for a GPU. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/str.h"
#include "supernet/train/methods.h"

static void check(es_status s, const es_error *e)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "bench_text: %s\n", es_error_line(e, line, sizeof line));
    exit(1);
}

static void on_progress(void *ctx, uint64_t step, uint64_t steps, double loss, double windows_per_s)
{
    (void)ctx;
    fprintf(stderr, "step %llu of %llu: %.3f bits, %.1f windows/s\n", (unsigned long long)step,
            (unsigned long long)steps, loss / log(2), windows_per_s);
}

static void score(sn_trainer *t, const char *name, const sr_arch *a)
{
    static const sn_split splits[] = {SN_VALIDATION_SPLIT, SN_TEST_SPLIT};
    const sn_space *space = t->file->space;
    es_error e;
    sn_cost cost;
    char *text = sn_arch_format(space, a);
    check(sn_space_cost(space, a, &cost, &e), &e);
    printf("%-9s %11lld params", name, (long long)cost.params);
    for (int i = 0; i < 2; i++) {
        sn_evaluation v;
        if (sn_data_count(t->data, splits[i]) == 0)
            continue;
        check(sn_evaluate(t, a, splits[i], 0, &v, &e), &e);
        printf("  %s %.4f bits %.2f %%", sn_split_name(splits[i]), v.loss / log(2),
               100 * (double)v.correct / (double)v.samples);
    }
    printf("  %s\n", text);
    fflush(stdout);
    free(text);
}

static void print_hash(sn_trainer *t)
{
    const size_t n = (size_t)kn_params_elements(kn_weights_params(t->weights));
    float *values = malloc(n * sizeof *values);
    char hex[ES_HASH_HEX];
    es_hash h;
    es_error e;
    check(kn_weights_download(t->weights, values, &e), &e);
    es_hash_bytes(values, n * sizeof *values, &h);
    es_hash_hex(&h, hex);
    printf("weights %s\n", hex);
    free(values);
}

int main(int argc, char **argv)
{
    sn_search_file *f = NULL;
    kn_device *dev;
    sn_trainer *t = NULL;
    sn_report report;
    es_error e;
    int64_t subnets = 4;
    if (argc < 2 || (argc > 3 && !es_str_to_i64(argv[3], false, &subnets)))
        return fprintf(stderr, "bench_text SEARCH.yaml [DEVICE] [RANDOM_SUBNETS]\n"), 2;
    check(sn_search_file_load(argv[1], &f, &e), &e);
    if (f->task != SN_TASK_LANGUAGE)
        return fprintf(stderr, "bench_text: %s is no search of a language model\n", argv[1]), 2;
    check(kn_device_open(argc > 2 ? argv[2] : "cpu", &dev, &e), &e);
    check(sn_trainer_new(f, dev, &t, &e), &e);
    check(sn_trainer_run(t, UINT64_MAX, &(sn_hooks){.progress = on_progress}, &report, &e), &e);
    printf("%llu steps in %.1f s, %.0f tokens/s\n", (unsigned long long)report.step, report.seconds,
           report.images_per_s * sn_space_positions(f->space));
    print_hash(t);
    score(t, "largest", t->largest);
    score(t, "smallest", t->smallest);
    es_rng r = es_rng_make(f->seed, ES_USE_TEST, 0);
    for (int64_t i = 0; i < subnets; i++) {
        sr_arch_random(sn_space_choices(f->space), &r, t->sampled);
        score(t, "random", t->sampled);
    }
    sn_trainer_destroy(&t);
    kn_device_close(&dev);
    sn_search_file_destroy(&f);
    return 0;
}
