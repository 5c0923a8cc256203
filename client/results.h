/* results.h - what the user takes home: a table of the front, and a directory.
 *
 *     OUT/result.json          the search and its front: architecture, accuracy, test_accuracy, params, macs, latency_ms ...
 *     OUT/pareto.csv           the same front as CSV
 *     OUT/front/01/architecture.txt, weights.safetensors      each member, most accurate first
 *
 * The same search gives the same bytes whatever happened on the way, but for measured times.
 */
#ifndef CL_RESULTS_H
#define CL_RESULTS_H

#include "client/connect.h"

/* `front`: an array of MEMBER (schemas/status.md). */
void cl_front_print(const json_t *front, FILE *f);
/* `result`: RESULT. Fetches the members' weights from `data` (with `stop`: asked meanwhile). */
es_status cl_results_write(const char *dir, const json_t *result, dm_peer *data, bool (*stop)(void *ctx), void *ctx,
                           es_error *err) ES_MUST_CHECK;
/* One member's weights as a safetensors file. */
es_status cl_weights_write(dm_peer *data, const char *version, const char *path, bool (*stop)(void *ctx), void *ctx,
                           es_error *err) ES_MUST_CHECK;
void cl_front_csv(const json_t *front, es_str *out);

#endif
