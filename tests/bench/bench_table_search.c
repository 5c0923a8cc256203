/* Search algorithms on a published table: what each finds with a fixed budget, over many seeds.
 *
 *     build/tests/bench/bench_table_search TABLE.csv [SPACE.yaml] [--evaluations 300] [--seeds 100]
 *
 * TABLE has a column `arch` in the space's notation, validation accuracy in `cifar10_val`, test accuracy in `cifar10_test` (NAS-Bench-201 as in docs/measurements.md).
 * A search sees validation accuracy only; what is printed is the test accuracy of the architecture that it would hand over, the best one by validation. The
 * second part runs NSGA-II on (accuracy, macs) and compares its front with the exact front of the table by hypervolume. Markdown on standard output. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/str.h"
#include "search/algorithm.h"
#include "supernet/table.h"

typedef struct world {
    sn_space *space;
    sn_table *table;
    int64_t evaluations;
    int seeds;
} world;

static void check(es_status s, const es_error *e)
{
    char line[700];
    if (s == ES_OK)
        return;
    fprintf(stderr, "bench_table_search: %s\n", es_error_line(e, line, sizeof line));
    exit(1);
}

static double value_of(const world *w, const sr_arch *a, sn_split split)
{
    es_error e;
    double v = 0;
    check(sn_table_value(w->table, a, split, &v, &e), &e);
    return v;
}

static double macs_of(const world *w, const sr_arch *a)
{
    es_error e;
    sn_cost c;
    check(sn_space_cost(w->space, a, &c, &e), &e);
    return (double)c.macs;
}

/* Runs one search to its end, asking as far ahead as it allows; rows[] gets (validation, macs) of every evaluation when not NULL. */
static double search_once(const world *w, const char *name, int objectives, uint64_t seed, double *rows, int64_t *n)
{
    sr_problem p = {.space = sn_space_choices(w->space),
                    .objectives = objectives,
                    .maximise = {true, false},
                    .names = {"accuracy", "macs"},
                    .evaluations = w->evaluations};
    sr_options o = sr_options_default(name);
    sr_search *s = NULL;
    sr_arch *a = sr_arch_new(p.space);
    es_error e;
    double best = -1, test = 0;
    o.population = o.population > 50 ? 50 : o.population; /* 300 evaluations are six generations of 50 */
    o.sample = o.sample > 10 ? 10 : o.sample;
    check(sr_search_new(name, &o, &p, seed, &s, &e), &e);
    while (sr_told(s) < w->evaluations) {
        int64_t ticket;
        while (sr_lookahead(s) > 0 && sr_ask(s, &ticket, a, &e) == ES_OK)
            continue;
        if (sr_told(s) == sr_asked(s))
            break;
        const sr_arch *b = sr_asked_arch(s, sr_told(s));
        double v[2] = {value_of(w, b, SN_VALIDATION_SPLIT), objectives > 1 ? macs_of(w, b) : 0};
        if (v[0] > best) {
            best = v[0];
            test = value_of(w, b, SN_TEST_SPLIT);
        }
        if (rows)
            memcpy(rows + 2 * sr_told(s), v, sizeof v);
        sr_tell(s, sr_told(s), v, true);
    }
    *n = sr_told(s);
    sr_search_destroy(&s);
    free(a);
    return test;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void best_found(const world *w)
{
    double *found = es_xcalloc((size_t)w->seeds, sizeof *found);
    printf("| algorithm | mean | sd | worst | median | best |\n|---|---|---|---|---|---|\n");
    for (const char *const *name = sr_algorithm_names(); *name; name++) {
        double sum = 0, square = 0;
        for (int i = 0; i < w->seeds; i++) {
            int64_t n;
            found[i] = 100 * search_once(w, *name, 1, (uint64_t)i, NULL, &n);
            sum += found[i];
        }
        for (int i = 0; i < w->seeds; i++)
            square += (found[i] - sum / w->seeds) * (found[i] - sum / w->seeds);
        qsort(found, (size_t)w->seeds, sizeof *found, by_value);
        printf("| %s | %.3f | %.3f | %.2f | %.2f | %.2f |\n", *name, sum / w->seeds,
               sqrt(square / (w->seeds > 1 ? w->seeds - 1 : 1)), found[0], found[w->seeds / 2], found[w->seeds - 1]);
    }
    free(found);
}

/* (error, macs relative to the largest) of n rows (accuracy, macs), for minimisation. */
static void to_minimise(double *rows, int64_t n, double largest)
{
    for (int64_t i = 0; i < n; i++) {
        rows[2 * i] = 1 - rows[2 * i];
        rows[2 * i + 1] /= largest;
    }
}

static void fronts(const world *w)
{
    const sr_space *sp = sn_space_choices(w->space);
    const double reference[2] = {1, 1.001};
    uint64_t size = 0;
    sr_arch *a = sr_arch_new(sp);
    double largest = 0;
    if (!sr_space_count(sp, &size) || size > 1000000) {
        printf("the space is too large for its exact front\n");
        free(a);
        return;
    }
    double *all = es_xcalloc(2 * (size_t)size, sizeof *all),
           *rows = es_xcalloc(2 * (size_t)w->evaluations, sizeof *rows);
    int *members = es_xcalloc((size_t)size, sizeof *members);
    for (uint64_t i = 0; i < size; i++) {
        sr_arch_nth(sp, i, a);
        all[2 * i] = value_of(w, a, SN_VALIDATION_SPLIT);
        all[2 * i + 1] = macs_of(w, a);
        largest = fmax(largest, all[2 * i + 1]);
    }
    to_minimise(all, (int64_t)size, largest);
    double exact = sr_hypervolume(all, (int)size, 2, reference);
    printf("\nexact front: %d members of %llu, hypervolume %.5f\n\n", sr_pareto(all, (int)size, 2, members),
           (unsigned long long)size, exact);
    printf("| algorithm | mean share of the exact hypervolume | lowest |\n|---|---|---|\n");
    for (const char *const *name = sr_algorithm_names(); *name; name++) {
        double sum = 0, low = 1;
        for (int i = 0; i < w->seeds; i++) {
            int64_t n;
            search_once(w, *name, 2, (uint64_t)i, rows, &n);
            to_minimise(rows, n, largest);
            double share = sr_hypervolume(rows, (int)n, 2, reference) / exact;
            sum += share;
            low = fmin(low, share);
        }
        printf("| %s | %.4f | %.4f |\n", *name, sum / w->seeds, low);
    }
    free(all);
    free(rows);
    free(members);
    free(a);
}

int main(int argc, char **argv)
{
    world w = {.evaluations = 300, .seeds = 100};
    const char *table = NULL, *space = "examples/spaces/nas-bench-201.yaml";
    es_error e;
    for (int i = 1; i < argc; i++) {
        int64_t n = 0;
        bool option = strncmp(argv[i], "--", 2) == 0;
        if (option && (i + 1 == argc || !es_str_to_i64(argv[i + 1], false, &n) || n < 1 || n > 100000))
            return fprintf(stderr, "%s needs a number from 1 to 100000\n", argv[i]), 2;
        if (strcmp(argv[i], "--evaluations") == 0)
            w.evaluations = n, i++;
        else if (strcmp(argv[i], "--seeds") == 0)
            w.seeds = (int)n, i++;
        else if (!option && !table)
            table = argv[i];
        else if (!option)
            space = argv[i];
        else
            return fprintf(stderr, "unknown option %s\n", argv[i]), 2;
    }
    if (!table)
        return fprintf(stderr, "usage: bench_table_search TABLE.csv [SPACE.yaml] [--evaluations N] [--seeds N]\n"), 2;
    sn_table_config c = {.key = "arch", .value = "cifar10_val", .report = "cifar10_test"};
    snprintf(c.file, sizeof c.file, "%s", table);
    check(sn_space_load(space, &w.space, &e), &e);
    check(sn_table_open(&c, w.space, &w.table, &e), &e);
    printf("%lld evaluations, %d seeds, table of %lld rows\n\n", (long long)w.evaluations, w.seeds,
           (long long)sn_table_rows(w.table));
    best_found(&w);
    fronts(&w);
    sn_table_close(&w.table);
    sn_space_destroy(&w.space);
    return 0;
}
