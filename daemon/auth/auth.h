/* auth.h - who is at the other end of a socket: CURVE on tcp, the kernel's word on ipc.
 *
 *     dm_auth *a; dm_auth_open(&(dm_auth_options){.zmq = ctx, .keys = "DIR/keys"}, &a, err);   // before the first bind
 *     dm_auth_bind(a, router, "control", "tcp://127.0.0.1:5700", bound, err);                   // CURVE for tcp, none for ipc
 *     dm_who who; if (!dm_auth_who(a, &message, &who)) drop it
 *     dm_auth_reload(a, err);                                                                   // SIGHUP: authorized_keys read again
 *     dm_auth_close(&a);                                                                        // after the sockets, before the context ends
 *
 * `keys/` holds server.key and server.pub (made at the first start), admin.key and admin.pub (made with them, and authorised: whoever can read
 * the folder of the databases may administrate them) and authorized_keys (authorized.h).
 *
 * tcp: during the handshake a thread of its own (ZeroMQ's ZAP, inproc://zeromq.zap.01) looks the peer's public key up; an unknown one is refused before
 * any of its bytes reach a socket, and costs one handshake. Known ones carry their key with every message, and it is looked up again each time: a key
 * that a reload took away is denied everything, though its connection stays. ipc: the socket file is made 0600 in a folder that
 * others cannot write, and a message counts only from this user or root (SO_PEERCRED). Plain tcp only when `insecure`.
 *
 * Threads: dm_auth_who and dm_auth_reload from any; the rest from the one that opened it.
 */
#ifndef DM_AUTH_H
#define DM_AUTH_H

#include <zmq.h>

#include "daemon/auth/roles.h"

typedef struct dm_auth dm_auth;
typedef struct dm_auth_options {
    void *zmq;        /* context; borrowed */
    const char *keys; /* folder */
    bool curve;       /* a tcp endpoint will be bound: keys are needed */
    bool insecure;    /* tcp without CURVE: everybody who can connect is an admin */
} dm_auth_options;

es_status dm_auth_open(const dm_auth_options *o, dm_auth **out, es_error *err) ES_MUST_CHECK;
void dm_auth_close(dm_auth **a);
/* Reads authorized_keys again. A mistake in it changes nothing: the keys of before stay. */
es_status dm_auth_reload(dm_auth *a, es_error *err) ES_MUST_CHECK;
/* Whether the reloads since the last call took a key away, or its role: sockets that only speak (PUB) must then be made anew. */
bool dm_auth_took_away(dm_auth *a);
/* domain: "control", "data" or "status". `bound` gets where: ZMQ_LAST_ENDPOINT, with "*" for any address. */
es_status dm_auth_bind(dm_auth *a, void *socket, const char *domain, const char *endpoint, char bound[256],
                       es_error *err) ES_MUST_CHECK;
/* A message's sender; false: not known at all, answer nothing. A key that was taken back has the role none, to which everything is denied. */
bool dm_auth_who(dm_auth *a, zmq_msg_t *message, dm_who *out);
/* Handshakes with unknown keys so far, and messages of keys that were taken back. */
uint64_t dm_auth_refused(const dm_auth *a);

#endif
