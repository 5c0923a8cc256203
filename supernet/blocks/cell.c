/* A cell: a directed graph of nodes, node 0 its input; every edge runs one op on its source, a node is the sum of its edges. The output is the last node, or the nodes
 * concatenated (NAS-Bench-201, arXiv:2001.00326; DARTS-like toy cells of weight entanglement). To add an op: one walk function, one line in the table. */
#include <stdio.h>
#include <string.h>

#include "supernet/blocks/block.h"

typedef struct cell_op {
    const char *name;
    int family; /* with `entangled` ops of one family share weights: the smaller kernel is the centre of the larger */
    int slots, k;
    bool (*walk)(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c,
                 sn_val *y); /* false: gives nothing */
} cell_op;

static bool op_none(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c, sn_val *y)
{
    (void)w, (void)slot, (void)k, (void)stride, (void)c;
    *y = x;
    return false;
}

/* With a stride: the mean of windows that begin `stride` apart and give ceil(size / stride) both ways, as a convolution of that stride does. */
static bool op_skip(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c, sn_val *y)
{
    (void)slot, (void)k, (void)c;
    const bool h = x.h % stride == 0, v = x.w % stride == 0, mixed = h != v && stride % 2 == 0;
    sn_window win = {.k = mixed ? stride + 1 : stride, .stride = stride, .pad = h && v ? 0 : stride / 2};
    *y = stride == 1 ? x : sn_walk_pool(w, x, false, win);
    return true;
}

static bool op_avg_pool(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c, sn_val *y)
{
    (void)slot, (void)c;
    *y = sn_walk_pool(w, x, false, (sn_window){.k = k, .stride = stride, .pad = k / 2});
    return true;
}

static bool op_max_pool(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c, sn_val *y)
{
    (void)slot, (void)c;
    *y = sn_walk_pool(w, x, true, (sn_window){.k = k, .stride = stride, .pad = k / 2});
    return true;
}

static bool op_conv(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c, sn_val *y)
{
    x = sn_walk_act(w, x, (kn_act)c->act);
    x = sn_walk_conv(w, x, slot, "conv", x.c, (sn_window){.k = k, .stride = stride, .pad = SN_PAD_SAME});
    *y = sn_walk_norm(w, x, slot + 1, "norm", KN_ACT_NONE, c->affine, false);
    return true;
}

static bool separable(sn_walk *w, sn_val x, int slot, const char *const names[3], sn_window win, const sn_cell_spec *c,
                      sn_val *y)
{
    x = sn_walk_act(w, x, (kn_act)c->act);
    x = sn_walk_depthwise(w, x, slot, names[0], win);
    x = sn_walk_conv(w, x, slot + 1, names[1], x.c, (sn_window){.k = 1});
    *y = sn_walk_norm(w, x, slot + 2, names[2], KN_ACT_NONE, c->affine, false);
    return true;
}

static bool op_sep(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c, sn_val *y)
{
    static const char *const names[2][3] = {{"depthwise1", "pointwise1", "norm1"},
                                            {"depthwise2", "pointwise2", "norm2"}};
    separable(w, x, slot, names[0], (sn_window){.k = k, .stride = stride, .pad = SN_PAD_SAME}, c, y);
    return separable(w, *y, slot + 3, names[1], (sn_window){.k = k, .pad = SN_PAD_SAME}, c, y);
}

static bool op_dil(sn_walk *w, sn_val x, int slot, int k, int stride, const sn_cell_spec *c, sn_val *y)
{
    static const char *const names[3] = {"depthwise", "pointwise", "norm"};
    sn_window win = {.k = k, .stride = stride, .dilation = 2, .pad = SN_PAD_SAME};
    return separable(w, x, slot, names, win, c, y);
}

static const cell_op ops[] = {
    {"none", 0, 0, 0, op_none},
    {"skip_connect", 1, 0, 0, op_skip},
    {"avg_pool_3x3", 2, 0, 3, op_avg_pool},
    {"max_pool_3x3", 3, 0, 3, op_max_pool},
    {"nor_conv_1x1", 4, 2, 1, op_conv},
    {"nor_conv_3x3", 4, 2, 3, op_conv},
    {"sep_conv_3x3", 5, 6, 3, op_sep},
    {"sep_conv_5x5", 5, 6, 5, op_sep},
    {"sep_conv_7x7", 5, 6, 7, op_sep},
    {"dil_conv_3x3", 6, 3, 3, op_dil},
    {"dil_conv_5x5", 6, 3, 5, op_dil},
};
enum { OPS = sizeof ops / sizeof ops[0], FAMILIES = 7 };
const char *const sn_cell_op_names[OPS + 1] = {"none",         "skip_connect", "avg_pool_3x3", "max_pool_3x3",
                                               "nor_conv_1x1", "nor_conv_3x3", "sep_conv_3x3", "sep_conv_5x5",
                                               "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5", NULL};

/* Slots: two for the input's 1x1, then per edge and op (or family) its own. */
static int op_slot(const sn_cell_spec *c, int edge, int op)
{
    int per_edge = 0, at = 0;
    for (int i = 0; i < OPS; i++) {
        bool first = !c->entangled || i == 0 || ops[i - 1].family != ops[i].family;
        if (op < OPS && first && (c->entangled ? ops[i].family == ops[op].family : i == op))
            at = per_edge;
        per_edge += first ? ops[i].slots : 0;
    }
    return op == OPS ? per_edge : 2 + edge * op_slot(c, 0, OPS) + at;
}

static int slots(const sn_space *sp, const sn_unit *u)
{
    const sn_cell_spec *c = &sp->spec->cell[u->stage->o.cell];
    return 2 + c->edges * op_slot(c, 0, OPS);
}

static const char *scope_of(const sn_walk *w, int cell, int edge, int op, char *buf, size_t size)
{
    const sn_cell_spec *c = &w->space->spec->cell[cell];
    /* Names matter to declaration and explain only; both format them, the others never look. */
    snprintf(buf, size, "%s.%.*s", w->space->edge_scope[cell][edge], c->entangled ? 3 : 16, ops[op].name);
    return buf;
}

static sn_val walk(sn_walk *w, const sn_unit *u, sn_val x)
{
    int id = u->stage->o.cell;
    const sn_cell_spec *c = &w->space->spec->cell[id];
    sn_val node[SN_CELL_NODES_MAX + 1];
    bool filled[SN_CELL_NODES_MAX + 1] = {true};
    char scope[64];
    if (c->preprocess) {
        x = sn_walk_act(w, x, (kn_act)c->act);
        x = sn_walk_conv(w, x, 0, "input", w->set[SN_WIDTH], (sn_window){.k = 1});
        x = sn_walk_norm(w, x, 1, "input_norm", KN_ACT_NONE, c->affine, false);
    }
    node[0] = x;
    for (int n = 1; n <= c->nodes && w->status == ES_OK; n++) {
        for (int e = 0; e < c->edges; e++) {
            if (c->edge[e].to != n)
                continue;
            const sn_field *f = &w->space->edge[id][e];
            int from = c->edge[e].from, stride = from == 0 ? u->stride : 1;
            for (int i = 0; i < (w->arch ? 1 : f->n); i++) {
                int op = w->arch ? sn_field_value(f, w->arch) : f->values[i];
                sn_val y;
                w->scope = w->want_names ? scope_of(w, id, e, op, scope, sizeof scope) : "";
                bool some = ops[op].walk(w, node[from], op_slot(c, e, op), ops[op].k, stride, c, &y);
                w->scope = NULL;
                if (!some)
                    continue;
                node[n] = filled[n] ? sn_walk_add(w, node[n], y) : y;
                filled[n] = true;
            }
        }
        if (!filled[n]) { /* nothing arrives: zeros of the shape that an edge from the input would give */
            node[n] = sn_walk_zero(w, (x.h + u->stride - 1) / u->stride, (x.w + u->stride - 1) / u->stride, x.c);
        }
    }
    return c->concat ? sn_walk_concat(w, node + 1, c->nodes) : node[c->nodes];
}

static const char *const keys[] = {"stride", "cell", NULL};
const sn_block_kind sn_block_cell = {
    .name = "cell", .uses = 1u << SN_WIDTH, .keys = keys, .slots_of = slots, .walk = walk};
