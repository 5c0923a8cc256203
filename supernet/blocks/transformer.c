/* A decoder layer (Vaswani et al. 2017, arXiv:1706.03762; norms before, as in Radford et al. 2019): x + attention(norm x), then x + feed-forward(norm x), no biases.
 *
 * Of a width w it has min(heads, w / head_dim) heads, so a narrow subnet has fewer than it chose. Queries, keys and values are one linear layer, whose rows are the first head's
 * query, key and value, then the next head's: its heads and the feed-forward are prefixes of the largest layer's rows; what reads them, prefixes of its columns. */
#include "supernet/blocks/block.h"

enum { NORM_1, QKV, OUT, NORM_2, UP, DOWN, SLOTS };

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const int width = x.c, dim = u->stage->o.head_dim; /* no wider than the narrowest net: space/read.c */
    const int most = width / dim, heads = w->set[SN_HEADS] < most ? w->set[SN_HEADS] : most;
    sn_val y = sn_walk_layer_norm(w, x, NORM_1, "norm_1");
    y = sn_walk_attention(w, sn_walk_linear(w, y, QKV, "qkv", 3 * heads * dim, false), heads);
    x = sn_walk_add(w, x, sn_walk_linear(w, y, OUT, "out", width, false));
    y = sn_walk_layer_norm(w, x, NORM_2, "norm_2");
    y = sn_walk_act(w, sn_walk_linear(w, y, UP, "up", width * w->set[SN_EXPAND], false), (kn_act)w->set[SN_ACT]);
    return sn_walk_add(w, x, sn_walk_linear(w, y, DOWN, "down", width, false));
}

static const char *const keys[] = {"head_dim", NULL};
const sn_block_kind sn_block_transformer = {
    .name = "transformer",
    .uses = 1u << SN_EXPAND | 1u << SN_HEADS | 1u << SN_ACT,
    .needs = 1u << SN_EXPAND | 1u << SN_HEADS,
    .tokens = true,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
