/* algorithm.h - search algorithms behind ask and tell.
 *
 *     sr_problem p = {.space = sp, .objectives = 2, .maximise = {true, false}, .evaluations = 300, .costs = my_costs, .ctx = ...};
 *     sr_search *s; sr_search_new("nsga2", &options, &p, seed, &s, err);
 *     while (sr_ask(s, &ticket, arch, err) == ES_OK) {          // ES_NOT_FOUND: the budget is asked out
 *         evaluate(arch, values);
 *         sr_tell(s, ticket, values, ok);
 *     }
 *
 * Deterministic from (seed, options, the sequence of asks and tells). Tickets are 0, 1, 2 ...; tells must come in ticket order; asking may run ahead of telling.
 * The driver fixes how far (look-ahead), so that the outcome does not depend on how many workers there are. A search's whole position can be rebuilt by
 * replaying its rows in the same order of asks and tells.
 * An architecture is never asked twice; when a space is smaller than the budget the search ends early. Constraints on known costs are met by every
 * architecture asked for: when none can be found within SR_FEASIBLE_TRIES draws and repairs, sr_ask fails with ES_INFEASIBLE and the closest
 * costs seen. Constraints on measured values use constraint domination.
 *
 * To add an algorithm: one file search/algorithm_<name>.c with an sr_algorithm, one line in the table in algorithm.c.
 */
#ifndef SR_ALGORITHM_H
#define SR_ALGORITHM_H

#include "search/pareto.h"
#include "search/space.h"

enum { SR_FEASIBLE_TRIES = 20000, SR_CONSTRAINTS_MAX = 8 };

typedef struct sr_constraint {
    char name[32];   /* "params": for messages */
    double min, max; /* -INFINITY, INFINITY when open */
    int cost;        /* index into costs(), or -1 - objective index for a measured one */
} sr_constraint;

typedef struct sr_problem {
    const sr_space *space;
    int objectives;
    bool maximise[SR_OBJECTIVES_MAX];
    const char *names[SR_OBJECTIVES_MAX];
    int constraints;
    sr_constraint constraint[SR_CONSTRAINTS_MAX];
    /* Known costs of an architecture (params, macs ...), computed without training; may be NULL when no constraint uses it. */
    void (*costs)(void *ctx, const sr_arch *a, double *out);
    int n_costs;
    void *ctx;
    int64_t evaluations; /* budget */
} sr_problem;

/* Defaults come from sr_options_default(name); every field is validated by sr_search_new with a text naming the field and its range. */
typedef struct sr_options {
    int population;    /* nsga2 64, regularised-evolution 100 */
    int sample;        /* regularised-evolution tournament 25 */
    double mutation;   /* per gene; 0: 1 / number of active genes */
    double crossover;  /* nsga2: probability that a child has two parents, 0.9 */
    int restarts_from; /* local-search: random starting points compared first, 10 */
} sr_options;

typedef struct sr_search sr_search;

/* The table: names of the algorithms ("random", "regularised-evolution", "nsga2", "local-search", ...), NULL-terminated. */
const char *const *sr_algorithm_names(void);
sr_options sr_options_default(const char *algorithm);

es_status sr_search_new(const char *algorithm, const sr_options *o, const sr_problem *p, uint64_t seed, sr_search **out,
                        es_error *err) ES_MUST_CHECK;
void sr_search_destroy(sr_search **s);
es_status sr_ask(sr_search *s, int64_t *ticket, sr_arch *out, es_error *err) ES_MUST_CHECK;
/* values: one per objective, as measured (not negated); ok false: the evaluation failed for good, the architecture counts as worst. */
void sr_tell(sr_search *s, int64_t ticket, const double *values, bool ok);
int64_t sr_asked(const sr_search *s);
int64_t sr_told(const sr_search *s);
const sr_arch *sr_asked_arch(const sr_search *s, int64_t ticket);
/* How many asks an algorithm can use before the next tell without losing quality: nsga2 its population, local search its neighbourhood ... */
int sr_lookahead(const sr_search *s);

#endif
