/* What a job will need, before anything is lowered. Measured against trainers and plans in tests/supernet/test_predict.c. */
#include <stdlib.h>
#include <string.h>

#include "supernet/searchfile/searchfile.h"
#include "supernet/space/walk.h"

/* docs/measurements.md, "Memory that is predicted": of the benchmark space, and test_predict.c of a small one. */
enum {
    LINK_PLAN_BYTES = 20 << 10,
    LINK_PASSES = 3, /* calibration, scoring, the last batch of scoring where it is smaller */
    KERNEL_BYTES = 4660,
    KERNELS_PER_LAYER = 3, /* forward and backward */
};

static const int repeating[] = {
#define X(NAME, name, spelling, repeating) repeating,
    SN_METHODS(X)
#undef X
};

static int64_t times(int64_t n, int options) { return options < 2 || n > SN_LINK_PLANS_MAX ? n : n * options; }

/* Different units of a space, as sn_link.unit tells them apart, are at most so many: what a unit chooses, and what the one before it hands on. */
static int64_t different_units(const sn_space *sp)
{
    int64_t sum = 0;
    for (int i = 0; i < sp->units && sum < SN_LINK_PLANS_MAX; i++) {
        const sn_unit *u = &sp->unit[i];
        const sn_field *in = i ? &sp->unit[i - 1].field[SN_WIDTH] : NULL;
        int64_t n = times(1, sp->resolution.n);
        for (int f = 0; f < SN_FIELDS; f++)
            n = times(n, u->field[f].n);
        if (in && (in->gene != u->field[SN_WIDTH].gene))
            n = times(n, in->n);
        if (strcmp(sn_block_kinds[u->field[SN_BLOCK].values[0]]->name, "cell") == 0)
            for (int e = 0; e < sp->spec->cell[u->stage->o.cell].edges; e++)
                n = times(n, sp->edge[u->stage->o.cell][e].n);
        sum += n;
    }
    return sum;
}

/* Of link plans, from how many subnets there are to score and how many different units there are in them. */
static int64_t link_bytes(const sn_search_file *f)
{
    int64_t plans = LINK_PASSES * different_units(f->space), most = SN_LINK_PLANS_MAX;
    if (f->evaluations < most && LINK_PASSES * f->evaluations * f->space->units < most)
        most = LINK_PASSES * f->evaluations * f->space->units;
    return LINK_PLAN_BYTES * (plans < most ? plans : most);
}

/* Of what a GPU records. */
static int64_t graph_bytes(const sn_search_file *f, const sn_cost *largest)
{
    int plans = repeating[f->supernet.method] < SN_PLANS_MAX ? repeating[f->supernet.method] : SN_PLANS_MAX;
    return (int64_t)plans * largest->layers * KERNELS_PER_LAYER * KERNEL_BYTES;
}

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
        return weights + SN_EVAL_BATCH * cost.activation_bytes + link_bytes(f);
    int64_t state = f->supernet.optimizer.kind == KN_SGD ? 1 : 2;
    if (f->supernet.optimizer.ema > 0)
        state++;
    return weights * (2 + state) + f->supernet.batch * cost.layers_bytes + graph_bytes(f, &cost);
}
