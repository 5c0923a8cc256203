/* server.h - the sockets of a coordinator process: control, data, status; and its two threads.
 *
 *     dm_server *s; dm_server_open(&config, &s, err);         // lock, databases, sockets: everything that can be wrong is told here
 *     puts(dm_server_ready(s));                                // where it listens, for whoever waits for it
 *     dm_server_run(s, signal_fd, err);                        // until SIGTERM, SIGINT or VERB_SHUTDOWN
 *     dm_server_close(&s);
 *
 * The main thread owns the control ROUTER, the status PUB and state.db. A second thread owns the data ROUTER and its own connection to weights.db, so that
 * control messages never wait behind weights. The two talk over one inproc pair: versions to drop, and the end.
 */
#ifndef DM_SERVER_H
#define DM_SERVER_H

#include "daemon/config.h"

typedef struct dm_server dm_server;
/* Reads both databases of config->dir from end to end, which a start does only for small ones. ES_NOT_FOUND: nothing there; ES_CORRUPT: damaged. */
es_status dm_server_check(const dm_config *config, es_error *err) ES_MUST_CHECK;
es_status dm_server_open(const dm_config *config, dm_server **out, es_error *err) ES_MUST_CHECK;
/* "ready control=tcp://... data=... status=... http=... dir=..." with the real ports. */
const char *dm_server_ready(const dm_server *s);
/* signal_fd: a signalfd of the signals that end the process, and SIGHUP. */
es_status dm_server_run(dm_server *s, int signal_fd, es_error *err) ES_MUST_CHECK;
/* How SIGHUP and VERB_RELOAD read the configuration again, with the command line's options over it, checked; keys are read again too. A mistake in any of it
 * changes nothing. */
void dm_server_on_reload(dm_server *s, es_status (*read)(void *ctx, dm_config *out, es_error *err), void *ctx);
void dm_server_close(dm_server **s);

#endif
