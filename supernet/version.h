/* version.h - a weights version in memory: named arrays plus a small JSON of state; what checkpoints, exports and the store exchange.
 *
 *     sn_version *v = sn_version_new("supernet");
 *     sn_version_add(v, "values", KN_F32, &shape, host_floats, err);      // copies
 *     sn_version_meta(v, "{\"step\": 400}");
 *
 * The store (daemon) and the wire cut arrays into chunks of at most SN_CHUNK_BYTES, addressed by their BLAKE2b-256: two versions share the chunks that did not
 * change. sn_version_write_safetensors writes a file that any safetensors reader opens.
 */
#ifndef SN_VERSION_H
#define SN_VERSION_H

#include "kernels/tensor.h"

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
} sn_version;

sn_version *sn_version_new(const char *kind);
void sn_version_destroy(sn_version **v);
es_status sn_version_add(sn_version *v, const char *name, kn_dtype t, const kn_shape *shape, const void *data,
                         es_error *err) ES_MUST_CHECK;
void sn_version_meta(sn_version *v, const char *json);
const sn_array *sn_version_find(const sn_version *v, const char *name);
es_status sn_version_write_safetensors(const sn_version *v, const char *path, es_error *err) ES_MUST_CHECK;
es_status sn_version_read_safetensors(const char *path, sn_version **out, es_error *err) ES_MUST_CHECK;

#endif
