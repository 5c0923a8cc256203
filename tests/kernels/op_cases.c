#include "tests/kernels/op_cases.h"

/* Initialisers of inputs. */
#define DIMS(...)                                                                                   \
    {                                                                                               \
        .rank = (int32_t)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), .d = { __VA_ARGS__ } \
    }
#define LIST(...)   \
    {               \
        __VA_ARGS__ \
    }
#define REAL(...)                                   \
    {                                               \
        .kind = OP_REAL, .shape = DIMS(__VA_ARGS__) \
    }
#define POSITIVE(...)                                   \
    {                                                   \
        .kind = OP_POSITIVE, .shape = DIMS(__VA_ARGS__) \
    }
#define FIXED(...)                                   \
    {                                                \
        .kind = OP_FIXED, .shape = DIMS(__VA_ARGS__) \
    }
#define LABELS(n, ...)                                              \
    {                                                               \
        .kind = OP_LABELS, .classes = n, .shape = DIMS(__VA_ARGS__) \
    }
#define PARAM(...)                                                                \
    {                                                                             \
        .kind = OP_PARAM, .parent = DIMS(__VA_ARGS__), .shape = DIMS(__VA_ARGS__) \
    }
#define SLICE(whole, from, extent)                                                       \
    {                                                                                    \
        .kind = OP_PARAM, .parent = DIMS whole, .start = LIST from, .shape = DIMS extent \
    }

#define B(name) static kn_val b_##name(kn_graph *g, const kn_val *in, const op_case *c)

/* Builders. */
B(add) { return (void)c, kn_add(g, in[0], in[1]); }
B(sub) { return (void)c, kn_sub(g, in[0], in[1]); }
B(mul) { return (void)c, kn_mul(g, in[0], in[1]); }
B(div) { return (void)c, kn_div(g, in[0], in[1]); }
B(maximum) { return (void)c, kn_maximum(g, in[0], in[1]); }
B(greater_equal) { return (void)c, KN_EMIT(g, GREATER_EQUAL, &(kn_attr){0}, in[0], in[1]); }
B(affine) { return kn_shift(g, kn_scale(g, in[0], c->f[0]), c->f[1]); }
B(activate) { return kn_activate(g, in[0], (kn_act)c->i[0]); }
B(bias_act) { return kn_bias_act(g, in[0], in[1], (kn_act)c->i[0]); }
B(detach) { return (void)c, kn_mul(g, in[0], kn_detach(g, in[0])); }
B(dropout) { return kn_dropout(g, in[0], c->f[0], (uint32_t)c->i[0], c->i[1] != 0); }
B(drop_path) { return kn_drop_path(g, in[0], c->f[0], (uint32_t)c->i[0]); }
B(reduce_sum) { return kn_reduce_sum(g, in[0], (uint32_t)c->i[0]); }
B(reduce_mean) { return kn_reduce_mean(g, in[0], (uint32_t)c->i[0]); }
B(reduce_max) { return kn_reduce_max(g, in[0], (uint32_t)c->i[0]); }
B(mul_reduce) { return KN_EMIT(g, MUL_REDUCE, &(kn_attr){.axes = (uint32_t)c->i[0]}, in[0], in[1]); }
B(broadcast) { return (void)c, kn_broadcast(g, in[0], KN_SHAPE(3, 4, 2, 5)); }
B(reshape) { return (void)c, kn_reshape(g, in[0], KN_SHAPE(6, 5)); }
B(transpose) { return kn_transpose(g, in[0], c->i); }
B(matmul) { return kn_matmul(g, in[0], in[1], c->i[0] != 0, c->i[1] != 0); }
B(linear) { return (void)c, kn_linear(g, in[0], in[1]); }
B(conv2d) { return kn_conv2d(g, in[0], in[1], c->i[0], c->i[1], c->i[2], c->i[3]); }
B(depthwise) { return kn_depthwise(g, in[0], in[1], c->i[0], c->i[1], c->i[2]); }
B(attention) { return kn_attention(g, in[0], in[1], in[2], c->f[0], c->i[0] != 0); }
B(self_attention) { return kn_self_attention(g, in[0], c->f[0], c->i[0] != 0); }
B(embedding) { return (void)c, kn_embedding(g, in[0], in[1]); }
B(batch_norm) { return kn_batch_norm(g, in[0], in[1], in[2], 1e-3f, (kn_act)c->i[0]).y; }
B(batch_norm_infer) { return kn_batch_norm_infer(g, in[0], in[1], in[2], in[3], in[4], 1e-3f, (kn_act)c->i[0]); }
B(layer_norm) { return (void)c, kn_layer_norm(g, in[0], in[1], in[2], 1e-3f); }
B(max_pool) { return kn_max_pool(g, in[0], c->i[0], c->i[1], c->i[2]); }
B(avg_pool) { return kn_avg_pool(g, in[0], c->i[0], c->i[1], c->i[2], c->i[3] != 0); }
B(global_avg_pool) { return (void)c, kn_global_avg_pool(g, in[0]); }
B(upsample) { return kn_upsample(g, in[0], c->i[0]); }
B(softmax) { return KN_EMIT(g, SOFTMAX, &(kn_attr){.causal = c->i[0] != 0}, in[0]); }
B(log_softmax) { return (void)c, kn_log_softmax(g, in[0]); }
B(cross_entropy) { return kn_cross_entropy(g, in[0], in[1], c->f[0]); }
B(soft_cross_entropy) { return (void)c, kn_soft_cross_entropy(g, in[0], in[1]); }
B(correct) { return (void)c, kn_correct(g, in[0], in[1]); }

B(alpha_divergence) { return kn_alpha_divergence(g, in[0], in[1], c->f[0], c->f[1], c->f[2]); }

B(slice)
{
    kn_box box = {{1, 0, 2, 0}, {2, 3, 2, 4}};
    return (void)c, kn_slice(g, in[0], &box);
}

B(pad)
{
    const int32_t before[] = {0, 2, 1, 0}, after[] = {1, 0, 3, 2};
    return (void)c, kn_pad(g, in[0], before, after);
}

B(concat)
{
    int n = 0;
    while (n < OP_INPUTS && in[n] != KN_NONE)
        n++;
    return kn_concat(g, in, n, c->i[0]);
}

/* The statistics as differentiable results. */
B(batch_norm_statistics)
{
    kn_bn bn = kn_batch_norm(g, in[0], in[1], in[2], 1e-3f, (kn_act)c->i[0]);
    return kn_mul(g, kn_add(g, bn.y, bn.mean), bn.var);
}

/* A gradient that reaches the statistics only. */
B(variance) { return (void)c, kn_batch_norm(g, in[0], KN_NONE, KN_NONE, 1e-3f, KN_ACT_NONE).var; }

#define ACT_CASES(ACT, KIND)                                                           \
    {"activate " #ACT, b_activate, {KIND(5, 7)}, .i = {KN_ACT_##ACT}},                 \
        {"bias_act " #ACT, b_bias_act, {KIND(2, 3, 5), KIND(5)}, .i = {KN_ACT_##ACT}}, \
    {                                                                                  \
        "activate wide " #ACT, b_activate, {KIND(3, 67)}, .i = { KN_ACT_##ACT }        \
    }

/* A case leaves out what it does not need. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
/* clang-format off */
const op_case op_cases[] = {
    {"add", b_add, {REAL(3, 5), REAL(3, 5)}},
    {"add vector", b_add, {REAL(2, 3, 4, 37), REAL(37)}},
    {"add middle", b_add, {REAL(2, 3, 4, 5), REAL(2, 1, 1, 5)}},
    {"add both ways", b_add, {REAL(4, 1, 3), REAL(5, 1)}},
    {"add slice", b_add, {REAL(3, 4), SLICE((5, 9), (1, 2), (3, 4))}},
    {"sub", b_sub, {REAL(3, 5), REAL(5)}},
    {"sub scalar first", b_sub, {REAL(1), REAL(3, 5)}},
    {"mul", b_mul, {REAL(17, 33), REAL(17, 33)}},
    {"mul squeeze-excite", b_mul, {REAL(3, 4, 5, 16), REAL(3, 1, 1, 16)}},
    {"mul both ways", b_mul, {REAL(4, 1, 3), REAL(5, 1)}},
    {"mul slice", b_mul, {SLICE((5, 9), (1, 2), (3, 4)), REAL(3, 4)}},
    {"div", b_div, {REAL(4, 6), POSITIVE(4, 6)}},
    {"div row", b_div, {REAL(4, 6), POSITIVE(4, 1)}},
    {"maximum", b_maximum, {REAL(4, 6), REAL(4, 6)}},
    {"maximum broadcast", b_maximum, {REAL(2, 4, 6), REAL(6)}},
    {"greater_equal", b_greater_equal, {REAL(4, 6), REAL(6)}, .flags = OP_NO_GRAD},
    {"affine", b_affine, {REAL(31)}, .f = {-1.5f, 0.25f}},
    {"detach", b_detach, {REAL(3, 4)}, .flags = OP_NO_FD},

    ACT_CASES(RELU, REAL), ACT_CASES(RELU6, REAL), ACT_CASES(HSWISH, REAL), ACT_CASES(HSIGMOID, REAL), ACT_CASES(SILU, REAL),
    ACT_CASES(GELU, REAL), ACT_CASES(SIGMOID, REAL), ACT_CASES(TANH, REAL), ACT_CASES(EXP, REAL), ACT_CASES(LOG, POSITIVE),
    ACT_CASES(SQRT, POSITIVE), ACT_CASES(RSQRT, POSITIVE), ACT_CASES(RECIPROCAL, POSITIVE), ACT_CASES(SQUARE, REAL), ACT_CASES(ABS, REAL),
    {"bias_act slice", b_bias_act, {REAL(2, 3, 5), SLICE((9), (2), (5))}, .i = {KN_ACT_SILU}},

    {"dropout", b_dropout, {REAL(5, 33)}, .i = {3}, .f = {0.3f}},
    {"dropout channel", b_dropout, {REAL(3, 4, 5, 6)}, .i = {4, 1}, .f = {0.5f}},
    {"drop_path", b_drop_path, {REAL(9, 2, 3, 4)}, .i = {5}, .f = {0.4f}},

    {"reduce_sum all", b_reduce_sum, {REAL(3, 4, 5)}, .i = {7}},
    {"reduce_sum last", b_reduce_sum, {REAL(6, 45)}, .i = {2}},
    {"reduce_sum first", b_reduce_sum, {REAL(70, 19)}, .i = {1}},
    {"reduce_sum outer two", b_reduce_sum, {REAL(3, 4, 2, 5)}, .i = {5}},
    {"reduce_mean space", b_reduce_mean, {REAL(3, 4, 5, 7)}, .i = {6}},
    {"reduce_sum slice", b_reduce_sum, {SLICE((6, 9), (2, 1), (3, 7))}, .i = {1}},
    {"reduce_max last", b_reduce_max, {REAL(6, 11)}, .i = {2}},
    {"reduce_max first", b_reduce_max, {REAL(7, 5)}, .i = {1}},
    {"reduce_max space", b_reduce_max, {REAL(2, 3, 3, 4)}, .i = {6}},
    {"mul_reduce last", b_mul_reduce, {REAL(6, 9), REAL(6, 9)}, .i = {2}},
    {"mul_reduce rows", b_mul_reduce, {REAL(3, 5, 5, 6), REAL(3, 5, 5, 6)}, .i = {7}},
    {"mul_reduce space", b_mul_reduce, {REAL(3, 5, 5, 6), REAL(3, 5, 5, 6)}, .i = {6}},

    {"broadcast", b_broadcast, {REAL(3, 1, 2, 1)}},
    {"broadcast vector", b_broadcast, {REAL(5)}},
    {"reshape", b_reshape, {REAL(2, 3, 5)}},
    {"reshape slice", b_reshape, {SLICE((4, 3, 9), (1, 0, 2), (2, 3, 5))}},
    {"transpose 2", b_transpose, {REAL(7, 5)}, .i = {1, 0}},
    {"transpose heads", b_transpose, {REAL(2, 5, 3, 4)}, .i = {0, 2, 1, 3}},
    {"transpose 5", b_transpose, {REAL(2, 3, 2, 3, 2)}, .i = {4, 2, 0, 3, 1}},
    {"transpose slice", b_transpose, {SLICE((5, 9), (1, 2), (3, 4))}, .i = {1, 0}},
    {"slice", b_slice, {REAL(4, 3, 5, 4)}},
    {"pad", b_pad, {REAL(2, 3, 2, 4)}},
    {"concat channels", b_concat, {REAL(2, 3, 3, 4), REAL(2, 3, 3, 7), REAL(2, 3, 3, 1)}, .i = {3}},
    {"concat first", b_concat, {REAL(2, 5), REAL(3, 5)}, .i = {0}},
    {"concat slice", b_concat, {REAL(3, 2), SLICE((5, 9), (1, 2), (3, 4))}, .i = {1}},

    {"matmul", b_matmul, {REAL(5, 7), REAL(7, 3)}},
    {"matmul ta", b_matmul, {REAL(7, 5), REAL(7, 3)}, .i = {1, 0}},
    {"matmul tb", b_matmul, {REAL(5, 7), REAL(3, 7)}, .i = {0, 1}},
    {"matmul ta tb", b_matmul, {REAL(7, 5), REAL(3, 7)}, .i = {1, 1}},
    {"matmul batch", b_matmul, {REAL(2, 3, 4, 5), REAL(2, 3, 5, 6)}},
    {"matmul batch ta", b_matmul, {REAL(2, 5, 4), REAL(2, 5, 6)}, .i = {1, 0}},
    {"matmul batch tb", b_matmul, {REAL(3, 4, 5), REAL(3, 6, 5)}, .i = {0, 1}},
    {"matmul batch one b", b_matmul, {REAL(3, 4, 5), REAL(5, 6)}},
    {"matmul wide", b_matmul, {REAL(65, 129), REAL(129, 33)}},
    {"linear", b_linear, {REAL(6, 10), PARAM(4, 10)}},
    {"linear slice", b_linear, {REAL(6, 10), SLICE((9, 17), (2, 3), (4, 10))}},
    {"linear images", b_linear, {REAL(2, 3, 3, 10), SLICE((9, 17), (0, 0), (5, 10))}},
    {"linear row of one", b_linear, {REAL(1, 1), PARAM(1, 1)}},

    {"conv 1x1", b_conv2d, {REAL(2, 4, 5, 6), PARAM(7, 1, 1, 6)}, .i = {1, 0, 1, 1}},
    {"conv 1x1 slice", b_conv2d, {REAL(2, 4, 5, 6), SLICE((12, 1, 1, 9), (0, 0, 0, 0), (7, 1, 1, 6))}, .i = {1, 0, 1, 1}},
    {"conv 1x1 stride 2", b_conv2d, {REAL(2, 5, 7, 4), SLICE((8, 1, 1, 6), (0, 0, 0, 0), (5, 1, 1, 4))}, .i = {2, 0, 1, 1}},
    {"conv 3x3", b_conv2d, {REAL(2, 5, 7, 3), PARAM(4, 3, 3, 3)}, .i = {1, 1, 1, 1}},
    {"conv 3x3 no pad", b_conv2d, {REAL(1, 5, 4, 2), PARAM(3, 3, 3, 2)}, .i = {1, 0, 1, 1}},
    {"conv 3x3 stride 2 odd", b_conv2d, {REAL(2, 7, 9, 5), PARAM(6, 3, 3, 5)}, .i = {2, 1, 1, 1}},
    {"conv 3x3 stride 2 even", b_conv2d, {REAL(2, 8, 6, 5), PARAM(6, 3, 3, 5)}, .i = {2, 1, 1, 1}},
    {"conv 3x3 centred in 5x5", b_conv2d, {REAL(2, 6, 5, 4), SLICE((8, 5, 5, 7), (0, 1, 1, 0), (5, 3, 3, 4))}, .i = {1, 1, 1, 1}},
    {"conv 5x5 stride 3", b_conv2d, {REAL(1, 11, 8, 2), PARAM(3, 5, 5, 2)}, .i = {3, 2, 1, 1}},
    {"conv 1x3", b_conv2d, {REAL(2, 4, 6, 3), PARAM(2, 1, 3, 3)}, .i = {1, 0, 1, 1}},
    {"conv kernel as large as image", b_conv2d, {REAL(2, 3, 3, 4), PARAM(5, 3, 3, 4)}, .i = {1, 0, 1, 1}},
    {"conv pad beyond kernel", b_conv2d, {REAL(1, 2, 3, 2), PARAM(2, 3, 3, 2)}, .i = {1, 3, 1, 1}},
    {"conv one channel", b_conv2d, {REAL(2, 6, 6, 1), SLICE((16, 3, 3, 1), (0, 0, 0, 0), (8, 3, 3, 1))}, .i = {1, 1, 1, 1}},
    {"conv dilated", b_conv2d, {REAL(1, 9, 8, 3), PARAM(2, 3, 3, 3)}, .i = {1, 2, 1, 2}},
    {"conv dilated stride 2", b_conv2d, {REAL(1, 9, 10, 2), PARAM(3, 3, 3, 2)}, .i = {2, 2, 1, 2}},
    {"conv groups 2", b_conv2d, {REAL(2, 5, 5, 6), PARAM(4, 3, 3, 3)}, .i = {1, 1, 2, 1}},
    {"conv groups 3 stride 2 slice", b_conv2d, {REAL(2, 6, 7, 6), SLICE((12, 5, 5, 4), (0, 1, 1, 0), (9, 3, 3, 2))}, .i = {2, 1, 3, 1}},
    {"conv groups are channels", b_conv2d, {REAL(2, 5, 4, 3), PARAM(6, 3, 3, 1)}, .i = {1, 1, 3, 1}},
    {"conv wide", b_conv2d, {REAL(2, 9, 9, 33), PARAM(40, 3, 3, 33)}, .i = {1, 1, 1, 1}},

    {"depthwise 3", b_depthwise, {REAL(2, 6, 5, 7), PARAM(3, 3, 7)}, .i = {1, 1, 1}},
    {"depthwise 3 wide", b_depthwise, {REAL(2, 7, 7, 72), PARAM(3, 3, 72)}, .i = {1, 1, 1}},
    {"depthwise 3 stride 2", b_depthwise, {REAL(2, 7, 8, 9), PARAM(3, 3, 9)}, .i = {2, 1, 1}},
    {"depthwise 5 stride 2 even", b_depthwise, {REAL(2, 8, 8, 16), PARAM(5, 5, 16)}, .i = {2, 2, 1}},
    {"depthwise 3 in 7, prefix", b_depthwise, {REAL(2, 6, 6, 10), SLICE((7, 7, 24), (2, 2, 0), (3, 3, 10))}, .i = {1, 1, 1}},
    {"depthwise 5 in 7, prefix, stride 2", b_depthwise, {REAL(1, 9, 7, 11), SLICE((7, 7, 24), (1, 1, 0), (5, 5, 11))}, .i = {2, 2, 1}},
    {"depthwise 7 on small image", b_depthwise, {REAL(2, 3, 4, 5), PARAM(7, 7, 5)}, .i = {1, 3, 1}},
    {"depthwise dilated", b_depthwise, {REAL(1, 9, 8, 6), PARAM(3, 3, 6)}, .i = {1, 2, 2}},
    {"depthwise no pad", b_depthwise, {REAL(1, 5, 5, 3), PARAM(3, 3, 3)}, .i = {1, 0, 1}},
    {"depthwise one channel", b_depthwise, {REAL(2, 5, 5, 1), PARAM(3, 3, 1)}, .i = {1, 1, 1}},

    {"attention", b_attention, {REAL(2, 4, 3, 5), REAL(2, 6, 3, 5), REAL(2, 6, 3, 7)}, .f = {0.5f}},
    {"attention causal", b_attention, {REAL(2, 5, 2, 4), REAL(2, 5, 2, 4), REAL(2, 5, 2, 4)}, .i = {1}, .f = {0.5f}},
    {"attention causal with a past", b_attention, {REAL(1, 3, 2, 4), REAL(1, 5, 2, 4), REAL(1, 5, 2, 3)}, .i = {1}, .f = {0.4f}},
    {"attention of several blocks", b_attention, {REAL(2, 70, 2, 8), REAL(2, 70, 2, 8), REAL(2, 70, 2, 8)}, .i = {1}, .f = {0.3f}},
    {"attention one key", b_attention, {REAL(1, 3, 1, 2), REAL(1, 1, 1, 2), REAL(1, 1, 1, 2)}, .f = {1.0f}},
    {"self attention", b_self_attention, {REAL(2, 4, 3, 15)}, .f = {0.5f}},
    {"self attention causal", b_self_attention, {REAL(2, 5, 2, 12)}, .i = {1}, .f = {0.5f}},
    {"self attention of several blocks", b_self_attention, {REAL(2, 70, 2, 24)}, .i = {1}, .f = {0.3f}},
    {"self attention of one", b_self_attention, {REAL(1, 1, 1, 3)}, .i = {1}, .f = {1.0f}},
    {"embedding", b_embedding, {LABELS(6, 3, 4), PARAM(6, 5)}},
    {"embedding slice", b_embedding, {LABELS(4, 7), SLICE((9, 17), (2, 3), (4, 10))}},
    {"embedding of a value", b_embedding, {LABELS(4, 2, 3), REAL(4, 3)}},

    {"batch_norm plain", b_batch_norm, {REAL(4, 3, 3, 5)}},
    {"batch_norm gamma beta", b_batch_norm, {REAL(4, 3, 2, 5), PARAM(5), PARAM(5)}},
    {"batch_norm gamma only", b_batch_norm, {REAL(7, 5), REAL(5)}},
    {"batch_norm beta only", b_batch_norm, {REAL(7, 5), {0}, REAL(5)}, .i = {KN_ACT_TANH}},
    {"batch_norm relu prefix", b_batch_norm, {REAL(4, 2, 3, 6), SLICE((16), (0), (6)), SLICE((16), (0), (6))}, .i = {KN_ACT_RELU}},
    {"batch_norm relu6", b_batch_norm, {REAL(3, 3, 3, 4), REAL(4), REAL(4)}, .i = {KN_ACT_RELU6}},
    {"batch_norm hswish", b_batch_norm, {REAL(3, 3, 3, 4), REAL(4), REAL(4)}, .i = {KN_ACT_HSWISH}},
    {"batch_norm silu", b_batch_norm, {REAL(3, 3, 3, 4), REAL(4), REAL(4)}, .i = {KN_ACT_SILU}},
    {"batch_norm gelu", b_batch_norm, {REAL(3, 3, 3, 4), REAL(4), REAL(4)}, .i = {KN_ACT_GELU}},
    {"batch_norm wide", b_batch_norm, {REAL(5, 7, 7, 67), PARAM(67), PARAM(67)}, .i = {KN_ACT_SIGMOID}},
    {"batch_norm one channel", b_batch_norm, {REAL(5, 3, 3, 1), PARAM(1), PARAM(1)}},
    {"batch_norm with statistics", b_batch_norm_statistics, {REAL(5, 2, 3, 4), REAL(4), REAL(4)}, .i = {KN_ACT_SILU}},
    {"batch_norm variance", b_variance, {REAL(6, 4)}},
    {"batch_norm_infer plain", b_batch_norm_infer, {REAL(4, 3, 3, 5), {0}, {0}, REAL(5), POSITIVE(5)}},
    {"batch_norm_infer full", b_batch_norm_infer, {REAL(4, 3, 3, 5), PARAM(5), PARAM(5), REAL(5), POSITIVE(5)}, .i = {KN_ACT_HSWISH}},
    {"batch_norm_infer relu prefix", b_batch_norm_infer,
     {REAL(3, 2, 2, 6), SLICE((16), (0), (6)), SLICE((16), (0), (6)), REAL(6), POSITIVE(6)}, .i = {KN_ACT_RELU}},
    {"batch_norm_infer silu wide", b_batch_norm_infer, {REAL(2, 5, 5, 67), REAL(67), REAL(67), REAL(67), POSITIVE(67)}, .i = {KN_ACT_SILU}},
    {"layer_norm", b_layer_norm, {REAL(3, 4, 6), PARAM(6), PARAM(6)}},
    {"layer_norm plain", b_layer_norm, {REAL(5, 9)}},
    {"layer_norm prefix", b_layer_norm, {REAL(5, 9), SLICE((20), (0), (9)), SLICE((20), (0), (9))}},
    {"layer_norm beta only", b_layer_norm, {REAL(4, 5), {0}, REAL(5)}},
    {"layer_norm wide", b_layer_norm, {REAL(9, 131), PARAM(131), PARAM(131)}},

    {"max_pool 2", b_max_pool, {REAL(2, 6, 4, 5)}, .i = {2, 2, 0}},
    {"max_pool 3 stride 1", b_max_pool, {REAL(2, 5, 4, 3)}, .i = {3, 1, 1}},
    {"max_pool 3 stride 2 odd", b_max_pool, {REAL(2, 7, 9, 4)}, .i = {3, 2, 1}},
    {"max_pool overlapping edge", b_max_pool, {REAL(1, 3, 3, 2)}, .i = {5, 1, 4}},
    {"avg_pool 2", b_avg_pool, {REAL(2, 6, 4, 5)}, .i = {2, 2, 0, 0}},
    {"avg_pool 3 without padding", b_avg_pool, {REAL(2, 5, 4, 3)}, .i = {3, 1, 1, 0}},
    {"avg_pool 3 with padding", b_avg_pool, {REAL(2, 5, 4, 3)}, .i = {3, 1, 1, 1}},
    {"avg_pool 3 stride 2 odd", b_avg_pool, {REAL(2, 7, 9, 4)}, .i = {3, 2, 1, 0}},
    {"avg_pool 5 on 3", b_avg_pool, {REAL(1, 3, 3, 2)}, .i = {5, 2, 4, 0}},
    {"global_avg_pool", b_global_avg_pool, {REAL(3, 4, 5, 19)}},
    {"upsample 2", b_upsample, {REAL(2, 3, 4, 5)}, .i = {2}},
    {"upsample 3", b_upsample, {REAL(1, 2, 3, 3)}, .i = {3}},

    {"softmax", b_softmax, {REAL(4, 7)}},
    {"softmax wide", b_softmax, {REAL(3, 2, 77)}},
    {"softmax causal", b_softmax, {REAL(2, 4, 6)}, .i = {1}},
    {"softmax of one", b_softmax, {REAL(4, 1)}},
    {"softmax vector", b_softmax, {PARAM(7)}},
    {"log_softmax", b_log_softmax, {REAL(4, 7)}},
    {"log_softmax wide", b_log_softmax, {REAL(3, 101)}},
    {"cross_entropy", b_cross_entropy, {REAL(6, 10), LABELS(10, 6)}},
    {"cross_entropy smoothed", b_cross_entropy, {REAL(6, 10), LABELS(10, 6)}, .f = {0.1f}},
    {"cross_entropy tokens", b_cross_entropy, {REAL(2, 3, 5), LABELS(5, 2, 3)}, .f = {0.2f}},
    {"cross_entropy wide", b_cross_entropy, {REAL(5, 1000), LABELS(1000, 5)}, .f = {0.1f}},
    {"soft_cross_entropy", b_soft_cross_entropy, {REAL(5, 6), POSITIVE(5, 6)}},
    {"soft_cross_entropy wide", b_soft_cross_entropy, {REAL(4, 100), POSITIVE(4, 100)}},
    {"alpha_divergence -1 1", b_alpha_divergence, {REAL(16, 6), FIXED(16, 6)}, .f = {-1.0f, 1.0f, 1e6f}, .flags = OP_ONCE},
    {"alpha_divergence 0 1", b_alpha_divergence, {REAL(16, 6), FIXED(16, 6)}, .f = {0.0f, 1.0f, 1e6f}, .flags = OP_ONCE},
    {"alpha_divergence 0.5 2", b_alpha_divergence, {REAL(16, 6), FIXED(16, 6)}, .f = {0.5f, 2.0f, 1e6f}, .flags = OP_ONCE},
    {"alpha_divergence clipped", b_alpha_divergence, {REAL(16, 50), FIXED(16, 50)}, .f = {-1.0f, 1.0f, 1.5f}, .flags = OP_ONCE | OP_NO_FD},
    {"alpha_divergence 0 clipped", b_alpha_divergence, {REAL(16, 50), FIXED(16, 50)}, .f = {0.0f, 2.0f, 1.5f}, .flags = OP_ONCE | OP_NO_FD},
    {"correct", b_correct, {REAL(40, 5), LABELS(5, 40)}, .flags = OP_NO_GRAD},
};
/* clang-format on */
const int op_case_count = sizeof op_cases / sizeof op_cases[0];
