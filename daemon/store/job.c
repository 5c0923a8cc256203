#include "daemon/store/job.h"

#include <inttypes.h>

#include "base/log.h"
#include "daemon/store/internal.h"
#include "schemas/wire.pb-c.h"

static const char *const state_names[DM_JOB_STATES] = {
    [DM_JOB_WAITING] = "waiting", [DM_JOB_READY] = "ready",   [DM_JOB_RUNNING] = "running",
    [DM_JOB_DONE] = "done",       [DM_JOB_FAILED] = "failed", [DM_JOB_CANCELLED] = "cancelled",
};

#define TO(state) (1u << DM_JOB_##state)
static const unsigned successors[DM_JOB_STATES] = {
    [DM_JOB_WAITING] = TO(READY) | TO(CANCELLED),
    [DM_JOB_READY] = TO(RUNNING) | TO(CANCELLED),
    [DM_JOB_RUNNING] = TO(READY) | TO(DONE) | TO(FAILED) | TO(CANCELLED),
    [DM_JOB_FAILED] = TO(READY),
};
#undef TO

const char *dm_job_state_name(dm_job_state s)
{
    return s >= DM_JOB_WAITING && s <= DM_JOB_CANCELLED ? state_names[s] : "unknown";
}

bool dm_job_may(dm_job_state from, dm_job_state to)
{
    return from >= DM_JOB_WAITING && from <= DM_JOB_CANCELLED && (successors[from] >> to & 1);
}

static es_status move_row(dm_store *st, const dm_job_move_args *m, es_error *err)
{
    dm_db *db = st->db;
    int64_t from = m->from;
    switch (m->to) {
    case DM_JOB_READY:
        return dm_db_run(db,
                         "UPDATE job SET state = 2, waits = 0, not_before_ms = ?, failures = ?, losses = ?, spec = "
                         "coalesce(?, spec),"
                         " error_code = ?, error = ?, ended_ms = NULL WHERE id = ? AND state = ?",
                         err, "iiibssii", m->not_before_ms, (int64_t)m->failures, (int64_t)m->losses, m->spec,
                         m->spec_bytes, m->error_code, m->error, m->id, from);
    case DM_JOB_RUNNING:
        return dm_db_run(db,
                         "UPDATE job SET state = 3, worker = ?, attempt = ?, leased_ms = ? WHERE id = ? AND state = ?",
                         err, "iiiii", m->worker, m->attempt, m->now_ms, m->id, from);
    case DM_JOB_DONE:
        return dm_db_run(db,
                         "UPDATE job SET state = 4, result = ?, ended_ms = ?, error_code = NULL, error = NULL WHERE id "
                         "= ? AND state = ?",
                         err, "biii", m->result, m->result_bytes, m->now_ms, m->id, from);
    case DM_JOB_FAILED:
        return dm_db_run(db,
                         "UPDATE job SET state = 5, failures = ?, losses = ?, error_code = ?, error = ?, ended_ms = ?"
                         " WHERE id = ? AND state = ?",
                         err, "iissiii", (int64_t)m->failures, (int64_t)m->losses, m->error_code, m->error, m->now_ms,
                         m->id, from);
    case DM_JOB_CANCELLED:
        return dm_db_run(db, "UPDATE job SET state = 6, ended_ms = ? WHERE id = ? AND state = ?", err, "iii", m->now_ms,
                         m->id, from);
    case DM_JOB_WAITING: break;
    }
    ES_ASSERT(!"no job moves to waiting");
    return ES_INVALID;
}

es_status dm_job_move(dm_store *st, const dm_job_move_args *m, es_error *err)
{
    ES_ASSERT(dm_job_may(m->from, m->to));
    ES_RETURN(move_row(st, m, err));
    if (dm_db_changes(st->db) != 1)
        return es_fail(err, ES_LOST, NULL, "job %" PRId64 " is not %s", m->id, state_names[m->from]);
    dm_store_count(st, m->search, m->from, -1);
    dm_store_count(st, m->search, m->to, 1);
    if (st->on_move)
        st->on_move(st->on_move_ctx, m->id, m->from, m->to);
    es_log(ES_LOG_DEBUG, "job=%" PRId64 " %s -> %s: %s", m->id, state_names[m->from], state_names[m->to], m->why);
    return ES_OK;
}
