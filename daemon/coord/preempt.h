/* preempt.h - preemption: when a ready job finds no worker, training jobs of lower priority are asked to hand back what they have, at their next step. That is not an attempt that
 * counts; the job is ready again and goes on from there. The lowest priority goes first, and of equals the one that has run for the shortest time.
 *
 * No more workers are cleared than there are jobs waiting: those that are being cleared, and those that are free, count.
 */
#ifndef DM_COORD_PREEMPT_H
#define DM_COORD_PREEMPT_H

#include "daemon/coord/state.h"

es_status dm_sched_preempt(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_preempt_push(dm_coord *c, const dm_lease *l); /* tells its worker now, not with the next heartbeat */

#endif
