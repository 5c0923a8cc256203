/* The live part of a graph, copied to the plan's work graph in a form that the device has kernels for. */
#include <string.h>

#include "kernels/plan/plan_internal.h"

enum { ROUNDS_MAX = 8 }; /* expansions of expansions; the deepest in the table is 3 */

/* Marks what a sink needs, and counts the live reads of every value. */
static void mark_live(kn_plan *p, const kn_graph *g)
{
    kn_plan_room(&p->live, &p->cap_live, g->n_nodes, sizeof *p->live);
    kn_plan_room(&p->uses, &p->cap_uses, g->n_values, sizeof *p->uses);
    memset(p->live, 0, g->n_nodes);
    memset(p->uses, 0, g->n_values * sizeof *p->uses);
    for (uint32_t i = g->n_nodes; i-- > 0;) {
        const kn_node *n = &g->nodes[i];
        bool live = n->n_out == 0; /* sinks */
        for (int k = 0; k < n->n_out; k++)
            live = live || p->uses[n->out + (uint32_t)k] != 0;
        p->live[i] = live;
        for (int k = 0; live && k < n->n_in; k++)
            p->uses[n->in[k]]++;
    }
}

/* Adds a copy of a node whose shapes are known already; inputs are given in work values. */
static kn_val copy_node(kn_plan *p, const kn_graph *g, const kn_node *n, const kn_val *in)
{
    kn_graph *w = p->w;
    kn_plan_room(&w->nodes, &w->cap_nodes, w->n_nodes + 1, sizeof *w->nodes);
    kn_plan_room(&w->values, &w->cap_values, w->n_values + KN_OUT_MAX, sizeof *w->values);
    kn_node *c = &w->nodes[w->n_nodes];
    *c = *n;
    memcpy(c->in, in, sizeof c->in);
    c->out = n->n_out == 0 ? KN_NONE : w->n_values;
    for (uint32_t k = 0; k < n->n_out; k++) {
        w->values[w->n_values + k] = g->values[n->out + k];
        w->values[w->n_values + k].node = w->n_nodes;
    }
    w->n_values += n->n_out;
    w->n_nodes++;
    return c->out;
}

/* A dense copy of a parameter slice, made once. */
static kn_val dense_copy(kn_plan *p, kn_val v)
{
    uint32_t had = p->cap_dense;
    kn_plan_room(&p->dense, &p->cap_dense, p->w->n_values + 1, sizeof *p->dense);
    if (p->cap_dense > had)
        memset(p->dense + had, 0, (p->cap_dense - had) * sizeof *p->dense);
    if (p->dense[v] == KN_NONE) {
        kn_shape s = kn_shape_of(p->w, v);
        kn_attr a = {.box = kn_box_full(&s)};
        kn_val copy = KN_EMIT(p->w, SLICE, &a, v);
        p->dense[v] = copy;
    }
    return p->dense[v];
}

/* Replaces inputs that the kernel cannot read where they lie. */
static void make_readable(kn_plan *p, const kn_node *n, kn_val *in)
{
    if (n->op == KN_OP_ACCUMULATE || n->op == KN_OP_DETACH)
        return;
    unsigned takes = n->op == KN_OP_RESHAPE ? 0 : p->kernels[n->op].strided;
    for (int k = 0; k < n->n_in; k++) {
        if ((takes >> k & 1) != 0 || in[k] == KN_NONE || kn_node_of(p->w, in[k])->op != KN_OP_PARAM)
            continue;
        int64_t offset = 0;
        kn_tensor t = kn_plan_slice(p, &kn_node_of(p->w, in[k])->a, &offset);
        if (!kn_tensor_contiguous(&t))
            in[k] = dense_copy(p, in[k]);
    }
}

/* A small constant is made once for all its readers; a large one would occupy memory between them. */
static kn_val constant(kn_plan *p, kn_shape shape, float value)
{
    enum { SMALL = 1024, KEPT = sizeof p->constants / sizeof *p->constants };
    bool small = kn_shape_count(&shape) <= SMALL;
    for (uint32_t i = 0; small && i < KEPT && i < p->n_constants; i++) {
        kn_val v = p->constants[i];
        if (kn_shape_equal(&p->w->values[v].shape, &shape) &&
            memcmp(&kn_node_of(p->w, v)->a.alpha, &value, sizeof value) == 0)
            return v;
    }
    kn_val v = kn_constant(p->w, shape, value);
    if (small)
        p->constants[p->n_constants++ % KEPT] = v;
    return v;
}

/* A constant seen through affine, broadcast or reshape is a constant. */
static bool fold_constant(kn_plan *p, const kn_graph *g, const kn_node *n, const kn_val *in, kn_val *out)
{
    if (n->op == KN_OP_CONSTANT) {
        *out = constant(p, n->a.shape, n->a.alpha);
        return true;
    }
    if ((n->op != KN_OP_AFFINE && n->op != KN_OP_BROADCAST && n->op != KN_OP_RESHAPE) ||
        kn_node_of(p->w, in[0])->op != KN_OP_CONSTANT)
        return false;
    float v = kn_node_of(p->w, in[0])->a.alpha;
    *out = constant(p, kn_shape_of(g, n->out), n->op == KN_OP_AFFINE ? n->a.alpha * v + n->a.beta : v);
    return true;
}

/* An activation right after the only producer that can do it itself. `before` is the node that the activation reads, in the source graph. */
static bool join_activation(kn_plan *p, const kn_graph *g, const kn_node *n, const kn_val *in, kn_val *out)
{
    if (n->op != KN_OP_ACTIVATE || n->a.order != 0 || p->uses[n->in[0]] != 1)
        return false;
    kn_node *w = &p->w->nodes[p->w->values[in[0]].node];
    if (kn_node_of(g, n->in[0])->op != w->op || w->out != in[0])
        return false; /* the producer was expanded or folded */
    bool norm = w->op == KN_OP_BATCH_NORM || w->op == KN_OP_BATCH_NORM_INFER || w->op == KN_OP_BIAS_ACT;
    if (norm && w->a.act == KN_ACT_NONE) {
        w->a.act = n->a.act;
        *out = in[0];
        return true;
    }
    if (w->op != KN_OP_ADD || p->kernels[KN_OP_BIAS_ACT].run == NULL)
        return false;
    kn_shape s = kn_shape_of(p->w, w->out), a = kn_shape_of(p->w, w->in[0]), b = kn_shape_of(p->w, w->in[1]);
    if (!kn_shape_equal(&a, &s) || b.rank != 1 || s.rank < 2 || b.d[0] != s.d[s.rank - 1])
        return false;
    w->op = KN_OP_BIAS_ACT;
    w->a = (kn_attr){.act = n->a.act};
    *out = in[0];
    return true;
}

static es_status lower_node(kn_plan *p, const kn_graph *g, const kn_node *n, bool *again, es_error *err)
{
    kn_val in[KN_IN_MAX] = {KN_NONE}, *map = p->map;
    for (int k = 0; k < n->n_in; k++)
        in[k] = map[n->in[k]];
    if (n->op == KN_OP_DETACH) {
        map[n->out] = in[0];
        return ES_OK;
    }
    if (!p->options.no_fuse && (fold_constant(p, g, n, in, &map[n->out]) || join_activation(p, g, n, in, &map[n->out])))
        return ES_OK;
    if (kn_plan_supports(p, n->op)) {
        make_readable(p, n, in);
        kn_val out = copy_node(p, g, n, in);
        for (uint32_t k = 0; k < n->n_out; k++)
            map[n->out + k] = out + k;
        return ES_OK;
    }
    if (kn_op_table[n->op].expand == NULL)
        return es_fail(err, ES_UNSUPPORTED, n->scope[0] != '\0' ? n->scope : kn_op_table[n->op].name,
                       "device %s has no kernel for %s", p->dev->name, kn_op_table[n->op].name);
    kn_node copy = *n;
    kn_val out[KN_OUT_MAX] = {KN_NONE};
    memcpy(copy.in, in, sizeof in);
    p->w->scope = n->scope;
    kn_op_table[n->op].expand(p->w, &copy, out);
    for (uint32_t k = 0; k < n->n_out; k++)
        map[n->out + k] = out[k];
    *again = true; /* what it was expanded to may need the same, and dense copies */
    return kn_graph_status(p->w, err);
}

static es_status lower_once(kn_plan *p, const kn_graph *g, bool *again, es_error *err)
{
    kn_graph_reset(p->w);
    memcpy(p->w->params, g->params, sizeof g->params);
    mark_live(p, g);
    kn_plan_room(&p->map, &p->cap_map, g->n_values, sizeof *p->map);
    memset(p->map, 0, g->n_values * sizeof *p->map);
    if (p->dense != NULL)
        memset(p->dense, 0, p->cap_dense * sizeof *p->dense);
    p->n_constants = 0;
    *again = false;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (p->live[i])
            ES_RETURN(lower_node(p, g, &g->nodes[i], again, err));
    return kn_graph_status(p->w, err);
}

es_status kn_plan_lower(kn_plan *p, const kn_graph *g, es_error *err)
{
    bool again = true;
    for (int round = 0; again; round++) {
        ES_ASSERT(round < ROUNDS_MAX);
        ES_RETURN(lower_once(p, g, &again, err));
        if (again) { /* the work graph is the next round's source */
            kn_graph *made = p->w;
            p->w = p->spare;
            p->spare = made;
            g = made;
        }
    }
    return ES_OK;
}
