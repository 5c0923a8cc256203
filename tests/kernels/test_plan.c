/* Plans of random graphs: fused and unfused, on both devices, give the same numbers; no step reads memory that somebody else has written over. */
#include <malloc.h>

#include "base/arena.h"
#include "kernels/plan/plan_internal.h"
#include "tests/check_main.h"
#include "tests/kernels/harness.h"

enum { GRAPHS = 120, BATCH = 3, POOL = 24 };

typedef struct dice {
    uint64_t seed, n;
} dice;

static int roll(dice *d, int sides) { return (int)((kt_random(d->seed, d->n++) + 1) / 2 * (float)sides); }

typedef struct space {
    kn_params *params, *stats;
    kn_param linear, conv, depthwise, gamma, beta, mean;
} space;

static space make_space(void)
{
    es_error err;
    space s = {.params = kn_params_new(), .stats = kn_params_new()};
    kt_ok(kn_params_add(s.params, "linear", KN_SHAPE(8, 8), KN_INIT_HE_OUT, 0, &s.linear, &err), &err);
    kt_ok(kn_params_add(s.params, "conv", KN_SHAPE(8, 3, 3, 8), KN_INIT_HE_OUT, 0, &s.conv, &err), &err);
    kt_ok(
        kn_params_add(s.params, "depthwise", KN_SHAPE(5, 5, 8), KN_INIT_HE_OUT, KN_PARAM_DEPTHWISE, &s.depthwise, &err),
        &err);
    kt_ok(kn_params_add(s.params, "gamma", KN_SHAPE(8), KN_INIT_ONE, 0, &s.gamma, &err), &err);
    kt_ok(kn_params_add(s.params, "beta", KN_SHAPE(8), KN_INIT_UNIFORM_IN, 0, &s.beta, &err), &err);
    kt_ok(kn_params_add(s.stats, "mean", KN_SHAPE(8), KN_INIT_ZERO, 0, &s.mean, &err), &err);
    kn_params_seal(s.params);
    kn_params_seal(s.stats);
    return s;
}

static void free_space(space *s)
{
    kn_params_destroy(&s->params);
    kn_params_destroy(&s->stats);
}

/* The first channels of a parameter; convolution kernels are centred. */
static kn_val part(kn_graph *g, const space *s, kn_param id, int out, int in)
{
    kn_shape full = kn_params_def(s->params, id)->shape;
    kn_box b = kn_box_full(&full);
    b.extent[full.rank == 3 ? 2 : 0] = out;
    if (full.rank == 2 || full.rank == 4)
        b.extent[full.rank - 1] = in;
    if (full.rank == 3)
        b.start[0] = b.start[1] = 1, b.extent[0] = b.extent[1] = 3;
    return kn_param_slice(g, KN_SET_WEIGHTS, id, &b);
}

/* One more value from earlier ones: images [BATCH, 4, 4, c] with c from 1 to 8. */
static kn_val grow(kn_graph *g, const space *s, dice *d, const kn_val *pool, int n)
{
    kn_val a = pool[roll(d, n)], b = pool[roll(d, n)];
    int ca = kn_shape_of(g, a).d[3], cb = kn_shape_of(g, b).d[3], out = 1 + roll(d, 8);
    switch (roll(d, 16)) {
    case 0: return ca == cb ? kn_add(g, a, b) : kn_scale(g, a, 0.5f);
    case 1: return ca == cb ? kn_mul(g, a, kn_activate(g, b, KN_ACT_SIGMOID)) : kn_shift(g, a, 0.5f);
    case 2: return kn_activate(g, a, (kn_act)(1 + roll(d, KN_ACT_TANH)));
    case 3: return kn_linear(g, a, part(g, s, s->linear, out, ca));
    case 4: return kn_conv2d(g, a, part(g, s, s->conv, out, ca), 1, 1, 1, 1);
    case 5: return kn_depthwise(g, a, part(g, s, s->depthwise, ca, 0), 1, 1, 1);
    case 6: return kn_batch_norm(g, a, part(g, s, s->gamma, ca, 0), part(g, s, s->beta, ca, 0), 1e-2f, KN_ACT_TANH).y;
    case 7:
        return kn_activate(g, kn_batch_norm(g, a, part(g, s, s->gamma, ca, 0), KN_NONE, 1e-2f, KN_ACT_NONE).y,
                           KN_ACT_HSWISH);
    case 8: return kn_bias_act(g, a, part(g, s, s->beta, ca, 0), KN_ACT_SILU);
    case 9: return kn_activate(g, kn_add(g, a, part(g, s, s->beta, ca, 0)), KN_ACT_GELU);
    case 10: return kn_mul(g, a, kn_activate(g, kn_global_avg_pool(g, a), KN_ACT_HSIGMOID));
    case 11: return kn_transpose(g, a, (int[]){0, 2, 1, 3});
    case 12: return ca + cb <= 8 ? kn_concat(g, (kn_val[]){a, b}, 2, 3) : kn_sub(g, a, kn_detach(g, a));
    case 13: {
        kn_shape image = kn_shape_of(g, a);
        return kn_reshape(
            g, kn_matmul(g, kn_reshape(g, a, KN_SHAPE(BATCH * 16, ca)), part(g, s, s->linear, ca, ca), false, false),
            image);
    }
    case 14: return kn_slice(g, a, &(kn_box){.start = {0, 0, 0, ca > 1}, .extent = {BATCH, 4, 4, ca > 1 ? ca - 1 : 1}});
    default: return kn_add(g, a, kn_scale(g, a, 0.25f));
    }
}

static void build_random(kt_rig *r, const space *s, uint64_t seed)
{
    es_error err;
    dice d = {.seed = 1000 + seed};
    kn_graph *g = r->g;
    kn_val pool[POOL], x;
    float v[BATCH * 16 * 3];
    for (int i = 0; i < BATCH * 16 * 3; i++)
        v[i] = kt_random(seed, (uint64_t)i);
    x = pool[0] = kt_input(r, 0, KN_SHAPE(BATCH, 4, 4, 3), v);
    int n = 1, length = 4 + roll(&d, POOL - 4);
    while (n < length) {
        pool[n] = grow(g, s, &d, pool, n);
        kt_ok(kn_graph_status(g, &err), &err);
        n++;
    }
    kn_val loss = KN_NONE;
    for (int i = n - 1; i >= 0 && i >= n - 3; i--) {
        kn_val m = kn_reduce_mean(g, kn_mul(g, pool[i], pool[i]), KN_AXES_ALL);
        m = kn_reshape(g, m, KN_SHAPE(1));
        loss = loss == KN_NONE ? m : kn_add(g, loss, m);
    }
    kn_output(g, 0, loss);
    kn_output(g, 1, pool[n - 1]);
    kn_output(g, 2, pool[roll(&d, n)]);
    kn_val dx;
    if (roll(&d, 3) == 0) { /* second order: the gradient's length is part of the loss */
        kt_ok(kn_grad(g, loss, &x, 1, &dx, &err), &err);
        loss = kn_add(g, loss, kn_reshape(g, kn_reduce_mean(g, kn_mul(g, dx, dx), KN_AXES_ALL), KN_SHAPE(1)));
    }
    kt_ok(kn_grad_params(g, loss, NULL, NULL, &err), &err);
    kt_ok(kn_grad(g, loss, &x, 1, &dx, &err), &err);
    kn_output(g, 3, dx);
    kn_val moving = kn_reduce_mean(g, kn_reshape(g, pool[0], KN_SHAPE(BATCH * 16, 3)), 1);
    kn_blend_param(g, KN_SET_STATS, s->mean, &(kn_box){.extent = {3}}, kn_reshape(g, moving, KN_SHAPE(3)),
                   kn_scalar(g, 2));
    r->b.scalar[2] = 0.25f;
}

/* Who wrote what a value's reader must find: the value itself, or the last term that was added into it. */
static kn_val writer(const kn_plan *p, kn_val v)
{
    for (;;) {
        const kn_node *n = kn_node_of(p->w, v);
        if (n->op == KN_OP_RESHAPE)
            v = n->in[0];
        else if (n->op == KN_OP_ADD && p->dropped[p->w->values[v].node])
            v = p->values[n->in[0]].added ? n->in[0] : n->in[1];
        else
            return v;
    }
}

/* Replays the steps on a map of the workspace: every input still holds what its producer wrote, every address is inside. */
static void check_memory(const kn_plan *p)
{
    size_t bytes = kn_plan_workspace_bytes(p), units = bytes / 256;
    kn_val *owner = es_xcalloc(units + 1, sizeof *owner);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const kn_step *s = &p->steps[i];
        const kn_node *n = &p->w->nodes[s->node];
        for (int k = 0; k < n->n_in; k++) {
            if (s->in[k].base != KN_BASE_WORKSPACE)
                continue;
            size_t first = (size_t)s->in[k].offset / 256, size = (size_t)kn_shape_count(&s->call.in[k].shape) * 4;
            ck_assert_uint_le((size_t)s->in[k].offset + size, bytes);
            for (size_t u = first; u < first + (size + 255) / 256; u++)
                ck_assert_msg(owner[u] == writer(p, n->in[k]),
                              "step %u, %s, input %d: memory at unit %zu was written by value %u, not %u", i,
                              kn_op_table[n->op].name, k, u, owner[u], writer(p, n->in[k]));
        }
        size_t scratch = p->kernels[n->op].scratch == NULL ? 0 : p->kernels[n->op].scratch(&s->call);
        if (scratch > 0) {
            ck_assert_uint_le((size_t)s->scratch.offset + scratch, bytes);
            for (size_t u = (size_t)s->scratch.offset / 256; u < ((size_t)s->scratch.offset + scratch + 255) / 256; u++)
                owner[u] = UINT32_MAX;
            for (int k = 0; k < n->n_in; k++) /* scratch lies apart from what the step reads */
                for (size_t u = (size_t)s->in[k].offset / 256;
                     s->in[k].base == KN_BASE_WORKSPACE && u <= (size_t)s->in[k].offset / 256; u++)
                    ck_assert_uint_ne(owner[u], UINT32_MAX);
        }
        for (int k = 0; k < n->n_out; k++) {
            if (s->out[k].base != KN_BASE_WORKSPACE)
                continue;
            size_t first = (size_t)s->out[k].offset / 256, size = (size_t)kn_shape_count(&s->call.out[k].shape) * 4;
            ck_assert_uint_le((size_t)s->out[k].offset + size, bytes);
            for (size_t u = first; u < first + (size + 255) / 256; u++) {
                ck_assert_uint_ne(owner[u], UINT32_MAX - 1 - i); /* two outputs of one step lie apart */
                ck_assert_msg(scratch == 0 || owner[u] != UINT32_MAX || u < (size_t)s->scratch.offset / 256 ||
                                  u >= ((size_t)s->scratch.offset + scratch + 255) / 256,
                              "step %u: output %d lies in the scratch", i, k);
                owner[u] = n->out + (uint32_t)k;
            }
        }
    }
    free(owner);
}

typedef struct result {
    float *out[4], *grads, *stats;
    int64_t n[4], n_grads;
    size_t steps, bytes;
} result;

static result run_random(const char *device, const space *s, uint64_t seed, bool no_fuse)
{
    es_error err;
    result o;
    kt_rig *r = kt_open(device, s->params, s->stats);
    kt_ok(kn_weights_init(r->w[0], 3, &err), &err);
    kt_ok(kn_weights_init(r->w[1], 4, &err), &err);
    build_random(r, s, seed);
    kt_run(r, no_fuse);
    check_memory(r->plan);
    for (int i = 0; i < 4; i++) {
        o.n[i] = r->out_count[i];
        o.out[i] = r->out[i];
        r->out[i] = NULL;
    }
    o.n_grads = kn_params_elements(s->params);
    o.grads = es_xcalloc((size_t)o.n_grads, sizeof(float));
    memcpy(o.grads, kn_weights_grads(r->w[0]), (size_t)o.n_grads * sizeof(float));
    o.stats = es_xcalloc((size_t)kn_params_elements(s->stats), sizeof(float));
    memcpy(o.stats, kn_weights_values(r->w[1]), (size_t)kn_params_elements(s->stats) * sizeof(float));
    o.steps = kn_plan_steps(r->plan);
    o.bytes = kn_plan_workspace_bytes(r->plan);
    kt_close(&r);
    return o;
}

static void free_result(result *o)
{
    for (int i = 0; i < 4; i++)
        free(o->out[i]);
    free(o->grads);
    free(o->stats);
}

static void same(const result *a, const result *b, double tolerance, uint64_t seed, const char *what)
{
    for (int i = 0; i < 4; i++) {
        double d = kt_distance(a->out[i], b->out[i], b->n[i]);
        ck_assert_msg(d <= tolerance, "graph %llu, %s: output %d is off by %g", (unsigned long long)seed, what, i, d);
    }
    double d = kt_distance(a->grads, b->grads, b->n_grads);
    ck_assert_msg(d <= tolerance, "graph %llu, %s: gradients are off by %g", (unsigned long long)seed, what, d);
    ck_assert_msg(kt_distance(a->stats, b->stats, 8) <= tolerance, "graph %llu, %s: statistics",
                  (unsigned long long)seed, what);
}

START_TEST(random_graphs)
    {
        space s = make_space();
        size_t steps[2] = {0}, bytes[2] = {0};
        for (uint64_t seed = 0; seed < GRAPHS; seed++) {
            result want = run_random("reference", &s, seed, true), fused = run_random("reference", &s, seed, false);
            result cpu = run_random("cpu:2", &s, seed, true), cpu_fused = run_random("cpu:2", &s, seed, false),
                   again = run_random("cpu:1", &s, seed, false);
            same(&fused, &want, 1e-4, seed, "reference, fused");
            same(&cpu, &want, 1e-3, seed, "cpu");
            same(&cpu_fused, &want, 1e-3, seed, "cpu, fused");
            same(&again, &cpu_fused, 0, seed, "cpu with one thread against two: bits");
            steps[0] += cpu.steps, steps[1] += cpu_fused.steps;
            bytes[0] += cpu.bytes, bytes[1] += cpu_fused.bytes;
            free_result(&want), free_result(&fused), free_result(&cpu), free_result(&cpu_fused), free_result(&again);
        }
        ck_assert_uint_lt(steps[1], steps[0] * 9 / 10); /* fusion does something */
        ck_assert_uint_le(bytes[1], bytes[0]);
        free_space(&s);
    }
END_TEST

/* The gradient of a product goes straight into the strided slice; the residual's two gradients meet without an addition of their own. */
START_TEST(sums_go_to_their_producers)
    {
        es_error err;
        space s = make_space();
        kt_rig *r = kt_open("reference", s.params, NULL);
        kt_ok(kn_weights_init(r->w[0], 3, &err), &err);
        float v[2 * 4];
        for (int i = 0; i < 8; i++)
            v[i] = kt_random(1, (uint64_t)i);
        kn_val x = kt_input(r, 0, KN_SHAPE(2, 4), v);
        x = kn_linear(r->g, x, part(r->g, &s, s.linear, 4, 4));
        for (int i = 0; i < 2; i++) {
            kn_val y = kn_linear(r->g, x, part(r->g, &s, s.linear, 5, 4));
            x = kn_add(r->g, x, kn_linear(r->g, kn_activate(r->g, y, KN_ACT_TANH), part(r->g, &s, s.linear, 4, 5)));
        }
        kn_val loss = kn_reduce_mean(r->g, kn_mul(r->g, x, x), KN_AXES_ALL);
        kt_ok(kn_grad_params(r->g, loss, NULL, NULL, &err), &err);
        kn_output(r->g, 0, loss);
        kt_run(r, false);
        int accumulates = 0, adds = 0, outputs = 0, sums = 0;
        for (uint32_t i = 0; i < r->plan->n_steps; i++) {
            kn_op op = r->plan->w->nodes[r->plan->steps[i].node].op;
            accumulates += op == KN_OP_ACCUMULATE;
            adds += op == KN_OP_ADD;
            outputs += op == KN_OP_OUTPUT;
            sums += op == KN_OP_MATMUL && r->plan->steps[i].call.accumulate != 0;
        }
        ck_assert_int_eq(accumulates, 0);
        ck_assert_int_eq(adds, 2); /* forward: the sums' terms are read again by the gradients */
        ck_assert_int_eq(outputs, 0);
        ck_assert_int_eq(sums, 5 + 2); /* five weight gradients, two residual branches */
        kt_close(&r);
        free_space(&s);
    }
END_TEST

START_TEST(dead_nodes_do_not_run)
    {
        kt_rig *r = kt_open("cpu:1", NULL, NULL);
        float v[4] = {1, 2, 3, 4};
        kn_val x = kt_input(r, 0, KN_SHAPE(4), v);
        kn_val y = kn_scale(r->g, x, 2);
        for (int i = 0; i < 10; i++)
            x = kn_activate(r->g, x, KN_ACT_TANH);
        kn_output(r->g, 0, y);
        kt_run(r, false);
        ck_assert_uint_eq(kn_plan_steps(r->plan), 1);
        ck_assert_uint_eq(kn_plan_workspace_bytes(r->plan), 0); /* it writes where the caller said */
        ck_assert_float_eq(r->out[0][3], 8);
        kt_close(&r);
    }
END_TEST

START_TEST(equal_constants_are_made_once)
    {
        kt_rig *r = kt_open("cpu:1", NULL, NULL);
        float v[4] = {1, 2, 3, 4};
        kn_val x = kt_input(r, 0, KN_SHAPE(4), v);
        for (int i = 0; i < 40; i++) /* more kinds than are remembered */
            x = kn_add(r->g, kn_mul(r->g, x, kn_constant(r->g, KN_SHAPE(1), 0.5f)),
                       kn_constant(r->g, KN_SHAPE(4), (float)(i / 2)));
        kn_output(r->g, 0, x);
        kt_run(r, false);
        int constants = 0;
        for (uint32_t i = 0; i < r->plan->n_steps; i++)
            constants += r->plan->w->nodes[r->plan->steps[i].node].op == KN_OP_CONSTANT;
        ck_assert_int_le(constants, 20 + 3);
        float got[4];
        memcpy(got, r->out[0], sizeof got);
        kt_run(r, true);
        ck_assert_mem_eq(got, r->out[0], sizeof got);
        kt_close(&r);
    }
END_TEST

/* A chain of elementwise ops needs one buffer, not ten. */
START_TEST(elementwise_chains_work_in_place)
    {
        kt_rig *r = kt_open("reference", NULL, NULL);
        float v[1024] = {0};
        kn_val x = kt_input(r, 0, KN_SHAPE(1024), v);
        for (int i = 0; i < 10; i++)
            x = kn_activate(r->g, x, KN_ACT_SIGMOID);
        kn_output(r->g, 0, kn_reduce_sum(r->g, x, KN_AXES_ALL));
        kt_run(r, false);
        ck_assert_uint_eq(kn_plan_workspace_bytes(r->plan), 4096);
        kt_run(r, true);
        ck_assert_uint_eq(kn_plan_workspace_bytes(r->plan),
                          2 * 4096); /* the result goes to a copy: at most two are alive */
        kt_close(&r);
    }
END_TEST

START_TEST(planning_again_allocates_nothing)
    {
        space s = make_space();
        kt_rig *r = kt_open("cpu:1", s.params, s.stats);
        for (uint64_t seed = 0; seed < 30; seed++) {
            kn_graph_reset(r->g);
            build_random(r, &s, seed);
            kt_run(r, false);
        }
        uint32_t caps[] = {r->plan->cap_steps, r->plan->cap_values, r->plan->cap_nodes, r->plan->w->cap_nodes,
                           r->g->cap_nodes,    r->g->cap_values,    r->g->cap_grad};
        const kn_step *steps = r->plan->steps;
        for (uint64_t seed = 0; seed < 30; seed++) {
            kn_graph_reset(r->g);
            build_random(r, &s, seed);
            kt_run(r, false);
        }
        uint32_t after[] = {r->plan->cap_steps, r->plan->cap_values, r->plan->cap_nodes, r->plan->w->cap_nodes,
                            r->g->cap_nodes,    r->g->cap_values,    r->g->cap_grad};
        ck_assert_mem_eq(caps, after, sizeof caps);
        ck_assert_ptr_eq(steps, r->plan->steps);
        kt_close(&r);
        free_space(&s);
    }
END_TEST

START_TEST(running_allocates_nothing)
    {
        es_error err;
        space s = make_space();
        kt_rig *r = kt_open("cpu:1", s.params, s.stats);
        for (uint64_t seed = 0; seed < 5; seed++) {
            kn_graph_reset(r->g);
            build_random(r, &s, seed);
            kt_run(r, false);
            size_t before = mallinfo2().uordblks;
            for (int i = 0; i < 3; i++)
                kt_ok(kn_run(r->plan, r->ws, &r->b, &err), &err);
            ck_assert_uint_eq(mallinfo2().uordblks, before);
        }
        kt_close(&r);
        free_space(&s);
    }
END_TEST

static void same_weights(kt_rig *r)
{
    es_error err;
    for (int set = 0; set < 2; set++)
        kt_ok(kn_weights_init(r->w[set], 3, &err), &err);
}

/* A plan that was trimmed runs as before, and can be made anew. */
START_TEST(trimmed_plans_run)
    {
        es_error err;
        space s = make_space();
        kt_rig *r = kt_open("cpu:1", s.params, s.stats);
        for (uint64_t seed = 0; seed < 20; seed++) {
            float *was[KN_SLOTS] = {NULL};
            kn_graph_reset(r->g);
            build_random(r, &s, seed);
            same_weights(r);
            kt_run(r, false);
            for (int i = 0; i < KN_SLOTS; i++) {
                size_t bytes = r->b.out[i] ? (size_t)r->out_count[i] * sizeof(float) : 0;
                if (bytes == 0)
                    continue;
                was[i] = memcpy(es_xcalloc(1, bytes), r->out[i], bytes);
                memset(r->out[i], 0xff, bytes);
            }
            size_t before = mallinfo2().uordblks;
            kn_plan_trim(r->plan);
            if (before > 0) /* the heap of a sanitizer does not say */
                ck_assert_uint_lt(mallinfo2().uordblks, before);
            same_weights(r);
            kt_ok(kn_run(r->plan, r->ws, &r->b, &err), &err);
            for (int i = 0; i < KN_SLOTS; i++) {
                if (was[i])
                    ck_assert_mem_eq(was[i], r->out[i], (size_t)r->out_count[i] * sizeof(float));
                free(was[i]);
            }
        }
        kt_close(&r);
        free_space(&s);
    }
END_TEST

/* One output to two slots, an input handed through, a parameter handed through, a constant. */
START_TEST(outputs_of_every_kind)
    {
        es_error err;
        space s = make_space();
        kt_rig *r = kt_open("cpu:1", s.params, NULL);
        kt_ok(kn_weights_init(r->w[0], 3, &err), &err);
        float v[2] = {3, 4};
        kn_val x = kt_input(r, 0, KN_SHAPE(2), v), y = kn_scale(r->g, x, 2);
        kn_output(r->g, 0, y);
        kn_output(r->g, 1, y);
        kn_output(r->g, 2, x);
        kn_output(r->g, 3, part(r->g, &s, s.linear, 2, 3));
        kn_output(r->g, 4, kn_constant(r->g, KN_SHAPE(2), 1.5f));
        kn_output(r->g, 5, kn_reshape(r->g, part(r->g, &s, s.linear, 2, 3), KN_SHAPE(3, 2)));
        kn_output(r->g, 6, kn_scalar(r->g, 3));
        kn_output(r->g, 7, kn_activate(r->g, y, KN_ACT_SQUARE)); /* reads y, which lives in the caller's memory */
        r->b.scalar[3] = 7;
        kt_run(r, false);
        const float *w = kn_weights_values(r->w[0]);
        ck_assert_float_eq(r->out[0][1], 8);
        ck_assert_float_eq(r->out[1][1], 8);
        ck_assert_float_eq(r->out[2][0], 3);
        ck_assert_float_eq(r->out[3][3], w[8]);
        ck_assert_float_eq(r->out[4][1], 1.5f);
        ck_assert_float_eq(r->out[5][3], w[8]);
        ck_assert_float_eq(r->out[6][0], 7);
        ck_assert_float_eq(r->out[7][0], 36);
        kt_close(&r);
        free_space(&s);
    }
END_TEST

static void expect(es_status got, es_status want, const es_error *err, const char *text)
{
    ck_assert_int_eq(got, want);
    ck_assert_msg(strstr(err->text, text) != NULL, "\"%s\" is not in \"%s\"", text, err->text);
}

START_TEST(runs_refuse_bad_bindings)
    {
        es_error err;
        space s = make_space(), other = make_space();
        kt_rig *r = kt_open("cpu:1", s.params, NULL);
        float v[3] = {0}, out[4];
        kn_val y = kn_linear(r->g, kn_activate(r->g, kn_input(r->g, 5, KN_SHAPE(1, 3), KN_F32), KN_ACT_RELU),
                             part(r->g, &s, s.linear, 4, 3));
        kn_output(r->g, 9, y);
        kt_ok(kn_plan_make(r->dev, r->g, NULL, &r->plan, &err), &err);
        kn_binding b = {.in[5] = v, .out[9] = out, .weights = {r->w[0], NULL}};
        expect(kn_run(r->plan, NULL, &b, &err), ES_INVALID, &err, "needs a workspace");
        kt_ok(kn_workspace_reserve(r->ws, kn_plan_workspace_bytes(r->plan), &err), &err);
        kt_ok(kn_run(r->plan, r->ws, &b, &err), &err);
        b.in[5] = NULL;
        expect(kn_run(r->plan, r->ws, &b, &err), ES_INVALID, &err, "input slot 5");
        b.in[5] = v, b.out[9] = NULL;
        expect(kn_run(r->plan, r->ws, &b, &err), ES_INVALID, &err, "output slot 9");
        b.out[9] = out, b.weights[0] = NULL;
        expect(kn_run(r->plan, r->ws, &b, &err), ES_INVALID, &err, "parameter set 0");
        kn_weights *w = NULL;
        kt_ok(kn_weights_new(r->dev, other.params, 0, &w, &err), &err);
        b.weights[0] = w;
        expect(kn_run(r->plan, r->ws, &b, &err), ES_INVALID, &err, "other parameters");
        kn_weights_destroy(&w);
        kt_ok(kn_weights_new(r->dev, s.params, 0, &w, &err), &err); /* without gradients */
        b.weights[0] = w;
        kt_ok(kn_run(r->plan, r->ws, &b, &err), &err);
        kt_ok(kn_grad_params(r->g, kn_reduce_sum(r->g, y, KN_AXES_ALL), NULL, NULL, &err), &err);
        kt_ok(kn_plan_make(r->dev, r->g, NULL, &r->plan, &err), &err);
        kt_ok(kn_workspace_reserve(r->ws, kn_plan_workspace_bytes(r->plan), &err), &err);
        expect(kn_run(r->plan, r->ws, &b, &err), ES_INVALID, &err, "KN_WITH_GRAD");
        kn_weights_destroy(&w);
        kn_plan_options half = {.precision = KN_PRECISION_BF16};
        expect(kn_plan_make(r->dev, r->g, &half, &r->plan, &err), ES_UNSUPPORTED, &err, "f32 only");
        kn_add(r->g, y, kn_constant(r->g, KN_SHAPE(3), 1));
        expect(kn_plan_make(r->dev, r->g, NULL, &r->plan, &err), ES_INVALID, &err, "broadcast");
        kt_close(&r);
        free_space(&s);
        free_space(&other);
    }
END_TEST

ES_TEST_MAIN("plan", random_graphs, sums_go_to_their_producers, dead_nodes_do_not_run, equal_constants_are_made_once,
             elementwise_chains_work_in_place, planning_again_allocates_nothing, running_allocates_nothing,
             trimmed_plans_run, outputs_of_every_kind, runs_refuse_bad_bindings)
