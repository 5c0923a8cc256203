/* collective_ring.h - ranks in a ring: each has a TCP link to the next and from the one before. What collective.h stands on; one thread at a time.
 *
 *     meeting:   every rank listens; 1 .. n-1 tell rank 0 where, rank 0 tells each where its next one is; all connect to their next
 *     operation: both neighbours compare its kind, number and size first, then n-1 (gather), 2 (n-1) (sum) or one (share) exchanges
 *
 * Sum: the buffer is cut into n parts; part k starts at rank k, goes once round being added to, and once more to be copied. So the order in which ranks are added depends on the
 * part alone, and every rank ends with the same bits.
 *
 * `idle` is asked about every KN_RING_TICK_MS while waiting; its failure ends the operation. A link that ends is ES_LOST, silence for limit_ms is
 * ES_TIMEOUT. After a failure the ring is broken for good: kn_ring_break, so that the neighbours see it.
 */
#ifndef KN_COLLECTIVE_RING_H
#define KN_COLLECTIVE_RING_H

#include "kernels/collective/collective.h"

enum { KN_RING_TICK_MS = 20 };

typedef struct kn_ring kn_ring;

typedef struct kn_ring_options {
    int rank, size;
    const kn_gang_id *id;
    kn_rendezvous *meet;
    const char *address;
    int64_t limit_ms;
    es_status (*idle)(void *ctx, es_error *err);
    void *ctx;
} kn_ring_options;

/* collective_meet.c: the links to the next rank and from the one before, non-blocking; -1 and -1 when alone. */
es_status kn_ring_meet(const kn_ring_options *o, int *next, int *before, es_error *err) ES_MUST_CHECK;

es_status kn_ring_open(const kn_ring_options *o, kn_ring **out, es_error *err) ES_MUST_CHECK;
void kn_ring_close(kn_ring **r);
void kn_ring_break(kn_ring *r); /* from any thread; the neighbours get ES_LOST */
/* Between operations: ES_LOST when a neighbour is gone. */
es_status kn_ring_check(kn_ring *r, es_error *err) ES_MUST_CHECK;
es_status kn_ring_sum(kn_ring *r, float *data, int64_t n, es_error *err) ES_MUST_CHECK;
es_status kn_ring_gather(kn_ring *r, void *all, size_t each,
                         es_error *err) ES_MUST_CHECK; /* all: size * each bytes, this rank's own in place */
es_status kn_ring_share(kn_ring *r, void *bytes, size_t n, es_error *err) ES_MUST_CHECK; /* from rank 0 */

#endif
