/* internal.h - the parameter table of a net by slot: what turns an abstract layer into parameter slices without a look-up by name.
 *
 *     sn_slice s[SN_OP_SLICES_MAX];                         // in a visitor of sn_walk_run, which hands out `op`
 *     int n = sn_net_op_slices(net, op, s);                 // s[0] the weight (or gamma ...), in the order that the function names
 *
 * Invariants: a slot's parameters have the largest extents of all architectures, and a slice is a prefix of them (of a kernel: its centre); unit_of
 * has an entry for each parameter of its set. For supernet/net/ and for those who reduce gradients slice by slice (train/gang.c).
 */
#ifndef SN_NET_INTERNAL_H
#define SN_NET_INTERNAL_H

#include "supernet/net/net.h"
#include "supernet/space/walk.h"

enum { SN_OP_SLICES_MAX = 4 };

/* Of one slot. Parameters that the layer does not have are -1. */
typedef struct sn_slot {
    kn_param weight, bias, gamma, beta, mean, var, position;
    int k; /* the largest kernel: smaller ones are its centre */
} sn_slot;

struct sn_net {
    const sn_space *space;
    kn_params *params, *stats;
    sn_slot *slot;
    int *unit_of[KN_SETS]; /* by parameter */
};

/* What an op that is not lowered returns for a reference: whether its value is rows of channels (after global pooling or flatten; tokens), not an image. */
static inline uint32_t sn_op_flat(const sn_op *op)
{
    return op->kind == SN_OP_GLOBAL_POOL || op->kind == SN_OP_FLATTEN || op->kind == SN_OP_EMBED ||
           (op->n > 0 && (op->x[0].ref & 1));
}
static inline kn_shape sn_val_shape(const sn_val *x, int n, bool flat)
{
    return flat ? KN_SHAPE(n * x->h * x->w, x->c) : KN_SHAPE(n, x->h, x->w, x->c);
}

/* The parameter slices of one layer: weight; or bias; or gamma, beta (when affine), mean, var; or table, position; or gamma. Returns how many. */
int sn_net_op_slices(const sn_net *n, const sn_op *op, sn_slice out[SN_OP_SLICES_MAX]);

#endif
