/* The table of drivers: coord/ sees no more of this folder than it. */
#include <string.h>

#include "daemon/coord/driver.h"

/* Zero-work jobs: nothing drives them. */
static const dm_driver driver_noop = {.name = "noop"};

extern const dm_driver dm_driver_supernet, dm_driver_table, dm_driver_modules;

static const dm_driver *const drivers[] = {&dm_driver_supernet, &dm_driver_table, &dm_driver_modules, &driver_noop};

const dm_driver *dm_driver_for(const sn_search_file *f)
{
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++)
        if (drivers[i]->takes && drivers[i]->takes(f))
            return drivers[i];
    ES_ASSERT(!"a checked search file has a driver");
    return NULL;
}

const dm_driver *dm_driver_named(const char *name)
{
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++)
        if (strcmp(drivers[i]->name, name) == 0)
            return drivers[i];
    return NULL;
}
