#include "kernels/graph/autodiff.h"

#include <string.h>

#include "kernels/graph/graph_internal.h"

/* One backward pass. grad[v] is d loss / d v so far; need[v] says whether v depends on what is wanted. Both live in the graph and are indexed by value. */
typedef struct pass {
    kn_graph *g;
    /* Contributions to wanted parameter slices are added to the gradient buffers at once, each by its own producer. */
    bool to_params;
} pass;

static void reserve(kn_graph *g)
{
    if (g->cap_grad >= g->n_values)
        return;
    uint32_t had = g->cap_grad;
    g->cap_grad = g->cap_values;
    g->grad = es_xrealloc(g->grad, g->cap_grad * sizeof *g->grad);
    g->need = es_xrealloc(g->need, g->cap_grad * sizeof *g->need);
    memset(g->grad + had, 0, (g->cap_grad - had) * sizeof *g->grad);
    memset(g->need + had, 0, (g->cap_grad - had) * sizeof *g->need);
}

/* Values of nodes [first, last) that depend on a wanted one. */
static void mark_needed(kn_graph *g, uint32_t first, uint32_t last)
{
    for (uint32_t i = first; i < last; i++) {
        const kn_node *n = &g->nodes[i];
        bool any = false;
        if (kn_op_table[n->op].no_grad)
            continue; /* sources keep what the caller wanted */
        for (int k = 0; k < n->n_in; k++)
            any = any || (n->in[k] != KN_NONE && g->need[n->in[k]] != 0);
        for (int k = 0; any && k < n->n_out; k++)
            g->need[n->out + (uint32_t)k] = 1;
    }
}

static void contribute(pass *p, kn_val to, kn_val d)
{
    kn_graph *g = p->g;
    if (d == KN_NONE)
        return;
    reserve(g);
    if (p->to_params && kn_node_of(g, to)->op == KN_OP_PARAM)
        kn_accumulate_grad(g, to, d);
    else
        g->grad[to] = g->grad[to] == KN_NONE ? d : kn_add(g, g->grad[to], d);
    reserve(g);
}

static void sweep(pass *p, uint32_t first, uint32_t last);

/* Differentiates a fused op through its expansion: the simple ops are added, the gradients of the outputs handed to theirs, and swept. */
static void sweep_expansion(pass *p, const kn_node *n, const kn_val *d)
{
    kn_graph *g = p->g;
    uint32_t first = g->n_nodes;
    kn_val out[KN_OUT_MAX] = {KN_NONE};
    kn_op_table[n->op].expand(g, n, out);
    uint32_t last = g->n_nodes;
    if (g->status != ES_OK)
        return;
    reserve(g);
    mark_needed(g, first, last);
    for (int k = 0; k < n->n_out; k++)
        if (d[k] != KN_NONE && out[k] != KN_NONE && g->need[out[k]] != 0)
            contribute(p, out[k], d[k]);
    sweep(p, first, last);
}

/* Backward over nodes [first, last): nodes that it adds lie after. */
static void sweep(pass *p, uint32_t first, uint32_t last)
{
    kn_graph *g = p->g;
    for (uint32_t i = last; i-- > first && g->status == ES_OK;) {
        const kn_node n = g->nodes[i]; /* a copy: nodes are added below */
        const kn_op_info *info = &kn_op_table[n.op];
        kn_val d[KN_OUT_MAX] = {KN_NONE}, din[KN_IN_MAX] = {KN_NONE};
        bool need[KN_IN_MAX] = {false}, any_d = false, any_need = false;
        for (int k = 0; k < n.n_out; k++) {
            d[k] = g->grad[n.out + (uint32_t)k];
            any_d = any_d || d[k] != KN_NONE;
        }
        for (int k = 0; k < n.n_in; k++) {
            need[k] = n.in[k] != KN_NONE && g->need[n.in[k]] != 0;
            any_need = any_need || need[k];
        }
        if (!any_d || !any_need || info->no_grad)
            continue;
        g->scope = n.scope;
        if (info->grad != NULL) {
            info->grad(g, &n, d, need, din);
            for (int k = 0; k < n.n_in; k++)
                if (need[k])
                    contribute(p, n.in[k], din[k]);
        } else if (info->expand != NULL) {
            sweep_expansion(p, &n, d);
        } else {
            kn_graph_fail(g, ES_UNSUPPORTED, info->name,
                          "cannot be differentiated (again): it has no gradient builder and no expansion");
        }
    }
}

static es_status start(kn_graph *g, kn_val loss, es_error *err)
{
    char text[64];
    ES_RETURN(kn_graph_status(g, err));
    if (loss == KN_NONE || loss >= g->n_values)
        return es_fail(err, ES_INVALID, "gradient", "the loss is not a value of this graph");
    if (kn_shape_count(&g->values[loss].shape) != 1)
        return es_fail(err, ES_INVALID, "gradient", "the loss must have one element, not %s",
                       kn_shape_text(&g->values[loss].shape, text));
    reserve(g);
    memset(g->grad, 0, g->cap_grad * sizeof *g->grad);
    memset(g->need, 0, g->cap_grad * sizeof *g->need);
    return ES_OK;
}

static es_status run(kn_graph *g, kn_val loss, bool to_params, es_error *err)
{
    const char *scope = g->scope;
    uint32_t last = g->values[loss].node + 1;
    pass p = {.g = g, .to_params = to_params};
    mark_needed(g, 0, last);
    if (g->need[loss] != 0) {
        contribute(&p, loss, kn_constant(g, g->values[loss].shape, 1.0f));
        sweep(&p, 0, last);
    }
    g->scope = scope;
    return kn_graph_status(g, err);
}

es_status kn_grad(kn_graph *g, kn_val loss, const kn_val *wrt, int n, kn_val *out, es_error *err)
{
    ES_RETURN(start(g, loss, err));
    for (int i = 0; i < n; i++) {
        out[i] = KN_NONE;
        if (wrt[i] == KN_NONE || wrt[i] >= g->n_values)
            return es_fail(err, ES_INVALID, "gradient",
                           "number %d of what to differentiate by is not a value of this graph", i);
        g->need[wrt[i]] = 1;
    }
    ES_RETURN(run(g, loss, false, err));
    for (int i = 0; i < n; i++)
        out[i] = g->grad[wrt[i]] != KN_NONE ? g->grad[wrt[i]] : kn_constant(g, g->values[wrt[i]].shape, 0.0f);
    return kn_graph_status(g, err);
}

es_status kn_grad_params(kn_graph *g, kn_val loss, kn_wanted wanted, void *ctx, es_error *err)
{
    ES_RETURN(start(g, loss, err));
    for (uint32_t i = 0; i <= g->values[loss].node; i++) {
        const kn_node *n = &g->nodes[i];
        if (n->op == KN_OP_PARAM)
            g->need[n->out] = wanted == NULL ? n->a.set == KN_SET_WEIGHTS : wanted(ctx, n->a.set, n->a.param);
    }
    return run(g, loss, true, err);
}
