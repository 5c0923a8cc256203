/* world.h - a coordinator with a clock, a network and a weights store made of plain memory: tests say what time it is and see every byte that leaves.
 *
 *     world *w = world_new(dir);
 *     world_hello(w, 1, 4); world_want(w, 1, 4);
 *     world_turn(w);
 *     dm_to_peer *m = world_take(w, 1, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);     // NULL: nothing of that kind was sent to peer 1
 *     world_restart(w);                                                           // as after SIGKILL: memory is gone, rows stay
 */
#ifndef TESTS_DAEMON_WORLD_H
#define TESTS_DAEMON_WORLD_H

#include "daemon/coord/coord.h"
#include "daemon/store/job.h"
#include "daemon/wire/codec.h"

typedef struct world {
    es_clock clock; /* first: the coordinator sees only this */
    int64_t now_ms;
    dm_coord *c;
    dm_options options;
    dm_env env;
    char path[1100];
    struct {
        int peer;
        uint8_t *bytes;
        size_t n;
        bool taken;
    } * sent;
    int sent_n, sent_cap;
    int published;
    char versions[64][72]; /* the weights store */
    int versions_n;
    char dropped[64][72];
    int dropped_n;
    uint64_t next_id;
    const char *key; /* of who sends what comes next, as over tcp; NULL: none, as over ipc */
} world;

world *world_new(const char *dir);
void world_free(world **w);
void world_restart(world *w);
int world_turn(world *w);
void world_forget_sent(world *w);      /* what nobody took: long tests would look through all of it */
void world_pass(world *w, int64_t ms); /* time goes on, with turns in between */
void world_send(world *w, int peer, dm_from_peer *m);
dm_to_peer *world_take(world *w, int peer, int what_case); /* the oldest not taken; free with dm_message_free */
void world_free_message(dm_to_peer **m);

void world_hello(world *w, int worker, unsigned slots);
void world_hello_as(world *w, int worker, unsigned slots, const char *machine_kind, uint64_t memory_bytes,
                    const dm_lease_id *holding);
void world_offer(world *w, int worker, uint64_t job, unsigned attempt, const char *id);
void world_goodbye(world *w, int worker);
uint64_t world_want(world *w, int worker, unsigned n);
/* The one lease that the oldest grant to `worker` has; job 0: it got nothing. */
typedef struct world_held {
    uint64_t job, search;
    unsigned attempt;
    int kind;
    uint64_t step;       /* of a training: where it begins */
    unsigned rank, size; /* of a gang; size 0: alone */
} world_held;
world_held world_taken(world *w, int worker);
void world_heartbeat(world *w, int worker, const dm_lease_id *leases, int n);
void world_finish(world *w, int worker, uint64_t job, unsigned attempt, int outcome, const dm_job_result *r,
                  const char *code);
void world_noops(world *w, const char *token, unsigned count, int priority);
uint64_t world_submit(world *w, const char *token, const char *text); /* 0: refused; the reason in world_refusal */
uint64_t world_submit_as(world *w, const char *token, const char *user, const char *text);
const char *world_refusal(void);
extern const char world_small_search[]; /* a text to submit: trained for a while, then 50 evaluations by nsga2 */
void world_command(world *w, int verb, uint64_t search, int64_t value);
char *world_query(world *w, const char *what, uint64_t search, uint64_t job); /* JSON; caller frees; NULL: refused */
const char *world_version(world *w, const char *seed); /* puts a version into the weights store */
/* Works for everything that `worker` can be given, as a trainer and evaluator would, deterministically; returns how many jobs were finished. */
int world_work(world *w, int worker);
extern int world_train_steps; /* of a whole training */

int64_t world_count(world *w, const char *column); /* sum of a search column, e.g. "n_done" */

#endif
