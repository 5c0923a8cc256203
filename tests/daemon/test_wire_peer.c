#include "daemon/wire/peer.h"
#include "tests/check_main.h"

static const dm_login plain = {.insecure = true};

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <zmq.h>

/* A coordinator of a few lines: a ROUTER that drops the first `deaf` requests and then answers what it is told to. */
typedef struct fake {
    void *ctx, *router;
    char endpoint[64];
    pthread_t thread;
    int deaf;
    uint32_t version;
    bool error;
    int heard;
} fake;

static void *fake_run(void *arg)
{
    fake *f = arg;
    for (;;) {
        char id[256], body[4096];
        int idn = zmq_recv(f->router, id, sizeof id, 0);
        if (idn < 0)
            break;
        int n = zmq_recv(f->router, body, sizeof body, 0);
        ProtobufCMessage *m = NULL;
        if (n < 0 || dm_decode(&espalier__wire__from_peer__descriptor, body, (size_t)n, &m, NULL) != ES_OK)
            break;
        dm_from_peer *q = (dm_from_peer *)m;
        if (f->heard++ >= f->deaf) {
            for (int round = 0; round < 2; round++) { /* an answer to something else comes first */
                dm_to_peer r = ESPALIER__WIRE__TO_PEER__INIT;
                r.version = f->version;
                r.request_id = q->request_id + (round == 0 ? 1000 : 0);
                Espalier__Wire__Answer a = ESPALIER__WIRE__ANSWER__INIT;
                Espalier__Wire__Error e = ESPALIER__WIRE__ERROR__INIT;
                a.json = round == 0 ? "wrong" : q->query->what;
                e.code = "not-found";
                e.where = "search 9";
                e.text = "there is no such search";
                r.what_case = f->error ? ESPALIER__WIRE__TO_PEER__WHAT_ERROR : ESPALIER__WIRE__TO_PEER__WHAT_ANSWER;
                if (f->error)
                    r.error = &e;
                else
                    r.answer = &a;
                dm_bytes b;
                ck_assert_ok(dm_encode(&r.base, DM_CONTROL_MAX, &b, NULL));
                zmq_send(f->router, id, (size_t)idn, ZMQ_SNDMORE);
                zmq_send(f->router, b.data, b.n, 0);
                free(b.data);
            }
        }
        dm_message_free(&m);
    }
    zmq_close(f->router);
    return NULL;
}

static void fake_start(fake *f)
{
    f->ctx = zmq_ctx_new();
    f->router = zmq_socket(f->ctx, ZMQ_ROUTER);
    int rc = -1; /* a port that was just given back is free a moment later */
    for (int i = 0; i < 200 && (rc = zmq_bind(f->router, f->endpoint[0] ? f->endpoint : "tcp://127.0.0.1:*")) != 0; i++)
        poll(NULL, 0, 10);
    ck_assert_int_eq(rc, 0);
    size_t n = sizeof f->endpoint;
    zmq_getsockopt(f->router, ZMQ_LAST_ENDPOINT, f->endpoint, &n);
    pthread_create(&f->thread, NULL, fake_run, f);
}

static void fake_stop(fake *f)
{
    zmq_ctx_shutdown(f->ctx);
    pthread_join(f->thread, NULL);
    zmq_ctx_term(f->ctx);
}

static es_status ask(const char *endpoint, int timeout_ms, char answer[64], es_error *err)
{
    dm_peer *p;
    ck_assert_ok(dm_peer_open(&(dm_peer_options){.endpoint = endpoint, .login = &plain}, &p, err));
    Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
    q.what = "list";
    dm_from_peer m = DM_FROM_PEER(QUERY, query, &q);
    dm_to_peer *r = NULL;
    es_status s = dm_peer_call(p, &m, timeout_ms, &r, err);
    if (s == ES_OK)
        snprintf(answer, 64, "%s", r->answer->json);
    dm_to_peer_free(&r);
    dm_peer_close(&p);
    return s;
}

START_TEST(calls_and_matches_ids)
    {
        fake f = {.version = DM_WIRE_VERSION};
        fake_start(&f);
        es_error err;
        char answer[64];
        ck_assert_ok_err(ask(f.endpoint, 10000, answer, &err), &err);
        ck_assert_str_eq(answer, "list");
        fake_stop(&f);
    }
END_TEST

START_TEST(repeats_lost_requests)
    {
        fake f = {.version = DM_WIRE_VERSION, .deaf = 1};
        fake_start(&f);
        es_error err;
        char answer[64];
        ck_assert_ok_err(ask(f.endpoint, 10000, answer, &err), &err);
        ck_assert_int_eq(f.heard, 2);
        fake_stop(&f);
    }
END_TEST

START_TEST(error_becomes_status)
    {
        fake f = {.version = DM_WIRE_VERSION, .error = true};
        fake_start(&f);
        es_error err;
        char answer[64];
        ck_assert_status(ask(f.endpoint, 10000, answer, &err), ES_NOT_FOUND);
        ck_assert_str_eq(err.where, "search 9");
        ck_assert_str_eq(err.text, "there is no such search");
        fake_stop(&f);
    }
END_TEST

START_TEST(other_version_is_named)
    {
        fake f = {.version = 77};
        fake_start(&f);
        es_error err;
        char answer[64];
        ck_assert_status(ask(f.endpoint, 10000, answer, &err), ES_VERSION);
        ck_assert_has(err.text, "protocol version 77");
        ck_assert_has(err.text, "this program speaks 1");
        fake_stop(&f);
    }
END_TEST

/* The first who listens speaks another protocol (or a bit changed on the way); later the right one is there. libzmq itself gives up after such an error. */
START_TEST(an_error_of_the_handshake_is_not_for_ever)
    {
        static const uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'P', 'L', 'A', 'I', 'N'};
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof at;
        int yes = 1, first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(first, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        ck_assert_int_eq(bind(first, (struct sockaddr *)&at, sizeof at), 0);
        ck_assert_int_eq(listen(first, 4), 0);
        ck_assert_int_eq(getsockname(first, (struct sockaddr *)&at, &n), 0);
        fake f = {.version = DM_WIRE_VERSION};
        snprintf(f.endpoint, sizeof f.endpoint, "tcp://127.0.0.1:%d", ntohs(at.sin_port));
        es_error err;
        dm_peer *p;
        ck_assert_ok(dm_peer_open(&(dm_peer_options){.endpoint = f.endpoint, .login = &plain}, &p, &err));
        int con = accept(first, NULL, NULL);
        ck_assert_int_ge(con, 0);
        ck_assert_int_eq(write(con, greeting, sizeof greeting), sizeof greeting);
        for (int i = 0; i < 500 && dm_peer_refused(p, &err) == ES_OK; i++)
            poll(NULL, 0, 10);
        ck_assert_status(dm_peer_refused(p, &err), ES_INVALID);
        close(con);
        close(first);
        fake_start(&f);
        Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
        q.what = "list";
        dm_from_peer m = DM_FROM_PEER(QUERY, query, &q);
        dm_to_peer *r = NULL;
        ck_assert_ok_err(dm_peer_call(p, &m, 8000, &r, &err), &err);
        ck_assert_str_eq(r->answer->json, "list");
        dm_to_peer_free(&r);
        dm_peer_close(&p);
        fake_stop(&f);
    }
END_TEST

START_TEST(nobody_there)
    {
        es_error err;
        char answer[64];
        ck_assert_status(ask("ipc://nobody.sock", 300, answer, &err), ES_TIMEOUT);
        ck_assert_has(err.text, "is espalierd running");
    }
END_TEST

START_TEST(endpoints)
    {
        es_error err;
        dm_peer *p = NULL;
        static const char *const bad[] = {"head:5700",        "tcp://head", "tcp://:5700", "tcp://head:0",
                                          "tcp://head:99999", "ipc://",     "udp://a:1"};
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            ck_assert_status(dm_peer_open(&(dm_peer_options){.endpoint = bad[i]}, &p, &err), ES_INVALID);
            ck_assert_ptr_null(p);
        }
        char *e = dm_peer_data_endpoint("tcp://head:5700", "tcp://*:5701");
        ck_assert_str_eq(e, "tcp://head:5701");
        free(e);
        e = dm_peer_data_endpoint("ipc://a/control", "ipc://a/data");
        ck_assert_str_eq(e, "ipc://a/data");
        free(e);
    }
END_TEST

START_TEST(costly_and_torn_messages_are_refused)
    {
        es_error err;
        ProtobufCMessage *m = NULL;
        /* Field 12 (leases), holding half a million empty `granted`: two bytes each on the wire, many in memory. */
        size_t inner = 1000000, n = 0;
        uint8_t *b = malloc(inner + 16);
        b[n++] = 12 << 3 | 2;
        for (size_t v = inner; v; v >>= 7)
            b[n++] = (uint8_t)((v & 127) | (v >> 7 ? 128 : 0));
        for (size_t i = 0; i < inner; i += 2) {
            b[n++] = 1 << 3 | 2;
            b[n++] = 0;
        }
        ck_assert_status(dm_decode(&espalier__wire__to_peer__descriptor, b, n, &m, &err), ES_CORRUPT);
        ck_assert_status(dm_decode(&espalier__wire__to_peer__descriptor, b, 3, &m, &err), ES_CORRUPT);
        ck_assert_ptr_null(m);
        free(b);

        Espalier__Wire__Answer a = ESPALIER__WIRE__ANSWER__INIT;
        char *text = malloc(DM_CONTROL_MAX + 1);
        memset(text, 'x', DM_CONTROL_MAX);
        text[DM_CONTROL_MAX] = 0;
        a.json = text;
        dm_to_peer big = DM_TO_PEER(ANSWER, answer, &a);
        dm_bytes out;
        ck_assert_status(dm_encode(&big.base, DM_CONTROL_MAX, &out, &err), ES_INVALID);
        free(text);
    }
END_TEST

ES_TEST_MAIN("wire_peer", calls_and_matches_ids, repeats_lost_requests, error_becomes_status, other_version_is_named,
             an_error_of_the_handshake_is_not_for_ever, nobody_there, endpoints, costly_and_torn_messages_are_refused)
