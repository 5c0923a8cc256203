/* What stands around a convolution of 1x1 in bf16, where the statistics of its norm are given (a network being scored): made by its product (product.cuh) before anything is stored.
 * After storage types are known, and only where the product's kernel runs (9.0) and for shapes that it takes.
 *
 *     CONV2D -> BATCH_NORM_INFER(act)     the product scales, shifts and activates what it makes: inputs (x, w, gamma, beta, mean, var)
 *     ... -> ADD                          and adds a residual, its seventh input
 *     MUL(x, s) -> CONV2D -> ...          and multiplies the rows of each image by s, its eighth input, as it reads them (squeeze-excite)
 *
 * Of an inverted bottleneck in a scored network, passes over the expanded tensor: 9 to 5 with squeeze-excite, 6 to 4 without. The op keeps its name (a plan's work graph is not a
 * user's graph).
 */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/plan/plan_internal.h"

enum { GAMMA = 2, RESIDUAL = 6, EXCITE, IN_NORMED = 6 };

struct points {
    kn_plan *plan;
    const uint32_t *reads; /* by value */
};

static bool is_short(const kn_graph *w, kn_val v) { return w->values[v].dtype == KN_BF16; }

static int64_t rows_of(const kn_shape *s) { return kn_shape_count(s) / s->d[s->rank - 1]; }

/* A convolution that is a product of the tensors as they lie. */
static bool is_point(const kn_graph *w, const kn_node *n)
{
    if (n->op != KN_OP_CONV2D || n->n_in != 2 || n->n_out != 1)
        return false;
    const kn_shape *k = &w->values[n->in[1]].shape, *y = &w->values[n->out].shape;
    const int64_t rows = rows_of(y);
    return k->d[1] == 1 && k->d[2] == 1 && n->a.stride == 1 && n->a.pad == 0 && n->a.groups <= 1 &&
           is_short(w, n->in[0]) && is_short(w, n->in[1]) && is_short(w, n->out) && rows < 1 << 30 &&
           kn_cuda_product_fits(rows, k->d[0], k->d[3]);
}

/* x is y s with one s an image: the product reads both. */
static void excite_inside(points *f, kn_node *point)
{
    kn_graph *w = f->plan->w;
    const uint32_t producer = w->values[point->in[0]].node;
    const kn_node *m = &w->nodes[producer];
    if (m->op != KN_OP_MUL || m->n_in != 2 || f->reads[m->out] != 1)
        return;
    const kn_shape *x = &w->values[m->out].shape;
    for (int i = 0; i < 2; i++) {
        const kn_val s = m->in[i], y = m->in[1 - i];
        const kn_shape *each = &w->values[s].shape;
        if (!is_short(w, s) || !is_short(w, y) || kn_node_of(w, s)->op == KN_OP_PARAM ||
            kn_node_of(w, y)->op == KN_OP_PARAM || !kn_shape_equal(&w->values[y].shape, x) || each->rank != 4 ||
            each->d[0] != x->d[0] || each->d[1] != 1 || each->d[2] != 1 || each->d[3] != x->d[3] ||
            kn_shape_count(each) >= 1 << 30)
            continue;
        point->in[0] = y;
        point->in[EXCITE] = s;
        point->n_in = EXCITE + 1;
        kn_plan_drop(f->plan, producer);
        return;
    }
}

/* The norm's node becomes the convolution: its parameters come before it, perhaps behind the convolution's old place. */
static void norm_inside(points *f, uint32_t norm)
{
    kn_graph *w = f->plan->w;
    kn_node *n = &w->nodes[norm];
    const kn_val x = n->in[0];
    const uint32_t producer = w->values[x].node;
    const kn_node point = w->nodes[producer];
    const kn_act act = n->a.act;
    if (n->n_in != 5 || !is_point(w, &point) || point.out != x || f->reads[x] != 1 || !is_short(w, n->out))
        return;
    if (act != KN_ACT_NONE && act != KN_ACT_SILU && act != KN_ACT_HSWISH && act != KN_ACT_RELU && act != KN_ACT_RELU6)
        return;
    const float eps = n->a.eps;
    for (int k = 4; k > 0; k--)
        n->in[k + 1] = n->in[k];
    for (int k = IN_NORMED; k < KN_IN_MAX; k++)
        n->in[k] = KN_NONE;
    n->in[0] = point.in[0];
    n->in[1] = point.in[1];
    n->n_in = IN_NORMED;
    n->op = KN_OP_CONV2D;
    n->a = point.a;
    n->a.act = act;
    n->a.eps = eps;
    kn_plan_drop(f->plan, producer);
    excite_inside(f, n);
}

/* The sum's node becomes the convolution, for the same reason. */
static void residual_inside(points *f, uint32_t sum)
{
    kn_graph *w = f->plan->w;
    kn_node *n = &w->nodes[sum];
    for (int i = 0; i < 2; i++) {
        const kn_val y = n->in[i], other = n->in[1 - i], out = n->out;
        const uint32_t producer = w->values[y].node;
        kn_node *point = &w->nodes[producer];
        if (point->op != KN_OP_CONV2D || point->n_in < IN_NORMED || point->in[RESIDUAL] != KN_NONE ||
            f->reads[y] != 1 || y == other || !is_short(w, other) || !is_short(w, out) ||
            kn_node_of(w, other)->op == KN_OP_PARAM || !kn_shape_equal(&w->values[y].shape, &w->values[other].shape))
            continue;
        *n = *point;
        n->out = out;
        n->in[RESIDUAL] = other;
        n->n_in = n->n_in > RESIDUAL ? n->n_in : RESIDUAL + 1;
        kn_plan_drop(f->plan, producer);
        return;
    }
}

void kn_cuda_fuse_points(kn_plan *plan)
{
    kn_graph *w = plan->w;
    uint32_t *reads = (uint32_t *)es_xcalloc(w->n_values, sizeof *reads);
    points f = {plan, reads};
    for (uint32_t i = 0; i < w->n_nodes; i++)
        for (int k = 0; k < w->nodes[i].n_in; k++)
            reads[w->nodes[i].in[k]]++;
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        if (w->nodes[i].op == KN_OP_BATCH_NORM_INFER)
            norm_inside(&f, i);
        else if (w->nodes[i].op == KN_OP_ADD)
            residual_inside(&f, i);
    }
    free(reads);
}

/* in: x, w, gamma, beta, mean, var [, residual or none [, s of each image]] */
es_status kn_cuda_point(const kn_call *c, es_error *err)
{
    const kn_tensor *x = &c->in[0], *w = &c->in[1], *in = c->in;
    kn_product p = {};
    ES_ASSERT(!c->accumulate); /* plan_fuse.c */
    p.m = rows_of(&c->out[0].shape), p.n = w->shape.d[0], p.k = w->shape.d[3];
    p.a = x->p, p.w = w->p, p.ldw = w->stride[0], p.d = c->out[0].p;
    p.normed = true, p.act = c->a->act;
    p.norm.gamma = (const float *)in[GAMMA].p, p.norm.beta = (const float *)in[GAMMA + 1].p;
    p.norm.mean = (const float *)in[GAMMA + 2].p, p.norm.var = (const float *)in[GAMMA + 3].p, p.norm.eps = c->a->eps;
    p.residual = c->n_in > RESIDUAL ? in[RESIDUAL].p : NULL;
    p.excite = c->n_in > EXCITE ? in[EXCITE].p : NULL;
    p.pixels = x->shape.d[1] * x->shape.d[2];
    return kn_cuda_product(kn_cuda(c), &p, err);
}
