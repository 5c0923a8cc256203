/* Language models: the space of transformers against the benchmark's twin, its outputs against a forward pass written from the paper, windows of tokens, and a training that
 * learns a text. */
#include <math.h>

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"
#include "supernet/data/tokens.h"
#include "supernet/space/template.h"
#include "supernet/train/methods.h"
#include "tests/check_main.h"
#include "tests/supernet/make.h"
#include "tests/supernet/spaces.h"

static int field(const sn_space *sp, const sr_arch *a, const char *name)
{
    const sn_named *f = sn_template_find(sp, name);
    ck_assert_ptr_nonnull(f);
    return sn_field_value(&f->field, a);
}

static int layer_field(const sn_space *sp, const sr_arch *a, int layer, const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "stages.0.blocks.%d.%s", layer, name);
    return field(sp, a, text);
}

/* What torch_supernet.py's GPTSupernet slices: tables and positions, per layer three projections of min(h, w / 64) heads and one back, two norms, two of f w. */
static int64_t twin_parameters(const sn_space *sp, const sr_arch *a)
{
    int64_t w = field(sp, a, "stem.width"), sum = (256 + 1024) * w + w;
    for (int i = 0; i < field(sp, a, "stages.0.depth"); i++) {
        int64_t h = layer_field(sp, a, i, "heads"), heads = h < w / 64 ? h : w / 64;
        sum += 4 * heads * 64 * w + 2 * w + 2 * layer_field(sp, a, i, "expand") * w * w;
    }
    return sum;
}

START_TEST(parameters_are_the_twins)
    {
        sn_space *sp = space_load("gpt");
        es_error err = {0};
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        es_rng r = es_rng_make(3, ES_USE_TEST, 0);
        sn_cost c;
        for (int i = 0; i < 50; i++) {
            sr_arch_random(sn_space_choices(sp), &r, a);
            ck_assert_ok_err(sn_space_cost(sp, a, &c, &err), &err);
            ck_assert_int_eq(c.params, twin_parameters(sp, a));
            char *text = sn_arch_format(sp, a);
            ck_assert_ok_err(sn_arch_parse(sp, text, a, &err), &err);
            free(text);
        }
        /* sum(p.numel()) of the twin: 85,936,896. Its smallest: 256 + 1024 + 1 rows of 384, six layers of 4 * 384 * 384 + 2 * 384 + 2 * 2 * 384 * 384. */
        sr_arch_largest(sn_space_choices(sp), a);
        ck_assert_ok_err(sn_space_cost(sp, a, &c, &err), &err);
        ck_assert_int_eq(c.params, 85936896);
        /* per token 12 (4 768^2 + 8 768^2) + 256 768, and 12 attentions of 1024 1025 / 2 pairs, 64 12 wide, twice */
        ck_assert_int_eq(c.macs, 1024 * (12 * 12 * 768LL * 768 + 256 * 768) + 12 * 1024LL * 1025 * 768);
        sr_arch_smallest(sn_space_choices(sp), a);
        ck_assert_ok_err(sn_space_cost(sp, a, &c, &err), &err);
        ck_assert_int_eq(c.params, 1281 * 384 + 6 * (8 * 384 * 384 + 2 * 384));
        free(a);
        sn_space_destroy(&sp);
    }
END_TEST

static const char *const SMALL =
    "input: {tokens: 7, vocabulary: 11}\n"
    "stem: {width: [8, 12]}\n"
    "stages: [{block: transformer, depth: [1, 2, 3], heads: [1, 2, 3], expand: [1, 2], head_dim: 4}]\n";

/* --- a forward pass of one window in plain loops, from the definition --- */

typedef struct naive {
    const kn_params *p;
    const float *v;
    int t, w;
} naive;

/* Element [r][c] of a parameter by name. */
static double weight(const naive *n, const char *name, int r, int c)
{
    kn_param id;
    ck_assert_msg(kn_params_find(n->p, name, &id), "no parameter %s", name);
    const kn_param_def *d = kn_params_def(n->p, id);
    return (double)n->v[d->offset + (d->shape.rank == 1 ? c : (int64_t)r * d->shape.d[1] + c)];
}

static void naive_norm(const naive *n, const char *name, const double *x, double *y)
{
    for (int i = 0; i < n->t; i++) {
        double mean = 0, var = 0;
        for (int c = 0; c < n->w; c++)
            mean += x[i * n->w + c] / n->w;
        for (int c = 0; c < n->w; c++)
            var += (x[i * n->w + c] - mean) * (x[i * n->w + c] - mean) / n->w;
        for (int c = 0; c < n->w; c++)
            y[i * n->w + c] = (x[i * n->w + c] - mean) / sqrt(var + 1e-5) * weight(n, name, 0, c);
    }
}

static void naive_linear(const naive *n, const char *name, const double *x, int in, int out, double *y)
{
    for (int i = 0; i < n->t; i++)
        for (int o = 0; o < out; o++) {
            y[i * out + o] = 0;
            for (int c = 0; c < in; c++)
                y[i * out + o] += x[i * in + c] * weight(n, name, o, c);
        }
}

/* A row of qkv is each head's query, key and value. */
static void naive_attention(const naive *n, int heads, int dim, const double *qkv, double *y)
{
    int ld = heads * dim;
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < n->t; i++) {
            const double *q = qkv + (size_t)(3 * h * dim), *k = q + dim, *v = k + dim;
            double p[16], sum = 0;
            for (int j = 0; j <= i; j++) {
                double s = 0;
                for (int e = 0; e < dim; e++)
                    s += q[3 * i * ld + e] * k[3 * j * ld + e];
                p[j] = exp(s / sqrt(dim));
                sum += p[j];
            }
            for (int e = 0; e < dim; e++) {
                y[i * ld + h * dim + e] = 0;
                for (int j = 0; j <= i; j++)
                    y[i * ld + h * dim + e] += p[j] / sum * v[3 * j * ld + e];
            }
        }
}

static void naive_layer(const naive *n, int layer, int heads, int expand, double *x)
{
    enum { MOST = 7 * 24 };
    double y[MOST], qkv[3 * MOST], a[MOST];
    char name[64];
    int dim = 4, in = heads * dim;
#define NAME(what) (snprintf(name, sizeof name, "stages.0.blocks.%d." what, layer), name)
    naive_norm(n, NAME("norm_1.gamma"), x, y);
    naive_linear(n, NAME("qkv.weight"), y, n->w, 3 * in, qkv);
    naive_attention(n, heads, dim, qkv, a);
    naive_linear(n, NAME("out.weight"), a, in, n->w, y);
    for (int i = 0; i < n->t * n->w; i++)
        x[i] += y[i];
    naive_norm(n, NAME("norm_2.gamma"), x, y);
    naive_linear(n, NAME("up.weight"), y, n->w, expand * n->w, a);
    for (int i = 0; i < n->t * n->w * expand; i++)
        a[i] = 0.5 * a[i] * (1 + erf(a[i] / sqrt(2)));
    naive_linear(n, NAME("down.weight"), a, expand * n->w, n->w, y);
#undef NAME
    for (int i = 0; i < n->t * n->w; i++)
        x[i] += y[i];
}

static void naive_forward(const sn_space *sp, const sr_arch *a, naive *n, const int32_t *tokens, double *logits)
{
    double x[7 * 12], y[7 * 12];
    n->t = 7;
    n->w = field(sp, a, "stem.width");
    for (int i = 0; i < n->t; i++)
        for (int c = 0; c < n->w; c++)
            x[i * n->w + c] =
                weight(n, "stem.embedding.table", tokens[i], c) + weight(n, "stem.embedding.position", i, c);
    for (int l = 0; l < field(sp, a, "stages.0.depth"); l++) {
        int heads = layer_field(sp, a, l, "heads"), most = n->w / 4;
        naive_layer(n, l, heads < most ? heads : most, layer_field(sp, a, l, "expand"), x);
    }
    naive_norm(n, "head.norm.gamma", x, y);
    naive_linear(n, "stem.embedding.table", y, n->w, 11, logits);
}

START_TEST(outputs_are_those_of_the_definition)
    {
        enum { BATCH = 3 };
        sn_space *sp = space_parse(SMALL);
        sn_net *net;
        kn_device *dev;
        kn_weights *w;
        kn_workspace *ws;
        kn_plan *plan = NULL;
        es_error err = {0};
        ck_assert_ok_err(sn_net_new(sp, &net, &err), &err);
        ck_assert_int_eq(kn_params_count(sn_net_stats(net)), 0);
        ck_assert_ok_err(kn_device_open("cpu:1", &dev, &err), &err);
        ck_assert_ok_err(kn_weights_new(dev, sn_net_params(net), 0, &w, &err), &err);
        ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
        ck_assert_ok_err(kn_weights_init(w, 5, &err), &err);
        int64_t count = kn_params_elements(sn_net_params(net));
        float *v = kn_weights_values(w);
        es_rng r = es_rng_make(9, ES_USE_TEST, 0);
        for (int64_t i = 0; i < count; i++) /* also what starts at 0, so that every part counts */
            v[i] = v[i] == 1 ? 0.5f + es_rng_uniform(&r) : 0.4f * es_rng_normal(&r);
        const kn_params *sets[KN_SETS] = {sn_net_params(net), sn_net_stats(net)};
        kn_graph *g = kn_graph_new(sets);
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        int32_t tokens[BATCH * 7];
        float logits[BATCH * 7 * 11];
        for (int trial = 0; trial < 12; trial++) {
            sn_lowered low;
            sr_arch_random(sn_space_choices(sp), &r, a);
            for (int i = 0; i < BATCH * 7; i++)
                tokens[i] = (int32_t)es_rng_below(&r, 11);
            kn_graph_reset(g);
            sn_lower_options o = {.batch = BATCH, .mode = SN_INFER};
            ck_assert_ok_err(sn_net_lower(net, a, &o, g, &low, &err), &err);
            kn_output(g, 0, low.logits);
            ck_assert_ok_err(kn_plan_make(dev, g, &(kn_plan_options){0}, &plan, &err), &err);
            ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
            kn_binding b = {.in = {tokens}, .out = {logits}, .weights = {w}};
            ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
            for (int s = 0; s < BATCH; s++) {
                double want[7 * 11];
                naive n = {.p = sn_net_params(net), .v = v};
                naive_forward(sp, a, &n, tokens + 7 * s, want);
                for (int i = 0; i < 7 * 11; i++)
                    ck_assert_double_eq_tol((double)logits[s * 77 + i], want[i], 1e-4 * (1 + fabs(want[i])));
            }
        }
        free(a);
        kn_plan_destroy(&plan);
        kn_graph_destroy(&g);
        kn_workspace_destroy(&ws);
        kn_weights_destroy(&w);
        kn_device_close(&dev);
        sn_net_destroy(&net);
        sn_space_destroy(&sp);
    }
END_TEST

/* The mean cross-entropy of a batch as the net computes it, and (grads) its gradient added to the weights'. */
static double net_loss(const sn_net *net, const sr_arch *a, kn_graph *g, kn_weights *w, kn_workspace *ws, bool grads)
{
    enum { BATCH = 2, ROWS = 7 * BATCH };
    static const int32_t tokens[ROWS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7},
                         next[ROWS] = {1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 10};
    kn_plan *plan = NULL;
    es_error err = {0};
    sn_lowered low;
    float loss = 0;
    kn_graph_reset(g);
    ck_assert_ok_err(sn_net_lower(net, a, &(sn_lower_options){.batch = BATCH, .mode = SN_TRAIN}, g, &low, &err), &err);
    kn_val l = kn_reduce_mean(g, kn_cross_entropy(g, low.logits, kn_input(g, SN_IN_LABELS, KN_SHAPE(ROWS), KN_I32), 0),
                              KN_AXES_ALL);
    kn_output(g, 0, l);
    if (grads)
        ck_assert_ok_err(kn_grad_params(g, l, NULL, NULL, &err), &err);
    ck_assert_ok_err(kn_plan_make(kn_weights_device(w), g, &(kn_plan_options){0}, &plan, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    kn_binding b = {.in = {tokens, next}, .out = {&loss}, .weights = {w}};
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    kn_plan_destroy(&plan);
    return (double)loss;
}

/* Along random directions, for random architectures: the gradient is the slope, everything that a subnet uses at once; and nothing outside its slices is touched. */
START_TEST(gradients_are_slopes)
    {
        sn_space *sp = space_parse(SMALL);
        sn_net *net;
        kn_device *dev;
        kn_weights *w;
        kn_workspace *ws;
        es_error err = {0};
        ck_assert_ok_err(sn_net_new(sp, &net, &err), &err);
        ck_assert_ok_err(kn_device_open("cpu:1", &dev, &err), &err);
        ck_assert_ok_err(kn_weights_new(dev, sn_net_params(net), KN_WITH_GRAD, &w, &err), &err);
        ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
        const int64_t count = kn_params_elements(sn_net_params(net));
        float *v = kn_weights_values(w), *d = kn_weights_grads(w), *start = calloc((size_t)count, sizeof *start);
        ck_assert_ok_err(kn_weights_init(w, 5, &err), &err);
        es_rng r = es_rng_make(10, ES_USE_TEST, 0);
        for (int64_t i = 0; i < count; i++)
            start[i] = v[i] == 1 ? 0.5f + es_rng_uniform(&r) : 0.4f * es_rng_normal(&r);
        const kn_params *sets[KN_SETS] = {sn_net_params(net), sn_net_stats(net)};
        kn_graph *g = kn_graph_new(sets);
        sr_arch *a = sr_arch_new(sn_space_choices(sp));
        for (int trial = 0; trial < 24; trial++) {
            const float step = 1.25e-4f; /* one of these losses is so curved that 1e-3 sees another slope */
            double slope = 0, side[2];
            float *direction = calloc((size_t)count, sizeof *direction);
            sr_arch_random(sn_space_choices(sp), &r, a);
            memcpy(v, start, (size_t)count * sizeof *v);
            ck_assert_ok_err(kn_weights_zero_grads(w, &err), &err);
            net_loss(net, a, g, w, ws, true);
            for (int64_t i = 0; i < count; i++) {
                direction[i] =
                    es_rng_normal(&r) * (trial % 2 ? 1.0f : d[i] != 0); /* odd: also what the subnet does not use */
                slope += (double)direction[i] * (double)d[i];
            }
            for (int k = 0; k < 2; k++) {
                for (int64_t i = 0; i < count; i++)
                    v[i] = start[i] + (k ? step : -step) * direction[i];
                side[k] = net_loss(net, a, g, w, ws, false);
            }
            double measured = (side[1] - side[0]) / (2 * (double)step);
            ck_assert_msg(fabs(measured - slope) <= 0.02 * fabs(slope) + 0.02, "trial %d: slope %g, gradient %g", trial,
                          measured, slope);
            free(direction);
        }
        free(a);
        free(start);
        kn_graph_destroy(&g);
        kn_workspace_destroy(&ws);
        kn_weights_destroy(&w);
        kn_device_close(&dev);
        sn_net_destroy(&net);
        sn_space_destroy(&sp);
    }
END_TEST

START_TEST(spaces_of_tokens_say_what_is_wrong)
    {
        static const struct {
            const char *text, *says;
        } cases[] = {
            {"input: {tokens: 8}\nstem: {width: 8}\nstages: []\n", "`vocabulary` is missing"},
            {"input: {tokens: 8, vocabulary: 4}\nstages: []\n", "`stem` is missing"},
            {"input: {tokens: 8, vocabulary: 4}\nstem: {width: 8}\nstages: [{block: conv, width: 8}]\n",
             "conv is a block for images"},
            {"input: 8x8x1\nstages: [{block: transformer, heads: 1, expand: 2}]\nhead: {classes: 4}\n",
             "transformer is a block for tokens"},
            {"input: {tokens: 8, vocabulary: 4}\nstem: {width: 8}\nstages: [{block: transformer, heads: 1}]\n",
             "`expand` is missing"},
            {"input: {tokens: 8, vocabulary: 4}\nstem: {width: 8}\nstages: [{block: transformer, heads: 1, expand: "
             "1}]\nhead: {classes: 4}\n",
             "leave `head` out"},
            {"input: {tokens: 8, vocabulary: 4}\nstem: {width: [8, 16]}\nstages: [{block: transformer, heads: 1, "
             "expand: 1, head_dim: 12}]\n",
             "heads of 12 are wider than the narrowest net; allowed: 1 to 8"},
            {"input: {tokens: 8, vocabulary: 4}\nresolution: [4, 8]\nstem: {width: 8}\nstages: []\n", "no resolution"},
        };
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            es_yaml *doc;
            sn_space *sp = NULL;
            es_error err = {0};
            ck_assert_ok_err(es_yaml_parse("s.yaml", cases[i].text, strlen(cases[i].text), &doc, &err), &err);
            ck_assert_msg(sn_space_read(es_yaml_root(doc), &sp, &err) != ES_OK, "%s", cases[i].text);
            ck_assert_has(err.text, cases[i].says);
            es_yaml_destroy(&doc);
        }
    }
END_TEST

START_TEST(token_files_are_read_and_checked)
    {
        static const uint16_t raw[] = {3, 500, 7, 11};
        static const char npy[] =
            "\x93NUMPY\x01\x00\x46\x00{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }            \n";
        es_error err = {0};
        sn_tokens t;
        ck_assert_ok_err(sn_tokens_parse("a.txt", "hej", 3, true, 1, 256, &t, &err), &err);
        ck_assert(t.n == 3 && sn_token(&t, 0) == 'h' && sn_token(&t, 2) == 'j');
        sn_tokens_free(&t);
        ck_assert_ok_err(sn_tokens_parse("a.bin", raw, sizeof raw, false, 2, 501, &t, &err), &err);
        ck_assert(t.n == 4 && sn_token(&t, 1) == 500 && sn_token(&t, 3) == 11);
        sn_tokens_free(&t);
        uint8_t file[80 + sizeof raw];
        memcpy(file, npy, 80);
        memcpy(file + 80, raw, sizeof raw);
        ck_assert_ok_err(sn_tokens_parse("a.npy", file, sizeof file, false, 1, 501, &t, &err), &err);
        ck_assert(t.n == 4 && t.item == 2 && sn_token(&t, 1) == 500);
        sn_tokens_free(&t);
        ck_assert_status(sn_tokens_parse("a.bin", raw, sizeof raw, false, 2, 500, &t, &err), ES_INVALID);
        ck_assert_has(err.text, "token 500 at position 1 is out of range: the space's vocabulary has 500 (0 to 499)");
        ck_assert_status(sn_tokens_parse("a.bin", raw, 7, false, 2, 500, &t, &err), ES_INVALID);
        ck_assert_has(err.text, "7 bytes are no whole number of tokens of 2 bytes");
        ck_assert_status(sn_tokens_parse("a.txt", "", 0, true, 1, 256, &t, &err), ES_INVALID);
        ck_assert_has(err.text, "empty");
        sn_data_config c = {.format = SN_DATA_TEXT, .validation = -1};
        sn_tokens split[SN_SPLITS] = {0};
        snprintf(c.train, sizeof c.train, "%s", es_test_join(es_test_dir(), "short.txt"));
        make_file(c.train, "ten bytes.", 10);
        ck_assert_status(sn_tokens_open(&c, 8, 256, split, &err), ES_INVALID); /* a tenth: one token */
        ck_assert_has(err.text, "one window of the space needs 8, and the one after it");
        sn_tokens_free(&split[SN_TRAIN_SPLIT]);
        snprintf(c.train, sizeof c.train, "/no/such/text");
        ck_assert_status(sn_tokens_open(&c, 8, 256, split, &err), ES_NOT_FOUND);
    }
END_TEST

/* Windows: x and its successors, side by side, at an offset that changes with the epoch and nothing else; no token of the validation split is trained on. */
START_TEST(windows_are_a_function_of_seed_and_epoch)
    {
        enum { N = 1000, T = 16 };
        uint16_t ids[N];
        for (int i = 0; i < N; i++)
            ids[i] = (uint16_t)i;
        sn_data_config c = {.format = SN_DATA_TOKENS, .token_bytes = 2, .validation = 100};
        sn_expect e = {.classes = N, .tokens = T};
        es_error err = {0};
        sn_data *d = NULL;
        kn_device *dev;
        sn_loader *l, *other;
        snprintf(c.train, sizeof c.train, "%s", es_test_join(es_test_dir(), "ids.bin"));
        make_file(c.train, ids, sizeof ids);
        ck_assert_ok_err(sn_data_open(&c, 1, &e, &d, &err), &err);
        ck_assert_ok_err(kn_device_open("cpu:1", &dev, &err), &err);
        ck_assert_int_eq(sn_data_count(d, SN_TRAIN_SPLIT), 899 / T - 1);
        ck_assert_int_eq(sn_data_count(d, SN_VALIDATION_SPLIT), 99 / T);
        ck_assert_ok_err(sn_loader_new(d, &(sn_augment_config){0}, 7, 5, dev, &l, &err), &err);
        ck_assert_ok_err(sn_loader_new(d, &(sn_augment_config){0}, 7, 5, dev, &other, &err), &err);
        int offsets = 0, last = -1;
        for (uint64_t epoch = 0; epoch < 6; epoch++) {
            bool seen[N] = {0};
            int first = N;
            for (uint64_t i = 0; i < 11; i++) {
                sn_batch b;
                ck_assert_ok_err(sn_loader_train(l, epoch * 11 + i, &b, &err), &err);
                const int32_t *x = b.images;
                for (int k = 0; k < 5 * T; k++) {
                    ck_assert_int_eq(b.labels[k], x[k] + 1);
                    ck_assert(k % T == 0 || x[k] == x[k - 1] + 1);
                    ck_assert(x[k] < 899 && !seen[x[k]]);
                    seen[x[k]] = true;
                    first = x[k] < first ? x[k] : first;
                }
            }
            offsets += first % T != last;
            last = first % T;
        }
        ck_assert_int_gt(offsets, 2);
        sn_batch a, b;
        ck_assert_ok_err(sn_loader_train(l, 40, &a, &err), &err);
        ck_assert_ok_err(sn_loader_train(other, 40, &b, &err), &err); /* asked for out of turn: the same */
        ck_assert_mem_eq(a.images, b.images, 5 * T * sizeof(int32_t));
        ck_assert_ok_err(sn_loader_eval(l, SN_VALIDATION_SPLIT, 1, 2, &a, &err), &err);
        ck_assert_int_eq(((const int32_t *)a.images)[0], 900 + T);
        sn_loader_destroy(&l);
        sn_loader_destroy(&other);
        sn_data_close(&d);
        kn_device_close(&dev);
    }
END_TEST

static const char *const SEARCH =
    "task: {kind: language-model, data: {format: text, train: train.txt, validation: 400, test: test.txt}, context: "
    "16}\n"
    "space:\n"
    "  input: {tokens: 16, vocabulary: 128}\n"
    "  stem: {width: [16, 32]}\n"
    "  stages: [{block: transformer, depth: [1, 2], heads: [1, 2], expand: [2, 3], head_dim: 16}]\n"
    "supernet: {method: sandwich, random_subnets: 0, epochs: 30, batch: 16, optimizer: {kind: adamw, lr: 0.003, "
    "clip_norm: 1}}\n";

static void write_text(const char *path, uint64_t seed, int words)
{
    static const char *const vocabulary[] = {"lemon ", "pear ", "quince ", "medlar ", "cherry ", "apricot "};
    es_rng r = es_rng_make(seed, ES_USE_TEST, 1);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < words; i++)
        fputs(vocabulary[es_rng_below(&r, 6)], f);
    fclose(f);
}

/* Six words drawn at random, about 7 letters each: log2(6) / 7 bits a letter are needed, so a model that has learned the words is near 0.4, and uniform over 128
 * symbols is 7. Subnets that were hardly ever trained alone are scored too. */
START_TEST(learns_a_text)
    {
        const char *dir = es_test_dir();
        es_error err = {0};
        sn_search_file *f = NULL;
        kn_device *dev;
        sn_trainer *t = NULL;
        sn_report report;
        sn_evaluation e;
        write_text(es_test_join(dir, "train.txt"), 1, 1000);
        write_text(es_test_join(dir, "test.txt"), 2, 60);
        ck_assert_ok_err(sn_search_file_parse("s.yaml", SEARCH, strlen(SEARCH), dir, &f, &err), &err);
        ck_assert(f->supernet.distill == SN_DISTILL_NONE);
        ck_assert(f->task == SN_TASK_LANGUAGE && f->objective[0].measure == SN_MEASURE_BITS &&
                  !f->objective[0].maximise);
        ck_assert_ok_err(kn_device_open("cpu:1", &dev, &err), &err);
        ck_assert_ok_err(sn_trainer_new(f, dev, &t, &err), &err);
        ck_assert_ok_err(sn_evaluate(t, t->largest, SN_TEST_SPLIT, 0, &e, &err), &err);
        ck_assert_double_eq_tol(e.loss / log(2), 7, 0.5);
        ck_assert_ok_err(sn_trainer_run(t, UINT64_MAX, NULL, &report, &err), &err);
        sr_arch_random(sn_space_choices(f->space), &(es_rng){0}, t->sampled);
        const sr_arch *archs[] = {t->largest, t->smallest, t->sampled};
        for (int i = 0; i < 3; i++) {
            ck_assert_ok_err(sn_evaluate(t, archs[i], SN_TEST_SPLIT, 0, &e, &err), &err);
            ck_assert_uint_eq(e.samples % 16, 0);
            ck_assert_uint_gt(e.samples, 300);
            ck_assert_msg(e.loss / log(2) < 1.0, "%d: %g bits", i, e.loss / log(2));
            ck_assert_uint_gt(e.correct, e.samples * 7 / 10);
        }
        sn_trainer_destroy(&t);
        kn_device_close(&dev);
        sn_search_file_destroy(&f);
    }
END_TEST

START_TEST(search_files_say_what_is_wrong)
    {
        static const struct {
            const char *from, *to, *says;
        } cases[] = {
            {"context: 16", "context: 32", "the space reads windows of 16 tokens"},
            {"kind: language-model", "kind: image-classification", "unknown field \"context\""},
            {"format: text", "format: idx", "\"idx\""},
            {"format: text", "format: text, type: uint16", "`type` is for files of token ids"},
            {"validation: 400", "validation: 0", "the objective `bits_per_character` needs some"},
            {"  input: {tokens: 16, vocabulary: 128}\n"
             "  stem: {width: [16, 32]}\n"
             "  stages: [{block: transformer, depth: [1, 2], heads: [1, 2], expand: [2, 3], head_dim: 16}]\n",
             "  input: 8x8x1\n  stages: [{block: conv, width: 4}]\n  head: {classes: 4}\n",
             "the task has tokens, but the space's input is images"},
        };
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            char text[2048];
            const char *at = strstr(SEARCH, cases[i].from);
            es_error err = {0};
            sn_search_file *f = NULL;
            ck_assert_ptr_nonnull(at);
            snprintf(text, sizeof text, "%.*s%s%s", (int)(at - SEARCH), SEARCH, cases[i].to,
                     at + strlen(cases[i].from));
            ck_assert_msg(sn_search_file_parse("s.yaml", text, strlen(text), "/", &f, &err) != ES_OK, "%s", text);
            ck_assert_has(err.text, cases[i].says);
        }
    }
END_TEST

ES_TEST_MAIN("language", parameters_are_the_twins, outputs_are_those_of_the_definition, gradients_are_slopes,
             spaces_of_tokens_say_what_is_wrong, token_files_are_read_and_checked,
             windows_are_a_function_of_seed_and_epoch, learns_a_text, search_files_say_what_is_wrong)
