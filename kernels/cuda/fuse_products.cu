/* What follows a product of bf16 matrices, in the epilogue of cuBLASLt's kernel while its results are in registers. After storage types are known; with two-dimensional results only.
 *
 *     MATMUL -> ACTIVATE(gelu)           the product stores gelu of what it makes, and what it makes too if the gradient reads that: outputs (y, before)
 *     MATMUL -> ACTIVATE_MUL(gelu')      the gradient of the above: the product multiplies by the derivative at its third input
 *     MATMUL -> ADD                      the product adds its third input, a residual
 *
 * cuBLASLt's gelu is the tanh form (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2), at most 4.8e-4 from the exact one: an eighth of half a bf16 step at 1. In fp32 nothing
 * of this is done.
 */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/plan/plan_internal.h"

struct products {
    kn_plan *plan;
    uint32_t *reads; /* by value */
    kn_val *now;     /* by value: what its readers read */
};

static bool is_short(const kn_graph *w, kn_val v) { return w->values[v].dtype == KN_BF16; }

/* The node of a plain product that makes v, all in bf16; or none. */
static kn_node *product_of(const products *f, kn_val v)
{
    const kn_graph *w = f->plan->w;
    kn_node *n = &w->nodes[w->values[v].node];
    const kn_shape *s = &w->values[v].shape;
    const bool plain = n->op == KN_OP_MATMUL && n->n_in == 2 && n->n_out == 1 && n->out == v && n->a.act == KN_ACT_NONE;
    return plain && is_short(w, v) && s->rank == 2 && s->d[1] % KN_VEC == 0 ? n : NULL;
}

static kn_val add_value(kn_graph *w, kn_val like, uint32_t node, int index)
{
    kn_plan_room(&w->values, &w->cap_values, w->n_values + 1, sizeof *w->values);
    w->values[w->n_values] = w->values[like];
    w->values[w->n_values].node = node;
    w->values[w->n_values].index = (uint8_t)index;
    return w->n_values++;
}

/* The product makes what `node` made. */
static void take_over(products *f, uint32_t node, kn_node *product)
{
    kn_graph *w = f->plan->w;
    product->out = w->nodes[node].out;
    w->values[product->out].node = (uint32_t)(product - w->nodes);
    w->values[product->out].index = 0;
    kn_plan_drop(f->plan, node);
}

static void gelu_inside(products *f, uint32_t node)
{
    kn_graph *w = f->plan->w;
    kn_node *n = &w->nodes[node], *p = product_of(f, n->in[0]);
    const kn_val before = n->in[0], y = n->out;
    if (n->a.act != KN_ACT_GELU || n->a.order != 0 || p == NULL || !is_short(w, y))
        return;
    p->a.act = KN_ACT_GELU;
    p->a.order = 0;
    if (f->reads[before] == 1) {
        take_over(f, node, p);
        return;
    }
    const uint32_t product = (uint32_t)(p - w->nodes);
    p->out = f->now[y] = add_value(w, y, product, 0);
    f->now[before] = add_value(w, before, product, 1);
    p->n_out = 2;
    kn_plan_drop(f->plan, node);
}

/* in: that of `node` which is a product's result and read by nobody else; other: the one that the product reads then, which must be there by its time. */
static void join(products *f, uint32_t node, kn_val in, kn_val other, kn_act act)
{
    kn_graph *w = f->plan->w;
    kn_node *p = product_of(f, in);
    if (p == NULL || f->reads[in] != 1 || !is_short(w, other) || !is_short(w, w->nodes[node].out) ||
        w->values[other].node >= (uint32_t)(p - w->nodes) || w->nodes[w->values[other].node].op == KN_OP_PARAM ||
        !kn_shape_equal(&w->values[in].shape, &w->values[other].shape))
        return;
    p->in[2] = other;
    p->n_in = 3;
    p->a.act = act;
    p->a.order = act != KN_ACT_NONE;
    take_over(f, node, p);
}

void kn_cuda_fuse_products(kn_plan *plan)
{
    kn_graph *w = plan->w;
    const uint32_t values = w->n_values;
    products f = {.plan = plan};
    f.reads = (uint32_t *)es_xcalloc(values, sizeof *f.reads);
    f.now = (kn_val *)es_xcalloc(values, sizeof *f.now);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        for (int k = 0; k < w->nodes[i].n_in; k++)
            f.reads[w->nodes[i].in[k]]++;
    for (uint32_t i = 0; i < w->n_nodes; i++) { /* readers come after what they read */
        kn_node *n = &w->nodes[i];
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] < values && f.now[n->in[k]] != KN_NONE)
                n->in[k] = f.now[n->in[k]];
        if (n->op == KN_OP_ACTIVATE) {
            gelu_inside(&f, i);
        } else if (n->op == KN_OP_ACTIVATE_MUL && n->a.act == KN_ACT_GELU && n->a.order == 1) {
            join(&f, i, n->in[0], n->in[1], KN_ACT_GELU);
        } else if (n->op == KN_OP_ADD && n->in[0] != n->in[1]) {
            const bool later = w->values[n->in[0]].node > w->values[n->in[1]].node;
            join(&f, i, n->in[later ? 0 : 1], n->in[later ? 1 : 0], KN_ACT_NONE);
        }
    }
    free(f.reads);
    free(f.now);
}
