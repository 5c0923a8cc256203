/* http.h - what Prometheus, load balancers and browsers ask: /metrics, /healthz, /api (api.h) and / (the live page), on a thread of its own that never
 * touches the coordinator.
 *
 *     dm_http *h; dm_http_start("127.0.0.1:5703", &rule, &h, err);
 *     dm_http_update(h, metrics_text, NULL);               // by the main thread, now and then; a reason instead of NULL makes /healthz answer 503
 *     dm_http_stop(&h);
 *
 * /metrics and /healthz come from the last update's copy: a thousand scrapes a second cost the coordinator nothing. Who may ask is
 * access.h's rule, asked first for every path. 64 connections at most, 32 of one address; a request has 16 KiB of memory, a
 * silent connection 10 s, a slow one what slow.h gives it (looked at with every dm_http_update).
 */
#ifndef DM_HTTP_H
#define DM_HTTP_H

#include "daemon/coord/coord.h"
#include "daemon/http/access.h"

typedef struct dm_http dm_http;
es_status dm_http_start(const char *address, const dm_http_rule *rule, dm_http **out, es_error *err) ES_MUST_CHECK;
const char *dm_http_address(const dm_http *h); /* as bound: port 0 becomes the real one */
void dm_http_update(dm_http *h, const char *metrics, const char *sick);
/* Questions of /api wait when this descriptor is readable; the main thread answers some of them. */
int dm_http_questions_fd(const dm_http *h);
void dm_http_answer(dm_http *h, dm_coord *coord);
int dm_http_end_slow(dm_http *h, int64_t now_ms); /* how many took too long by now: slow.h */
void dm_http_stop(dm_http **h);

#endif
