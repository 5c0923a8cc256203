/* coord.h - the coordinator: the queue, the searches and the workers, as one object without sockets, clocks or threads of its own.
 *
 *     dm_coord *c; dm_coord_open(&options, &env, &c, err);            // opens state.db, rebuilds everything from its rows
 *     loop:  for each of at most DM_TURN_MESSAGES messages: dm_coord_deliver(c, &from, bytes, n);
 *            wait_ms = dm_coord_turn(c);                              // timers, drivers, leases; one commit; then the answers leave through env.send
 *     dm_coord_close(&c);
 *
 * One turn is one transaction: what the messages of a turn changed is committed before any of their answers is sent. When the commit (or anything
 * in the turn) fails, the turn is taken back, each of its requests gets an Error with the cause, and memory is rebuilt from the rows exactly
 * as after a restart: there is one way back, and it is used often enough to be right.
 *
 * The clock, randomness, network, weights store and disk (an SQLite VFS) come in through dm_env, so that tests/simulate drives this very code.
 */
#ifndef DM_COORD_H
#define DM_COORD_H

#include "base/clock.h"
#include "base/str.h"
#include "daemon/auth/roles.h"
#include "daemon/store/store.h"

enum { DM_TURN_MESSAGES = 256, DM_ADDR_MAX = 32 };

/* Who sent a message, in the transport's terms (a ROUTER's routing id). */
typedef struct dm_addr {
    uint8_t n, id[DM_ADDR_MAX];
} dm_addr;

typedef struct dm_env {
    void *ctx;
    es_clock *clock;
    uint64_t seed;   /* of backoff jitter */
    const char *vfs; /* SQLite VFS; NULL: the system's */
    void (*send)(void *ctx, const dm_addr *to, const void *bytes, size_t n);
    void (*publish)(void *ctx, const char *topic, const char *json);
    bool (*has_version)(void *ctx, const char *hex); /* weights: is it committed? */
    /* Weights: has hex all arrays of like, of the same types and shapes? ES_CORRUPT: no. NULL: not looked at. */
    es_status (*alike)(void *ctx, const char *hex, const char *like, es_error *err);
    void (*drop_version)(void *ctx, const char *hex);              /* no row needs it any more */
    es_status (*reload)(void *ctx, char text[400], es_error *err); /* the configuration again; NULL: there is none */
    /* Begins a backup into `dir` ("": where the automatic ones are); dm_coord_done tells `from` how it ended. NULL: none. */
    es_status (*backup)(void *ctx, const dm_addr *from, uint64_t id, const char *dir, es_error *err);
} dm_env;

/* What is kept, and for how long: retain.c. */
typedef struct dm_retention {
    int checkpoints;                             /* of each training, while its search lives */
    int failed_days, final_days, final_searches; /* days 0: for ever */
    int worker_days;                             /* a worker not heard of for so long is forgotten */
    int every_ms;                                /* between two looks */
} dm_retention;

typedef struct dm_options {
    const char *state_path;
    const char *data_endpoint; /* Welcome.data_endpoint */
    int heartbeat_ms, lease_ms;
    int failures_max; /* attempts that may fail before the job has failed */
    int losses_max;   /* workers in a row a job may take down before it is set aside; 0: no limit */
    int drain_after;  /* failures in a row after which a worker gets no more work; 0: never */
    int backoff_ms;   /* before the second attempt; doubles, with jitter, up to backoff_max_ms */
    int backoff_max_ms;
    int hold_ms; /* how long a gang that waits keeps free workers from others, the first time */
    int64_t events_kept;
    dm_retention retain;
    int client_priority_max;       /* of a client's search; admins may go higher */
    int searches_per_user;         /* not yet over; admins and local users excepted */
    int64_t queued_bytes_per_user; /* of their texts */
    const char *endpoints[3];      /* control, status, http: for the answer to "status"; borrowed */
} dm_options;
dm_options dm_options_default(void);

typedef struct dm_coord dm_coord;

es_status dm_coord_open(const dm_options *o, const dm_env *env, dm_coord **out, es_error *err) ES_MUST_CHECK;
void dm_coord_close(dm_coord **c);
/* A message of this very user, who may do everything: embedded, over ipc, or in a test. */
void dm_coord_deliver(dm_coord *c, const dm_addr *from, const void *bytes, size_t n);
/* A message of whoever the transport says: refused where its role may not, and its workers are its own (coord.c: bind_worker). */
void dm_coord_deliver_as(dm_coord *c, const dm_addr *from, const dm_who *who, const void *bytes, size_t n);
/* Ends the turn. Returns in how many ms the next one is due even without messages (0: more work waits already). */
int dm_coord_turn(dm_coord *c);
/* The state of the last turn: ES_OK, or why nothing can be acknowledged now (disk full ...). */
es_status dm_coord_health(const dm_coord *c, es_error *err);
/* A question of schemas/status.md, between turns. *json is the caller's; ES_NOT_FOUND, ES_BUSY, ES_UNSUPPORTED ... with the reason. */
typedef struct dm_question {
    const char *what;
    uint64_t search, job;
    int64_t limit, after;
} dm_question;
es_status dm_coord_ask(dm_coord *c, const dm_question *q, char **json, es_error *err) ES_MUST_CHECK;
/* Appends the coordinator's numbers in Prometheus' text format. */
es_status dm_coord_metrics(dm_coord *c, es_str *out, es_error *err) ES_MUST_CHECK;
/* Answers a request that took longer than a turn: Done with how->text, or Error when how->code says so. Leaves with the next turn. */
void dm_coord_done(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *how);
bool dm_coord_shutdown_asked(const dm_coord *c);
dm_store *dm_coord_store(dm_coord *c); /* for tests and the simulator: reading between turns */
/* Limits that may change while running (configuration reload). */
void dm_coord_set_options(dm_coord *c, const dm_options *o);

#endif
