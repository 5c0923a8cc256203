/* world.h - the inside of the simulator: what simulate.c (coordinator, disk, invariants) and peers.c (network, workers, client) share. */
#ifndef TESTS_SIMULATE_WORLD_H
#define TESTS_SIMULATE_WORLD_H

#include "base/rng.h"
#include "daemon/coord.h"
#include "daemon/map.h"
#include "daemon/wire_codec.h"
#include "tests/simulate/disk.h"
#include "tests/simulate/simulate.h"

enum { SIM_WORKERS = 4, SIM_CLIENT = 100, SIM_HELD = 4, SIM_SEEN = 32 };

typedef struct sim_message {
    int64_t at_ms;
    uint64_t order;
    int to; /* 0: the coordinator */
    int from;
    uint8_t *bytes;
    size_t n;
} sim_message;

typedef struct sim_held {
    uint64_t job;
    uint32_t attempt;
    int kind, outcome;
    int64_t done_at_ms, told_at_ms;
    uint8_t *granted; /* the Granted message */
    size_t granted_n;
} sim_held;

typedef struct sim_worker {
    uint8_t uid[16];
    bool welcomed;
    int64_t silent_until_ms; /* paused or dead */
    int64_t hello_at_ms, beat_at_ms, want_at_ms, act_at_ms;
    sim_held held[SIM_HELD];
    int held_n;
    dm_lease_id seen[SIM_SEEN]; /* finished lately: a grant of them is an echo */
    int seen_n;
} sim_worker;

typedef struct sim_client {
    int token;
    uint32_t count;
    int priority;
    bool idle, closing, submitted;
    int64_t act_at_ms, think_until_ms, poll_at_ms;
    uint64_t search, poll_floor; /* answers to requests up to it are echoes of earlier ones */
    int64_t queued_jobs;         /* of acknowledged enqueues */
    char *result;
} sim_client;

typedef struct sim {
    es_clock clock; /* first */
    int64_t now_ms, wall_offset_ms, disk_well_at_ms;
    uint64_t seed, serial;
    bool faults, leased;
    es_rng rng;
    sim_disk *disk;
    dm_coord *c;
    dm_options options;
    dm_env env;
    sim_report *report;
    const char *search_text;
    sim_message *messages; /* a heap by (at_ms, order) */
    int messages_n, messages_cap;
    sim_worker workers[SIM_WORKERS];
    sim_client client;
    uint8_t *jobs; /* states by job, as committed */
    int64_t jobs_cap, counted, open_jobs, failed_jobs, noop_jobs;
    struct sim_move {
        int64_t job;
        int from, to;
    } * moves; /* of the turn in progress */
    int moves_n, moves_cap, moves_before_reload;
    struct sim_accepted {
        int64_t job, attempt;
    } * accepted;
    int accepted_n, accepted_cap;
    dm_map accepted_by_job, versions;
} sim;

void sim_note_accepted(sim *s, int64_t job, int64_t attempt);
void sim_check_weights(sim *s, const Espalier__Wire__Granted *g);
const char *sim_put_version(void *ctx, const char *seed);

/* peers.c */
void sim_peers_start(sim *s);
void sim_peers_stop(sim *s);
void sim_net_send(sim *s, int peer, const void *bytes, size_t n); /* from the coordinator */
int64_t sim_next_event(const sim *s);
void sim_deliver(sim *s);
void sim_peers_act(sim *s);
void sim_worker_fault(sim *s, int i);
void sim_worker_wake(sim *s, int i);

#endif
