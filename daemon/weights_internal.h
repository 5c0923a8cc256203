/* weights_internal.h - what weights.c (answering) and weights_keep.c (letting go, checking) share. */
#ifndef DM_WEIGHTS_INTERNAL_H
#define DM_WEIGHTS_INTERNAL_H

#include "daemon/weights.h"

struct dm_weights {
    dm_db *db;
};

#endif
