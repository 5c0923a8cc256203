/* purge.h - deleting a search: at once for whoever asks, row by row for the disk.
 *
 *     dm_search_set_deleted(st, id, now_ms, err);                  // nobody finds it any more
 *     each turn: dm_search_purge(st, after, &id, &busy, err)       // a bounded number of its rows goes; results and events first, then jobs
 *
 * The youngest job and the youngest event of all stay, so that no id comes twice.
 */
#ifndef DM_PURGE_H
#define DM_PURGE_H

#include "daemon/store/store.h"

/* From here on dm_search_get and dm_search_each do not know it. */
es_status dm_search_set_deleted(dm_store *st, int64_t id, int64_t now_ms, es_error *err) ES_MUST_CHECK;
/* Takes some rows of the first deleted search after `after` that has any; *busy: there are more. ES_NOT_FOUND: there is none. */
es_status dm_search_purge(dm_store *st, int64_t after, int64_t *id, bool *busy, es_error *err) ES_MUST_CHECK;

#endif
