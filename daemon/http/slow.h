/* slow.h - a limit on how long a client may take: libmicrohttpd's own is on silence, which a byte now and then gets around.
 *
 *     MHD_start_daemon(... MHD_OPTION_NOTIFY_CONNECTION, dm_http_slow_connection, slow ...);
 *     dm_http_slow_begins(con) when a request's head is there; dm_http_slow_ends(con) when its answer is gone
 *     dm_http_slow_end_all(slow, now_ms);          // now and then, from any thread: shuts the connections that took too long
 *
 * A head must be there within DM_HTTP_HEAD_MS of the connection or of the answer before; an answer must be taken within DM_HTTP_ANSWER_MS.
 */
#ifndef DM_HTTP_SLOW_H
#define DM_HTTP_SLOW_H

#include <microhttpd.h>

#include "base/status.h"

enum { DM_HTTP_CONNECTIONS = 64, DM_HTTP_HEAD_MS = 15000, DM_HTTP_ANSWER_MS = 120000 };

typedef struct dm_http_slow dm_http_slow;
dm_http_slow *dm_http_slow_new(void);
void dm_http_slow_free(dm_http_slow **s);
void dm_http_slow_connection(void *slow, struct MHD_Connection *con, void **place, enum MHD_ConnectionNotificationCode);
void dm_http_slow_begins(struct MHD_Connection *con);
void dm_http_slow_ends(struct MHD_Connection *con);
int dm_http_slow_end_all(dm_http_slow *s, int64_t now_ms); /* how many */

#endif
