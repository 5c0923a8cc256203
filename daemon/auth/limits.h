/* limits.h - what one peer may cost: messages and bytes a second, answers waiting to leave, and how many peers there are.
 *
 *     dm_limits *l = dm_limits_new(&options);
 *     switch (dm_limits_take(l, id, id_n, &who, bytes, now_ms, &why)) {
 *     case DM_PASS: handle the message; break;
 *     case DM_TELL: answer it with `why` (code "busy"); break;                 // at most once a second and connection
 *     case DM_DROP: break;                                                     // costs nothing more
 *     }
 *     dm_limits_send(l, router, id, id_n, bytes, n);                           // false: dropped, the peer reads too slowly; it will ask again
 *     dm_limits_free(&l);
 *
 * A token bucket for each connection, and one DM_LIMITS_KEY_FACTOR times as large for all connections of a key. An entry that is full again says nothing,
 * so it may be forgotten: memory is bounded by `peers_max` entries. Local peers (dm_who.local) are not counted. Answers above 4 KiB are counted until ZeroMQ
 * has handed them to the kernel, so that a peer that asks and does not read holds `queue_bytes` and no more; smaller ones are bounded by
 * the socket's high-water mark. One thread per object (the counting down happens on ZeroMQ's).
 */
#ifndef DM_LIMITS_H
#define DM_LIMITS_H

#include "daemon/auth/roles.h"

enum { DM_LIMITS_KEY_FACTOR = 64 };

typedef struct dm_limit_options {
    int messages_per_s;  /* of a connection; four seconds' worth at once */
    int64_t bytes_per_s; /* the same */
    int64_t queue_bytes; /* of answers that wait to leave to one connection */
    int peers_max;       /* connections and keys heard lately */
} dm_limit_options;
dm_limit_options dm_limits_default(void);

typedef enum dm_verdict { DM_PASS, DM_TELL, DM_DROP } dm_verdict;
typedef struct dm_limits dm_limits;
dm_limits *dm_limits_new(const dm_limit_options *o);
void dm_limits_set(dm_limits *l, const dm_limit_options *o); /* from now on; what a peer has used stays used */
void dm_limits_free(dm_limits **l);
dm_verdict dm_limits_take(dm_limits *l, const void *id, size_t id_n, const dm_who *who, size_t bytes, int64_t now_ms,
                          es_error *why);
/* Sends id and bytes (copied) without waiting. */
bool dm_limits_send(dm_limits *l, void *router, const void *id, size_t id_n, const void *bytes, size_t n);
/* Messages over the limit, and answers dropped, since the start; entries now. */
uint64_t dm_limits_refused(const dm_limits *l);
uint64_t dm_limits_dropped(const dm_limits *l);
size_t dm_limits_peers(const dm_limits *l);

/* The bucket itself: `burst` tokens at most, `per_ms` more each millisecond. */
typedef struct dm_bucket {
    double tokens;
    int64_t at_ms; /* 0: full */
} dm_bucket;
void dm_bucket_fill(dm_bucket *b, double per_ms, double burst, int64_t now_ms);
/* May go below zero once, so that a message larger than the burst passes and is paid for later. */
bool dm_bucket_take(dm_bucket *b, double n);

#endif
