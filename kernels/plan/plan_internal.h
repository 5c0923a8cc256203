/* plan_internal.h - how a plan is made, for the passes and for a back end's own pass.
 *
 *     1. plan_lower.c   the live part of the graph is copied to the work graph; ops without a kernel are expanded; constants are folded, pairs of ops
 *                       that have one kernel are joined; strided slices that a kernel cannot take become dense copies
 *     2. device         vt->fuse may rewrite the work graph (replace nodes in place, or drop them), vt->store chooses storage types, and may rewrite what depends on them
 *     3. plan_fuse.c    gradient sums and outputs are handed to their producers
 *     4. plan_place.c   walks the work graph in order: in-place outputs, offsets in the workspace, one call per step
 *     5. plan_run.c     runs the calls
 *
 * Time is the index of a work node. A value's memory belongs to its root: itself, or the value that it is an alias of or is added into.
 * All arrays are kept for the next plan.
 */
#ifndef KN_PLAN_INTERNAL_H
#define KN_PLAN_INTERNAL_H

#include "kernels/device/device_internal.h"
#include "kernels/graph/graph_internal.h"
#include "kernels/plan/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What an address is relative to, at run time. IN and OUT are followed by their slots. */
enum {
    KN_BASE_NONE, /* a NULL pointer */
    KN_BASE_WORKSPACE,
    KN_BASE_SCALARS,
    KN_BASE_VALUES,                           /* + set */
    KN_BASE_GRADS = KN_BASE_VALUES + KN_SETS, /* + set */
    KN_BASE_SHADOW = KN_BASE_GRADS + KN_SETS, /* + set */
    KN_BASE_IN = KN_BASE_SHADOW + KN_SETS,    /* + slot */
    KN_BASE_OUT = KN_BASE_IN + KN_SLOTS,      /* + slot */
    KN_BASE_COUNT = KN_BASE_OUT + KN_SLOTS
};

typedef struct kn_ref {
    int64_t offset; /* bytes */
    uint8_t base;
} kn_ref;

typedef struct kn_step {
    kn_kernel run;
    uint32_t node; /* of the work graph */
    kn_call call;
    kn_ref in[KN_IN_MAX], out[KN_OUT_MAX], scratch;
} kn_step;

/* What the passes know of a value of the work graph. */
typedef struct kn_plan_value {
    kn_val root;     /* towards the value whose memory this is (kn_plan_root); a root's root is itself */
    kn_val slice;    /* parameter slice whose gradient this output is added to, or KN_NONE */
    uint32_t reads;  /* by live nodes, of this value itself */
    uint32_t last;   /* roots: last reader of the memory; a node that is dropped does not count */
    uint32_t before; /* roots: the last reader but one, or 0 */
    uint32_t size;   /* roots in the workspace: bytes / 256 while allocated, else 0 */
    bool added;      /* its producer adds to memory that holds a sum already */
    bool shared;     /* roots: other values live in its memory */
    kn_ref at;       /* roots: where it is, once known */
} kn_plan_value;

typedef struct kn_hole {
    uint32_t start, size; /* units of 256 bytes */
} kn_hole;

struct kn_plan {
    kn_device *dev;
    const kn_kernel_row *kernels;
    kn_plan_options options;
    kn_graph *w, *spare; /* the work graph, and the one it was made from while ops are expanded */
    kn_plan_value *values;
    uint8_t *dropped; /* by work node: runs no kernel (source, alias, handed to its producer) */
    uint32_t cap_values, cap_nodes;
    /* Lowering. */
    kn_val *map, *dense;
    uint32_t *uses;
    uint8_t *live;
    uint32_t cap_map, cap_dense, cap_uses, cap_live;
    kn_val constants[16]; /* the latest small ones, to be shared */
    uint32_t n_constants;
    /* Memory. */
    kn_hole *holes;
    uint32_t n_holes, cap_holes, high; /* high: units ever used */
    size_t live_bytes, live_peak;      /* of values alive at once: what an ideal allocator would need */
    kn_step *steps;
    uint32_t n_steps, cap_steps;
    uint8_t used[KN_BASE_COUNT]; /* bases that a run must bind */
    bool random;                 /* a kernel reads seed and step */
    /* Of plans that repeat (plan_run.c). */
    char *bound[KN_BASE_COUNT];     /* bases of the latest runs; those not used are NULL */
    uint32_t points[KN_POINTS_MAX]; /* of the latest runs; those not used are 0 */
    int n_points;
    uint32_t runs;     /* with these bases and points */
    bool unrecordable; /* one of its kernels failed while it was recorded */
    void *recording;   /* of them; NULL: none yet */
};

void kn_plan_forget(kn_plan *p); /* the recording */

es_status kn_plan_lower(kn_plan *p, const kn_graph *g, es_error *err) ES_MUST_CHECK;
void kn_plan_fuse(kn_plan *p);
es_status kn_plan_place(kn_plan *p, es_error *err) ES_MUST_CHECK;

/* *array has room for `count` items of `size` bytes afterwards; old content is kept, new content is not set. */
void kn_plan_room(void *array, uint32_t *capacity, uint32_t count, size_t size);
/* The slice of a PARAM node as a tensor without address; *offset in elements of the flat buffer. */
kn_tensor kn_plan_slice(const kn_plan *p, const kn_attr *a, int64_t *offset);
/* Is there a kernel to run for this op, or none needed? */
bool kn_plan_supports(const kn_plan *p, kn_op op);
/* For a back end's `fuse`: node runs no kernel any more and its outputs are gone; nobody may read them afterwards. A value that a node gains is
 * appended to w->values, with `node` and `index` set. Nodes stay in topological order. */
static inline void kn_plan_drop(kn_plan *p, uint32_t node)
{
    kn_node *n = &p->w->nodes[node];
    n->op = KN_OP_DETACH;
    n->n_in = n->n_out = 0;
    n->out = KN_NONE;
}
/* The value whose memory v lives in. */
static inline kn_val kn_plan_root(const kn_plan *p, kn_val v)
{
    while (p->values[v].root != v)
        v = p->values[v].root;
    return v;
}
/* Strides of a slice seen with another shape of as many elements; false when no strides show it. */
bool kn_plan_view(const kn_tensor *slice, const kn_shape *shape, int64_t *stride);
/* Sources and aliases run no kernel. */
static inline bool kn_op_is_view(kn_op op)
{
    return op == KN_OP_INPUT || op == KN_OP_PARAM || op == KN_OP_SCALAR || op == KN_OP_RESHAPE || op == KN_OP_DETACH;
}

#ifdef __cplusplus
}
#endif
#endif
