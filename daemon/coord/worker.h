/* worker.h - workers and their leases: who they are, what they hold, when they are gone. */
#ifndef DM_COORD_WORKER_H
#define DM_COORD_WORKER_H

#include "daemon/coord/state.h"

es_status dm_leases_load(dm_coord *c, es_error *err) ES_MUST_CHECK;
void dm_workers_free(dm_coord *c);
es_status dm_on_hello(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Hello *m,
                      es_error *err) ES_MUST_CHECK;
es_status dm_on_want(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Want *m,
                     es_error *err) ES_MUST_CHECK;
es_status dm_on_heartbeat(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Heartbeat *m,
                          es_error *err) ES_MUST_CHECK;
es_status dm_on_goodbye(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Goodbye *m,
                        es_error *err) ES_MUST_CHECK;
es_status dm_workers_expire(dm_coord *c, es_error *err) ES_MUST_CHECK;
dm_worker *dm_worker_by_uid(dm_coord *c, const ProtobufCBinaryData *uid);
void dm_worker_heard(dm_coord *c, dm_worker *w, const dm_addr *from);
void dm_worker_want(dm_coord *c, dm_worker *w, uint32_t want, uint64_t id);
void dm_worker_tell_unknown(dm_coord *c, const dm_addr *to, uint64_t id);
es_status dm_worker_drain(dm_coord *c, dm_worker *w, const char *why,
                          es_error *err) ES_MUST_CHECK; /* gets no more work */
dm_lease *dm_lease_add(dm_coord *c, dm_search *s, dm_worker *w, const dm_ready *r, int64_t attempt);
/* What `w` holds under this name, or NULL. */
dm_lease *dm_lease_held(const dm_coord *c, const dm_worker *w, const dm_lease_id *id);
dm_ready dm_lease_ready(const dm_lease *l);   /* the job as the scheduler sees it once it is ready again */
void dm_lease_preempt(dm_lease *l, bool yes); /* every rank of it */
void dm_lease_drop(dm_coord *c, dm_lease *l); /* memory only; of a gang: every rank */
dm_lease *dm_lease_link(dm_coord *c, dm_search *s, dm_worker *w, const dm_ready *r, int64_t attempt);
void dm_lease_unlink(dm_coord *c, dm_lease *l); /* this rank alone; frees it */
dm_worker *dm_worker_load(dm_coord *c, int64_t job, int64_t id, es_status *status,
                          es_error *err); /* of a lease read from the rows */
/* Gives the job back: running -> ready. `counted` failures and losses are in the lease. */
es_status dm_lease_return(dm_coord *c, dm_lease *l, int outcome, const char *why, int64_t not_before_ms,
                          es_error *err) ES_MUST_CHECK;

#endif
