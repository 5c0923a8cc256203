/* What a training step on the accelerator must not do, counted (kn_device_count): no allocation, no wait and no search for an algorithm while fresh random subnets are
 * planned and run; that a subnet which repeats is one launch from its second run on; and what happens when memory is short: refused with the figure before anything runs, and the device goes on working.
 *
 * ESPALIER_TEST_DEVICE names another device than the accelerator that is tried otherwise. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include "base/rng.h"
#include "kernels/collective/collective.h"
#include "kernels/device/device_internal.h"
#include "kernels/graph/autodiff.h"
#include "kernels/optim/optim.h"
#include "kernels/plan/plan.h"

enum { BATCH = 8, SIZE = 16, CLASSES = 10, BLOCKS = 4, WIDTH = 32, EXPAND = 4, KERNEL = 5, FRESH = 16 };
enum { IN_IMAGES, IN_LABELS };

typedef struct net {
    kn_params *weights, *stats;
    kn_param stem, head, expand[BLOCKS], depthwise[BLOCKS], project[BLOCKS], gamma[3 * BLOCKS], beta[3 * BLOCKS],
        mean[3 * BLOCKS];
} net;

typedef struct subnet {
    int depth, width, expand[BLOCKS], kernel[BLOCKS];
} subnet;

static kn_param declare(kn_params *p, const char *kind, int i, kn_shape shape, kn_init_kind init)
{
    char name[32];
    kn_param id;
    es_error err = {0};
    snprintf(name, sizeof name, "%s.%d", kind, i);
    ck_assert_ok_err(kn_params_add(p, name, shape, init, 0, &id, &err), &err);
    return id;
}

static net net_make(void)
{
    net n = {.weights = kn_params_new(), .stats = kn_params_new()};
    const int mid = WIDTH * EXPAND;
    n.stem = declare(n.weights, "stem", 0, KN_SHAPE(WIDTH, 3, 3, 3), KN_INIT_HE_OUT);
    n.head = declare(n.weights, "head", 0, KN_SHAPE(CLASSES, WIDTH), KN_INIT_UNIFORM_IN);
    for (int i = 0; i < BLOCKS; i++) {
        n.expand[i] = declare(n.weights, "expand", i, KN_SHAPE(mid, 1, 1, WIDTH), KN_INIT_HE_OUT);
        n.depthwise[i] = declare(n.weights, "depthwise", i, KN_SHAPE(KERNEL, KERNEL, mid), KN_INIT_HE_OUT);
        n.project[i] = declare(n.weights, "project", i, KN_SHAPE(WIDTH, 1, 1, mid), KN_INIT_HE_OUT);
    }
    for (int i = 0; i < 3 * BLOCKS; i++) {
        n.gamma[i] = declare(n.weights, "gamma", i, KN_SHAPE(mid), KN_INIT_ONE);
        n.beta[i] = declare(n.weights, "beta", i, KN_SHAPE(mid), KN_INIT_ZERO);
        n.mean[i] = declare(n.stats, "mean", i, KN_SHAPE(mid), KN_INIT_ZERO);
    }
    kn_params_seal(n.weights);
    kn_params_seal(n.stats);
    return n;
}

static kn_val part(kn_graph *g, kn_param id, kn_shape extent, int skip)
{
    kn_box box = {.start = {skip, skip}};
    memcpy(box.extent, extent.d, sizeof box.extent);
    return kn_param_slice(g, KN_SET_WEIGHTS, id, &box);
}

static kn_val norm(kn_graph *g, const net *n, int i, kn_val x, kn_act act)
{
    const kn_shape c = KN_SHAPE(kn_shape_of(g, x).d[3]);
    const kn_box box = {.extent = {c.d[0], 1, 1, 1, 1}};
    kn_bn y = kn_batch_norm(g, x, part(g, n->gamma[i], c, 0), part(g, n->beta[i], c, 0), 1e-5f, act);
    kn_blend_param(g, KN_SET_STATS, n->mean[i], &box, y.mean, kn_scalar(g, 0));
    return y.y;
}

static void build(kn_graph *g, const net *n, const subnet *s)
{
    kn_val x = kn_input(g, IN_IMAGES, KN_SHAPE(BATCH, SIZE, SIZE, 3), KN_F32);
    es_error err = {0};
    x = kn_conv2d(g, x, part(g, n->stem, KN_SHAPE(s->width, 3, 3, 3), 0), 1, 1, 1, 1);
    for (int i = 0; i < s->depth; i++) {
        const int mid = s->width * s->expand[i], k = s->kernel[i];
        kn_val y = kn_conv2d(g, x, part(g, n->expand[i], KN_SHAPE(mid, 1, 1, s->width), 0), 1, 0, 1, 1);
        y = norm(g, n, 3 * i, y, KN_ACT_SILU);
        y = kn_depthwise(g, y, part(g, n->depthwise[i], KN_SHAPE(k, k, mid), (KERNEL - k) / 2), 1 + i % 2, k / 2, 1);
        y = norm(g, n, 3 * i + 1, y, KN_ACT_SILU);
        y = kn_conv2d(g, y, part(g, n->project[i], KN_SHAPE(s->width, 1, 1, mid), 0), 1, 0, 1, 1);
        y = norm(g, n, 3 * i + 2, y, KN_ACT_NONE);
        x = i % 2 ? y : kn_add(g, x, y);
    }
    x = kn_reshape(g, kn_global_avg_pool(g, x), KN_SHAPE(BATCH, s->width));
    x = kn_linear(g, x, part(g, n->head, KN_SHAPE(CLASSES, s->width), 0));
    kn_val loss = kn_cross_entropy(g, x, kn_input(g, IN_LABELS, KN_SHAPE(BATCH), KN_I32), 0.0f);
    loss = kn_reshape(g, kn_reduce_mean(g, loss, KN_AXES_ALL), kn_shape_make(0, NULL));
    ck_assert_ok_err(kn_graph_status(g, &err), &err);
    ck_assert_ok_err(kn_grad_params(g, loss, NULL, NULL, &err), &err);
    kn_output(g, 0, loss);
}

static subnet random_subnet(es_rng *r)
{
    subnet s = {.depth = 1 + (int)es_rng_below(r, BLOCKS), .width = 1 + (int)es_rng_below(r, WIDTH)};
    for (int i = 0; i < BLOCKS; i++) {
        s.expand[i] = 1 + (int)es_rng_below(r, EXPAND);
        s.kernel[i] = es_rng_below(r, 2) ? 5 : 3;
    }
    return s;
}

static void *filled(kn_device *dev, size_t bytes)
{
    es_error err = {0};
    void *p = NULL;
    ck_assert_ok_err(kn_device_alloc(dev, bytes, &p, &err), &err);
    ck_assert_ok_err(kn_device_zero(dev, p, bytes, &err), &err);
    return p;
}

typedef struct rig {
    kn_device *dev;
    net n;
    kn_graph *g;
    kn_plan *plan;
    kn_workspace *ws;
    kn_weights *w, *stats;
    kn_optim *optim;
    kn_binding b;
} rig;

static rig rig_make(kn_device *dev)
{
    rig r = {.dev = dev, .n = net_make()};
    const kn_params *sets[KN_SETS] = {r.n.weights, r.n.stats};
    es_error err = {0};
    r.g = kn_graph_new(sets);
    ck_assert_ok_err(kn_weights_new(dev, r.n.weights, KN_WITH_GRAD, &r.w, &err), &err);
    ck_assert_ok_err(kn_weights_new(dev, r.n.stats, 0, &r.stats, &err), &err);
    ck_assert_ok_err(kn_weights_init(r.w, 1, &err), &err);
    ck_assert_ok_err(kn_weights_init(r.stats, 1, &err), &err);
    ck_assert_ok_err(kn_weights_zero_grads(r.w, &err), &err);
    ck_assert_ok_err(kn_optim_new(&(kn_optim_config){.kind = KN_SGD, .momentum = 0.9f}, r.w, &r.optim, &err), &err);
    ck_assert_ok_err(kn_workspace_new(dev, &r.ws, &err), &err);
    r.b = (kn_binding){.in = {filled(dev, BATCH * SIZE * SIZE * 3 * 4), filled(dev, BATCH * 4)},
                       .out = {filled(dev, 4)},
                       .weights = {r.w, r.stats},
                       .scalar = {0.1f}};
    return r;
}

static void rig_free(rig *r)
{
    for (int i = 0; i < 2; i++)
        kn_device_free(r->dev, (void *)(uintptr_t)r->b.in[i]);
    kn_device_free(r->dev, r->b.out[0]);
    kn_optim_destroy(&r->optim);
    kn_weights_destroy(&r->w);
    kn_weights_destroy(&r->stats);
    kn_workspace_destroy(&r->ws);
    kn_plan_destroy(&r->plan);
    kn_graph_destroy(&r->g);
    kn_params_destroy(&r->n.weights);
    kn_params_destroy(&r->n.stats);
}

static const subnet largest = {BLOCKS, WIDTH, {EXPAND, EXPAND, EXPAND, EXPAND}, {KERNEL, KERNEL, KERNEL, KERNEL}};

static void prepare(rig *r, const subnet *s, const kn_plan_options *o)
{
    es_error err = {0};
    kn_graph_reset(r->g);
    build(r->g, &r->n, s);
    ck_assert_ok_err(kn_plan_make(r->dev, r->g, o, &r->plan, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(r->ws, kn_plan_workspace_bytes(r->plan), &err), &err);
}

static void train(kn_device *dev, kn_precision precision)
{
    rig r = rig_make(dev);
    es_error err = {0};
    es_rng rng = es_rng_make(5, ES_USE_TEST, 0);
    subnet s = largest;
    kn_device_count before = {0};
    for (int i = 0; i <= FRESH; i++) {
        prepare(&r, &s, &(kn_plan_options){.precision = precision});
        const uint64_t late = dev->count.late_searches;
        ck_assert_ok_err(kn_run(r.plan, r.ws, &r.b, &err), &err);
        ck_assert_ok_err(kn_optim_update(r.optim, 0.01f, &err), &err);
        ck_assert_uint_eq(dev->count.late_searches, late);
        if (i == 0)
            before = dev->count; /* the largest has been seen */
        s = random_subnet(&rng);
    }
    ck_assert_uint_eq(dev->count.allocations, before.allocations);
    ck_assert_uint_eq(dev->count.syncs, before.syncs);
    ck_assert_uint_gt(dev->count.searches, before.searches); /* they were made while planning: the count counts */
    ck_assert_uint_eq(dev->count.replays, 0);
    ck_assert_ok_err(kn_device_sync(dev, &err), &err);
    ck_assert_uint_eq(dev->count.syncs, before.syncs + 1);
    rig_free(&r);
}

typedef struct given {
    uint64_t calls, recordings, replays;
} given;

/* One run and what the device was given. */
static given run_once(rig *r)
{
    const kn_device_count a = r->dev->count;
    es_error err = {0};
    ck_assert_ok_err(kn_run(r->plan, r->ws, &r->b, &err), &err);
    const kn_device_count b = r->dev->count;
    ck_assert_uint_eq(b.allocations, a.allocations);
    ck_assert_uint_eq(b.syncs, a.syncs);
    ck_assert_uint_eq(b.late_searches, a.late_searches);
    ck_assert_uint_eq(b.refused, 0);
    return (given){b.calls - a.calls, b.recordings - a.recordings, b.replays - a.replays};
}

static void expect(given g, uint64_t calls, uint64_t recordings, uint64_t replays)
{
    ck_assert_uint_eq(g.calls, calls);
    ck_assert_uint_eq(g.recordings, recordings);
    ck_assert_uint_eq(g.replays, replays);
}

/* The gradients of one run, by itself or replayed; from equal weights they are equal bit for bit. */
static void gradients(rig *r, float *to)
{
    es_error err = {0};
    size_t bytes = (size_t)kn_params_elements(r->n.weights) * sizeof *to;
    ck_assert_ok_err(kn_device_download(r->dev, to, kn_weights_grads(r->w), bytes, &err), &err);
    ck_assert_ok_err(kn_weights_zero_grads(r->w, &err), &err);
}

static void repeat(kn_device *dev, kn_precision precision)
{
    rig r = rig_make(dev);
    es_error err = {0};
    const size_t bytes = (size_t)kn_params_elements(r.n.weights) * sizeof(float), pixels = BATCH * SIZE * SIZE * 3;
    float *alone = malloc(bytes), *replayed = malloc(bytes), *images = malloc(pixels * sizeof *images);
    es_rng rng = es_rng_make(6, ES_USE_TEST, 0);
    for (size_t i = 0; i < pixels; i++)
        images[i] = es_rng_normal(&rng);
    ck_assert_ok_err(kn_device_upload(dev, (void *)(uintptr_t)r.b.in[0], images, pixels * sizeof *images, &err), &err);
    prepare(&r, &largest, &(kn_plan_options){.precision = precision, .repeats = true});
    const uint64_t steps = kn_plan_steps(r.plan);
    expect(run_once(&r), steps, 0, 0);
    gradients(&r, alone);
    for (int i = 0; i < 4; i++) {
        expect(run_once(&r), 0, i == 0, 1);
        gradients(&r, replayed);
        ck_assert_mem_eq(replayed, alone, bytes);
    }
    /* Other addresses: not what was recorded; the second time it is recorded anew. */
    void *elsewhere = filled(dev, pixels * sizeof *images);
    const void *was = r.b.in[0];
    r.b.in[0] = elsewhere;
    expect(run_once(&r), steps, 0, 0);
    gradients(&r, replayed);
    ck_assert_mem_ne(replayed, alone, bytes);
    ck_assert_ok_err(kn_device_upload(dev, elsewhere, images, pixels * sizeof *images, &err), &err);
    expect(run_once(&r), 0, 1, 1);
    gradients(&r, replayed);
    ck_assert_mem_eq(replayed, alone, bytes);
    /* Back and forth: never twice in a row. */
    for (int i = 0; i < 4; i++) {
        r.b.in[0] = i % 2 ? elsewhere : was;
        expect(run_once(&r), steps, 0, 0);
    }
    expect(run_once(&r), 0, 1, 1);
    /* Made anew: nothing is left of the recording. */
    prepare(&r, &largest, &(kn_plan_options){.precision = precision, .repeats = true});
    expect(run_once(&r), steps, 0, 0);
    ck_assert_ok_err(kn_device_sync(dev, &err), &err);
    r.b.in[0] = was;
    kn_device_free(dev, elsewhere);
    free(alone);
    free(replayed);
    free(images);
    rig_free(&r);
}

/* A run whose gradients are halved by a collective of one, each by the first point after its last kernel. */
enum { POINTS = 8 };
typedef struct halving {
    rig *r;
    kn_collective *c;
    uint32_t *last, points[POINTS];
    int heard;
} halving;

static es_status halve(void *ctx, uint32_t done, es_error *err)
{
    halving *h = ctx;
    ck_assert_int_lt(h->heard, POINTS);
    ck_assert_uint_eq(done, h->points[h->heard]);
    const uint32_t before = h->heard == 0 ? 0 : h->points[h->heard - 1];
    h->heard++;
    for (kn_param id = 0; id < kn_params_count(h->r->n.weights); id++) {
        const kn_param_def *d = kn_params_def(h->r->n.weights, id);
        kn_box whole = {.extent = {1, 1, 1, 1, 1}};
        memcpy(whole.extent, d->shape.d, sizeof whole.extent);
        const kn_piece piece = kn_piece_of(d, &whole);
        if (h->last[id] > before && h->last[id] <= done)
            ES_RETURN(kn_collective_reduce(h->c, kn_weights_grads(h->r->w), &piece, 1, 0.5f, err));
    }
    return ES_OK;
}

static void halve_at_points(kn_device *dev, kn_collective *c, kn_precision precision)
{
    rig r = rig_make(dev);
    halving h = {.r = &r, .c = c};
    const size_t n = (size_t)kn_params_elements(r.n.weights);
    float *alone = malloc(n * sizeof *alone), *halved = malloc(n * sizeof *halved);
    es_error err = {0};
    h.last = malloc((size_t)kn_params_count(r.n.weights) * sizeof *h.last);
    ck_assert_ok_err(kn_collective_reserve(c, (int64_t)n, &err), &err);
    prepare(&r, &largest, &(kn_plan_options){.precision = precision, .repeats = true});
    const uint32_t steps = (uint32_t)kn_plan_steps(r.plan);
    kn_plan_grad_steps(r.plan, KN_SET_WEIGHTS, h.last);
    expect(run_once(&r), steps, 0, 0);
    gradients(&r, alone);
    for (uint32_t i = 0; i < POINTS; i++) /* the first before any kernel, the last after all */
        h.points[i] = i * steps / (POINTS - 1);
    r.b.points = h.points;
    r.b.n_points = POINTS;
    r.b.after = halve;
    r.b.after_ctx = &h;
    for (int i = 0; i < 6; i++) {
        h.points[1] += i == 3; /* another point: given one by one again, then recorded anew */
        h.heard = 0;
        expect(run_once(&r), i % 3 ? 0 : steps, i % 3 == 1, i % 3 > 0);
        ck_assert_int_eq(h.heard, POINTS);
        ck_assert_ok_err(kn_collective_join(c, &err), &err);
        gradients(&r, halved);
        for (size_t k = 0; k < n; k++)
            ck_assert_msg(halved[k] == alone[k] * 0.5f, "run %d, element %zu: %g, alone %g", i, k, (double)halved[k],
                          (double)alone[k]);
    }
    free(h.last);
    free(alone);
    free(halved);
    rig_free(&r);
}

START_TEST(sums_leave_at_their_points)
    {
        kn_device *dev = es_test_accelerator("only accelerators record");
        kn_rendezvous *meet = NULL;
        kn_collective *c = NULL;
        kn_gang_id id;
        es_error err = {0};
        if (dev == NULL)
            return;
        ck_assert_ok_err(kn_rendezvous_open("127.0.0.1", &meet, &id, &err), &err);
        ck_assert_ok_err(
            kn_collective_open(dev, &(kn_collective_options){.size = 1, .id = &id, .meet = meet}, &c, &err), &err);
        kn_rendezvous_close(&meet);
        halve_at_points(dev, c, KN_PRECISION_F32);
        halve_at_points(dev, c, KN_PRECISION_BF16);
        kn_collective_close(&c);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(steps_only_launch)
    {
        kn_device *dev = es_test_accelerator("only accelerators count");
        if (dev == NULL)
            return;
        train(dev, KN_PRECISION_F32);
        train(dev, KN_PRECISION_BF16);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(what_repeats_is_one_launch)
    {
        kn_device *dev = es_test_accelerator("only accelerators count");
        if (dev == NULL)
            return;
        repeat(dev, KN_PRECISION_F32);
        repeat(dev, KN_PRECISION_BF16);
        kn_device_close(&dev);
    }
END_TEST

/* The workspace of x -> silu(x) + x for `images` images, in fp32. */
static size_t plan_images(kn_device *dev, int images, kn_plan **plan)
{
    enum { SIDE = 256, CHANNELS = 8 };
    const kn_params *sets[KN_SETS] = {NULL};
    kn_graph *g = kn_graph_new(sets);
    es_error err = {0};
    kn_val x = kn_input(g, 0, KN_SHAPE(images, SIDE, SIDE, CHANNELS), KN_F32), y = kn_activate(g, x, KN_ACT_SILU);
    y = kn_reduce_sum(g, kn_mul(g, kn_add(g, x, y), kn_activate(g, y, KN_ACT_RELU)), KN_AXES_ALL);
    kn_output(g, 0, kn_reshape(g, y, kn_shape_make(0, NULL)));
    ck_assert_ok_err(kn_plan_make(dev, g, NULL, plan, &err), &err);
    kn_graph_destroy(&g);
    return kn_plan_workspace_bytes(*plan);
}

static void expect_refusal(kn_workspace *ws, size_t bytes)
{
    es_error err = {0};
    char figure[32];
    snprintf(figure, sizeof figure, "%zu bytes", bytes);
    ck_assert_int_eq(kn_workspace_reserve(ws, bytes, &err), ES_NO_MEMORY);
    ck_assert_msg(strstr(err.text, figure) && strstr(err.text, "are free"), "%s: %s", err.where, err.text);
}

START_TEST(too_large_is_refused)
    {
        kn_device *dev = es_test_accelerator("only accelerators count");
        kn_plan *plan = NULL;
        kn_workspace *ws = NULL;
        void *rest = NULL;
        size_t free_bytes = 0, total = 0, need;
        es_error err = {0};
        if (dev == NULL)
            return;
        ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
        ck_assert_ok_err(kn_device_memory(dev, &free_bytes, &total, &err), &err);
        /* More than the device has: known from the plan, before anything runs. */
        need = plan_images(dev, (int)(total / (256 * 256 * 8 * 4)) + 1, &plan);
        ck_assert_uint_gt(need, total);
        expect_refusal(ws, need);
        /* Somebody else has the memory. */
        const size_t spare = (size_t)256 << 20;
        ck_assert_ok_err(kn_device_memory(dev, &free_bytes, &total, &err), &err);
        ck_assert_ok_err(kn_device_alloc(dev, free_bytes - spare, &rest, &err), &err);
        need = plan_images(dev, 512, &plan);
        expect_refusal(ws, need);
        kn_device_free(dev, rest);
        /* The device goes on working. */
        need = plan_images(dev, 2, &plan);
        ck_assert_ok_err(kn_workspace_reserve(ws, need, &err), &err);
        kn_binding b = {.in = {filled(dev, (size_t)2 * 256 * 256 * 8 * 4)}, .out = {filled(dev, 4)}};
        float sum = 1;
        ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
        ck_assert_ok_err(kn_device_download(dev, &sum, b.out[0], sizeof sum, &err), &err);
        ck_assert_float_eq(sum, 0);
        kn_device_free(dev, (void *)(uintptr_t)b.in[0]);
        kn_device_free(dev, b.out[0]);
        kn_workspace_destroy(&ws);
        kn_plan_destroy(&plan);
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("cuda_step", steps_only_launch, what_repeats_is_one_launch, sums_leave_at_their_points,
             too_large_is_refused)
