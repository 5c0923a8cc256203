/* gang.h - gangs: one lease held by many workers. The ranks find each other through an id that rank 0 offers and the coordinator hands on; the attempt stands and falls as a
 * whole. Which workers become a gang, and when, is sched.c's.
 */
#ifndef DM_COORD_GANG_H
#define DM_COORD_GANG_H

#include "daemon/coord/state.h"

int dm_gang_size(const dm_search *s, int kind); /* workers a job of this kind needs */
/* Leases of all ranks for a job that has moved to running; rank i on w[i]. */
es_status dm_gang_add(dm_coord *c, dm_search *s, dm_worker **w, int size, const dm_ready *r, int64_t attempt,
                      dm_lease **rank0, es_error *err) ES_MUST_CHECK;
/* *found false: the job has no ranks, an older program leased it to one worker. */
es_status dm_gang_load(dm_coord *c, dm_search *s, const dm_ready *r, int64_t leased_ms, bool *found,
                       es_error *err) ES_MUST_CHECK;
void dm_gang_drop(dm_coord *c, dm_gang *g); /* memory only: every rank */
/* *handled: nothing is left to do with this finish. Otherwise it speaks for the whole gang. */
es_status dm_gang_finish(dm_coord *c, dm_lease *l, const Espalier__Wire__Finish *f, bool *handled,
                         es_error *err) ES_MUST_CHECK;
es_status dm_on_gang_offer(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__GangOffer *m,
                           es_error *err) ES_MUST_CHECK;
void dm_gang_send_id(dm_coord *c, const dm_lease *l); /* to this rank, if it is known */

#endif
