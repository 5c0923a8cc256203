/* What the CUDA device does to a plan's work graph before the generic fusions.
 *
 *     DEPTHWISE -> BATCH_NORM      the convolution makes mean and variance while its results are in registers: it has three outputs then, (y, mean, var), and the norm,
 *                                  with its statistics given, is a BATCH_NORM_INFER. One read of y less.
 *     DEPTHWISE -> BATCH_NORM_INFER    (bf16, statistics from parameters, nobody else reads the convolution) the convolution normalises what it stores, and has six inputs
 *                                  then: (x, w, gamma, beta, mean, var). One read and one write of y less.
 *     squeeze-excite               (bf16) in the norm before it (fuse_excite.cu)
 *     BLEND                        all at the end (blend.cu)
 *
 * The ops keep their names (a plan's work graph is not a user's graph).
 */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/plan/plan_internal.h"

static kn_val add_value(kn_graph *w, kn_shape shape, uint32_t node, int index)
{
    kn_plan_room(&w->values, &w->cap_values, w->n_values + 1, sizeof *w->values);
    kn_value *v = &w->values[w->n_values];
    *v = w->values[w->nodes[node].out];
    v->shape = shape;
    v->node = node;
    v->dtype = KN_F32;
    v->index = (uint8_t)index;
    return w->n_values++;
}

/* to[v]: what readers of v read instead; grows with the values. */
static void statistics_inside(kn_graph *w, uint32_t norm, kn_val *to)
{
    kn_node *n = &w->nodes[norm];
    const kn_val x = n->in[0];
    const uint32_t producer = w->values[x].node;
    kn_node *d = &w->nodes[producer];
    if (d->op != KN_OP_DEPTHWISE || d->n_out != 1 || d->out != x)
        return;
    const kn_shape shape = w->values[x].shape, channels = w->values[n->out + 1].shape;
    const kn_val y = add_value(w, shape, producer, 0);
    to[x] = y;
    to[n->out + 1] = add_value(w, channels, producer, 1);
    to[n->out + 2] = add_value(w, channels, producer, 2);
    d->out = y;
    d->n_out = 3;
    n->op = KN_OP_BATCH_NORM_INFER;
    n->in[3] = to[n->out + 1];
    n->in[4] = to[n->out + 2];
    n->n_in = 5;
    n->n_out = 1;
}

/* The norm's node becomes the convolution: its parameters come before it, perhaps behind the convolution's old place. */
static void norm_inside(kn_plan *p, uint32_t norm, const uint32_t *reads)
{
    kn_graph *w = p->w;
    kn_node *n = &w->nodes[norm];
    const kn_val x = n->in[0];
    const uint32_t producer = w->values[x].node;
    const kn_node d = w->nodes[producer];
    const kn_act act = n->a.act;
    if (d.op != KN_OP_DEPTHWISE || d.n_out != 1 || d.n_in != 2 || reads[x] != 1)
        return;
    if (act != KN_ACT_NONE && act != KN_ACT_SILU && act != KN_ACT_HSWISH && act != KN_ACT_RELU && act != KN_ACT_RELU6)
        return;
    for (int k = 3; k < 5; k++)
        if (w->nodes[w->values[n->in[k]].node].op != KN_OP_PARAM)
            return;
    const float eps = n->a.eps;
    for (int k = 5; k > 1; k--)
        n->in[k] = n->in[k - 1];
    n->in[0] = d.in[0];
    n->in[1] = d.in[1];
    n->n_in = 6;
    n->op = KN_OP_DEPTHWISE;
    n->a = d.a;
    n->a.act = act;
    n->a.eps = eps;
    kn_plan_drop(p, producer);
}

static void norms_inside(kn_plan *p)
{
    const kn_graph *w = p->w;
    uint32_t *reads = (uint32_t *)es_xcalloc(w->n_values, sizeof *reads);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        for (int k = 0; k < w->nodes[i].n_in; k++)
            reads[w->nodes[i].in[k]]++;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].op == KN_OP_BATCH_NORM_INFER)
            norm_inside(p, i, reads);
    free(reads);
}

es_status kn_cuda_fuse(kn_device *d, kn_plan *p, es_error *err)
{
    kn_graph *w = p->w;
    uint32_t norms = 0;
    (void)d;
    (void)err;
    if (p->options.precision == KN_PRECISION_BF16)
        norms_inside(p);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        norms += w->nodes[i].op == KN_OP_BATCH_NORM;
    if (norms > 0) {
        const uint32_t values = w->n_values;
        kn_val *to = (kn_val *)es_xcalloc(values + 3 * norms, sizeof *to);
        for (uint32_t i = 0; i < w->n_nodes; i++) { /* readers come after what they read: one walk does both */
            for (int k = 0; k < w->nodes[i].n_in; k++)
                if (w->nodes[i].in[k] < values && to[w->nodes[i].in[k]] != KN_NONE)
                    w->nodes[i].in[k] = to[w->nodes[i].in[k]];
            if (w->nodes[i].op == KN_OP_BATCH_NORM)
                statistics_inside(w, i, to);
            for (int k = 0; k < w->nodes[i].n_in; k++)
                if (w->nodes[i].in[k] < values && to[w->nodes[i].in[k]] != KN_NONE)
                    w->nodes[i].in[k] = to[w->nodes[i].in[k]];
        }
        free(to);
    }
    if (p->options.precision == KN_PRECISION_BF16)
        kn_cuda_fuse_excite(p);
    kn_cuda_fuse_blends(p);
    return ES_OK;
}
