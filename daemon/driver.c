#include "daemon/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

bool dm_is_store_failure(es_status s)
{
    return s == ES_DISK_FULL || s == ES_IO || s == ES_CORRUPT || s == ES_BUSY || s == ES_NO_MEMORY || s == ES_DENIED ||
           s == ES_LOST;
}

es_status dm_driver_job(dm_search *s, const char *key, const dm_job_spec *spec, const int64_t *needs, int n,
                        int64_t *id, es_error *err)
{
    dm_bytes b;
    bool created;
    ES_RETURN(dm_encode(&spec->base, DM_SPEC_TEXT_MAX, &b, err));
    dm_job_new j = {.search = s->id,
                    .kind = (int)spec->kind,
                    .key = key,
                    .spec = b.data,
                    .spec_bytes = b.n,
                    .needs = needs,
                    .needs_count = n,
                    .now_ms = s->c->wall_ms,
                    .memory_bytes = s->memory_bytes[dm_kind_trains((int)spec->kind)]};
    es_status status = dm_job_create(s->c->store, &j, id, &created, err);
    free(b.data);
    if (status == ES_OK && created) { /* ready, or waiting: the window reads only what is ready */
        s->more = true;
        s->c->dirty = true;
    }
    return status;
}

es_status dm_driver_job_result(dm_search *s, const char *key, dm_job_result **out, es_error *err)
{
    dm_job_row row;
    ProtobufCMessage *base = NULL;
    *out = NULL;
    ES_RETURN(dm_job_by_key(s->c->store, s->id, key, &row, err));
    es_status status = ES_NOT_FOUND;
    if (row.state == DM_JOB_DONE) {
        status = dm_decode(&espalier__wire__job_result__descriptor, row.result, row.result_bytes, &base, err);
        *out = (dm_job_result *)base;
    }
    dm_job_row_free(&row);
    return status;
}

void dm_job_result_free(dm_job_result **r)
{
    if (!*r)
        return;
    ProtobufCMessage *m = (ProtobufCMessage *)*r;
    dm_message_free(&m);
    *r = NULL;
}
