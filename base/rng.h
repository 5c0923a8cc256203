/* rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 *
 * Every random number in Espalier is a function of (seed, use, step, index), never of what was drawn before by somebody else:
 * that is what makes a resumed run see what an unbroken one would, and a GPU kernel draw what the CPU reference draws.
 *
 *     es_rng r = es_rng_make(seed, ES_USE_SAMPLE_SUBNET, step);     // a stream
 *     uint32_t k = es_rng_below(&r, 3);
 *     float u = es_rng_uniform(&r);
 *     uint32_t v[4]; es_philox(seed, ES_USE_DROPOUT, step, index, v);   // random access
 *
 * A stream's whole state is the struct: copy it to save it.
 */
#ifndef ES_BASE_RNG_H
#define ES_BASE_RNG_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a number is used for. Values are fixed for ever: they are part of every reproducible result. Append only. */
typedef enum es_use {
    ES_USE_TEST = 0,
    ES_USE_INIT = 1,
    ES_USE_SHUFFLE = 2,
    ES_USE_AUGMENT = 3,
    ES_USE_DROPOUT = 4,
    ES_USE_SAMPLE_SUBNET = 5,
    ES_USE_SEARCH = 6,
    ES_USE_SPLIT = 7,
    ES_USE_BACKOFF = 8,
    ES_USE_BOOTSTRAP = 9,
} es_use;

/* One block of four numbers. Key words = (seed lo, seed hi); counter words = (index lo, index hi ^ use << 24, step lo, step hi). */
void es_philox(uint64_t seed, es_use use, uint64_t step, uint64_t index, uint32_t out[4]);

typedef struct es_rng {
    uint64_t seed, step, index;
    uint32_t use;
    uint32_t have; /* numbers left in block[] */
    uint32_t block[4];
} es_rng;

es_rng es_rng_make(uint64_t seed, es_use use, uint64_t step);
uint32_t es_rng_u32(es_rng *r);
uint64_t es_rng_u64(es_rng *r);
uint32_t es_rng_below(es_rng *r, uint32_t n);              /* unbiased, n >= 1 */
float es_rng_uniform(es_rng *r);                           /* [0, 1), 24 bits */
double es_rng_uniform_f64(es_rng *r);                      /* [0, 1), 53 bits */
float es_rng_normal(es_rng *r);                            /* N(0, 1), Box-Muller */
void es_rng_shuffle(es_rng *r, uint32_t *items, size_t n); /* Fisher-Yates */

/* Derives an independent seed, e.g. one per search or per module, from a parent and a label. */
uint64_t es_seed_derive(uint64_t seed, const char *label);

#ifdef __cplusplus
}
#endif
#endif
