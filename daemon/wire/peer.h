/* peer.h - the peer's side of the wire: what workers and clients talk to a coordinator with.
 *
 *     dm_login login; dm_login_find(endpoint, &(dm_keys_where){.role = DM_ROLE_CLIENT}, false, &login, err);
 *     dm_peer *p; dm_peer_open(&(dm_peer_options){.endpoint = "tcp://head:5700", .login = &login}, &p, err);
 *     dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT; m.what_case = ...; m.query = &q;
 *     dm_to_peer *reply; dm_peer_call(p, &m, 10000, &reply, err);     // asks, repeats, waits; an Error answer becomes a status
 *     dm_to_peer_free(&reply);
 *     dm_peer_close(&p);
 *
 * The connection (a ZeroMQ DEALER) comes back by itself after the coordinator or the network was away. Nothing is queued while it is away: a message that
 * cannot leave now is dropped (dm_peer_send) or repeated (dm_peer_call), since every request of the protocol is safe to repeat and old ones are worthless.
 * One thread at a time per dm_peer. The control endpoint and the weights endpoint each get their own.
 */
#ifndef DM_WIRE_PEER_H
#define DM_WIRE_PEER_H

#include "daemon/wire/codec.h"
#include "daemon/wire/keys.h"

typedef struct dm_peer dm_peer;

typedef struct dm_peer_options {
    const char *endpoint;  /* "tcp://host:port" or "ipc://path" */
    size_t frame_max;      /* 0: DM_CONTROL_MAX */
    const dm_login *login; /* tcp: keys, or plain on purpose; copied. NULL: ipc only */
} dm_peer_options;

/* Does not wait for the other side. ES_INVALID for an endpoint that is none, with the forms allowed; ES_DENIED for tcp without keys, or an ipc socket
 * that others could have put there. */
es_status dm_peer_open(const dm_peer_options *o, dm_peer **out, es_error *err) ES_MUST_CHECK;
void dm_peer_close(dm_peer **p);
const char *dm_peer_endpoint(const dm_peer *p);
const dm_login *dm_peer_login(const dm_peer *p); /* for the coordinator's other sockets */
void *dm_peer_socket(dm_peer *p);                /* for zmq_poll */
/* Whether the handshakes since the last connection failed: ES_DENIED (our key is unknown there), ES_INVALID (the other side has another key than we were
 * told, or none). They are tried again all the same; dm_peer_call gives up at once when the key is unknown. */
es_status dm_peer_refused(dm_peer *p, es_error *err) ES_MUST_CHECK;
/* The same options on another socket (the status SUB). */
es_status dm_peer_secure(void *socket, const char *endpoint, const dm_login *login, es_error *err) ES_MUST_CHECK;
uint64_t dm_peer_next_id(dm_peer *p);

/* Fills in the protocol version. ES_BUSY when nothing is connected now (the message is dropped). */
es_status dm_peer_send(dm_peer *p, dm_from_peer *m, es_error *err) ES_MUST_CHECK;
/* ES_TIMEOUT when nothing came; ES_VERSION when the other side speaks another protocol; ES_CORRUPT for a frame that is no message. */
es_status dm_peer_recv(dm_peer *p, int timeout_ms, dm_to_peer **out, es_error *err) ES_MUST_CHECK;
/* Sends with a fresh request_id and waits for that answer, repeating about every second at first, then slower. Other answers are dropped. */
es_status dm_peer_call(dm_peer *p, dm_from_peer *m, int timeout_ms, dm_to_peer **reply, es_error *err) ES_MUST_CHECK;
void dm_to_peer_free(dm_to_peer **m);

/* The same for the weights endpoint. */
es_status dm_peer_data_send(dm_peer *p, dm_data_request *m, es_error *err) ES_MUST_CHECK;
es_status dm_peer_data_recv(dm_peer *p, int timeout_ms, dm_data_reply **out, es_error *err) ES_MUST_CHECK;
es_status dm_peer_data_call(dm_peer *p, dm_data_request *m, int timeout_ms, dm_data_reply **reply,
                            es_error *err) ES_MUST_CHECK;
void dm_data_reply_free(dm_data_reply **m);

// Welcome.data_endpoint as seen from here: "tcp://*:5701" takes the host of the control endpoint. Caller owns.
char *dm_peer_data_endpoint(const char *control, const char *told);

/* ES_INVALID unless the text has the form of an endpoint that can be connected to. */
es_status dm_endpoint_check(const char *endpoint, es_error *err) ES_MUST_CHECK;

#endif
