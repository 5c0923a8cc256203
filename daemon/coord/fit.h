/* fit.h - which worker may take which job now: its kind, and room beside what it holds. A device is shared while the predicted memory of what it holds fits; a latency is
 * measured alone. Predictions may be wrong: the worker with the most memory may try any job, alone, and its plan says what the job really needs.
 */
#ifndef DM_COORD_FIT_H
#define DM_COORD_FIT_H

#include "daemon/coord/state.h"

typedef enum dm_fit {
    DM_FITS,
    DM_NEVER_FITS, /* not this kind of job, or it is away or drained */
    DM_NO_ROOM,    /* not beside what it holds */
    DM_TOO_SMALL,  /* another worker has more memory, and the job is predicted to need it */
    DM_ASKED,      /* the job wants the word of a worker of another key, and there is one */
} dm_fit;
dm_fit dm_fits(const dm_coord *c, const dm_worker *w, const dm_ready *r);
/* Whose worker it is, as a number: of the key that its name begins with; 0: of nobody, it is local. */
uint32_t dm_worker_key(const dm_worker *w);
/* Is there a worker of another key that the job may be given to, now or when it is free? After a restart: or may there be one, which has not been heard yet? */
bool dm_others_may(const dm_coord *c, const dm_ready *r);
bool dm_would_fit(const dm_coord *c, const dm_worker *w, const dm_ready *r); /* if it held nothing */
/* A gang for the job: distinct wanting workers of one machine kind, which are not kept for another gang. Caller frees *out; false: not now. */
bool dm_gang_find(dm_coord *c, const dm_ready *r, int size, dm_worker ***out);
/* Can there be one at all? The machine kind with the most workers that could; *most how many. *free of them are free. *whole_ms: when the last one missing
 * is expected to be free (monotonic; 0: unknown). */
const char *dm_gang_outlook(const dm_coord *c, const dm_ready *r, int size, int *most, int *free_now,
                            int64_t *whole_ms);

#endif
