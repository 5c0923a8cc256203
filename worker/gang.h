/* gang.h - a worker as a rank of a gang: how it meets the others through the coordinator.
 *
 *     kn_collective *gang; ES_GOTO(wk_gang_open(job, &gang, err));        // rank 0 offers its id, the others wait for it; then all wait for all
 *
 * A job that is cancelled ends its collective; one that is handed back stops with the others at a step's boundary.
 */
#ifndef WK_GANG_H
#define WK_GANG_H

#include "worker/job.h"

enum {
    WK_GANG_LIMIT_MS = 180000
}; /* for a rank that is silent but alive; the coordinator's lease is usually shorter */

es_status wk_gang_open(wk_job *j, kn_collective **out, es_error *err) ES_MUST_CHECK;
/* Where other ranks reach this worker: as given, else the local address of the way to the coordinator; 127.0.0.1 beside a local one. */
es_status wk_gang_address(const char *given, const char *endpoint, char *out, size_t size, es_error *err) ES_MUST_CHECK;

#endif
