#include "kernels/collective/collective_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"

enum { SHARE_PIECE = 1 << 20 };

typedef enum ring_kind { RING_SUM = 1, RING_GATHER, RING_SHARE } ring_kind;

typedef struct heading {
    uint32_t kind, number;
    uint64_t bytes;
} heading;

struct kn_ring {
    kn_ring_options o;
    int next, before;
    uint32_t number; /* of operations */
    char *part;      /* what comes in, before it is added */
    size_t part_bytes;
    _Atomic bool broken;
};

static int64_t now_ms(void) { return es_clock_mono_ms(es_clock_system()); }

es_status kn_ring_open(const kn_ring_options *o, kn_ring **out, es_error *err)
{
    *out = NULL;
    if (o->size < 1 || o->size > KN_GANG_MAX || o->rank < 0 || o->rank >= o->size)
        return es_fail(err, ES_INVALID, "gang", "rank %d of %d: allowed are 0 to %d of at most %d", o->rank, o->size,
                       o->size - 1, KN_GANG_MAX);
    kn_ring *r = es_xcalloc(1, sizeof *r);
    r->o = *o;
    es_status s = kn_ring_meet(o, &r->next, &r->before, err);
    if (s != ES_OK) {
        free(r);
        return s;
    }
    *out = r;
    return ES_OK;
}

void kn_ring_close(kn_ring **r)
{
    if (*r == NULL)
        return;
    if ((*r)->next >= 0)
        close((*r)->next);
    if ((*r)->before >= 0)
        close((*r)->before);
    free((*r)->part);
    free(*r);
    *r = NULL;
}

void kn_ring_break(kn_ring *r)
{
    atomic_store(&r->broken, true);
    if (r->next >= 0)
        shutdown(r->next, SHUT_RDWR);
    if (r->before >= 0)
        shutdown(r->before, SHUT_RDWR);
}

static es_status lost(const kn_ring *r, bool next, es_error *err)
{
    const int size = r->o.size, who = (r->o.rank + (next ? 1 : size - 1)) % size;
    return es_fail(err, ES_LOST, "gang", "rank %d of %d: rank %d is gone", r->o.rank, size, who);
}

es_status kn_ring_check(kn_ring *r, es_error *err)
{
    const int fds[2] = {r->next, r->before};
    for (int i = 0; i < 2; i++) {
        char c;
        if (fds[i] < 0)
            continue;
        ssize_t k = recv(fds[i], &c, 1, MSG_PEEK | MSG_DONTWAIT);
        if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
            return lost(r, i == 0, err);
    }
    return ES_OK;
}

/* Sends to the next rank while receiving from the one before: neither waits for the other, so no cycle of full buffers forms. */
static es_status exchange(kn_ring *r, const void *out, size_t out_n, void *in, size_t in_n, es_error *err)
{
    size_t sent = 0, got = 0;
    int64_t moved = now_ms(), asked = moved;
    while (sent < out_n || got < in_n) {
        struct pollfd p[2] = {{.fd = sent < out_n ? r->next : -1, .events = POLLOUT},
                              {.fd = got < in_n ? r->before : -1, .events = POLLIN}};
        int ready = poll(p, 2, KN_RING_TICK_MS);
        if (p[0].fd >= 0 && ready > 0 && p[0].revents != 0) {
            ssize_t k = send(r->next, (const char *)out + sent, out_n - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (k < 0 && errno != EAGAIN && errno != EINTR)
                return lost(r, true, err);
            sent += k > 0 ? (size_t)k : 0;
        }
        if (p[1].fd >= 0 && ready > 0 && p[1].revents != 0) {
            ssize_t k = recv(r->before, (char *)in + got, in_n - got, MSG_DONTWAIT);
            if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
                return lost(r, false, err);
            got += k > 0 ? (size_t)k : 0;
        }
        int64_t now = now_ms();
        if (ready > 0)
            moved = now;
        if (now - asked >= KN_RING_TICK_MS && r->o.idle != NULL)
            ES_RETURN(r->o.idle(r->o.ctx, err));
        asked = now - asked >= KN_RING_TICK_MS ? now : asked;
        if (now - moved > r->o.limit_ms)
            return es_fail(err, ES_TIMEOUT, "gang", "rank %d of %d: nothing was heard for %lld ms", r->o.rank,
                           r->o.size, (long long)r->o.limit_ms);
        if (atomic_load(&r->broken))
            return lost(r, false, err);
    }
    return ES_OK;
}

/* Neighbours are about to do the same thing. */
static es_status agree(kn_ring *r, ring_kind kind, uint64_t bytes, es_error *err)
{
    heading mine = {.kind = kind, .number = r->number++, .bytes = bytes}, theirs;
    if (r->o.size == 1)
        return ES_OK;
    ES_RETURN(exchange(r, &mine, sizeof mine, &theirs, sizeof theirs, err));
    if (memcmp(&mine, &theirs, sizeof mine) != 0)
        return es_fail(err, ES_CORRUPT, "gang",
                       "rank %d does operation %u (kind %u, %llu bytes) while the rank before does operation %u (kind "
                       "%u, %llu bytes)",
                       r->o.rank, mine.number, mine.kind, (unsigned long long)mine.bytes, theirs.number, theirs.kind,
                       (unsigned long long)theirs.bytes);
    return ES_OK;
}

static int64_t part_start(const kn_ring *r, int64_t n, int part)
{
    return n / r->o.size * part + n % r->o.size * part / r->o.size;
}

/* The part that this rank works on in turn `s`, counted backwards round the ring. */
static int part_at(const kn_ring *r, int s) { return ((r->o.rank - s) % r->o.size + r->o.size) % r->o.size; }

es_status kn_ring_sum(kn_ring *r, float *data, int64_t n, es_error *err)
{
    const int size = r->o.size;
    ES_RETURN(agree(r, RING_SUM, (uint64_t)n * sizeof *data, err));
    if (size == 1)
        return ES_OK;
    size_t most = (size_t)(n / size + 1) * sizeof *data;
    if (most > r->part_bytes) {
        r->part = es_xrealloc(r->part, most);
        r->part_bytes = most;
    }
    for (int s = 0; s < 2 * (size - 1); s++) {
        const bool adds = s < size - 1;
        const int out = part_at(r, s), in = part_at(r, s + 1);
        const int64_t a = part_start(r, n, out), b = part_start(r, n, in), b_end = part_start(r, n, in + 1);
        const size_t out_n = (size_t)(part_start(r, n, out + 1) - a) * sizeof *data,
                     in_n = (size_t)(b_end - b) * sizeof *data;
        ES_RETURN(exchange(r, data + a, out_n, adds ? (void *)r->part : (void *)(data + b), in_n, err));
        const float *came = (const float *)(const void *)r->part;
        for (int64_t i = b; adds && i < b_end; i++)
            data[i] = came[i - b] + data[i];
    }
    return ES_OK;
}

es_status kn_ring_gather(kn_ring *r, void *all, size_t each, es_error *err)
{
    ES_RETURN(agree(r, RING_GATHER, each, err));
    for (int s = 0; s < r->o.size - 1; s++)
        ES_RETURN(exchange(r, (char *)all + (size_t)part_at(r, s) * each, each,
                           (char *)all + (size_t)part_at(r, s + 1) * each, each, err));
    return ES_OK;
}

/* Passed on piece by piece, so that all links work at once. */
es_status kn_ring_share(kn_ring *r, void *bytes, size_t n, es_error *err)
{
    const bool first = r->o.rank == 0, last = r->o.rank == r->o.size - 1;
    size_t pieces = (n + SHARE_PIECE - 1) / SHARE_PIECE;
    ES_RETURN(agree(r, RING_SHARE, n, err));
    if (r->o.size == 1)
        return ES_OK;
    for (size_t i = 0; i <= pieces; i++) {
        size_t in_at = i * SHARE_PIECE, out_at = first ? in_at : in_at - SHARE_PIECE;
        size_t in_n = first || i == pieces ? 0 : n - in_at < SHARE_PIECE ? n - in_at : SHARE_PIECE;
        bool gives = !last && (first ? i < pieces : i > 0);
        size_t out_n = !gives ? 0 : n - out_at < SHARE_PIECE ? n - out_at : SHARE_PIECE;
        ES_RETURN(exchange(r, gives ? (char *)bytes + out_at : NULL, out_n, in_n > 0 ? (char *)bytes + in_at : NULL,
                           in_n, err));
    }
    return ES_OK;
}
