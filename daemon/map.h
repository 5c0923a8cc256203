/* map.h - a hash table from 64-bit keys to pointers: leases by job, workers by id.
 *
 *     dm_map m = {0}; dm_map_put(&m, 7, p); dm_map_get(&m, 7) == p; dm_map_remove(&m, 7); dm_map_free(&m);
 *     for (size_t i = 0; (p = dm_map_next(&m, &i)) != NULL;) ...       // no changes while walking, except removing the current key
 *
 * Open addressing with linear probing. Key 0 and NULL values are not allowed. Owns nothing it points to.
 */
#ifndef DM_MAP_H
#define DM_MAP_H

#include "base/status.h"

typedef struct dm_map_slot {
    uint64_t key; /* 0: free */
    void *value;  /* NULL with a key: removed */
} dm_map_slot;
typedef struct dm_map {
    dm_map_slot *slots;
    size_t cap, used, live; /* used counts removed slots too */
} dm_map;

void dm_map_put(dm_map *m, uint64_t key, void *value); /* replaces */
void *dm_map_get(const dm_map *m, uint64_t key);
void dm_map_remove(dm_map *m, uint64_t key);
void *dm_map_next(const dm_map *m, size_t *at);
void dm_map_free(dm_map *m);

#endif
