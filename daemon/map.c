#include "daemon/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

static size_t map_home(const dm_map *m, uint64_t key)
{
    key ^= key >> 32;
    key *= 0x9e3779b97f4a7c15ull;
    return (size_t)(key >> 20) & (m->cap - 1);
}

static dm_map_slot *map_find(const dm_map *m, uint64_t key)
{
    for (size_t at = map_home(m, key);; at = (at + 1) & (m->cap - 1))
        if (m->slots[at].key == key || m->slots[at].key == 0)
            return &m->slots[at];
}

static void map_resize(dm_map *m)
{
    dm_map old = *m;
    m->cap = old.live * 4 < 64 ? 64 : old.cap;
    while (m->cap < old.live * 4)
        m->cap *= 2;
    m->slots = es_xcalloc(m->cap, sizeof *m->slots);
    m->used = m->live = 0;
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].key && old.slots[i].value)
            dm_map_put(m, old.slots[i].key, old.slots[i].value);
    free(old.slots);
}

void dm_map_put(dm_map *m, uint64_t key, void *value)
{
    ES_ASSERT(key != 0 && value != NULL);
    if ((m->used + 1) * 2 > m->cap)
        map_resize(m);
    dm_map_slot *s = map_find(m, key);
    m->used += s->key == 0;
    m->live += s->value == NULL;
    s->key = key;
    s->value = value;
}

void *dm_map_get(const dm_map *m, uint64_t key) { return m->cap && key ? map_find(m, key)->value : NULL; }

void dm_map_remove(dm_map *m, uint64_t key)
{
    dm_map_slot *s = m->cap && key ? map_find(m, key) : NULL;
    if (!s || !s->value)
        return;
    s->value = NULL;
    m->live--;
    /* A removed slot at the end of its run is free again, and so are the removed ones before it. */
    size_t at = (size_t)(s - m->slots);
    if (m->slots[(at + 1) & (m->cap - 1)].key != 0)
        return;
    while (m->slots[at].key && !m->slots[at].value) {
        m->slots[at].key = 0;
        m->used--;
        at = (at - 1) & (m->cap - 1);
    }
}

void *dm_map_next(const dm_map *m, size_t *at)
{
    while (*at < m->cap) {
        dm_map_slot *s = &m->slots[(*at)++];
        if (s->key && s->value)
            return s->value;
    }
    return NULL;
}

void dm_map_free(dm_map *m)
{
    free(m->slots);
    memset(m, 0, sizeof *m);
}
