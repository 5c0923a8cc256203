/* Random search: every architecture drawn uniformly per present choice. The baseline that every other algorithm is shown beside. */
#include "search/algorithm_internal.h"

static void propose(sr_search *s, es_rng *r, sr_arch *out, int64_t *parent)
{
    *parent = -1;
    sr_arch_random(s->problem.space, r, out);
}

static int64_t horizon(const sr_search *s)
{
    return s->told + 1024; /* nothing depends on what was told: far ahead, but bounded */
}

const sr_algorithm sr_algorithm_random = {
    .name = "random",
    .defaults = {.population = 64, .sample = 1, .crossover = 0.9, .restarts_from = 10},
    .propose = propose,
    .horizon = horizon,
};
