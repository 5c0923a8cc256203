/* Top-level blocks with their cost, and cutting a net into parts (Deep Model Assembling, arXiv:2212.04129). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/net/internal.h"
#include "supernet/space/cost.h"

typedef struct tally {
    sn_block *block;
    int count;
    int64_t params, macs;
} tally;

static uint32_t tally_op(sn_walk *w, const sn_op *op)
{
    tally *t = w->ctx;
    t->params += sn_op_params(op);
    t->macs += sn_op_macs(w->space, op);
    return 0;
}

static void tally_unit(sn_walk *w, const sn_unit *u, sn_val in, sn_val out)
{
    tally *t = w->ctx;
    sn_block *b = &t->block[t->count++];
    *b = (sn_block){
        .unit = w->unit_index, .stage = u->stage->index, .layer = u->layer, .params = t->params, .macs = t->macs};
    b->keeps_shape = in.h == out.h && in.w == out.w && in.c == out.c;
    snprintf(b->name, sizeof b->name, "%s", u->name);
    t->params = t->macs = 0;
}

es_status sn_net_blocks(const sn_net *n, const sr_arch *a, sn_block **blocks, int *count, es_error *err)
{
    tally t = {.block = es_xcalloc((size_t)n->space->units, sizeof *t.block)};
    sn_walk w = {.space = n->space, .arch = a, .emit = tally_op, .unit_done = tally_unit, .ctx = &t};
    es_status s = sn_walk_run(&w, err);
    if (s != ES_OK) {
        free(t.block);
        t = (tally){0};
    }
    *blocks = t.block;
    *count = t.count;
    return s;
}

int sn_net_units(const sn_net *n) { return n->space->units; }

int sn_net_param_unit(const sn_net *n, int set, kn_param id)
{
    ES_ASSERT(set >= 0 && set < KN_SETS && id >= 0 &&
              id < kn_params_count(set == KN_SET_WEIGHTS ? n->params : n->stats));
    return n->unit_of[set][id];
}

/* The cut whose dearest part is cheapest: the least limit for which filling parts from the front suffices. The first such filling leaves late parts empty, so every part
 * takes at least one block and leaves one for each part behind it. */
static int fill(const sn_block *b, int count, int parts, int64_t limit, int *begins)
{
    int used = 0;
    int64_t sum = 0;
    for (int i = 0; i < count; i++) {
        bool forced = count - i == parts - used && i > 0; /* one block for each part that is left */
        if (i == 0 || sum + b[i].macs > limit || forced) {
            if (used == parts)
                return parts + 1;
            begins[used++] = i;
            sum = 0;
        }
        sum += b[i].macs;
    }
    return used;
}

static void cut_evenly(const sn_block *b, int count, int parts, int *begins)
{
    int64_t low = 0, high = 0;
    for (int i = 0; i < count; i++) {
        low = b[i].macs > low ? b[i].macs : low;
        high += b[i].macs;
    }
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (fill(b, count, parts, mid, begins) <= parts)
            high = mid;
        else
            low = mid + 1;
    }
    fill(b, count, parts, low, begins);
}

es_status sn_net_cut(const sn_net *n, const sr_arch *a, int parts, const int *at, int *part, es_error *err)
{
    sn_block *b = NULL;
    int count = 0, *begins = NULL;
    es_status s = ES_OK;
    ES_GOTO(sn_net_blocks(n, a, &b, &count, err));
    if (parts < 1 || parts > count) {
        s = es_fail(err, ES_INVALID, "modules.parts", "%d parts of %d blocks; allowed: 1 to %d", parts, count, count);
        goto fail;
    }
    begins = es_xcalloc((size_t)parts, sizeof *begins);
    if (!at)
        cut_evenly(b, count, parts, begins);
    for (int k = 1; at && k < parts; k++) {
        begins[k] = at[k - 1];
        if (begins[k] <= begins[k - 1] || begins[k] >= count) {
            s = es_fail(err, ES_INVALID, "modules.cuts",
                        "part %d cannot begin at block %d; allowed: rising numbers from 1 to %d", k, begins[k],
                        count - 1);
            goto fail;
        }
    }
    for (int u = 0; u < n->space->units; u++)
        part[u] = -1;
    for (int i = 0, k = 0; i < count; i++) {
        while (k + 1 < parts && begins[k + 1] <= i)
            k++;
        part[b[i].unit] = k;
    }
fail:
    free(begins);
    free(b);
    return s;
}

es_status sn_net_part_flags(const sn_net *n, const sr_arch *a, const int *part, int trained, uint8_t *flags,
                            es_error *err)
{
    sn_block *b = NULL;
    int count = 0;
    ES_RETURN(sn_net_blocks(n, a, &b, &count, err));
    memset(flags, 0, (size_t)n->space->units);
    for (int i = 0; i < count; i++) {
        int k = part[b[i].unit];
        if (k == trained)
            continue;
        /* Of a part that is not trained: what changes the shape stays, and one block if nothing does. */
        bool first = true, reshaped = false;
        for (int j = 0; j < count; j++)
            if (part[b[j].unit] == k) {
                reshaped |= !b[j].keeps_shape;
                first &= j >= i;
            }
        if (b[i].keeps_shape && (reshaped || !first))
            flags[b[i].unit] |= SN_UNIT_SKIP;
        if (trained >= 0)
            flags[b[i].unit] |= SN_UNIT_FROZEN;
    }
    free(b);
    return ES_OK;
}
