/* A convolution with batch norm or bias, and an activation; optionally squeeze-excite and a shortcut. Also the stem. */
#include "supernet/blocks/block.h"

enum { CONV, SE = CONV + 2, SHORTCUT = SE + SN_SE_SLOTS, DROP = SHORTCUT + SN_SHORTCUT_SLOTS, SLOTS };

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const sn_block_options *o = &u->stage->o;
    sn_conv_act conv = {.conv = "conv",
                        .norm = "norm",
                        .out = w->set[SN_WIDTH],
                        .k = w->set[SN_KERNEL],
                        .stride = u->stride,
                        .groups = w->set[SN_GROUPS],
                        .act = (kn_act)w->set[SN_ACT],
                        .zero_gamma = o->zero_gamma};
    sn_val y = sn_walk_conv_act(w, x, CONV, &conv), shortcut;
    y = sn_walk_se(w, y, SE);
    if (!sn_walk_shortcut(w, x, y, SHORTCUT, &shortcut))
        return y;
    y = sn_walk_drop_path(w, y, DROP, o->drop_path);
    return sn_walk_add(w, y, shortcut);
}

static const char *const keys[] = {"stride", "padding",  "dilation",  "norm",       "affine",
                                   "bias",   "shortcut", "drop_path", "zero_gamma", NULL};
const sn_block_kind sn_block_conv = {
    .name = "conv",
    .uses = 1u << SN_WIDTH | 1u << SN_KERNEL | 1u << SN_GROUPS | 1u << SN_SE | 1u << SN_ACT,
    .needs = 1u << SN_WIDTH,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
