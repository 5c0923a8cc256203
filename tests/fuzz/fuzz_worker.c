/* A coordinator that says anything to a worker: it goes on or ends with a reason. Jobs are taken, and stopped, but not done here. */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "tests/fuzz/sequence.h"
#include "worker/compute.h"
#include "worker/worker.h"

/* The real control loop, with this coordinator and this compute thread. */
enum { TASKS = 256 };
static struct {
    fuzz_sequence q;
    uint64_t id;
    void *zmq, *socket;
    bool opened;
    int always; /* readable: the loop never waits */
    wk_progress task[TASKS];
    int tasks;
    wk_finish *finished;
} w;

static es_status fuzz_open(const dm_peer_options *o, dm_peer **out, es_error *err)
{
    (void)o, (void)out, (void)err;
    w.opened = true;
    return ES_OK;
}
static void fuzz_close(dm_peer **p) { (void)p; }
static void *fuzz_socket(dm_peer *p)
{
    (void)p;
    return w.socket;
}
static uint64_t fuzz_next_id(dm_peer *p)
{
    (void)p;
    return ++w.id;
}

static es_status fuzz_send(dm_peer *p, dm_from_peer *m, es_error *err)
{
    (void)p;
    dm_bytes b;
    ES_RETURN(dm_encode(&m->base, DM_CONTROL_MAX, &b, err));
    free(b.data);
    return w.id & 4 ? ES_OK : es_fail(err, ES_BUSY, "fuzz", "not connected now");
}

static es_status fuzz_recv(dm_peer *p, int timeout_ms, dm_to_peer **out, es_error *err)
{
    (void)p, (void)timeout_ms;
    ProtobufCMessage *m = NULL;
    *out = NULL;
    if (!fuzz_sequence_next(&w.q))
        return es_fail(err, ES_IO, "fuzz", "the input ends");
    if (w.q.tag & 1) /* a turn of the loop in between */
        return es_fail(err, ES_TIMEOUT, "fuzz", "nothing now");
    ES_RETURN(dm_decode(&espalier__wire__to_peer__descriptor, w.q.bytes, w.q.n, &m, err));
    *out = (dm_to_peer *)m;
    return ES_OK;
}

/* As if handshakes failed now and then; "unknown key" before the first welcome is the one answer at which the loop gives up. */
static es_status fuzz_refused(dm_peer *p, es_error *err)
{
    (void)p;
    switch (w.q.tag >> 1 & 15) {
    case 1: return es_fail(err, ES_INVALID, "fuzz", "another key");
    case 2: return es_fail(err, ES_DENIED, "fuzz", "unknown key");
    default: return ES_OK;
    }
}

static es_status fuzz_start(const wk_compute_options *o, wk_compute **out, es_error *err)
{
    (void)o, (void)out, (void)err;
    return ES_OK;
}
static int fuzz_fd(const wk_compute *c)
{
    (void)c;
    return w.always;
}
static void fuzz_data(wk_compute *c, const char *endpoint)
{
    (void)c;
    ES_ASSERT(endpoint && strlen(endpoint) < DM_CONTROL_MAX);
}

static bool fuzz_offer(wk_compute *c, int64_t now_ms, uint64_t *job, uint32_t *attempt, kn_gang_id *id)
{
    (void)c, (void)now_ms;
    if (w.tasks == 0 || !(w.q.tag & 64))
        return false;
    *job = w.task[0].job;
    *attempt = w.task[0].attempt;
    *id = (kn_gang_id){.n = 4};
    return true;
}

static void fuzz_gang_id(wk_compute *c, uint64_t job, uint32_t attempt, const void *id, size_t n)
{
    (void)c, (void)job, (void)attempt;
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) /* all of it may be read */
        sum ^= ((const uint8_t *)id)[i];
    w.id += sum;
}

static void fuzz_give(wk_compute *c, const Espalier__Wire__Granted *g)
{
    (void)c;
    ES_ASSERT(g->lease && w.tasks < TASKS); /* bounded by what was asked for, whatever is granted */
    w.task[w.tasks++] = (wk_progress){.job = g->lease->job, .attempt = g->lease->attempt};
}

static int fuzz_jobs(wk_compute *c, wk_progress *out, int max)
{
    (void)c;
    for (int i = 0; i < w.tasks && i < max; i++)
        out[i] = w.task[i];
    return w.tasks;
}

static bool fuzz_stop(wk_compute *c, uint64_t job, uint32_t attempt, wk_stop how)
{
    (void)c;
    for (int i = 0; i < w.tasks; i++) {
        if (w.task[i].job != job || w.task[i].attempt != attempt)
            continue;
        wk_finish *f = calloc(1, sizeof *f);
        f->job = job;
        f->attempt = attempt;
        f->outcome =
            how == WK_CANCEL ? ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED : ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED;
        f->next = w.finished;
        w.finished = f;
        w.task[i] = w.task[--w.tasks];
        return true;
    }
    return false;
}

static wk_finish *fuzz_take(wk_compute *c)
{
    (void)c;
    wk_finish *f = w.finished;
    if (f) {
        w.finished = f->next;
        f->next = NULL;
    }
    return f;
}

static void fuzz_stop_all(wk_compute *c, wk_stop how)
{
    while (w.tasks)
        fuzz_stop(c, w.task[0].job, w.task[0].attempt, how);
}

static void fuzz_end(wk_compute **c)
{
    fuzz_stop_all(*c, WK_CANCEL);
    for (wk_finish *f; (f = fuzz_take(*c));)
        wk_finish_free(f);
}

#define dm_peer_open fuzz_open
#define dm_peer_close fuzz_close
#define dm_peer_socket fuzz_socket
#define dm_peer_next_id fuzz_next_id
#define dm_peer_send fuzz_send
#define dm_peer_recv fuzz_recv
#define dm_peer_refused fuzz_refused
#define wk_compute_start fuzz_start
#define wk_compute_end fuzz_end
#define wk_compute_fd fuzz_fd
#define wk_compute_data_endpoint fuzz_data
#define wk_compute_offer fuzz_offer
#define wk_compute_gang_id fuzz_gang_id
#define wk_compute_give fuzz_give
#define wk_compute_jobs fuzz_jobs
#define wk_compute_stop fuzz_stop
#define wk_compute_take fuzz_take
#define wk_compute_stop_all fuzz_stop_all
#include "worker/control.c"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    es_log_init("fuzz", ES_LOG_OFF);
    w.zmq = zmq_ctx_new();
    w.socket = zmq_socket(w.zmq, ZMQ_DEALER);
    w.always = eventfd(1, EFD_CLOEXEC);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int never = -1;
    if (never < 0)
        never = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    wk_options o = wk_options_default();
    o.endpoint = "ipc://fuzz"; /* needs no key */
    o.name = "fuzz";
    o.slots = 4;
    w.q = (fuzz_sequence){.at = data, .left = size};
    w.tasks = 0;
    w.opened = false;
    es_error e;
    es_status s = wk_run(&o, never, &e);
    ES_ASSERT(w.opened && s != ES_OK && e.code == s && e.text[0]);
    return 0;
}
