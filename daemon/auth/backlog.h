/* backlog.h - no peer fills the memory with a message that never ends.
 *
 *     dm_backlog *b; dm_backlog_start(&(dm_backlog_options){.each = 96 << 20, .all = 1 << 30}, &b, err);     // a thread of its own
 *     dm_backlog_accepted(fd);                  // by whoever accepts connections (accept.c)
 *     dm_backlog_taken(&frame);                 // for every frame taken out of ZeroMQ
 *     dm_backlog_stop(&b);
 *
 * ZeroMQ bounds the size of a frame and the number of messages that wait, but not the frames of one message, and it keeps them to itself until the last one is
 * there. What it keeps of a connection is what the kernel received on it (TCP_INFO) less what was taken out. Ten times a second, when the process has
 * grown by 32 MiB (or every five seconds), connections are looked at: one that has more than `each` waiting is shut; when all have more than `all`, `each` is
 * halved (down to 64 KiB) until they have not: handshakes that many strangers begin with large frames come under that. A peer that meant well connects again and says it again. Subscriptions without end are cut the same way, a byte counted as 32.
 */
#ifndef DM_BACKLOG_H
#define DM_BACKLOG_H

#include <zmq.h>

#include "base/status.h"

typedef struct dm_backlog dm_backlog;
typedef struct dm_backlog_options {
    int64_t each, all; /* bytes */
} dm_backlog_options;
es_status dm_backlog_start(const dm_backlog_options *o, dm_backlog **out, es_error *err) ES_MUST_CHECK;
void dm_backlog_stop(dm_backlog **b);
void dm_backlog_accepted(int fd);
void dm_backlog_ignore(int fd);                 /* it was accepted, but not by ZeroMQ: HTTP's */
void dm_backlog_subscribers(const char *bound); /* where the status socket is bound */
void dm_backlog_taken(zmq_msg_t *frame);
uint64_t dm_backlog_cut(void);                                     /* connections shut so far */
void dm_backlog_look(const dm_backlog_options *o, int64_t now_ms); /* what the thread does; for tests */

#endif
