/* fair.h - fair shares within a priority: between users, and between the searches of one.
 *
 * Everybody has an account of worker time. A lease is charged to its search and its user when it begins, with what such a job took before, and corrected when it
 * ends (one that was lost: until its worker was last heard). Whoever has used least is next, the user first, then his search; ties go to who was
 * served longest ago. Who comes new starts level with the lowest account, so he gets his share from now on and nothing for the past; accounts
 * fade by half in FADE_HALF_MS, so that waiting without need earns no more than that. Start-time fair queueing: Goyal, Vin, Cheng (1996).
 *
 * Accounts outlive the coordinator, in the commit of the turn in which a lease ended. A lease that runs over a restart counts from there, what such jobs took before is
 * learnt anew, and minutes of fading in which nothing else was written may be lost.
 */
#ifndef DM_COORD_FAIR_H
#define DM_COORD_FAIR_H

#include "daemon/coord/state.h"

/* Sets s->user; its account and s's are level with the lowest, or (while rows are loaded) as they were kept. */
es_status dm_user_join(dm_coord *c, dm_search *s, const dm_search_row *r, es_error *err) ES_MUST_CHECK;
void dm_user_leave(dm_coord *c, dm_search *s);
/* s is over: with a user's last search his account goes. Before dm_user_leave. */
es_status dm_fair_over(dm_coord *c, const dm_search *s, es_error *err) ES_MUST_CHECK;
void dm_fair_charge(dm_lease *l); /* the lease begins: what it is expected to take */
void dm_fair_settle(dm_lease *l); /* it ends: what it took */
void dm_fair_fade(dm_coord *c);
void dm_fair_loaded(dm_coord *c); /* memory was made of rows: from here on it fades */
/* Before the turn's commit, if it has anything to write: accounts that changed go to their rows. (A lease never ends without a row of its job; fading may wait.) */
es_status dm_fair_keep(dm_coord *c, es_error *err) ES_MUST_CHECK;
bool dm_fair_before(const dm_search *a, const dm_search *b); /* of one priority */

#endif
