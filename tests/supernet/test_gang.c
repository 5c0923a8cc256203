/* Ranks as processes of this test, training the lab's supernet together. */
#include "supernet/train/gang.h"

#include <math.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "kernels/device/device_internal.h"
#include "supernet/train/methods.h"
#include "tests/accelerator.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"
#include "tests/supernet/spaces.h"

enum { RANKS_MAX = 4, VALUES_MAX = 1 << 16 };

/* What a rank found, in memory that the test shares with it. */
typedef struct found {
    es_status status;
    char text[256];
    uint64_t step;
    int64_t n;
    double loss;
    sn_gang_numbers numbers;
    es_hash hash; /* of the whole version */
    float values[VALUES_MAX];
} found;

typedef struct trial {
    lab *l;
    int size;
    uint64_t until, halfway; /* halfway: leave the gang there, save, and go on in a new trainer with a new gang */
    int stops;               /* this rank asks to stop before its third step; -1: none */
    found *f;
} trial;

static bool stop_at_third(void *ctx) { return ++*(int *)ctx == 3; }

static es_hash hash_of(const sn_version *v)
{
    es_hasher *h = es_hasher_new();
    es_hash hash;
    for (int i = 0; i < v->count; i++)
        es_hasher_add(h, v->arrays[i].data, v->arrays[i].bytes);
    es_hasher_end(&h, &hash);
    return hash;
}

static void note(const trial *tr, int rank, sn_trainer *t, es_status s, const es_error *err, const sn_report *r)
{
    found *f = &tr->f[rank];
    f->status = s;
    snprintf(f->text, sizeof f->text, "%s", s == ES_OK ? "" : err->text);
    f->step = sn_trainer_step(t);
    f->loss = r->mean_loss;
    f->numbers = sn_trainer_gang_numbers(t);
    if (s != ES_OK)
        return;
    sn_version *v = lab_save(t);
    const sn_array *a = sn_version_find(v, "values");
    f->hash = hash_of(v);
    f->n = a->shape.d[0];
    ck_assert_int_le(f->n, VALUES_MAX);
    memcpy(f->values, a->data, a->bytes);
    sn_version_destroy(&v);
}

static es_status meet(const trial *tr, int rank, const kn_gang_id *id, kn_rendezvous *hub, kn_collective **c,
                      es_error *err)
{
    return kn_collective_open(
        tr->l->dev,
        &(kn_collective_options){
            .rank = rank, .size = tr->size, .id = id, .meet = rank == 0 ? hub : NULL, .limit_ms = 20000},
        c, err);
}

static void one_rank(const trial *tr, int rank, const kn_gang_id *ids, kn_rendezvous **hubs)
{
    sn_trainer *t = lab_trainer(tr->l);
    kn_collective *c = NULL;
    es_error err = {0};
    sn_report r = {0};
    int asked = 0;
    sn_hooks hooks = {.ctx = &asked, .stop = tr->stops == rank ? stop_at_third : NULL};
    es_status s = meet(tr, rank, &ids[0], hubs[0], &c, &err);
    if (s == ES_OK)
        s = sn_trainer_join(t, c, &err);
    if (s == ES_OK && tr->halfway > 0) {
        s = sn_trainer_run(t, tr->halfway, &hooks, &r, &err);
        sn_version *half = lab_save(t);
        sn_trainer_destroy(&t);
        kn_collective_close(&c);
        t = lab_trainer(tr->l);
        ck_assert_ok_err(sn_trainer_load(t, half, &err), &err);
        sn_version_destroy(&half);
        s = s == ES_OK ? meet(tr, rank, &ids[1], hubs[1], &c, &err) : s;
        s = s == ES_OK ? sn_trainer_join(t, c, &err) : s;
    }
    if (s == ES_OK)
        s = sn_trainer_run(t, tr->until, &hooks, &r, &err);
    note(tr, rank, t, s, &err, &r);
    if (s != ES_OK && c)
        kn_collective_abort(c);
    sn_trainer_destroy(&t);
    kn_collective_close(&c);
}

/* All ranks, each a process; what they found is in tr->f afterwards. */
static void run(trial *tr)
{
    kn_gang_id ids[2];
    kn_rendezvous *hubs[2] = {NULL, NULL};
    pid_t pid[RANKS_MAX];
    es_error err = {0};
    int st;
    tr->f = mmap(NULL, RANKS_MAX * sizeof *tr->f, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(tr->f, MAP_FAILED);
    for (int i = 0; i < 2; i++)
        ck_assert_ok_err(kn_rendezvous_open("127.0.0.1", &hubs[i], &ids[i], &err), &err);
    for (int r = 0; r < tr->size; r++) {
        pid[r] = fork();
        if (pid[r] == 0) {
            one_rank(tr, r, ids, hubs);
            _exit(0);
        }
    }
    for (int r = 0; r < tr->size; r++) {
        ck_assert_int_eq(waitpid(pid[r], &st, 0), pid[r]);
        ck_assert_msg(WIFEXITED(st) && WEXITSTATUS(st) == 0, "rank %d ended with %x", r, (unsigned)st);
    }
    for (int i = 0; i < 2; i++)
        kn_rendezvous_close(&hubs[i]);
}

static void over(trial *tr) { munmap(tr->f, RANKS_MAX * sizeof *tr->f); }

static void all_alike(const trial *tr, uint64_t step)
{
    for (int r = 0; r < tr->size; r++) {
        ck_assert_msg(tr->f[r].status == ES_OK, "rank %d: %s", r, tr->f[r].text);
        ck_assert_uint_eq(tr->f[r].step, step);
        ck_assert(es_hash_equal(&tr->f[r].hash, &tr->f[0].hash));
        ck_assert_double_eq(tr->f[r].loss, tr->f[0].loss);
    }
}

/* Without batch norm a gang computes what one rank does with the whole batch, up to rounding. */
static const char *const PLAIN =
    "input: 12x12x1\n"
    "stem: {width: [4, 8], kernel: 3, stride: 1, norm: false}\n"
    "stages:\n"
    "  - {block: conv, width: [8, 12], depth: [1, 2], kernel: [3, 5], stride: 2, norm: false}\n"
    "  - {block: conv, width: [12, 16], depth: [1, 2], kernel: [3, 5], stride: 2, norm: false}\n"
    "head: {hidden: [24], dropout: 0, classes: 4}\n"; /* a head with a width has batch norm */

static lab *plain_lab(sn_method method)
{
    lab *l = lab_new("cpu:1", method);
    sn_space_destroy(&l->file.space);
    l->file.space = space_parse(PLAIN);
    l->file.supernet.distill = SN_DISTILL_KL;
    l->file.supernet.batch = 48;
    l->file.supernet.optimizer.clip_norm = 1;
    l->file.supernet.schedule.lr = 1;
    l->file.supernet.warmup_epochs = 0;
    return l;
}

static double distance(const float *a, const float *b, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

START_TEST(ranks_together_equal_one_alone)
    {
        lab *l = plain_lab(SN_METHOD_SANDWICH);
        trial alone = {.l = l, .size = 1, .until = 12, .stops = -1};
        run(&alone);
        all_alike(&alone, 12);
        ck_assert_double_gt(fabs(alone.f[0].loss - log(4)), 0.005); /* it moves: there is something to compare */
        for (int size = 2; size <= RANKS_MAX; size++) {
            trial tr = {.l = l, .size = size, .until = 12, .stops = -1};
            run(&tr);
            all_alike(&tr, 12);
            double d = distance(tr.f[0].values, alone.f[0].values, tr.f[0].n);
            fprintf(stderr, "%d ranks: weights differ by %.2g, loss %.6f and %.6f\n", size, d, tr.f[0].loss,
                    alone.f[0].loss);
            ck_assert_double_lt(d, 2e-5);
            ck_assert_double_eq_tol(tr.f[0].loss, alone.f[0].loss, 1e-5);
            over(&tr);
        }
        over(&alone);
        lab_destroy(&l);
    }
END_TEST

/* A language model has no batch norm at all, and its table of tokens is also its classifier: one storage, touched twice. */
START_TEST(a_language_model_is_trained_by_three)
    {
        static const char text[] =
            "task: {kind: language-model, data: {format: text, train: train.txt, validation: 400}, context: 16}\n"
            "space:\n"
            "  input: {tokens: 16, vocabulary: 128}\n"
            "  stem: {width: [16, 32]}\n"
            "  stages: [{block: transformer, depth: [1, 2], heads: [1, 2], expand: [2, 3], head_dim: 16}]\n"
            "supernet: {method: sandwich, random_subnets: 1, distill: kl, epochs: 30, batch: 12, optimizer: {kind: "
            "sgd, lr: 0.1}}\n"
            "resources: {gpus: 3}\n";
        const char *dir = es_test_dir();
        sn_search_file *file = NULL;
        es_error err = {0};
        lab l = {0};
        FILE *f = fopen(es_test_join(dir, "train.txt"), "w");
        for (int i = 0; i < 900; i++)
            fputs(i * i % 7 < 3 ? "medlar " : "quince ", f);
        fclose(f);
        ck_assert_ok_err(sn_search_file_parse("s.yaml", text, strlen(text), dir, &file, &err), &err);
        ck_assert_ok_err(kn_device_open("cpu:1", &l.dev, &err), &err);
        l.file = *file;
        trial alone = {.l = &l, .size = 1, .until = 12, .stops = -1}, tr = alone;
        tr.size = 3;
        run(&alone);
        run(&tr);
        all_alike(&alone, 12);
        all_alike(&tr, 12);
        double d = distance(tr.f[0].values, alone.f[0].values, tr.f[0].n);
        fprintf(stderr, "language model, 3 ranks: weights differ by %.2g, loss %.6f and %.6f\n", d, tr.f[0].loss,
                alone.f[0].loss);
        ck_assert_double_lt(alone.f[0].loss, log(128) - 0.05); /* it learns */
        ck_assert_double_lt(d, 2e-5);
        over(&tr);
        over(&alone);
        kn_device_close(&l.dev);
        sn_search_file_destroy(&file);
    }
END_TEST

START_TEST(the_same_bits_every_time)
    {
        lab *l = lab_new("cpu:1", SN_METHOD_SANDWICH);
        l->file.supernet.batch = 48;
        for (int size = 2; size <= 3; size++) {
            trial a = {.l = l, .size = size, .until = 10, .stops = -1};
            trial b = {.l = l, .size = size, .until = 10, .halfway = 4, .stops = -1};
            run(&a);
            run(&b); /* through a version, a new trainer and a new gang */
            all_alike(&a, 10);
            all_alike(&b, 10);
            ck_assert(es_hash_equal(&a.f[0].hash, &b.f[0].hash));
            over(&a);
            over(&b);
        }
        lab_destroy(&l);
    }
END_TEST

START_TEST(all_stop_at_one_boundary)
    {
        lab *l = lab_new("cpu:1", SN_METHOD_SANDWICH);
        l->file.supernet.batch = 48;
        for (int who = 0; who < 3; who++) {
            trial tr = {.l = l, .size = 3, .until = 10, .stops = who};
            run(&tr);
            all_alike(&tr, 3);
            over(&tr);
        }
        lab_destroy(&l);
    }
END_TEST

/* A sandwich touches all parameters, a single path only its own slices; own subnets touch what any rank's do. */
START_TEST(only_touched_slices_travel)
    {
        int64_t elements[3], pieces[3];
        for (int kind = 0; kind < 3; kind++) {
            lab *l = lab_new("cpu:1", kind == 0 ? SN_METHOD_SANDWICH : SN_METHOD_SINGLE_PATH);
            l->file.supernet.batch = 48;
            l->file.supernet.distill = kind == 0 ? SN_DISTILL_ALPHA : SN_DISTILL_NONE;
            l->file.supernet.own_subnets = kind == 2;
            trial tr = {.l = l, .size = 3, .until = 6, .stops = -1};
            run(&tr);
            all_alike(&tr, 6);
            elements[kind] = tr.f[0].numbers.elements / 6;
            pieces[kind] = tr.f[0].numbers.pieces / 6;
            fprintf(stderr,
                    "kind %d: %lld elements in %lld pieces and %lld buckets a step, %lld of all before the end\n", kind,
                    (long long)elements[kind], (long long)pieces[kind], (long long)tr.f[0].numbers.buckets / 6,
                    (long long)tr.f[0].numbers.early);
            ck_assert_int_eq(tr.f[0].numbers.steps, 6);
            if (kind == 0) { /* all of the flat buffer but its padding; overlapped */
                ck_assert_int_gt(elements[0], tr.f[0].n * 8 / 10);
                ck_assert_int_le(elements[0], tr.f[0].n);
                ck_assert_int_gt(tr.f[0].numbers.early, 0);
                ck_assert_int_le(pieces[0], 8); /* of some fifty parameters: neighbours go together */
            }
            over(&tr);
            lab_destroy(&l);
        }
        ck_assert_int_lt(elements[1], elements[0] * 9 / 10);
        ck_assert_int_gt(elements[2], elements[1]);
        ck_assert_int_le(elements[2], elements[0]);
    }
END_TEST

/* Six steps after the first two, alone or as a gang of one: their bits, and what the device was asked for meanwhile. */
static kn_device_count six_steps(lab *l, bool joined, es_hash *hash)
{
    sn_trainer *t = lab_trainer(l);
    kn_collective *c = NULL;
    kn_rendezvous *meet = NULL;
    kn_gang_id id;
    es_error err = {0};
    if (joined) {
        ck_assert_ok_err(kn_rendezvous_open("127.0.0.1", &meet, &id, &err), &err);
        const kn_collective_options o = {.size = 1, .id = &id, .meet = meet};
        ck_assert_ok_err(kn_collective_open(l->dev, &o, &c, &err), &err);
        ck_assert_ok_err(sn_trainer_join(t, c, &err), &err);
    }
    lab_run(t, 2);
    const kn_device_count a = l->dev->count;
    lab_run(t, 8);
    const kn_device_count b = l->dev->count;
    sn_version *v = lab_save(t);
    *hash = hash_of(v);
    sn_version_destroy(&v);
    sn_trainer_destroy(&t);
    kn_collective_close(&c);
    kn_rendezvous_close(&meet);
    return (kn_device_count){.allocations = b.allocations - a.allocations,
                             .syncs = b.syncs - a.syncs,
                             .calls = b.calls - a.calls,
                             .recordings = b.recordings - a.recordings,
                             .replays = b.replays - a.replays,
                             .refused = b.refused};
}

/* The same bits, launches, waits and allocations. A sandwich's gradients are reduced where they lie, a single path's are packed. */
static void one_is_like_alone(const char *device)
{
    static const sn_method kinds[] = {SN_METHOD_SANDWICH, SN_METHOD_SINGLE_PATH};
    for (int i = 0; i < 2; i++) {
        lab *l = lab_new(device, kinds[i]);
        es_hash alone, joined;
        const kn_device_count x = six_steps(l, false, &alone), y = six_steps(l, true, &joined);
        fprintf(stderr, "%s, %s: %d calls, %d replays, %d allocations, %d waits; as a gang: %d, %d, %d, %d\n", device,
                i == 0 ? "sandwich" : "single path", (int)x.calls, (int)x.replays, (int)x.allocations, (int)x.syncs,
                (int)y.calls, (int)y.replays, (int)y.allocations, (int)y.syncs);
        ck_assert(es_hash_equal(&alone, &joined));
        ck_assert_mem_eq(&x, &y, sizeof x);
        ck_assert_uint_eq(x.refused, 0);
        if (kn_device_backend(l->dev) == KN_BACKEND_CUDA)
            ck_assert_uint_eq(x.replays, i == 0 ? 12 : 0); /* the largest and the smallest of every step */
        lab_destroy(&l);
    }
}

START_TEST(a_gang_of_one_is_like_one_alone)
    {
        one_is_like_alone("cpu:1");
    }
END_TEST

START_TEST(on_a_gpu_too)
    {
        const char *device = es_test_accelerator_name();
        if (device)
            one_is_like_alone(device);
    }
END_TEST

START_TEST(a_batch_that_cannot_be_shared_is_refused)
    {
        lab *l = lab_new("cpu:1", SN_METHOD_SANDWICH);
        l->file.supernet.batch = 32;
        trial tr = {.l = l, .size = 3, .until = 2, .stops = -1};
        run(&tr);
        for (int r = 0; r < 3; r++) {
            ck_assert_int_eq(tr.f[r].status, ES_INVALID);
            ck_assert_ptr_nonnull(strstr(tr.f[r].text, "cannot be shared by 3 ranks"));
        }
        over(&tr);
        lab_destroy(&l);
    }
END_TEST

ES_TEST_MAIN("gang", ranks_together_equal_one_alone, a_language_model_is_trained_by_three, the_same_bits_every_time,
             all_stop_at_one_boundary, only_touched_slices_travel, a_gang_of_one_is_like_one_alone, on_a_gpu_too,
             a_batch_that_cannot_be_shared_is_refused)
