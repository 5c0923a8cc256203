/* data_thread.h - the thread that serves weights: a ROUTER for DataRequests, with its own connection to weights.db.
 *
 *     dm_data *d; dm_data_start(zmq_context, auth, "tcp://0.0.0.0:5701", "weights.db", &d, err);
 *     dm_data_drop(d, hex);                 // later, between requests
 *     dm_data_stop(&d);                     // joins
 *
 * Requests are taken in bounded batches, each batch is one transaction, and answers leave after its commit.
 */
#ifndef DM_DATA_THREAD_H
#define DM_DATA_THREAD_H

#include "daemon/auth.h"

typedef struct dm_data dm_data;
es_status dm_data_start(void *zmq, dm_auth *auth, const char *endpoint, const char *path, dm_data **out,
                        es_error *err) ES_MUST_CHECK; /* borrows zmq and auth */
const char *dm_data_endpoint(const dm_data *d);       /* as bound: with the port */
/* How long an orphaned chunk and a version that nobody put again stay; may change while it runs. */
void dm_data_set_grace(dm_data *d, int64_t ms);
/* False: too many are on their way already. */
bool dm_data_drop(dm_data *d, const char *hex);
/* Ordered, and perhaps not gone yet: whoever names it now must send it again. */
bool dm_data_dropping(dm_data *d, const char *hex);
void dm_data_stop(dm_data **d);

/* Binds and reports the place in words a user understands. `bound` gets ZMQ_LAST_ENDPOINT with "*" for any address. */
es_status dm_bind(void *socket, const char *endpoint, char bound[256], es_error *err) ES_MUST_CHECK;

#endif
