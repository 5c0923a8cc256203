/* The head: (norm and activation,) (1x1 to `expand` times the channels, norm, activation,) global average pool or flatten, (1x1 to `width`, activation,) hidden linear layers,
 * dropout, classifier. With expand and width it is the last stage of MobileNetV3, arXiv:1905.02244. */
#include "supernet/blocks/block.h"

enum { NORM, EXPAND, EXPAND_NORM, WIDTH, DROP, CLASSIFIER, HIDDEN, SLOTS = HIDDEN + SN_HIDDEN_MAX };
static const char *const hidden_names[SN_HIDDEN_MAX] = {"hidden.0", "hidden.1", "hidden.2", "hidden.3",
                                                        "hidden.4", "hidden.5", "hidden.6", "hidden.7"};

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    const sn_block_options *o = &u->stage->o;
    kn_act act = (kn_act)w->set[SN_ACT];
    if (o->norm)
        x = sn_walk_norm(w, x, NORM, "norm", act, o->affine, false);
    if (w->set[SN_EXPAND] > 0) {
        x = sn_walk_conv(w, x, EXPAND, "expand", x.c * w->set[SN_EXPAND], (sn_window){.k = 1});
        x = sn_walk_norm(w, x, EXPAND_NORM, "expand_norm", act, o->affine, false);
    }
    x = o->flatten ? sn_walk_flatten(w, x) : sn_walk_global_pool(w, x);
    if (u->field[SN_WIDTH].n > 0)
        x = sn_walk_act(w, sn_walk_linear(w, x, WIDTH, "width", w->set[SN_WIDTH], false), act);
    for (int i = 0; i < o->hidden; i++) {
        x = sn_walk_linear(w, x, HIDDEN + i, hidden_names[i], o->hidden_width[i], false);
        x = sn_walk_bias(w, x, HIDDEN + i, hidden_names[i], act);
    }
    x = sn_walk_dropout(w, x, DROP, o->rate, false);
    x = sn_walk_linear(w, x, CLASSIFIER, "classifier", o->classes, true);
    return sn_walk_bias(w, x, CLASSIFIER, "classifier", KN_ACT_NONE);
}

static const char *const keys[] = {"norm", "affine", "pool", "hidden", "dropout", "classes", NULL};
const sn_block_kind sn_block_head = {
    .name = "head",
    .uses = 1u << SN_WIDTH | 1u << SN_EXPAND | 1u << SN_ACT,
    .head = true,
    .keys = keys,
    .slots = SLOTS,
    .walk = walk,
};
