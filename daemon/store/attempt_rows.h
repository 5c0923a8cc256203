/* attempt_rows.h - how jobs were tried: ended attempts, the ranks of gangs, checkpoints of trainings.
 *
 * An attempt gets its row when it ends; the one that runs stands in the job's row (worker, attempt). A job has ranks only while a gang holds it or
 * after a gang held it last. A checkpoint is named by (job, step).
 */
#ifndef DM_ATTEMPT_ROWS_H
#define DM_ATTEMPT_ROWS_H

#include "daemon/store/store.h"

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
es_status dm_checkpoint_forget(dm_store *st, int64_t job, es_error *err) ES_MUST_CHECK; /* all of them */
es_status dm_checkpoint_seconds(dm_store *st, int64_t job, double *out,
                                es_error *err) ES_MUST_CHECK; /* of all slices */

/* After a restore: leases given out since the backup was made are of no attempt that this database will give out. */
es_status dm_attempts_jump(dm_store *st, es_error *err) ES_MUST_CHECK;

/* For the page: the loss of each training of a search at its checkpoints (of which fn gets job, step and loss), at most `limit` of them, spread evenly, by job and step. */
es_status dm_checkpoint_curve(dm_store *st, int64_t search, int64_t limit,
                              bool (*fn)(void *ctx, const dm_checkpoint *c), void *ctx, es_error *err) ES_MUST_CHECK;

#endif
