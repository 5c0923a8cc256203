/* Every op with random operands and attributes, most of them nonsense: inference refuses it with a message, or the op runs and both devices agree. */
#include <math.h>

#include "base/arena.h"
#include "tests/check_main.h"
#include "tests/kernels/harness.h"

enum { TRIALS = 1500, INPUTS = 5, ELEMENTS = 3125, LABELS = 10 };

typedef struct dice {
    uint64_t seed, n;
} dice;

static int roll(dice *d, int low, int high)
{
    return low + (int)((kt_random(d->seed, d->n++) + 1) / 2 * (float)(high - low + 1));
}

/* Mostly a sensible number, sometimes any. */
static int pick(dice *d, int low, int high) { return roll(d, 0, 9) == 0 ? roll(d, -1, 5) : roll(d, low, high); }

static kn_shape shape(dice *d, int least)
{
    kn_shape s = {.rank = roll(d, 0, 3) == 0 ? roll(d, 0, KN_RANK_MAX) : 4, .d = {1, 1, 1, 1, 1}};
    for (int i = 0; i < s.rank; i++)
        s.d[i] = roll(d, least, 5);
    return s;
}

static kn_attr attributes(dice *d)
{
    kn_attr a = {.stride = pick(d, 1, 2),
                 .pad = pick(d, 0, 1),
                 .groups = pick(d, 1, 1),
                 .dilation = pick(d, 1, 1),
                 .kernel = pick(d, 1, 3),
                 .h = pick(d, 2, 5),
                 .w = pick(d, 2, 5),
                 .kh = pick(d, 1, 3),
                 .kw = pick(d, 1, 3),
                 .order = pick(d, 0, 2),
                 .act = (kn_act)pick(d, 0, 8),
                 .axes = (uint32_t)roll(d, 0, 15),
                 .axis = pick(d, 0, 3),
                 .shape = shape(d, roll(d, 0, 5) == 0 ? 0 : 1),
                 .alpha = 0.5f,
                 .beta = 0.25f,
                 .eps = 0.1f,
                 .rate = (float)pick(d, 0, 1) * 0.5f,
                 .clip = 5,
                 .use_index = 3,
                 .ta = roll(d, 0, 1) == 1,
                 .tb = roll(d, 0, 1) == 1,
                 .causal = roll(d, 0, 1) == 1,
                 .count_pad = roll(d, 0, 1) == 1};
    for (int i = 0; i < KN_RANK_MAX; i++) {
        a.perm[i] = pick(d, i, i);
        a.box.start[i] = pick(d, 0, 1);
        a.box.extent[i] = pick(d, 1, 3);
    }
    if (roll(d, 0, 1) == 0) { /* a permutation that is one */
        int k = roll(d, 0, 2);
        a.perm[k] = k + 1;
        a.perm[k + 1] = k;
    }
    return a;
}

/* Which inputs are indices by the op's description. */
static bool is_index(kn_op op, int k)
{
    switch (op) {
    case KN_OP_EMBEDDING: return k == 0;
    case KN_OP_EMBEDDING_GRAD:
    case KN_OP_CROSS_ENTROPY:
    case KN_OP_CORRECT: return k == 1;
    case KN_OP_CROSS_ENTROPY_GRAD: return k == 2;
    default: return false;
    }
}

/* Operands that have a chance: shapes are often repeated, in part or whole. */
static int operands(kt_rig *r, kn_op op, dice *d, kn_val *in)
{
    int n = op == KN_OP_CONSTANT || op == KN_OP_SCALAR ? 0 : roll(d, 1, 7);
    static const uint8_t usual[KN_OP_COUNT] = {[KN_OP_CONV2D] = 2,
                                               [KN_OP_CONV2D_DX] = 2,
                                               [KN_OP_CONV2D_DW] = 2,
                                               [KN_OP_DEPTHWISE] = 2,
                                               [KN_OP_DEPTHWISE_DX] = 2,
                                               [KN_OP_DEPTHWISE_DW] = 2,
                                               [KN_OP_ATTENTION] = 3,
                                               [KN_OP_ATTENTION_GRAD] = 6,
                                               [KN_OP_EMBEDDING] = 2,
                                               [KN_OP_EMBEDDING_GRAD] = 2,
                                               [KN_OP_BATCH_NORM] = 3,
                                               [KN_OP_BATCH_NORM_GRAD] = 6,
                                               [KN_OP_BATCH_NORM_INFER] = 5,
                                               [KN_OP_LAYER_NORM] = 3,
                                               [KN_OP_BATCH_NORM_INFER_GRAD] = 6,
                                               [KN_OP_SELF_ATTENTION] = 1,
                                               [KN_OP_SELF_ATTENTION_GRAD] = 4,
                                               [KN_OP_LAYER_NORM_GRAD] = 3,
                                               [KN_OP_CROSS_ENTROPY] = 2,
                                               [KN_OP_CROSS_ENTROPY_GRAD] = 3,
                                               [KN_OP_MAX_POOL_GRAD] = 2,
                                               [KN_OP_MAX_POOL_PICK] = 2,
                                               [KN_OP_SOFT_CROSS_ENTROPY] = 2,
                                               [KN_OP_MATMUL] = 2,
                                               [KN_OP_REDUCE_MAX_GRAD] = 2,
                                               [KN_OP_SOFT_CROSS_ENTROPY_GRAD] = 3,
                                               [KN_OP_CORRECT] = 2,
                                               [KN_OP_ALPHA_DIVERGENCE] = 2,
                                               [KN_OP_ALPHA_DIVERGENCE_GRAD] = 3,
                                               [KN_OP_BIAS_ACT] = 2,
                                               [KN_OP_BIAS_ACT_GRAD] = 3,
                                               [KN_OP_ACTIVATE_MUL] = 2,
                                               [KN_OP_MUL_REDUCE] = 2,
                                               [KN_OP_SOFTMAX_GRAD] = 2,
                                               [KN_OP_LOG_SOFTMAX_GRAD] = 2};
    if (op != KN_OP_CONCAT && n > 0)
        n = usual[op] != 0 ? usual[op] : op >= KN_OP_ADD && op <= KN_OP_GREATER_EQUAL ? 2 : 1;
    kn_shape first = shape(d, 1);
    for (int k = 0; k < n; k++) {
        kn_shape s = first;
        int how = roll(d, 0, 5);
        if (how == 0)
            s = shape(d, 1);
        else if (how == 1 && first.rank > 0) /* one per channel */
            s = kn_shape_make(1, &first.d[first.rank - 1]);
        else if (how == 2 && first.rank > 0) /* one per sample */
            s = kn_shape_make(1, &first.d[0]);
        else if (how == 3 && first.rank > 0)
            s.d[roll(d, 0, first.rank - 1)] = roll(d, 1, 5);
        in[k] = (kn_op_table[op].optional >> k & 1) != 0 && roll(d, 0, 3) == 0 ? KN_NONE
                : is_index(op, k)                                              ? kn_input(r->g, INPUTS, s, KN_I32)
                                                                               : kn_input(r->g, k % INPUTS, s, KN_F32);
    }
    return n;
}

/* An op that writes or names a parameter, or has no value, is not drawn here. */
static bool drawn(kn_op op)
{
    return op != KN_OP_PARAM && op != KN_OP_ACCUMULATE && op != KN_OP_BLEND && op != KN_OP_INPUT && op != KN_OP_OUTPUT;
}

static void bind_values(kt_rig *r)
{
    static float values[INPUTS][ELEMENTS];
    static int32_t indices[ELEMENTS];
    for (int k = 0; k < INPUTS; k++) {
        for (int i = 0; i < ELEMENTS; i++)
            values[k][i] = 1.1f + kt_random(9 + (uint64_t)k, (uint64_t)i);
        r->b.in[k] = values[k];
    }
    for (int i = 0; i < ELEMENTS; i++)
        indices[i] = i % LABELS == 7 ? -1 : i % 2; /* some are out of every range */
    r->b.in[INPUTS] = indices;
}

/* Builds the trial; 0 when inference refused it (with a message), else the number of outputs. */
static int build(kt_rig *r, kn_op op, uint64_t seed)
{
    es_error err = {.code = ES_OK};
    dice d = {.seed = seed};
    kn_val in[KN_IN_MAX] = {KN_NONE};
    kn_graph_reset(r->g);
    kn_attr a = attributes(&d);
    int n = operands(r, op, &d, in);
    ck_assert_int_eq(kn_graph_status(r->g, &err), ES_OK);
    kn_val out = kn_emit(r->g, op, &a, in, n);
    es_status s = kn_graph_status(r->g, &err);
    ck_assert((s == ES_OK) == (out != KN_NONE));
    if (s != ES_OK) {
        ck_assert_msg((s == ES_INVALID || s == ES_UNSUPPORTED) && err.text[0] != '\0', "%s: %s", kn_op_table[op].name,
                      es_status_name(s));
        return 0;
    }
    for (uint32_t k = 0; k < kn_op_table[op].n_out; k++) {
        kn_shape o = kn_shape_of(r->g, out + k);
        for (int i = 0; i < o.rank; i++)
            ck_assert_msg(o.d[i] >= 1 && o.d[i] <= 10000, "%s gives dimension %d", kn_op_table[op].name, o.d[i]);
        ck_assert_int_le(kn_shape_count(&o), 1 << 24);
        if (kn_dtype_of(r->g, out + k) == KN_F32)
            kn_output(r->g, (int)k, out + k);
    }
    return kn_op_table[op].n_out;
}

START_TEST(random_operands)
    {
        kt_rig *ref = kt_open("reference", NULL, NULL), *cpu = kt_open("cpu:2", NULL, NULL);
        bind_values(ref);
        bind_values(cpu);
        int never = 0;
        for (kn_op op = 0; op < KN_OP_COUNT; op++) {
            int ran = 0;
            for (uint64_t seed = 0; drawn(op) && seed < TRIALS && ran < 60; seed++) {
                es_error err, other;
                int n = build(ref, op, seed * KN_OP_COUNT + op);
                if (n == 0)
                    continue;
                build(cpu, op, seed * KN_OP_COUNT + op);
                es_status a = kt_try(ref, true, &err), b = kt_try(cpu, false, &other);
                ck_assert_msg(a == b, "%s, seed %d: reference %s, cpu %s", kn_op_table[op].name, (int)seed,
                              es_status_name(a), es_status_name(b));
                ck_assert_msg(a == ES_OK || (a == ES_INVALID && err.text[0] != '\0'), "%s: %s", kn_op_table[op].name,
                              es_status_name(a));
                ran++;
                for (int k = 0; a == ES_OK && k < n; k++) {
                    double off = kt_distance(cpu->out[k], ref->out[k], ref->out_count[k]);
                    ck_assert_msg(off <= 1e-3 || !isfinite(ref->out[k][0]), "%s, seed %d: output %d is off by %g",
                                  kn_op_table[op].name, (int)seed, k, off);
                }
            }
            if (drawn(op) && ran == 0) {
                fprintf(stderr, "%s: no trial had fitting operands\n", kn_op_table[op].name);
                never++;
            }
        }
        ck_assert_int_le(never, 6); /* ops of many operands are found rarely; each has a test of its own elsewhere */
        kt_close(&ref);
        kt_close(&cpu);
    }
END_TEST

ES_TEST_MAIN("misuse", random_operands)
