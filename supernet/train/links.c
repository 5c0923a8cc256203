#include "supernet/train/links.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

enum { BUCKETS = 4096 };

struct sn_link_plans {
    sn_link_plan *bucket[BUCKETS], *all[SN_LINK_PLANS_MAX];
    int count;
    uint64_t asked;
};

_Static_assert(sizeof(sn_link_key) == sizeof(es_hash) + 8, "keys are compared as bytes");

sn_link_plans *sn_link_plans_new(void) { return es_xcalloc(1, sizeof(sn_link_plans)); }

void sn_link_plans_destroy(sn_link_plans **pp)
{
    sn_link_plans *p = *pp;
    if (!p)
        return;
    for (int i = 0; i < p->count; i++) {
        kn_plan_destroy(&p->all[i]->plan);
        free(p->all[i]);
    }
    free(p);
    *pp = NULL;
}

int sn_link_plans_count(const sn_link_plans *p) { return p->count; }

/* The unit's hash is as good a number as any; what else differs is stirred in. */
static sn_link_plan **bucket_of(sn_link_plans *p, const sn_link_key *k)
{
    uint64_t h;
    memcpy(&h, k->unit.b, sizeof h);
    h ^= (uint64_t)(uint32_t)k->batch * 0x9E3779B97F4A7C15ull;
    h ^= (uint64_t)(k->calibrates | k->first << 1 | k->last << 2 | k->precision << 3) << 5;
    return &p->bucket[h % BUCKETS];
}

/* A new entry, or the one not asked for the longest, taken out of its bucket. */
static sn_link_plan *room(sn_link_plans *p)
{
    if (p->count < SN_LINK_PLANS_MAX)
        return p->all[p->count++] = es_xcalloc(1, sizeof(sn_link_plan));
    sn_link_plan *oldest = p->all[0];
    for (int i = 1; i < p->count; i++)
        if (p->all[i]->asked < oldest->asked)
            oldest = p->all[i];
    sn_link_plan **at = bucket_of(p, &oldest->key);
    while (*at != oldest)
        at = &(*at)->next;
    *at = oldest->next;
    return oldest;
}

sn_link_plan *sn_link_plans_at(sn_link_plans *p, const sn_link_key *key)
{
    sn_link_plan **head = bucket_of(p, key), *e = *head;
    while (e && memcmp(&e->key, key, sizeof *key) != 0)
        e = e->next;
    if (!e) {
        e = room(p);
        e->key = *key;
        e->made = false;
        e->next = *head;
        *head = e;
    }
    e->asked = ++p->asked;
    return e;
}
