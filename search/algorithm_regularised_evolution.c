/* Regularised (ageing) evolution: Real et al. 2019, "Regularized evolution for image classifier architecture search", arXiv:1802.01548.
 *
 * The population is the last `population` told rows: the oldest leaves whatever its worth. Each child is a mutation of the best of `sample`
 * members drawn without replacement. Asynchronous as in the paper: up to AHEAD children are out at once, bred from what is known then. With several
 * objectives "best" is sr_row_compare: violation, dominance, then the first objective.
 */
#include "search/algorithm_internal.h"

enum { AHEAD = 8 };

static void propose(sr_search *s, es_rng *r, sr_arch *out, int64_t *parent)
{
    int64_t population = s->options.population;
    if (s->asked < population || s->told == 0) {
        *parent = -1;
        sr_arch_random(s->problem.space, r, out);
        return;
    }
    int64_t members = s->told < population ? s->told : population, first = s->told - members;
    int64_t sample = s->options.sample < members ? s->options.sample : members, best = -1;
    /* Selection sampling (Knuth 3.4.2, algorithm S): `sample` of `members` without replacement in one pass. */
    for (int64_t i = 0, need = sample; i < members && need > 0; i++)
        if (es_rng_uniform_f64(r) * (double)(members - i) < (double)need) {
            need--;
            if (best < 0 || sr_row_compare(s, first + i, best) < 0)
                best = first + i;
        }
    if (best < 0)
        best = s->told - 1;
    *parent = best;
    sr_arch_mutate(s->problem.space, r, sr_mutation_rate(s, s->rows[best].arch), s->rows[best].arch, out);
}

static int64_t horizon(const sr_search *s)
{
    int64_t ahead = s->told + AHEAD;
    return ahead > s->options.population ? ahead : s->options.population;
}

const sr_algorithm sr_algorithm_regularised_evolution = {
    .name = "regularised-evolution",
    .defaults = {.population = 100, .sample = 25, .crossover = 0.9, .restarts_from = 10},
    .propose = propose,
    .horizon = horizon,
};
