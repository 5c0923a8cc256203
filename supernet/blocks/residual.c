/* The basic residual block, two convolutions (ResNet, arXiv:1512.03385): `order: post` convolution, norm, activation with the activation after the sum; `order: pre`
 * activation, convolution, norm twice and nothing after the sum (NAS-Bench-201). */
#include "supernet/blocks/block.h"

enum {
    CONV1,
    CONV2 = CONV1 + 2,
    SE = CONV2 + 2,
    SHORTCUT = SE + SN_SE_SLOTS,
    DROP = SHORTCUT + SN_SHORTCUT_SLOTS,
    SLOTS
};

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const sn_block_options *o = &u->stage->o;
    kn_act act = (kn_act)w->set[SN_ACT], between = o->preact ? KN_ACT_NONE : act;
    int width = w->set[SN_WIDTH], k = w->set[SN_KERNEL], groups = w->set[SN_GROUPS];
    sn_conv_act first = {
        .conv = "conv1", .norm = "norm1", .out = width, .k = k, .stride = u->stride, .groups = groups, .act = between};
    sn_conv_act second = {.conv = "conv2",
                          .norm = "norm2",
                          .out = width,
                          .k = k,
                          .groups = groups,
                          .act = KN_ACT_NONE,
                          .zero_gamma = o->zero_gamma};
    sn_val y = o->preact ? sn_walk_act(w, x, act) : x, shortcut;
    y = sn_walk_conv_act(w, y, CONV1, &first);
    if (o->preact)
        y = sn_walk_act(w, y, act);
    y = sn_walk_conv_act(w, y, CONV2, &second);
    y = sn_walk_se(w, y, SE);
    if (sn_walk_shortcut(w, x, y, SHORTCUT, &shortcut))
        y = sn_walk_add(w, sn_walk_drop_path(w, y, DROP, o->drop_path), shortcut);
    return o->preact ? y : sn_walk_act(w, y, act);
}

static const char *const keys[] = {"stride",   "dilation",  "norm",       "affine", "bias",
                                   "shortcut", "drop_path", "zero_gamma", "order",  NULL};
const sn_block_kind sn_block_residual = {
    .name = "residual",
    .uses = 1u << SN_WIDTH | 1u << SN_KERNEL | 1u << SN_GROUPS | 1u << SN_SE | 1u << SN_ACT,
    .needs = 1u << SN_WIDTH,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
