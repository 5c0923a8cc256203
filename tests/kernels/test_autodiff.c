/* First and second gradients of the simple ops against finite differences, and what is (not) built. */
#include "tests/check_main.h"
#include "tests/kernels/harness.h"

#define FN(name, expression)                                           \
    static kn_val name(kn_graph *g, const kn_val *in, const void *ctx) \
    {                                                                  \
        (void)ctx;                                                     \
        return expression;                                             \
    }
FN(add, kn_add(g, in[0], in[1]))
FN(sub, kn_sub(g, in[0], in[1]))
FN(mul, kn_mul(g, in[0], in[1]))
FN(cube, kn_mul(g, kn_mul(g, in[0], in[0]), in[0]))
FN(divide, kn_div(g, in[0], in[1]))
FN(maximum, kn_maximum(g, in[0], in[1]))
FN(affine, kn_mul(g, kn_shift(g, kn_scale(g, in[0], -1.5f), 0.25f), in[0]))
FN(act, kn_activate(g, in[0], *(const kn_act *)ctx))
FN(bias_act, kn_bias_act(g, in[0], in[1], *(const kn_act *)ctx))
FN(sum_rows, kn_mul(g, kn_reduce_sum(g, kn_mul(g, in[0], in[0]), 1u << 1), in[0]))
FN(sum_outer, kn_mul(g, kn_reduce_sum(g, kn_mul(g, in[0], in[0]), 1u << 0 | 1u << 1), in[0]))
FN(mean, kn_mul(g, kn_reduce_mean(g, kn_mul(g, in[0], in[0]), KN_AXES_ALL), in[0]))
FN(top, kn_mul(g, kn_reduce_max(g, in[0], 1u << 1), kn_reduce_max(g, in[0], 1u << 1)))
FN(broadcast, kn_mul(g, kn_broadcast(g, in[0], KN_SHAPE(4, 2, 3)), in[1]))
FN(mul_reduce, KN_EMIT(g, MUL_REDUCE, &(kn_attr){.axes = 1u << 0 | 1u << 1}, in[0], in[1]))
FN(reshape, kn_mul(g, kn_reshape(g, kn_mul(g, in[0], in[0]), KN_SHAPE(3, 4)), in[1]))
FN(matmul_nn, kn_matmul(g, in[0], in[1], false, false))
FN(matmul_nt, kn_matmul(g, in[0], in[1], false, true))
FN(matmul_tn, kn_matmul(g, in[0], in[1], true, false))
FN(matmul_tt, kn_matmul(g, in[0], in[1], true, true))
FN(concat,
   kn_mul(g, kn_concat(g, (kn_val[]){in[0], in[1], in[0]}, 3, 1), kn_concat(g, (kn_val[]){in[1], in[0], in[0]}, 3, 1)))

static kn_val transpose(kn_graph *g, const kn_val *in, const void *ctx)
{
    (void)ctx;
    return kn_mul(g, kn_transpose(g, kn_mul(g, in[0], in[0]), (int[]){2, 0, 1}), in[1]);
}

static kn_val slice_pad(kn_graph *g, const kn_val *in, const void *ctx)
{
    (void)ctx;
    kn_val s = kn_slice(g, kn_mul(g, in[0], in[0]), &(kn_box){.start = {1, 0, 1}, .extent = {2, 2, 2}});
    kn_val p = kn_pad(g, kn_mul(g, s, s), (int32_t[]){0, 1, 1}, (int32_t[]){1, 0, 0});
    return kn_mul(g, p, in[0]);
}

START_TEST(binary)
    {
        const kt_in full = {KN_SHAPE(2, 3, 4), KT_SMOOTH}, row = {KN_SHAPE(4), KT_POSITIVE},
                    column = {KN_SHAPE(3, 1), KT_POSITIVE}, one = {kn_shape_make(0, NULL), KT_POSITIVE};
        const kt_in second[] = {{KN_SHAPE(2, 3, 4), KT_POSITIVE}, row, column, one};
        for (int i = 0; i < 4; i++) {
            kt_gradients(&(kt_case){.name = "add", .fn = add, .n_in = 2, .in = {full, second[i]}, .orders = 2});
            kt_gradients(&(kt_case){.name = "sub", .fn = sub, .n_in = 2, .in = {second[i], full}, .orders = 2});
            kt_gradients(&(kt_case){.name = "mul", .fn = mul, .n_in = 2, .in = {full, second[i]}, .orders = 2});
            kt_gradients(&(kt_case){.name = "div", .fn = divide, .n_in = 2, .in = {full, second[i]}, .orders = 2});
        }
        kt_gradients(&(kt_case){.name = "cube", .fn = cube, .n_in = 1, .in = {full}, .orders = 2});
        kt_gradients(&(kt_case){.name = "affine", .fn = affine, .n_in = 1, .in = {full}, .orders = 2});
        kt_gradients(&(kt_case){.name = "maximum",
                                .fn = maximum,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 6), KT_DISTINCT}, {KN_SHAPE(6), KT_DISTINCT}},
                                .orders = 2});
    }
END_TEST

START_TEST(activations)
    {
        for (kn_act a = KN_ACT_NONE; a < KN_ACT_COUNT; a++) {
            kt_range range =
                a == KN_ACT_LOG || a == KN_ACT_SQRT || a == KN_ACT_RSQRT || a == KN_ACT_RECIPROCAL ? KT_POSITIVE
                : a == KN_ACT_EXP || a == KN_ACT_TANH || a == KN_ACT_GELU || a == KN_ACT_SIGMOID || a == KN_ACT_SILU
                    ? KT_SMOOTH
                    : KT_DISTINCT;
            kt_gradients(&(kt_case){
                .name = kn_act_name(a), .fn = act, .ctx = &a, .n_in = 1, .in = {{KN_SHAPE(3, 9), range}}, .orders = 2});
            if (range != KT_DISTINCT) /* a bias would bring distinct values to the kinks */
                kt_gradients(&(kt_case){.name = kn_act_name(a),
                                        .fn = bias_act,
                                        .ctx = &a,
                                        .n_in = 2,
                                        .in = {{KN_SHAPE(2, 2, 5), range}, {KN_SHAPE(5), range}},
                                        .orders = 2});
        }
        kn_act relu = KN_ACT_RELU;
        kt_gradients(&(kt_case){.name = "bias relu",
                                .fn = bias_act,
                                .ctx = &relu,
                                .n_in = 2,
                                .in = {{KN_SHAPE(4, 1), KT_DISTINCT}, {KN_SHAPE(1), KT_POSITIVE}},
                                .orders = 1});
    }
END_TEST

START_TEST(reductions)
    {
        const kt_in x = {KN_SHAPE(3, 2, 4), KT_SMOOTH};
        kt_gradients(&(kt_case){.name = "sum rows", .fn = sum_rows, .n_in = 1, .in = {x}, .orders = 2});
        kt_gradients(&(kt_case){.name = "sum outer", .fn = sum_outer, .n_in = 1, .in = {x}, .orders = 2});
        kt_gradients(&(kt_case){.name = "mean", .fn = mean, .n_in = 1, .in = {x}, .orders = 2});
        kt_gradients(&(kt_case){.name = "max",
                                .fn = top,
                                .n_in = 1,
                                .in = {{KN_SHAPE(3, 5, 2), KT_DISTINCT}},
                                .orders = 2,
                                .tolerance = 2e-3});
        kt_gradients(&(kt_case){.name = "broadcast",
                                .fn = broadcast,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 1), KT_SMOOTH}, {KN_SHAPE(4, 2, 3), KT_SMOOTH}},
                                .orders = 2});
        kt_gradients(&(kt_case){.name = "mul_reduce", .fn = mul_reduce, .n_in = 2, .in = {x, x}, .orders = 2});
        kt_gradients(&(kt_case){.name = "mul_reduce b",
                                .fn = mul_reduce,
                                .n_in = 2,
                                .in = {x, {KN_SHAPE(1, 1, 4), KT_SMOOTH}},
                                .orders = 2});
    }
END_TEST

START_TEST(shapes)
    {
        kt_gradients(&(kt_case){.name = "reshape",
                                .fn = reshape,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 6), KT_SMOOTH}, {KN_SHAPE(3, 4), KT_SMOOTH}},
                                .orders = 2});
        kt_gradients(&(kt_case){.name = "transpose",
                                .fn = transpose,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 3, 4), KT_SMOOTH}, {KN_SHAPE(4, 2, 3), KT_SMOOTH}},
                                .orders = 2});
        kt_gradients(&(kt_case){.name = "slice, pad",
                                .fn = slice_pad,
                                .n_in = 1,
                                .in = {{KN_SHAPE(3, 3, 3), KT_SMOOTH}},
                                .orders = 2,
                                .tolerance = 2e-3});
        kt_gradients(&(kt_case){.name = "concat",
                                .fn = concat,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 2, 2), KT_SMOOTH}, {KN_SHAPE(2, 2, 2), KT_SMOOTH}},
                                .orders = 2});
    }
END_TEST

START_TEST(products)
    {
        const kt_in a = {KN_SHAPE(3, 5), KT_SMOOTH}, at = {KN_SHAPE(5, 3), KT_SMOOTH}, b = {KN_SHAPE(5, 4), KT_SMOOTH},
                    bt = {KN_SHAPE(4, 5), KT_SMOOTH};
        kt_gradients(&(kt_case){.name = "nn", .fn = matmul_nn, .n_in = 2, .in = {a, b}, .orders = 2});
        kt_gradients(&(kt_case){.name = "nt", .fn = matmul_nt, .n_in = 2, .in = {a, bt}, .orders = 2});
        kt_gradients(&(kt_case){.name = "tn", .fn = matmul_tn, .n_in = 2, .in = {at, b}, .orders = 2});
        kt_gradients(&(kt_case){.name = "tt", .fn = matmul_tt, .n_in = 2, .in = {at, bt}, .orders = 2});
        kt_gradients(&(kt_case){.name = "batch",
                                .fn = matmul_nt,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 3, 5), KT_SMOOTH}, {KN_SHAPE(2, 4, 5), KT_SMOOTH}},
                                .orders = 2});
        kt_gradients(&(kt_case){.name = "shared b",
                                .fn = matmul_nt,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 3, 5), KT_SMOOTH}, {KN_SHAPE(4, 5), KT_SMOOTH}},
                                .orders = 2});
        kt_gradients(&(kt_case){.name = "shared b, ta",
                                .fn = matmul_tn,
                                .n_in = 2,
                                .in = {{KN_SHAPE(2, 5, 3), KT_SMOOTH}, {KN_SHAPE(5, 4), KT_SMOOTH}},
                                .orders = 2});
    }
END_TEST

/* A value that the loss does not depend on has gradient 0; through detach nothing flows. */
START_TEST(nothing_flows)
    {
        es_error err;
        kt_rig *r = kt_open("reference", NULL, NULL);
        const float v[3] = {1, -2, 3};
        kn_val x = kt_input(r, 0, KN_SHAPE(3), v), y = kt_input(r, 1, KN_SHAPE(3), v), d[2];
        kn_val loss = kn_reduce_sum(r->g, kn_mul(r->g, x, kn_detach(r->g, kn_mul(r->g, x, y))), KN_AXES_ALL);
        kt_ok(kn_grad(r->g, loss, (kn_val[]){x, y}, 2, d, &err), &err);
        kn_output(r->g, 0, d[0]);
        kn_output(r->g, 1, d[1]);
        kt_run(r, false);
        for (int i = 0; i < 3; i++) {
            ck_assert_float_eq(r->out[0][i], v[i] * v[i]);
            ck_assert_float_eq(r->out[1][i], 0);
        }
        kt_close(&r);
    }
END_TEST

START_TEST(mistakes)
    {
        es_error err;
        kt_rig *r = kt_open("reference", NULL, NULL);
        kn_val x = kn_input(r->g, 0, KN_SHAPE(2, 3), KN_F32), d;
        ck_assert_int_eq(kn_grad(r->g, x, &x, 1, &d, &err), ES_INVALID);
        ck_assert_msg(strstr(err.text, "one element") != NULL && strstr(err.text, "[2, 3]") != NULL, "%s", err.text);
        ck_assert_int_eq(kn_grad(r->g, KN_NONE, &x, 1, &d, &err), ES_INVALID);
        kn_val loss = kn_reduce_sum(r->g, x, KN_AXES_ALL);
        ck_assert_int_eq(kn_grad(r->g, loss, (kn_val[]){KN_NONE}, 1, &d, &err), ES_INVALID);
        ck_assert_msg(strstr(err.text, "number 0") != NULL, "%s", err.text);
        kt_close(&r);
    }
END_TEST

static bool only_second(void *ctx, int set, kn_param id)
{
    (void)ctx;
    return set == KN_SET_WEIGHTS && id == 1;
}

static bool not_first(void *ctx, int set, kn_param id)
{
    (void)ctx;
    return set == KN_SET_WEIGHTS && id != 0;
}

static int count_op(const kn_graph *g, kn_op op)
{
    int n = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op == op;
    return n;
}

/* Freezing the first layers leaves their backward work out: no product for the gradient of what lies below. */
START_TEST(frozen_layers_cost_nothing)
    {
        es_error err;
        kn_params *p = kn_params_new();
        kn_param id[3];
        for (int i = 0; i < 3; i++) {
            char name[8];
            snprintf(name, sizeof name, "w%d", i);
            kt_ok(kn_params_add(p, name, KN_SHAPE(4, 4), KN_INIT_HE_OUT, 0, &id[i], &err), &err);
        }
        kn_params_seal(p);
        const struct {
            kn_wanted wanted;
            int products, slices;
        } want[] = {{NULL, 3 + 3 + 2, 3}, {not_first, 3 + 2 + 1, 2}, {only_second, 3 + 1 + 1, 1}};
        for (int k = 0; k < 3; k++) {
            kt_rig *r = kt_open("reference", p, NULL);
            float v[8];
            for (int i = 0; i < 8; i++)
                v[i] = kt_random(5, (uint64_t)i);
            kn_val x = kt_input(r, 0, KN_SHAPE(2, 4), v);
            for (int i = 0; i < 3; i++)
                x = kn_activate(r->g, kn_linear(r->g, x, kn_param_slice(r->g, KN_SET_WEIGHTS, id[i], NULL)),
                                KN_ACT_TANH);
            kn_val loss = kn_reduce_mean(r->g, x, KN_AXES_ALL);
            kt_ok(kn_grad_params(r->g, loss, want[k].wanted, NULL, &err), &err);
            ck_assert_int_eq(count_op(r->g, KN_OP_MATMUL), want[k].products);
            ck_assert_int_eq(count_op(r->g, KN_OP_ACCUMULATE), want[k].slices);
            kt_run(r, false);
            kt_close(&r);
        }
        kn_params_destroy(&p);
    }
END_TEST

ES_TEST_MAIN("autodiff", binary, activations, reductions, shapes, products, nothing_flows, mistakes,
             frozen_layers_cost_nothing)
