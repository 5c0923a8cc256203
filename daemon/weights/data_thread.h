/* data_thread.h - the thread that serves weights: a ROUTER for DataRequests, with its own connection to weights.db.
 *
 *     dm_data *d; dm_data_start(&(dm_data_options){.zmq = context, .auth = auth, .endpoint = "tcp://0.0.0.0:5701", .path = "weights.db"}, &d, err);
 *     dm_data_drop(d, hex);                 // later, between requests
 *     dm_data_stop(&d);                     // joins
 *
 * Requests are taken in bounded batches, each batch is one transaction, and answers leave after its commit.
 */
#ifndef DM_DATA_THREAD_H
#define DM_DATA_THREAD_H

#include "daemon/auth/auth.h"
#include "daemon/auth/limits.h"
#include "daemon/weights/weights.h"

typedef struct dm_data dm_data;
typedef struct dm_data_options {
    void *zmq;     /* context; borrowed */
    dm_auth *auth; /* borrowed */
    const char *endpoint, *path;
    dm_limit_options limits; /* of a tcp connection */
    dm_quota quota;
} dm_data_options;
es_status dm_data_start(const dm_data_options *o, dm_data **out, es_error *err) ES_MUST_CHECK;
const char *dm_data_endpoint(const dm_data *d); /* as bound: with the port */
/* What peers may cost and keys may store; may change while it runs. */
void dm_data_set_limits(dm_data *d, const dm_limit_options *limits, const dm_quota *quota);
/* How long an orphaned chunk and a version that nobody put again stay; may change while it runs. */
void dm_data_set_grace(dm_data *d, int64_t ms);
/* False: too many are on their way already. */
bool dm_data_drop(dm_data *d, const char *hex);
/* Ordered, and perhaps not gone yet: whoever names it now must send it again. */
bool dm_data_dropping(dm_data *d, const char *hex);
void dm_data_stop(dm_data **d);

#endif
