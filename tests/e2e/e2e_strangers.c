/* The real espalierd on tcp, and who wishes it ill: unknown keys by the thousand, a worker that steals, floods, lies, fills the disk. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/str.h"
#include "daemon/wire/peer.h"
#include "tests/check_main.h"

enum { PEOPLE = 5, CALL_MS = 20000 };
typedef enum person { ANN, BOB, GPU1, GPU2, ROOT } person; /* ANN, BOB: clients; GPU1, GPU2: workers */

static struct {
    pid_t pid;
    char dir[512], control[64], data[64];
    dm_key_pair server;
    dm_login login[PEOPLE];
} d;

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static dm_peer *peer(person who, bool data)
{
    dm_peer *p;
    es_error e;
    ck_assert_ok_err(dm_peer_open(&(dm_peer_options){.endpoint = data ? d.data : d.control,
                                                     .frame_max = data ? DM_DATA_MAX : 0,
                                                     .login = &d.login[who]},
                                  &p, &e),
                     &e);
    return p;
}

static es_status ask(dm_peer *p, const char *what, int ms, es_error *e)
{
    Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
    dm_to_peer *r = NULL;
    q.what = (char *)(uintptr_t)what;
    es_status s = dm_peer_call(p, &DM_FROM_PEER(QUERY, query, &q), ms, &r, e);
    dm_to_peer_free(&r);
    return s;
}

static void configure(char *path, size_t size, const char *more)
{
    es_str text = ES_STR_INIT;
    es_error e;
    es_str_addf(&text, "dir: %s\ncontrol: %s\ndata: %s\nstatus: ''\nhttp: ''\nheartbeat_ms: 500\n%s", d.dir, d.control,
                d.data, more);
    snprintf(path, size, "%s/espalierd.yaml", d.dir);
    ck_assert_ok_err(es_file_write(path, text.p, text.len, &e), &e);
    es_str_free(&text);
}

/* The configuration with `more` instead, read while it runs: what it says must not need a restart. */
static void reload(const char *more)
{
    char path[700];
    es_error e;
    dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
    Espalier__Wire__Command c = ESPALIER__WIRE__COMMAND__INIT;
    dm_to_peer *r = NULL;
    dm_peer *root = peer(ROOT, false);
    configure(path, sizeof path, more);
    c.verb = ESPALIER__WIRE__VERB__VERB_RELOAD;
    m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND;
    m.command = &c;
    ck_assert_ok_err(dm_peer_call(root, &m, CALL_MS, &r, &e), &e);
    ck_assert_int_eq(r->what_case, ESPALIER__WIRE__TO_PEER__WHAT_DONE);
    ck_assert_msg(strstr(r->done->text, "changed") && !strstr(r->done->text, "restart"), "%s", r->done->text);
    dm_to_peer_free(&r);
    dm_peer_close(&root);
}

/* Keys for everybody, and espalierd with `more` in its configuration. */
static void start(const char *more)
{
    static const struct {
        const char *name;
        dm_role role;
    } people[PEOPLE] = {{"ann", DM_ROLE_CLIENT},
                        {"bob", DM_ROLE_CLIENT},
                        {"gpu-1", DM_ROLE_WORKER},
                        {"gpu-2", DM_ROLE_WORKER},
                        {"root", DM_ROLE_ADMIN}};
    char keys[600], path[700];
    es_str text = ES_STR_INIT;
    es_error e;
    snprintf(d.dir, sizeof d.dir, "%s", es_test_dir());
    snprintf(d.control, sizeof d.control, "tcp://127.0.0.1:%d", free_port());
    snprintf(d.data, sizeof d.data, "tcp://127.0.0.1:%d", free_port());
    snprintf(keys, sizeof keys, "%s/keys", d.dir);
    dm_key_make(&d.server);
    ck_assert_ok_err(dm_key_write(keys, DM_ROLE_SERVER, "espalierd", &d.server, &e), &e);
    for (int i = 0; i < PEOPLE; i++) {
        char hex[DM_KEY_HEX];
        d.login[i].insecure = strstr(more, "insecure: true") != NULL;
        d.login[i].keyed = !d.login[i].insecure;
        dm_key_make(&d.login[i].keys.own);
        memcpy(d.login[i].keys.server, d.server.pub, DM_KEY_BYTES);
        dm_key_hex(d.login[i].keys.own.pub, hex);
        es_str_addf(&text, "%s %s %s\n", dm_role_name(people[i].role), people[i].name, hex);
    }
    snprintf(path, sizeof path, "%s/authorized_keys", keys);
    ck_assert_ok(dm_secret_file_write(path, text.p, 0600, &e));
    es_str_free(&text);
    configure(path, sizeof path, more);
    d.pid = fork();
    if (d.pid == 0) {
        execl(es_test_built("espalierd"), "espalierd", "-c", path, (char *)NULL);
        _exit(127);
    }
    dm_peer *p = peer(ROOT, false);
    ck_assert_ok_err(ask(p, "status", CALL_MS, &e), &e);
    dm_peer_close(&p);
}

static void stop(void)
{
    int st = 0;
    kill(d.pid, SIGTERM);
    waitpid(d.pid, &st, 0);
    ck_assert_msg(WIFEXITED(st) && WEXITSTATUS(st) == 0, "espalierd ended with status %d", st);
}

/* Resident KiB and milliseconds of CPU of the coordinator. */
static void costs(long *kib, long *cpu_ms)
{
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;
    long rss = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)d.pid);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    sscanf(strrchr(text, ')') + 2,
           "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld", &user, &sys,
           &rss);
    *kib = rss * (sysconf(_SC_PAGESIZE) >> 10);
    *cpu_ms = (long)(user + sys) * 1000 / sysconf(_SC_CLK_TCK);
}

static int64_t now_ms(void) { return es_clock_mono_ms(es_clock_system()); }

/* ---- strangers */

enum { BATCH = 40 };

/* BATCH handshakes with keys nobody knows, or with a wrong server key; how many were refused. */
static int strange_batch(void *ctx, int batch, bool wrong_server)
{
    void *socket[BATCH], *monitor[BATCH];
    int refused = 0, never = -1, zero = 0, wait = 5000;
    for (int i = 0; i < BATCH; i++) {
        char name[64];
        dm_login stranger = {.keyed = true};
        dm_key_make(&stranger.keys.own);
        memcpy(stranger.keys.server, wrong_server ? stranger.keys.own.pub : d.server.pub, DM_KEY_BYTES);
        snprintf(name, sizeof name, "inproc://m-%d-%d", batch, i);
        socket[i] = zmq_socket(ctx, ZMQ_DEALER);
        ck_assert_ok(dm_peer_secure(socket[i], d.control, &stranger, NULL));
        zmq_setsockopt(socket[i], ZMQ_RECONNECT_IVL, &never, sizeof never);
        zmq_setsockopt(socket[i], ZMQ_LINGER, &zero, sizeof zero);
        zmq_socket_monitor(socket[i], name,
                           ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
        monitor[i] = zmq_socket(ctx, ZMQ_PAIR);
        zmq_setsockopt(monitor[i], ZMQ_RCVTIMEO, &wait, sizeof wait);
        zmq_setsockopt(monitor[i], ZMQ_LINGER, &zero, sizeof zero);
        zmq_connect(monitor[i], name);
        zmq_connect(socket[i], d.control);
        zmq_send(socket[i], "let me in", 9, ZMQ_DONTWAIT);
    }
    for (int i = 0; i < BATCH; i++) {
        uint8_t event[64];
        uint16_t kind = 0;
        if (zmq_recv(monitor[i], event, sizeof event, 0) >= 2) {
            memcpy(&kind, event, sizeof kind);
            refused += kind != ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
        }
        zmq_socket_monitor(socket[i], NULL, 0);
        zmq_close(monitor[i]);
        zmq_close(socket[i]);
    }
    return refused;
}

/* Bytes that are no ZMTP, ZMTP that asks for no encryption, and connections that say nothing. */
static void garbage_batch(int round)
{
    static const char null_greeting[64] = "\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL";
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int64_t port = 0;
    ck_assert(es_str_to_i64(strrchr(d.control, ':') + 1, false, &port));
    a.sin_port = htons((uint16_t)port);
    for (int i = 0; i < BATCH; i++) {
        char noise[4096];
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && i % 3 != 0) {
            memset(noise, round * 7 + i, sizeof noise);
            if (i % 3 == 1)
                memcpy(noise, null_greeting, sizeof null_greeting);
            (void)!send(fd, noise, sizeof noise, MSG_NOSIGNAL);
        }
        close(fd);
    }
}

START_TEST(strangers_get_nothing_and_cost_nothing)
    {
        es_error e;
        long kib0, kib1, cpu0, cpu1;
        start("");
        dm_peer *ann = peer(ANN, false);
        ck_assert_ok_err(ask(ann, "list", CALL_MS, &e), &e);
        void *ctx = zmq_ctx_new();
        for (int i = 0; i < 10; i++) { /* what is allocated once */
            strange_batch(ctx, i, i % 2);
            garbage_batch(i);
        }
        costs(&kib0, &cpu0);
        int64_t slowest = 0;
        for (int i = 10; i < 60; i++) {
            ck_assert_int_eq(strange_batch(ctx, i, false), BATCH);
            garbage_batch(i);
            int64_t t0 = now_ms();
            ck_assert_ok_err(ask(ann, "list", CALL_MS, &e), &e);
            slowest = now_ms() - t0 > slowest ? now_ms() - t0 : slowest;
        }
        ck_assert_int_eq(strange_batch(ctx, 100, true), BATCH);
        zmq_ctx_term(ctx);
        costs(&kib1, &cpu1);
        printf("strangers: %d handshakes and %d other connections: %.2f ms of CPU each, %ld KiB more memory; slowest "
               "answer to a client meanwhile %d ms\n",
               50 * BATCH, 50 * BATCH, (double)(cpu1 - cpu0) / (50.0 * BATCH), kib1 - kib0, (int)slowest);
        ck_assert_msg(kib1 - kib0 < 4096, "2,000 strangers left %ld KiB", kib1 - kib0);
        ck_assert_msg(cpu1 - cpu0 < 50 * BATCH * 5, "a stranger cost %.2f ms of CPU",
                      (double)(cpu1 - cpu0) / (50.0 * BATCH));
        dm_peer_close(&ann);
        stop();
    }
END_TEST

/* ---- a worker that steals */

static dm_to_peer *call(dm_peer *p, dm_from_peer *m)
{
    dm_to_peer *r = NULL;
    es_error e;
    ck_assert_ok_err(dm_peer_call(p, m, CALL_MS, &r, &e), &e);
    return r;
}

static uint8_t uid[16] = "worker of gpu-1";
static const ProtobufCBinaryData uid_bytes = {16, uid};

static uint64_t hello(dm_peer *p, dm_lease_id *holding, bool *lost)
{
    Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
    Espalier__Wire__JobKind kinds[] = {ESPALIER__WIRE__JOB_KIND__JOB_NOOP};
    h.worker_uid = uid_bytes;
    h.slots = 1;
    h.n_kinds = 1;
    h.kinds = kinds;
    h.n_holding = holding ? 1 : 0;
    h.holding = &holding;
    dm_to_peer *r = call(p, &DM_FROM_PEER(HELLO, hello, &h));
    ck_assert_int_eq((int)r->what_case, ESPALIER__WIRE__TO_PEER__WHAT_WELCOME);
    uint64_t id = r->welcome->worker;
    if (lost)
        *lost = r->welcome->n_lost == 1;
    dm_to_peer_free(&r);
    return id;
}

static bool finish(dm_peer *p, dm_lease_id *lease)
{
    Espalier__Wire__FinishBatch b = ESPALIER__WIRE__FINISH_BATCH__INIT;
    Espalier__Wire__Finish f = ESPALIER__WIRE__FINISH__INIT, *list = &f;
    f.lease = lease;
    f.outcome = ESPALIER__WIRE__OUTCOME__OUTCOME_DONE;
    b.worker_uid = uid_bytes;
    b.n_finish = 1;
    b.finish = &list;
    dm_to_peer *r = call(p, &DM_FROM_PEER(FINISH, finish, &b));
    ck_assert_int_eq((int)r->what_case, ESPALIER__WIRE__TO_PEER__WHAT_FINISHED);
    ck_assert_uint_eq(r->finished->n_accepted + r->finished->n_stale, 1);
    bool accepted = r->finished->n_accepted == 1;
    dm_to_peer_free(&r);
    return accepted;
}

static void take_lease(dm_peer *p, dm_lease_id *lease)
{
    Espalier__Wire__Want w = ESPALIER__WIRE__WANT__INIT;
    w.worker_uid = uid_bytes;
    w.slots = 1;
    dm_to_peer *r = call(p, &DM_FROM_PEER(WANT, want, &w));
    ck_assert_int_eq((int)r->what_case, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);
    ck_assert_uint_eq(r->leases->n_granted, 1);
    espalier__wire__lease__init(lease);
    lease->job = r->leases->granted[0]->lease->job;
    lease->attempt = r->leases->granted[0]->lease->attempt;
    dm_to_peer_free(&r);
}

static void enqueue(dm_peer *root, const char *token)
{
    Espalier__Wire__EnqueueNoop q = ESPALIER__WIRE__ENQUEUE_NOOP__INIT;
    q.token = (char *)(uintptr_t)token;
    q.count = 1;
    dm_to_peer *r = call(root, &DM_FROM_PEER(ENQUEUE_NOOP, enqueue_noop, &q));
    dm_to_peer_free(&r);
}

static void goodbye(dm_peer *p)
{
    Espalier__Wire__Goodbye g = ESPALIER__WIRE__GOODBYE__INIT;
    g.worker_uid = uid_bytes;
    dm_to_peer *r = call(p, &DM_FROM_PEER(GOODBYE, goodbye, &g));
    dm_to_peer_free(&r);
}

START_TEST(a_lease_is_its_holders_alone)
    {
        es_error e;
        dm_lease_id lease;
        bool lost = false;
        start("");
        dm_peer *root = peer(ROOT, false), *holder = peer(GPU1, false), *thief = peer(GPU2, false);
        enqueue(root, "one");
        uint64_t mine = hello(holder, NULL, NULL);
        take_lease(holder, &lease);
        /* The thief knows the uid and the lease. */
        ck_assert(!finish(thief, &lease));
        ck_assert_uint_ne(hello(thief, &lease, &lost), mine);
        ck_assert(lost);
        ck_assert(!finish(thief, &lease));
        goodbye(thief);
        /* Lies and noise cost the liar its connection at most. */
        void *socket = dm_peer_socket(thief);
        for (int i = 0; i < 100; i++)
            zmq_send(socket, "\xff\xff\xff\xff", 4, ZMQ_DONTWAIT);
        for (int i = 0; i < 50; i++)
            zmq_send(socket, "a", 1, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(socket, "b", 1, ZMQ_DONTWAIT);
        char *huge = calloc(1, 3 << 20);
        zmq_send(socket, huge, 3 << 20, ZMQ_DONTWAIT);
        free(huge);
        dm_lease_id wrong = lease;
        wrong.attempt += 7;
        ck_assert(!finish(holder, &wrong));
        ck_assert(finish(holder, &lease));
        ck_assert(finish(holder, &lease)); /* said again, counted once */
        ck_assert(!finish(thief, &lease));
        ck_assert_ok_err(ask(root, "list", CALL_MS, &e), &e);
        dm_peer_close(&thief);
        dm_peer_close(&holder);
        dm_peer_close(&root);
        stop();
    }
END_TEST

/* ---- floods */

START_TEST(a_flood_is_the_flooders_loss)
    {
        es_error e;
        long kib0, kib1, cpu;
        start("peer_messages_per_s: 100\n");
        dm_peer *ann = peer(ANN, false), *bob = peer(BOB, false);
        ck_assert_ok_err(ask(ann, "list", CALL_MS, &e), &e);
        ck_assert_ok_err(ask(bob, "list", CALL_MS, &e), &e);
        costs(&kib0, &cpu);
        int64_t slowest = 0, asked = 0, told = 0;
        for (int round = 0; round < 20; round++) {
            for (int i = 0; i < 1000; i++) {
                Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
                q.what = dm_text("list");
                dm_from_peer m = DM_FROM_PEER(QUERY, query, &q);
                m.request_id = dm_peer_next_id(bob);
                asked += dm_peer_send(bob, &m, &e) == ES_OK;
            }
            int64_t t0 = now_ms();
            ck_assert_ok_err(ask(ann, "list", CALL_MS, &e), &e);
            slowest = now_ms() - t0 > slowest ? now_ms() - t0 : slowest;
        }
        int64_t answered = 0;
        dm_to_peer *r;
        while (dm_peer_recv(bob, 500, &r, &e) == ES_OK) {
            if (r->what_case == ESPALIER__WIRE__TO_PEER__WHAT_ERROR) {
                ck_assert_str_eq(r->error->code, "busy");
                ck_assert_has(r->error->text, "more than 100 messages");
                told++;
            } else {
                answered++;
            }
            dm_to_peer_free(&r);
        }
        costs(&kib1, &cpu);
        printf("flood: of %d messages %d were answered and %d refused aloud; slowest answer to another client %d ms, "
               "%ld KiB more memory\n",
               (int)asked, (int)answered, (int)told, (int)slowest, kib1 - kib0);
        ck_assert_int_ge(told, 1);
        ck_assert_int_le(told, 20);
        ck_assert_int_lt(answered, 2500);
        ck_assert_msg(kib1 - kib0 < 64 << 10, "a flood left %ld KiB", kib1 - kib0);
        dm_peer_close(&ann);
        dm_peer_close(&bob);
        stop();
    }
END_TEST

static es_status put_chunk(dm_peer *p, uint32_t number, size_t n, es_error *e)
{
    uint8_t *bytes = calloc(1, n);
    es_hash h;
    Espalier__Wire__PutChunk c = ESPALIER__WIRE__PUT_CHUNK__INIT;
    dm_data_reply *r = NULL;
    memcpy(bytes, &number, sizeof number);
    es_hash_bytes(bytes, n, &h);
    c.hash = (ProtobufCBinaryData){ES_HASH_BYTES, h.b};
    c.data = (ProtobufCBinaryData){n, bytes};
    es_status s = dm_peer_data_call(p, &DM_DATA_REQUEST(PUT_CHUNK, put_chunk, &c), CALL_MS, &r, e);
    dm_data_reply_free(&r);
    free(bytes);
    return s;
}

START_TEST(a_worker_cannot_fill_the_disk)
    {
        es_error e;
        es_status s = ES_OK;
        uint32_t n = 0;
        start("weights_per_key_bytes: 8388608\nweights_max_bytes: 20971520\nweights_free_bytes: 0\n");
        dm_peer *liar = peer(GPU1, true), *honest = peer(GPU2, true), *client = peer(ANN, true);
        ck_assert_status(put_chunk(client, 1, 100, &e), ES_DENIED);
        ck_assert_has(e.text, "this needs the role worker");
        while (s == ES_OK && n < 100)
            s = put_chunk(liar, n++, 1 << 20, &e);
        ck_assert_status(s, ES_BUSY);
        ck_assert_has(e.text, "weights_per_key_bytes");
        ck_assert_uint_le(n, 10);
        ck_assert_ok_err(put_chunk(honest, 1000, 1 << 20, &e), &e);
        dm_peer *root = peer(ROOT, true); /* has a share of its own: 8 + 1 + 8 MiB, and then the file's limit */
        s = ES_OK;
        for (n = 2000; s == ES_OK && n < 2100; n++)
            s = put_chunk(root, n, 1 << 20, &e);
        ck_assert_status(s, ES_BUSY);
        s = ES_OK;
        for (n = 3000; s == ES_OK && n < 3100; n++)
            s = put_chunk(honest, n, 1 << 20, &e);
        ck_assert_status(s, ES_DISK_FULL);
        ck_assert_has(e.text, "weights_max_bytes");
        /* More room for the file, and for a key that has used its own up, without a restart. */
        reload("weights_per_key_bytes: 16777216\nweights_max_bytes: 62914560\nweights_free_bytes: 0\n");
        for (n = 4000; n < 4006; n++)
            ck_assert_ok_err(put_chunk(liar, n, 1 << 20, &e), &e);
        reload("weights_per_key_bytes: 16777216\nweights_max_bytes: 20971520\nweights_free_bytes: 0\n");
        ck_assert_status(put_chunk(liar, 4006, 1 << 20, &e), ES_DISK_FULL);
        dm_peer_close(&root);
        dm_peer_close(&client);
        dm_peer_close(&honest);
        dm_peer_close(&liar);
        stop();
    }
END_TEST

/* ZMTP by hand, without CURVE (the coordinator is --insecure here): ZeroMQ's own sockets cannot begin a message that they do not end. */
static int zmtp_connect(const char *endpoint)
{
    static const char greeting[64] = "\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL";
    static const char ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
                                "DEALER";
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int64_t port = 0;
    char in[64 + 2];
    ck_assert(es_str_to_i64(strrchr(endpoint, ':') + 1, false, &port));
    a.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    ck_assert_int_eq(send(fd, greeting, sizeof greeting, MSG_NOSIGNAL), (ssize_t)sizeof greeting);
    ck_assert_int_eq(send(fd, ready, sizeof ready - 1, MSG_NOSIGNAL), (ssize_t)sizeof ready - 1);
    ck_assert_int_eq(recv(fd, in, sizeof in, MSG_WAITALL),
                     (ssize_t)sizeof in); /* its greeting, and the head of its READY */
    return fd;
}

START_TEST(a_message_without_end_is_cut)
    {
        es_error e;
        long kib0, kib1 = 0, worst = 0, cpu;
        start("insecure: true\n");
        dm_peer *ann = peer(ANN, false);
        ck_assert_ok_err(ask(ann, "list", CALL_MS, &e), &e);
        costs(&kib0, &cpu);
        int fd = zmtp_connect(d.control), sent = 0;
        char *frame = calloc(1, 9 + (1 << 20));
        frame[0] = 3; /* long, and more to come */
        frame[6] = 0x10;
        while (sent < 4096 && send(fd, frame, 9 + (1 << 20), MSG_NOSIGNAL) == 9 + (1 << 20)) {
            if (sent++ % 16 == 0) {
                costs(&kib1, &cpu);
                worst = kib1 - kib0 > worst ? kib1 - kib0 : worst;
            }
        }
        free(frame);
        close(fd);
        ck_assert_msg(sent < 4096, "4 GiB of one message were taken");
        ck_assert_ok_err(ask(ann, "list", CALL_MS, &e), &e); /* and its connection was not touched */
        int64_t end = now_ms() + 10000;
        do
            costs(&kib1, &cpu);
        while (kib1 - kib0 > 64 << 10 && now_ms() < end);
        printf("a message without end: cut after %d MiB, at most %ld MiB more memory, %ld MiB afterwards\n", sent,
               worst >> 10, (kib1 - kib0) >> 10);
        ck_assert_msg(worst < 1 << 20, "%ld MiB were kept", worst >> 10);
        ck_assert_msg(kib1 - kib0 < 64 << 10, "%ld MiB stay", (kib1 - kib0) >> 10);
        dm_peer_close(&ann);
        stop();
    }
END_TEST

START_TEST(a_wrong_server_is_noticed)
    {
        es_error e;
        start("");
        dm_key_make(&d.server);
        memcpy(d.login[ANN].keys.server, d.server.pub, DM_KEY_BYTES);
        dm_peer *ann = peer(ANN, false);
        ck_assert_status(ask(ann, "list", 1500, &e), ES_INVALID);
        ck_assert_has(e.text, "is not the key of who listens there");
        dm_peer_close(&ann);
        stop();
    }
END_TEST

ES_TEST_MAIN("strangers", strangers_get_nothing_and_cost_nothing, a_lease_is_its_holders_alone,
             a_flood_is_the_flooders_loss, a_worker_cannot_fill_the_disk, a_message_without_end_is_cut,
             a_wrong_server_is_noticed)
