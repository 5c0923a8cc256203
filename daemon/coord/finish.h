/* finish.h - results: accepted only for the current lease, once. */
#ifndef DM_COORD_FINISH_H
#define DM_COORD_FINISH_H

#include "daemon/coord/state.h"

bool dm_kind_trains(int kind);
es_status dm_on_finish(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__FinishBatch *m,
                       es_error *err) ES_MUST_CHECK;
es_status dm_job_event(dm_coord *c, const dm_lease *l, const char *state, const char *code, const char *text,
                       es_error *err) ES_MUST_CHECK;
/* After a job is done: those that waited only for it become ready. */
es_status dm_job_done_release(dm_coord *c, dm_search *s, int64_t job, es_error *err) ES_MUST_CHECK;

#endif
