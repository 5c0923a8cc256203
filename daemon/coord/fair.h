/* fair.h - fair shares within a priority: between users, and between the searches of one.
 *
 * Everybody has an account of worker time. A lease is charged to its search and its user when it begins, with what such a job took before, and corrected when it
 * ends (one that was lost: until its worker was last heard). Whoever has used least is next, the user first, then his search; ties go to who was
 * served longest ago. Who comes new starts level with the lowest account, so he gets his share from now on and nothing for the past; accounts
 * fade by half in FADE_HALF_MS, so that waiting without need earns no more than that. Start-time fair queueing: Goyal, Vin, Cheng (1996).
 */
#ifndef DM_COORD_FAIR_H
#define DM_COORD_FAIR_H

#include "daemon/coord/state.h"

void dm_user_join(dm_coord *c, dm_search *s, const char *name); /* sets s->user */
void dm_user_leave(dm_coord *c, dm_search *s);
void dm_fair_charge(dm_lease *l); /* the lease begins: what it is expected to take */
void dm_fair_settle(dm_lease *l); /* it ends: what it took */
void dm_fair_fade(dm_coord *c);
bool dm_fair_before(const dm_search *a, const dm_search *b); /* of one priority */

#endif
