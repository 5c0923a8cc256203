#include "daemon/wire/peer.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/str.h"
#include "daemon/wire/ipc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    REPEAT_FIRST_MS = 1000,
    REPEAT_MAX_MS = 8000,
    AWAY_TTL_MS = 15000,
    PING_MS = 5000,
    REFUSED_AGAIN_MS = 1000, /* after a handshake that failed */
    LOST_AGAIN_MS = 10000    /* after a connection that ended, unless another is up by then */
};

struct dm_peer {
    void *ctx, *socket, *monitor;
    es_status refused; /* what the last handshake said */
    int64_t again_ms;  /* monotonic: connect anew then; 0: no need */
    dm_login login;
    char *endpoint;
    size_t frame_max;
    uint64_t last_id;
};

es_status dm_endpoint_check(const char *endpoint, es_error *err)
{
    static const char allowed[] = "allowed are tcp://HOST:PORT and ipc://PATH";
    if (!strncmp(endpoint, "ipc://", 6)) {
        /* sizeof sockaddr_un.sun_path, less the end */
        if (!endpoint[6] || strlen(endpoint + 6) > 107)
            return es_fail(err, ES_INVALID, endpoint, "the path of an ipc endpoint has 1 to 107 characters");
        return ES_OK;
    }
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return es_fail(err, ES_INVALID, endpoint, "not an endpoint, %s", allowed);
    const char *colon = strrchr(endpoint + 6, ':');
    int64_t port;
    if (!colon || colon == endpoint + 6 || !es_str_to_i64(colon + 1, false, &port) || port < 1 || port > 65535)
        return es_fail(err, ES_INVALID, endpoint, "no host and port (1 to 65535), %s", allowed);
    return ES_OK;
}

char *dm_peer_data_endpoint(const char *control, const char *told)
{
    if (strncmp(told, "tcp://*:", 8) != 0 || strncmp(control, "tcp://", 6) != 0)
        return es_xstrdup(told);
    es_str s = ES_STR_INIT;
    es_str_addn(&s, control, (size_t)(strrchr(control, ':') - control));
    es_str_add(&s, told + 7);
    return es_str_take(&s);
}

static void set_int(void *socket, int option, int value)
{
    ES_ASSERT(zmq_setsockopt(socket, option, &value, sizeof value) == 0);
}

es_status dm_peer_secure(void *socket, const char *endpoint, const dm_login *login, es_error *err)
{
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return dm_ipc_check(endpoint, err);
    if (login && login->insecure)
        return ES_OK;
    if (!login || !login->keyed)
        return es_fail(err, ES_DENIED, endpoint, "a tcp endpoint needs keys (--key, --server-key; `espalier keygen`)");
    if (!zmq_has("curve"))
        return es_fail(
            err, ES_UNSUPPORTED, "libzmq",
            "was built without CURVE (libsodium), so tcp endpoints cannot be used: install a libzmq with it");
    const dm_keys *k = &login->keys;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, k->server, DM_KEY_BYTES) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, k->own.pub, DM_KEY_BYTES) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, k->own.secret, DM_KEY_BYTES) != 0)
        return es_fail(err, ES_INVALID, endpoint, "the keys are refused: %s", zmq_strerror(errno));
    return ES_OK;
}

/* What becomes of handshakes is told on a socket of its own. */
static es_status watch_handshakes(dm_peer *p, es_error *err)
{
    char name[64];
    int zero = 0;
    snprintf(name, sizeof name, "inproc://handshakes-%p", (void *)p);
    if (zmq_socket_monitor(p->socket, name,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                               ZMQ_EVENT_DISCONNECTED) != 0)
        return es_fail(err, ES_IO, p->endpoint, "cannot watch the connection: %s", zmq_strerror(errno));
    p->monitor = zmq_socket(p->ctx, ZMQ_PAIR);
    /* Never full: the thread that tells would wait for us. */
    if (!p->monitor || zmq_setsockopt(p->monitor, ZMQ_LINGER, &zero, sizeof zero) != 0 ||
        zmq_setsockopt(p->monitor, ZMQ_RCVHWM, &zero, sizeof zero) != 0 || zmq_connect(p->monitor, name) != 0)
        return es_fail(err, ES_IO, p->endpoint, "cannot watch the connection: %s", zmq_strerror(errno));
    return ES_OK;
}

/* libzmq connects again when a connection is cut, but never after an error of the protocol: a key that was not let in, a bit that changed on the way. */
static void connect_again(dm_peer *p, int64_t now)
{
    if (p->again_ms == 0 || now < p->again_ms)
        return;
    p->again_ms = 0;
    zmq_disconnect(p->socket, p->endpoint); /* what it held is said again by whoever waits for an answer */
    if (zmq_connect(p->socket, p->endpoint) != 0)
        p->again_ms = now + REFUSED_AGAIN_MS;
}

static void hear_handshakes(dm_peer *p)
{
    uint8_t event[64];
    char address[256];
    int64_t now = es_clock_mono_ms(es_clock_system());
    for (int n; (n = zmq_recv(p->monitor, event, sizeof event, ZMQ_DONTWAIT)) >= 0;) {
        uint16_t kind = 0;
        zmq_recv(p->monitor, address, sizeof address, ZMQ_DONTWAIT);
        if (n < (int)sizeof kind)
            continue;
        memcpy(&kind, event, sizeof kind);
        bool up = kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
        int64_t again = now + (kind == ZMQ_EVENT_DISCONNECTED ? LOST_AGAIN_MS : REFUSED_AGAIN_MS);
        if (up)
            p->again_ms = 0;
        else if (p->again_ms == 0 || again < p->again_ms)
            p->again_ms = again;
        if (kind == ZMQ_EVENT_DISCONNECTED)
            continue;
        p->refused = up ? ES_OK : kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ? ES_DENIED : ES_INVALID;
    }
    connect_again(p, now);
}

es_status dm_peer_refused(dm_peer *p, es_error *err)
{
    char hex[DM_KEY_HEX];
    hear_handshakes(p);
    dm_key_hex(p->login.keys.own.pub, hex);
    if (p->refused == ES_DENIED)
        return es_fail(err, ES_DENIED, p->endpoint,
                       "the coordinator does not know this key (%s), or its role may not connect here: whoever runs it "
                       "adds the line of the .pub file to keys/authorized_keys and sends espalierd a SIGHUP",
                       hex);
    if (p->refused != ES_OK)
        return es_fail(
            err, ES_INVALID, p->endpoint,
            "the handshake fails: --server-key (server.pub) is not the key of who listens there, or one side "
            "is --insecure and the other is not");
    return ES_OK;
}

es_status dm_peer_open(const dm_peer_options *o, dm_peer **out, es_error *err)
{
    *out = NULL;
    ES_RETURN(dm_endpoint_check(o->endpoint, err));
    es_status s = ES_OK;
    dm_peer *p = es_xcalloc(1, sizeof *p);
    p->endpoint = es_xstrdup(o->endpoint);
    p->frame_max = o->frame_max ? o->frame_max : DM_CONTROL_MAX;
    p->ctx = zmq_ctx_new();
    p->socket = p->ctx ? zmq_socket(p->ctx, ZMQ_DEALER) : NULL;
    if (!p->socket) {
        s = es_fail_errno(err, o->endpoint, "cannot make a socket");
        goto fail;
    }
    int64_t max = (int64_t)p->frame_max;
    set_int(p->socket, ZMQ_LINGER, 300); /* a last Goodbye may still leave */
    set_int(p->socket, ZMQ_IMMEDIATE, 1);
    set_int(p->socket, ZMQ_RECONNECT_IVL, 100);
    set_int(p->socket, ZMQ_RECONNECT_IVL_MAX, 2000);
    /* A host that vanished without a word is noticed, and the connection made anew. */
    set_int(p->socket, ZMQ_HEARTBEAT_IVL, PING_MS);
    set_int(p->socket, ZMQ_HEARTBEAT_TIMEOUT, AWAY_TTL_MS);
    ES_ASSERT(zmq_setsockopt(p->socket, ZMQ_MAXMSGSIZE, &max, sizeof max) == 0);
    ES_GOTO(dm_peer_secure(p->socket, o->endpoint, o->login, err));
    if (o->login)
        p->login = *o->login;
    ES_GOTO(watch_handshakes(p, err));
    if (zmq_connect(p->socket, p->endpoint) != 0) {
        s = es_fail(err, ES_INVALID, o->endpoint, "cannot connect: %s", zmq_strerror(errno));
        goto fail;
    }
    *out = p;
    return ES_OK;
fail:
    dm_peer_close(&p);
    return s;
}

void dm_peer_close(dm_peer **p)
{
    if (!*p)
        return;
    if ((*p)->monitor) {
        zmq_socket_monitor((*p)->socket, NULL, 0);
        zmq_close((*p)->monitor);
    }
    if ((*p)->socket)
        zmq_close((*p)->socket);
    if ((*p)->ctx)
        zmq_ctx_term((*p)->ctx);
    free((*p)->endpoint);
    free(*p);
    *p = NULL;
}

const char *dm_peer_endpoint(const dm_peer *p) { return p->endpoint; }
const dm_login *dm_peer_login(const dm_peer *p) { return &p->login; }
void *dm_peer_socket(dm_peer *p) { return p->socket; }
uint64_t dm_peer_next_id(dm_peer *p) { return ++p->last_id; }

static es_status send_message(dm_peer *p, const ProtobufCMessage *m, es_error *err)
{
    dm_bytes b;
    ES_RETURN(dm_encode(m, p->frame_max, &b, err));
    hear_handshakes(p);
    int rc, e;
    do {
        rc = zmq_send(p->socket, b.data, b.n, ZMQ_DONTWAIT);
        e = errno;
    } while (rc < 0 && e == EINTR);
    free(b.data);
    if (rc >= 0)
        return ES_OK;
    if (e == EAGAIN)
        return es_fail(err, ES_BUSY, p->endpoint, "not connected now");
    return es_fail(err, ES_IO, p->endpoint, "cannot send: %s", zmq_strerror(e));
}

static es_status wait_for(dm_peer *p, short events, int timeout_ms, es_error *err)
{
    zmq_pollitem_t item = {.socket = p->socket, .events = events};
    int rc = zmq_poll(&item, 1, timeout_ms);
    if (rc < 0 && errno != EINTR)
        return es_fail(err, ES_IO, p->endpoint, "cannot wait: %s", zmq_strerror(errno));
    return rc > 0 ? ES_OK : es_fail(err, ES_TIMEOUT, p->endpoint, "no answer within %d ms", timeout_ms);
}

static es_status recv_message(dm_peer *p, const ProtobufCMessageDescriptor *d, int timeout_ms, ProtobufCMessage **out,
                              es_error *err)
{
    ES_RETURN(wait_for(p, ZMQ_POLLIN, timeout_ms, err));
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    es_status s = ES_OK;
    if (zmq_msg_recv(&frame, p->socket, ZMQ_DONTWAIT) < 0) {
        s = errno == EAGAIN || errno == EINTR
                ? es_fail(err, ES_TIMEOUT, p->endpoint, "no answer")
                : es_fail(err, ES_IO, p->endpoint, "cannot receive: %s", zmq_strerror(errno));
        goto fail;
    }
    if (zmq_msg_more(&frame)) { /* we speak single frames: drop the rest of a longer message */
        int more = 1;
        while (more && zmq_msg_recv(&frame, p->socket, ZMQ_DONTWAIT) >= 0)
            more = zmq_msg_more(&frame);
        s = es_fail(err, ES_CORRUPT, p->endpoint, "a message of several frames is none of this protocol");
        goto fail;
    }
    ES_GOTO(dm_decode(d, zmq_msg_data(&frame), zmq_msg_size(&frame), out, err));
fail:
    zmq_msg_close(&frame);
    return s;
}

static es_status check_version(const dm_peer *p, uint32_t version, const Espalier__Wire__Error *e, es_error *err)
{
    if (version == DM_WIRE_VERSION)
        return ES_OK;
    if (e) /* the coordinator's own words name both versions */
        return es_fail(err, ES_VERSION, p->endpoint, "%s", e->text);
    return es_fail(
        err, ES_VERSION, p->endpoint,
        "the other side speaks protocol version %u, this program speaks %d: install the same release on both", version,
        (int)DM_WIRE_VERSION);
}

es_status dm_peer_send(dm_peer *p, dm_from_peer *m, es_error *err)
{
    m->version = DM_WIRE_VERSION;
    return send_message(p, &m->base, err);
}

es_status dm_peer_data_send(dm_peer *p, dm_data_request *m, es_error *err)
{
    m->version = DM_WIRE_VERSION;
    return send_message(p, &m->base, err);
}

es_status dm_peer_recv(dm_peer *p, int timeout_ms, dm_to_peer **out, es_error *err)
{
    *out = NULL;
    ProtobufCMessage *m = NULL;
    ES_RETURN(recv_message(p, &espalier__wire__to_peer__descriptor, timeout_ms, &m, err));
    dm_to_peer *t = (dm_to_peer *)m;
    const Espalier__Wire__Error *e = t->what_case == ESPALIER__WIRE__TO_PEER__WHAT_ERROR ? t->error : NULL;
    es_status s = check_version(p, t->version, e, err);
    if (s != ES_OK)
        dm_to_peer_free(&t);
    *out = t;
    return s;
}

es_status dm_peer_data_recv(dm_peer *p, int timeout_ms, dm_data_reply **out, es_error *err)
{
    *out = NULL;
    ProtobufCMessage *m = NULL;
    ES_RETURN(recv_message(p, &espalier__wire__data_reply__descriptor, timeout_ms, &m, err));
    dm_data_reply *t = (dm_data_reply *)m;
    const Espalier__Wire__Error *e = t->what_case == ESPALIER__WIRE__DATA_REPLY__WHAT_ERROR ? t->error : NULL;
    es_status s = check_version(p, t->version, e, err);
    if (s != ES_OK)
        dm_data_reply_free(&t);
    *out = t;
    return s;
}

/* How one kind of message is received while a call waits: the answer's id and, when it is an Error, its text. */
typedef es_status receive_fn(dm_peer *p, int timeout_ms, void **out, uint64_t *id, const Espalier__Wire__Error **e,
                             es_error *err);

static es_status receive_control(dm_peer *p, int timeout_ms, void **out, uint64_t *id, const Espalier__Wire__Error **e,
                                 es_error *err)
{
    dm_to_peer *m;
    ES_RETURN(dm_peer_recv(p, timeout_ms, &m, err));
    *out = m;
    *id = m->request_id;
    *e = m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_ERROR ? m->error : NULL;
    return ES_OK;
}

static es_status receive_data(dm_peer *p, int timeout_ms, void **out, uint64_t *id, const Espalier__Wire__Error **e,
                              es_error *err)
{
    dm_data_reply *m;
    ES_RETURN(dm_peer_data_recv(p, timeout_ms, &m, err));
    *out = m;
    *id = m->request_id;
    *e = m->what_case == ESPALIER__WIRE__DATA_REPLY__WHAT_ERROR ? m->error : NULL;
    return ES_OK;
}

static es_status call(dm_peer *p, const ProtobufCMessage *m, uint64_t id, receive_fn *receive, int timeout_ms,
                      void **reply, es_error *err)
{
    es_clock *clock = es_clock_system();
    int64_t now = es_clock_mono_ms(clock), end = now + timeout_ms, again = now;
    int repeat = REPEAT_FIRST_MS;
    for (; now < end; now = es_clock_mono_ms(clock)) {
        if (now >= again) {
            es_status s = send_message(p, m, err);
            if (s == ES_BUSY) { /* not connected: wake up when it is */
                if (dm_peer_refused(p, err) == ES_DENIED)
                    return ES_DENIED;
                s = wait_for(p, ZMQ_POLLOUT, (int)(end - now < 200 ? end - now : 200), NULL);
                if (s != ES_OK && s != ES_TIMEOUT)
                    return s;
                continue;
            }
            ES_RETURN(s);
            again = now + repeat;
            repeat = repeat * 2 < REPEAT_MAX_MS ? repeat * 2 : REPEAT_MAX_MS;
        }
        int64_t until = again < end ? again : end;
        uint64_t got = 0;
        void *in = NULL;
        const Espalier__Wire__Error *e = NULL;
        es_status s = receive(p, (int)(until - now), &in, &got, &e, err);
        if (s == ES_TIMEOUT)
            continue;
        ES_RETURN(s);
        ProtobufCMessage *message = in;
        if (got != id) {
            dm_message_free(&message);
            continue;
        }
        if (e) {
            s = dm_error_status(e, err);
            dm_message_free(&message);
            return s;
        }
        *reply = in;
        return ES_OK;
    }
    ES_RETURN(dm_peer_refused(p, err));
    return es_fail(err, ES_TIMEOUT, p->endpoint, "no answer within %d s: is espalierd running there?",
                   (timeout_ms + 999) / 1000);
}

es_status dm_peer_call(dm_peer *p, dm_from_peer *m, int timeout_ms, dm_to_peer **reply, es_error *err)
{
    m->version = DM_WIRE_VERSION;
    m->request_id = dm_peer_next_id(p);
    void *out = NULL;
    es_status s = call(p, &m->base, m->request_id, receive_control, timeout_ms, &out, err);
    *reply = out;
    return s;
}

es_status dm_peer_data_call(dm_peer *p, dm_data_request *m, int timeout_ms, dm_data_reply **reply, es_error *err)
{
    m->version = DM_WIRE_VERSION;
    m->request_id = dm_peer_next_id(p);
    void *out = NULL;
    es_status s = call(p, &m->base, m->request_id, receive_data, timeout_ms, &out, err);
    *reply = out;
    return s;
}

static void free_message(ProtobufCMessage *m) { dm_message_free(&m); }

void dm_to_peer_free(dm_to_peer **m)
{
    free_message(*m ? &(*m)->base : NULL);
    *m = NULL;
}

void dm_data_reply_free(dm_data_reply **m)
{
    free_message(*m ? &(*m)->base : NULL);
    *m = NULL;
}
