/* Where a space of tokens begins: the first `width` columns of the embedding table and of the learned positions, added. */
#include "supernet/blocks/block.h"

enum { EMBED, SLOTS };

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    (void)u;
    return sn_walk_embed(w, x, EMBED, "embedding", w->set[SN_WIDTH]);
}

static const char *const keys[] = {NULL};
const sn_block_kind sn_block_embedding = {
    .name = "embedding",
    .uses = 1u << SN_WIDTH,
    .needs = 1u << SN_WIDTH,
    .head = true,
    .tokens = true,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
