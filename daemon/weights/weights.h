/* weights.h - weights.db: content-addressed chunks and the versions made of them.
 *
 *     dm_weights *w; dm_weights_open("/var/lib/espalier/weights.db", &w, err);
 *     dm_weights_begin(w, err);
 *     dm_weights_answer(w, bytes, n, now_ms, &reply, err);          // any DataRequest of schemas/wire.proto; a bad one is answered with an Error
 *     dm_weights_commit(w, err);                                    // then the replies may leave
 *
 * A chunk's address is the hash of its bytes and is checked when it comes in; a version is accepted only when all its chunks are here and have the lengths it
 * claims. So what a version names can be read until the version is dropped. Versions share chunks; one that no version has is an *orphan* and goes when it is old
 * enough.
 * Several connections (each its own dm_weights, one thread each) may be open on one file.
 */
#ifndef DM_WEIGHTS_H
#define DM_WEIGHTS_H

#include "daemon/auth/roles.h"
#include "daemon/store/db.h"
#include "daemon/wire/codec.h"

typedef struct dm_weights dm_weights;

es_status dm_weights_open(const char *path, dm_weights **out, es_error *err) ES_MUST_CHECK;
void dm_weights_close(dm_weights **w);
/* How much may be stored: all in all, so that the disk keeps room, and of one key (local peers excepted): per_key_bytes at once, and again in each
 * per_key_ms. What nothing needs goes after the grace, so with per_key_ms = grace a key's garbage stays below twice that. 0: no limit. */
typedef struct dm_quota {
    int64_t max_bytes, free_bytes, per_key_bytes, per_key_ms;
} dm_quota;
void dm_weights_set_quota(dm_weights *w,
                          const dm_quota *q); /* also later: what a key has stored lately stays counted */
es_status dm_weights_begin(dm_weights *w, es_error *err) ES_MUST_CHECK;
es_status dm_weights_commit(dm_weights *w, es_error *err) ES_MUST_CHECK;
void dm_weights_rollback(dm_weights *w);

/* ES_OK when version `hex` has every array of version `like`, of the same type and shape (and perhaps more); ES_CORRUPT says which it has not. */
es_status dm_weights_alike(dm_weights *w, const char *hex, const char *like, es_error *err) ES_MUST_CHECK;

/* A status other than ES_OK: the database failed, nothing may be answered. reply->data is malloc'd. */
es_status dm_weights_answer(dm_weights *w, const void *bytes, size_t n, int64_t now_ms, dm_bytes *reply,
                            es_error *err) ES_MUST_CHECK;
/* The same for a peer that is not this very user: what its role may not do is refused (auth/roles.h). */
es_status dm_weights_answer_as(dm_weights *w, const dm_who *who, const void *bytes, size_t n, int64_t now_ms,
                               dm_bytes *reply, es_error *err) ES_MUST_CHECK;
/* The answer to give instead when the database failed. */
es_status dm_weights_refusal(const void *bytes, size_t n, const es_error *why, dm_bytes *reply,
                             es_error *err) ES_MUST_CHECK;

bool dm_weights_has(dm_weights *w, const char *hex);

/* ---- letting go (drop.c). Who needs a version is state.db's business; here age is what protects an upload in flight: nothing goes that was put, asked
 * for or let go of at or after before_ms. Each call is a small transaction or part of one, so a crash between any two leaves only work to do again. */

/* Takes a version away; its chunks that no other has become orphans. Unknown, or too young: nothing happens. */
es_status dm_weights_drop(dm_weights *w, const char *hex, int64_t before_ms, int64_t now_ms,
                          es_error *err) ES_MUST_CHECK;
/* Deletes orphans of before before_ms, at most 64 MiB at once; *collected is how many. */
es_status dm_weights_collect(dm_weights *w, int64_t before_ms, int64_t *collected, es_error *err) ES_MUST_CHECK;
/* Gives free pages back to the file system, a few MiB at once; *left is how many are still free. */
es_status dm_weights_shrink(dm_weights *w, int64_t *left, es_error *err) ES_MUST_CHECK;
/* Ids after `after`, in order, of versions not put since before_ms: candidates for dm_weights_drop. */
es_status dm_weights_idle(dm_weights *w, const char *after, int64_t before_ms, int limit, char (*out)[72], int *count,
                          es_error *err) ES_MUST_CHECK;
typedef struct dm_weights_size {
    int64_t versions, orphans, pages, free_pages, page_bytes;
} dm_weights_size;
es_status dm_weights_sizes(dm_weights *w, dm_weights_size *out, es_error *err) ES_MUST_CHECK;

/* Reads everything: SQLite's own check, every manifest against its id and its chunks, every chunk against its hash. ES_CORRUPT. `stop` (may be NULL)
 * is asked now and then; true gives ES_CANCELLED. */
es_status dm_weights_check(dm_weights *w, bool (*stop)(void *ctx), void *ctx, es_error *err) ES_MUST_CHECK;
dm_db *dm_weights_db(dm_weights *w); /* for dm_copy */

#endif
