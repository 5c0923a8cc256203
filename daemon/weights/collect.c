#include "daemon/weights/collect.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/store/version_rows.h"

enum { AT_ONCE = 64, PAUSE_MS = 20, WALK_EVERY_MS = 60000, WALK_SOONEST_MS = 500 };

static es_status collect_some(dm_collect *x, dm_store *store, dm_weights *weights, dm_data *data, int64_t steady_ms,
                              bool *over, es_error *err)
{
    char ids[AT_ONCE][72];
    int n;
    ES_RETURN(dm_weights_idle(weights, x->cursor, steady_ms - x->grace_ms, AT_ONCE, ids, &n, err));
    for (int i = 0; i < n; i++) {
        bool needed;
        ES_RETURN(dm_version_needed(store, ids[i], &needed, err));
        if (!needed && !dm_data_drop(data, ids[i])) {
            n = AT_ONCE; /* its queue is full: from here again */
            break;
        }
        x->dropped += !needed;
        snprintf(x->cursor, sizeof x->cursor, "%s", ids[i]);
    }
    *over = n < AT_ONCE;
    return ES_OK;
}

int dm_collect_turn(dm_collect *x, dm_store *store, dm_weights *weights, dm_data *data, int64_t steady_ms,
                    int64_t mono_ms)
{
    bool over = true;
    es_error err;
    if (x->held)
        return WALK_EVERY_MS;
    if (mono_ms < x->at_ms)
        return (int)(x->at_ms - mono_ms);
    if (collect_some(x, store, weights, data, steady_ms, &over, &err) != ES_OK)
        es_log_error(ES_LOG_WARN, "collecting unused weights", &err);
    int64_t every = x->grace_ms / 4;
    every = every > WALK_EVERY_MS ? WALK_EVERY_MS : every < WALK_SOONEST_MS ? WALK_SOONEST_MS : every;
    if (over)
        x->cursor[0] = 0;
    x->at_ms = mono_ms + (over ? every : PAUSE_MS);
    return (int)(x->at_ms - mono_ms);
}
