/* Where a space of tokens ends: the last norm, and the scores of every symbol by the embedding table itself (tied; Press and Wolf 2016, arXiv:1608.05859). */
#include "supernet/blocks/block.h"

enum { NORM, SLOTS };

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    x = sn_walk_layer_norm(w, x, NORM, "norm");
    return sn_walk_tied(w, x, &w->space->unit[0], u->stage->o.classes);
}

static const char *const keys[] = {NULL};
const sn_block_kind sn_block_language_head = {
    .name = "language_head",
    .head = true,
    .tokens = true,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
