#include "search/pareto.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

static bool has_nan(const double *a, int m)
{
    for (int k = 0; k < m; k++)
        if (isnan(a[k]))
            return true;
    return false;
}

bool sr_dominates(const double *a, const double *b, int m)
{
    bool better = false;
    if (has_nan(a, m))
        return false;
    if (has_nan(b, m))
        return true;
    for (int k = 0; k < m; k++) {
        if (a[k] > b[k])
            return false;
        better |= a[k] < b[k];
    }
    return better;
}

static bool constrained_dominates(const double *values, const double *violation, int i, int j, int m)
{
    if (violation) {
        if (violation[i] != violation[j])
            return violation[i] < violation[j];
        if (violation[i] > 0)
            return false;
    }
    return sr_dominates(values + (size_t)i * (size_t)m, values + (size_t)j * (size_t)m, m);
}

/* Fast non-dominated sorting (Deb et al. 2002): O(m n^2) comparisons, n is a population. */
void sr_rank_fronts(const double *values, const double *violation, int n, int m, int *rank)
{
    int *beaten_by = es_xcalloc((size_t)n + 1, sizeof *beaten_by);
    int left = n;

    for (int i = 0; i < n; i++) {
        rank[i] = -1;
        for (int j = 0; j < n; j++)
            beaten_by[i] += j != i && constrained_dominates(values, violation, j, i, m);
    }
    for (int front = 0; left > 0; front++) {
        for (int i = 0; i < n; i++)
            if (rank[i] < 0 && beaten_by[i] == 0) {
                rank[i] = front;
                left--;
            }
        for (int i = 0; i < n; i++)
            if (rank[i] == front)
                for (int j = 0; j < n; j++)
                    beaten_by[j] -= rank[j] < 0 && constrained_dominates(values, violation, i, j, m);
    }
    free(beaten_by);
}

typedef struct keyed {
    double key;
    int index;
} keyed;

static int by_key(const void *a, const void *b)
{
    const keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index); /* stable: equal keys keep their order on every libc */
}

void sr_crowding(const double *values, const int *members, int count, int m, double *distance)
{
    keyed *order = es_xcalloc((size_t)count + 1, sizeof *order);
    for (int i = 0; i < count; i++)
        distance[i] = 0;
    for (int k = 0; k < m; k++) {
        for (int i = 0; i < count; i++)
            order[i] = (keyed){values[(size_t)members[i] * (size_t)m + (size_t)k], i};
        qsort(order, (size_t)count, sizeof *order, by_key);
        double span = count ? order[count - 1].key - order[0].key : 0;
        if (count)
            distance[order[0].index] = distance[order[count - 1].index] = INFINITY;
        for (int i = 1; i + 1 < count && span > 0; i++)
            distance[order[i].index] += (order[i + 1].key - order[i - 1].key) / span;
    }
    free(order);
}

static int by_int(const void *a, const void *b)
{
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

/* Two objectives: sort by the first (then the second), keep what lowers the best second seen; equal points all stay. */
static int pareto_2d(const double *values, int n, int *members)
{
    keyed *order = es_xcalloc((size_t)n + 1, sizeof *order);
    int live = 0, count = 0;
    for (int i = 0; i < n; i++)
        if (!has_nan(values + 2 * (size_t)i, 2))
            order[live++] = (keyed){values[2 * (size_t)i], i};
    qsort(order, (size_t)live, sizeof *order, by_key);
    double best = INFINITY;
    for (int i = 0; i < live;) {
        int end = i;
        double low = INFINITY;
        for (; end < live && order[end].key == order[i].key; end++)
            low = fmin(low, values[2 * (size_t)order[end].index + 1]);
        if (low < best) {
            for (int j = i; j < end; j++)
                if (values[2 * (size_t)order[j].index + 1] == low)
                    members[count++] = order[j].index;
            best = low;
        }
        i = end;
    }
    free(order);
    qsort(members, (size_t)count, sizeof *members, by_int);
    return count;
}

int sr_pareto(const double *values, int n, int m, int *members)
{
    int count = 0;
    if (m == 2)
        return pareto_2d(values, n, members);
    for (int i = 0; i < n; i++) {
        const double *v = values + (size_t)i * (size_t)m;
        bool dominated = has_nan(v, m);
        for (int j = 0; j < n && !dominated; j++)
            dominated = j != i && sr_dominates(values + (size_t)j * (size_t)m, v, m);
        if (!dominated)
            members[count++] = i;
    }
    return count;
}

/* Hypervolume by slicing objectives (HSO): sort by the last objective and integrate the (m-1)-dimensional volume of the points below. Exact;
 * exponential in m, fine for the few objectives and few hundred points of a front. `rows` is an array of row pointers. */
static double volume(const double **rows, int n, int m, const double *reference);

static int rows_by_last(const double **rows, int n, int m)
{
    for (int i = 1; i < n; i++) { /* insertion sort: deterministic and n is small */
        const double *r = rows[i];
        int j = i;
        for (; j > 0 && rows[j - 1][m - 1] > r[m - 1]; j--)
            rows[j] = rows[j - 1];
        rows[j] = r;
    }
    return n;
}

static double volume(const double **rows, int n, int m, const double *reference)
{
    double sum = 0;
    if (n == 0)
        return 0;
    if (m == 1) {
        double low = rows[0][0];
        for (int i = 1; i < n; i++)
            low = fmin(low, rows[i][0]);
        return reference[0] - low;
    }
    const double **sorted = es_xcalloc((size_t)n, sizeof *sorted), **below = es_xcalloc((size_t)n, sizeof *below);
    memcpy(sorted, rows, (size_t)n * sizeof *sorted);
    rows_by_last(sorted, n, m);
    for (int i = 0; i < n; i++) {
        double top = i + 1 < n ? sorted[i + 1][m - 1] : reference[m - 1];
        if (top <= sorted[i][m - 1])
            continue;
        memcpy(below, sorted, (size_t)(i + 1) * sizeof *below);
        sum += volume(below, i + 1, m - 1, reference) * (top - sorted[i][m - 1]);
    }
    free(sorted);
    free(below);
    return sum;
}

double sr_hypervolume(const double *values, int n, int m, const double *reference)
{
    const double **rows = es_xcalloc((size_t)n + 1, sizeof *rows);
    int live = 0;
    for (int i = 0; i < n; i++) {
        const double *v = values + (size_t)i * (size_t)m;
        bool inside = true;
        for (int k = 0; k < m; k++)
            inside &= v[k] < reference[k]; /* false for NaN too */
        if (inside)
            rows[live++] = v;
    }
    double sum = volume(rows, live, m, reference);
    free(rows);
    return sum;
}
