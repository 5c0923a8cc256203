/* version.h - a weights version in memory: named arrays plus a small JSON of state; what checkpoints, exports and the store exchange.
 *
 *     sn_version *v = sn_version_new("supernet");
 *     sn_version_add(v, "values", KN_F32, &shape, host_floats, err);      // copies
 *     sn_version_meta(v, "{\"step\": 400}");
 *     sn_version_write_safetensors(v, "weights.safetensors", err);         // a file that any safetensors reader opens
 *
 * The store (daemon) and the wire cut arrays into chunks of at most SN_CHUNK_BYTES, addressed by their BLAKE2b-256: two versions share the chunks that did not
 * change. Arrays are kept in the order of their names (bytes), each name once: the same content is the same version however it was put together.
 *
 * In a safetensors file (https://github.com/huggingface/safetensors: a length, a JSON head, the bytes) the kind and the meta are the entries "kind" and "espalier" of
 * `__metadata__`. A scalar is written with the empty shape. Files of others are read as long as their element types are ours: F32, BF16, I32, U8.
 */
#ifndef SN_VERSION_H
#define SN_VERSION_H

#include "kernels/tensor/tensor.h"

enum { SN_CHUNK_BYTES = 1 << 20 };

typedef struct sn_array {
    char name[160];
    kn_dtype dtype;
    kn_shape shape;
    size_t bytes;
    void *data;
} sn_array;
typedef struct sn_version {
    char kind[16];
    char *meta;
    int count;
    sn_array *arrays;
} sn_version; /* meta: NULL or JSON */

sn_version *sn_version_new(const char *kind);
void sn_version_destroy(sn_version **v);
es_status sn_version_add(sn_version *v, const char *name, kn_dtype t, const kn_shape *shape, const void *data,
                         es_error *err) ES_MUST_CHECK;
void sn_version_meta(sn_version *v, const char *json);
const sn_array *sn_version_find(const sn_version *v, const char *name);
bool sn_version_equal(const sn_version *a, const sn_version *b); /* kind, meta, and every byte of every array */
es_status sn_version_write_safetensors(const sn_version *v, const char *path, es_error *err) ES_MUST_CHECK;
es_status sn_version_read_safetensors(const char *path, sn_version **out, es_error *err) ES_MUST_CHECK;
/* The file as bytes (caller frees), and back; `name` is for messages. */
es_status sn_safetensors_format(const sn_version *v, char **bytes, size_t *size, es_error *err) ES_MUST_CHECK;
es_status sn_safetensors_parse(const char *name, const void *bytes, size_t size, sn_version **out,
                               es_error *err) ES_MUST_CHECK;

#endif
