#include "daemon/auth/backlog.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

/* A frame costs its length, flags and the seal of CURVE on the way: 33 bytes and up to 9. Peers ping every five seconds (wire/peer.c): 42 bytes that
 * nobody takes out, and that must not add up over weeks. */
enum {
    FDS = 1 << 16,
    LOOK_MS = 100,
    ALWAYS_LOOKS = 50,
    GROWN = 32 << 20,
    FRAME_COST = 42,
    LEAST = 64 << 10,
    SUBSCRIPTION_COST = 32, /* a node of ZeroMQ's tree for each byte of a topic */
    PINGS_PER_S = 10
};

/* By descriptor: accepted and perhaps still open, and what was taken out since. One table, as descriptors are the process's. */
static _Atomic uint64_t taken[FDS];
static atomic_bool open_fd[FDS];
static atomic_int highest, status_port;
static _Atomic uint64_t cut;

struct dm_backlog {
    dm_backlog_options o;
    pthread_t thread;
    int end;
    int64_t resident;
    int looks;
};

uint64_t dm_backlog_cut(void) { return atomic_load(&cut); }

void dm_backlog_accepted(int fd)
{
    if (fd < 0 || fd >= FDS)
        return;
    atomic_store(&taken[fd], 0);
    atomic_store(&open_fd[fd], true);
    for (int top = atomic_load(&highest); fd > top && !atomic_compare_exchange_weak(&highest, &top, fd);)
        continue;
}

void dm_backlog_ignore(int fd)
{
    if (fd >= 0 && fd < FDS)
        atomic_store(&open_fd[fd], false);
}

void dm_backlog_subscribers(const char *bound)
{
    int64_t port;
    const char *colon = strncmp(bound, "tcp://", 6) == 0 ? strrchr(bound, ':') : NULL;
    if (colon && es_str_to_i64(colon + 1, false, &port) && port > 0 && port < 65536)
        atomic_store(&status_port, (int)port);
}

static bool is_subscriber(int fd)
{
    struct sockaddr_in here = {0}; /* the port stands at the same place in both families */
    socklen_t n = sizeof here;
    int port = atomic_load(&status_port);
    return port && getsockname(fd, (struct sockaddr *)&here, &n) == 0 && ntohs(here.sin_port) == port;
}

void dm_backlog_taken(zmq_msg_t *frame)
{
    const char *text = zmq_msg_gets(frame, "__fd"); /* what ZMQ_SRCFD reads */
    int64_t fd;
    if (text && es_str_to_i64(text, false, &fd) && fd >= 0 && fd < FDS)
        atomic_fetch_add(&taken[fd], zmq_msg_size(frame) + FRAME_COST);
}

static int64_t resident_bytes(void)
{
    char text[128] = "";
    long long pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && sscanf(text, "%*d %lld", &pages) == 1 ? (int64_t)pages * sysconf(_SC_PAGESIZE) : 0;
}

/* Bytes that wait inside ZeroMQ of one connection; -1: no tcp connection any more. */
static int64_t waiting(int fd, int64_t pings)
{
    struct tcp_info info;
    socklen_t n = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0)
        return -1;
    atomic_fetch_add(&taken[fd], (uint64_t)pings);
    int64_t left = (int64_t)info.tcpi_bytes_received - (int64_t)atomic_load(&taken[fd]);
    if (left < 0) { /* small frames cost less than FRAME_COST: what was taken too much is no credit for later */
        atomic_fetch_sub(&taken[fd], (uint64_t)-left);
        left = 0;
    }
    return left;
}

static void shut(int fd, int64_t bytes)
{
    struct sockaddr_in peer = {0};
    socklen_t n = sizeof peer;
    char address[INET_ADDRSTRLEN] = "?";
    if (getpeername(fd, (struct sockaddr *)&peer, &n) == 0 && peer.sin_family == AF_INET)
        inet_ntop(AF_INET, &peer.sin_addr, address, sizeof address);
    es_log(ES_LOG_WARN, "cut a connection from %s: %lld bytes of it wait for the end of their message", address,
           (long long)bytes);
    atomic_store(&open_fd[fd], false);
    shutdown(fd, SHUT_RDWR); /* ZeroMQ sees its end, lets go of what it kept and closes it */
    atomic_fetch_add(&cut, 1);
}

void dm_backlog_look(const dm_backlog_options *o, int64_t now_ms)
{
    static int64_t paid_ms; /* until when pings are accounted for */
    int64_t pings = paid_ms ? (now_ms - paid_ms) * PINGS_PER_S / 1000 : 0;
    paid_ms = paid_ms ? paid_ms + pings * 1000 / PINGS_PER_S : now_ms;
    int top = atomic_load(&highest);
    int64_t all = 0, each = o->each, *left = es_xcalloc((size_t)top + 1, sizeof *left);
    for (int fd = 0; fd <= top; fd++) {
        /* Taken out and put back: the number may be closed and accepted anew meanwhile, and then it stays in. */
        if (!atomic_exchange(&open_fd[fd], false))
            continue;
        int64_t n = waiting(fd, pings);
        if (n >= 0)
            atomic_store(&open_fd[fd], true);
        left[fd] = n <= 0 ? 0 : is_subscriber(fd) ? n * SUBSCRIPTION_COST : n;
        all += left[fd];
    }
    for (;; each /= 2) {
        for (int fd = 0; fd <= top; fd++)
            if (left[fd] > each) {
                shut(fd, left[fd]);
                all -= left[fd];
                left[fd] = 0;
            }
        if (all <= o->all || each <= LEAST)
            break;
    }
    free(left);
}

static void *backlog_main(void *ctx)
{
    dm_backlog *b = ctx;
    struct pollfd end = {.fd = b->end, .events = POLLIN};
    while (poll(&end, 1, LOOK_MS) <= 0) {
        int64_t now = resident_bytes();
        if (now - b->resident < GROWN && ++b->looks < ALWAYS_LOOKS) {
            b->resident = now < b->resident ? now : b->resident;
            continue;
        }
        b->resident = now;
        b->looks = 0;
        dm_backlog_look(&b->o, es_clock_mono_ms(es_clock_system()));
    }
    return NULL;
}

es_status dm_backlog_start(const dm_backlog_options *o, dm_backlog **out, es_error *err)
{
    dm_backlog *b = *out = es_xcalloc(1, sizeof *b);
    b->o = *o;
    b->end = eventfd(0, EFD_CLOEXEC);
    b->resident = resident_bytes();
    if (b->end >= 0 && pthread_create(&b->thread, NULL, backlog_main, b) == 0)
        return ES_OK;
    if (b->end >= 0)
        close(b->end);
    free(b);
    *out = NULL;
    return es_fail(err, ES_NO_MEMORY, NULL, "no more threads or descriptors");
}

void dm_backlog_stop(dm_backlog **b)
{
    uint64_t one = 1;
    if (!*b)
        return;
    ES_ASSERT(write((*b)->end, &one, sizeof one) == sizeof one);
    pthread_join((*b)->thread, NULL);
    close((*b)->end);
    free(*b);
    *b = NULL;
}
