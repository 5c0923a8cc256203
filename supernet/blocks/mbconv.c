/* The inverted bottleneck: 1x1 to `expand` times the input's channels, depthwise, squeeze-excite, 1x1 to the width (MobileNetV2, arXiv:1801.04381; V3, arXiv:1905.02244). */
#include "supernet/blocks/block.h"

enum {
    EXPAND,
    EXPAND_NORM,
    DEPTHWISE,
    DEPTHWISE_NORM,
    SE,
    PROJECT = SE + SN_SE_SLOTS,
    PROJECT_NORM,
    SHORTCUT,
    DROP = SHORTCUT + SN_SHORTCUT_SLOTS,
    SLOTS
};

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const sn_block_options *o = &u->stage->o;
    kn_act act = (kn_act)w->set[SN_ACT];
    int hidden = sn_round_channels(x.c * w->set[SN_EXPAND], o->divisor);
    sn_window spatial = {.k = w->set[SN_KERNEL], .stride = u->stride, .dilation = o->dilation, .pad = SN_PAD_SAME};
    sn_val y = x, shortcut;
    if (w->set[SN_EXPAND] > 1 || hidden != x.c) {
        y = sn_walk_conv(w, y, EXPAND, "expand", hidden, (sn_window){.k = 1});
        y = sn_walk_norm(w, y, EXPAND_NORM, "expand_norm", act, o->affine, false);
    }
    y = sn_walk_depthwise(w, y, DEPTHWISE, "depthwise", spatial);
    y = sn_walk_norm(w, y, DEPTHWISE_NORM, "depthwise_norm", act, o->affine, false);
    y = sn_walk_se(w, y, SE);
    y = sn_walk_conv(w, y, PROJECT, "project", w->set[SN_WIDTH], (sn_window){.k = 1, .groups = w->set[SN_GROUPS]});
    y = sn_walk_norm(w, y, PROJECT_NORM, "project_norm", KN_ACT_NONE, o->affine,
                     o->zero_gamma && o->shortcut != SN_SHORTCUT_NONE);
    if (!sn_walk_shortcut(w, x, y, SHORTCUT, &shortcut))
        return y;
    y = sn_walk_drop_path(w, y, DROP, o->drop_path);
    return sn_walk_add(w, y, shortcut);
}

static const char *const keys[] = {"stride",    "dilation",   "affine",  "shortcut",
                                   "drop_path", "zero_gamma", "divisor", NULL};
const sn_block_kind sn_block_mbconv = {
    .name = "mbconv",
    .uses = 1u << SN_WIDTH | 1u << SN_KERNEL | 1u << SN_EXPAND | 1u << SN_GROUPS | 1u << SN_SE | 1u << SN_ACT,
    .needs = 1u << SN_WIDTH,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
