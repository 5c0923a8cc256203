/* The bottleneck residual block: 1x1 to width / reduce channels, k x k (grouped), 1x1 to the width (ResNet, arXiv:1512.03385; grouped: ResNeXt, arXiv:1611.05431). */
#include "supernet/blocks/block.h"

enum {
    CONV1,
    CONV2 = CONV1 + 2,
    SE = CONV2 + 2,
    CONV3 = SE + SN_SE_SLOTS,
    SHORTCUT = CONV3 + 2,
    DROP = SHORTCUT + SN_SHORTCUT_SLOTS,
    SLOTS
};

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const sn_block_options *o = &u->stage->o;
    kn_act act = (kn_act)w->set[SN_ACT], between = o->preact ? KN_ACT_NONE : act,
           before = o->preact ? act : KN_ACT_NONE;
    int width = w->set[SN_WIDTH], hidden = sn_round_channels(width / o->reduce, o->divisor);
    sn_conv_act narrow = {.conv = "conv1", .norm = "norm1", .out = hidden, .k = 1, .act = between};
    sn_conv_act spatial = {.conv = "conv2",
                           .norm = "norm2",
                           .out = hidden,
                           .k = w->set[SN_KERNEL],
                           .stride = u->stride,
                           .groups = w->set[SN_GROUPS],
                           .act = between};
    sn_conv_act widen = {
        .conv = "conv3", .norm = "norm3", .out = width, .k = 1, .act = KN_ACT_NONE, .zero_gamma = o->zero_gamma};
    sn_val y = sn_walk_act(w, x, before), shortcut;
    y = sn_walk_conv_act(w, y, CONV1, &narrow);
    y = sn_walk_act(w, y, before);
    y = sn_walk_conv_act(w, y, CONV2, &spatial);
    y = sn_walk_act(w, y, before);
    y = sn_walk_se(w, y, SE);
    y = sn_walk_conv_act(w, y, CONV3, &widen);
    if (sn_walk_shortcut(w, x, y, SHORTCUT, &shortcut))
        y = sn_walk_add(w, sn_walk_drop_path(w, y, DROP, o->drop_path), shortcut);
    return o->preact ? y : sn_walk_act(w, y, act);
}

static const char *const keys[] = {"stride",    "dilation",   "norm",  "affine", "bias",    "shortcut",
                                   "drop_path", "zero_gamma", "order", "reduce", "divisor", NULL};
const sn_block_kind sn_block_bottleneck = {
    .name = "bottleneck",
    .uses = 1u << SN_WIDTH | 1u << SN_KERNEL | 1u << SN_GROUPS | 1u << SN_SE | 1u << SN_ACT,
    .needs = 1u << SN_WIDTH,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
