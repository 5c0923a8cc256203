/* Peers that say anything, in any order, to the real coordinator over a disk of memory: its store never fails, and what it answers can be read.
 * A coordinator serves ROUNDS inputs before a new one is made: making one costs more than hundreds of messages. So a finding may need
 * the inputs before it; -seed repeats a run. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/coord.h"
#include "daemon/wire/codec.h"
#include "tests/fuzz/sequence.h"
#include "tests/simulate/disk.h"

enum { ROUNDS = 1000 };

static struct {
    es_clock clock; /* first */
    int64_t now_ms;
    dm_coord *c;
    sim_disk *disk;
    es_rng rng;
    int round;
} w;

static int64_t mono_ns(es_clock *c)
{
    (void)c;
    return w.now_ms * 1000000;
}

static int64_t wall_ms(es_clock *c)
{
    (void)c;
    return 1700000000000 + w.now_ms;
}

static void out(void *ctx, const dm_addr *to, const void *bytes, size_t n)
{
    (void)ctx, (void)to;
    ProtobufCMessage *m = NULL;
    es_error e;
    es_status s = dm_decode(&espalier__wire__to_peer__descriptor, bytes, n, &m, &e);
    ES_ASSERT(s == ES_OK && n <= DM_CONTROL_MAX);
    dm_message_free(&m);
}

static bool has_version(void *ctx, const char *hex)
{
    (void)ctx;
    return hex[0] >= 'a'; /* some are here */
}

static void drop_version(void *ctx, const char *hex) { (void)ctx, (void)hex; }

static void renew(void)
{
    es_error e;
    if (w.c)
        dm_coord_close(&w.c);
    if (w.disk)
        sim_disk_free(&w.disk);
    w.rng = es_rng_make(1, ES_USE_TEST, 0);
    w.disk = sim_disk_new(&w.rng, "fuzz");
    w.clock = (es_clock){.mono_ns = mono_ns, .wall_ms = wall_ms};
    w.now_ms = 1000;
    dm_options o = dm_options_default();
    o.state_path = "state.db";
    o.data_endpoint = "tcp://*:1";
    o.events_kept = 1000;
    dm_env env = {.ctx = &w,
                  .clock = &w.clock,
                  .seed = 1,
                  .vfs = "fuzz",
                  .send = out,
                  .has_version = has_version,
                  .drop_version = drop_version};
    es_status s = dm_coord_open(&o, &env, &w.c, &e);
    ES_ASSERT(s == ES_OK);
    dm_coord_turn(w.c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_log_init("fuzz", ES_LOG_OFF);
    if (w.round++ % ROUNDS == 0)
        renew();
    int delivered = 0; /* in this turn */
    for (fuzz_sequence q = {data, size}; fuzz_sequence_next(&q);) {
        es_error e;
        dm_addr from = {.n = 1, .id = {q.tag & 3}};
        dm_coord_deliver(w.c, &from, q.bytes, q.n);
        if (q.tag & 4 || ++delivered == DM_TURN_MESSAGES) { /* else the next message comes in the same turn */
            dm_coord_turn(w.c);
            delivered = 0;
            w.now_ms += q.tag & 8 ? 40000 : 10;
        }
        ES_ASSERT(dm_coord_health(w.c, &e) == ES_OK);
    }
    dm_coord_turn(w.c);
    es_error e;
    ES_ASSERT(dm_coord_health(w.c, &e) == ES_OK);
    if (dm_coord_shutdown_asked(w.c)) /* by a message: the program would end here */
        w.round = 0;
    return 0;
}
