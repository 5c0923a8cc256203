/* What a job will need, before anything is lowered. Measured against trainers and plans in tests/supernet/test_predict.c. */
#include <stdlib.h>

#include "supernet/searchfile/searchfile.h"

enum { EVAL_BATCH = 128 }; /* SN_EVAL_BATCH of train/train.h, which the coordinator does not see */

int64_t sn_search_file_memory(const sn_search_file *f, bool training)
{
    sn_cost cost;
    if (!f->space)
        return 0;
    sr_arch *largest = sr_arch_new(sn_space_choices(f->space));
    sr_arch_largest(sn_space_choices(f->space), largest);
    es_status s = sn_space_cost(f->space, largest, &cost, NULL);
    free(largest);
    if (s != ES_OK)
        return 0;
    int64_t weights = 4 * cost.params;
    if (!training)
        return weights + EVAL_BATCH * cost.activation_bytes;
    int64_t state = f->supernet.optimizer.kind == KN_SGD ? 1 : 2;
    if (f->supernet.optimizer.ema > 0)
        state++;
    return weights * (2 + state) + f->supernet.batch * cost.layers_bytes;
}
