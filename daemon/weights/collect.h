/* collect.h - lets go of weights versions that no row of state.db needs: a walk over weights.db on the main thread, a few ids a turn.
 *
 *     dm_collect x = {.grace_ms = 600000};
 *     wait_ms = dm_collect_turn(&x, store, weights, data, steady_ms, mono_ms);     // between turns of the coordinator
 *
 * Age alone protects an upload whose result has not come yet: a version younger than the grace is not looked at. The data thread does the dropping (and
 * keeps one that was put again meanwhile); until it says so, dm_data_dropping tells the coordinator to refuse a result that names it. A crash at any
 * moment leaves versions or orphans for the next walk, never a row whose version is gone.
 */
#ifndef DM_COLLECT_H
#define DM_COLLECT_H

#include "daemon/store/store.h"
#include "daemon/weights/data_thread.h"
#include "daemon/weights/weights.h"

typedef struct dm_collect {
    int64_t grace_ms;
    bool held; /* a backup is copying: what its state.db names must still be there when its weights.db is read */
    int64_t at_ms;
    char cursor[72];
    int64_t dropped; /* since the start */
} dm_collect;

/* Returns in how many ms it wants to be called again. */
int dm_collect_turn(dm_collect *x, dm_store *store, dm_weights *weights, dm_data *data, int64_t steady_ms,
                    int64_t mono_ms);

#endif
