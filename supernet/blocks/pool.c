/* A pooling layer: `kind: max` or `avg`, `kernel`, `stride` (the kernel unless given), `padding` (0 unless given). No parameters. */
#include "supernet/blocks/block.h"

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const sn_block_options *o = &u->stage->o;
    int k = w->set[SN_KERNEL];
    if (o->padding > 0 && 2 * o->padding > k) {
        sn_walk_fail(w, "padding %d is more than half the kernel %d", o->padding, k);
        return x;
    }
    sn_window win = {.k = k, .stride = o->stride ? u->stride : k, .pad = o->padding < 0 ? 0 : o->padding};
    return sn_walk_pool(w, x, o->max_pool, win);
}

static const char *const keys[] = {"stride", "padding", "kind", NULL};
const sn_block_kind sn_block_pool = {
    .name = "pool",
    .uses = 1u << SN_KERNEL,
    .even_kernels = true,
    .keys = keys,
    .walk = walk,
};
