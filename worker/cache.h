/* cache.h - weights chunks kept on a worker's disk, one file each, named by hash; bounded in bytes, least recently used files go first.
 *
 *     wk_cache *c; wk_cache_open("/var/cache/espalier", 4 << 30, &c, err);
 *     dm_transfer_options o = {.cache = wk_cache_chunks(c)};
 *
 * Only a convenience: a damaged or missing file is a miss (dm_weights_get checks every hash), a full disk only means that nothing is kept.
 */
#ifndef WK_CACHE_H
#define WK_CACHE_H

#include "daemon/wire/transfer.h"

typedef struct wk_cache wk_cache;
es_status wk_cache_open(const char *dir, uint64_t bytes_max, wk_cache **out, es_error *err) ES_MUST_CHECK;
void wk_cache_close(wk_cache **c);
dm_chunk_cache wk_cache_chunks(wk_cache *c); /* c NULL: no cache */
uint64_t wk_cache_bytes(const wk_cache *c);

#endif
