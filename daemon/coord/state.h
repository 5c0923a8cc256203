/* state.h - what the coordinator holds in memory, for its parts and for the drivers (daemon/driver/). Everything here is a cache of rows and is thrown away on failure.
 *
 * A part is a pair of files beside this one; each includes this and the parts it asks.
 *
 * Convention of statuses inside a turn: a status other than ES_OK from a function that takes the coordinator means that the turn cannot be committed
 * (the database failed). What is wrong with a request is answered with dm_coord_refuse and is ES_OK for the turn.
 */
#ifndef DM_COORD_STATE_H
#define DM_COORD_STATE_H

#include "base/arena.h"
#include "base/json.h"
#include "base/map.h"
#include "base/rng.h"
#include "daemon/coord/coord.h"
#include "daemon/store/account_rows.h"
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

/* Worker time, of a search or a user: fair.h. */
typedef struct dm_account {
    double used_ms, open_ms; /* open_ms of it: charged to leases that are not over. The rest is what its row keeps. */
    bool changed;            /* since it was kept */
} dm_account;

typedef struct dm_lease {
    int64_t job, attempt;
    int64_t memory_bytes; /* predicted */
    int kind, failures, losses;
    int64_t heard_ms, began_ms, leased_ms; /* monotonic, monotonic, wall */
    bool confirmed;                        /* the worker has named it: its grant arrived */
    bool preempt;                          /* to be told with the next heartbeat */
    uint64_t step, steps;                  /* progress, as last heard */
    double loss, per_second;
    double charged_ms; /* to its search's and user's account */
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
    /* A rank has lost the others: they are stopped, and the attempt ends when all have answered or one is found dead. */
    bool broken;
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
    dm_account account;
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

/* An owner of searches: fair.h. */
struct dm_user {
    char *name;
    dm_account account;
    int searches;
    dm_user *next;
};

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
    int64_t started_ms, loaded_ms;
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
    /* When the gang is expected to be whole: jobs that are over by then may use the time; monotonic. */
    int64_t hold_until_ms;
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

#endif
