#include "search/algorithm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "search/algorithm_internal.h"

/* The table: one line an algorithm, each in its own file algorithm_<name>.c. */
#define SR_ALGORITHMS(X)     \
    X(random)                \
    X(regularised_evolution) \
    X(nsga2)                 \
    X(local_search)          \
    X(simulated_annealing)

#define X(name) extern const sr_algorithm sr_algorithm_##name;
SR_ALGORITHMS(X)
#undef X
#define X(name) &sr_algorithm_##name,
static const sr_algorithm *const table[] = {SR_ALGORITHMS(X)};
#undef X
enum { ALGORITHMS = sizeof table / sizeof *table };

const char *const *sr_algorithm_names(void)
{
    static const char *names[ALGORITHMS + 1];
    for (int i = 0; i < ALGORITHMS; i++)
        names[i] = table[i]->name;
    return names;
}

static const sr_algorithm *find(const char *name)
{
    for (int i = 0; i < ALGORITHMS; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}

sr_options sr_options_default(const char *algorithm)
{
    const sr_algorithm *a = find(algorithm);
    return a ? a->defaults : (sr_options){0};
}

static es_status check_options(const sr_options *o, const sr_problem *p, es_error *err)
{
    if (p->evaluations < 1 || p->evaluations > 100000000)
        return es_fail(err, ES_INVALID, "search.evaluations", "%lld is not in 1 to 100,000,000",
                       (long long)p->evaluations);
    if (p->objectives < 1 || p->objectives > SR_OBJECTIVES_MAX)
        return es_fail(err, ES_INVALID, "objectives", "%d given, 1 to %d are allowed", p->objectives,
                       SR_OBJECTIVES_MAX);
    if (o->population < 2 || o->population > 100000)
        return es_fail(err, ES_INVALID, "search.population", "%d is not in 2 to 100,000", o->population);
    if (o->sample < 1 || o->sample > o->population)
        return es_fail(err, ES_INVALID, "search.sample", "%d is not in 1 to population (%d)", o->sample, o->population);
    if (!(o->mutation >= 0 && o->mutation <= 1))
        return es_fail(err, ES_INVALID, "search.mutation", "%g is not in 0 to 1", o->mutation);
    if (!(o->crossover >= 0 && o->crossover <= 1))
        return es_fail(err, ES_INVALID, "search.crossover", "%g is not in 0 to 1", o->crossover);
    if (o->restarts_from < 1 || o->restarts_from > 100000)
        return es_fail(err, ES_INVALID, "search.restarts_from", "%d is not in 1 to 100,000", o->restarts_from);
    return ES_OK;
}

es_status sr_search_new(const char *algorithm, const sr_options *o, const sr_problem *p, uint64_t seed, sr_search **out,
                        es_error *err)
{
    const sr_algorithm *a = find(algorithm);
    es_status s = ES_OK;
    sr_search *q = NULL;

    *out = NULL;
    if (!a)
        return es_fail(err, ES_INVALID, "search.algorithm", "\"%s\" is not an algorithm", algorithm);
    ES_RETURN(check_options(o, p, err));
    q = es_xcalloc(1, sizeof *q);
    q->algorithm = a;
    q->options = *o;
    q->problem = *p;
    q->seed = seed;
    q->budget = p->evaluations;
    uint64_t size;
    if (sr_space_count(p->space, &size) && size < (uint64_t)q->budget)
        q->budget = (int64_t)size;
    size_t slots = 16;
    while (slots < (size_t)q->budget * 2)
        slots *= 2;
    q->seen_mask = slots - 1;
    q->rows = calloc((size_t)q->budget, sizeof *q->rows);
    q->seen = malloc(slots * sizeof *q->seen);
    q->state = es_xcalloc(1, a->state_bytes ? a->state_bytes : 1);
    if (!q->rows || !q->seen) {
        s = es_fail(err, ES_NO_MEMORY, "search.evaluations", "no memory for %lld rows", (long long)q->budget);
        goto fail;
    }
    memset(q->seen, 0xff, slots * sizeof *q->seen);
    if (a->start)
        ES_GOTO(a->start(q, err));
    *out = q;
    q = NULL;
fail:
    sr_search_destroy(&q);
    return s;
}

void sr_search_destroy(sr_search **sp)
{
    sr_search *s = *sp;
    if (!s)
        return;
    if (s->algorithm->stop)
        s->algorithm->stop(s);
    for (int64_t i = 0; s->rows && i < s->asked; i++)
        free(s->rows[i].arch);
    free(s->rows);
    free(s->seen);
    free(s->state);
    free(s);
    *sp = NULL;
}

static size_t gene_slot(const sr_arch *a)
{
    uint64_t h = 1469598103934665603ull;
    for (int i = 0; i < a->n; i++)
        h = (h ^ a->gene[i]) * 1099511628211ull;
    return (size_t)(h ^ h >> 29);
}

static int32_t *seen_slot(sr_search *s, const sr_arch *a)
{
    for (size_t k = gene_slot(a);; k++) {
        int32_t *slot = &s->seen[k & s->seen_mask];
        if (*slot < 0 || sr_arch_equal(s->rows[*slot].arch, a))
            return slot;
    }
}

bool sr_was_asked(const sr_search *s, const sr_arch *a)
{
    for (size_t k = gene_slot(a);; k++) {
        int32_t ticket = s->seen[k & s->seen_mask];
        if (ticket < 0 || sr_arch_equal(s->rows[ticket].arch, a))
            return ticket >= 0;
    }
}

static double limit_violation(const sr_constraint *c, double v)
{
    /* Relative, so that parameters (millions) and accuracies (fractions) weigh alike when several are broken. */
    double scale_max = fabs(c->max) > 0 && isfinite(c->max) ? fabs(c->max) : 1;
    double scale_min = fabs(c->min) > 0 && isfinite(c->min) ? fabs(c->min) : 1;
    if (isnan(v))
        return INFINITY;
    if (v > c->max)
        return (v - c->max) / scale_max;
    return v < c->min ? (c->min - v) / scale_min : 0;
}

/* How far the known costs are outside their limits; *worst is the constraint broken most, *value its cost. */
static double known_violation(const sr_search *s, const sr_arch *a, int *worst, double *value)
{
    double cost[SR_CONSTRAINTS_MAX + SR_OBJECTIVES_MAX] = {0}, sum = 0, most = 0;
    const sr_problem *p = &s->problem;
    bool any = false;
    for (int i = 0; i < p->constraints; i++)
        any |= p->constraint[i].cost >= 0;
    if (!any)
        return 0;
    ES_ASSERT(p->costs && p->n_costs <= SR_CONSTRAINTS_MAX + SR_OBJECTIVES_MAX);
    p->costs(p->ctx, a, cost);
    for (int i = 0; i < p->constraints; i++) {
        const sr_constraint *c = &p->constraint[i];
        double v = c->cost >= 0 ? limit_violation(c, cost[c->cost]) : 0;
        sum += v;
        if (v > most) {
            most = v;
            *worst = i;
            *value = cost[c->cost];
        }
    }
    return sum;
}

/* Walks downhill in violation by single-gene mutations: most of a large space may be infeasible, its small corner is not. */
static double repair(sr_search *s, es_rng *r, sr_arch *a, int tries, int *left)
{
    int worst = 0;
    double value = 0, now = known_violation(s, a, &worst, &value);
    sr_arch *b = sr_arch_new(s->problem.space);
    for (int i = 0; i < tries && now > 0 && *left > 0; i++, --*left) {
        sr_arch_mutate(s->problem.space, r, 0, a, b);
        double v = known_violation(s, b, &worst, &value);
        if (v <= now) {
            now = v;
            sr_arch_copy(a, b);
        }
    }
    free(b);
    return now;
}

/* Small spaces: walk the whole enumeration from a random place, so that "nothing left" is a fact and not a guess. */
static bool scan(sr_search *s, es_rng *r, sr_arch *out)
{
    uint64_t size;
    int worst;
    double value;
    if (!sr_space_count(s->problem.space, &size) || size > 2000000)
        return false;
    uint64_t start = es_rng_u64(r) % size;
    for (uint64_t i = 0; i < size; i++) {
        sr_arch_nth(s->problem.space, (start + i) % size, out);
        if (*seen_slot(s, out) < 0 && known_violation(s, out, &worst, &value) == 0)
            return true;
    }
    return false;
}

static es_status infeasible(sr_search *s, const sr_arch *closest, es_error *err)
{
    int worst = 0;
    double value = 0;
    known_violation(s, closest, &worst, &value);
    const sr_constraint *c = &s->problem.constraint[worst];
    if (value > c->max)
        return es_fail(err, ES_INFEASIBLE, "constraints",
                       "no architecture of the space has %s <= %.15g: the closest found has %.15g", c->name, c->max,
                       value);
    return es_fail(err, ES_INFEASIBLE, "constraints",
                   "no architecture of the space has %s >= %.15g: the closest found has %.15g", c->name, c->min, value);
}

/* A new feasible architecture into `out`: first what the algorithm proposes, then mutations of it, then random draws, then (small spaces) a scan. */
static es_status find_new(sr_search *s, es_rng *r, sr_arch *out, int64_t *parent, es_error *err)
{
    enum { PROPOSALS = 64, REPAIR_STEPS = 400 };
    sr_arch *closest = sr_arch_new(s->problem.space);
    double closest_violation = INFINITY;
    int left = SR_FEASIBLE_TRIES;
    es_status status = ES_OK;

    for (int i = 0; left > 0; i++, left--) {
        if (i < PROPOSALS) {
            s->algorithm->propose(s, r, out, parent);
        } else {
            *parent = -1;
            sr_arch_random(s->problem.space, r, out);
        }
        double v = repair(s, r, out, REPAIR_STEPS, &left);
        if (v < closest_violation) {
            closest_violation = v;
            sr_arch_copy(closest, out);
        }
        if (v == 0 && *seen_slot(s, out) < 0)
            goto done;
    }
    *parent = -1;
    if (scan(s, r, out))
        goto done;
    status = closest_violation > 0 && s->asked == 0
                 ? infeasible(s, closest, err)
                 : es_fail(err, ES_NOT_FOUND, "search", "the space holds no new architecture within the constraints");
done:
    free(closest);
    return status;
}

es_status sr_ask(sr_search *s, int64_t *ticket, sr_arch *out, es_error *err)
{
    if (s->asked >= s->budget || s->exhausted)
        return es_fail(err, ES_NOT_FOUND, "search", "all %lld evaluations are asked", (long long)s->asked);
    es_rng r = es_rng_make(s->seed, ES_USE_SEARCH, (uint64_t)s->asked);
    sr_row *row = &s->rows[s->asked];
    row->parent = -1;
    es_status status = find_new(s, &r, out, &row->parent, err);
    if (status == ES_NOT_FOUND)
        s->exhausted = true;
    ES_RETURN(status);
    row->arch = sr_arch_new(s->problem.space);
    sr_arch_copy(row->arch, out);
    *seen_slot(s, out) = (int32_t)s->asked;
    *ticket = s->asked++;
    return ES_OK;
}

void sr_tell(sr_search *s, int64_t ticket, const double *values, bool ok)
{
    const sr_problem *p = &s->problem;
    ES_ASSERT(ticket == s->told && ticket < s->asked);
    sr_row *row = &s->rows[ticket];
    row->violation = ok ? 0 : INFINITY;
    for (int k = 0; k < p->objectives; k++)
        row->value[k] = !ok ? NAN : p->maximise[k] ? -values[k] : values[k];
    for (int i = 0; ok && i < p->constraints; i++)
        if (p->constraint[i].cost < 0)
            row->violation += limit_violation(&p->constraint[i], values[-1 - p->constraint[i].cost]);
    s->told++;
    if (s->algorithm->told)
        s->algorithm->told(s, ticket);
}

int64_t sr_asked(const sr_search *s) { return s->asked; }

int64_t sr_told(const sr_search *s) { return s->told; }

const sr_arch *sr_asked_arch(const sr_search *s, int64_t ticket)
{
    ES_ASSERT(ticket >= 0 && ticket < s->asked);
    return s->rows[ticket].arch;
}

int sr_lookahead(const sr_search *s)
{
    int64_t n = s->algorithm->horizon(s);
    if (s->exhausted)
        return 0;
    n = (n < s->budget ? n : s->budget) - s->asked;
    return n < 0 ? 0 : n > 1 << 20 ? 1 << 20 : (int)n;
}

int sr_row_compare(const sr_search *s, int64_t a, int64_t b)
{
    const sr_row *x = &s->rows[a], *y = &s->rows[b];
    int m = s->problem.objectives;
    if (x->violation != y->violation)
        return x->violation < y->violation ? -1 : 1;
    if (sr_dominates(x->value, y->value, m))
        return -1;
    if (sr_dominates(y->value, x->value, m))
        return 1;
    return x->value[0] < y->value[0] ? -1 : x->value[0] > y->value[0];
}

double sr_mutation_rate(const sr_search *s, const sr_arch *a)
{
    int n = 0;
    if (s->options.mutation > 0)
        return s->options.mutation;
    for (int i = 0; i < a->n; i++)
        n += sr_space_choice(s->problem.space, i)->options > 1 && sr_arch_active(s->problem.space, a, i);
    return n ? 1.0 / n : 1.0;
}
