/* Zero work: what the queue's benchmark and the simulator count. */
#include "worker/job.h"

es_status wk_run_noop(wk_job *j, dm_job_result *r, es_error *err)
{
    (void)j;
    (void)r;
    (void)err;
    return ES_OK;
}
