/* job.h - the life of a job, in one place: drawing, states, allowed successors, and the one function that changes a state.
 *
 *            create                 lease                    result committed
 *   waiting ---------> ready ------------------> running ---------------------------> done
 *  (dependencies)      ^  ^  ^                    |  |  |
 *     |                |  |  '- slice finished, --'  |  |---- cancel --------------> cancelled   (also from waiting and ready)
 *     |                |  |     more to train        |  |
 *     |                |  '---- worker lost or ------'  '---- attempts gone --------> failed     (reason kept)
 *     |                |        preempted: not counted          |                       |
 *     |                '------- failed, attempts left (backoff) '                       |
 *     '- cancel         '------------------------------ retry by an operator ------------'
 *
 * Invariants: a job has a lease (in memory and as worker + attempt in its row) exactly when it is running; `attempt` rises with every lease, so a lease
 * is (job, attempt); done, failed and cancelled have ended_ms. dm_job_move changes a row only when it is in the state the caller believes
 * (UPDATE ... WHERE state = from, one changed row), and keeps the counts of its search.
 */
#ifndef DM_JOB_H
#define DM_JOB_H

#include "daemon/store/job_rows.h"

/* In the database: fixed for ever. */
typedef enum dm_job_state {
    DM_JOB_WAITING = 1,
    DM_JOB_READY = 2,
    DM_JOB_RUNNING = 3,
    DM_JOB_DONE = 4,
    DM_JOB_FAILED = 5,
    DM_JOB_CANCELLED = 6,
} dm_job_state;
enum { DM_JOB_STATES = 7 };

const char *dm_job_state_name(dm_job_state s); /* "ready": for JSON and logs */
bool dm_job_may(dm_job_state from, dm_job_state to);

/* What a move writes besides the state; fields not named for the target state are ignored. */
typedef struct dm_job_move_args {
    int64_t id, search;
    dm_job_state from, to;
    const char *why;       /* for the log: "leased", "worker lost" ... */
    int64_t now_ms;        /* running: leased_ms; done, failed, cancelled: ended_ms */
    int64_t worker;        /* running */
    int64_t attempt;       /* running: the new one */
    int64_t not_before_ms; /* ready */
    int failures, losses;  /* ready, failed */
    const void *spec;      /* ready: NULL keeps the old */
    size_t spec_bytes;
    const void *result; /* done */
    size_t result_bytes;
    const char *error_code, *error; /* ready (of the attempt before), failed */
} dm_job_move_args;

/* ES_LOST when the row is not in state `from`. A move the table does not allow is an assertion. */
es_status dm_job_move(dm_store *st, const dm_job_move_args *m, es_error *err) ES_MUST_CHECK;

#endif
