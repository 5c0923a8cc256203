/* api.h - /api over HTTP: questions that only the coordinator's thread can answer, handed to it and back.
 *
 *     dm_http_api *a = dm_http_api_new();
 *     HTTP's thread:   if (dm_http_api_takes(url)) return dm_http_api_request(a, connection, url, state);
 *                      dm_http_api_ended(state) when a request is over, however it ended
 *     main thread:     poll dm_http_api_fd(a); dm_http_api_answer(a, coord);        // at most 16 at once
 *     dm_http_api_close(a); stop HTTP; dm_http_api_free(&a);
 *
 * A question suspends its connection (libmicrohttpd), so that others and /metrics go on; there are never more of them than connections. Paths, all GET:
 * /api/status, /api/searches[?limit=&after=], /api/searches/N, /api/searches/N/pareto, .../result, .../curves, .../logs, .../events, /api/events[?limit=&after=], /api/workers,
 * /api/jobs/N. Answers are those of Query.what (schemas/status.md); an error is {"error": {"code", "where", "text"}}.
 */
#ifndef DM_HTTP_API_H
#define DM_HTTP_API_H

#include <microhttpd.h>

#include "daemon/coord/coord.h"

typedef struct dm_http_api dm_http_api;
dm_http_api *dm_http_api_new(void);
void dm_http_api_free(dm_http_api **a);
int dm_http_api_fd(const dm_http_api *a); /* readable when there are questions */
void dm_http_api_answer(dm_http_api *a, dm_coord *coord);
/* Refuses what waits and what comes: the coordinator ends. */
void dm_http_api_close(dm_http_api *a);

/* What a path asks; false: nothing that exists. `limit` and `after` as texts, or NULL. */
bool dm_http_api_parse(const char *path, const char *limit, const char *after, dm_question *out);
bool dm_http_api_takes(const char *path);
enum MHD_Result dm_http_api_request(dm_http_api *a, struct MHD_Connection *con, const char *path, void **state);
void dm_http_api_ended(void **state);

#endif
