/* links.h - plans of links (net.h), kept by what they are made of, so that a unit which many subnets have in common is lowered, planned and its products looked up once.
 *
 *     sn_link_plan *p = sn_link_plans_at(t->link_plans, &(sn_link_key){.unit = link->unit, .batch = 512, .calibrates = 1});
 *     if (!p->made)
 *         ES_RETURN(make(t, &p->plan, err));
 *     p->made = true;
 *
 * The key is all that a link's plan depends on while the trainer lives: where in a chain the unit stands is not part of it, but whether it begins or ends one.
 * Random subnets of a space have most of their units in common with some earlier one after a few dozen (mbconv: some 500 different units).
 * At most SN_LINK_PLANS_MAX (searchfile.h) are kept (13 to 20 KB of host memory each, none of a device's); the one not asked for the longest makes room. The table owns the
 * plans; one is valid until SN_LINK_PLANS_MAX - 1 others have been asked for.
 */
#ifndef SN_LINKS_H
#define SN_LINKS_H

#include "base/hash.h"
#include "kernels/plan/plan.h"
#include "supernet/searchfile/searchfile.h"

typedef struct sn_link_key { /* compared as bytes: no padding */
    es_hash unit;
    int32_t batch;
    uint8_t calibrates, first, last, precision;
} sn_link_key;

typedef struct sn_link_plan {
    kn_plan *plan;
    bool made; /* set by the caller */
    sn_link_key key;
    uint64_t asked;
    struct sn_link_plan *next; /* in its bucket */
} sn_link_plan;

typedef struct sn_link_plans sn_link_plans;

sn_link_plans *sn_link_plans_new(void);
void sn_link_plans_destroy(sn_link_plans **p); /* before the device is closed */
sn_link_plan *sn_link_plans_at(sn_link_plans *p, const sn_link_key *key);
int sn_link_plans_count(const sn_link_plans *p);

#endif
