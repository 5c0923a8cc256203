/* slice.h - a training is handed out in slices; here one comes back, done or given up on the way, and the next one begins from its weights. */
#ifndef DM_COORD_SLICE_H
#define DM_COORD_SLICE_H

#include "daemon/coord/state.h"

/* Slice of a training that a worker says has ended. */
typedef struct dm_slice {
    dm_lease *lease;
    const dm_job_row *row;
    const dm_job_result *result;
    bool done; /* to its end; else handed back on the way */
} dm_slice;
/* *over: nothing is left to train, and the job is to be finished as any other. Otherwise the lease is gone and the job waits for its next slice; or
 * the result is no answer, as why->code then says, and nothing was written. */
es_status dm_slice_finish(dm_coord *c, const dm_slice *x, bool *over, es_error *why, es_error *err) ES_MUST_CHECK;

#endif
