/* What the CUDA device does to a plan's work graph before the generic fusions.
 *
 *     DEPTHWISE -> BATCH_NORM      the convolution makes mean and variance while its results are in registers: it has three outputs then, (y, mean, var), and the norm,
 *                                  with its statistics given, is a BATCH_NORM_INFER. One read of y less.
 *     BLEND                        all at the end (blend.cu)
 *
 * The ops keep their names (a plan's work graph is not a user's graph).
 */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/plan_internal.h"

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

es_status kn_cuda_fuse(kn_device *d, kn_plan *p, es_error *err)
{
    kn_graph *w = p->w;
    uint32_t norms = 0;
    (void)d;
    (void)err;
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
    kn_cuda_fuse_blends(p);
    return ES_OK;
}
