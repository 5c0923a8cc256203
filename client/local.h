/* local.h - a coordinator and workers as child processes, for `espalier run`: the same programs a cluster runs, over ipc:// in a state directory.
 *
 *     cl_local *l; cl_local_open("out/.espalier", &l, err);        // one run at a time: a lock, held until the last child is gone
 *     cl_local_start(l, workers, threads, device, err);
 *     while (...) { cl_local_tend(l, err); ... }                   // restarts what died, reports what cannot live
 *     cl_local_stop(l);                                            // workers hand back, then the coordinator ends
 *     cl_local_close(&l);
 *
 * The directory holds the databases, the programs' logs and the sockets (elsewhere when its path is too long for a socket). Children get SIGTERM when
 * this process dies, whatever way; nothing is lost then, the next run goes on.
 */
#ifndef CL_LOCAL_H
#define CL_LOCAL_H

#include "daemon/wire/peer.h"

#include <stdbool.h>

enum { CL_WORKERS_MAX = 64 };

typedef struct cl_local cl_local;

/* ES_BUSY when another run holds the directory. Waits a little for one that is ending. */
es_status cl_local_open(const char *dir, cl_local **out, es_error *err) ES_MUST_CHECK;
es_status cl_local_start(cl_local *l, int workers, int threads, const char *device, es_error *err) ES_MUST_CHECK;
es_status cl_local_tend(cl_local *l, es_error *err) ES_MUST_CHECK;
void cl_local_stop(cl_local *l);
void cl_local_close(cl_local **l);                /* stops first */
const char *cl_local_endpoint(const cl_local *l); /* of the coordinator */
const char *cl_local_data_endpoint(const cl_local *l);

#endif
