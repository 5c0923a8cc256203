/* retain.h - what is kept, and for how long. The rule (docs/user-guide.md states it for users):
 *
 *     search is            weights versions that stay
 *     running, paused      what its jobs made, the newest `checkpoints` of each training
 *     failed               the same, for failed_days: it may be retried
 *     done                 those that its result names: for final_days, and longer while it is among the newest final_searches
 *     cancelled, deleted   none
 *     pinned               as while it ran (not for cancelled and deleted ones)
 *
 * A version stays as long as a row of version_use names it. Here rows go; daemon/weights/collect.c finds the versions without any. Bounded work in each turn.
 */
#ifndef DM_COORD_RETAIN_H
#define DM_COORD_RETAIN_H

#include "daemon/coord/state.h"

es_status dm_retain_turn(dm_coord *c, es_error *err) ES_MUST_CHECK;
es_status dm_retain_workers(dm_coord *c, es_error *err) ES_MUST_CHECK; /* some of those that never came back */
es_status dm_retain_command(dm_coord *c, int64_t search, Espalier__Wire__Verb verb, es_error *why,
                            es_error *err) ES_MUST_CHECK;

#endif
