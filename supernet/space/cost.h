/* cost.h - parameters and multiply-adds, layer by layer: what the cost model sums (sn_space_cost, space.h) and explain prints.
 *
 *     sn_layer *l; int n;
 *     ES_RETURN(sn_space_explain(sp, arch, &l, &n, err));   // the sum of l[i].params and of l[i].macs is sn_space_cost's
 *     free(l);
 *
 * Parameters are weights, biases, tables and norms' scale and shift (not their statistics). Multiply-adds are those of convolutions, linear layers and
 * attention, for one sample: of tokens, a whole window. Everything else counts as none; `count_bias` of a space says where a published table differs.
 */
#ifndef SN_COST_H
#define SN_COST_H

#include "supernet/space/walk.h"

int64_t sn_op_params(const sn_op *op);
int64_t sn_op_macs(const sn_space *sp, const sn_op *op); /* by the space's counting rule */

/* One line of `espalier explain`. */
typedef struct sn_layer {
    char name[96], op[48];
    kn_shape in, out; /* batch 1 */
    int64_t params, macs;
} sn_layer;
es_status sn_space_explain(const sn_space *sp, const sr_arch *a, sn_layer **layers, int *count,
                           es_error *err) ES_MUST_CHECK; /* caller frees *layers */

#endif
