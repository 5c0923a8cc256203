/* event_rows.h - events as they were published, the newest `events_kept` of them: for whoever was not there. And tokens of zero-work jobs.
 *
 *     dm_event_insert(st, id, ms, search, job, "done", json, err);  // ids rise by one; the caller keeps the last (dm_event_last)
 *     dm_event_each(st, 17, 0, 1000, fn, ctx, err);                 // those of search 17, oldest first
 */
#ifndef DM_EVENT_ROWS_H
#define DM_EVENT_ROWS_H

#include "daemon/store/store.h"

es_status dm_event_insert(dm_store *st, int64_t id, int64_t ms, int64_t search, int64_t job, const char *kind,
                          const char *json, es_error *err) ES_MUST_CHECK;
es_status dm_event_last(dm_store *st, int64_t *id, es_error *err) ES_MUST_CHECK;  /* 0: none */
es_status dm_event_first(dm_store *st, int64_t *id, es_error *err) ES_MUST_CHECK; /* the oldest that is kept; 0: none */
/* Those with ids above `after`, oldest first; search 0: of all, and of none. fn returns false to stop. */
es_status dm_event_each(dm_store *st, int64_t search, int64_t after, int64_t limit,
                        bool (*fn)(void *ctx, int64_t id, const char *json), void *ctx, es_error *err) ES_MUST_CHECK;
/* At most 1,000 of the oldest go at once. */
es_status dm_event_prune(dm_store *st, int64_t keep, es_error *err) ES_MUST_CHECK;

es_status dm_enqueue_find(dm_store *st, const char *token, int64_t *search, es_error *err) ES_MUST_CHECK;
es_status dm_enqueue_insert(dm_store *st, const char *token, int64_t search, es_error *err) ES_MUST_CHECK;

#endif
