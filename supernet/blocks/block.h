/* block.h - the kinds of blocks. space/walk.h says what a kind is and has the layers that one is made of.
 *
 * To add a block: a file <name>.c with its sn_block_kind (pool.c is the shortest, mbconv.c a usual one), its name here, its line in kinds.c. Search
 * files, messages, cost, explain, parameters, lowering and the tests of tests/supernet then know it; a space in examples/spaces that uses it has its
 * gradients checked.
 *
 * Invariants: `walk` emits the same slots whatever the architecture chooses (a layer left out leaves its slot unused), so that an architecture's
 * weights are slices of the largest one's; and it never looks at weights or at the device.
 */
#ifndef SN_BLOCK_H
#define SN_BLOCK_H

#include "supernet/space/walk.h"

extern const sn_block_kind sn_block_conv, sn_block_mbconv, sn_block_residual, sn_block_bottleneck, sn_block_dense,
    sn_block_cell, sn_block_pool, sn_block_dropout, sn_block_head, sn_block_embedding, sn_block_transformer,
    sn_block_language_head;

#endif
