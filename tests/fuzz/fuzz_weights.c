/* Anything asked of the weights store over the data socket, in any order: the store never fails, every answer can be read and is to what was asked,
 * and afterwards everything is undone, so that each input meets the same store. A tag of 1 mends the hashes of what is put, which no mutation would. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "daemon/weights/weights.h"
#include "tests/fuzz/sequence.h"

static dm_weights *store;
static es_hash last; /* of the chunk that was put last */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char dir[] = "/dev/shm/espalier-fuzz.XXXXXX", path[64];
    es_error e;
    (void)argc, (void)argv;
    ES_ASSERT(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/weights.db", dir);
    es_status s = dm_weights_open(path, &store, &e);
    ES_ASSERT(s == ES_OK);
    s = es_file_remove_tree(dir, &e); /* the open files stay, without a name */
    ES_ASSERT(s == ES_OK);
    return 0;
}

/* Puts the right hash on a chunk, and chunks that exist into a manifest. */
static void mend(dm_data_request *r)
{
    if (r->what_case == ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_CHUNK && r->put_chunk->hash.len == ES_HASH_BYTES) {
        es_hash_bytes(r->put_chunk->data.data, r->put_chunk->data.len, &last);
        memcpy(r->put_chunk->hash.data, last.b, ES_HASH_BYTES);
    }
    if (r->what_case == ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_MANIFEST) {
        ProtobufCMessage *m = NULL;
        es_error e;
        dm_bytes b;
        ProtobufCBinaryData *to = &r->put_manifest->manifest;
        if (dm_decode(&espalier__wire__manifest__descriptor, to->data, to->len, &m, &e) != ES_OK)
            return;
        Espalier__Wire__Manifest *f = (Espalier__Wire__Manifest *)m;
        for (size_t i = 0; i < f->n_arrays; i++)
            for (size_t k = 0; k < f->arrays[i]->n_chunks; k++)
                if (f->arrays[i]->chunks[k].len == ES_HASH_BYTES)
                    memcpy(f->arrays[i]->chunks[k].data, last.b, ES_HASH_BYTES);
        if (to->len && dm_encode(m, to->len, &b, &e) == ES_OK) { /* no longer than what came */
            memcpy(to->data, b.data, b.n);
            to->len = b.n;
            free(b.data);
        }
        dm_message_free(&m);
    }
}

static void ask(const void *bytes, size_t n, bool whole, uint64_t id)
{
    dm_bytes reply = {0};
    es_error e;
    ProtobufCMessage *m = NULL;
    es_status s = dm_weights_answer(store, bytes, n, 1000, &reply, &e);
    if (s != ES_OK)
        fprintf(stderr, "the store failed: %s: %s\n", e.where, e.text);
    ES_ASSERT(s == ES_OK);
    if (reply.data) {
        s = dm_decode(&espalier__wire__data_reply__descriptor, reply.data, reply.n, &m, &e);
        ES_ASSERT(s == ES_OK && reply.n <= DM_DATA_MAX);
        ES_ASSERT(!whole || ((dm_data_reply *)m)->request_id == id);
        dm_message_free(&m);
        free(reply.data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_error e;
    es_status s = dm_weights_begin(store, &e);
    ES_ASSERT(s == ES_OK);
    memset(&last, 0, sizeof last);
    for (fuzz_sequence q = {data, size}; fuzz_sequence_next(&q);) {
        ProtobufCMessage *m = NULL;
        dm_bytes mended = {0};
        uint64_t id = 0;
        bool whole = dm_decode(&espalier__wire__data_request__descriptor, q.bytes, q.n, &m, &e) == ES_OK;
        if (whole) {
            id = ((dm_data_request *)m)->request_id;
            if (q.tag & 1)
                mend((dm_data_request *)m);
            if ((q.tag & 1) && dm_encode(m, DM_DATA_MAX, &mended, &e) != ES_OK)
                mended = (dm_bytes){0};
        }
        ask(mended.data ? mended.data : q.bytes, mended.data ? mended.n : q.n, whole, id);
        free(mended.data);
        dm_message_free(&m);
    }
    dm_weights_rollback(store);
    return 0;
}
