#include "daemon/http/slow.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/arena.h"
#include "base/clock.h"
#include "daemon/auth/backlog.h"

typedef struct place {
    dm_http_slow *owner;
    int fd; /* -1: free */
    bool answering;
    int64_t since_ms;
} place;

struct dm_http_slow {
    pthread_mutex_t lock;
    place places[DM_HTTP_CONNECTIONS];
};

dm_http_slow *dm_http_slow_new(void)
{
    dm_http_slow *s = es_xcalloc(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    for (int i = 0; i < DM_HTTP_CONNECTIONS; i++)
        s->places[i] = (place){.owner = s, .fd = -1};
    return s;
}

void dm_http_slow_free(dm_http_slow **s)
{
    if (!*s)
        return;
    pthread_mutex_destroy(&(*s)->lock);
    free(*s);
    *s = NULL;
}

static int64_t now_ms(void) { return es_clock_mono_ms(es_clock_system()); }

/* A descriptor is in the table from the connection's first moment to its last, and MHD closes it only after saying so: it is never somebody else's. */
void dm_http_slow_connection(void *slow, struct MHD_Connection *con, void **at,
                             enum MHD_ConnectionNotificationCode code)
{
    dm_http_slow *s = slow;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(con, MHD_CONNECTION_INFO_CONNECTION_FD);
    pthread_mutex_lock(&s->lock);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *at = NULL;
        if (info)
            dm_backlog_ignore(info->connect_fd);
        for (int i = 0; i < DM_HTTP_CONNECTIONS && info && !*at; i++)
            if (s->places[i].fd < 0) {
                s->places[i] = (place){.owner = s, .fd = info->connect_fd, .since_ms = now_ms()};
                *at = &s->places[i];
            }
    } else if (*at) {
        ((place *)*at)->fd = -1;
        *at = NULL;
    }
    pthread_mutex_unlock(&s->lock);
}

static void mark(struct MHD_Connection *con, bool answering)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(con, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    place *p = info ? info->socket_context : NULL;
    if (!p)
        return;
    pthread_mutex_lock(&p->owner->lock);
    if (p->answering != answering)
        p->since_ms = now_ms();
    p->answering = answering;
    pthread_mutex_unlock(&p->owner->lock);
}

void dm_http_slow_begins(struct MHD_Connection *con) { mark(con, true); }
void dm_http_slow_ends(struct MHD_Connection *con) { mark(con, false); }

int dm_http_slow_end_all(dm_http_slow *s, int64_t now)
{
    int ended = 0;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < DM_HTTP_CONNECTIONS; i++) {
        place *p = &s->places[i];
        if (p->fd < 0 || now - p->since_ms <= (p->answering ? DM_HTTP_ANSWER_MS : DM_HTTP_HEAD_MS))
            continue;
        shutdown(p->fd, SHUT_RDWR); /* MHD sees its end, and closes it */
        ended++;
    }
    pthread_mutex_unlock(&s->lock);
    return ended;
}
