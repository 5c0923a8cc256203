/* Layout of the 128-bit counter: words 0 and 1 are the index with the use in its top 8 bits, words 2 and 3 the step. Two uses can therefore
 * never meet, and an index runs to 2^56 blocks. Fixed for ever: every reproducible result depends on it. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"

static const uint32_t PHILOX_M0 = 0xD2511F53,
                      PHILOX_M1 = 0xCD9E8D57; /* multipliers and key increments: table 2 of the paper */
static const uint32_t PHILOX_W0 = 0x9E3779B9, PHILOX_W1 = 0xBB67AE85;

/* Ten rounds on a raw counter and key; es_philox arranges them. */
static void philox4x32_10(const uint32_t ctr[4], uint32_t k0, uint32_t k1, uint32_t out[4])
{
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0, p1 = (uint64_t)PHILOX_M1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void es_philox(uint64_t seed, es_use use, uint64_t step, uint64_t index, uint32_t out[4])
{
    uint64_t low = index ^ ((uint64_t)(uint32_t)use << 56);
    uint32_t ctr[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)step, (uint32_t)(step >> 32)};
    philox4x32_10(ctr, (uint32_t)seed, (uint32_t)(seed >> 32), out);
}

es_rng es_rng_make(uint64_t seed, es_use use, uint64_t step)
{
    es_rng r;
    memset(&r, 0, sizeof r);
    r.seed = seed;
    r.step = step;
    r.use = (uint32_t)use;
    return r;
}

uint32_t es_rng_u32(es_rng *r)
{
    if (r->have == 0) {
        es_philox(r->seed, (es_use)r->use, r->step, r->index++, r->block);
        r->have = 4;
    }
    return r->block[4 - r->have--];
}

uint64_t es_rng_u64(es_rng *r)
{
    uint64_t low = es_rng_u32(r);
    return low | (uint64_t)es_rng_u32(r) << 32;
}

/* Lemire, "Fast random integer generation in an interval", ACM TOMACS 2019, algorithm 5. */
uint32_t es_rng_below(es_rng *r, uint32_t n)
{
    ES_ASSERT(n >= 1);
    uint64_t m = (uint64_t)es_rng_u32(r) * n;
    if ((uint32_t)m < n) {
        uint32_t threshold = -n % n;
        while ((uint32_t)m < threshold)
            m = (uint64_t)es_rng_u32(r) * n;
    }
    return (uint32_t)(m >> 32);
}

float es_rng_uniform(es_rng *r) { return (float)(es_rng_u32(r) >> 8) * 0x1p-24f; }

double es_rng_uniform_f64(es_rng *r) { return (double)(es_rng_u64(r) >> 11) * 0x1p-53; }

/* One normal from two numbers, the second of the pair is not kept: the struct stays the whole state. Computed in double, because the
 * float versions of log and cos differ between libraries. */
float es_rng_normal(es_rng *r)
{
    double u = ((double)es_rng_u32(r) + 0.5) * 0x1p-32, v = (double)es_rng_u32(r) * 0x1p-32;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

void es_rng_shuffle(es_rng *r, uint32_t *items, size_t n)
{
    ES_ASSERT(n <= UINT32_MAX);
    for (size_t i = n; i > 1; i--) {
        size_t j = es_rng_below(r, (uint32_t)i);
        uint32_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}

uint64_t es_seed_derive(uint64_t seed, const char *label)
{
    es_hasher *h = es_hasher_new();
    uint8_t le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)(seed >> (8 * i));
    es_hasher_add(h, le, sizeof le);
    es_hasher_add(h, label, strlen(label));
    es_hash sum;
    es_hasher_end(&h, &sum);
    uint64_t out = 0;
    for (int i = 0; i < 8; i++)
        out |= (uint64_t)sum.b[i] << (8 * i);
    return out;
}
