/* sched.h - who gets which job: higher priority first; within a priority the user, then the search, that used the workers least (fair.c).
 *
 * A gang starts whole or not at all. When one is next in that order and too few workers of any machine kind are free, it holds the free ones of the kind on
 * which it can be whole: what comes after it may use them only for jobs that are expected to be over before the gang is whole. So small jobs do
 * not starve a gang. And a gang does not starve them: after hold limit_ms it gives way for as long; each time it holds twice as long, so it starts in the end.
 *
 * Ready jobs stay in the database; each search has a window of the oldest ones in memory, filled when it is empty. So a million waiting jobs cost no
 * memory, and picking costs the same with ten of them or ten million.
 */
#ifndef DM_COORD_SCHED_H
#define DM_COORD_SCHED_H

#include "daemon/coord/state.h"

es_status dm_sched_run(dm_coord *c, es_error *err) ES_MUST_CHECK;
/* Sends grants of at most `n` leases again that the worker never named; *sent. */
es_status dm_sched_send_again(dm_coord *c, dm_worker *w, uint32_t n, uint64_t request_id, uint32_t *sent,
                              es_error *err) ES_MUST_CHECK;
void dm_sched_added(dm_search *s, const dm_ready *r); /* a job has become ready */
bool dm_sched_due(const dm_search *s);                /* a job in backoff may start */
/* Ready jobs of the search that may start now; NULL: none. */
es_status dm_sched_waiting(dm_search *s, const dm_ready **jobs, int *n, es_error *err) ES_MUST_CHECK;
void dm_sched_later(dm_search *s, int64_t due_ms); /* one is ready, but not before */
void dm_sched_took(dm_lease *l);                   /* it is done: how long that took */

#endif
