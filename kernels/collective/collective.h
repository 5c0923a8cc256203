/* collective.h - ranks that train one set of weights together: gradients summed, bytes shared, votes taken. Never a hang: every call ends within a limit.
 *
 *     kn_rendezvous *meet = NULL; kn_gang_id id;
 *     if (rank == 0) ES_GOTO(kn_rendezvous_open("10.0.0.4", &meet, &id, err));          // then hand `id` to the other ranks (the coordinator does)
 *     kn_collective_options o = {.rank = rank, .size = size, .id = &id, .meet = meet, .address = "10.0.0.4"};
 *     kn_collective *c; ES_GOTO(kn_collective_open(dev, &o, &c, err));
 *     ES_GOTO(kn_collective_reduce(c, grads, pieces, n, 1.0f / size, err));              // queued behind what the device was given; returns at once
 *     ES_GOTO(kn_collective_join(c, err));                                               // what the device is given from here on sees the sums
 *     kn_collective_close(&c);
 *
 * Every rank makes the same calls in the same order; sizes and the order are compared between neighbours, a difference is ES_CORRUPT.
 *
 * Two ways for the numbers. On a CPU: a ring of TCP connections (collective_ring.h) and a thread that packs, sums and unpacks while the caller computes. On a GPU: NCCL
 * on a stream of its own (cuda/nccl.cu); the ring is there too, for votes, for NCCL's id and as a lifeline: NCCL itself does not notice that a process on the same
 * host died. Sums are taken in an order fixed by the place in the buffer and the number of ranks, never by time: two runs give equal bits, and every rank has the same.
 *
 * Faults. A rank that dies closes its links: its neighbours see it within milliseconds, close theirs, and so on round the ring; then every call returns ES_LOST. A rank that is silent
 * for `limit_ms` while it is waited for is ES_TIMEOUT. `stop` saying so, asked a few times a second from a thread of the collective, is ES_CANCELLED. After the first
 * failure all calls return it, work queued on a device is abandoned (NCCL: ncclCommAbort), and gradients are unspecified: nothing computed since may be kept.
 *
 * Trust: a rank must show the 16 random bytes in the id. What the ranks say is neither encrypted nor authenticated further: bind to a network you trust.
 */
#ifndef KN_COLLECTIVE_H
#define KN_COLLECTIVE_H

#include "kernels/params/params.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KN_GANG_ID_MAX = 256, KN_GANG_MAX = 1024, KN_GATHER_MAX = 64, KN_COLLECTIVE_LIMIT_MS = 60000 };

typedef struct kn_gang_id {
    size_t n;
    uint8_t data[KN_GANG_ID_MAX];
} kn_gang_id;

/* Where the ranks meet: rank 0 listens. `address`: numeric, of an interface that the others reach. */
typedef struct kn_rendezvous kn_rendezvous;
es_status kn_rendezvous_open(const char *address, kn_rendezvous **out, kn_gang_id *id, es_error *err) ES_MUST_CHECK;
void kn_rendezvous_close(kn_rendezvous **m);

typedef struct kn_collective_options {
    int rank, size;       /* size 1 is allowed: everything works, nothing is sent */
    const kn_gang_id *id; /* borrowed for the call */
    kn_rendezvous *meet;  /* rank 0's; borrowed for the call */
    const char *address;  /* of this rank, numeric; NULL: 127.0.0.1 */
    int64_t limit_ms;     /* 0: KN_COLLECTIVE_LIMIT_MS */
    bool (*stop)(void *ctx);
    void *ctx;
} kn_collective_options;

typedef struct kn_collective kn_collective;

es_status kn_collective_open(kn_device *dev, const kn_collective_options *o, kn_collective **out,
                             es_error *err) ES_MUST_CHECK; /* waits for all ranks; borrows dev */
void kn_collective_close(kn_collective **c);               /* waits for all ranks when nothing has failed */
int kn_collective_rank(const kn_collective *c);
int kn_collective_size(const kn_collective *c);
es_status kn_collective_check(kn_collective *c, es_error *err) ES_MUST_CHECK; /* the first failure, or ES_OK */
void kn_collective_abort(kn_collective *c); /* from any thread: fails with ES_CANCELLED here, ES_LOST at the others */

/* A box in a flat buffer, as up to five loops; the innermost stride is 1. */
typedef struct kn_piece {
    int64_t offset, count; /* elements */
    int32_t extent[KN_RANK_MAX], stride[KN_RANK_MAX];
} kn_piece;
kn_piece kn_piece_of(const kn_param_def *d, const kn_box *b);

/* flat[every piece] = scale * sum over ranks. Pieces do not overlap. */
es_status kn_collective_reduce(kn_collective *c, float *flat, const kn_piece *pieces, int n, float scale,
                               es_error *err) ES_MUST_CHECK;
/* Room for reductions of so many elements at once, so that none allocates (and waits) later. */
es_status kn_collective_reserve(kn_collective *c, int64_t elements, es_error *err) ES_MUST_CHECK;
es_status kn_collective_join(kn_collective *c, es_error *err) ES_MUST_CHECK;
/* Device memory of rank 0 to all; joined. */
es_status kn_collective_broadcast(kn_collective *c, void *p, size_t bytes, es_error *err) ES_MUST_CHECK;

/* Host memory. `bytes` of every rank, in rank order, to all; between begin and end the caller may go on (one at a time). */
es_status kn_collective_gather_begin(kn_collective *c, const void *mine, size_t bytes, es_error *err) ES_MUST_CHECK;
es_status kn_collective_gather_end(kn_collective *c, void *all, es_error *err) ES_MUST_CHECK;
es_status kn_collective_gather(kn_collective *c, const void *mine, size_t bytes, void *all,
                               es_error *err) ES_MUST_CHECK;
es_status kn_collective_share(kn_collective *c, void *bytes, size_t n, es_error *err) ES_MUST_CHECK; /* from rank 0 */
es_status kn_collective_barrier(kn_collective *c, es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
