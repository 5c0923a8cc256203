/* search_rows.h - searches: what users submitted, and where each stands.
 *
 *     dm_search_row r = {.token = token, .text = text, ...}; dm_search_insert(st, &r, err);      // r.id; a token is there once
 *     dm_search_move(st, r.id, DM_SEARCH_RUNNING, DM_SEARCH_PAUSED, "command", now_ms, err);      // only from the state the caller believes
 *     dm_search_get(st, r.id, &r, err); ... dm_search_row_free(&r);
 *
 * A search that was deleted (purge.h) is not found any more.
 */
#ifndef DM_SEARCH_ROWS_H
#define DM_SEARCH_ROWS_H

#include "daemon/store/store.h"

/* In the database: fixed for ever.     running <-> paused; both -> cancelled, failed; running -> done */
typedef enum dm_search_state {
    DM_SEARCH_RUNNING = 1,
    DM_SEARCH_PAUSED = 2,
    DM_SEARCH_DONE = 3,
    DM_SEARCH_FAILED = 4,
    DM_SEARCH_CANCELLED = 5,
} dm_search_state;
const char *dm_search_state_name(dm_search_state s);
bool dm_search_may(dm_search_state from, dm_search_state to);

typedef struct dm_search_row {
    int64_t id, priority, submitted_ms, ended_ms; /* ended_ms 0: not over */
    dm_search_state state;
    char *token, *name, *user, *driver, *phase, *text, *reason; /* text only from dm_search_get */
    int64_t n[7];                                               /* jobs by dm_job_state */
    bool pinned;
    double used_ms; /* worker time, of leases that are over (account_rows.h) */
} dm_search_row;
void dm_search_row_free(dm_search_row *r);

es_status dm_search_insert(dm_store *st, dm_search_row *r, es_error *err) ES_MUST_CHECK; /* sets r->id */
es_status dm_search_find_token(dm_store *st, const char *token, int64_t *id, es_error *err) ES_MUST_CHECK;
es_status dm_search_get(dm_store *st, int64_t id, dm_search_row *out, es_error *err) ES_MUST_CHECK;
es_status dm_search_move(dm_store *st, int64_t id, dm_search_state from, dm_search_state to, const char *reason,
                         int64_t now_ms, es_error *err) ES_MUST_CHECK;
es_status dm_search_set_phase(dm_store *st, int64_t id, const char *phase, es_error *err) ES_MUST_CHECK;
es_status dm_search_set_priority(dm_store *st, int64_t id, int64_t priority, es_error *err) ES_MUST_CHECK;
es_status dm_search_set_result(dm_store *st, int64_t id, const char *json, es_error *err) ES_MUST_CHECK;
es_status dm_search_result(dm_store *st, int64_t id, char **json,
                           es_error *err) ES_MUST_CHECK; /* caller frees; NULL: none yet */
/* Calls fn for each row (without text), newest first, ids below `before` (0: all). fn returns false to stop. */
es_status dm_search_each(dm_store *st, int64_t before, int64_t limit, bool (*fn)(void *ctx, const dm_search_row *r),
                         void *ctx, es_error *err) ES_MUST_CHECK;
/* Ids of those running or paused; caller frees. */
es_status dm_search_live(dm_store *st, int64_t **ids, int *count, es_error *err) ES_MUST_CHECK;

/* One that is done or cancelled but has jobs that are not over; ES_NOT_FOUND: none. */
es_status dm_search_unswept(dm_store *st, int64_t *id, es_error *err) ES_MUST_CHECK;
es_status dm_search_counts(dm_store *st, int64_t counts[6],
                           es_error *err) ES_MUST_CHECK; /* searches by dm_search_state */
es_status dm_search_set_pinned(dm_store *st, int64_t id, bool pinned, es_error *err) ES_MUST_CHECK;

#endif
