/* A shortcut that is added to a batch norm without activation, once storage types are known and where all tensors are bf16:
 *
 *     BATCH_NORM -> ADD    the shortcut is the norm's fourth input, of BATCH_NORM_INFER the seventh (the sixth is for squeeze-excite). One read and one write of y less, and a
 *                          launch.
 *
 * The ops keep their names (a plan's work graph is not a user's graph).
 */
#include <stdlib.h>

#include "kernels/cuda/batch_norm.cuh"
#include "kernels/plan/plan_internal.h"

static bool is_short(const kn_graph *w, kn_val v) { return w->values[v].dtype == KN_BF16; }

/* What readers of the sum read instead, or KN_NONE. reads[v]: 0, 1, or 2 for more. */
static kn_val shortcut_inside(kn_plan *p, uint32_t sum, const uint8_t *reads)
{
    kn_graph *w = p->w;
    const kn_node *a = &w->nodes[sum];
    for (int k = 0; k < 2; k++) {
        const kn_val y = a->in[k], r = a->in[1 - k];
        const uint32_t at = w->values[y].node;
        kn_node *n = &w->nodes[at];
        const bool given = n->op == KN_OP_BATCH_NORM_INFER && n->n_in == 5;
        if ((!given && !(n->op == KN_OP_BATCH_NORM && n->n_in == 3)) || n->out != y || n->a.act != KN_ACT_NONE)
            continue;
        if (y == r || reads[y] != 1 || w->values[r].node >= at || !is_short(w, y) || !is_short(w, r) ||
            !is_short(w, a->out) || !is_short(w, n->in[0]) || !kn_shape_equal(&w->values[r].shape, &w->values[y].shape))
            continue;
        if (given)
            n->in[5] = KN_NONE;
        n->in[given ? 6 : 3] = r;
        n->n_in = given ? 7 : 4;
        kn_plan_drop(p, sum);
        return y;
    }
    return KN_NONE;
}

void kn_cuda_fuse_norms(kn_plan *p)
{
    kn_graph *w = p->w;
    uint8_t *reads = (uint8_t *)es_xcalloc(w->n_values, sizeof *reads);
    kn_val *to = (kn_val *)es_xcalloc(w->n_values, sizeof *to);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        for (int k = 0; k < w->nodes[i].n_in; k++)
            reads[w->nodes[i].in[k]] += reads[w->nodes[i].in[k]] < 2;
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        kn_node *n = &w->nodes[i];
        for (int k = 0; k < n->n_in; k++) /* readers come after what they read */
            if (to[n->in[k]] != KN_NONE)
                n->in[k] = to[n->in[k]];
        const kn_val out = n->out;
        if (n->op == KN_OP_ADD)
            to[out] = shortcut_inside(p, i, reads);
    }
    free(reads);
    free(to);
}
