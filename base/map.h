/* map.h - a hash table from 64-bit keys to pointers: such as leases by job, workers by id.
 *
 *     es_map m = {0}; es_map_put(&m, 7, p); es_map_get(&m, 7) == p; es_map_remove(&m, 7); es_map_free(&m);
 *     for (size_t i = 0; (p = es_map_next(&m, &i)) != NULL;) ...       // no changes while walking, except removing the current key
 *
 * Open addressing with linear probing. Key 0 and NULL values are not allowed. Owns nothing it points to.
 */
#ifndef ES_MAP_H
#define ES_MAP_H

#include "base/status.h"

typedef struct es_map_slot {
    uint64_t key; /* 0: free */
    void *value;  /* NULL with a key: removed */
} es_map_slot;
typedef struct es_map {
    es_map_slot *slots;
    size_t cap, used, live; /* used counts removed slots too */
} es_map;

void es_map_put(es_map *m, uint64_t key, void *value); /* replaces */
void *es_map_get(const es_map *m, uint64_t key);
void es_map_remove(es_map *m, uint64_t key);
void *es_map_next(const es_map *m, size_t *at);
void es_map_free(es_map *m);

#endif
