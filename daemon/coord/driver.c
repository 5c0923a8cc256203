/* What drivers (daemon/driver/) ask of the coordinator. */
#include "daemon/coord/driver.h"
#include "daemon/coord/finish.h"

#include <stdlib.h>

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
