#include "tests/kernels/harness.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"

void kt_ok(es_status s, const es_error *err)
{
    char line[700];
    if (s != ES_OK)
        ck_abort_msg("%s: %s", es_status_name(s), es_error_line(err, line, sizeof line));
}

float kt_random(uint64_t seed, uint64_t index)
{
    uint32_t v[4];
    es_philox(seed, ES_USE_TEST, 0, index, v);
    return (float)((v[0] >> 8) * (2.0 / 16777216.0) - 1.0);
}

double kt_distance(const float *a, const float *b, int64_t n)
{
    double most = 0, scale = 1;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        scale = fabs(b[i]) > scale ? fabs(b[i]) : scale;
        if (!(d <= most)) /* NaN counts as the largest */
            most = isnan(d) ? INFINITY : d;
    }
    return most / scale;
}

kt_rig *kt_open(const char *device, const kn_params *weights, const kn_params *stats)
{
    es_error err;
    const kn_params *sets[KN_SETS] = {weights, stats};
    kt_rig *r = es_xcalloc(1, sizeof *r);
    kt_ok(kn_device_open(device, &r->dev, &err), &err);
    r->g = kn_graph_new(sets);
    kt_ok(kn_workspace_new(r->dev, &r->ws, &err), &err);
    for (int i = 0; i < KN_SETS; i++)
        if (sets[i] != NULL) {
            kt_ok(kn_weights_new(r->dev, sets[i], KN_WITH_GRAD, &r->w[i], &err), &err);
            r->b.weights[i] = r->w[i];
        }
    return r;
}

void kt_close(kt_rig **r)
{
    for (int i = 0; i < KN_SLOTS; i++) {
        free((*r)->out[i]);
        free((*r)->owned[i]);
    }
    kn_plan_destroy(&(*r)->plan);
    kn_workspace_destroy(&(*r)->ws);
    kn_graph_destroy(&(*r)->g);
    for (int i = 0; i < KN_SETS; i++)
        kn_weights_destroy(&(*r)->w[i]);
    kn_device_close(&(*r)->dev);
    free(*r);
    *r = NULL;
}

static void bind_copy(kt_rig *r, int slot, const void *values, size_t bytes)
{
    free(r->owned[slot]);
    r->owned[slot] = es_xcalloc(1, bytes);
    memcpy(r->owned[slot], values, bytes);
    r->b.in[slot] = r->owned[slot];
}

kn_val kt_input(kt_rig *r, int slot, kn_shape shape, const float *values)
{
    bind_copy(r, slot, values, (size_t)kn_shape_count(&shape) * sizeof *values);
    return kn_input(r->g, slot, shape, KN_F32);
}

kn_val kt_input_i32(kt_rig *r, int slot, kn_shape shape, const int32_t *values)
{
    bind_copy(r, slot, values, (size_t)kn_shape_count(&shape) * sizeof *values);
    return kn_input(r->g, slot, shape, KN_I32);
}

es_status kt_try(kt_rig *r, bool no_fuse, es_error *err)
{
    kn_plan_options o = {.precision = KN_PRECISION_F32, .no_fuse = no_fuse};
    ES_RETURN(kn_plan_make(r->dev, r->g, &o, &r->plan, err));
    for (uint32_t i = 0; i < r->g->n_nodes; i++) {
        const kn_node *n = &r->g->nodes[i];
        if (n->op != KN_OP_OUTPUT)
            continue;
        int slot = n->a.slot;
        kn_shape s = kn_shape_of(r->g, n->in[0]);
        r->out_count[slot] = kn_shape_count(&s);
        free(r->out[slot]);
        r->out[slot] = es_xcalloc((size_t)r->out_count[slot], sizeof(float));
        for (int64_t k = 0; k < r->out_count[slot]; k++)
            r->out[slot][k] = NAN; /* whoever does not write is found out */
        r->b.out[slot] = r->out[slot];
    }
    ES_RETURN(kn_workspace_reserve(r->ws, kn_plan_workspace_bytes(r->plan), err));
    ES_RETURN(kn_run(r->plan, r->ws, &r->b, err));
    return kn_device_sync(r->dev, err);
}

void kt_run(kt_rig *r, bool no_fuse)
{
    es_error err;
    kt_ok(kt_try(r, no_fuse, &err), &err);
}

/* ---- gradients against finite differences ---- */

enum { LOSS_SLOT = 31, WEIGHT_SLOT = 30, MIX_SLOT = 20, LABEL_SLOT = 29 };

static float draw(kt_range range, uint64_t seed, int64_t i, uint8_t *taken)
{
    float u = kt_random(seed, (uint64_t)i);
    if (range == KT_SMOOTH)
        return 1.5f * u;
    if (range == KT_POSITIVE)
        return 1.25f + 0.75f * u;
    int k = (int)((u + 1) * 32);
    for (int step = 0; step < 64; step++) {
        int at = (k + step) % 64;
        if (taken[at] == 0) {
            taken[at] = 1;
            return (float)(at + 0.5) * 0.25f - 8.0f;
        }
    }
    ck_abort_msg("more than 64 distinct values");
    return 0;
}

/* sum of v times a fixed random tensor */
static kn_val combine(kt_rig *r, kn_val v, int slot)
{
    kn_shape s = kn_shape_of(r->g, v);
    int64_t n = kn_shape_count(&s);
    float *q = es_xcalloc((size_t)n, sizeof *q);
    for (int64_t i = 0; i < n; i++)
        q[i] = kt_random(77u + (uint64_t)slot, (uint64_t)i);
    kn_val sum = kn_reduce_sum(r->g, kn_mul(r->g, v, kt_input(r, slot, s, q)), KN_AXES_ALL);
    free(q);
    return kn_reshape(r->g, sum, KN_SHAPE(1));
}

/* The scalar whose gradient is checked: a random combination of the function's value, or of its gradients. */
static kn_val build_loss(kt_rig *r, const kt_case *c, const kn_val *in, int order)
{
    es_error err;
    kn_val loss = combine(r, c->fn(r->g, in, c->ctx), WEIGHT_SLOT), d[6], sum = KN_NONE;
    kt_ok(kn_graph_status(r->g, &err), &err);
    if (order == 1)
        return loss;
    kt_ok(kn_grad(r->g, loss, in, c->n_in, d, &err), &err);
    for (int i = 0; i < c->n_in; i++) {
        kn_val term = combine(r, d[i], MIX_SLOT + i);
        sum = sum == KN_NONE ? term : kn_add(r->g, sum, term);
    }
    return sum;
}

static void build_inputs(kt_rig *r, const kt_case *c, float *const *values, kn_val *in)
{
    for (int i = 0; i < c->n_in; i++)
        in[i] = kt_input(r, i, c->in[i].shape, values[i]);
    if (c->labels != NULL)
        in[c->n_in] = kt_input_i32(r, LABEL_SLOT, c->label_shape, c->labels);
}

/* Five-point differences of the loss by every element of every input. */
static void differences(const kt_case *c, int order, float *const *values, double *const *to)
{
    const double h = 0.04;
    kt_rig *r = kt_open("reference", NULL, NULL);
    kn_val in[7];
    build_inputs(r, c, values, in);
    kn_output(r->g, LOSS_SLOT, build_loss(r, c, in, order));
    kt_run(r, true);
    for (int i = 0; i < c->n_in; i++) {
        float *x = r->owned[i];
        for (int64_t k = 0; k < kn_shape_count(&c->in[i].shape); k++) {
            static const double at[4] = {-2, -1, 1, 2}, weight[4] = {1.0 / 12, -8.0 / 12, 8.0 / 12, -1.0 / 12};
            double sum = 0, base = x[k];
            es_error err;
            for (int j = 0; j < 4; j++) {
                x[k] = (float)(base + at[j] * h);
                kt_ok(kn_run(r->plan, r->ws, &r->b, &err), &err);
                sum += weight[j] * r->out[LOSS_SLOT][0];
            }
            x[k] = (float)base;
            to[i][k] = sum / h;
        }
    }
    kt_close(&r);
}

static void compare(const kt_case *c, int order, const char *device, bool no_fuse, float *const *values,
                    double *const *want)
{
    es_error err;
    kt_rig *r = kt_open(device, NULL, NULL);
    kn_val in[7], d[6];
    build_inputs(r, c, values, in);
    kn_val loss = build_loss(r, c, in, order);
    kt_ok(kn_grad(r->g, loss, in, c->n_in, d, &err), &err);
    for (int i = 0; i < c->n_in; i++)
        kn_output(r->g, i, d[i]);
    kt_run(r, no_fuse);
    double tolerance = c->tolerance == 0 ? 1e-3 : c->tolerance, scale = 1;
    for (int i = 0; i < c->n_in; i++)
        for (int64_t k = 0; k < r->out_count[i]; k++)
            scale = fabs(want[i][k]) > scale ? fabs(want[i][k]) : scale;
    for (int i = 0; i < c->n_in; i++)
        for (int64_t k = 0; k < r->out_count[i]; k++)
            ck_assert_msg(fabs(r->out[i][k] - want[i][k]) <= tolerance * scale,
                          "%s, order %d, %s%s: d/d input %d [%lld] is %g, differences say %g", c->name, order, device,
                          no_fuse ? " unfused" : "", i, (long long)k, r->out[i][k], want[i][k]);
    kt_close(&r);
}

void kt_gradients(const kt_case *c)
{
    float *values[6] = {NULL};
    double *want[6] = {NULL};
    uint8_t taken[64] = {0};
    for (int i = 0; i < c->n_in; i++) {
        int64_t n = kn_shape_count(&c->in[i].shape);
        values[i] = es_xcalloc((size_t)n, sizeof **values);
        want[i] = es_xcalloc((size_t)n, sizeof **want);
        for (int64_t k = 0; k < n; k++)
            values[i][k] = draw(c->in[i].range, 11u + (uint64_t)i, k, taken);
    }
    for (int order = 1; order <= c->orders; order++) {
        differences(c, order, values, want);
        compare(c, order, "reference", true, values, want);
        compare(c, order, "reference", false, values, want);
        compare(c, order, "cpu:2", true, values, want);
        compare(c, order, "cpu:2", false, values, want);
    }
    for (int i = 0; i < c->n_in; i++) {
        free(values[i]);
        free(want[i]);
    }
}
