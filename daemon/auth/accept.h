/* accept.h - how connections are taken when descriptors run short: the last few stay free for the databases, and who comes then is turned away.
 *
 *     dm_accept_keep(32);                       // before anything listens
 *     if (dm_accept_short()) ...                // asked now and then: would a peer be turned away now?
 *
 * Without it ZeroMQ ends the process when accept() says EMFILE on an ipc socket, and spins on a tcp one. accept4() of the C library is replaced for the
 * whole program by one that closes a connection at once when its descriptor is among the last; peers connect again by themselves.
 */
#ifndef DM_ACCEPT_H
#define DM_ACCEPT_H

#include <stdbool.h>

void dm_accept_keep(int spare);
bool dm_accept_short(void);
int dm_accept_limit(void); /* descriptors that this process may have */

#endif
