/* reload.h - a configuration read again while the coordinator runs: which settings take effect at once, which wait for a restart.
 *
 *     dm_reload_merge(&running, &fresh, said, sizeof said);       // `running` gets what may change; logs every difference, one line each
 *
 * A setting that needs a restart keeps its running value, so that the log says it again with every reload until then.
 */
#ifndef DM_RELOAD_H
#define DM_RELOAD_H

#include "daemon/config.h"

typedef struct dm_reload_result {
    int changed, waiting; /* settings that took effect; that need a restart */
    char text[400];       /* for the operator who asked */
} dm_reload_result;
void dm_reload_merge(dm_config *running, const dm_config *fresh, dm_reload_result *out);

#endif
