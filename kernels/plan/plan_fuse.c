/* Sums and outputs handed to the ops that produce their terms: what is left to copy or add is done by no extra pass over memory.
 *
 *   ACCUMULATE   the producer of the gradient adds straight into the slice of the gradient buffer
 *   ADD          of x and a later y that nobody else reads: y's producer adds to x in place, when x is not read after that producer runs
 *   OUTPUT       the producer writes to the bound pointer, which later readers read
 */
#include "kernels/plan/plan_internal.h"

bool kn_plan_view(const kn_tensor *slice, const kn_shape *shape, int64_t *stride)
{
    if (kn_tensor_contiguous(slice)) {
        int64_t step = 1;
        for (int i = shape->rank - 1; i >= 0; i--) {
            stride[i] = step;
            step *= shape->d[i];
        }
        return true;
    }
    int k = 0; /* dimensions other than 1 must be the same ones */
    for (int i = 0; i < shape->rank; i++) {
        stride[i] = 0;
        if (shape->d[i] == 1)
            continue;
        while (k < slice->shape.rank && slice->shape.d[k] == 1)
            k++;
        if (k == slice->shape.rank || slice->shape.d[k] != shape->d[i])
            return false;
        stride[i] = slice->stride[k++];
    }
    if (shape->rank > 0 && shape->d[shape->rank - 1] == 1)
        stride[shape->rank - 1] = 1;
    for (; k < slice->shape.rank; k++)
        if (slice->shape.d[k] != 1)
            return false;
    return shape->rank == 0 || stride[shape->rank - 1] == 1;
}

/* Can the producer of v add to what is there? */
static bool producer_adds(const kn_plan *p, kn_val v)
{
    uint32_t node = p->w->values[v].node;
    const kn_plan_value *pv = &p->values[v];
    const kn_node *n = &p->w->nodes[node];
    if ((n->op == KN_OP_DEPTHWISE || n->op == KN_OP_MATMUL || n->op == KN_OP_CONV2D) &&
        (n->n_in > 2 || n->a.act != KN_ACT_NONE))
        return false; /* an accelerator has put into it what comes behind, and what is added to comes behind that */
    return p->dropped[node] == 0 && pv->reads == 1 && pv->root == v && pv->slice == KN_NONE && !pv->shared &&
           pv->at.base == KN_BASE_NONE &&
           ((p->kernels[p->w->nodes[node].op].accumulate | p->kernels[p->w->nodes[node].op].sums) >>
                p->w->values[v].index &
            1) != 0;
}

static void fuse_accumulate(kn_plan *p, uint32_t node)
{
    const kn_node *n = &p->w->nodes[node];
    kn_val v = n->in[1];
    while (kn_node_of(p->w, v)->op == KN_OP_RESHAPE && p->values[v].reads == 1)
        v = kn_node_of(p->w, v)->in[0];
    int64_t stride[KN_RANK_MAX], offset = 0;
    if (!producer_adds(p, v) || p->w->values[v].dtype != KN_F32)
        return;
    kn_tensor slice = kn_plan_slice(p, &n->a, &offset);
    bool strided = p->kernels[kn_node_of(p->w, v)->op].accumulate >> p->w->values[v].index & 1;
    if (!kn_plan_view(&slice, &p->w->values[v].shape, stride) || (!strided && !kn_tensor_contiguous(&slice)))
        return;
    p->values[v].slice = n->in[0];
    p->dropped[node] = 1;
}

/* Last reader of every root's memory, and the last but one. */
static void find_readers(kn_plan *p)
{
    for (uint32_t i = 0; i < p->w->n_nodes; i++) {
        const kn_node *n = &p->w->nodes[i];
        for (int k = 0; p->dropped[i] == 0 && k < n->n_in; k++) {
            kn_plan_value *r = &p->values[kn_plan_root(p, n->in[k])];
            if (r->last == i)
                continue;
            r->before = r->last;
            r->last = i;
        }
    }
}

static void fuse_add(kn_plan *p, uint32_t node)
{
    const kn_node *n = &p->w->nodes[node];
    const kn_value *v = p->w->values;
    kn_val x = n->in[0], y = n->in[1];
    if (v[x].node > v[y].node)
        x = n->in[1], y = n->in[0];
    kn_val r = kn_plan_root(p, x);
    kn_plan_value *root = &p->values[r], *out = &p->values[n->out];
    uint32_t producer = v[y].node;
    if (x == y || !producer_adds(p, y) || out->slice != KN_NONE || root->slice != KN_NONE ||
        root->at.base != KN_BASE_NONE)
        return;
    if (!kn_shape_equal(&v[x].shape, &v[n->out].shape) || !kn_shape_equal(&v[y].shape, &v[n->out].shape) ||
        v[y].dtype != v[x].dtype || v[n->out].dtype != v[x].dtype)
        return;
    if (v[r].node >= producer || root->last != node || root->before >= producer)
        return;
    p->values[y].root = r;
    p->values[y].added = true;
    out->root = r;
    root->shared = true;
    root->before = out->before != 0 ? out->before : root->before;
    root->last = out->last;
    p->dropped[node] = 1;
}

static void fuse_output(kn_plan *p, uint32_t node)
{
    const kn_node *n = &p->w->nodes[node];
    kn_val r = kn_plan_root(p, n->in[0]);
    kn_plan_value *root = &p->values[r];
    kn_dtype type = n->a.kept ? kn_kept_dtype(p->options.precision, &p->w->values[n->in[0]].shape) : KN_F32;
    if (root->shared || root->slice != KN_NONE || root->at.base != KN_BASE_NONE || p->w->values[r].dtype != type)
        return;
    root->at = (kn_ref){.base = (uint8_t)(KN_BASE_OUT + n->a.slot)};
    p->dropped[node] = 1;
}

void kn_plan_fuse(kn_plan *p)
{
    const kn_graph *w = p->w;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].op == KN_OP_ACCUMULATE)
            fuse_accumulate(p, i);
    find_readers(p);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].op == KN_OP_ADD)
            fuse_add(p, i);
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].op == KN_OP_OUTPUT)
            fuse_output(p, i);
}
