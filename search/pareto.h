/* pareto.h - dominance, fronts, crowding and hypervolume. Values are always minimised here: callers negate what they maximise.
 *
 *     sr_rank_fronts(values, violation, n, m, rank);     // rank[i] = 0 for the Pareto front, 1 for the next ...
 *     double hv = sr_hypervolume(front, n, m, reference);
 *
 * `values` is n rows of m. `violation` (may be NULL) is 0 for feasible rows: a feasible row dominates an infeasible one, and of two infeasible
 * ones the smaller violation dominates (constraint domination, Deb 2002). Rows with a NaN are dominated by every row without.
 */
#ifndef SR_PARETO_H
#define SR_PARETO_H

#include "base/status.h"

enum { SR_OBJECTIVES_MAX = 8 };

bool sr_dominates(const double *a, const double *b, int m);
void sr_rank_fronts(const double *values, const double *violation, int n, int m, int *rank);
void sr_crowding(const double *values, const int *members, int count, int m,
                 double *distance); /* distance[k] of members[k]; ends are infinite */
int sr_pareto(const double *values, int n, int m,
              int *members); /* indices of the non-dominated rows, in order; O(n log n) for m = 2 */
double sr_hypervolume(const double *values, int n, int m,
                      const double *reference); /* exact; rows beyond the reference add nothing */

#endif
