/* Convolutions of 1x1 in a scored network on a GPU, with what stands around them: as one product (kernels/cuda/product.cu), and each op by itself, the product by cuBLASLt.
 *
 *     bench_products [cuda:0]      one line a shape of the mbconv32 space: microseconds, and those of the bytes at 4.2 TB/s
 *
 * Rows are those of 10,240 images, as are scored at once on an H200, or a quarter of that where tensors are larger than a GiB. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/str.h"
#include "kernels/plan/plan.h"

enum { IMAGES = 10240, ROUNDS = 3, EACH = 8, POOL = 1 << 30, PIECE = 32 << 20 };

typedef struct shape {
    int size, k, n;
    bool residual, excite, act;
} shape;

static const shape shapes[] = {
    {32, 24, 16, false, false, false},  {32, 16, 96, false, false, true},  {32, 24, 144, false, false, true},
    {16, 144, 32, false, false, false}, {16, 24, 144, false, false, true}, {16, 32, 192, false, false, true},
    {16, 192, 32, true, false, false},  {8, 32, 160, false, false, true},  {8, 40, 240, false, false, true},
    {8, 240, 40, true, true, false},    {8, 160, 32, true, true, false},   {4, 72, 432, false, false, true},
    {4, 432, 72, true, false, false},   {4, 128, 768, false, false, true}, {4, 120, 480, false, false, true},
    {4, 480, 120, true, true, false},   {4, 768, 128, true, true, false},  {2, 216, 1296, false, false, true},
    {2, 224, 1344, false, false, true}, {2, 1296, 216, true, true, false},
};

static int images_of(const shape *s) { return s->size >= 16 ? IMAGES / 4 : IMAGES; }

static void must(es_status s, const es_error *err)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "bench_products: %s\n", es_error_line(err, line, sizeof line));
    exit(1);
}

typedef struct bench {
    kn_device *dev;
    void *x, *r, *y;
} bench;

/* Random bf16 numbers around 0. */
static void *fill(kn_device *dev, uint64_t seed)
{
    static uint16_t piece[PIECE / 2];
    es_rng r = es_rng_make(seed, ES_USE_TEST, 0);
    es_error err;
    void *p = NULL;
    for (int i = 0; i < PIECE / 2; i++) {
        const uint32_t u = es_rng_u32(&r);
        piece[i] = (uint16_t)(0x3f00 | (u & 0x807f));
    }
    must(kn_device_alloc(dev, POOL, &p, &err), &err);
    for (int64_t at = 0; at < POOL; at += PIECE) {
        must(kn_device_upload(dev, (char *)p + at, piece, PIECE, &err), &err);
        must(kn_device_sync(dev, &err), &err);
    }
    return p;
}

typedef struct net {
    kn_params *params[KN_SETS];
    kn_param w, gamma, beta, mean, var;
    kn_weights *weights[KN_SETS];
} net;

static kn_param add(kn_params *p, const char *name, kn_shape s, kn_init_kind init)
{
    kn_param id;
    es_error err;
    must(kn_params_add(p, name, s, init, 0, &id, &err), &err);
    return id;
}

static void open_net(net *n, kn_device *dev, const shape *s)
{
    es_error err;
    *n = (net){.params = {kn_params_new(), kn_params_new()}};
    n->w = add(n->params[0], "w", KN_SHAPE(s->n, 1, 1, s->k), KN_INIT_HE_IN);
    n->gamma = add(n->params[0], "gamma", KN_SHAPE(s->n), KN_INIT_ONE);
    n->beta = add(n->params[0], "beta", KN_SHAPE(s->n), KN_INIT_ZERO);
    n->mean = add(n->params[1], "mean", KN_SHAPE(s->n), KN_INIT_ZERO);
    n->var = add(n->params[1], "var", KN_SHAPE(s->n), KN_INIT_ONE);
    for (int i = 0; i < KN_SETS; i++) {
        kn_params_seal(n->params[i]);
        must(kn_weights_new(dev, n->params[i], 0, &n->weights[i], &err), &err);
        must(kn_weights_init(n->weights[i], 1, &err), &err);
        must(kn_weights_changed(n->weights[i], &err), &err);
    }
}

static void close_net(net *n)
{
    for (int i = 0; i < KN_SETS; i++) {
        kn_weights_destroy(&n->weights[i]);
        kn_params_destroy(&n->params[i]);
    }
}

static void build(kn_graph *g, const net *n, const shape *s)
{
    kn_val p[5];
    const kn_param id[] = {n->w, n->gamma, n->beta, n->mean, n->var};
    for (int i = 0; i < 5; i++)
        p[i] = kn_param_slice(g, i < 3 ? KN_SET_WEIGHTS : KN_SET_STATS, id[i], NULL);
    kn_val x = kn_input_kept(g, 0, KN_SHAPE(images_of(s), s->size, s->size, s->k));
    if (s->excite)
        x = kn_mul(g, x, kn_input_kept(g, 1, KN_SHAPE(images_of(s), 1, 1, s->k)));
    kn_val y = kn_conv2d(g, x, p[0], 1, 0, 1, 1);
    y = kn_batch_norm_infer(g, y, p[1], p[2], p[3], p[4], 1e-5f, s->act ? KN_ACT_SILU : KN_ACT_NONE);
    if (s->residual)
        y = kn_add(g, y, kn_input_kept(g, 2, KN_SHAPE(images_of(s), s->size, s->size, s->n)));
    kn_output_kept(g, 0, y);
}

/* Microseconds a run. */
static double measure(const bench *b, const net *n, const shape *s, bool no_fuse)
{
    const kn_plan_options o = {.precision = KN_PRECISION_BF16, .no_fuse = no_fuse};
    const kn_binding bind = {
        .in = {b->x, b->r, b->r}, .out = {b->y}, .weights = {n->weights[0], n->weights[1]}, .seed = 1};
    kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){n->params[0], n->params[1]});
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    es_error err;
    double best = 1e9;
    build(g, n, s);
    must(kn_plan_make(b->dev, g, &o, &plan, &err), &err);
    must(kn_workspace_new(b->dev, &ws, &err), &err);
    must(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    for (int round = 0; round <= ROUNDS; round++) {
        const int64_t from = es_clock_mono_ns(es_clock_system());
        for (int i = 0; i < EACH; i++)
            must(kn_run(plan, ws, &bind, &err), &err);
        must(kn_device_sync(b->dev, &err), &err);
        const double us = (double)(es_clock_mono_ns(es_clock_system()) - from) / 1e3 / EACH;
        best = round > 0 && us < best ? us : best; /* the first round loads kernels */
    }
    kn_workspace_destroy(&ws);
    kn_plan_destroy(&plan);
    kn_graph_destroy(&g);
    return best;
}

int main(int argc, char **argv)
{
    bench b = {NULL};
    es_error err;
    must(kn_device_open(argc > 1 ? argv[1] : "cuda:0", &b.dev, &err), &err);
    b.x = fill(b.dev, 1);
    b.r = fill(b.dev, 2);
    b.y = fill(b.dev, 3);
    printf("%9s %5s %5s  %-18s %9s %9s %9s\n", "rows", "k", "n", "with", "apart us", "one us", "bytes us");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        const int64_t m = (int64_t)images_of(s) * s->size * s->size;
        net n;
        open_net(&n, b.dev, s);
        const double apart = measure(&b, &n, s, true), one = measure(&b, &n, s, false);
        printf("%9lld %5d %5d  %-18s %9.1f %9.1f %9.1f\n", (long long)m, s->k, s->n,
               s->act        ? "norm, act"
               : s->excite   ? "s, norm, residual"
               : s->residual ? "norm, residual"
                             : "norm",
               apart, one, (double)m * 2 * (s->k + s->n * (s->residual ? 2 : 1)) / 4.2e6);
        close_net(&n);
    }
    kn_device_free(b.dev, b.x);
    kn_device_free(b.dev, b.r);
    kn_device_free(b.dev, b.y);
    kn_device_close(&b.dev);
    return 0;
}
