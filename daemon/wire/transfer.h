/* transfer.h - weights versions over the wire: cut into chunks, sent and fetched by hash, so that what the other side has never travels twice.
 *
 *     char id[ES_HASH_HEX];
 *     dm_weights_put(data_peer, version, &options, id, err);     // which chunks are missing? -> put those -> put the manifest
 *     sn_version *v; dm_weights_get(data_peer, id, &options, &v, err);
 *
 * A version is a Manifest (wire.proto); its id is the BLAKE2b-256 of the serialised manifest, chunk ids are that of their bytes. Everything received is
 * checked against its hash before use. Several requests are under way at once; each is repeated until answered, so a transfer goes on after
 * the coordinator or the network was away, and both calls may be repeated as a whole.
 */
#ifndef DM_WIRE_WEIGHTS_H
#define DM_WIRE_WEIGHTS_H

#include "base/hash.h"
#include "daemon/wire/peer.h"
#include "supernet/version/version.h"

/* A place to keep chunks: `get` gives the chunk's bytes (at most `max`, unchecked) and their number, or 0. Either may be NULL. */
typedef struct dm_chunk_cache {
    void *ctx;
    size_t (*get)(void *ctx, const es_hash *h, void *data, size_t max);
    void (*put)(void *ctx, const es_hash *h, const void *data, size_t n);
} dm_chunk_cache;

typedef struct dm_transfer_options {
    int timeout_ms;          /* give up (ES_TIMEOUT) when no answer came for so long; 0: never */
    uint64_t bytes_max;      /* refuse to fetch a larger version; 0: 64 GiB */
    bool (*stop)(void *ctx); /* asked a few times a second: true gives ES_CANCELLED; may be NULL */
    void *ctx;
    dm_chunk_cache cache;
} dm_transfer_options;

es_status dm_weights_put(dm_peer *p, const sn_version *v, const dm_transfer_options *o, char id[ES_HASH_HEX],
                         es_error *err) ES_MUST_CHECK;
es_status dm_weights_get(dm_peer *p, const char *id, const dm_transfer_options *o, sn_version **out,
                         es_error *err) ES_MUST_CHECK;
/* The id a version would get. */
es_status dm_weights_id(const sn_version *v, char id[ES_HASH_HEX], es_error *err) ES_MUST_CHECK;

#endif
