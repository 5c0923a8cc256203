/* internal.h - what the parts of the coordinator (and the drivers, daemon/driver/) share. Everything here is a cache of rows and is thrown away on failure.
 *
 * Convention of statuses inside a turn: a status other than ES_OK from a function that takes the coordinator means that the turn cannot be committed
 * (the database failed). What is wrong with a request is answered with dm_coord_refuse and is ES_OK for the turn.
 */
#ifndef DM_COORD_INTERNAL_H
#define DM_COORD_INTERNAL_H

#include "base/arena.h"
#include "base/json.h"
#include "base/map.h"
#include "base/rng.h"
#include "daemon/coord/coord.h"
#include "daemon/store/attempt_rows.h"
#include "daemon/store/event_rows.h"
#include "daemon/store/job.h"
#include "daemon/store/job_rows.h"
#include "daemon/store/purge.h"
#include "daemon/store/result_rows.h"
#include "daemon/store/search_rows.h"
#include "daemon/store/version_rows.h"
#include "daemon/store/worker_rows.h"
#include "daemon/wire/codec.h"

enum {
    DM_WINDOW = 512,
    DM_LEASES_PER_MESSAGE = 512,
    DM_SLOTS_MAX = 4096,
    DM_NOOPS_MAX = 100000,
    DM_GANG_ID_MAX = 256,
    DM_BEAT_LOG_MAX = 2048,
    DM_SPEC_TEXT_MAX = 512 << 10,
    DM_COMMIT_BUCKETS = 13,
    DM_RETRIES = 8,
    DM_KINDS = 16 /* wire JobKind, with room */
};

/* How an attempt ended, for counting. */
typedef enum dm_end { DM_END_DONE, DM_END_FAILED, DM_END_RETRIED, DM_ENDS } dm_end;

typedef struct dm_search dm_search;
typedef struct dm_worker dm_worker;
typedef struct dm_driver dm_driver;
typedef struct dm_gang dm_gang;
typedef struct dm_user dm_user;

typedef struct dm_lease {
    int64_t job, attempt;
    int64_t memory_bytes; /* predicted */
    int kind, failures, losses;
    int64_t heard_ms, began_ms, leased_ms; /* monotonic, monotonic, wall */
    bool confirmed;                        /* the worker has named it: its grant arrived */
    bool preempt;                          /* to be told with the next heartbeat */
    uint64_t step, steps;                  /* progress, as last heard */
    double loss, per_second;
    double charged_ms; /* of its search's and user's used_ms */
    dm_search *search;
    dm_worker *worker;
    int rank;
    dm_gang *gang;                /* NULL: alone */
    struct dm_lease *prev, *next; /* of the same worker */
} dm_lease;

/* A gang that waits for workers keeps those that come free. `since_ms` 0: it does not wait. All times monotonic. */
typedef struct dm_hold {
    int64_t since_ms, limit_ms; /* gives way after so long, for as long; twice as long the next time */
    int64_t rest_until_ms;
    uint64_t tried; /* the run of the scheduler in which it was tried in vain */
} dm_hold;

/* Workers that hold one lease together: each rank is a dm_lease of its own, linked to its worker. dm_coord.leases has the lowest rank that is held. */
struct dm_gang {
    int size, left; /* ranks in all; ranks still held */
    bool
        broken; /* a rank has lost the others: they are stopped, and the attempt ends when all have answered or one is found dead */
    int id_n;
    uint8_t id[DM_GANG_ID_MAX];
    dm_lease *rank[]; /* NULL: gave its slot back */
};

struct dm_worker {
    int64_t id;
    uint8_t uid[16];
    char name[128], device[32], machine_kind[128], drained[256];
    uint64_t memory_bytes;
    uint32_t kinds; /* bit per wire JobKind */
    uint32_t slots, want, held;
    int64_t busy_since_ms, busy_ms; /* held > 0: monotonic; before that */
    int64_t memory_used;            /* predicted, of the leases held */
    uint64_t want_id;
    bool online;
    dm_addr addr;
    int64_t heard_ms; /* monotonic */
    int fails_in_row,
        idle_returns; /* jobs in a row: that failed on it; that it handed back unasked, with nothing done */
    char *log;        /* its last lines, as it told with its heartbeats; NULL: none */
    int64_t jobs_done;
    int64_t left_job, left_attempt; /* the last gang it left in good order: its finish may be repeated */
    dm_lease *leases;
    dm_worker *want_prev, *want_next; /* the queue of those that want work */
    bool wanting;
};

struct dm_search {
    dm_coord *c;
    int64_t id, priority;
    dm_search_state state;
    char *name, *text;
    dm_user *user;
    double used_ms; /* worker time, see fair.c */
    const dm_driver *driver;
    void *driver_state;
    struct sn_search_file *file; /* NULL for noop */
    int64_t memory_bytes[2];     /* predicted for its jobs: evaluation, training */
    /* Ready jobs read ahead. Invariant: every entry is a ready row; `more` says that ready rows outside the window may exist. */
    dm_ready window[DM_WINDOW];
    int window_at, window_n;
    bool more;
    int64_t due_ms;     /* wall: when a job in backoff may start */
    int64_t running;    /* leases; a gang counts once for each rank */
    uint64_t served;    /* turn counter of the last lease: ties go to who waited longest */
    bool busy;          /* the driver has more bounded work to do */
    int broken_in_row;  /* attempts of its gang that ended without blame, and with nothing done */
    dm_hold hold;       /* of its gang, while it waits for workers */
    double took_ms[16]; /* by job kind: how long they take, a moving average; 0: unknown */
    char phase[64];
};

typedef struct dm_outgoing {
    dm_addr to;
    uint8_t *bytes;
    size_t n;
} dm_outgoing;
typedef struct dm_notice {
    char topic[48];
    char *json;
} dm_notice;
typedef struct dm_request {
    dm_addr from;
    uint64_t id;
} dm_request;

/* A failed search on its way back: coord/retry.c. */
typedef struct dm_retry {
    dm_addr from;
    uint64_t request;
    int64_t search, revived;
    char key[DM_JOB_KEY_MAX]; /* of the last job looked at */
} dm_retry;

struct dm_coord {
    dm_options o;
    char state_path[512], data_endpoint[256];
    dm_env env;
    dm_store *store;
    es_status turn; /* of the turn in progress */
    es_error turn_err;
    es_status health; /* of the last turn */
    es_error health_err;
    int64_t retry_ms; /* monotonic: no turn before this after a failure */
    bool loaded;      /* memory agrees with the rows; false after a failed turn, until it is made again */
    bool shutdown;
    int64_t started_ms;
    int64_t now_ms, wall_ms; /* read once a turn: monotonic, wall */
    es_rng rng;
    uint64_t serial;
    es_map workers, worker_uids, leases; /* by id; by the uid's first 8 bytes; by job */
    dm_worker *want_first, *want_last;
    dm_search **searches; /* running and paused */
    int searches_n, searches_cap;
    dm_user *users;                    /* of these searches */
    int64_t fade_at_ms, preempt_at_ms; /* monotonic */
    /* Of the scheduler's run in progress: */
    uint64_t sched_run;
    bool sched_blocked;  /* a job was passed over that another worker may take */
    dm_search *hold;     /* the search whose gang keeps the free workers of hold_kind */
    char hold_kind[128]; /* a machine_kind */
    int64_t
        hold_until_ms; /* when the gang is expected to be whole: jobs that are over by then may use the time; monotonic */
    bool fleet_changed;   /* memory_most is out of date */
    uint64_t memory_most; /* the most memory of a worker that takes work */
    int64_t sched_at_ms;  /* monotonic: run again then, whatever happens; INT64_MAX */
    bool dirty;           /* ready jobs or wanting workers changed: the scheduler has something to look at */
    int64_t expire_at_ms, prune_at_ms, retain_at_ms;
    int64_t retain_cursor; /* the last search looked at */
    int64_t event_id;
    bool sweeping; /* searches that are over may have jobs that are not */
    dm_retry retries[DM_RETRIES];
    int retries_n;
    struct dm_dropped {
        char hex[72];
    } * dropped; /* weights versions to let go after the commit */
    int dropped_n, dropped_cap;
    dm_outgoing *out;
    int out_n, out_cap;
    dm_notice *notices;
    int notices_n, notices_cap;
    dm_who who; /* sent the message being dispatched */
    dm_request requests[DM_TURN_MESSAGES];
    int requests_n;
    uint64_t messages, turns, failed_turns; /* for metrics */
    uint64_t noise;                         /* frames that were no message */
    int64_t noise_ms;
    int64_t commit_ns;
    uint64_t commits[DM_COMMIT_BUCKETS + 1]; /* by duration, DM_COMMIT_BUCKETS: longer */
    int64_t commits_ns;                      /* of all */
    uint64_t ended[DM_KINDS][DM_ENDS];       /* jobs, since the start */
};

/* ---- coord.c: turns, answers, events */
es_status dm_coord_enter(dm_coord *c,
                         es_error *err) ES_MUST_CHECK; /* begins the turn's transaction when it has not begun */
void dm_coord_reply(dm_coord *c, const dm_addr *to, uint64_t request_id, dm_to_peer *m); /* leaves after the commit */
void dm_coord_refuse(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *why);
/* The same, as the end of a handler: ES_OK, since nothing is wrong with the turn. */
es_status dm_coord_refused(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *why);
void dm_coord_json(dm_coord *c, const dm_addr *to, uint64_t request_id, char *json); /* takes json */
/* An event of schemas/status.md: published after the commit, and stored when it has an id (keep). */
typedef struct dm_event {
    es_json j;
    const char *kind;
    int64_t id, search, job;
} dm_event;
es_json *dm_event_begin(dm_coord *c, dm_event *e, const char *kind, const dm_search *s, int64_t job, bool keep);
es_status dm_event_end(dm_coord *c, dm_event *e, es_error *err) ES_MUST_CHECK;
void dm_coord_drop_version(dm_coord *c, const char *hex); /* after the commit, if no row needs it then */

/* ---- search.c: searches in memory, submit and commands */
es_status dm_searches_load(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_searches_free(dm_coord *c);
dm_search *dm_search_find(dm_coord *c, int64_t id);
es_status dm_on_submit(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Submit *m,
                       es_error *err) ES_MUST_CHECK;
es_status dm_on_command(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Command *m,
                        es_error *err) ES_MUST_CHECK;
es_status dm_on_noops(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__EnqueueNoop *m,
                      es_error *err) ES_MUST_CHECK;
es_status dm_search_load(dm_coord *c, int64_t id, es_error *err) ES_MUST_CHECK; /* its row, which lives, into memory */
/* Ends a search: its leases stop, its memory goes at the end of the turn. Jobs that are not over are cancelled, little by little, but for a failed
 * search: an operator may retry it. */
es_status dm_search_end(dm_coord *c, dm_search *s, dm_search_state to, const char *reason, es_error *err) ES_MUST_CHECK;
es_status dm_search_phase(dm_search *s, es_error *err, const char *fmt, ...) ES_PRINTF(3, 4) ES_MUST_CHECK;
es_status dm_searches_work(dm_coord *c,
                           es_error *err) ES_MUST_CHECK; /* bounded driver work, sweeps; forgets ended searches */

/* ---- worker.c: workers and their leases */
es_status dm_leases_load(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_workers_free(dm_coord *c);
es_status dm_on_hello(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Hello *m,
                      es_error *err) ES_MUST_CHECK;
es_status dm_on_want(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Want *m,
                     es_error *err) ES_MUST_CHECK;
es_status dm_on_heartbeat(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Heartbeat *m,
                          es_error *err) ES_MUST_CHECK;
es_status dm_on_goodbye(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Goodbye *m,
                        es_error *err) ES_MUST_CHECK;
es_status dm_workers_expire(dm_coord *c, es_error *err) ES_MUST_CHECK;
dm_worker *dm_worker_by_uid(dm_coord *c, const ProtobufCBinaryData *uid);
void dm_worker_heard(dm_coord *c, dm_worker *w, const dm_addr *from);
void dm_worker_want(dm_coord *c, dm_worker *w, uint32_t want, uint64_t id);
void dm_worker_tell_unknown(dm_coord *c, const dm_addr *to, uint64_t id);
es_status dm_worker_drain(dm_coord *c, dm_worker *w, const char *why,
                          es_error *err) ES_MUST_CHECK; /* gets no more work */
dm_lease *dm_lease_add(dm_coord *c, dm_search *s, dm_worker *w, const dm_ready *r, int64_t attempt);
/* What `w` holds under this name, or NULL. */
dm_lease *dm_lease_held(const dm_coord *c, const dm_worker *w, const dm_lease_id *id);
dm_ready dm_lease_ready(const dm_lease *l);   /* the job as the scheduler sees it once it is ready again */
void dm_lease_preempt(dm_lease *l, bool yes); /* every rank of it */
void dm_lease_drop(dm_coord *c, dm_lease *l); /* memory only; of a gang: every rank */
dm_lease *dm_lease_link(dm_coord *c, dm_search *s, dm_worker *w, const dm_ready *r, int64_t attempt);
void dm_lease_unlink(dm_coord *c, dm_lease *l); /* this rank alone; frees it */
dm_worker *dm_worker_load(dm_coord *c, int64_t job, int64_t id, es_status *status,
                          es_error *err); /* of a lease read from the rows */
/* Gives the job back: running -> ready. `counted` failures and losses are in the lease. */
es_status dm_lease_return(dm_coord *c, dm_lease *l, int outcome, const char *why, int64_t not_before_ms,
                          es_error *err) ES_MUST_CHECK;

/* ---- gang.c: one lease, many workers */
int dm_gang_size(const dm_search *s, int kind); /* workers a job of this kind needs */
/* Leases of all ranks for a job that has moved to running; rank i on w[i]. */
es_status dm_gang_add(dm_coord *c, dm_search *s, dm_worker **w, int size, const dm_ready *r, int64_t attempt,
                      dm_lease **rank0, es_error *err) ES_MUST_CHECK;
/* *found false: the job has no ranks, an older program leased it to one worker. */
es_status dm_gang_load(dm_coord *c, dm_search *s, const dm_ready *r, int64_t leased_ms, bool *found,
                       es_error *err) ES_MUST_CHECK;
void dm_gang_drop(dm_coord *c, dm_gang *g); /* memory only: every rank */
/* *handled: nothing is left to do with this finish. Otherwise it speaks for the whole gang. */
es_status dm_gang_finish(dm_coord *c, dm_lease *l, const Espalier__Wire__Finish *f, bool *handled,
                         es_error *err) ES_MUST_CHECK;
es_status dm_on_gang_offer(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__GangOffer *m,
                           es_error *err) ES_MUST_CHECK;
void dm_gang_send_id(dm_coord *c, const dm_lease *l); /* to this rank, if it is known */

/* ---- finish.c: results */
bool dm_kind_trains(int kind);
es_status dm_on_finish(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__FinishBatch *m,
                       es_error *err) ES_MUST_CHECK;
es_status dm_job_event(dm_coord *c, const dm_lease *l, const char *state, const char *code, const char *text,
                       es_error *err) ES_MUST_CHECK;
/* After a job is done: those that waited only for it become ready. */
es_status dm_job_done_release(dm_coord *c, dm_search *s, int64_t job, es_error *err) ES_MUST_CHECK;

/* ---- slice.c: results of trainings */
/* Slice of a training that a worker says has ended. */
typedef struct dm_slice {
    dm_lease *lease;
    const dm_job_row *row;
    const dm_job_result *result;
    bool done; /* to its end; else handed back on the way */
} dm_slice;
/* *over: nothing is left to train, and the job is to be finished as any other. Otherwise the lease is gone and the job waits for its next slice; or
 * the result is no answer, as why->code then says, and nothing was written. */
es_status dm_slice_finish(dm_coord *c, const dm_slice *x, bool *over, es_error *why, es_error *err) ES_MUST_CHECK;

/* ---- failure.c: attempts that went wrong */
/* Another attempt after a pause, or the end of the job. The lease is gone then. */
es_status dm_lease_failed(dm_coord *c, dm_lease *l, int outcome, const char *code, const char *text, const char *log,
                          es_error *err) ES_MUST_CHECK;
/* A worker gives a job back unasked. Too many in a row with no progress in any, and it gets no more. */
es_status dm_worker_handed_back(dm_coord *c, const dm_lease *l, bool progress, es_error *err) ES_MUST_CHECK;
int64_t dm_backoff_ms(dm_coord *c, int failures); /* before the next attempt */
void dm_worker_did_well(dm_worker *w);            /* its failures and returns are not in a row */

/* ---- sched.c: who gets which job */
es_status dm_sched_run(dm_coord *c, es_error *err) ES_MUST_CHECK;
/* Sends grants of at most `n` leases again that the worker never named; *sent. */
es_status dm_sched_send_again(dm_coord *c, dm_worker *w, uint32_t n, uint64_t request_id, uint32_t *sent,
                              es_error *err) ES_MUST_CHECK;
void dm_sched_added(dm_search *s, const dm_ready *r); /* a job has become ready */
bool dm_sched_due(const dm_search *s);                /* a job in backoff may start */
/* Ready jobs of the search that may start now; NULL: none. */
es_status dm_sched_waiting(dm_search *s, const dm_ready **jobs, int *n, es_error *err) ES_MUST_CHECK;
void dm_sched_later(dm_search *s, int64_t due_ms); /* one is ready, but not before */
void dm_sched_took(dm_lease *l);                   /* it is done: how long that took */

/* ---- fair.c: whose turn it is among equals */
struct dm_user {
    char *name;
    double used_ms;
    int searches;
    dm_user *next;
};
void dm_user_join(dm_coord *c, dm_search *s, const char *name); /* sets s->user */
void dm_user_leave(dm_coord *c, dm_search *s);
void dm_fair_charge(dm_lease *l); /* the lease begins: what it is expected to take */
void dm_fair_settle(dm_lease *l); /* it ends: what it took */
void dm_fair_fade(dm_coord *c);
bool dm_fair_before(const dm_search *a, const dm_search *b); /* of one priority */

/* ---- preempt.c: room for what is more urgent */
es_status dm_sched_preempt(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_preempt_push(dm_coord *c, const dm_lease *l); /* tells its worker now, not with the next heartbeat */

/* ---- fit.c: which worker may take which job now */
typedef enum dm_fit {
    DM_FITS,
    DM_NEVER_FITS, /* not this kind of job, or it is away or drained */
    DM_NO_ROOM,    /* not beside what it holds */
    DM_TOO_SMALL,  /* another worker has more memory, and the job is predicted to need it */
} dm_fit;
dm_fit dm_fits(const dm_coord *c, const dm_worker *w, const dm_ready *r);
bool dm_would_fit(const dm_coord *c, const dm_worker *w, const dm_ready *r); /* if it held nothing */
/* A gang for the job: distinct wanting workers of one machine kind, which are not kept for another gang. Caller frees *out; false: not now. */
bool dm_gang_find(dm_coord *c, const dm_ready *r, int size, dm_worker ***out);
/* Can there be one at all? The machine kind with the most workers that could; *most how many. *free of them are free. *whole_ms: when the last one missing
 * is expected to be free (monotonic; 0: unknown). */
const char *dm_gang_outlook(const dm_coord *c, const dm_ready *r, int size, int *most, int *free_now,
                            int64_t *whole_ms);

/* ---- metrics.c */
void dm_count_commit(dm_coord *c, int64_t ns);
void dm_count_end(dm_coord *c, int kind, dm_end how);

/* ---- retain.c: what is kept */
es_status dm_retain_turn(dm_coord *c, es_error *err) ES_MUST_CHECK;
es_status dm_retain_workers(dm_coord *c, es_error *err) ES_MUST_CHECK; /* some of those that never came back */
es_status dm_retain_command(dm_coord *c, int64_t search, Espalier__Wire__Verb verb, es_error *why,
                            es_error *err) ES_MUST_CHECK;

/* ---- coord/retry.c */
es_status dm_retry_begin(dm_coord *c, const dm_addr *from, uint64_t id, int64_t search, es_error *why,
                         es_error *err) ES_MUST_CHECK; /* why->code ES_OK: it answers when the search goes on */
es_status dm_retry_turn(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_retries_refuse(dm_coord *c, const es_error *why); /* all: whoever asked asks again */

/* ---- query.c */
es_status dm_on_query(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Query *m,
                      es_error *err) ES_MUST_CHECK;

#endif
