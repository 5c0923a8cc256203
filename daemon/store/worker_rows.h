/* worker_rows.h - workers that were heard of: a number each, for the rows of jobs and attempts that name them.
 *
 *     dm_worker_row r = {.uid = ..., .name = name, .first_seen_ms = now}; dm_worker_upsert(st, &r, err);     // r.id: as before when it was here before
 */
#ifndef DM_WORKER_ROWS_H
#define DM_WORKER_ROWS_H

#include "daemon/store/store.h"

typedef struct dm_worker_row {
    int64_t id, memory_bytes, first_seen_ms;
    uint8_t uid[16];
    const char *name, *device, *machine_kind, *drained;
} dm_worker_row;
/* Inserts or finds by uid, heard now (first_seen_ms); sets r->id. */
es_status dm_worker_upsert(dm_store *st, dm_worker_row *r, es_error *err) ES_MUST_CHECK;
typedef struct dm_worker_text {
    char name[128], device[32], machine_kind[128], drained[256];
} dm_worker_text;
/* The row's texts point into *text. */
es_status dm_worker_get(dm_store *st, int64_t id, dm_worker_row *out, dm_worker_text *text,
                        es_error *err) ES_MUST_CHECK;
es_status dm_worker_seen(dm_store *st, int64_t id, int64_t now_ms, es_error *err) ES_MUST_CHECK; /* last heard then */
/* The next worker that was last heard of before `before_ms`; never the youngest one, so that no id comes twice. ES_NOT_FOUND: none. */
es_status dm_worker_stale(dm_store *st, int64_t before_ms, int64_t *id, es_error *err) ES_MUST_CHECK;
es_status dm_worker_delete(dm_store *st, int64_t id, es_error *err) ES_MUST_CHECK;
es_status dm_worker_find(dm_store *st, const uint8_t uid[16], int64_t *id, es_error *err) ES_MUST_CHECK;
es_status dm_worker_set_drained(dm_store *st, int64_t id, const char *why,
                                es_error *err) ES_MUST_CHECK; /* NULL: works again */

#endif
