/* failure.h - attempts that went wrong: what it means for the job (another one after a pause, or its end) and for the worker (drained when it is at fault). */
#ifndef DM_COORD_FAILURE_H
#define DM_COORD_FAILURE_H

#include "daemon/coord/state.h"

/* Another attempt after a pause, or the end of the job. The lease is gone then. */
es_status dm_lease_failed(dm_coord *c, dm_lease *l, int outcome, const char *code, const char *text, const char *log,
                          es_error *err) ES_MUST_CHECK;
/* A worker gives a job back unasked. Too many in a row with no progress in any, and it gets no more. */
es_status dm_worker_handed_back(dm_coord *c, const dm_lease *l, bool progress, es_error *err) ES_MUST_CHECK;
int64_t dm_backoff_ms(dm_coord *c, int failures); /* before the next attempt */
void dm_worker_did_well(dm_worker *w);            /* its failures and returns are not in a row */

#endif
