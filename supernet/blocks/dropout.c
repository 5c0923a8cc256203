/* Dropout: `rate`, and `spatial: true` to drop whole channels (arXiv:1411.4280). Active only where the lowering says `regularise`. */
#include "supernet/blocks/block.h"

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    return sn_walk_dropout(w, x, 0, u->stage->o.rate, u->stage->o.spatial);
}

static const char *const keys[] = {"rate", "spatial", NULL};
const sn_block_kind sn_block_dropout = {.name = "dropout", .keys = keys, .slots = 1, .walk = walk};
