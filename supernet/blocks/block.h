/* block.h - the kinds of blocks. Each is one file <name>.c; space/walk.h says what a kind is. */
#ifndef SN_BLOCK_H
#define SN_BLOCK_H

#include "supernet/space/walk.h"

extern const sn_block_kind sn_block_conv, sn_block_mbconv, sn_block_residual, sn_block_bottleneck, sn_block_dense,
    sn_block_cell, sn_block_pool, sn_block_dropout, sn_block_head, sn_block_embedding, sn_block_transformer,
    sn_block_language_head;

#endif
