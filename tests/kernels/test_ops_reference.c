/* What the reference kernels compute, against numbers worked out by hand or by another route; expansions against the fused ops; messages. */
#include "tests/check_main.h"

#include <math.h>

#include "kernels/graph/autodiff.h"
#include "tests/kernels/op_cases.h"

#define DIMS(...)                                                                                   \
    {                                                                                               \
        .rank = (int32_t)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), .d = { __VA_ARGS__ } \
    }
#define IN(...)                                      \
    {                                                \
        .kind = OP_FIXED, .shape = DIMS(__VA_ARGS__) \
    }
#define LABELS(n, ...)                                              \
    {                                                               \
        .kind = OP_LABELS, .classes = n, .shape = DIMS(__VA_ARGS__) \
    }
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

typedef struct example {
    op_case c;
    float in[3][32];
    int32_t labels[8]; /* for the one input that is labels */
    float out[32];
} example;

#define B(name) static kn_val b_##name(kn_graph *g, const kn_val *in, const op_case *c)
B(conv2d) { return kn_conv2d(g, in[0], in[1], c->i[0], c->i[1], c->i[2], c->i[3]); }
B(depthwise) { return kn_depthwise(g, in[0], in[1], c->i[0], c->i[1], c->i[2]); }
B(softmax) { return KN_EMIT(g, SOFTMAX, &(kn_attr){.causal = c->i[0] != 0}, in[0]); }
B(log_softmax) { return (void)c, kn_log_softmax(g, in[0]); }
B(cross_entropy) { return kn_cross_entropy(g, in[0], in[1], c->f[0]); }
B(soft_cross_entropy) { return (void)c, kn_soft_cross_entropy(g, in[0], in[1]); }
B(correct) { return (void)c, kn_correct(g, in[0], in[1]); }
B(batch_norm) { return kn_batch_norm(g, in[0], in[1], in[2], c->f[0], (kn_act)c->i[0]).y; }
B(batch_norm_mean) { return kn_batch_norm(g, in[0], in[1], in[2], c->f[0], KN_ACT_NONE).mean; }
B(batch_norm_var) { return kn_batch_norm(g, in[0], in[1], in[2], c->f[0], KN_ACT_NONE).var; }
B(layer_norm) { return kn_layer_norm(g, in[0], in[1], in[2], c->f[0]); }
B(max_pool) { return kn_max_pool(g, in[0], c->i[0], c->i[1], c->i[2]); }
B(avg_pool) { return kn_avg_pool(g, in[0], c->i[0], c->i[1], c->i[2], c->i[3] != 0); }
B(upsample) { return kn_upsample(g, in[0], c->i[0]); }
B(embedding) { return (void)c, kn_embedding(g, in[1], in[0]); }
B(attention) { return kn_attention(g, in[0], in[1], in[2], c->f[0], c->i[0] != 0); }
B(self_attention) { return kn_self_attention(g, in[0], c->f[0], c->i[0] != 0); }
B(alpha_divergence) { return kn_alpha_divergence(g, in[0], in[1], c->f[0], c->f[1], c->f[2]); }

B(alpha_gradient)
{
    kn_val one = kn_constant(g, KN_SHAPE(kn_shape_of(g, in[0]).d[0]), 1.0f);
    kn_attr a = {.alpha = c->f[0], .beta = c->f[1], .clip = c->f[2]};
    return KN_EMIT(g, ALPHA_DIVERGENCE_GRAD, &a, one, in[0], in[1]);
}

#define LN2 0.69314718f
#define LN3 1.09861229f
/* clang-format off */
static const example examples[] = {
    /* 1 2 / 3 4 under a 2x2 kernel of 1, 10 / 100, 1000, padded by one: all nine overlaps */
    {{"conv2d", b_conv2d, {IN(1, 2, 2, 1), IN(1, 2, 2, 1)}, .i = {1, 1, 1, 1}}, {{1, 2, 3, 4}, {1, 10, 100, 1000}}, {0},
     {1000, 2100, 200, 3010, 4321, 402, 30, 43, 4}},
    {{"conv2d stride 2", b_conv2d, {IN(1, 2, 2, 1), IN(1, 2, 2, 1)}, .i = {2, 1, 1, 1}}, {{1, 2, 3, 4}, {1, 10, 100, 1000}}, {0},
     {1000, 200, 30, 4}},
    /* two outputs from two inputs: w is [out][1][1][in] */
    {{"conv2d 1x1", b_conv2d, {IN(1, 1, 2, 2), IN(2, 1, 1, 2)}, .i = {1, 0, 1, 1}}, {{1, 2, 3, 4}, {1, 10, 100, 1000}}, {0}, {21, 2100, 43, 4300}},
    {{"conv2d groups", b_conv2d, {IN(1, 1, 2, 2), IN(2, 1, 1, 1)}, .i = {1, 0, 2, 1}}, {{1, 2, 3, 4}, {10, 100}}, {0}, {10, 200, 30, 400}},
    {{"conv2d dilated", b_conv2d, {IN(1, 1, 5, 1), IN(1, 1, 2, 1)}, .i = {1, 0, 1, 3}}, {{1, 2, 3, 4, 5}, {1, 10}}, {0}, {41, 52}},
    {{"depthwise", b_depthwise, {IN(1, 1, 3, 2), IN(1, 2, 2)}, .i = {1, 0, 1}}, {{1, 2, 3, 4, 5, 6}, {1, 10, 100, 1000}}, {0},
     {301, 4020, 503, 6040}},
    {{"softmax", b_softmax, {IN(2, 3)}}, {{0, LN2, LN3, 1000, 1000, -1000}}, {0}, {1.0f / 6, 1.0f / 3, 0.5f, 0.5f, 0.5f, 0}},
    {{"softmax causal", b_softmax, {IN(2, 3)}, .i = {1}}, {{0, LN3, 99, 0, LN2, LN3}}, {0}, {0.25f, 0.75f, 0, 1.0f / 6, 1.0f / 3, 0.5f}},
    {{"log_softmax", b_log_softmax, {IN(1, 3)}}, {{1e4f, 1e4f + LN2 * 0, -1e4f}}, {0}, {-LN2, -LN2, -2e4f - LN2}},
    {{"cross_entropy", b_cross_entropy, {IN(2, 3), LABELS(3, 2)}}, {{0, LN2, LN3, 500, 0, 0}}, {1, 1}, {LN3, 500}},
    /* targets 0.1 / 3 and 0.9 + 0.1 / 3; log probabilities ln(1/6), ln(1/3), ln(1/2) */
    {{"cross_entropy smoothed", b_cross_entropy, {IN(1, 3), LABELS(3, 1)}, .f = {0.1f}}, {{0, LN2, LN3}}, {2},
     {0.9f * LN2 + 0.1f / 3 * (LN2 + LN3 + LN3 + LN2)}},
    {{"soft_cross_entropy", b_soft_cross_entropy, {IN(1, 3), IN(1, 3)}}, {{0, LN2, LN3}, {0.5f, 0.25f, 0.25f}}, {0},
     {0.5f * (LN2 + LN3) + 0.25f * LN3 + 0.25f * LN2}},
    {{"correct", b_correct, {IN(3, 3), LABELS(3, 3)}}, {{1, 5, 5, 7, 2, 3, 1, 2, 3}}, {1, 0, 0}, {1, 1, 0}},
    /* mean 3, variance 2 and mean 0, variance 1; eps such that the roots are 2 and sqrt 3 */
    {{"batch_norm", b_batch_norm, {IN(2, 1, 1, 2), IN(2), IN(2)}, .f = {3.0f}}, {{2, 1, 4, -1}, {2, 4}, {10, 20}}, {0}, {9, 22, 11, 18}},
    {{"batch_norm relu", b_batch_norm, {IN(2, 1), IN(1), IN(1)}, .i = {KN_ACT_RELU}, .f = {3.0f}}, {{2, 4}, {4}, {1}}, {0}, {0, 3}},
    {{"batch_norm mean", b_batch_norm_mean, {IN(3, 2)}, .f = {1}}, {{1, 2, 3, 4, 8, 12}}, {0}, {4, 6}},
    {{"batch_norm var", b_batch_norm_var, {IN(3, 2)}, .f = {1}}, {{1, 2, 3, 4, 8, 12}}, {0}, {26.0f / 3, 56.0f / 3}},
    {{"layer_norm", b_layer_norm, {IN(2, 2), IN(2), IN(2)}, .f = {3.0f}}, {{2, 4, 7, 5}, {2, 4}, {10, 20}}, {0}, {9, 22, 11, 18}},
    {{"max_pool", b_max_pool, {IN(1, 3, 3, 1)}, .i = {3, 2, 1}}, {{-1, -2, -3, -4, -5, -6, -7, -8, -9}}, {0}, {-1, -2, -4, -5}},
    {{"avg_pool", b_avg_pool, {IN(1, 3, 3, 1)}, .i = {3, 2, 1, 0}}, {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, {0}, {3, 4, 6, 7}},
    {{"avg_pool with padding", b_avg_pool, {IN(1, 3, 3, 1)}, .i = {3, 2, 1, 1}}, {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, {0},
     {12.0f / 9, 16.0f / 9, 24.0f / 9, 28.0f / 9}},
    {{"upsample", b_upsample, {IN(1, 1, 2, 2)}, .i = {2}}, {{1, 2, 3, 4}}, {0}, {1, 2, 1, 2, 3, 4, 3, 4, 1, 2, 1, 2, 3, 4, 3, 4}},
    {{"embedding", b_embedding, {IN(3, 2), LABELS(3, 4)}}, {{1, 2, 3, 4, 5, 6}}, {2, 0, 0, 1}, {5, 6, 1, 2, 1, 2, 3, 4}},
    /* scores 0 and ln 3: weights 1/4, 3/4 */
    {{"attention", b_attention, {IN(1, 1, 1, 1), IN(1, 2, 1, 1), IN(1, 2, 1, 2)}, .f = {0.5f}}, {{2}, {0, LN3}, {4, 8, 12, 24}}, {0}, {10, 20}},
    {{"attention causal", b_attention, {IN(1, 2, 1, 1), IN(1, 2, 1, 1), IN(1, 2, 1, 1)}, .i = {1}, .f = {1}}, {{1, 1}, {0, LN3}, {4, 8}}, {0}, {4, 7}},
    {{"self attention causal", b_self_attention, {IN(1, 2, 1, 3)}, .i = {1}, .f = {1}}, {{1, 0, 4, 1, LN3, 8}}, {0}, {4, 7}},

    /* q = 1/2 1/2, p = 1/4 3/4, r = 1/2 3/2. D_-1 = sum q (1/r - 1) / 2 = 1/6; D_1 = KL = ln(3) 3/4 - ln 2 */
    {{"alpha -1 and 1", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {-1, 1, 100}}, {{0, 0}, {0, LN3}}, {0}, {1.0f / 6}},
    {{"alpha 1 alone", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {1, 1, 100}}, {{0, 0}, {0, LN3}}, {0}, {0.75f * LN3 - LN2}},
    /* KL(q || p) = ln 2 - ln(3) / 2 */
    {{"alpha 0 alone", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {0, 0, 100}}, {{0, 0}, {0, LN3}}, {0}, {LN2 - 0.5f * LN3}},
    /* D_2 = sum q (r^2 - 1) / 2 = 1/8; with r^2 = 1/4, 9/4 clipped at 1.75 it is 0 */
    {{"alpha 2", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {2, 2, 100}}, {{0, 0}, {0, LN3}}, {0}, {0.125f}},
    {{"alpha 2 clipped", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {2, 2, 1.75f}}, {{0, 0}, {0, LN3}}, {0}, {0}},
    /* clipped gradient: rho = 1/8 + 1/2, 7/8 + 1/2, w = q rho = 5/16, 11/16, sum 1: -(w - q) */
    {{"alpha 2 clipped gradient", b_alpha_gradient, {IN(1, 2), IN(1, 2)}, .f = {2, 2, 1.75f}}, {{0, 0}, {0, LN3}}, {0}, {3.0f / 16, -3.0f / 16}},
    /* alpha 1: w = p: q - p */
    {{"alpha 1 gradient", b_alpha_gradient, {IN(1, 2), IN(1, 2)}, .f = {1, 1, 1.01f}}, {{0, 0}, {0, LN3}}, {0}, {0.25f, -0.25f}},
    /* Logits far apart: probabilities underflow, nothing is lost. q = 1 0, p = 0 1; r^-1 clips at 5 where p is 0, so D_-1 = (5 - 1) / 2 = 2 and
     * D_1 = KL = 2000; the larger one's gradient is q - p */
    {{"alpha far apart", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {-1, 1, 5}}, {{1000, -1000}, {-1000, 1000}}, {0}, {2000}},
    {{"alpha far apart, minus", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {-1, -1, 5}}, {{1000, -1000}, {-1000, 1000}}, {0}, {2}},
    {{"alpha far apart, zero", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {0, 0, 5}}, {{1000, -1000}, {-1000, 1000}}, {0}, {2000}},
    {{"alpha far apart gradient", b_alpha_gradient, {IN(1, 2), IN(1, 2)}, .f = {-1, 1, 5}}, {{1000, -1000}, {-1000, 1000}}, {0}, {1, -1}},
    {{"alpha of equals", b_alpha_gradient, {IN(1, 2), IN(1, 2)}, .f = {-1, 1, 5}}, {{3, 700}, {3, 700}}, {0}, {0, 0}},
    {{"alpha with masked classes", b_alpha_divergence, {IN(1, 2), IN(1, 2)}, .f = {-1, 1, 5}}, {{0, -INFINITY}, {0, -INFINITY}}, {0}, {0}},
};
/* clang-format on */

START_TEST(by_hand)
    {
        for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
            const example *e = &examples[i];
            op_rig *r = op_rig_new(&e->c, 0);
            for (int k = 0; k < 3; k++)
                if (e->c.in[k].kind != OP_ABSENT) {
                    kn_shape s = kn_shape_of(r->g, r->in[k]);
                    const void *from = e->c.in[k].kind == OP_LABELS ? (const void *)e->labels : e->in[k];
                    memcpy(r->slot[k], from, (size_t)kn_shape_count(&s) * sizeof(float));
                }
            op_values *v = op_values_new(r, OP_ALL);
            const kn_tensor *y = &v->t[r->y];
            for (int64_t k = 0; k < kn_shape_count(&y->shape); k++) {
                double got = ((const float *)y->p)[op_nth(y, k)], want = e->out[k];
                ck_assert_msg(fabs(got - want) <= 2e-6 * fmax(1, fabs(want)), "%s: element %lld is %.9g, expected %.9g",
                              e->c.name, (long long)k, got, want);
            }
            op_values_free(&v);
            op_rig_free(&r);
        }
    }
END_TEST

/* Every fused op equals its expansion, on the values of all cases and their gradients. */
START_TEST(expansions)
    {
        int compared[KN_OP_COUNT] = {0}, bad = 0;
        for (int i = 0; i < op_case_count; i++) {
            op_rig *r = op_rig_new(&op_cases[i], 1);
            kn_val fused[64][KN_OUT_MAX], plain[64][KN_OUT_MAX];
            kn_op op[64];
            int n = 0;
            uint32_t nodes = r->g->n_nodes;
            for (uint32_t k = 0; k < nodes && n < 64; k++) {
                const kn_node node = r->g->nodes[k];
                if (!kn_op_table[node.op].expand)
                    continue;
                memset(plain[n], 0, sizeof plain[n]);
                kn_op_table[node.op].expand(r->g, &node, plain[n]);
                for (int o = 0; o < node.n_out; o++)
                    fused[n][o] = node.out + (uint32_t)o;
                op[n++] = node.op;
            }
            es_error err = {0};
            ck_assert_ok_err(kn_graph_status(r->g, &err), &err);
            op_values *v = op_values_new(r, OP_ALL);
            for (int k = 0; k < n; k++)
                for (int o = 0; o < kn_op_table[op[k]].n_out; o++) {
                    if (plain[k][o] == KN_NONE)
                        continue;
                    const kn_tensor *a = &v->t[fused[k][o]], *b = &v->t[plain[k][o]];
                    double worst = 0, largest = 0.01;
                    ck_assert_msg(kn_shape_equal(&a->shape, &b->shape), "%s: output %d has another shape expanded",
                                  kn_op_table[op[k]].name, o);
                    for (int64_t e = 0; e < kn_shape_count(&a->shape); e++) {
                        double x = ((const float *)a->p)[op_nth(a, e)], y = ((const float *)b->p)[op_nth(b, e)];
                        worst = isnan(x - y) ? INFINITY : fmax(worst, fabs(x - y));
                        largest = fmax(largest, fabs(x));
                    }
                    compared[op[k]]++;
                    if (worst > 2e-5 * largest) {
                        fprintf(stderr, "%s: %s output %d: expanded differs by %g of %g\n", op_cases[i].name,
                                kn_op_table[op[k]].name, o, worst, largest);
                        bad++;
                    }
                }
            op_values_free(&v);
            op_rig_free(&r);
        }
        for (int o = 0; o < KN_OP_COUNT; o++)
            ck_assert_msg(!kn_op_table[o].expand || compared[o] > 0, "no case has %s", kn_op_table[o].name);
        ck_assert_int_eq(bad, 0);
    }
END_TEST

START_TEST(every_op_has_a_case)
    {
        static const kn_op sinks[] = {KN_OP_SCALAR, KN_OP_OUTPUT, KN_OP_ACCUMULATE, KN_OP_BLEND};
        int seen[KN_OP_COUNT] = {0};
        for (size_t i = 0; i < sizeof sinks / sizeof sinks[0]; i++)
            seen[sinks[i]] = 1; /* these need a run: test_plan.c */
        for (int i = 0; i < op_case_count; i++) {
            op_rig *r = op_rig_new(&op_cases[i], 2);
            for (uint32_t k = 0; k < r->g->n_nodes; k++)
                seen[r->g->nodes[k].op]++;
            op_rig_free(&r);
        }
        for (int o = 0; o < KN_OP_COUNT; o++)
            ck_assert_msg(seen[o] > 0, "no case in op_cases.c makes a node %s", kn_op_table[o].name);
    }
END_TEST

START_TEST(dropout_mask)
    {
        enum { ROWS = 64, C = 50 };
        kn_graph *g = kn_graph_new(NULL);
        float *x = malloc(sizeof *x * ROWS * 6 * C), *y = malloc(sizeof *y * ROWS * 6 * C);
        for (int i = 0; i < ROWS * 6 * C; i++)
            x[i] = 1;
        for (int kind = 0; kind < 3; kind++) {
            kn_shape s = KN_SHAPE(ROWS, 3, 2, C);
            kn_graph_reset(g);
            kn_val in = kn_input(g, 0, s, KN_F32);
            kn_val out = kind == 2 ? kn_drop_path(g, in, 0.25f, 5) : kn_dropout(g, in, 0.25f, 5, kind == 1);
            const kn_node *n = kn_node_of(g, out);
            kn_tensor t = {.dtype = KN_F32, .shape = s, .stride = {6 * C, 2 * C, C, 1}};
            kn_call call = {.a = &n->a, .n_in = 1, .n_out = 1, .in = {t}, .out = {t}, .seed = 1, .step = 2};
            call.in[0].p = x;
            call.out[0].p = y;
            ck_assert_ok(kn_op_table[KN_OP_DROPOUT].reference(&call, NULL));
            int kept = 0, groups = 0;
            for (int i = 0; i < ROWS; i++)
                for (int k = 0; k < 6 * C; k++) {
                    float v = y[i * 6 * C + k];
                    ck_assert(v == 0 || fabsf(v - 4.0f / 3) < 1e-6f);
                    if (kind == 1) /* one decision for a channel, wherever it is */
                        ck_assert_float_eq(v, y[i * 6 * C + k % C]);
                    if (kind == 2)
                        ck_assert_float_eq(v, y[i * 6 * C]);
                    bool counted = kind == 0 || (kind == 1 && k < C) || k == 0;
                    groups += counted;
                    kept += counted && v != 0;
                }
            double expected = 0.75 * groups, sigma = sqrt(0.75 * 0.25 * groups);
            ck_assert_msg(fabs(kept - expected) < 4 * sigma, "kept %d of %d", kept, groups);
        }
        ck_assert_uint_eq(kn_dropout(g, 1, 0.0f, 5, false), 1); /* rate 0: nothing is built */
        free(x);
        free(y);
        kn_graph_destroy(&g);
    }
END_TEST

/* Wrong shapes: the message names the scope, the op, what is needed, and the shapes that came. */
typedef struct mistake {
    kn_val (*build)(kn_graph *g, kn_val image, kn_val matrix, kn_val labels);
    const char *op, *says;
} mistake;

#define M(name) static kn_val m_##name(kn_graph *g, kn_val image, kn_val matrix, kn_val labels)
#define UNUSED (void)image, (void)matrix, (void)labels
#define W(...) kn_constant(g, KN_SHAPE(__VA_ARGS__), 1.0f)
M(conv_rank) { return UNUSED, kn_conv2d(g, matrix, W(4, 3, 3, 6), 1, 1, 1, 1); }
M(conv_channels) { return UNUSED, kn_conv2d(g, image, W(4, 3, 3, 5), 1, 1, 1, 1); }
M(conv_groups) { return UNUSED, kn_conv2d(g, image, W(4, 3, 3, 2), 1, 1, 3, 1); }
M(conv_stride) { return UNUSED, kn_conv2d(g, image, W(4, 3, 3, 6), 0, 1, 1, 1); }
M(conv_too_large) { return UNUSED, kn_conv2d(g, image, W(4, 7, 7, 6), 1, 0, 1, 1); }
M(depthwise_channels) { return UNUSED, kn_depthwise(g, image, W(3, 3, 5), 1, 1, 1); }
M(depthwise_rank) { return UNUSED, kn_depthwise(g, image, W(1, 3, 3, 6), 1, 1, 1); }
M(attention_shapes) { return UNUSED, kn_attention(g, image, W(2, 5, 3, 7), W(2, 5, 3, 7), 1, false); }
M(attention_causal) { return UNUSED, kn_attention(g, image, W(2, 3, 5, 6), W(2, 3, 5, 6), 1, true); }
M(self_attention_thirds) { return UNUSED, kn_self_attention(g, W(2, 5, 3, 7), 1, true); }
M(embedding_index) { return UNUSED, kn_embedding(g, matrix, matrix); }
M(bn_gamma) { return UNUSED, kn_batch_norm(g, image, W(5), KN_NONE, 1e-5f, KN_ACT_NONE).y; }
M(bn_eps) { return UNUSED, kn_batch_norm(g, image, KN_NONE, KN_NONE, 0, KN_ACT_NONE).y; }
M(ln_beta) { return UNUSED, kn_layer_norm(g, matrix, KN_NONE, W(7), 1e-5f); }
M(bni_var) { return UNUSED, kn_batch_norm_infer(g, image, KN_NONE, KN_NONE, W(6), W(1, 6), 1e-5f, KN_ACT_NONE); }
M(pool_pad) { return UNUSED, kn_max_pool(g, image, 2, 2, 2); }
M(pool_rank) { return UNUSED, kn_avg_pool(g, matrix, 2, 2, 0, true); }
M(pool_large) { return UNUSED, kn_avg_pool(g, image, 9, 1, 1, true); }
M(upsample_factor) { return UNUSED, kn_upsample(g, image, 0); }
M(ce_labels) { return UNUSED, kn_cross_entropy(g, image, labels, 0); }
M(ce_dtype) { return UNUSED, kn_cross_entropy(g, matrix, W(5), 0); }
M(ce_smoothing) { return UNUSED, kn_cross_entropy(g, matrix, labels, 1.0f); }
M(sce_shape) { return UNUSED, kn_soft_cross_entropy(g, matrix, W(6, 5)); }
M(alpha_clip) { return UNUSED, kn_alpha_divergence(g, matrix, matrix, -1, 1, 0); }
M(dropout_rate) { return UNUSED, kn_dropout(g, matrix, 1.0f, 0, false); }
M(softmax_causal) { return UNUSED, KN_EMIT(g, SOFTMAX, &(kn_attr){.causal = true}, W(4, 3)); }

static const mistake mistakes[] = {
    {m_conv_rank, "conv2d", "rank 4"},
    {m_conv_channels, "conv2d", "6 input channels"},
    {m_conv_groups, "conv2d", "multiple of 3"},
    {m_conv_stride, "conv2d", "stride 0"},
    {m_conv_too_large, "conv2d", "kernel of 7"},
    {m_depthwise_channels, "depthwise", "the same c"},
    {m_depthwise_rank, "depthwise", "[kh, kw, c]"},
    {m_attention_shapes, "attention", "[n, tq, heads, d]"},
    {m_attention_causal, "attention", "no more queries than keys"},
    {m_self_attention_thirds, "self_attention", "[n, t, heads, 3 d]"},
    {m_embedding_index, "embedding", "i32"},
    {m_bn_gamma, "batch_norm", "[6]"},
    {m_bn_eps, "batch_norm", "eps is 0"},
    {m_ln_beta, "layer_norm", "[6]"},
    {m_bni_var, "batch_norm_infer", "[6]"},
    {m_pool_pad, "max_pool", "below the kernel"},
    {m_pool_rank, "avg_pool", "[n, h, w, c]"},
    {m_pool_large, "avg_pool", "kernel of 9"},
    {m_upsample_factor, "upsample", "factor 0"},
    {m_ce_labels, "cross_entropy", "one per row"},
    {m_ce_dtype, "cross_entropy", "i32"},
    {m_ce_smoothing, "cross_entropy", "smoothing is 1"},
    {m_sce_shape, "soft_cross_entropy", "shaped like the logits"},
    {m_alpha_clip, "alpha_divergence", "above 0"},
    {m_dropout_rate, "dropout", "rate 1"},
    {m_softmax_causal, "softmax", "no more rows than columns"},
};

START_TEST(messages)
    {
        kn_graph *g = kn_graph_new(NULL);
        for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
            es_error err = {0};
            kn_graph_reset(g);
            kn_graph_scope(g, "stage 2, block 1");
            kn_val image = kn_input(g, 0, KN_SHAPE(2, 5, 5, 6), KN_F32),
                   matrix = kn_input(g, 1, KN_SHAPE(5, 6), KN_F32);
            kn_val labels = kn_input(g, 2, KN_SHAPE(5), KN_I32);
            kn_val v = mistakes[i].build(g, image, matrix, labels);
            ck_assert_uint_eq(v, KN_NONE);
            ck_assert_uint_eq(kn_add(g, v, image), KN_NONE);
            ck_assert_status(kn_graph_status(g, &err), ES_INVALID);
            ck_assert_has(err.where, "stage 2, block 1");
            ck_assert_has(err.where, mistakes[i].op);
            ck_assert_has(err.text, mistakes[i].says);
        }
        kn_graph_destroy(&g);
    }
END_TEST

/* Indices out of range are refused by the kernels that read them. */
START_TEST(bad_labels)
    {
        static const op_case cases[] = {
            {"labels", b_cross_entropy, {IN(2, 3), LABELS(3, 2)}},
            {"indices", b_embedding, {IN(3, 2), LABELS(3, 2)}},
        };
        for (int i = 0; i < 2; i++)
            for (int32_t wrong = -1; wrong <= 3; wrong += 4) {
                op_rig *r = op_rig_new(&cases[i], 0);
                es_error err = {0};
                const kn_node *n = kn_node_of(r->g, r->y);
                op_values *v = op_values_new(r, OP_ALL); /* with good labels, for the shapes */
                ((int32_t *)r->slot[1])[1] = wrong;
                kn_call call = {.a = &n->a, .n_in = n->n_in, .n_out = 1, .out = {v->t[r->y]}};
                for (int k = 0; k < n->n_in; k++)
                    call.in[k] = v->t[n->in[k]];
                ck_assert_status(kn_op_table[n->op].reference(&call, &err), ES_INVALID);
                ck_assert_has(err.text, wrong < 0 ? "-1" : "3");
                ck_assert_has(err.text, "allowed is 0 to 2");
                op_values_free(&v);
                op_rig_free(&r);
            }
    }
END_TEST

START_TEST(alpha_divergence_is_once_differentiable)
    {
        kn_graph *g = kn_graph_new(NULL);
        es_error err = {0};
        kn_val x = kn_input(g, 0, KN_SHAPE(4, 3), KN_F32), t = kn_input(g, 1, KN_SHAPE(4, 3), KN_F32), dx, ddx;
        kn_val loss = kn_reduce_mean(g, kn_alpha_divergence(g, x, t, -1, 1, 5), KN_AXES_ALL);
        ck_assert_ok_err(kn_grad(g, loss, &x, 1, &dx, &err), &err);
        kn_val norm = kn_reduce_sum(g, kn_mul(g, dx, dx), KN_AXES_ALL);
        ck_assert_status(kn_grad(g, norm, &x, 1, &ddx, &err), ES_UNSUPPORTED);
        ck_assert_has(err.where, "alpha_divergence_grad");
        kn_graph_destroy(&g);
    }
END_TEST

ES_TEST_MAIN("ops_reference", by_hand, expansions, every_op_has_a_case, dropout_mask, messages, bad_labels,
             alpha_divergence_is_once_differentiable)
