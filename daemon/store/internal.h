/* internal.h - the inside of a dm_store, for this folder (and tests that look at rows with SQL of their own).
 *
 *     dm_store_count(st, search, DM_JOB_READY, 1);          // with every row of `job` that appears, goes or changes its state
 *
 * The n_* columns of searches are not written with each job but once a transaction: changes are summed in `counts` and flushed at commit and when the
 * slots are full. Between flushes the columns are behind the rows.
 */
#ifndef DM_STORE_INTERNAL_H
#define DM_STORE_INTERNAL_H

#include "daemon/store/job.h"
#include "daemon/store/store.h"

enum { DM_COUNT_SLOTS = 64 };

struct dm_store {
    dm_db *db;
    /* Changes of n_* that are not in their rows yet: few searches a transaction. */
    struct dm_count {
        int64_t search, delta[7];
    } counts[DM_COUNT_SLOTS];
    int counted;
    int64_t changes;        /* dm_db_changes_ever, when the transaction began */
    es_status count_failed; /* of a flush in the middle; reported at commit */
    void (*on_move)(void *ctx, int64_t job, int from, int to);
    void *on_move_ctx;
};

void dm_store_count(dm_store *st, int64_t search, int state, int64_t by);
/* Brings the n_* columns up to date inside the transaction. */
es_status dm_store_flush_counts(dm_store *st, es_error *err) ES_MUST_CHECK;
char *dm_store_dup(const char *text); /* NULL for "" */
/* A growing list of ids. */
typedef struct dm_ids {
    int64_t *p;
    int n, cap;
} dm_ids;
void dm_ids_add(dm_ids *l, int64_t id);

#endif
