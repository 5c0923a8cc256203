#include "base/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

static size_t map_home(const es_map *m, uint64_t key)
{
    key ^= key >> 32;
    key *= 0x9e3779b97f4a7c15ull;
    return (size_t)(key >> 20) & (m->cap - 1);
}

static es_map_slot *map_find(const es_map *m, uint64_t key)
{
    for (size_t at = map_home(m, key);; at = (at + 1) & (m->cap - 1))
        if (m->slots[at].key == key || m->slots[at].key == 0)
            return &m->slots[at];
}

static void map_resize(es_map *m)
{
    es_map old = *m;
    m->cap = old.live * 4 < 64 ? 64 : old.cap;
    while (m->cap < old.live * 4)
        m->cap *= 2;
    m->slots = es_xcalloc(m->cap, sizeof *m->slots);
    m->used = m->live = 0;
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].key && old.slots[i].value)
            es_map_put(m, old.slots[i].key, old.slots[i].value);
    free(old.slots);
}

void es_map_put(es_map *m, uint64_t key, void *value)
{
    ES_ASSERT(key != 0 && value != NULL);
    if ((m->used + 1) * 2 > m->cap)
        map_resize(m);
    es_map_slot *s = map_find(m, key);
    m->used += s->key == 0;
    m->live += s->value == NULL;
    s->key = key;
    s->value = value;
}

void *es_map_get(const es_map *m, uint64_t key) { return m->cap && key ? map_find(m, key)->value : NULL; }

void es_map_remove(es_map *m, uint64_t key)
{
    es_map_slot *s = m->cap && key ? map_find(m, key) : NULL;
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

void *es_map_next(const es_map *m, size_t *at)
{
    while (*at < m->cap) {
        es_map_slot *s = &m->slots[(*at)++];
        if (s->key && s->value)
            return s->value;
    }
    return NULL;
}

void es_map_free(es_map *m)
{
    free(m->slots);
    memset(m, 0, sizeof *m);
}
