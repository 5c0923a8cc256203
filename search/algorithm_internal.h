/* algorithm_internal.h - what an algorithm's file sees of a search: its history, its problem and its own state.
 *
 * An algorithm proposes; algorithm.c refuses what was asked before or breaks a known constraint, repairs, and keeps the rows. `propose` may use only the history
 * that was told (tickets below s->told), its own state and the stream it is given: that is what makes a replay exact.
 */
#ifndef SR_ALGORITHM_INTERNAL_H
#define SR_ALGORITHM_INTERNAL_H

#include "search/algorithm.h"

typedef struct sr_row {
    sr_arch *arch;
    double value[SR_OBJECTIVES_MAX]; /* minimised; NaN when the evaluation failed */
    double violation;                /* 0: feasible; INFINITY when failed */
    int64_t parent;                  /* ticket that an algorithm remembers, or -1 */
} sr_row;

typedef struct sr_algorithm {
    const char *name;
    sr_options defaults;
    size_t state_bytes;
    es_status (*start)(sr_search *s, es_error *err); /* checks options, allocates state->... ; may be NULL */
    void (*stop)(sr_search *s);                      /* frees what start allocated; may be NULL */
    void (*propose)(sr_search *s, es_rng *r, sr_arch *out, int64_t *parent);
    void (*told)(sr_search *s, int64_t ticket); /* may be NULL */
    int64_t (*horizon)(const sr_search *s);     /* asks allowed in total, given what was told */
} sr_algorithm;

struct sr_search {
    const sr_algorithm *algorithm;
    sr_options options;
    sr_problem problem;
    uint64_t seed;
    int64_t asked, told;
    sr_row *rows; /* asked of them in use, `budget` allocated */
    int64_t budget;
    int32_t *seen; /* open-addressing table of tickets, by gene bytes; -1 empty */
    size_t seen_mask;
    bool exhausted; /* the space holds nothing new that is feasible */
    void *state;
};

/* -1, 0, 1: which of two told rows is better: smaller violation, then dominance, then the first objective, else 0. */
int sr_row_compare(const sr_search *s, int64_t a, int64_t b);
bool sr_was_asked(const sr_search *s, const sr_arch *a);
double sr_mutation_rate(const sr_search *s,
                        const sr_arch *a); /* options.mutation, or 1 / number of active genes with a choice */

#endif
