/* graph_internal.h - inside a graph: for op files, autodiff and plan. Users of the engine include graph.h.
 *
 *     kn_val dx = KN_EMIT(g, CONV2D_DX, &(kn_attr){.stride = 2, .h = 32, .w = 32}, dy, w);   // in a gradient builder
 *     kn_shape s = kn_shape_of(g, n->in[0]);
 *
 * kn_emit infers shapes, records the first error and gives the value of output 0; outputs are consecutive values. Pointers into g->nodes die when a
 * node is added: gradient builders and expansions get a copy of their node.
 */
#ifndef KN_GRAPH_INTERNAL_H
#define KN_GRAPH_INTERNAL_H

#include "base/arena.h"
#include "kernels/graph/graph.h"
#include "kernels/graph/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kn_value {
    kn_shape shape;
    uint32_t node;
    uint8_t dtype, index; /* which output of the node */
} kn_value;

struct kn_graph {
    const kn_params *params[KN_SETS];
    kn_node *nodes;
    uint32_t n_nodes, cap_nodes;
    kn_value *values; /* values[0] is KN_NONE */
    uint32_t n_values, cap_values;
    const char *scope;
    es_status status;
    es_error error;
    /* Autodiff's work space, kept between calls: indexed by value. */
    kn_val *grad;
    uint8_t *need;
    uint32_t cap_grad;
};

kn_val kn_emit(kn_graph *g, kn_op op, const kn_attr *a, const kn_val *in, int n_in);
#define KN_EMIT(g, OP, attr, ...)                               \
    kn_emit(g, KN_OP_##OP, attr, (const kn_val[]){__VA_ARGS__}, \
            (int)(sizeof((const kn_val[]){__VA_ARGS__}) / sizeof(kn_val)))

/* Sums `v` over broadcast dimensions down to `shape`: the gradient of a broadcast. */
kn_val kn_reduce_to(kn_graph *g, kn_val v, kn_shape shape);
/* Records an error in the graph unless it has one; returns KN_NONE. */
kn_val kn_graph_fail(kn_graph *g, es_status code, const char *op, const char *fmt, ...) ES_PRINTF(4, 5);

static inline const kn_node *kn_node_of(const kn_graph *g, kn_val v) { return &g->nodes[g->values[v].node]; }
static inline kn_dtype kn_dtype_of(const kn_graph *g, kn_val v) { return (kn_dtype)g->values[v].dtype; }
/* The shape of input i of a node, and one of its dimensions counted from the end (0 = last). */
static inline const kn_shape *kn_in_shape(const kn_graph *g, const kn_node *n, int i)
{
    return &g->values[n->in[i]].shape;
}

#ifdef __cplusplus
}
#endif
#endif
