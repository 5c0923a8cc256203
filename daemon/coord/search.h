/* search.h - searches in memory, and what users ask of them. */
#ifndef DM_COORD_SEARCH_H
#define DM_COORD_SEARCH_H

#include "daemon/coord/state.h"

es_status dm_searches_load(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_searches_free(dm_coord *c);
dm_search *dm_search_find(dm_coord *c, int64_t id);
es_status dm_on_submit(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Submit *m,
                       es_error *err) ES_MUST_CHECK;
es_status dm_on_command(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Command *m,
                        es_error *err) ES_MUST_CHECK;
es_status dm_on_noops(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__EnqueueNoop *m,
                      es_error *err) ES_MUST_CHECK;
es_status dm_search_load(dm_coord *c, int64_t id, es_error *err) ES_MUST_CHECK; /* its row, which lives, into memory */
/* Ends a search: its leases stop, its memory goes at the end of the turn. Jobs that are not over are cancelled, little by little, but for a failed
 * search: an operator may retry it. */
es_status dm_search_end(dm_coord *c, dm_search *s, dm_search_state to, const char *reason, es_error *err) ES_MUST_CHECK;
es_status dm_search_phase(dm_search *s, es_error *err, const char *fmt, ...) ES_PRINTF(3, 4) ES_MUST_CHECK;
es_status dm_searches_work(dm_coord *c,
                           es_error *err) ES_MUST_CHECK; /* bounded driver work, sweeps; forgets ended searches */

#endif
