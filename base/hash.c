#include "base/hash.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

_Static_assert(sizeof(es_hash) == ES_HASH_BYTES && sizeof(es_id) == ES_ID_BYTES, "hashes are their bytes");

struct es_hasher {
    crypto_generichash_blake2b_state state; /* aligned to 64 by its own type */
};

void es_hash_bytes(const void *data, size_t n, es_hash *out)
{
    crypto_generichash_blake2b(out->b, sizeof out->b, data, n, NULL, 0);
}

void es_id_bytes(const void *data, size_t n, es_id *out)
{
    crypto_generichash_blake2b(out->b, sizeof out->b, data, n, NULL, 0);
}

void es_hash_hex(const es_hash *h, char out[ES_HASH_HEX]) { sodium_bin2hex(out, ES_HASH_HEX, h->b, sizeof h->b); }

void es_id_hex(const es_id *id, char out[ES_ID_HEX]) { sodium_bin2hex(out, ES_ID_HEX, id->b, sizeof id->b); }

es_status es_hash_parse(const char *hex, es_hash *out, es_error *err)
{
    size_t len = 0, n = strlen(hex);
    es_hash h;
    if (n != 2 * ES_HASH_BYTES || sodium_hex2bin(h.b, sizeof h.b, hex, n, NULL, &len, NULL) != 0 || len != sizeof h.b)
        return es_fail(err, ES_INVALID, NULL, "\"%.80s\" is not a content hash: %d hexadecimal digits expected", hex,
                       2 * ES_HASH_BYTES);
    *out = h;
    return ES_OK;
}

bool es_hash_equal(const es_hash *a, const es_hash *b) { return memcmp(a->b, b->b, sizeof a->b) == 0; }

bool es_id_equal(const es_id *a, const es_id *b) { return memcmp(a->b, b->b, sizeof a->b) == 0; }

es_hasher *es_hasher_new(void)
{
    es_hasher *h = aligned_alloc(64, (sizeof *h + 63) & ~(size_t)63);
    ES_ASSERT(h != NULL); /* a few hundred bytes, as es_xcalloc */
    crypto_generichash_blake2b_init(&h->state, NULL, 0, ES_HASH_BYTES);
    return h;
}

void es_hasher_add(es_hasher *h, const void *data, size_t n) { crypto_generichash_blake2b_update(&h->state, data, n); }

void es_hasher_end(es_hasher **h, es_hash *out)
{
    crypto_generichash_blake2b_final(&(*h)->state, out->b, sizeof out->b);
    free(*h);
    *h = NULL;
}
