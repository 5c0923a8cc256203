/* notify.h - what systemd is told (sd_notify(3)): a datagram to NOTIFY_SOCKET, and nothing when there is none.
 *
 *     dm_notify("READY=1\nSTATUS=listens on %s", endpoint);
 *     wait_ms = dm_notify_alive();       // every turn: WATCHDOG=1, twice as often as WATCHDOG_USEC asks for
 */
#ifndef DM_NOTIFY_H
#define DM_NOTIFY_H

#include "base/status.h"

void dm_notify(const char *fmt, ...) ES_PRINTF(1, 2);
/* In how many ms it wants to be called again; INT_MAX when nobody watches. */
int dm_notify_alive(void);
/* RELOADING=1 with the clock systemd asks for; READY=1 follows when it is over. */
void dm_notify_reloading(void);

#endif
