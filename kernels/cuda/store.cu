/* Which values are stored as bf16 when a plan asks for KN_PRECISION_BF16.
 *
 * bf16: activations and their gradients (rank 2 and more), weights as operands of products (read from the shadow). fp32: everything per channel or per sample
 * (statistics, losses), logits and their gradients, what is added into a gradient slice, what leaves the graph, batch-norm and layer-norm parameters; and what those
 * are computed from by elementwise ops, so that nothing is rounded on its way there.
 */
#include "kernels/cuda/batch_norm.cuh"
#include "kernels/plan/plan_internal.h"

/* Inputs of an op that may be a bf16 weight. */
static unsigned weight_inputs(kn_op op)
{
    switch (op) {
    case KN_OP_CONV2D:
    case KN_OP_CONV2D_DX:
    case KN_OP_DEPTHWISE:
    case KN_OP_DEPTHWISE_DX:
    case KN_OP_EMBEDDING: return 2;
    case KN_OP_MATMUL: return 3;
    default: return 0;
    }
}

static bool keeps_fp32(kn_op op)
{
    switch (op) {
    case KN_OP_CONV2D_DW:
    case KN_OP_DEPTHWISE_DW:
    case KN_OP_EMBEDDING_GRAD:
    case KN_OP_CONSTANT:
    case KN_OP_CROSS_ENTROPY_GRAD:
    case KN_OP_SOFT_CROSS_ENTROPY_GRAD:
    case KN_OP_ALPHA_DIVERGENCE_GRAD: return true;
    default: return false;
    }
}

/* Inputs that are logits, probabilities or losses. */
static unsigned fp32_inputs(const kn_graph *w, const kn_node *n)
{
    switch (n->op) {
    case KN_OP_OUTPUT: return !n->a.kept;
    case KN_OP_BLEND: return 1;
    case KN_OP_ACCUMULATE: return 2; /* the first only names the slice */
    case KN_OP_CROSS_ENTROPY:
    case KN_OP_SOFT_CROSS_ENTROPY:
    case KN_OP_ALPHA_DIVERGENCE:
    case KN_OP_CORRECT: return 3;
    case KN_OP_CROSS_ENTROPY_GRAD:
    case KN_OP_SOFT_CROSS_ENTROPY_GRAD:
    case KN_OP_ALPHA_DIVERGENCE_GRAD: return 7;
    case KN_OP_SOFTMAX:
    case KN_OP_LOG_SOFTMAX: return w->values[n->in[0]].shape.rank == 2;
    case KN_OP_ADD:
    case KN_OP_SUB:
    case KN_OP_MUL:
    case KN_OP_AFFINE:
    case KN_OP_BIAS_ACT:
    case KN_OP_RESHAPE:
    case KN_OP_DETACH: return w->values[n->out].dtype == KN_F32 && w->values[n->out].shape.rank >= 2;
    default: return 0;
    }
}

static kn_val through_views(const kn_graph *w, kn_val v)
{
    while (kn_node_of(w, v)->op == KN_OP_RESHAPE || kn_node_of(w, v)->op == KN_OP_DETACH)
        v = kn_node_of(w, v)->in[0];
    return v;
}

/* First guess by producer and shape; views follow what they show. */
static void guess(kn_graph *w)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const kn_node *n = &w->nodes[i];
        for (uint32_t k = 0; k < n->n_out; k++) {
            kn_value *v = &w->values[n->out + k];
            if (n->op == KN_OP_INPUT && n->a.kept)
                v->dtype = (uint8_t)kn_kept_dtype(KN_PRECISION_BF16, &v->shape);
            if (v->dtype != KN_F32 || n->op == KN_OP_INPUT || n->op == KN_OP_SCALAR || keeps_fp32(n->op))
                continue;
            if (n->op == KN_OP_PARAM)
                v->dtype =
                    n->a.set == KN_SET_WEIGHTS ? KN_BF16 : KN_F32; /* taken back below where a reader wants fp32 */
            else if (v->shape.rank >= 2 && !((n->op == KN_OP_ATTENTION || n->op == KN_OP_SELF_ATTENTION) && k == 1))
                v->dtype = KN_BF16;
        }
    }
}

es_status kn_cuda_store(kn_device *d, kn_plan *p, es_error *err)
{
    kn_graph *w = p->w;
    (void)err;
    if (p->options.precision != KN_PRECISION_BF16)
        return ES_OK;
    guess(w);
    for (uint32_t i = w->n_nodes; i-- > 0;) { /* backwards: what fp32 is computed from */
        const kn_node *n = &w->nodes[i];
        unsigned want = fp32_inputs(w, n);
        if (n->op == KN_OP_ADD || n->op == KN_OP_SUB || n->op == KN_OP_MUL)
            want |= want << 1;
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] == KN_NONE || (n->op == KN_OP_ACCUMULATE && k == 0))
                continue;
            kn_val v = through_views(w, n->in[k]);
            bool weight =
                kn_node_of(w, v)->op == KN_OP_PARAM && !kn_op_is_view(n->op) && !(weight_inputs(n->op) >> k & 1);
            if ((weight || want >> k & 1) && w->values[v].dtype == KN_BF16 && kn_node_of(w, v)->op != KN_OP_INPUT)
                w->values[v].dtype = KN_F32;
        }
    }
    for (uint32_t i = 0; i < w->n_nodes; i++) { /* a view has the type of what it shows */
        const kn_node *n = &w->nodes[i];
        if (n->op == KN_OP_RESHAPE || n->op == KN_OP_DETACH)
            w->values[n->out].dtype = w->values[n->in[0]].dtype;
    }
    if (!p->options.no_fuse) {
        kn_cuda_fuse_products(p);
        if (((kn_cuda_device *)d)->can.hopper)
            kn_cuda_fuse_points(p);
        kn_cuda_fuse_norms(p); /* last: takes the shortcuts that no product has taken */
    }
    return ES_OK;
}
