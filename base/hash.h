/* hash.h - content addresses and ids: BLAKE2b (libsodium).
 *
 *     es_hash h;  es_hash_bytes(data, n, &h);            // 256 bit: weight chunks, versions, data sets
 *     es_id id;   es_id_bytes(text, strlen(text), &id);  // 128 bit: an architecture, from its canonical string
 *     char hex[ES_HASH_HEX]; es_hash_hex(&h, hex);
 */
#ifndef ES_BASE_HASH_H
#define ES_BASE_HASH_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ES_HASH_BYTES = 32, ES_HASH_HEX = 65, ES_ID_BYTES = 16, ES_ID_HEX = 33 };

typedef struct es_hash {
    uint8_t b[ES_HASH_BYTES];
} es_hash;
typedef struct es_id {
    uint8_t b[ES_ID_BYTES];
} es_id;

void es_hash_bytes(const void *data, size_t n, es_hash *out);
void es_id_bytes(const void *data, size_t n, es_id *out);
void es_hash_hex(const es_hash *h, char out[ES_HASH_HEX]);
void es_id_hex(const es_id *id, char out[ES_ID_HEX]);
es_status es_hash_parse(const char *hex, es_hash *out, es_error *err) ES_MUST_CHECK;
bool es_hash_equal(const es_hash *a, const es_hash *b);
bool es_id_equal(const es_id *a, const es_id *b);

/* Incremental form. */
typedef struct es_hasher es_hasher;
es_hasher *es_hasher_new(void);
void es_hasher_add(es_hasher *h, const void *data, size_t n);
void es_hasher_end(es_hasher **h, es_hash *out); /* frees it */

#ifdef __cplusplus
}
#endif
#endif
