/* retry.h - `espalier retry`: a failed search goes on, and every failed job of it gets all its attempts again, however many there are: a bounded number of rows in each turn.
 *
 * Until the last of them is ready the search stays failed. So a coordinator that dies on the way leaves a failed search, and whoever asked asks again. The answer
 * leaves when the search goes on.
 */
#ifndef DM_COORD_RETRY_H
#define DM_COORD_RETRY_H

#include "daemon/coord/state.h"

es_status dm_retry_begin(dm_coord *c, const dm_addr *from, uint64_t id, int64_t search, es_error *why,
                         es_error *err) ES_MUST_CHECK; /* why->code ES_OK: it answers when the search goes on */
es_status dm_retry_turn(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_retries_refuse(dm_coord *c, const es_error *why); /* all: whoever asked asks again */

#endif
