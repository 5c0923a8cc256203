/* version_rows.h - which weights versions rows still need, and by whom. The rule, what may go and when, is coord/retain.c's.
 *
 *     dm_version_use(st, hex, search, job, err);                   // in the turn that commits a result which names it
 *     dm_version_needed(st, hex, &yes, err);                       // asked before weights.db lets go of it
 */
#ifndef DM_VERSION_ROWS_H
#define DM_VERSION_ROWS_H

#include "daemon/store/search_rows.h"

/* `job` of `search` made this version. */
es_status dm_version_use(dm_store *st, const char *version, int64_t search, int64_t job, es_error *err) ES_MUST_CHECK;
/* Of a training: all but its newest `keep` checkpoints may go. */
es_status dm_version_keep_newest(dm_store *st, int64_t job, int64_t keep, es_error *err) ES_MUST_CHECK;
es_status dm_version_needed(dm_store *st, const char *hex, bool *yes, es_error *err) ES_MUST_CHECK;
es_status dm_version_each(dm_store *st, bool (*fn)(void *ctx, const char *hex), void *ctx, es_error *err) ES_MUST_CHECK;

typedef struct dm_retain_row {
    int64_t id, ended_ms;
    dm_search_state state;
    bool pinned, deleted, work; /* work: it holds versions that its result may not name */
} dm_retain_row;
/* The next search that holds versions, by id; ES_NOT_FOUND: no more. */
es_status dm_retain_next(dm_store *st, int64_t after, dm_retain_row *out, es_error *err) ES_MUST_CHECK;
/* How many searches were done later than that; counts up to `limit`. */
es_status dm_retain_newer(dm_store *st, int64_t ended_ms, int64_t limit, int64_t *count, es_error *err) ES_MUST_CHECK;
es_status dm_retain_release_work(dm_store *st, int64_t search,
                                 es_error *err) ES_MUST_CHECK; /* all its result does not name */
es_status dm_retain_release_all(dm_store *st, int64_t search, es_error *err) ES_MUST_CHECK;

#endif
