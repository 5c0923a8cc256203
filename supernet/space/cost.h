/* cost.h - parameters and multiply-adds of one abstract layer: what the cost model sums and explain prints. */
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
