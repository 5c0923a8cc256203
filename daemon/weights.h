/* weights.h - weights.db: content-addressed chunks and the versions made of them.
 *
 *     dm_weights *w; dm_weights_open("/var/lib/espalier/weights.db", &w, err);
 *     dm_weights_begin(w, err);
 *     dm_weights_answer(w, bytes, n, now_ms, &reply, err);          // any DataRequest of schemas/wire.proto; a bad one is answered with an Error
 *     dm_weights_commit(w, err);                                    // then the replies may leave
 *
 * A chunk's address is the hash of its bytes and is checked when it comes in; a version is accepted only when all its chunks are here and have the lengths it
 * claims. So what a version names can be read until the version is dropped. Versions share chunks; a chunk goes with the last version that has it.
 * Several connections (each its own dm_weights, one thread each) may be open on one file.
 */
#ifndef DM_WEIGHTS_H
#define DM_WEIGHTS_H

#include "daemon/db.h"
#include "daemon/wire_codec.h"

typedef struct dm_weights dm_weights;

es_status dm_weights_open(const char *path, dm_weights **out, es_error *err) ES_MUST_CHECK;
void dm_weights_close(dm_weights **w);
es_status dm_weights_begin(dm_weights *w, es_error *err) ES_MUST_CHECK;
es_status dm_weights_commit(dm_weights *w, es_error *err) ES_MUST_CHECK;
void dm_weights_rollback(dm_weights *w);

/* A status other than ES_OK: the database failed, nothing may be answered. reply->data is malloc'd. */
es_status dm_weights_answer(dm_weights *w, const void *bytes, size_t n, int64_t now_ms, dm_bytes *reply,
                            es_error *err) ES_MUST_CHECK;
/* The answer to give instead when the database failed. */
es_status dm_weights_refusal(const void *bytes, size_t n, const es_error *why, dm_bytes *reply,
                             es_error *err) ES_MUST_CHECK;

bool dm_weights_has(dm_weights *w, const char *hex);
es_status dm_weights_drop(dm_weights *w, const char *hex, es_error *err) ES_MUST_CHECK; /* unknown: nothing happens */
/* Chunks no version refers to, older than `before_ms`: an upload that was never finished. At most a few hundred at once. */
es_status dm_weights_collect(dm_weights *w, int64_t before_ms, int64_t *collected, es_error *err) ES_MUST_CHECK;
es_status dm_weights_check(dm_weights *w, es_error *err) ES_MUST_CHECK; /* reads everything; ES_CORRUPT */
es_status dm_weights_backup(dm_weights *w, const char *path, es_error *err) ES_MUST_CHECK;

#endif
