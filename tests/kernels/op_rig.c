#include "tests/kernels/op_cases.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/ops/ops_internal.h"

int64_t op_nth(const kn_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->shape.rank - 1; d >= 0; d--) {
        at += i % t->shape.d[d] * t->stride[d];
        i /= t->shape.d[d];
    }
    return at;
}

double op_dot(const kn_tensor *a, const kn_tensor *b)
{
    double sum = 0;
    for (int64_t i = 0; i < kn_shape_count(&a->shape); i++)
        sum += (double)((const float *)a->p)[op_nth(a, i)] * ((const float *)b->p)[op_nth(b, i)];
    return sum;
}

static kn_tensor dense(void *p, kn_shape shape, kn_dtype dtype)
{
    kn_tensor t = {.p = p, .dtype = dtype, .shape = shape};
    int64_t stride = 1;
    for (int d = shape.rank - 1; d >= 0; d--) {
        t.stride[d] = stride;
        stride *= shape.d[d];
    }
    return t;
}

/* The case's shapes come from initialisers, where unused dimensions are 0. */
static kn_shape clean(const kn_shape *s) { return kn_shape_make(s->rank, s->d); }

static void add_parameters(op_rig *r)
{
    es_error err = {0};
    r->params = kn_params_new();
    for (int i = 0; i < OP_INPUTS; i++) {
        const op_input *in = &r->c->in[i];
        char name[16];
        kn_param id;
        snprintf(name, sizeof name, "p%d", i);
        if (in->kind == OP_PARAM)
            ck_assert_int_eq(kn_params_add(r->params, name, clean(&in->parent), KN_INIT_ZERO, 0, &id, &err), ES_OK);
    }
    kn_params_seal(r->params);
    r->flat = es_xcalloc((size_t)kn_params_elements(r->params) + 1, sizeof(float));
}

static void fill(float *p, int64_t n, es_rng *rng, bool positive)
{
    for (int64_t i = 0; i < n; i++)
        p[i] = positive ? 0.5f + 1.5f * es_rng_uniform(rng) : 3.0f * es_rng_uniform(rng) - 1.5f;
}

static void *random_slot(op_rig *r, int slot, kn_shape shape, es_rng *rng, bool positive)
{
    r->slot[slot] = es_xcalloc((size_t)kn_shape_count(&shape), sizeof(float));
    fill(r->slot[slot], kn_shape_count(&shape), rng, positive);
    return r->slot[slot];
}

static void add_input(op_rig *r, int i, es_rng *rng, kn_param *next)
{
    const op_input *in = &r->c->in[i];
    kn_shape shape = clean(&in->shape);
    if (in->kind == OP_ABSENT)
        return;
    if (in->kind == OP_PARAM) {
        kn_box box;
        const kn_param_def *def = kn_params_def(r->params, *next);
        for (int d = 0; d < KN_RANK_MAX; d++) {
            box.start[d] = in->start[d];
            box.extent[d] = shape.d[d];
        }
        fill(r->flat + def->offset, def->count, rng, false);
        r->leaf[i] = dense(r->flat + def->offset, def->shape, KN_F32);
        for (int d = 0; d < def->shape.rank; d++)
            r->leaf[i].p = (float *)r->leaf[i].p + box.start[d] * r->leaf[i].stride[d];
        r->leaf[i].shape = shape;
        r->in[i] = kn_param_slice(r->g, KN_SET_WEIGHTS, (*next)++, &box);
    } else if (in->kind == OP_LABELS) {
        int32_t *labels = es_xcalloc((size_t)kn_shape_count(&shape), sizeof *labels);
        for (int64_t k = 0; k < kn_shape_count(&shape); k++)
            labels[k] = (int32_t)es_rng_below(rng, (uint32_t)in->classes);
        r->slot[i] = labels;
        r->in[i] = kn_input(r->g, i, shape, KN_I32);
    } else {
        void *p = random_slot(r, i, shape, rng, in->kind == OP_POSITIVE);
        if (in->kind != OP_FIXED)
            r->leaf[i] = dense(p, shape, KN_F32);
        r->in[i] = kn_input(r->g, i, shape, KN_F32);
    }
}

static kn_val add_loss(kn_graph *g, kn_val sum, kn_val a, kn_val b)
{
    kn_val part = kn_reduce_sum(g, kn_mul(g, a, b), KN_AXES_ALL);
    part = kn_reshape(g, part, kn_shape_make(0, NULL));
    return sum == KN_NONE ? part : kn_add(g, sum, part);
}

/* Gradients of `loss` by all real leaves. */
static void add_gradients(op_rig *r, kn_val loss, bool with_r, kn_val *out)
{
    kn_val wrt[OP_DERIVATIVES], got[OP_DERIVATIVES];
    int leaf[OP_DERIVATIVES], n = 0;
    es_error err = {0};
    for (int i = 0; i < OP_INPUTS + (with_r ? 1 : 0); i++)
        if (r->leaf[i].p) {
            leaf[n] = i;
            wrt[n++] = i < OP_INPUTS ? r->in[i] : r->r;
        }
    es_status s = kn_grad(r->g, loss, wrt, n, got, &err);
    ck_assert_msg(s == ES_OK, "%s: %s: %s", r->c->name, err.where, err.text);
    for (int i = 0; i < n; i++)
        out[leaf[i]] = got[i];
}

op_rig *op_rig_new(const op_case *c, int level)
{
    op_rig *r = es_xcalloc(1, sizeof *r);
    es_rng rng = es_rng_make(es_seed_derive(2024, c->name), ES_USE_TEST, 0);
    es_error err = {0};
    kn_param next = 0;
    r->c = c;
    r->level = level;
    if (c->flags & OP_NO_GRAD)
        r->level = 0;
    else if ((c->flags & OP_ONCE) && level > 1)
        r->level = 1;
    add_parameters(r);
    const kn_params *sets[KN_SETS] = {r->params, NULL};
    r->g = kn_graph_new(sets);
    for (int i = 0; i < OP_INPUTS; i++)
        add_input(r, i, &rng, &next);
    r->y = c->build(r->g, r->in, c);
    kn_shape shape = kn_shape_of(r->g, r->y);
    r->r = kn_input(r->g, OP_SLOT_R, shape, KN_F32);
    r->leaf[OP_INPUTS] = dense(random_slot(r, OP_SLOT_R, shape, &rng, false), shape, KN_F32);
    ck_assert_msg(kn_graph_status(r->g, &err) == ES_OK, "%s: %s: %s", c->name, err.where, err.text);
    if (r->level >= 1)
        add_gradients(r, add_loss(r->g, KN_NONE, r->y, r->r), false, r->d);
    kn_val second = KN_NONE;
    for (int i = 0; i < OP_INPUTS; i++)
        if (r->level >= 1 && r->leaf[i].p) {
            int slot = OP_SLOT_S + i;
            shape = kn_shape_of(r->g, r->d[i]);
            random_slot(r, slot, shape, &rng, false);
            second = add_loss(r->g, second, r->d[i], kn_input(r->g, slot, shape, KN_F32));
        }
    if (r->level >= 2)
        add_gradients(r, second, true, r->dd);
    ck_assert_msg(kn_graph_status(r->g, &err) == ES_OK, "%s: %s: %s", c->name, err.where, err.text);
    return r;
}

void op_rig_free(op_rig **rp)
{
    op_rig *r = *rp;
    kn_graph_destroy(&r->g);
    kn_params_destroy(&r->params);
    for (int i = 0; i < KN_SLOTS; i++)
        free(r->slot[i]);
    free(r->flat);
    free(r);
    *rp = NULL;
}

static void run_reference(const op_rig *r, const kn_node *n, op_values *v)
{
    kn_call call = {.a = &n->a, .n_in = n->n_in, .n_out = n->n_out, .seed = 99, .step = 7};
    es_error err = {0};
    for (int i = 0; i < n->n_in; i++)
        call.in[i] = v->t[n->in[i]];
    for (int i = 0; i < n->n_out; i++) {
        kn_tensor *t = &v->t[n->out + (uint32_t)i];
        *t = dense(NULL, kn_shape_of(r->g, n->out + (uint32_t)i), kn_dtype_of(r->g, n->out + (uint32_t)i));
        int64_t count = kn_shape_count(&t->shape);
        t->p = v->own[n->out + (uint32_t)i] = es_xcalloc((size_t)count, sizeof(float));
        for (int64_t k = 0; k < count; k++)
            ((float *)t->p)[k] = NAN; /* what a kernel does not write shows */
        call.out[i] = *t;
    }
    kn_kernel run = kn_op_table[n->op].reference;
    ck_assert_msg(run != NULL, "%s: %s has no reference kernel", r->c->name, kn_op_table[n->op].name);
    ck_assert_msg(run(&call, &err) == ES_OK, "%s: %s: %s", r->c->name, kn_op_table[n->op].name, err.text);
}

/* Aliases; a slice is made dense. */
static void copy_dense(const op_rig *r, const kn_node *n, op_values *v)
{
    const kn_tensor *from = &v->t[n->in[0]];
    kn_tensor *to = &v->t[n->out];
    *to = dense(NULL, kn_shape_of(r->g, n->out), from->dtype);
    to->p = v->own[n->out] = es_xcalloc((size_t)kn_shape_count(&to->shape), sizeof(float));
    for (int64_t k = 0; k < kn_shape_count(&to->shape); k++)
        memcpy((float *)to->p + k, (const float *)from->p + op_nth(from, k), sizeof(float));
}

static kn_tensor slice_of(const op_rig *r, const kn_attr *a)
{
    const kn_param_def *def = kn_params_def(r->params, a->param);
    kn_tensor t = dense(r->flat + def->offset, def->shape, KN_F32);
    for (int d = 0; d < def->shape.rank; d++)
        t.p = (float *)t.p + a->box.start[d] * t.stride[d];
    t.shape = kn_shape_make(def->shape.rank, a->box.extent);
    return t;
}

op_values *op_values_new(const op_rig *r, kn_val last)
{
    op_values *v = es_xcalloc(1, sizeof *v);
    uint32_t nodes = last == OP_ALL ? r->g->n_nodes : r->g->values[last].node + 1;
    v->n = r->g->n_values;
    v->t = es_xcalloc(v->n, sizeof *v->t);
    v->own = es_xcalloc(v->n, sizeof *v->own);
    for (uint32_t i = 0; i < nodes; i++) {
        const kn_node *n = &r->g->nodes[i];
        switch (n->op) {
        case KN_OP_INPUT: v->t[n->out] = dense(r->slot[n->a.slot], n->a.shape, kn_dtype_of(r->g, n->out)); break;
        case KN_OP_PARAM: v->t[n->out] = slice_of(r, &n->a); break;
        case KN_OP_RESHAPE:
        case KN_OP_DETACH: copy_dense(r, n, v); break;
        case KN_OP_OUTPUT:
        case KN_OP_ACCUMULATE:
        case KN_OP_BLEND: break;
        default: run_reference(r, n, v);
        }
    }
    return v;
}

void op_values_free(op_values **vp)
{
    for (uint32_t i = 0; i < (*vp)->n; i++)
        free((*vp)->own[i]);
    free((*vp)->own);
    free((*vp)->t);
    free(*vp);
    *vp = NULL;
}
