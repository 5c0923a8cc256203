/* query.h - questions of clients, read only: JSON as schemas/status.md describes it. */
#ifndef DM_COORD_QUERY_H
#define DM_COORD_QUERY_H

#include "daemon/coord/state.h"

es_status dm_on_query(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Query *m,
                      es_error *err) ES_MUST_CHECK;

#endif
