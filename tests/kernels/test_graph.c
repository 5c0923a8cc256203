/* Building graphs: shapes, mistakes and their messages, reuse. */
#include "tests/check_main.h"
#include "tests/kernels/harness.h"

static void expect_mistake(kn_graph *g, kn_val v, const char *where, const char *text)
{
    es_error err = {.code = ES_OK};
    ck_assert_uint_eq(v, KN_NONE);
    ck_assert_int_eq(kn_graph_status(g, &err), ES_INVALID);
    ck_assert_msg(strstr(err.where, where) != NULL, "\"%s\" is not in \"%s\"", where, err.where);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" is not in \"%s\"", text, err.text);
    kn_graph_reset(g);
    ck_assert_int_eq(kn_graph_status(g, &err), ES_OK);
}

static kn_val in(kn_graph *g, kn_shape s) { return kn_input(g, 0, s, KN_F32); }

START_TEST(mistakes_name_op_scope_and_shapes)
    {
        kn_graph *g = kn_graph_new(NULL);
        kn_graph_scope(g, "stage 2");
        expect_mistake(g, kn_add(g, in(g, KN_SHAPE(2, 3)), in(g, KN_SHAPE(4))), "stage 2: add", "inputs [2, 3], [4]");
        expect_mistake(g, kn_matmul(g, in(g, KN_SHAPE(2, 3)), in(g, KN_SHAPE(4, 5)), false, false), "matmul",
                       "3 columns times 4 rows");
        expect_mistake(g, kn_matmul(g, in(g, KN_SHAPE(3)), in(g, KN_SHAPE(3, 5)), false, false), "matmul",
                       "equal ranks");
        expect_mistake(g, kn_matmul(g, in(g, KN_SHAPE(2, 3, 3)), in(g, KN_SHAPE(3, 3, 5)), false, false), "matmul",
                       "leading dimension 0");
        expect_mistake(g, kn_reshape(g, in(g, KN_SHAPE(2, 3)), KN_SHAPE(7)), "reshape",
                       "to [7]: the number of elements must stay; inputs [2, 3]");
        expect_mistake(g, kn_transpose(g, in(g, KN_SHAPE(2, 3)), (int[]){0, 0}), "transpose",
                       "each of 0 to 1 must come once");
        expect_mistake(g, kn_slice(g, in(g, KN_SHAPE(2, 3)), &(kn_box){.start = {0, 1}, .extent = {2, 3}}), "slice",
                       "dimension 1: start 1 and extent 3");
        expect_mistake(g, kn_pad(g, in(g, KN_SHAPE(2)), (int32_t[]){-1}, (int32_t[]){0}), "pad",
                       "must not be negative");
        expect_mistake(g, kn_concat(g, (kn_val[]){in(g, KN_SHAPE(2, 3)), in(g, KN_SHAPE(3, 3))}, 2, 1), "concat",
                       "along axis 1");
        expect_mistake(g, kn_concat(g, NULL, 0, 1), "concat", "1 to 8 values, not 0");
        expect_mistake(g, kn_broadcast(g, in(g, KN_SHAPE(2, 3)), KN_SHAPE(3)), "broadcast",
                       "cannot be broadcast to [3]");
        expect_mistake(g, kn_reduce_sum(g, in(g, KN_SHAPE(2, 3)), 1u << 2), "reduce_sum", "axes 0 to 1");
        expect_mistake(g, kn_bias_act(g, in(g, KN_SHAPE(2, 3)), in(g, KN_SHAPE(2)), KN_ACT_RELU), "bias_act",
                       "one number for each");
        expect_mistake(g, kn_activate(g, in(g, KN_SHAPE(2, 3)), (kn_act)99), "activate", "99 is not an activation");
        expect_mistake(g, kn_add(g, in(g, KN_SHAPE(2)), kn_input(g, 1, KN_SHAPE(2), KN_I32)), "add",
                       "input 1 must be f32, not i32");
        expect_mistake(g, kn_input(g, KN_SLOTS, KN_SHAPE(2), KN_F32), "input", "slot 32 is not in 0 to 31");
        expect_mistake(g, kn_input(g, 0, KN_SHAPE(2, 0), KN_F32), "input", "[2, 0]");
        expect_mistake(g, kn_scalar(g, -1), "scalar", "slot -1");
        expect_mistake(g, kn_param_slice(g, KN_SET_STATS, 0, NULL), "param", "no parameter set 1");
        expect_mistake(g, kn_global_avg_pool(g, in(g, KN_SHAPE(2, 3))), "global_avg_pool", "2 dimensions");
        expect_mistake(g, kn_add(g, KN_NONE, in(g, KN_SHAPE(2))), "add", "input 0 is missing");
        expect_mistake(g, kn_add(g, 1000, in(g, KN_SHAPE(2))), "add", "input 0 is not a value");
        kn_graph_destroy(&g);
    }
END_TEST

START_TEST(slices_stay_inside_their_parameter)
    {
        es_error err;
        kn_param id;
        kn_params *p = kn_params_new();
        kt_ok(kn_params_add(p, "head.weight", KN_SHAPE(4, 6), KN_INIT_HE_IN, 0, &id, &err), &err);
        kn_params_seal(p);
        kn_graph *g = kn_graph_new((const kn_params *const[KN_SETS]){p, NULL});
        kn_shape s = kn_shape_of(g, kn_param_slice(g, KN_SET_WEIGHTS, id, NULL));
        const kn_shape whole = KN_SHAPE(4, 6), some = KN_SHAPE(3, 4);
        ck_assert(kn_shape_equal(&s, &whole));
        s = kn_shape_of(g, kn_param_slice(g, KN_SET_WEIGHTS, id, &(kn_box){.start = {1, 2}, .extent = {3, 4}}));
        ck_assert(kn_shape_equal(&s, &some));
        expect_mistake(g, kn_param_slice(g, KN_SET_WEIGHTS, id, &(kn_box){.start = {2, 0}, .extent = {3, 4}}), "param",
                       "head.weight [4, 6]");
        expect_mistake(g, kn_param_slice(g, KN_SET_WEIGHTS, 1, NULL), "param", "there is no number 1");
        kn_val d = in(g, KN_SHAPE(4, 5));
        kn_accumulate_grad(g, kn_param_slice(g, KN_SET_WEIGHTS, id, NULL), d);
        expect_mistake(g, KN_NONE, "accumulate", "[4, 6], [4, 5]");
        kn_accumulate_grad(g, in(g, KN_SHAPE(2)), in(g, KN_SHAPE(2)));
        expect_mistake(g, KN_NONE, "accumulate", "parameter slice");
        kn_blend_param(g, KN_SET_WEIGHTS, id, NULL, in(g, KN_SHAPE(3)), kn_scalar(g, 0));
        expect_mistake(g, KN_NONE, "blend", "the slice's shape [4, 6]");
        kn_graph_destroy(&g);
        kn_params_destroy(&p);
    }
END_TEST

/* What is built on a mistake is nothing, and only the first mistake is reported. */
START_TEST(mistakes_spread)
    {
        es_error err;
        kn_graph *g = kn_graph_new(NULL);
        kn_val bad = kn_add(g, in(g, KN_SHAPE(2)), in(g, KN_SHAPE(3)));
        size_t nodes = kn_graph_nodes(g);
        bad = kn_reshape(g, kn_linear(g, kn_activate(g, bad, KN_ACT_RELU), bad), KN_SHAPE(1));
        bad = kn_transpose(g, kn_pad(g, kn_reduce_mean(g, bad, KN_AXES_ALL), NULL, NULL), NULL);
        kn_output(g, 0, kn_dropout(g, kn_batch_norm(g, bad, KN_NONE, KN_NONE, 0, KN_ACT_NONE).y, 0.5f, 0, true));
        ck_assert_uint_eq(bad, KN_NONE);
        ck_assert_uint_eq(kn_graph_nodes(g), nodes);
        ck_assert_int_eq(kn_graph_status(g, &err), ES_INVALID);
        ck_assert(strstr(err.text, "[2], [3]") != NULL);
        ck_assert_int_eq(kn_graph_status(g, NULL), ES_INVALID);
        kn_graph_destroy(&g);
    }
END_TEST

START_TEST(broadcasting_follows_numpy)
    {
        kn_graph *g = kn_graph_new(NULL);
        const struct {
            kn_shape a, b, want;
        } t[] = {{KN_SHAPE(2, 3), KN_SHAPE(3), KN_SHAPE(2, 3)},
                 {KN_SHAPE(2, 1), KN_SHAPE(3), KN_SHAPE(2, 3)},
                 {KN_SHAPE(1), KN_SHAPE(4, 2), KN_SHAPE(4, 2)},
                 {kn_shape_make(0, NULL), KN_SHAPE(4, 2), KN_SHAPE(4, 2)},
                 {KN_SHAPE(5, 1, 2), KN_SHAPE(3, 1), KN_SHAPE(5, 3, 2)}};
        for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
            kn_shape s = kn_shape_of(g, kn_mul(g, in(g, t[i].a), in(g, t[i].b)));
            ck_assert(kn_shape_equal(&s, &t[i].want));
        }
        kn_graph_destroy(&g);
    }
END_TEST

START_TEST(dot_shows_the_graph)
    {
        kn_graph *g = kn_graph_new(NULL);
        kn_graph_scope(g, "head");
        kn_output(g, 0, kn_scale(g, in(g, KN_SHAPE(2, 3)), 2));
        char *dot = kn_graph_dot(g);
        ck_assert(strstr(dot, "digraph") == dot);
        ck_assert(strstr(dot, "affine\\nhead\\n[2, 3]") != NULL);
        ck_assert(strstr(dot, "n0 -> n1;") != NULL);
        ck_assert(strstr(dot, "n1 -> n2;") != NULL);
        free(dot);
        kn_graph_destroy(&g);
    }
END_TEST

START_TEST(every_op_is_complete)
    {
        for (int i = 0; i < KN_OP_COUNT; i++) {
            const kn_op_info *o = &kn_op_table[i];
            ck_assert_msg(o->name != NULL && o->infer != NULL, "op %d", i);
            ck_assert_msg(o->grad != NULL || o->expand != NULL || o->no_grad ||
                              strcmp(o->name, "alpha_divergence_grad") == 0,
                          "%s: no gradient", o->name);
            bool view =
                i == KN_OP_INPUT || i == KN_OP_PARAM || i == KN_OP_SCALAR || i == KN_OP_RESHAPE || i == KN_OP_DETACH;
            ck_assert_msg(view || o->reference != NULL, "%s: no reference kernel", o->name);
            ck_assert_msg(view || kn_cpu_kernels[i].run != NULL || o->expand != NULL, "%s: not on the CPU", o->name);
        }
    }
END_TEST

ES_TEST_MAIN("graph", mistakes_name_op_scope_and_shapes, slices_stay_inside_their_parameter, mistakes_spread,
             broadcasting_follows_numpy, dot_shows_the_graph, every_op_is_complete)
