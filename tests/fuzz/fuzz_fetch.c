/* A weights store that answers anything to a worker that fetches: the version is whole or there is an error. The first message of the input is the
 * manifest (and the worker asks for its hash), the others answer in order. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "daemon/wire/peer.h"
#include "tests/fuzz/sequence.h"

/* The real transfer, with this peer in place of a socket. */
static struct {
    fuzz_sequence q;
    uint64_t asked[64], next_id;
    int asked_n;
    bool manifest_sent;
} peer;

static es_status fuzz_send(dm_peer *p, dm_data_request *m, es_error *err)
{
    (void)p, (void)err;
    if (peer.asked_n < 64)
        peer.asked[peer.asked_n++] = m->request_id;
    return ES_OK;
}

static es_status fuzz_recv(dm_peer *p, int timeout_ms, dm_data_reply **out, es_error *err)
{
    (void)p, (void)timeout_ms;
    ProtobufCMessage *m = NULL;
    *out = NULL;
    if (peer.manifest_sent && !fuzz_sequence_next(&peer.q))
        return es_fail(err, ES_IO, "fuzz", "the input ends");
    if (!peer.manifest_sent) {
        Espalier__Wire__ManifestBytes b = ESPALIER__WIRE__MANIFEST_BYTES__INIT;
        uint8_t *copy = malloc(peer.q.n + 1);
        memcpy(copy, peer.q.bytes, peer.q.n);
        dm_bytes packed;
        b.manifest = (ProtobufCBinaryData){peer.q.n, copy};
        es_status s = dm_encode(&DM_DATA_REPLY(MANIFEST, manifest, &b).base, DM_DATA_MAX, &packed, err);
        ES_ASSERT(s == ES_OK);
        s = dm_decode(&espalier__wire__data_reply__descriptor, packed.data, packed.n, &m, err);
        ES_ASSERT(s == ES_OK);
        free(packed.data);
        free(copy);
        peer.manifest_sent = true;
    } else {
        ES_RETURN(dm_decode(&espalier__wire__data_reply__descriptor, peer.q.bytes, peer.q.n, &m, err));
    }
    *out = (dm_data_reply *)m;
    if (peer.asked_n > 0 && !(peer.q.tag & 2)) /* else an answer to nothing that was asked */
        (*out)->request_id = peer.asked[--peer.asked_n];
    return ES_OK;
}

static const char *fuzz_endpoint(const dm_peer *p)
{
    (void)p;
    return "fuzz";
}

static uint64_t fuzz_next_id(dm_peer *p)
{
    (void)p;
    return ++peer.next_id;
}

#define dm_peer_data_send fuzz_send
#define dm_peer_data_recv fuzz_recv
#define dm_peer_endpoint fuzz_endpoint
#define dm_peer_next_id fuzz_next_id
#include "daemon/wire/transfer.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&peer, 0, sizeof peer);
    peer.q = (fuzz_sequence){.at = data, .left = size};
    if (!fuzz_sequence_next(&peer.q))
        return 0;
    es_hash h;
    char id[ES_HASH_HEX];
    es_hash_bytes(peer.q.bytes, peer.q.n, &h);
    es_hash_hex(&h, id);
    dm_transfer_options o = {.bytes_max = 1 << 20};
    sn_version *v = NULL;
    es_error e;
    es_status s = dm_weights_get(NULL, id, &o, &v, &e);
    if (s != ES_OK) {
        ES_ASSERT(v == NULL && e.code == s && e.text[0]);
        return 0;
    }
    char again[ES_HASH_HEX]; /* of the version; the manifest that came need not have been the canonical one */
    s = dm_weights_id(v, again, &e);
    ES_ASSERT(s == ES_OK || e.text[0]);
    sn_version_destroy(&v);
    return 0;
}
