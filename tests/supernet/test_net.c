/* Nets of every example space: parameters, lowering on real devices, gradients in exactly the slices, stand-alone copies, calibration, parts. */
#include <math.h>
#include <time.h>

#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"
#include "supernet/net/net.h"
#include "tests/check_main.h"
#include "tests/supernet/spaces.h"

typedef struct rig {
    sn_space *sp;
    sn_net *net;
    kn_device *dev;
    kn_weights *w, *stats;
    kn_graph *g;
    kn_plan *plan;
    kn_workspace *ws;
    sr_arch *a;
} rig;

/* Takes the space. Weights are random everywhere, also where a real run starts from zero, so that nothing is hidden by a zero. */
static void rig_open(rig *r, sn_space *sp, const char *device)
{
    es_error err = {0};
    memset(r, 0, sizeof *r);
    r->sp = sp;
    ck_assert_ok_err(sn_net_new(sp, &r->net, &err), &err);
    ck_assert_ok_err(kn_device_open(device, &r->dev, &err), &err);
    ck_assert_ok_err(kn_weights_new(r->dev, sn_net_params(r->net), KN_WITH_GRAD, &r->w, &err), &err);
    ck_assert_ok_err(kn_weights_new(r->dev, sn_net_stats(r->net), 0, &r->stats, &err), &err);
    ck_assert_ok_err(kn_weights_init(r->w, 3, &err), &err);
    ck_assert_ok_err(kn_weights_init(r->stats, 3, &err), &err);
    int64_t n = kn_params_elements(sn_net_params(r->net));
    float *v = malloc((size_t)n * sizeof *v);
    ck_assert_ok(kn_weights_download(r->w, v, NULL));
    for (int i = 0; i < kn_params_count(sn_net_params(r->net)); i++) {
        const kn_param_def *d = kn_params_def(sn_net_params(r->net), i);
        es_rng rng = es_rng_make(11, ES_USE_TEST, (uint64_t)i);
        if (d->init == KN_INIT_ZERO || d->init == KN_INIT_ONE)
            for (int64_t e = 0; e < d->count; e++)
                v[d->offset + e] = 0.5f + es_rng_uniform(&rng);
    }
    ck_assert_ok(kn_weights_upload(r->w, v, NULL));
    free(v);
    ck_assert_ok(kn_workspace_new(r->dev, &r->ws, NULL));
    const kn_params *sets[KN_SETS] = {sn_net_params(r->net), sn_net_stats(r->net)};
    r->g = kn_graph_new(sets);
    r->a = sr_arch_new(sn_space_choices(sp));
}

static void rig_close(rig *r)
{
    free(r->a);
    kn_graph_destroy(&r->g);
    kn_plan_destroy(&r->plan);
    kn_workspace_destroy(&r->ws);
    kn_weights_destroy(&r->w);
    kn_weights_destroy(&r->stats);
    kn_device_close(&r->dev);
    sn_net_destroy(&r->net);
    sn_space_destroy(&r->sp);
}

typedef struct wanted_part {
    const sn_net *net;
    const int *part;
    int k;
} wanted_part;
static bool wanted(void *ctx, int set, kn_param id)
{
    const wanted_part *w = ctx;
    return set == KN_SET_WEIGHTS && w->part[sn_net_param_unit(w->net, set, id)] == w->k;
}

/* One run on a random batch; logits (batch x classes). With `gradients` the gradient of the mean cross-entropy is added into the weights' gradients. */
static void rig_run(rig *r, const sn_lower_options *o, bool gradients, const wanted_part *part, float *logits)
{
    es_error err = {0};
    int h, wd, c, n = o->batch, classes = sn_space_classes(r->sp);
    sn_lowered low;
    sn_space_input(r->sp, &h, &wd, &c);
    kn_graph_reset(r->g);
    ck_assert_ok_err(sn_net_lower(r->net, r->a, o, r->g, &low, &err), &err);
    kn_shape out = kn_shape_of(r->g, low.logits);
    ck_assert(out.rank == 2 && out.d[0] == n && out.d[1] == classes);
    kn_output(r->g, 0, low.logits);
    if (gradients) {
        kn_val labels = kn_input(r->g, SN_IN_LABELS, KN_SHAPE(n), KN_I32);
        kn_val loss = kn_reduce_mean(r->g, kn_cross_entropy(r->g, low.logits, labels, 0.1f), KN_AXES_ALL);
        wanted_part copy = part ? *part : (wanted_part){0};
        ck_assert_ok_err(kn_grad_params(r->g, loss, part ? wanted : NULL, part ? &copy : NULL, &err), &err);
    }
    ck_assert_ok_err(kn_plan_make(r->dev, r->g, &(kn_plan_options){0}, &r->plan, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(r->ws, kn_plan_workspace_bytes(r->plan), &err), &err);
    size_t pixels = (size_t)n * (size_t)(h * wd * c);
    float *images = malloc(pixels * sizeof *images);
    int32_t *classes_of = malloc((size_t)n * sizeof *classes_of);
    es_rng rng = es_rng_make(5, ES_USE_TEST, 0);
    for (size_t i = 0; i < pixels; i++)
        images[i] = es_rng_normal(&rng);
    for (int i = 0; i < n; i++)
        classes_of[i] = i % classes;
    kn_binding b = {.in = {images, classes_of}, .out = {logits}, .weights = {r->w, r->stats}, .seed = 1, .step = 1};
    b.scalar[SN_SCALAR_BLEND] = 1;
    ck_assert_ok_err(kn_run(r->plan, r->ws, &b, &err), &err); /* host devices: pointers are host pointers */
    free(images);
    free(classes_of);
}

static int64_t at(const kn_param_def *d, const int32_t *i)
{
    int64_t k = 0;
    for (int j = 0; j < d->shape.rank; j++)
        k = k * d->shape.d[j] + i[j];
    return d->offset + k;
}

/* Calls visit for the flat index of every element of a slice. */
static void each_element(const sn_net *net, const sn_slice *s, void (*visit)(void *ctx, int64_t index), void *ctx)
{
    const kn_param_def *d = kn_params_def(s->set == KN_SET_WEIGHTS ? sn_net_params(net) : sn_net_stats(net), s->id);
    int32_t i[KN_RANK_MAX];
    memcpy(i, s->box.start, sizeof i);
    for (bool more = true; more;) {
        visit(ctx, at(d, i));
        int j = d->shape.rank - 1;
        while (j >= 0 && ++i[j] == s->box.start[j] + s->box.extent[j]) {
            i[j] = s->box.start[j];
            j--;
        }
        more = j >= 0;
    }
}

typedef struct marks {
    const float *grad;
    bool *inside;
    int64_t nonzero;
} marks;
static void mark(void *ctx, int64_t i)
{
    marks *m = ctx;
    m->inside[i] = true;
    m->nonzero += m->grad[i] != 0;
}

/* Gradients: something in every slice (unless parts of this architecture reach no output), nothing outside. Weights counted by slices are those of the cost model. */
static void check_gradients(rig *r, int batch, bool all_reached)
{
    int64_t n = kn_params_elements(sn_net_params(r->net)), counted = 0;
    float *logits = malloc((size_t)(batch * sn_space_classes(r->sp)) * sizeof *logits),
          *grad = malloc((size_t)n * sizeof *grad);
    ck_assert_ok(kn_weights_zero_grads(r->w, NULL));
    rig_run(r, &(sn_lower_options){.batch = batch, .mode = SN_TRAIN}, true, NULL, logits);
    bool finite = true;
    for (int i = 0; i < batch * sn_space_classes(r->sp); i++)
        finite &= isfinite(logits[i]) != 0;
    ck_assert(finite);
    memcpy(grad, kn_weights_grads(r->w), (size_t)n * sizeof *grad);
    marks m = {.grad = grad, .inside = calloc((size_t)n, 1)};
    sn_slice *slices;
    sn_cost cost;
    int count;
    char *text = sn_arch_format(r->sp, r->a);
    ck_assert_ok(sn_net_slices(r->net, r->a, &slices, &count, NULL));
    ck_assert_ok(sn_space_cost(r->sp, r->a, &cost, NULL));
    for (int i = 0; i < count; i++) {
        if (slices[i].set != KN_SET_WEIGHTS)
            continue;
        m.nonzero = 0;
        each_element(r->net, &slices[i], mark, &m);
        const kn_param_def *d = kn_params_def(sn_net_params(r->net), slices[i].id);
        ck_assert_msg(!all_reached || m.nonzero > 0, "%s: %s has no gradient", text, d->name);
    }
    int64_t outside = 0;
    for (int64_t i = 0; i < n; i++) {
        counted += m.inside[i];
        outside += !m.inside[i] && grad[i] != 0;
    }
    ck_assert_msg(outside == 0, "%s: gradients outside the slices", text);
    ck_assert_int_eq(counted, cost.params);
    free(text);
    free(slices);
    free(m.inside);
    free(grad);
    free(logits);
}

static void check_space(const char *name, int batch, int random, bool largest)
{
    rig r;
    rig_open(&r, space_load(name), "cpu");
    const sr_space *ch = sn_space_choices(r.sp);
    for (int t = 0; t < random + 1 + largest; t++) {
        es_rng rng = es_rng_make(21, ES_USE_TEST, (uint64_t)t);
        if (t == 0)
            sr_arch_smallest(ch, r.a);
        else if (largest && t == 1)
            sr_arch_largest(ch, r.a);
        else
            sr_arch_random(ch, &rng, r.a);
        char *text = sr_arch_text(ch, r.a);
        check_gradients(&r, batch, strstr(text, "=none") == NULL);
        free(text);
    }
    rig_close(&r);
}

#define GRADIENTS(name, space, batch, random, largest)  \
    START_TEST(name)                                    \
        {                                               \
            check_space(space, batch, random, largest); \
        }                                               \
    END_TEST
GRADIENTS(gradients_fashion, "fashion", 3, 6, true)
GRADIENTS(gradients_blocks, "blocks", 4, 12, true)
GRADIENTS(gradients_nas_bench_201, "nas-bench-201", 2, 3, true)
GRADIENTS(gradients_entangled_conv, "entangled-conv", 2, 2, false)
GRADIENTS(gradients_entangled_cell, "entangled-cell", 3, 3, true)
GRADIENTS(gradients_mbconv32, "mbconv32", 2, 1, true)
GRADIENTS(gradients_mbconv224, "mbconv224", 1, 0, false)
GRADIENTS(gradients_ofa, "ofa-mbv3", 1, 0, false)
GRADIENTS(gradients_attentivenas, "attentivenas", 1, 0, false)

/* Extraction by hand: every slice into the parameter of the same name of the fixed space's net. */
typedef struct copier {
    const float *from;
    float *to;
} copier;
static void copy_next(void *ctx, int64_t i)
{
    copier *c = ctx;
    *c->to++ = c->from[i];
}

static void extract(rig *from, rig *to, const sn_slice *slices, int count)
{
    kn_weights *src[KN_SETS] = {from->w, from->stats}, *dst[KN_SETS] = {to->w, to->stats};
    int used[KN_SETS] = {0};
    for (int i = 0; i < count; i++) {
        const kn_params *p = kn_weights_params(src[slices[i].set]), *q = kn_weights_params(dst[slices[i].set]);
        kn_param id;
        ck_assert_msg(kn_params_find(q, kn_params_def(p, slices[i].id)->name, &id), "%s",
                      kn_params_def(p, slices[i].id)->name);
        const kn_param_def *d = kn_params_def(q, id);
        for (int j = 0; j < d->shape.rank; j++)
            ck_assert_int_eq(d->shape.d[j], slices[i].box.extent[j]);
        copier c = {kn_weights_values(src[slices[i].set]), kn_weights_values(dst[slices[i].set]) + d->offset};
        each_element(from->net, &slices[i], copy_next, &c);
        used[slices[i].set]++;
    }
    for (int s = 0; s < KN_SETS; s++) {
        ck_assert_int_eq(used[s], kn_params_count(kn_weights_params(dst[s]))); /* and the fixed net has nothing else */
        ck_assert_ok(kn_weights_changed(dst[s], NULL));
    }
}

START_TEST(stand_alone_is_the_same)
    {
        static const char *const names[] = {"fashion", "blocks", "nas-bench-201", "entangled-cell", "mbconv32"};
        for (int k = 0; k < 5; k++) {
            rig r, one;
            rig_open(&r, space_load(names[k]), "cpu");
            for (int t = 0; t < 3; t++) {
                es_rng rng = es_rng_make(31, ES_USE_TEST, (uint64_t)t);
                sr_arch_random(sn_space_choices(r.sp), &rng, r.a);
                sn_space *fixed;
                sn_slice *slices;
                int count, n = 2 * sn_space_classes(r.sp);
                ck_assert_ok(sn_space_fix(r.sp, r.a, &fixed, NULL));
                ck_assert_ok(sn_net_slices(r.net, r.a, &slices, &count, NULL));
                rig_open(&one, fixed, "cpu");
                float *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b);
                extract(&r, &one, slices, count);
                for (int mode = SN_TRAIN; mode <= SN_INFER; mode += SN_INFER - SN_TRAIN) {
                    sn_lower_options o = {.batch = 2, .mode = (sn_mode)mode};
                    rig_run(&r, &o, false, NULL, a);
                    rig_run(&one, &o, false, NULL, b);
                    ck_assert_mem_eq(a, b, (size_t)n * sizeof *a); /* to the bit */
                }
                free(a);
                free(b);
                free(slices);
                rig_close(&one);
            }
            rig_close(&r);
        }
    }
END_TEST

START_TEST(devices_agree)
    {
        static const char *const names[] = {"fashion", "blocks", "entangled-cell"};
        for (int k = 0; k < 3; k++) {
            rig r, ref;
            float a[3 * 10], b[3 * 10];
            rig_open(&r, space_load(names[k]), "cpu");
            rig_open(&ref, space_load(names[k]), "reference");
            es_rng rng = es_rng_make(41, ES_USE_TEST, 0);
            sr_arch_random(sn_space_choices(r.sp), &rng, r.a);
            sr_arch_copy(ref.a, r.a);
            sn_lower_options o = {.batch = 3, .mode = SN_TRAIN};
            rig_run(&r, &o, false, NULL, a);
            rig_run(&ref, &o, false, NULL, b);
            for (int i = 0; i < 30; i++)
                ck_assert_float_eq_tol(a[i], b[i], 2e-3f * (1 + fabsf(b[i])));
            rig_close(&r);
            rig_close(&ref);
        }
    }
END_TEST

START_TEST(calibration)
    {
        rig r;
        float train[40], infer[40], batch[40];
        rig_open(&r, space_load("fashion"), "cpu");
        for (int t = 0; t < 3; t++) {
            es_rng rng = es_rng_make(51, ES_USE_TEST, (uint64_t)t);
            sr_arch_random(sn_space_choices(r.sp), &rng, r.a);
            rig_run(&r, &(sn_lower_options){.batch = 4, .mode = SN_CALIBRATE}, false, NULL,
                    train); /* blend 1: the statistics of this batch */
            rig_run(&r, &(sn_lower_options){.batch = 4, .mode = SN_INFER}, false, NULL, infer);
            rig_run(&r, &(sn_lower_options){.batch = 4, .mode = SN_BATCH_STATS}, false, NULL, batch);
            for (int i = 0; i < 40; i++) {
                ck_assert_float_eq_tol(train[i], infer[i], 1e-3f * (1 + fabsf(train[i])));
                ck_assert_float_eq(train[i], batch[i]);
            }
        }
        rig_close(&r);
    }
END_TEST

/* Dropout only where asked for, in training; the same masks for the same step. */
START_TEST(regularisation)
    {
        rig r;
        float a[40], b[40], c[40];
        rig_open(&r, space_load("blocks"), "cpu");
        sr_arch_largest(sn_space_choices(r.sp), r.a);
        sn_lower_options on = {.batch = 4, .mode = SN_TRAIN, .regularise = true}, off = {.batch = 4, .mode = SN_TRAIN};
        rig_run(&r, &on, false, NULL, a);
        rig_run(&r, &on, false, NULL, b);
        rig_run(&r, &off, false, NULL, c);
        ck_assert_mem_eq(a, b, sizeof a);
        ck_assert(memcmp(a, c, sizeof a) != 0);
        on.mode = SN_BATCH_STATS;
        rig_run(&r, &on, false, NULL, b);
        ck_assert_mem_eq(b, c, sizeof b);
        rig_close(&r);
    }
END_TEST

/* A 1x1 convolution and a classifier that copy show what the resize makes of the image. */
static void resized(int from, int to, const float *image, float *out)
{
    char text[300];
    rig r;
    snprintf(text, sizeof text,
             "input: %dx%dx1\nresolution: %d\nstages: [{block: conv, width: 1, kernel: 1, norm: false, activation: "
             "none}]\nhead: {pool: flatten, classes: %d}\n",
             from, from, to, to * to);
    rig_open(&r, space_parse(text), "cpu");
    int n = to * to;
    float *w = calloc((size_t)kn_params_elements(sn_net_params(r.net)), sizeof *w);
    kn_param id;
    ck_assert(kn_params_find(sn_net_params(r.net), "stages.0.blocks.0.conv.weight", &id));
    w[kn_params_def(sn_net_params(r.net), id)->offset] = 1;
    ck_assert(kn_params_find(sn_net_params(r.net), "head.classifier.weight", &id));
    for (int i = 0; i < n; i++)
        w[kn_params_def(sn_net_params(r.net), id)->offset + i * n + i] = 1;
    ck_assert_ok(kn_weights_upload(r.w, w, NULL));
    sn_lowered low;
    ck_assert_ok(sn_net_lower(r.net, r.a, &(sn_lower_options){.batch = 1, .mode = SN_INFER}, r.g, &low, NULL));
    kn_output(r.g, 0, low.logits);
    ck_assert_ok(kn_plan_make(r.dev, r.g, &(kn_plan_options){0}, &r.plan, NULL));
    ck_assert_ok(kn_workspace_reserve(r.ws, kn_plan_workspace_bytes(r.plan), NULL));
    ck_assert_ok(kn_run(r.plan, r.ws, &(kn_binding){.in = {image}, .out = {out}, .weights = {r.w, r.stats}}, NULL));
    free(w);
    rig_close(&r);
}

START_TEST(resolution)
    {
        static const float image[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        float two[4], three[9], eight[64];
        resized(4, 2, image, two);
        static const float half[4] = {2.5f, 4.5f, 10.5f, 12.5f};
        for (int i = 0; i < 4; i++)
            ck_assert_float_eq_tol(two[i], half[i], 1e-5f);
        /* 4 to 3: each new pixel covers 4/3 old ones: rows 0, 1 with weights 3/4, 1/4 and so on. */
        resized(4, 3, image, three);
        static const double cover[3][4] = {{.75, .25, 0, 0}, {0, .5, .5, 0}, {0, 0, .25, .75}};
        for (int y = 0; y < 3; y++)
            for (int x = 0; x < 3; x++) {
                double v = 0;
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++)
                        v += cover[y][i] * cover[x][j] * (double)image[4 * i + j];
                ck_assert_float_eq_tol(three[3 * y + x], (float)v, 1e-5f);
            }
        resized(4, 8, image, eight);
        for (int y = 0; y < 8; y++)
            for (int x = 0; x < 8; x++)
                ck_assert_float_eq(eight[8 * y + x], image[4 * (y / 2) + x / 2]);
    }
END_TEST

START_TEST(blocks_and_parts)
    {
        rig r;
        es_error err = {0};
        sn_block *b;
        sn_cost cost;
        int count, part[32];
        uint8_t flags[32];
        float logits[20], meta[20];
        rig_open(&r, space_load("fashion"), "cpu");
        ck_assert_int_le(sn_net_units(r.net), 32);
        sr_arch_largest(sn_space_choices(r.sp), r.a);
        ck_assert_ok(sn_net_blocks(r.net, r.a, &b, &count, NULL));
        ck_assert_int_eq(count, 8); /* stem, 3 + 3, head */
        ck_assert_ok(sn_space_cost(r.sp, r.a, &cost, NULL));
        int64_t params = 0, macs = 0;
        for (int i = 0; i < count; i++) {
            params += b[i].params;
            macs += b[i].macs;
        }
        ck_assert(params == cost.params && macs == cost.macs);
        ck_assert_str_eq(b[2].name, "stages.0.blocks.1");
        ck_assert(b[2].keeps_shape && !b[1].keeps_shape && b[2].stage == 0 && b[2].layer == 1);
        /* By cost: the best of all cuts into three, tried by hand. */
        ck_assert_ok(sn_net_cut(r.net, r.a, 3, NULL, part, NULL));
        int64_t best = INT64_MAX, got[3] = {0}, dearest = 0;
        for (int i = 1; i < count - 1; i++)
            for (int j = i + 1; j < count; j++) {
                int64_t sum[3] = {0}, most = 0;
                for (int k = 0; k < count; k++)
                    sum[(k >= i) + (k >= j)] += b[k].macs;
                for (int k = 0; k < 3; k++)
                    most = sum[k] > most ? sum[k] : most;
                best = most < best ? most : best;
            }
        for (int i = 0; i < count; i++)
            got[part[b[i].unit]] += b[i].macs;
        for (int k = 0; k < 3; k++)
            dearest = got[k] > dearest ? got[k] : dearest;
        ck_assert_int_eq(dearest, best);
        /* Where the user says; the meta model; a hybrid, of which only its part learns. */
        ck_assert_ok(sn_net_cut(r.net, r.a, 2, (const int[]){4}, part, NULL));
        ck_assert(part[b[3].unit] == 0 && part[b[4].unit] == 1 && part[b[7].unit] == 1);
        ck_assert_ok(sn_net_part_flags(r.net, r.a, part, -1, flags, NULL));
        for (int i = 0; i < count; i++)
            ck_assert_int_eq(flags[b[i].unit], b[i].keeps_shape ? SN_UNIT_SKIP : 0);
        rig_run(&r, &(sn_lower_options){.batch = 2, .mode = SN_TRAIN}, false, NULL, logits);
        rig_run(&r, &(sn_lower_options){.batch = 2, .mode = SN_TRAIN, .unit_flags = flags}, false, NULL, meta);
        ck_assert(memcmp(logits, meta, sizeof meta) != 0);
        for (int k = 0; k < 2; k++) {
            int n = 0;
            ck_assert_ok(sn_net_part_flags(r.net, r.a, part, k, flags, NULL));
            for (int i = 0; i < count; i++)
                ck_assert_int_eq(flags[b[i].unit],
                                 part[b[i].unit] == k ? 0 : SN_UNIT_FROZEN | (b[i].keeps_shape ? SN_UNIT_SKIP : 0));
            ck_assert_ok(kn_weights_zero_grads(r.w, NULL));
            rig_run(&r, &(sn_lower_options){.batch = 2, .mode = SN_TRAIN, .unit_flags = flags}, true,
                    &(wanted_part){r.net, part, k}, meta);
            for (int i = 0; i < kn_params_count(sn_net_params(r.net)); i++) {
                const kn_param_def *d = kn_params_def(sn_net_params(r.net), i);
                bool some = false;
                for (int64_t e = 0; e < d->count; e++)
                    some |= kn_weights_grads(r.w)[d->offset + e] != 0;
                ck_assert_msg(some == (part[sn_net_param_unit(r.net, KN_SET_WEIGHTS, i)] == k), "%s in H_%d", d->name,
                              k);
                n += some;
            }
            ck_assert_int_gt(n, 0);
        }
        /* A unit that reshapes cannot be left out; nonsense cuts say what is allowed. */
        sn_lowered low;
        memset(flags, 0, sizeof flags);
        flags[b[1].unit] = SN_UNIT_SKIP;
        kn_graph_reset(r.g);
        ck_assert_status(
            sn_net_lower(r.net, r.a, &(sn_lower_options){.batch = 1, .unit_flags = flags}, r.g, &low, &err),
            ES_INVALID);
        ck_assert_str_eq(err.where, "stages.0.blocks.0");
        ck_assert_has(err.text, "cannot be left out");
        ck_assert_status(sn_net_cut(r.net, r.a, 9, NULL, part, &err), ES_INVALID);
        ck_assert_has(err.text, "9 parts of 8 blocks; allowed: 1 to 8");
        ck_assert_status(sn_net_cut(r.net, r.a, 3, (const int[]){4, 4}, part, &err), ES_INVALID);
        ck_assert_has(err.text, "rising numbers from 1 to 7");
        free(b);
        rig_close(&r);
    }
END_TEST

/* A subnet of 300 nodes is lowered well under 0.3 ms. */
START_TEST(lowering_is_quick)
    {
        rig r;
        sn_lowered low;
        double best = 1;
        rig_open(&r, space_load("mbconv32"), "cpu");
        sr_arch_largest(sn_space_choices(r.sp), r.a);
        for (int i = 0; i < 50; i++) {
            struct timespec a, b;
            kn_graph_reset(r.g);
            clock_gettime(CLOCK_MONOTONIC, &a);
            ck_assert_ok(sn_net_lower(r.net, r.a, &(sn_lower_options){.batch = 32, .mode = SN_TRAIN}, r.g, &low, NULL));
            clock_gettime(CLOCK_MONOTONIC, &b);
            double t = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
            best = t < best ? t : best;
        }
        printf("lowering: %zu nodes in %.3f ms\n", kn_graph_nodes(r.g), 1e3 * best);
        ck_assert_uint_ge(kn_graph_nodes(r.g), 300);
#ifndef ES_SANITIZE
        ck_assert(best < 3e-4);
#endif
        rig_close(&r);
    }
END_TEST

ES_TEST_MAIN("net", gradients_fashion, gradients_blocks, gradients_nas_bench_201, gradients_entangled_conv,
             gradients_entangled_cell, gradients_mbconv32, gradients_mbconv224, gradients_ofa, gradients_attentivenas,
             stand_alone_is_the_same, devices_agree, calibration, regularisation, resolution, blocks_and_parts,
             lowering_is_quick)
