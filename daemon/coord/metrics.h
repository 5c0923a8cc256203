/* metrics.h - what is counted, for the page of metrics. */
#ifndef DM_COORD_METRICS_H
#define DM_COORD_METRICS_H

#include "daemon/coord/state.h"

void dm_count_commit(dm_coord *c, int64_t ns);
void dm_count_end(dm_coord *c, int kind, dm_end how);

#endif
