/* The table of block kinds: space/ sees no more of this folder than it. */
#include "supernet/blocks/block.h"

#include <string.h>

/* To add a block: its file, its line in block.h, its line here. */
const sn_block_kind *const sn_block_kinds[] = {
    &sn_block_conv,
    &sn_block_mbconv,
    &sn_block_residual,
    &sn_block_bottleneck,
    &sn_block_dense,
    &sn_block_cell,
    &sn_block_pool,
    &sn_block_dropout,
    &sn_block_head,
    &sn_block_embedding,
    &sn_block_transformer,
    &sn_block_language_head,
    NULL,
};

const sn_block_kind *sn_block_kind_find(const char *name, int *index)
{
    for (int i = 0; sn_block_kinds[i]; i++)
        if (strcmp(sn_block_kinds[i]->name, name) == 0) {
            *index = i;
            return sn_block_kinds[i];
        }
    return NULL;
}
