/* store.h - state.db: every row the coordinator stands on. The only SQL outside job.c, and no decisions.
 *
 *     dm_store *st; dm_store_open("/var/lib/espalier/state.db", NULL, &st, err);
 *     dm_store_begin(st, err); ... dm_store_commit(st, err);       // on any failure in between: dm_store_rollback, rebuild memory from rows
 *
 * Invariants: searches' n_* columns are the number of their jobs per state (kept by dm_store_count, written at commit). Rows are never deleted, but for
 * old events, workers that never came back, the ranks of gangs that are over, and deleted searches (version_rows.c). Texts and blobs in row structs belong to the row and go with
 * dm_*_row_free.
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
bool dm_store_in_transaction(const dm_store *st);
es_status dm_store_savepoint(dm_store *st, es_error *err) ES_MUST_CHECK;
es_status dm_store_release(dm_store *st, es_error *err) ES_MUST_CHECK;
void dm_store_undo(dm_store *st);
es_status dm_store_check(dm_store *st, es_error *err) ES_MUST_CHECK; /* reads everything; ES_CORRUPT */
dm_db *dm_store_db(dm_store *st);                                    /* for dm_copy: between transactions */
/* Told of every change of a job's state, inside the transaction: for the simulator and for tests. */
void dm_store_on_move(dm_store *st, void (*fn)(void *ctx, int64_t job, int from, int to), void *ctx);

/* ---- searches ---------------------------------------------------------------------------------------------------------- */

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

es_status dm_job_counts(dm_store *st, int64_t counts[7],
                        es_error *err) ES_MUST_CHECK; /* jobs of all searches, by dm_job_state */

/* Jobs of a search that are not over, by state (waiting, ready, running) and kind (below 16): reads each of them. */
es_status dm_job_kinds(dm_store *st, int64_t search, int64_t counts[4][16], es_error *err) ES_MUST_CHECK;

/* ---- jobs -------------------------------------------------------------------------------------------------------------- */

typedef struct dm_job_row {
    int64_t id, search, worker, attempt, not_before_ms, created_ms, leased_ms, ended_ms;
    int kind, state, failures, losses, waits;
    int64_t memory_bytes; /* predicted; 0: unknown */
    char *key;
    uint8_t *spec, *result;
    size_t spec_bytes, result_bytes;
    char *error_code, *error;
} dm_job_row;
void dm_job_row_free(dm_job_row *r);

typedef struct dm_job_new {
    int64_t search;
    int kind;
    const char *key;
    const void *spec;
    size_t spec_bytes;
    const int64_t *needs; /* jobs that must be done first */
    int needs_count;
    int64_t now_ms, memory_bytes;
} dm_job_new;
/* Ready, or waiting when something it needs is not done. A key that exists already: ES_OK, *id is that job's, *created false. */
es_status dm_job_create(dm_store *st, const dm_job_new *j, int64_t *id, bool *created, es_error *err) ES_MUST_CHECK;
es_status dm_job_create_noops(dm_store *st, int64_t search, int64_t count, int64_t now_ms, int64_t *first,
                              es_error *err) ES_MUST_CHECK;
es_status dm_job_get(dm_store *st, int64_t id, dm_job_row *out, es_error *err) ES_MUST_CHECK;
es_status dm_job_by_key(dm_store *st, int64_t search, const char *key, dm_job_row *out, es_error *err) ES_MUST_CHECK;
/* state and attempt only. */
es_status dm_job_peek(dm_store *st, int64_t id, int *state, int64_t *attempt, int64_t *worker,
                      es_error *err) ES_MUST_CHECK;

/* What the scheduler holds of a ready job. */
typedef struct dm_ready {
    int64_t id, attempt, memory_bytes;
    int kind, failures, losses;
} dm_ready;
/* The oldest ready jobs of a search that may start by now; *next_due_ms is when the next one may (INT64_MAX: none waits). */
es_status dm_job_ready(dm_store *st, int64_t search, int64_t now_ms, int limit, dm_ready *out, int *count,
                       int64_t *next_due_ms, es_error *err) ES_MUST_CHECK;
/* Jobs of a search in a state that is not over. Without the spec. */
es_status dm_job_each_live(dm_store *st, int64_t search, int state, int64_t limit,
                           bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err) ES_MUST_CHECK;
/* Every running job, of all searches. Without the spec. */
es_status dm_job_each_running(dm_store *st, bool (*fn)(void *ctx, const dm_job_row *r), void *ctx,
                              es_error *err) ES_MUST_CHECK;
/* Looks at the next `limit` jobs that have a key, by key, after `key`, which it moves on; those that failed go to ids. *more: there may be others. */
enum { DM_JOB_KEY_MAX = 64 };
es_status dm_job_failed_after(dm_store *st, int64_t search, char key[DM_JOB_KEY_MAX], int limit, int64_t *ids, int *n,
                              bool *more, es_error *err) ES_MUST_CHECK;
/* All jobs that have a key (drivers' jobs), in order of creation: for `show`. Without spec and result. */
es_status dm_job_each_keyed(dm_store *st, int64_t search, int64_t after, int64_t limit,
                            bool (*fn)(void *ctx, const dm_job_row *r), void *ctx, es_error *err) ES_MUST_CHECK;
es_status dm_job_set_spec(dm_store *st, int64_t id, const void *spec, size_t n, es_error *err) ES_MUST_CHECK;
/* Jobs that need `id`: after it is done, counts down; those that wait for nothing more come back in *ready (caller frees). */
es_status dm_job_release(dm_store *st, int64_t id, int64_t **ready, int *count, es_error *err) ES_MUST_CHECK;
/* All that wait on `id` (caller frees). */
es_status dm_job_dependents(dm_store *st, int64_t id, int64_t **jobs, int *count, es_error *err) ES_MUST_CHECK;
es_status dm_job_needs(dm_store *st, int64_t id, int64_t **jobs, int *count, es_error *err) ES_MUST_CHECK;

typedef struct dm_attempt_row {
    int64_t job, attempt, worker, leased_ms, ended_ms;
    int outcome; /* wire Outcome; DM_OUTCOME_LOST */
    const char *error_code, *error, *log;
} dm_attempt_row;
enum {
    DM_OUTCOME_LOST = 100,
    DM_OUTCOME_SLICE = 101
}; /* besides wire Outcome: lease expired; slice finished, more to train */
es_status dm_attempt_insert(dm_store *st, const dm_attempt_row *r, es_error *err) ES_MUST_CHECK;
/* *yes: it ended with the outcome that its worker says now (a wire Outcome; a slice ended as done). */
es_status dm_attempt_ended_so(dm_store *st, int64_t job, int64_t attempt, int64_t worker, int said, bool *yes,
                              es_error *err) ES_MUST_CHECK;
es_status dm_attempt_each(dm_store *st, int64_t job, bool (*fn)(void *ctx, const dm_attempt_row *r), void *ctx,
                          es_error *err) ES_MUST_CHECK;

/* ---- gangs: the ranks of a job's current attempt */
typedef struct dm_gang_row {
    int64_t job, attempt, worker;
    int rank, size;
} dm_gang_row;
/* The first rank of an attempt replaces the rows of the one before. */
es_status dm_gang_insert(dm_store *st, const dm_gang_row *r, es_error *err) ES_MUST_CHECK;
es_status dm_gang_leave(dm_store *st, int64_t job, int rank, es_error *err) ES_MUST_CHECK; /* gave its slot back */
es_status dm_gang_set_id(dm_store *st, int64_t job, const void *id, size_t n, es_error *err) ES_MUST_CHECK;
/* Ranks still held of this attempt, in order; `id` is rank 0's, or NULL. */
es_status dm_gang_each(dm_store *st, int64_t job, int64_t attempt,
                       bool (*fn)(void *ctx, const dm_gang_row *r, const void *id, size_t n), void *ctx,
                       es_error *err) ES_MUST_CHECK;

typedef struct dm_checkpoint {
    int64_t job, step, steps;
    const char *weights;
    double loss, per_second, seconds;
} dm_checkpoint;
es_status dm_checkpoint_insert(dm_store *st, const dm_checkpoint *c,
                               es_error *err) ES_MUST_CHECK; /* the same step again replaces */
/* The newest; ES_NOT_FOUND: none. out->weights points to `weights`. */
es_status dm_checkpoint_last(dm_store *st, int64_t job, dm_checkpoint *out, char weights[72],
                             es_error *err) ES_MUST_CHECK;
es_status dm_checkpoint_seconds(dm_store *st, int64_t job, double *out,
                                es_error *err) ES_MUST_CHECK; /* of all slices */

/* After a restore: leases given out since the backup was made are of no attempt that this database will give out. */
es_status dm_attempts_jump(dm_store *st, es_error *err) ES_MUST_CHECK;

/* ---- which weights versions are needed, and by whom (version_rows.c) ---------------------------------------------------- */

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
es_status dm_search_set_pinned(dm_store *st, int64_t id, bool pinned, es_error *err) ES_MUST_CHECK;
/* From here on dm_search_get and dm_search_each do not know it. */
es_status dm_search_set_deleted(dm_store *st, int64_t id, int64_t now_ms, es_error *err) ES_MUST_CHECK;
/* Takes some rows of the first deleted search after `after` that has any; *busy: there are more. ES_NOT_FOUND: there is none. */
es_status dm_search_purge(dm_store *st, int64_t after, int64_t *id, bool *busy, es_error *err) ES_MUST_CHECK;

/* ---- what searches found ----------------------------------------------------------------------------------------------- */

typedef struct dm_candidate {
    int64_t ticket, params, macs, activation_bytes;
    es_id id;
    const char *architecture;
} dm_candidate;
es_status dm_candidate_insert(dm_store *st, int64_t search, const dm_candidate *c, es_error *err) ES_MUST_CHECK;
es_status dm_candidate_each(dm_store *st, int64_t search, int64_t from, int64_t limit,
                            bool (*fn)(void *ctx, const dm_candidate *c), void *ctx, es_error *err) ES_MUST_CHECK;

/* In the database: fixed for ever. */
typedef enum dm_split { DM_SPLIT_NONE = 0, DM_SPLIT_VALIDATION = 1, DM_SPLIT_TEST = 2 } dm_split;
typedef enum dm_measure {
    DM_MEASURE_ACCURACY = 1,
    DM_MEASURE_LATENCY = 2,
    DM_MEASURE_TABLE = 3,
    DM_MEASURE_EXPORT = 4
} dm_measure;

typedef struct dm_result {
    es_id id;
    const char *weights; /* "" when it does not depend on them */
    dm_split split;
    dm_measure measure;
    int64_t job; /* 0: none */
    bool ok;
    double value, low, high, loss;
    int64_t correct, samples;
    const char *text;
} dm_result;
/* A second result for the same key changes nothing: *fresh tells. */
es_status dm_result_insert(dm_store *st, int64_t search, const dm_result *r, bool *fresh, es_error *err) ES_MUST_CHECK;
es_status dm_result_get(dm_store *st, int64_t search, const es_id *id, const char *weights, dm_split split,
                        dm_measure measure, dm_result *out, char text[256], es_error *err) ES_MUST_CHECK;
es_status dm_result_each(dm_store *st, int64_t search, bool (*fn)(void *ctx, const dm_result *r), void *ctx,
                         es_error *err) ES_MUST_CHECK;

/* For the page: the loss of each training at its checkpoints, at most `limit` of them, spread evenly, by job and step. */
es_status dm_curve_loss(dm_store *st, int64_t search, int64_t limit,
                        bool (*fn)(void *ctx, int64_t job, int64_t step, double loss), void *ctx,
                        es_error *err) ES_MUST_CHECK;
/* What candidates scored on the validation set, by ticket, from `from` on. */
es_status dm_curve_values(dm_store *st, int64_t search, int64_t from, int64_t limit,
                          bool (*fn)(void *ctx, int64_t ticket, double value, int64_t params, int64_t macs), void *ctx,
                          es_error *err) ES_MUST_CHECK;

/* ---- workers, events, tokens ------------------------------------------------------------------------------------------- */

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

es_status dm_event_insert(dm_store *st, int64_t id, int64_t ms, int64_t search, int64_t job, const char *kind,
                          const char *json, es_error *err) ES_MUST_CHECK;
es_status dm_event_last(dm_store *st, int64_t *id, es_error *err) ES_MUST_CHECK; /* 0: none */
/* json texts, oldest first, ids above `after`; search 0: of everything. */
es_status dm_event_each(dm_store *st, int64_t search, int64_t after, int64_t limit,
                        bool (*fn)(void *ctx, int64_t id, const char *json), void *ctx, es_error *err) ES_MUST_CHECK;
es_status dm_event_prune(dm_store *st, int64_t keep, es_error *err) ES_MUST_CHECK;

es_status dm_enqueue_find(dm_store *st, const char *token, int64_t *search, es_error *err) ES_MUST_CHECK;
es_status dm_enqueue_insert(dm_store *st, const char *token, int64_t search, es_error *err) ES_MUST_CHECK;

#endif
