/* Local search: White et al. 2021, "Exploring the loss landscape in neural architecture search", arXiv:2005.02960.
 *
 * A round: `restarts_from` random architectures, the best of them is the current one; then its neighbours (one gene changed) in random order; the first that is
 * better becomes the current one and its neighbours are next. When no neighbour is new the round ends and another begins. Up to AHEAD neighbours are out at
 * once. "Better" is sr_row_compare: violation, dominance, then the first objective.
 */
#include "search/algorithm_internal.h"

#include <stdlib.h>

#include "base/arena.h"

enum { AHEAD = 8 };

typedef struct local {
    int64_t current;     /* ticket, or -1 while a round's starting points are out */
    int64_t round_begin; /* first ticket of the round */
} local;

static es_status start(sr_search *s, es_error *err)
{
    local *q = s->state;
    (void)err;
    q->current = -1;
    q->round_begin = 0;
    return ES_OK;
}

/* Draws one of the neighbours of `from` that were not asked yet; false when all were. Neighbours are (choice, option) pairs; what a change makes present gets
 * its first option. */
static bool new_neighbour(const sr_search *s, es_rng *r, const sr_arch *from, sr_arch *out)
{
    const sr_space *sp = s->problem.space;
    int n = sr_space_choices(sp), pairs = 0;
    uint32_t *pair = es_xcalloc((size_t)n * SR_OPTIONS_MAX, sizeof *pair);
    bool found = false;

    for (int i = 0; i < n; i++)
        for (int o = 0; o < sr_space_choice(sp, i)->options && sr_arch_active(sp, from, i); o++)
            if (o != from->gene[i])
                pair[pairs++] = (uint32_t)(i * SR_OPTIONS_MAX + o);
    es_rng_shuffle(r, pair, (size_t)pairs);
    for (int k = 0; k < pairs && !found; k++) {
        sr_arch_copy(out, from);
        out->gene[pair[k] / SR_OPTIONS_MAX] = (uint8_t)(pair[k] % SR_OPTIONS_MAX);
        sr_arch_canonicalise(sp, out);
        found = !sr_was_asked(s, out);
    }
    free(pair);
    return found;
}

static void propose(sr_search *s, es_rng *r, sr_arch *out, int64_t *parent)
{
    local *q = s->state;
    if (q->current >= 0 && new_neighbour(s, r, s->rows[q->current].arch, out)) {
        *parent = q->current;
        return;
    }
    if (q->current >= 0 && s->told == s->asked) { /* a local minimum: all neighbours known, none better */
        q->current = -1;
        q->round_begin = s->asked;
    }
    *parent = -1;
    sr_arch_random(s->problem.space, r, out);
}

static void told(sr_search *s, int64_t ticket)
{
    local *q = s->state;
    if (q->current >= 0) {
        if (sr_row_compare(s, ticket, q->current) < 0)
            q->current = ticket;
        return;
    }
    if (ticket + 1 - q->round_begin < s->options.restarts_from)
        return;
    q->current = ticket;
    for (int64_t t = q->round_begin; t < ticket; t++)
        if (sr_row_compare(s, t, q->current) < 0)
            q->current = t;
}

static int64_t horizon(const sr_search *s)
{
    const local *q = s->state;
    return q->current < 0 ? q->round_begin + s->options.restarts_from : s->told + AHEAD;
}

const sr_algorithm sr_algorithm_local_search = {
    .name = "local-search",
    .defaults = {.population = 64, .sample = 1, .crossover = 0.9, .restarts_from = 10},
    .state_bytes = sizeof(local),
    .start = start,
    .propose = propose,
    .told = told,
    .horizon = horizon,
};
