/* A densely connected layer: norm, activation, (1x1 to `expand` times the width, norm, activation,) k x k to `width` new channels, which are appended to the input
 * (DenseNet, arXiv:1608.06993). Layers after an elastic one read the prefix of their weights that their input's channels give. */
#include "supernet/blocks/block.h"

enum { NORM, SQUEEZE, SQUEEZE_NORM, CONV, DROP = CONV + 2, SLOTS };

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const sn_block_options *o = &u->stage->o;
    kn_act act = (kn_act)w->set[SN_ACT];
    sn_val y = sn_walk_norm(w, x, NORM, "norm", act, o->affine, false);
    if (w->set[SN_EXPAND] > 0) {
        y = sn_walk_conv(w, y, SQUEEZE, "squeeze", w->set[SN_WIDTH] * w->set[SN_EXPAND], (sn_window){.k = 1});
        y = sn_walk_norm(w, y, SQUEEZE_NORM, "squeeze_norm", act, o->affine, false);
    }
    sn_window spatial = {
        .k = w->set[SN_KERNEL], .groups = w->set[SN_GROUPS], .dilation = o->dilation, .pad = SN_PAD_SAME};
    y = sn_walk_conv(w, y, CONV, "conv", w->set[SN_WIDTH], spatial);
    y = sn_walk_dropout(w, y, DROP, o->rate, o->spatial);
    return sn_walk_concat(w, (const sn_val[]){x, y}, 2);
}

static const char *const keys[] = {"dilation", "affine", "rate", "spatial", NULL};
const sn_block_kind sn_block_dense = {
    .name = "dense",
    .uses = 1u << SN_WIDTH | 1u << SN_KERNEL | 1u << SN_EXPAND | 1u << SN_GROUPS | 1u << SN_ACT,
    .needs = 1u << SN_WIDTH,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
