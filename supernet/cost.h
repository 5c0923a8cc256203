/* cost.h - parameters and multiply-adds of one abstract layer: what the cost model sums and explain prints. */
#ifndef SN_COST_H
#define SN_COST_H

#include "supernet/walk.h"

int64_t sn_op_params(const sn_op *op);
int64_t sn_op_macs(const sn_space *sp, const sn_op *op); /* by the space's counting rule */

#endif
