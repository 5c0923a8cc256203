/* Scoring subnets: each recalibrated and scored on a test set, alone and together with others of a search.
 *
 *     build/tests/bench/bench_evaluate --space mbconv32 --device cuda:0                             # 8 random subnets after 40, each alone
 *     build/tests/bench/bench_evaluate --space mbconv32 --device cuda:0 --search 120 --together 8   # those that NSGA-II asks for, 8 at a time
 *                                                                                                 # (--algorithm regularised-evolution, local-search ...: others)
 *
 * The first prints one JSON line in the form of bench_sandwich: the row "subnet evaluation, 2,048 calibration + 10,000 test images" of compare_gpu.sh. Lowering,
 * planning, calibration, scoring and the download of the counts are inside the measured time. The second scores every group twice, with and without keeping what its
 * members have in common, checks that both agree bit for bit, and prints how much was computed and how long both took. A search needs something to search for: here
 * accuracy is replaced by a smooth function of the architecture (more multiply-adds are better, with a fixed bonus per option drawn from its number), the other
 * objective is multiply-adds, so that populations look as they do in a real search. Images are random bytes: no time depends on them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/rng.h"
#include "base/str.h"
#include "kernels/device/device_internal.h"
#include "search/algorithm.h"
#include "supernet/train/train.h"

typedef struct bench {
    const char *space, *device, *algorithm;
    int images, calibration, batch, subnets, warm, search, together, population;
    bool exact;
    sn_search_file file;
    kn_device *dev;
    sn_trainer *t;
    char dir[64];
} bench;

static void check(es_status s, const es_error *e)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "bench_evaluate: %s\n", es_error_line(e, line, sizeof line));
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void put_u32(FILE *f, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        putc((int)(v >> shift & 255), f);
}

/* Random bytes as IDX files. */
static void write_set(const char *prefix, int n, int h, int w, int c, int classes)
{
    char path[160];
    es_rng r = es_rng_make(1, ES_USE_TEST, (uint64_t)n);
    snprintf(path, sizeof path, "%s-images-idx3-ubyte", prefix);
    FILE *f = fopen(path, "wb");
    if (!f) {
        perror(path);
        exit(1);
    }
    put_u32(f, c == 1 ? 0x803 : 0x804);
    put_u32(f, (uint32_t)n), put_u32(f, (uint32_t)h), put_u32(f, (uint32_t)w);
    if (c != 1)
        put_u32(f, (uint32_t)c);
    for (int64_t i = 0; i < (int64_t)n * h * w * c; i += 4) {
        uint32_t v = es_rng_u32(&r);
        for (int k = 0; k < 4 && i + k < (int64_t)n * h * w * c; k++)
            putc((int)(v >> 8 * k & 255), f);
    }
    fclose(f);
    snprintf(path, sizeof path, "%s-labels-idx1-ubyte", prefix);
    f = fopen(path, "wb");
    if (!f) {
        perror(path);
        exit(1);
    }
    put_u32(f, 0x801), put_u32(f, (uint32_t)n);
    for (int i = 0; i < n; i++)
        putc((int)es_rng_below(&r, (uint32_t)classes), f);
    fclose(f);
}

static void remove_sets(const bench *b)
{
    static const char *const names[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "test-images-idx3-ubyte",
                                        "test-labels-idx1-ubyte"};
    char path[160];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", b->dir, names[i]);
        unlink(path);
    }
    rmdir(b->dir);
}

static void open_trainer(bench *b)
{
    sn_search_file *f = &b->file;
    char path[160];
    int h, w, c;
    es_error e;
    snprintf(path, sizeof path, "examples/spaces/%s.yaml", b->space);
    check(sn_space_load(path, &f->space, &e), &e);
    sn_space_input(f->space, &h, &w, &c);
    snprintf(b->dir, sizeof b->dir, "/tmp/bench_evaluate.XXXXXX");
    if (!mkdtemp(b->dir)) {
        perror(b->dir);
        exit(1);
    }
    f->seed = 1;
    f->text = es_xstrdup("bench");
    f->task = SN_TASK_IMAGES;
    f->data = (sn_data_config){.format = SN_DATA_IDX};
    snprintf(f->data.train, sizeof f->data.train, "%s/train", b->dir);
    snprintf(f->data.test, sizeof f->data.test, "%s/test", b->dir);
    write_set(f->data.train, b->calibration, h, w, c, sn_space_classes(f->space));
    write_set(f->data.test, b->images, h, w, c, sn_space_classes(f->space));
    f->augment = (sn_augment_config){.normalise = true};
    f->supernet = (sn_supernet_config){.method = SN_METHOD_SANDWICH,
                                       .epochs = 1,
                                       .batch = b->calibration < 64 ? b->calibration : 64,
                                       .optimizer = {.kind = KN_SGD, .momentum = 0.9f},
                                       .schedule = {.kind = KN_CONSTANT, .lr = 0.1f},
                                       .calibration = b->calibration,
                                       .calibration_batch = b->batch};
    check(kn_device_open(b->device, &b->dev, &e), &e);
    check(sn_trainer_new(f, b->dev, &b->t, &e), &e);
    if (b->exact)
        sn_trainer_exact(b->t);
    remove_sets(b);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static const char *dtype(const bench *b)
{
    return kn_device_backend(b->dev) == KN_BACKEND_CUDA && !b->exact ? "bf16" : "fp32";
}

static void queued(void *ctx, uint64_t n, uint64_t of, double loss, double rate)
{
    (void)n, (void)of, (void)loss, (void)rate;
    *(double *)ctx = now_s();
}

typedef struct alone {
    double *s, *again_s, host_s, again_host_s; /* by subnet; of all but those that warm up, the mean */
    kn_device_count before;
} alone;

/* How long one subnet takes, and until all its kernels had been given to the device (a processor works meanwhile). */
static double score(bench *b, const sr_arch *a, double *host)
{
    double given = 0, start = now_s();
    const sn_hooks hooks = {.ctx = &given, .progress = queued};
    sn_evaluation out;
    es_error e;
    check(sn_evaluate_many(b->t, &a, 1, SN_TEST_SPLIT, 0, &hooks, &out, &e), &e);
    *host = given - start;
    return now_s() - start;
}

static double median(double *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_size);
    return n > 0 ? t[n / 2] : 0;
}

static void print_alone(bench *b, alone *r)
{
    const kn_device_count *now = &b->dev->count;
    double *t = r->s + b->warm, n = b->subnets, first = r->s[0],
           early = median(r->s + 1, b->warm > 8 ? 8 : b->warm - 1), mid = median(t, b->subnets);
    printf("{\"workload\": \"%s\", \"mode\": \"eval\", \"dtype\": \"%s\", \"batch\": %d, \"calibration\": %d, "
           "\"images\": %d, \"warm\": %d, \"first_s\": %.5f, \"next_8_s\": %.5f, \"median_s\": %.5f, \"min_s\": %.5f, "
           "\"max_s\": %.5f, \"host_s\": %.5f, \"again_s\": %.5f, \"again_host_s\": %.5f, ",
           b->space, dtype(b), sn_calibration_batch(b->t), b->calibration, b->images, b->warm, first, early, mid, t[0],
           t[b->subnets - 1], r->host_s, median(r->again_s, b->subnets), r->again_host_s);
    printf("\"searches\": %.1f, \"calls\": %.1f, \"replays\": %.1f, \"subnets_per_s\": %.2f, \"memory_MiB\": %.0f, "
           "\"device\": \"%s\"}\n",
           (double)(now->searches - r->before.searches) / n, (double)(now->calls - r->before.calls) / n / 2,
           (double)(now->replays - r->before.replays) / n / 2, 1 / mid,
           (double)sn_trainer_memory_bytes(b->t) / (1 << 20), kn_device_model(b->dev));
}

/* Random subnets, each by itself: `warm` of them first, as a search goes on long after its first ones (first_s, next_8_s: those), then those that are measured; each
 * once more right away (again_s), when all its plans are there. */
static void each_alone(bench *b)
{
    const sr_space *choices = sn_space_choices(b->file.space);
    sr_arch *a = sr_arch_new(choices);
    alone r = {.s = es_xcalloc((size_t)(b->warm + b->subnets), sizeof *r.s),
               .again_s = es_xcalloc((size_t)b->subnets, sizeof *r.again_s)};
    double host;
    for (int i = 0; i < b->warm + b->subnets; i++) {
        es_rng rng = es_rng_make(1, ES_USE_SAMPLE_SUBNET, (uint64_t)i);
        sr_arch_random(choices, &rng, a);
        if (i == b->warm)
            r.before = b->dev->count;
        r.s[i] = score(b, a, &host);
        if (i < b->warm)
            continue;
        r.host_s += host / b->subnets;
        r.again_s[i - b->warm] = score(b, a, &host);
        r.again_host_s += host / b->subnets;
    }
    print_alone(b, &r);
    free(r.s);
    free(r.again_s);
    free(a);
}

/* What stands for accuracy. */
static double worth(const sr_arch *a, double macs)
{
    double v = log(macs);
    for (int i = 0; i < a->n; i++) {
        uint32_t r[4];
        es_philox(7, ES_USE_TEST, (uint64_t)i, a->gene[i], r);
        v += 0.05 * ((double)r[0] / 4294967296.0 - 0.5);
    }
    return v;
}

typedef struct totals {
    double seconds[2];
    int64_t links[2];
    int groups, subnets, different;
} totals;

/* A group twice: each on its own, then together. */
static void score_group(bench *b, const sr_arch *const *a, int n, totals *sum)
{
    sn_evaluation *out[2];
    es_error e;
    for (int k = 0; k < 2; k++) {
        int64_t asked, before, after;
        out[k] = es_xcalloc((size_t)n, sizeof *out[k]);
        sn_trainer_keep_bytes(b->t, k == 0 ? 0 : SIZE_MAX);
        sn_trainer_sharing(b->t, &asked, &before);
        double start = now_s();
        check(sn_evaluate_many(b->t, a, n, SN_TEST_SPLIT, 0, NULL, out[k], &e), &e);
        sum->seconds[k] += now_s() - start;
        sn_trainer_sharing(b->t, &asked, &after);
        sum->links[k] += after - before;
    }
    for (int i = 0; i < n; i++)
        sum->different += memcmp(&out[0][i], &out[1][i], sizeof out[0][i]) != 0;
    sum->groups++;
    sum->subnets += n;
    free(out[0]);
    free(out[1]);
}

static void of_a_search(bench *b)
{
    const sr_space *choices = sn_space_choices(b->file.space);
    sr_problem p = {.space = choices,
                    .objectives = strcmp(b->algorithm, "nsga2") == 0 ? 2 : 1,
                    .maximise = {true, false},
                    .names = {"worth", "macs"},
                    .evaluations = b->search};
    sr_options o = sr_options_default(b->algorithm);
    sr_search *s = NULL;
    sr_arch *a = sr_arch_new(choices);
    const sr_arch **group = es_xcalloc((size_t)b->together, sizeof *group);
    totals first = {0}, later = {0};
    sn_evaluation warm;
    es_error e;
    o.population = b->population;
    o.sample = o.sample > b->population ? b->population : o.sample;
    sr_arch_largest(choices, a);
    check(sn_evaluate(b->t, a, SN_TEST_SPLIT, 0, &warm, &e), &e);
    check(sr_search_new(b->algorithm, &o, &p, 1, &s, &e), &e);
    while (sr_told(s) < b->search) {
        int64_t ticket;
        int n = 0;
        while (sr_lookahead(s) > 0 && sr_ask(s, &ticket, a, &e) == ES_OK)
            continue;
        int64_t told = sr_told(s), waiting = sr_asked(s) - told;
        if (waiting == 0)
            break;
        for (; n < b->together && n < waiting; n++)
            group[n] = sr_asked_arch(s, told + n);
        score_group(b, group, n, told < b->population ? &first : &later);
        for (int i = 0; i < n; i++) {
            sn_cost c;
            check(sn_space_cost(b->file.space, sr_asked_arch(s, told + i), &c, &e), &e);
            double v[2] = {worth(sr_asked_arch(s, told + i), (double)c.macs), (double)c.macs};
            sr_tell(s, told + i, v, true);
        }
    }
    for (int k = 0; k < 2; k++) {
        const totals *t = k ? &later : &first;
        printf("{\"workload\": \"%s\", \"mode\": \"eval-%s\", \"dtype\": \"%s\", \"together\": %d, \"subnets\": %d, "
               "\"units\": %lld, \"units_computed\": %lld, \"alone_s_per_subnet\": %.5f, \"together_s_per_subnet\": "
               "%.5f, \"gain\": %.3f, \"different\": %d, \"device\": \"%s\"}\n",
               b->space, k ? "bred" : "drawn", dtype(b), b->together, t->subnets, (long long)t->links[0],
               (long long)t->links[1], t->seconds[0] / t->subnets, t->seconds[1] / t->subnets,
               t->seconds[0] / t->seconds[1], t->different, kn_device_model(b->dev));
    }
    sr_search_destroy(&s);
    free(group);
    free(a);
}

static bool number(const char *text, int least, int *to)
{
    int64_t v = 0;
    bool ok = es_str_to_i64(text, false, &v) && v >= least && v <= 10000000;
    *to = (int)v;
    return ok;
}

int main(int argc, char **argv)
{
    bench b = {.space = "mbconv32",
               .device = "cpu",
               .algorithm = "nsga2",
               .images = 10000,
               .calibration = 2048,
               .batch = 512,
               .subnets = 8,
               .warm = 40,
               .together = 8,
               .population = 24};
    const struct {
        const char *name;
        int *to, least;
    } numbers[] = {{"--images", &b.images, 1},         {"--calib", &b.calibration, 2}, {"--batch", &b.batch, 1},
                   {"--subnets", &b.subnets, 1},       {"--search", &b.search, 1},     {"--together", &b.together, 1},
                   {"--population", &b.population, 2}, {"--warm", &b.warm, 1}};
    for (int i = 1; i < argc; i += 2) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        bool ok = false;
        if (strcmp(argv[i], "--space") == 0)
            b.space = v, ok = true;
        else if (strcmp(argv[i], "--device") == 0)
            b.device = v, ok = true;
        else if (strcmp(argv[i], "--algorithm") == 0)
            b.algorithm = v, ok = true;
        else if (strcmp(argv[i], "--precision") == 0)
            b.exact = strcmp(v, "fp32") == 0, ok = b.exact || strcmp(v, "bf16") == 0;
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            if (strcmp(argv[i], numbers[k].name) == 0)
                ok = number(v, numbers[k].least, numbers[k].to);
        if (!ok)
            return fprintf(stderr, "bench_evaluate: %s %s is no option\n", argv[i], v), 2;
    }
    open_trainer(&b);
    if (b.search > 0)
        of_a_search(&b);
    else
        each_alone(&b);
    sn_trainer_destroy(&b.t);
    kn_device_close(&b.dev);
    sn_space_destroy(&b.file.space);
    free(b.file.text);
    return 0;
}
