/* Squeeze-excite behind a norm whose statistics are given (the depthwise convolution made them: fuse.cu), in bf16. With y = act(norm(x)), of which each image's mean
 * makes its scales s, and y s going on:
 *
 *     BATCH_NORM_INFER -> y               gone: y is stored nowhere
 *     AFFINE(REDUCE_SUM(y))               one REDUCE_SUM of x, normalised as it is read (squeeze.cu), times a.alpha
 *     MUL(y, s)                           BATCH_NORM_INFER with s as a sixth input
 *     MUL_REDUCE(d, y)                    of d and x, as the first (squeeze.cu)
 *     ADD(MUL(d, s), BROADCAST(alpha q))  gone: BATCH_NORM_GRAD takes d, s and q (inputs 0, 6 and 7; a.alpha) for its dy
 *
 * Passes over y's tensor: forward 5 to 3, backward 11 to 7. The ops keep their names (a plan's work graph is not a user's graph).
 */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/plan/plan_internal.h"

enum { PIXELS = 1 << 1 | 1 << 2 };

/* Readers of a norm's y, as node + 1. */
struct excite_readers {
    uint32_t pool, scale, dot;
    bool other;
};

/* [n][1][1][c] beside [n][h][w][c]. */
static bool each_image(const kn_graph *w, kn_val one, kn_val all)
{
    const kn_shape *a = &w->values[one].shape, *b = &w->values[all].shape;
    return a->rank == 4 && b->rank == 4 && a->d[0] == b->d[0] && a->d[1] == 1 && a->d[2] == 1 && a->d[3] == b->d[3] &&
           b->d[1] * (int64_t)b->d[2] > 1;
}

static bool given_norm(const kn_graph *w, kn_val y)
{
    const kn_node *n = kn_node_of(w, y);
    return n->op == KN_OP_BATCH_NORM_INFER && n->n_in == 5 && n->out == y && w->values[y].shape.rank == 4;
}

/* The other of two operands. */
static kn_val beside(const kn_node *n, kn_val v) { return n->in[n->in[0] == v]; }

static void note_reader(const kn_graph *w, uint32_t node, kn_val y, excite_readers *r)
{
    const kn_node *n = &w->nodes[node];
    const uint32_t before = r->pool + r->scale + r->dot;
    if (n->op == KN_OP_REDUCE_SUM && n->a.axes == PIXELS && r->pool == 0)
        r->pool = node + 1;
    else if (n->op == KN_OP_MUL && each_image(w, beside(n, y), y) && r->scale == 0)
        r->scale = node + 1;
    else if (n->op == KN_OP_MUL_REDUCE && n->n_in == 2 && n->a.axes == PIXELS && n->in[0] != n->in[1] &&
             kn_shape_equal(&w->values[n->in[0]].shape, &w->values[n->in[1]].shape) && r->dot == 0)
        r->dot = node + 1;
    r->other = r->other || r->pool + r->scale + r->dot == before;
}

/* n reads `first` (KN_NONE: nothing) and what the norm reads. */
static void read_norm(kn_node *n, kn_val first, const kn_node *norm)
{
    const int at = first != KN_NONE;
    n->in[0] = first;
    for (int k = 0; k < 5; k++)
        n->in[at + k] = norm->in[k];
    n->n_in = (uint8_t)(5 + at);
    n->a.act = norm->a.act;
    n->a.eps = norm->a.eps;
}

static void forward(kn_plan *p)
{
    kn_graph *w = p->w;
    excite_readers *readers = (excite_readers *)es_xcalloc(w->n_values, sizeof *readers);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        for (int k = 0; k < w->nodes[i].n_in; k++)
            if (w->nodes[i].in[k] != KN_NONE && given_norm(w, w->nodes[i].in[k]))
                note_reader(w, i, w->nodes[i].in[k], &readers[w->nodes[i].in[k]]);
    for (kn_val y = 1; y < w->n_values; y++) {
        const excite_readers *r = &readers[y];
        if (r->pool == 0 || r->scale == 0 || r->other)
            continue;
        const uint32_t at = w->values[y].node;
        const kn_node norm = w->nodes[at];
        kn_node *scale = &w->nodes[r->scale - 1];
        const kn_val s = beside(scale, y);
        read_norm(&w->nodes[r->pool - 1], KN_NONE, &norm);
        if (r->dot != 0)
            read_norm(&w->nodes[r->dot - 1], beside(&w->nodes[r->dot - 1], y), &norm);
        read_norm(scale, KN_NONE, &norm);
        scale->op = KN_OP_BATCH_NORM_INFER;
        scale->in[5] = s;
        scale->n_in = 6;
        kn_plan_drop(p, at);
    }
    free(readers);
}

/* The product with a number that makes a mean of a sum. */
static void means(kn_plan *p, const uint8_t *reads)
{
    kn_graph *w = p->w;
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const kn_node *n = &w->nodes[i];
        if (n->op != KN_OP_AFFINE || n->a.beta != 0 || n->a.alpha == 0 || reads[n->in[0]] != 1)
            continue;
        const uint32_t producer = w->values[n->in[0]].node;
        kn_node *sum = &w->nodes[producer];
        if (sum->op != KN_OP_REDUCE_SUM || sum->n_in != 5)
            continue;
        sum->a.alpha = n->a.alpha;
        sum->out = n->out;
        w->values[n->out].node = producer;
        kn_plan_drop(p, i);
    }
}

/* dy of a norm's gradient, when it is a product by images and a broadcast that nobody else reads. */
static void backward(kn_plan *p, uint32_t grad, const uint8_t *reads)
{
    kn_graph *w = p->w;
    kn_node *g = &w->nodes[grad];
    const kn_val dy = g->in[0];
    const uint32_t sum = w->values[dy].node;
    if (w->nodes[sum].op != KN_OP_ADD || reads[dy] != 1)
        return;
    kn_val product = w->nodes[sum].in[0], part = w->nodes[sum].in[1];
    if (kn_node_of(w, product)->op != KN_OP_MUL)
        product = w->nodes[sum].in[1], part = w->nodes[sum].in[0];
    const kn_node *m = kn_node_of(w, product), *b = kn_node_of(w, part);
    if (m->op != KN_OP_MUL || b->op != KN_OP_BROADCAST || reads[product] != 1 || reads[part] != 1)
        return;
    const kn_val s = each_image(w, m->in[1], dy) ? m->in[1] : m->in[0], d = beside(m, s);
    kn_val q = b->in[0];
    if (!each_image(w, s, dy) || !each_image(w, q, dy) || !kn_shape_equal(&w->values[d].shape, &w->values[dy].shape))
        return;
    const kn_node *a = kn_node_of(w, q);
    const uint32_t scaled = w->values[q].node;
    g->a.alpha = 1;
    if (a->op == KN_OP_AFFINE && a->a.beta == 0 && reads[q] == 1) {
        g->a.alpha = a->a.alpha;
        q = a->in[0];
        kn_plan_drop(p, scaled);
    }
    g->in[0] = d, g->in[6] = s, g->in[7] = q;
    g->n_in = 8;
    kn_plan_drop(p, w->values[product].node);
    kn_plan_drop(p, w->values[part].node);
    kn_plan_drop(p, sum);
}

void kn_cuda_fuse_excite(kn_plan *p)
{
    const kn_graph *w = p->w;
    forward(p);
    uint8_t *reads = (uint8_t *)es_xcalloc(w->n_values, 1);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        for (int k = 0; k < w->nodes[i].n_in; k++)
            reads[w->nodes[i].in[k]] += reads[w->nodes[i].in[k]] < 2;
    means(p, reads);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].op == KN_OP_BATCH_NORM_GRAD && w->nodes[i].n_in == 6)
            backward(p, i, reads);
    free(reads);
}
