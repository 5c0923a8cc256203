/* How ranks find each other: rank 0 listens where its id says, the others tell it where they listen, and it tells everyone where the next rank is. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "kernels/collective/collective_ring.h"

enum { KEY = 16, MAGIC = 0x314e4745, STRANGERS = 32, PATIENCE_MS = 2000 };

typedef enum word_kind { WORD_HERE = 1, WORD_NEXT, WORD_LINK } word_kind;

/* All that is said while meeting: HERE (a rank and where it listens, to rank 0), NEXT (the answer), LINK (first on a link of the ring). */
typedef struct word {
    uint32_t magic, kind;
    uint8_t key[KEY];
    int32_t rank, size;
    uint32_t port;
    char address[60];
} word;

/* What an id holds. */
typedef struct place {
    uint32_t magic, port;
    uint8_t key[KEY];
    char address[60];
} place;

struct kn_rendezvous {
    int fd;
    place at;
};

/* One meeting of one rank. */
typedef struct meeting {
    const kn_ring_options *o;
    place hub;
    int listener;   /* where the rank before (and, at rank 0, everyone) comes to */
    uint32_t port;  /* of the listener */
    int *ranks;     /* rank 0: connections of the others, -1 before they come */
    word *where;    /* rank 0: what they said */
    int link;       /* from the rank before */
    int heard;      /* ranks that said where they are */
    int64_t end_ms; /* mono */
    struct stranger {
        int fd;
        size_t got;
        int64_t since_ms;
        word said;
    } strangers[STRANGERS]; /* connections that have not said all yet */
} meeting;

static int64_t now_ms(void) { return es_clock_mono_ms(es_clock_system()); }

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static es_status address_of(const char *text, uint32_t port, struct sockaddr_storage *out, socklen_t *n, es_error *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *n = sizeof *v4;
        return ES_OK;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *n = sizeof *v6;
        return ES_OK;
    }
    return es_fail(err, ES_INVALID, "gang address", "\"%.60s\" is no numeric IPv4 or IPv6 address", text);
}

static es_status listen_on(const char *address, int *fd, uint32_t *port, es_error *err)
{
    struct sockaddr_storage at;
    socklen_t n;
    ES_RETURN(address_of(address, 0, &at, &n, err));
    *fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0 || bind(*fd, (struct sockaddr *)&at, n) != 0 || listen(*fd, 1024) != 0 ||
        getsockname(*fd, (struct sockaddr *)&at, &n) != 0) {
        es_status s = es_fail_errno(err, address, "the gang cannot listen there");
        close_fd(fd);
        return s;
    }
    *port = ntohs(at.ss_family == AF_INET ? ((struct sockaddr_in *)&at)->sin_port
                                          : ((struct sockaddr_in6 *)&at)->sin6_port);
    return ES_OK;
}

es_status kn_rendezvous_open(const char *address, kn_rendezvous **out, kn_gang_id *id, es_error *err)
{
    kn_rendezvous *m = es_xcalloc(1, sizeof *m);
    es_status s = ES_OK;
    *out = NULL;
    m->fd = -1;
    m->at.magic = MAGIC;
    if (address == NULL)
        address = "127.0.0.1";
    if (strlen(address) >= sizeof m->at.address)
        ES_GOTO(es_fail(err, ES_INVALID, "gang address", "is too long"));
    memcpy(m->at.address, address, strlen(address));
    if (getrandom(m->at.key, KEY, 0) != KEY)
        ES_GOTO(es_fail_errno(err, "gang", "no random numbers"));
    ES_GOTO(listen_on(address, &m->fd, &m->at.port, err));
    _Static_assert(sizeof m->at <= sizeof id->data, "an id holds a place");
    memset(id, 0, sizeof *id);
    memcpy(id->data, &m->at, sizeof m->at);
    id->n = sizeof m->at;
    *out = m;
    return ES_OK;
fail:
    kn_rendezvous_close(&m);
    return s;
}

void kn_rendezvous_close(kn_rendezvous **m)
{
    if (*m == NULL)
        return;
    close_fd(&(*m)->fd);
    free(*m);
    *m = NULL;
}

/* ---- one turn of waiting ---- */

static es_status wait_turn(const meeting *m, const char *for_what, es_error *err)
{
    if (m->o->idle != NULL)
        ES_RETURN(m->o->idle(m->o->ctx, err));
    if (now_ms() >= m->end_ms)
        return es_fail(err, ES_TIMEOUT, "gang", "rank %d of %d waited %lld ms for %s", m->o->rank, m->o->size,
                       (long long)m->o->limit_ms, for_what);
    return ES_OK;
}

/* Sends or receives exactly n bytes. */
static es_status whole(const meeting *m, int fd, bool sends, void *bytes, size_t n, const char *what, es_error *err)
{
    size_t done = 0;
    while (done < n) {
        struct pollfd p = {.fd = fd, .events = sends ? POLLOUT : POLLIN};
        ES_RETURN(wait_turn(m, what, err));
        if (poll(&p, 1, KN_RING_TICK_MS) <= 0)
            continue;
        ssize_t k = sends ? send(fd, (char *)bytes + done, n - done, MSG_NOSIGNAL)
                          : recv(fd, (char *)bytes + done, n - done, 0);
        if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
            return es_fail(err, ES_LOST, "gang", "rank %d of %d lost its connection while waiting for %s", m->o->rank,
                           m->o->size, what);
        if (k > 0)
            done += (size_t)k;
    }
    return ES_OK;
}

/* A connection to where somebody listens, or will soon: refused ones are tried again. */
static es_status connect_to(const meeting *m, const char *address, uint32_t port, int *out, es_error *err)
{
    struct sockaddr_storage at;
    socklen_t n;
    int one = 1;
    ES_RETURN(address_of(address, port, &at, &n, err));
    for (;;) {
        int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), failure = 0;
        socklen_t size = sizeof failure;
        if (fd < 0)
            return es_fail_errno(err, "gang", "no socket");
        bool there = connect(fd, (struct sockaddr *)&at, n) == 0;
        bool under_way = !there && errno == EINPROGRESS;
        while (under_way) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            es_status s = wait_turn(m, "another rank to answer", err);
            if (s != ES_OK) {
                close(fd);
                return s;
            }
            if (poll(&p, 1, KN_RING_TICK_MS) <= 0)
                continue;
            there = getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 && failure == 0;
            under_way = false;
        }
        if (there) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            *out = fd;
            return ES_OK;
        }
        close(fd);
        ES_RETURN(wait_turn(m, "another rank to listen", err));
        poll(NULL, 0, KN_RING_TICK_MS);
    }
}

/* ---- who comes to the listener ---- */

static word word_of(const meeting *m, word_kind kind)
{
    word w = {.magic = MAGIC, .kind = kind, .rank = m->o->rank, .size = m->o->size, .port = m->port};
    memcpy(w.key, m->hub.key, KEY);
    return w;
}

static bool same_key(const uint8_t *a, const uint8_t *b)
{
    unsigned differ = 0; /* in constant time */
    for (int i = 0; i < KEY; i++)
        differ |= (unsigned)(a[i] ^ b[i]);
    return differ == 0;
}

/* A connection has said its word: keeps it where it belongs, or closes it. */
static void place_stranger(meeting *m, struct stranger *s)
{
    const kn_ring_options *o = m->o;
    const word *w = &s->said;
    bool ours = w->magic == MAGIC && w->size == o->size && same_key(w->key, m->hub.key) && w->rank >= 0 &&
                w->rank < o->size && memchr(w->address, 0, sizeof w->address) != NULL;
    int before = (o->rank + o->size - 1) % o->size;
    if (ours && w->kind == WORD_HERE && o->rank == 0 && w->rank > 0 && m->ranks[w->rank] < 0) {
        m->ranks[w->rank] = s->fd;
        m->where[w->rank] = *w;
        m->heard++;
    } else if (ours && w->kind == WORD_LINK && w->rank == before && m->link < 0) {
        m->link = s->fd;
    } else {
        close(s->fd);
    }
    s->fd = -1;
}

static void listen_to(meeting *m, struct stranger *s)
{
    ssize_t k = recv(s->fd, (char *)&s->said + s->got, sizeof s->said - s->got, 0);
    if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
        close_fd(&s->fd);
    if (k > 0)
        s->got += (size_t)k;
    if (s->fd >= 0 && s->got == sizeof s->said)
        place_stranger(m, s);
}

/* A place for one more: free, or of somebody who connected long ago and says nothing. NULL: not now, it waits in the listener's queue. */
static struct stranger *place_for_one(meeting *m)
{
    struct stranger *oldest = &m->strangers[0];
    for (int i = 0; i < STRANGERS; i++) {
        struct stranger *s = &m->strangers[i];
        if (s->fd < 0)
            return s;
        if (s->since_ms < oldest->since_ms)
            oldest = s;
    }
    return now_ms() - oldest->since_ms >= PATIENCE_MS ? oldest : NULL;
}

static void accept_one(meeting *m, struct stranger *at)
{
    int one = 1, fd = accept4(m->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close_fd(&at->fd);
    *at = (struct stranger){.fd = fd, .since_ms = now_ms()};
}

static es_status accept_turn(meeting *m, const char *what, es_error *err)
{
    struct pollfd p[STRANGERS + 1];
    ES_RETURN(wait_turn(m, what, err));
    for (int i = 0; i < STRANGERS; i++)
        p[i] = (struct pollfd){.fd = m->strangers[i].fd, .events = POLLIN};
    struct stranger *at = place_for_one(m);
    p[STRANGERS] = (struct pollfd){.fd = at ? m->listener : -1, .events = POLLIN};
    if (poll(p, STRANGERS + 1, KN_RING_TICK_MS) <= 0)
        return ES_OK;
    for (int i = 0; i < STRANGERS; i++)
        if (m->strangers[i].fd >= 0 && p[i].revents != 0)
            listen_to(m, &m->strangers[i]);
    if (at && p[STRANGERS].revents != 0)
        accept_one(m, place_for_one(m));
    return ES_OK;
}

/* ---- the meeting ---- */

/* A rank that has come says nothing more: what can be read from it is its end. */
static es_status all_still_there(const meeting *m, es_error *err)
{
    char c;
    for (int r = 1; r < m->o->size; r++) {
        ssize_t k = m->ranks[r] < 0 ? -1 : recv(m->ranks[r], &c, 1, MSG_PEEK | MSG_DONTWAIT);
        if (k == 0 || (m->ranks[r] >= 0 && k < 0 && errno != EAGAIN && errno != EINTR))
            return es_fail(err, ES_LOST, "gang", "rank 0 of %d: rank %d is gone", m->o->size, r);
    }
    return ES_OK;
}

/* Rank 0: hears where everyone is, tells everyone where the next one is; *next becomes its own. */
static es_status lead(meeting *m, word *next, es_error *err)
{
    const int size = m->o->size;
    while (m->heard < size - 1) {
        ES_RETURN(accept_turn(m, "the other ranks", err));
        ES_RETURN(all_still_there(m, err));
    }
    m->where[0] = word_of(m, WORD_NEXT);
    memcpy(m->where[0].address, m->hub.address, sizeof m->hub.address);
    for (int r = 1; r < size; r++) {
        word w = m->where[(r + 1) % size];
        w.kind = WORD_NEXT;
        ES_RETURN(whole(m, m->ranks[r], true, &w, sizeof w, "a rank to listen", err));
    }
    *next = m->where[1];
    return ES_OK;
}

static es_status follow(meeting *m, word *next, es_error *err)
{
    word here = word_of(m, WORD_HERE);
    const char *address = m->o->address != NULL ? m->o->address : "127.0.0.1";
    es_status s;
    int hub = -1;
    if (strlen(address) >= sizeof here.address)
        return es_fail(err, ES_INVALID, "gang address", "is too long");
    memcpy(here.address, address, strlen(address));
    ES_RETURN(connect_to(m, m->hub.address, m->hub.port, &hub, err));
    ES_GOTO(whole(m, hub, true, &here, sizeof here, "rank 0", err));
    ES_GOTO(whole(m, hub, false, next, sizeof *next, "all ranks to come", err));
    if (next->magic != MAGIC || next->kind != WORD_NEXT || memchr(next->address, 0, sizeof next->address) == NULL)
        s = es_fail(err, ES_CORRUPT, "gang", "rank 0 said something else than where the next rank is");
fail:
    close_fd(&hub);
    return s;
}

static es_status start(meeting *m, es_error *err)
{
    const kn_ring_options *o = m->o;
    if (o->id == NULL || o->id->n != sizeof m->hub)
        return es_fail(err, ES_INVALID, "gang", "the id has %zu bytes, not %zu", o->id == NULL ? 0 : o->id->n,
                       sizeof m->hub);
    memcpy(&m->hub, o->id->data, sizeof m->hub);
    if (m->hub.magic != MAGIC || memchr(m->hub.address, 0, sizeof m->hub.address) == NULL || m->hub.port > 65535)
        return es_fail(err, ES_INVALID, "gang", "the id is no gang's, or of another version");
    if (o->rank > 0)
        return listen_on(o->address != NULL ? o->address : "127.0.0.1", &m->listener, &m->port, err);
    if (o->meet == NULL)
        return es_fail(err, ES_INVALID, "gang", "rank 0 needs its rendezvous");
    m->listener = o->meet->fd;
    m->port = o->meet->at.port;
    m->ranks = es_xcalloc((size_t)o->size, sizeof *m->ranks);
    m->where = es_xcalloc((size_t)o->size, sizeof *m->where);
    for (int i = 0; i < o->size; i++)
        m->ranks[i] = -1;
    return ES_OK;
}

static void finish(meeting *m)
{
    for (int i = 0; i < STRANGERS; i++)
        close_fd(&m->strangers[i].fd);
    for (int i = 0; m->ranks != NULL && i < m->o->size; i++)
        close_fd(&m->ranks[i]);
    if (m->o->rank > 0)
        close_fd(&m->listener);
    free(m->ranks);
    free(m->where);
}

es_status kn_ring_meet(const kn_ring_options *o, int *next, int *before, es_error *err)
{
    meeting m = {.o = o, .listener = -1, .link = -1, .end_ms = now_ms() + o->limit_ms};
    es_status s = ES_OK;
    word at, link;
    *next = *before = -1;
    if (o->size == 1)
        return ES_OK;
    for (int i = 0; i < STRANGERS; i++)
        m.strangers[i].fd = -1;
    ES_GOTO(start(&m, err));
    ES_GOTO(o->rank == 0 ? lead(&m, &at, err) : follow(&m, &at, err));
    ES_GOTO(connect_to(&m, at.address, at.port, next, err));
    link = word_of(&m, WORD_LINK);
    ES_GOTO(whole(&m, *next, true, &link, sizeof link, "the next rank", err));
    while (m.link < 0)
        ES_GOTO(accept_turn(&m, "the rank before", err));
    *before = m.link;
    m.link = -1;
fail:
    if (s != ES_OK)
        close_fd(next);
    close_fd(&m.link);
    finish(&m);
    return s;
}
