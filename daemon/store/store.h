/* store.h - state.db: every row the coordinator stands on. The only SQL about searches, and no decisions.
 *
 *     dm_store *st; dm_store_open("/var/lib/espalier/state.db", NULL, &st, err);
 *     dm_store_begin(st, err); ... dm_store_commit(st, err);       // on any failure in between: dm_store_rollback, rebuild memory from rows
 *
 * The rows: search_rows.h, job_rows.h (and job.h: the life of a job), attempt_rows.h, account_rows.h, result_rows.h, version_rows.h, worker_rows.h, event_rows.h; purge.h.
 *
 * Invariants: searches' n_* columns are the number of their jobs per state (kept by dm_store_count, written at commit). Rows are never deleted, but for
 * old events, workers that never came back, the ranks of gangs that are over, and deleted searches. Texts and blobs in row structs belong to the row
 * and go with dm_*_row_free.
 */
#ifndef DM_STORE_H
#define DM_STORE_H

#include "base/hash.h"
#include "daemon/store/db.h"

typedef struct dm_store dm_store;

es_status dm_store_open(const char *path, const char *vfs, dm_store **out, es_error *err) ES_MUST_CHECK;
void dm_store_close(dm_store **st);
es_status dm_store_begin(dm_store *st, es_error *err) ES_MUST_CHECK;
es_status dm_store_commit(dm_store *st, es_error *err) ES_MUST_CHECK;
void dm_store_rollback(dm_store *st);
/* Has the transaction changed a row so far? */
bool dm_store_wrote(const dm_store *st);
bool dm_store_in_transaction(const dm_store *st);
es_status dm_store_check(dm_store *st, es_error *err) ES_MUST_CHECK; /* reads everything; ES_CORRUPT */
dm_db *dm_store_db(dm_store *st);                                    /* for dm_copy: between transactions */
/* Told of every change of a job's state, inside the transaction: for the simulator and for tests. */
void dm_store_on_move(dm_store *st, void (*fn)(void *ctx, int64_t job, int from, int to), void *ctx);

#endif
