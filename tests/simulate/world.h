/* world.h - the inside of the simulator: what simulate.c (coordinator, disk, invariants) and peers.c (network, workers, client) share. */
#ifndef TESTS_SIMULATE_WORLD_H
#define TESTS_SIMULATE_WORLD_H

#include "base/map.h"
#include "base/rng.h"
#include "daemon/coord/coord.h"
#include "daemon/wire/codec.h"
#include "tests/daemon/work.h"
#include "tests/simulate/disk.h"
#include "tests/simulate/simulate.h"

enum { SIM_WORKERS = 6, SIM_CLIENT = 100, SIM_HELD = 4, SIM_SEEN = 32 };

typedef struct sim_message {
    int64_t at_ms;
    uint64_t order;
    int to; /* 0: the coordinator */
    int from;
    uint16_t life; /* of the worker at the other end: a connection ends with its process */
    uint8_t *bytes;
    size_t n;
} sim_message;

typedef struct sim_held {
    uint64_t job;
    uint32_t attempt;
    int kind, outcome;
    int rank, size; /* of a gang; size 0: alone */
    bool lost_peer; /* its gang is broken, and it has noticed */
    bool part;      /* hands back what it has: told to by a preempt */
    bool lie;       /* its result will be nonsense */
    int64_t done_at_ms, told_at_ms;
    uint8_t *granted; /* the Granted message */
    size_t granted_n;
} sim_held;

typedef struct sim_worker {
    uint8_t uid[16];
    uint16_t life;
    bool welcomed;
    int64_t greeted_ms, heard_ms; /* by this coordinator, of this life: its last hello, its last message; 0: not yet */
    int64_t silent_until_ms;      /* paused or dead */
    int64_t hello_at_ms, beat_at_ms, want_at_ms, act_at_ms;
    sim_held held[SIM_HELD];
    int held_n;
    dm_lease_id seen[SIM_SEEN]; /* finished lately: a grant of them is an echo */
    int seen_n;
} sim_worker;

enum {
    SIM_KEYS = 3,
    SIM_LIARS = 0
}; /* the key whose workers lie about how long a training is; two keys that agree are believed */

typedef struct sim_client {
    int token;
    uint32_t count;
    int priority;
    bool idle, closing, searching;
    int64_t act_at_ms, think_until_ms;
    int64_t queued_jobs; /* of acknowledged enqueues */
    uint64_t request;    /* the last enqueue: only its answer counts */
    struct sim_asked {
        uint64_t search, request, poll;
        int64_t at_ms, poll_at_ms;
    } asked[SIM_SEARCHES];
} sim_client;

typedef struct sim {
    es_clock clock; /* first */
    int64_t now_ms, wall_offset_ms, disk_well_at_ms;
    uint64_t seed, serial;
    bool faults, leased, reloads; /* reloads: its last turn failed */
    es_rng rng;
    sim_disk *disk;
    dm_coord *c;
    dm_options options;
    dm_env env;
    sim_report *report;
    sim_message *messages; /* a heap by (at_ms, order) */
    int messages_n, messages_cap;
    sim_worker workers[SIM_WORKERS];
    struct sim_told {
        uint64_t job, steps;
    } told; /* the last length that a worker of the lying key lied about */
    sim_client client;
    uint8_t *jobs; /* states by job, as committed */
    int64_t jobs_cap, counted, open_jobs, failed_jobs, noop_jobs;
    struct sim_move {
        int64_t job;
        int from, to, set;
    } * moves, *doubt; /* of the turn in progress; of turns whose commit failed, since the last that did not */
    int moves_n, moves_cap, moves_before_reload, doubt_n, doubt_cap, doubt_sets;
    uint8_t *found; /* states by job, as a crash left them */
    struct sim_accepted {
        int64_t job, attempt;
    } * accepted;
    int accepted_n, accepted_cap;
    struct sim_finish { /* delivered to the coordinator in this turn */
        int64_t job, attempt;
        uint8_t uid[16];
    } * finishes;
    int finishes_n, finishes_cap;
    struct sim_fair *fair;
    es_map accepted_by_job, versions, trained, trained_weights; /* trained: the step of each training's last slice */
} sim;

void sim_note_accepted(sim *s, int64_t job, int64_t attempt);
void sim_check_weights(sim *s, const Espalier__Wire__Granted *g);
const char *sim_put_version(void *ctx, const char *seed);

/* What the client submits: search i's text, user and when. Searches 0 and 1 have one text, so their weights are the same versions. */
const char *sim_search_text(int i);
const char *sim_search_user(int i);
void sim_broken(const sim *s, const char *what, int64_t a, int64_t b);
/* simulate.c: what leaves the coordinator, and what reaches it. */
void sim_check_reply(sim *s, const dm_to_peer *m);
void sim_note_finish(sim *s, const dm_from_peer *m);

/* fair.c: who is next among equals */
void sim_fair_start(sim *s);
void sim_fair_stop(sim *s);
void sim_fair_restarted(sim *s, bool crashed);        /* the coordinator's memory is made anew */
void sim_fair_message(sim *s, const dm_from_peer *m); /* before it is delivered */
/* After a turn. waits: has the search a job that could run? Only searches above that priority are compared. */
void sim_fair_turn(sim *s, bool (*waits)(sim *s, int64_t search), int above);

/* lies.c */
/* Makes it wrong in shape or in number: never to be believed. first: also in how long a training is, as the first to say so. */
void sim_spoil(sim *s, work_result *r, int kind, bool first);

/* peers.c */
void sim_peers_start(sim *s);
void sim_peers_stop(sim *s);
void sim_net_send(sim *s, const dm_addr *to, const void *bytes, size_t n); /* from the coordinator */
int64_t sim_next_event(const sim *s);
void sim_deliver(sim *s);
void sim_peers_act(sim *s);
void sim_worker_fault(sim *s, int i);
void sim_worker_wake(sim *s, int i);
void sim_peers_forgotten(sim *s); /* the coordinator's memory is made anew: it has heard of nobody */

#endif
