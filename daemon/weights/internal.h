/* internal.h - what weights.c (answering), drop.c (letting go, checking) and quota.c (room) share.
 *
 *     es_error why = {0};
 *     ES_RETURN(dm_quota_take(w, &who, bytes, now_ms, &why, err));
 *     if (why.code != ES_OK) refuse with it
 *
 * A dm_weights is one connection to weights.db and belongs to one thread: the data thread has its own, the main thread another.
 */
#ifndef DM_WEIGHTS_INTERNAL_H
#define DM_WEIGHTS_INTERNAL_H

#include "base/map.h"
#include "daemon/auth/limits.h"
#include "daemon/weights/weights.h"

struct dm_weights {
    dm_db *db;
    dm_quota quota;
    es_map keys; /* what each key stored lately; quota.c */
};

/* Whether `who` may store so many bytes more; if not, *why. */
es_status dm_quota_take(dm_weights *w, const dm_who *who, size_t bytes, int64_t now_ms, es_error *why,
                        es_error *err) ES_MUST_CHECK;
void dm_quota_free(dm_weights *w);

#endif
