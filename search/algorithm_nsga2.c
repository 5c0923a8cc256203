/* NSGA-II: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", for categorical genes.
 *
 * Generations of `population` tickets. The first is random, with the smallest and the largest architecture put in (they pin the ends of the front in a
 * supernet search). When a generation is told, parents and children are merged and the best `population` kept by (constraint-dominated front, crowding). Children:
 * two parents by binary tournament (front, then crowding), uniform crossover with probability `crossover`, mutation per gene. A generation is not started
 * before the one before it is told.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "search/algorithm_internal.h"

typedef struct nsga2 {
    int count;       /* survivors */
    int64_t *member; /* their tickets */
    int *rank;
    double *crowding;
} nsga2;

static es_status start(sr_search *s, es_error *err)
{
    nsga2 *q = s->state;
    size_t n = (size_t)s->options.population;
    (void)err;
    q->member = es_xcalloc(n, sizeof *q->member);
    q->rank = es_xcalloc(n, sizeof *q->rank);
    q->crowding = es_xcalloc(n, sizeof *q->crowding);
    return ES_OK;
}

static void stop(sr_search *s)
{
    nsga2 *q = s->state;
    free(q->member);
    free(q->rank);
    free(q->crowding);
}

static int tournament(const nsga2 *q, es_rng *r)
{
    int a = (int)es_rng_below(r, (uint32_t)q->count), b = (int)es_rng_below(r, (uint32_t)q->count);
    if (q->rank[a] != q->rank[b])
        return q->rank[a] < q->rank[b] ? a : b;
    return q->crowding[a] >= q->crowding[b] ? a : b;
}

static void propose(sr_search *s, es_rng *r, sr_arch *out, int64_t *parent)
{
    const nsga2 *q = s->state;
    const sr_space *sp = s->problem.space;

    *parent = -1;
    if (q->count == 0) {
        if (s->asked == 0)
            sr_arch_smallest(sp, out);
        else if (s->asked == 1)
            sr_arch_largest(sp, out);
        else
            sr_arch_random(sp, r, out);
        return;
    }
    const sr_arch *a = s->rows[q->member[tournament(q, r)]].arch, *b = s->rows[q->member[tournament(q, r)]].arch;
    sr_arch *child = sr_arch_new(sp);
    if (es_rng_uniform_f64(r) < s->options.crossover)
        sr_arch_crossover(sp, r, a, b, child);
    else
        sr_arch_copy(child, a);
    sr_arch_mutate(sp, r, sr_mutation_rate(s, child), child, out);
    free(child);
}

typedef struct candidate {
    int64_t ticket;
    int rank;
    double crowding;
} candidate;

static int by_fitness(const void *pa, const void *pb)
{
    const candidate *a = pa, *b = pb;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->crowding != b->crowding)
        return a->crowding > b->crowding ? -1 : 1;
    return a->ticket < b->ticket ? -1 : a->ticket > b->ticket;
}

static void rate(const sr_search *s, candidate *c, int n)
{
    int m = s->problem.objectives;
    double *value = es_xcalloc((size_t)n * (size_t)m, sizeof *value),
           *violation = es_xcalloc((size_t)n, sizeof *violation);
    double *distance = es_xcalloc((size_t)n, sizeof *distance);
    int *rank = es_xcalloc((size_t)n, sizeof *rank), *front = es_xcalloc((size_t)n, sizeof *front), left = n;

    for (int i = 0; i < n; i++) {
        memcpy(value + (size_t)i * (size_t)m, s->rows[c[i].ticket].value, (size_t)m * sizeof *value);
        violation[i] = s->rows[c[i].ticket].violation;
    }
    sr_rank_fronts(value, violation, n, m, rank);
    for (int level = 0; left > 0; level++) {
        int k = 0;
        for (int i = 0; i < n; i++)
            if (rank[i] == level)
                front[k++] = i;
        sr_crowding(value, front, k, m, distance);
        for (int i = 0; i < k; i++) {
            c[front[i]].rank = level;
            c[front[i]].crowding = isnan(distance[i]) ? 0 : distance[i];
        }
        left -= k;
    }
    free(value);
    free(violation);
    free(distance);
    free(rank);
    free(front);
}

/* The generation [first, end) joins the survivors; the best `population` stay. */
static void select_survivors(sr_search *s, int64_t first, int64_t end)
{
    nsga2 *q = s->state;
    int n = q->count + (int)(end - first);
    candidate *c = es_xcalloc((size_t)n, sizeof *c);
    for (int i = 0; i < q->count; i++)
        c[i].ticket = q->member[i];
    for (int64_t t = first; t < end; t++)
        c[q->count + (int)(t - first)].ticket = t;
    rate(s, c, n);
    qsort(c, (size_t)n, sizeof *c, by_fitness);
    q->count = n < s->options.population ? n : s->options.population;
    for (int i = 0; i < q->count; i++) {
        q->member[i] = c[i].ticket;
        q->rank[i] = c[i].rank;
        q->crowding[i] = c[i].crowding;
    }
    free(c);
}

static void told(sr_search *s, int64_t ticket)
{
    int64_t size = s->options.population;
    if ((ticket + 1) % size == 0)
        select_survivors(s, ticket + 1 - size, ticket + 1);
}

static int64_t horizon(const sr_search *s)
{
    int64_t size = s->options.population;
    return (s->told / size + 1) * size;
}

const sr_algorithm sr_algorithm_nsga2 = {
    .name = "nsga2",
    .defaults = {.population = 64, .sample = 2, .crossover = 0.9, .restarts_from = 10},
    .state_bytes = sizeof(nsga2),
    .start = start,
    .stop = stop,
    .propose = propose,
    .told = told,
    .horizon = horizon,
};
