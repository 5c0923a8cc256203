/* Simulated annealing: Kirkpatrick et al. 1983, "Optimization by simulated annealing", on one-gene neighbours of the current architecture.
 *
 * A better row (sr_row_compare) always becomes the current one; a worse one with probability exp(-difference / temperature), the difference in the first objective
 * relative to the spread seen so far, the temperature falling linearly to 0 over the budget. Up to AHEAD neighbours are out at once.
 */
#include <math.h>

#include "search/algorithm_internal.h"

enum { AHEAD = 4 };
static const double START_TEMPERATURE = 0.1;

typedef struct annealing {
    int64_t current; /* ticket + 1; 0: none yet */
    double low, high;
} annealing;

static void propose(sr_search *s, es_rng *r, sr_arch *out, int64_t *parent)
{
    const annealing *q = s->state;
    *parent = q->current - 1;
    if (q->current == 0)
        sr_arch_random(s->problem.space, r, out);
    else
        sr_arch_mutate(s->problem.space, r, 0, s->rows[q->current - 1].arch, out);
}

static void told(sr_search *s, int64_t ticket)
{
    annealing *q = s->state;
    const sr_row *row = &s->rows[ticket];
    if (row->violation == INFINITY)
        return;
    q->low = q->current ? fmin(q->low, row->value[0]) : row->value[0];
    q->high = q->current ? fmax(q->high, row->value[0]) : row->value[0];
    if (q->current == 0 || sr_row_compare(s, ticket, q->current - 1) <= 0) {
        q->current = ticket + 1;
        return;
    }
    /* Its own stream: asks use step = ticket, this the upper half of the steps. */
    es_rng r = es_rng_make(s->seed, ES_USE_SEARCH, (uint64_t)ticket | (uint64_t)1 << 63);
    double worse = (row->value[0] - s->rows[q->current - 1].value[0]) / fmax(q->high - q->low, 1e-12);
    double temperature = START_TEMPERATURE * (1 - (double)s->told / (double)s->budget);
    if (row->violation == 0 && temperature > 0 && es_rng_uniform_f64(&r) < exp(-fmax(worse, 0) / temperature))
        q->current = ticket + 1;
}

static int64_t horizon(const sr_search *s) { return s->told + AHEAD; }

const sr_algorithm sr_algorithm_simulated_annealing = {
    .name = "simulated-annealing",
    .defaults = {.population = 64, .sample = 1, .crossover = 0.9, .restarts_from = 10},
    .state_bytes = sizeof(annealing),
    .propose = propose,
    .told = told,
    .horizon = horizon,
};
