/* ipc.h - ipc:// sockets belong to one user: the file is 0600, its folder is not open to others, and the peer's user is asked of the kernel.
 *
 *     dm_ipc_check("ipc:///run/user/1000/control", err);     // before binding or connecting: could somebody else put a socket there?
 *     zmq_bind(...); dm_ipc_guard("ipc:///run/user/1000/control", err);
 *     dm_ipc_peer_is_us(zmq_msg_gets(&message, "Peer-Address"));
 */
#ifndef DM_WIRE_IPC_H
#define DM_WIRE_IPC_H

#include "base/status.h"

/* ES_DENIED when the folder lets others replace the socket, or a socket there is another user's. What is not there yet is fine. */
es_status dm_ipc_check(const char *endpoint, es_error *err) ES_MUST_CHECK;
es_status dm_ipc_guard(const char *endpoint, es_error *err) ES_MUST_CHECK;
/* ZeroMQ's "localhost:UID:GID:PID" of an ipc peer (Linux, SO_PEERCRED): this user or root. An address of any other form is not. */
bool dm_ipc_peer_is_us(const char *peer_address);

#endif
