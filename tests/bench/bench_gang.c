/* Ranks, one process and one device each, training one supernet together: how much faster than one, how close to one, how soon a lost one is noticed.
 *
 *     bench_gang --ranks 2 --batch 512 --device cuda                   images/s of the gang; --batch is a rank's
 *     bench_gang --ranks 2 --batch 64 --device cuda --space plain --fp32 --steps 12 --warmup 0 --dump two
 *     bench_gang --compare one two                                     the weights of two dumps: the largest difference
 *     bench_gang --ranks 2 --device cuda --kill 5                      the last rank dies in that step: the seconds until the others know
 *
 * --device cpu: every rank on a CPU thread of its own; cuda: rank r on cuda:r. --ranks 1 trains alone, with --joined as
 * a gang of one: what the gang itself costs. Random images, made once. One JSON line a run. */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/str.h"
#include "supernet/train/gang.h"

enum { RANKS_MAX = 64, IMAGES = 10000, IMAGE = 3073 };

typedef struct options {
    const char *device, *space, *dump;
    int ranks, batch, steps, warmup, kill;
    bool fp32, joined;
} options;

/* Shared by the processes. */
typedef struct found {
    double seconds, loss, noticed_s, open_s;
    bool ok;
    sn_gang_numbers numbers;
    char text[256];
} found;

typedef struct shared {
    double died;
    found of[RANKS_MAX];
} shared;

static double now_s(void) { return (double)es_clock_mono_ns(es_clock_system()) * 1e-9; }

/* CIFAR's binary format: what is in the images does not matter for speed. */
static es_status make_images(const char *path, es_error *err)
{
    uint8_t *data = es_xcalloc(IMAGES, IMAGE);
    es_rng r = es_rng_make(1, ES_USE_TEST, 0);
    for (size_t i = 0; i < (size_t)IMAGES * IMAGE; i++)
        data[i] = i % IMAGE == 0 ? (uint8_t)es_rng_below(&r, 10) : (uint8_t)es_rng_below(&r, 256);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, IMAGE, IMAGES, f) == IMAGES;
    if (f)
        ok = fclose(f) == 0 && ok;
    free(data);
    return ok ? ES_OK : es_fail_errno(err, path, "cannot be written");
}

static const char *const PLAIN =
    "{input: 32x32x3, stem: {width: [16, 24], kernel: 3, stride: 1, norm: false}, stages: ["
    "{block: conv, width: [24, 32], depth: [1, 2], kernel: [3, 5], stride: 2, norm: false}, "
    "{block: conv, width: [32, 48], depth: [1, 2], kernel: [3, 5], stride: 2, norm: false}], "
    "head: {hidden: [64], dropout: 0, classes: 10}}";

static es_status make_file(const options *o, const char *images, sn_search_file **out, es_error *err)
{
    char dir[1024];
    const bool plain = strcmp(o->space, "plain") == 0;
    if (getcwd(dir, sizeof dir) == NULL)
        return es_fail_errno(err, "bench_gang", "no current folder");
    char *text = es_xcalloc(1, 8192);
    snprintf(text, 8192,
             "task: {kind: image-classification, data: {format: cifar, train: %s, validation: 100}, augment: "
             "{pad_crop: 4, flip: true}}\n"
             "space: %s\nobjectives: [accuracy: max]\n"
             "supernet: {method: sandwich, random_subnets: 2, distill: kl, epochs: 100000, batch: %d, "
             "optimizer: {kind: sgd, lr: %g}}\n",
             images, plain ? PLAIN : o->space, o->batch * o->ranks, plain ? 1.0 : 0.05);
    es_status s = sn_search_file_parse("bench", text, strlen(text), dir, out, err);
    free(text);
    return s;
}

typedef struct killer {
    shared *sh;
    bool dies;
    int calls, at;
} killer;

static bool dies_at(void *ctx)
{
    killer *k = ctx;
    if (k->dies && ++k->calls == k->at) {
        k->sh->died = now_s();
        raise(SIGKILL);
    }
    return false;
}

static es_status dump_values(sn_trainer *t, const char *path, es_error *err)
{
    sn_version *v = NULL;
    ES_RETURN(sn_trainer_save(t, &v, err));
    es_status s = sn_version_write_safetensors(v, path, err);
    sn_version_destroy(&v);
    return s;
}

static es_status train(const options *o, int rank, sn_trainer *t, shared *sh, es_error *err)
{
    sn_report r = {0};
    found *f = &sh->of[rank];
    killer k = {.sh = sh, .dies = rank == o->ranks - 1, .at = o->kill};
    sn_hooks hooks = {.ctx = &k, .stop = o->kill > 0 ? dies_at : NULL};
    if (o->warmup > 0)
        ES_RETURN(sn_trainer_run(t, (uint64_t)o->warmup, &hooks, &r, err));
    double start = now_s();
    ES_RETURN(sn_trainer_run(t, (uint64_t)(o->warmup + o->steps), &hooks, &r, err));
    f->seconds = now_s() - start;
    f->loss = r.mean_loss;
    f->numbers = sn_trainer_gang_numbers(t);
    return rank == 0 && o->dump ? dump_values(t, o->dump, err) : ES_OK;
}

static es_status one_rank(const options *o, int rank, const char *images, const kn_gang_id *id, kn_rendezvous *meet,
                          shared *sh, es_error *err)
{
    sn_search_file *file = NULL;
    kn_device *dev = NULL;
    kn_collective *c = NULL;
    sn_trainer *t = NULL;
    char device[32];
    es_status s = ES_OK;
    snprintf(device, sizeof device, strcmp(o->device, "cuda") == 0 ? "cuda:%d" : "cpu:1", rank);
    ES_GOTO(make_file(o, images, &file, err));
    ES_GOTO(kn_device_open(device, &dev, err));
    ES_GOTO(sn_trainer_new(file, dev, &t, err));
    if (o->fp32)
        sn_trainer_exact(t);
    if (o->ranks > 1 || o->joined) {
        double start = now_s();
        const kn_collective_options co = {.rank = rank, .size = o->ranks, .id = id, .meet = rank == 0 ? meet : NULL};
        ES_GOTO(kn_collective_open(dev, &co, &c, err));
        ES_GOTO(sn_trainer_join(t, c, err));
        sh->of[rank].open_s = now_s() - start;
    }
    ES_GOTO(train(o, rank, t, sh, err));
fail:
    sh->of[rank].noticed_s = now_s();
    if (s != ES_OK && c)
        kn_collective_abort(c);
    sn_trainer_destroy(&t);
    kn_collective_close(&c);
    kn_device_close(&dev);
    sn_search_file_destroy(&file);
    return s;
}

static void print(const options *o, const shared *sh)
{
    const found *f = &sh->of[0];
    if (o->kill > 0) {
        for (int r = 0; r < o->ranks - 1; r++)
            printf("{\"rank\": %d, \"noticed_after_s\": %.3f, \"said\": \"%s\"}\n", r, sh->of[r].noticed_s - sh->died,
                   sh->of[r].text);
        return;
    }
    int64_t steps = f->numbers.steps ? f->numbers.steps : 1;
    printf("{\"ranks\": %d, \"device\": \"%s\", \"batch_each\": %d, \"precision\": \"%s\", \"steps\": %d, \"step_s\": "
           "%.5f, "
           "\"images_per_s\": %.0f, \"loss\": %.6f, \"meet_s\": %.2f, \"MB_a_step\": %.1f, \"pieces_a_step\": %.1f, "
           "\"buckets_a_step\": %.1f, "
           "\"early\": %.2f}\n",
           o->ranks, o->device, o->batch, o->fp32 || strcmp(o->device, "cpu") == 0 ? "fp32" : "bf16", o->steps,
           f->seconds / o->steps, (double)o->ranks * o->batch * o->steps / f->seconds, f->loss, f->open_s,
           (double)(f->numbers.elements / steps) * 4e-6, (double)f->numbers.pieces / (double)steps,
           (double)f->numbers.buckets / (double)steps,
           f->numbers.buckets ? (double)f->numbers.early / (double)f->numbers.buckets : 0);
}

static int run(const options *o, const char *images)
{
    kn_gang_id id;
    kn_rendezvous *meet = NULL;
    es_error err = {0};
    char line[700];
    int failures = 0;
    pid_t pid[RANKS_MAX];
    shared *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED || kn_rendezvous_open("127.0.0.1", &meet, &id, &err) != ES_OK)
        return fprintf(stderr, "bench_gang: %s\n", err.text), 1;
    for (int r = 0; r < o->ranks; r++) {
        pid[r] = fork(); /* before anything of CUDA is touched */
        if (pid[r] == 0) {
            es_status s = one_rank(o, r, images, &id, meet, sh, &err);
            if (s != ES_OK) {
                es_error_line(&err, line, sizeof line);
                snprintf(sh->of[r].text, sizeof sh->of[r].text, "%.255s", line);
                if (o->kill == 0)
                    fprintf(stderr, "bench_gang: rank %d: %s\n", r, line);
            }
            sh->of[r].ok = s == ES_OK;
            _exit(0);
        }
    }
    kn_rendezvous_close(&meet);
    for (int r = 0; r < o->ranks; r++) {
        waitpid(pid[r], NULL, 0);
        failures += !sh->of[r].ok;
    }
    if (failures == 0 || o->kill > 0)
        print(o, sh);
    return failures > 0 && o->kill == 0;
}

static int compare(const char *a, const char *b)
{
    sn_version *va = NULL, *vb = NULL;
    es_error err = {0};
    double most = 0, size = 0;
    if (sn_version_read_safetensors(a, &va, &err) != ES_OK || sn_version_read_safetensors(b, &vb, &err) != ES_OK)
        return fprintf(stderr, "bench_gang: %s\n", err.text), 1;
    const sn_array *x = sn_version_find(va, "values"), *y = sn_version_find(vb, "values");
    if (!x || !y || x->bytes != y->bytes)
        return fprintf(stderr, "bench_gang: %s and %s are not of one space\n", a, b), 1;
    const float *p = x->data, *q = y->data;
    for (size_t i = 0; i < x->bytes / sizeof *p; i++) {
        most = fmax(most, fabs((double)p[i] - (double)q[i]));
        size = fmax(size, fabs((double)p[i]));
    }
    printf("{\"weights\": %zu, \"largest\": %.4f, \"largest_difference\": %.3g}\n", x->bytes / sizeof *p, size, most);
    sn_version_destroy(&va);
    sn_version_destroy(&vb);
    return 0;
}

static bool number(const char *text, int *to)
{
    int64_t v = 0;
    bool ok = es_str_to_i64(text, false, &v) && v >= 0 && v <= 1000000;
    *to = (int)v;
    return ok;
}

static bool read_option(options *o, const char *name, const char *v)
{
    const struct {
        const char *name;
        const char **text;
        int *number;
    } known[] = {{"--device", &o->device, NULL}, {"--space", &o->space, NULL}, {"--dump", &o->dump, NULL},
                 {"--ranks", NULL, &o->ranks},   {"--batch", NULL, &o->batch}, {"--steps", NULL, &o->steps},
                 {"--warmup", NULL, &o->warmup}, {"--kill", NULL, &o->kill}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        if (known[i].number)
            return number(v, known[i].number);
        *known[i].text = v;
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    options o = {
        .device = "cpu", .space = "examples/spaces/mbconv32.yaml", .ranks = 2, .batch = 64, .steps = 10, .warmup = 3};
    char images[] = "/tmp/bench_gang_XXXXXX";
    es_error err = {0};
    if (argc == 4 && strcmp(argv[1], "--compare") == 0)
        return compare(argv[2], argv[3]);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--fp32") == 0)
            o.fp32 = true;
        else if (strcmp(argv[i], "--joined") == 0)
            o.joined = true;
        else if (i + 1 == argc || !read_option(&o, argv[i], argv[i + 1]))
            return fprintf(stderr, "bench_gang: %s is no option, or lacks its value\n", argv[i]), 2;
        else
            i++;
    }
    if (o.ranks < 1 || o.ranks > RANKS_MAX || o.batch < 1 || o.batch * o.ranks > IMAGES - 100 || o.steps < 1)
        return fprintf(stderr, "bench_gang: 1 to %d ranks, a batch of at most %d for all, 1 step at least\n", RANKS_MAX,
                       IMAGES - 100),
               2;
    int fd = mkstemp(images);
    if (fd < 0 || make_images(images, &err) != ES_OK)
        return fprintf(stderr, "bench_gang: %s\n", err.text), 1;
    close(fd);
    int code = run(&o, images);
    unlink(images);
    return code;
}
