/* The `space:` section: YAML to sn_spec. What can be checked without the network is checked here, with its place in the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/space/walk.h"

const char *const sn_field_names[SN_FIELDS + 1] = {"block", "width",      "kernel", "expand", "groups",
                                                   "se",    "activation", "heads",  NULL};
const char *const sn_act_names[] = {"none", "relu", "relu6",   "hswish", "hsigmoid",
                                    "silu", "gelu", "sigmoid", "tanh",   NULL};
static const char *const per_names[] = {"stage", "layer", NULL};
static const char *const shortcut_names[] = {"none", "identity", "pool", "conv", NULL};

/* One option: a number, a name, or a truth value. */
static es_status read_option(const es_yaml_node *n, sn_field_kind kind, int min, int max, int *out, es_error *err)
{
    if (kind == SN_ACT)
        return es_yaml_enum(n, sn_act_names, out, err);
    if (kind == SN_SE) {
        bool on;
        ES_RETURN(es_yaml_bool(n, &on, err));
        *out = on;
        return ES_OK;
    }
    if (kind == SN_BLOCK) {
        const char *names[32];
        int index[32], count = 0, k;
        for (int i = 0; sn_block_kinds[i] && count < 31; i++)
            if (!sn_block_kinds[i]->head) {
                names[count] = sn_block_kinds[i]->name;
                index[count++] = i;
            }
        names[count] = NULL;
        ES_RETURN(es_yaml_enum(n, names, &k, err));
        *out = index[k];
        return ES_OK;
    }
    int64_t v;
    ES_RETURN(es_yaml_i64(n, min, max, &v, err));
    *out = (int)v;
    return ES_OK;
}

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* A scalar is a choice of one; a list; or {choose: list, per: stage | layer}. Sorted from the smallest network to the largest where that has a meaning. */
static es_status read_range(const es_yaml_node *n, sn_field_kind kind, int min, int max, sn_range *out, es_error *err)
{
    if (n->kind == ES_YAML_MAP) {
        static const char *const keys[] = {"choose", "per", NULL};
        int per = out->per_layer;
        ES_RETURN(es_yaml_check_keys(n, keys, err));
        ES_RETURN(es_yaml_get_enum(n, "per", per_names, &per, err));
        const es_yaml_node *choose = es_yaml_find(n, "choose");
        if (!choose || choose->kind == ES_YAML_MAP)
            return es_yaml_fail(n, err, "expected `choose:` with a value or a list");
        out->per_layer = per;
        return read_range(choose, kind, min, max, out, err);
    }
    size_t count = n->kind == ES_YAML_LIST ? n->count : 1;
    if (count < 1 || count > SR_OPTIONS_MAX)
        return es_yaml_fail(n, err, "%zu options; allowed: 1 to %d", count, SR_OPTIONS_MAX);
    for (size_t i = 0; i < count; i++) {
        const es_yaml_node *item = n->kind == ES_YAML_LIST ? n->items[i] : n;
        ES_RETURN(read_option(item, kind, min, max, &out->values[i], err));
        for (size_t j = 0; j < i; j++)
            if (out->values[j] == out->values[i])
                return es_yaml_fail(item, err, "%s is there twice", item->text);
    }
    out->n = (int)count;
    if (kind != SN_ACT && kind != SN_BLOCK)
        qsort(out->values, count, sizeof(int), by_value);
    if (kind == SN_GROUPS) /* more groups, fewer weights */
        for (int i = 0; i < out->n / 2; i++) {
            int t = out->values[i];
            out->values[i] = out->values[out->n - 1 - i];
            out->values[out->n - 1 - i] = t;
        }
    return ES_OK;
}

static void set_one(sn_range *r, int value) { *r = (sn_range){.n = 1, .values = {value}}; }

static es_status read_se(const es_yaml_node *n, sn_stage_spec *s, es_error *err)
{
    sn_range *r = &s->range[SN_SE];
    if (n->kind != ES_YAML_MAP)
        return read_range(n, SN_SE, 0, 1, r, err);
    static const char *const keys[] = {"choose", "per", "ratio", "divisor", "activation", "gate", NULL};
    int64_t ratio = s->o.se_ratio, divisor = s->o.se_divisor;
    int per = r->per_layer;
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_i64(n, "ratio", 1, 64, &ratio, err));
    ES_RETURN(es_yaml_get_i64(n, "divisor", 1, 64, &divisor, err));
    ES_RETURN(es_yaml_get_enum(n, "activation", sn_act_names, &s->o.se_act, err));
    ES_RETURN(es_yaml_get_enum(n, "gate", sn_act_names, &s->o.se_gate, err));
    ES_RETURN(es_yaml_get_enum(n, "per", per_names, &per, err));
    s->o.se_ratio = (int)ratio;
    s->o.se_divisor = (int)divisor;
    set_one(r, 1);
    r->per_layer = per;
    const es_yaml_node *choose = es_yaml_find(n, "choose");
    return choose ? read_range(choose, SN_SE, 0, 1, r, err) : ES_OK;
}

/* `out` keeps its value when the key is absent. */
static es_status get_int(const es_yaml_node *n, const char *key, int min, int max, int *out, es_error *err)
{
    int64_t v = *out;
    ES_RETURN(es_yaml_get_i64(n, key, min, max, &v, err));
    *out = (int)v;
    return ES_OK;
}

static es_status get_float(const es_yaml_node *n, const char *key, double min, double max, float *out, es_error *err)
{
    double v = *out;
    ES_RETURN(es_yaml_get_f64(n, key, min, max, &v, err));
    *out = (float)v;
    return ES_OK;
}

static es_status read_cell_name(const es_yaml_node *n, const sn_spec *spec, int *out, es_error *err)
{
    const es_yaml_node *c = es_yaml_find(n, "cell");
    if (!c)
        return es_yaml_fail(n, err, "a stage of cells needs `cell:` with the name of one of the `cells`");
    const char *names[SN_CELLS_MAX + 1] = {NULL};
    for (int i = 0; i < spec->cells; i++)
        names[i] = spec->cell[i].name;
    if (!spec->cells)
        return es_yaml_fail(c, err, "the space has no `cells`");
    return es_yaml_enum(c, names, out, err);
}

/* The fixed keys of a stage: each reads only where it is present; which keys may be present was checked before. */
/* A head is as wide in every subnet, so that the first heads of a layer are the first rows of its weights: no wider than the narrowest net. */
static es_status read_head_dim(const es_yaml_node *n, const sn_spec *spec, int *dim, es_error *err)
{
    const int narrowest = spec->vocabulary ? spec->stage[0].range[SN_WIDTH].values[0] : *dim;
    *dim = *dim < narrowest ? *dim : narrowest;
    ES_RETURN(get_int(n, "head_dim", 1, 256, dim, err));
    if (*dim > narrowest)
        return es_yaml_fail(es_yaml_find(n, "head_dim"), err,
                            "heads of %d are wider than the narrowest net; allowed: 1 to %d, the smallest stem.width",
                            *dim, narrowest);
    return ES_OK;
}

static es_status read_options(const es_yaml_node *n, const sn_spec *spec, sn_stage_spec *s, es_error *err)
{
    static const char *const kinds[] = {"avg", "max", NULL}, *const orders[] = {"post", "pre", NULL};
    sn_block_options *o = &s->o;
    int shortcut = (int)o->shortcut, pool = o->max_pool, order = o->preact;
    ES_RETURN(get_int(n, "stride", 1, 8, &o->stride, err));
    ES_RETURN(get_int(n, "padding", 0, 16, &o->padding, err));
    ES_RETURN(get_int(n, "dilation", 1, 8, &o->dilation, err));
    ES_RETURN(es_yaml_get_bool(n, "norm", &o->norm, err));
    o->bias = !o->norm;
    ES_RETURN(es_yaml_get_bool(n, "bias", &o->bias, err));
    ES_RETURN(es_yaml_get_bool(n, "affine", &o->affine, err));
    ES_RETURN(es_yaml_get_bool(n, "zero_gamma", &o->zero_gamma, err));
    ES_RETURN(es_yaml_get_bool(n, "spatial", &o->spatial, err));
    ES_RETURN(es_yaml_get_enum(n, "shortcut", shortcut_names, &shortcut, err));
    ES_RETURN(es_yaml_get_enum(n, "kind", kinds, &pool, err));
    ES_RETURN(es_yaml_get_enum(n, "order", orders, &order, err));
    ES_RETURN(get_float(n, "drop_path", 0, 0.9, &o->drop_path, err));
    ES_RETURN(get_float(n, "rate", 0, 0.9, &o->rate, err));
    ES_RETURN(get_int(n, "divisor", 1, 64, &o->divisor, err));
    ES_RETURN(get_int(n, "reduce", 1, 64, &o->reduce, err));
    ES_RETURN(read_head_dim(n, spec, &o->head_dim, err));
    o->shortcut = (sn_shortcut)shortcut;
    o->max_pool = pool;
    o->preact = order;
    if (o->padding >= 0 && s->range[SN_KERNEL].n > 1)
        return es_yaml_fail(es_yaml_find(n, "padding"), err,
                            "a fixed padding needs one kernel; leave it out to keep the size for every kernel");
    return es_yaml_find(n, "cell") ? read_cell_name(n, spec, &o->cell, err) : ES_OK;
}

static es_status check_stage_keys(const es_yaml_node *n, const sn_stage_spec *s, bool stem, unsigned uses,
                                  es_error *err)
{
    const char *allowed[64];
    int count = 0;
    if (s->index >= 0) {
        allowed[count++] = "block";
        allowed[count++] = "depth";
    }
    if (!stem)
        allowed[count++] = "per";
    for (int f = SN_WIDTH; f < SN_FIELDS; f++)
        if (uses >> f & 1)
            allowed[count++] = sn_field_names[f];
    for (int b = 0; b < s->range[SN_BLOCK].n; b++)
        for (const char *const *k = sn_block_kinds[s->range[SN_BLOCK].values[b]]->keys; *k; k++) {
            bool there = false;
            for (int i = 0; i < count; i++)
                there |= strcmp(allowed[i], *k) == 0;
            if (!there && count < 63)
                allowed[count++] = *k;
        }
    allowed[count] = NULL;
    return es_yaml_check_keys(n, allowed, err);
}

static void stage_defaults(sn_stage_spec *s, const sn_spec *spec, const es_yaml_node *n, int index, bool per_layer,
                           int act)
{
    s->index = index;
    s->o = (sn_block_options){.stride = 0,
                              .padding = -1,
                              .dilation = 1,
                              .norm = true,
                              .affine = true,
                              .divisor = 1,
                              .se_ratio = 4,
                              .se_divisor = 1,
                              .se_act = -1,
                              .se_gate = KN_ACT_SIGMOID,
                              .max_pool = true,
                              .head_dim = 64,
                              .reduce = 4};
    set_one(&s->depth, 1);
    set_one(&s->range[SN_ACT], act);
    for (int f = 0; f < SN_FIELDS; f++)
        s->range[f].per_layer = per_layer && f != SN_WIDTH;
    s->where = es_arena_printf(spec->arena, "%s:%d:%d: %s", es_yaml_name(n->doc), n->line, n->column, n->path);
}

/* What a stage's block kinds give when their fields are not there. */
static void field_defaults(sn_stage_spec *s, unsigned uses)
{
    int first = s->range[SN_BLOCK].values[0];
    const char *kind = sn_block_kinds[first]->name;
    bool mb = strcmp(kind, "mbconv") == 0;
    if (uses >> SN_KERNEL & 1 && s->range[SN_KERNEL].n == 0)
        set_one(&s->range[SN_KERNEL], sn_block_kinds[first]->even_kernels ? 2 : 3);
    if (uses >> SN_EXPAND & 1 && s->range[SN_EXPAND].n == 0 &&
        (mb || (sn_block_kinds[first]->head && s->range[SN_WIDTH].n > 0)))
        set_one(&s->range[SN_EXPAND], 6);
    if (mb)
        s->o.shortcut = SN_SHORTCUT_IDENTITY;
    if (strcmp(kind, "residual") == 0 || strcmp(kind, "bottleneck") == 0)
        s->o.shortcut = SN_SHORTCUT_CONV;
}

static es_status read_fields(const es_yaml_node *n, sn_stage_spec *s, unsigned uses, es_error *err)
{
    static const int most[SN_FIELDS] = {0, 16384, 15, 16, 1024, 1, 0, 256};
    bool even = true;
    for (int b = 0; b < s->range[SN_BLOCK].n; b++)
        even &= sn_block_kinds[s->range[SN_BLOCK].values[b]]->even_kernels;
    for (int f = SN_WIDTH; f < SN_FIELDS; f++) {
        const es_yaml_node *v = es_yaml_find(n, sn_field_names[f]);
        if (!v || !(uses >> f & 1))
            continue;
        ES_RETURN(f == SN_SE ? read_se(v, s, err) : read_range(v, (sn_field_kind)f, 1, most[f], &s->range[f], err));
        if (f != SN_KERNEL)
            continue;
        for (int i = 0; i < s->range[f].n; i++)
            if (!even && s->range[f].values[i] % 2 == 0)
                return es_yaml_fail(v, err, "kernel %d is even; allowed: odd sizes from 1 to %d", s->range[f].values[i],
                                    most[f]);
        if (even && s->range[f].n > 1)
            return es_yaml_fail(v, err, "a pooling layer has one kernel, not a choice");
    }
    return ES_OK;
}

/* `block:`, one kind or a choice of several. */
static es_status read_kinds(const es_yaml_node *n, const sn_spec *spec, sn_stage_spec *s, es_error *err)
{
    const es_yaml_node *block = es_yaml_find(n, "block");
    if (!block)
        return es_yaml_fail(n, err, "a stage needs `block:`, the kind of its blocks");
    ES_RETURN(read_range(block, SN_BLOCK, 0, 0, &s->range[SN_BLOCK], err));
    for (int b = 0; b < s->range[SN_BLOCK].n; b++) {
        const sn_block_kind *k = sn_block_kinds[s->range[SN_BLOCK].values[b]];
        if (k->tokens != (spec->vocabulary > 0))
            return es_yaml_fail(block, err, "%s is a block for %s, but the space's input is %s", k->name,
                                k->tokens ? "tokens" : "images", k->tokens ? "images" : "tokens");
    }
    return ES_OK;
}

/* Of a stage of cells: which one. */
static es_status read_stage_cell(const es_yaml_node *n, sn_spec *spec, sn_stage_spec *s, es_error *err)
{
    if (s->range[SN_BLOCK].n > 1)
        return es_yaml_fail(es_yaml_find(n, "block"), err, "a stage of cells cannot choose between kinds");
    ES_RETURN(read_cell_name(n, spec, &s->o.cell, err));
    bool projects = spec->cell[s->o.cell].preprocess;
    if (projects != (s->range[SN_WIDTH].n > 0))
        return es_yaml_fail(n, err,
                            projects ? "`width` is missing: this cell's input is projected to it"
                                     : "`width` is only for cells with `input: project`; this one keeps its channels");
    return ES_OK;
}

/* index -1: the stem, whose kind is not chosen. per_layer, act: what the space says for stages that do not. */
static es_status read_stage(const es_yaml_node *n, sn_spec *spec, int index, bool per_layer, int act, sn_stage_spec *s,
                            es_error *err)
{
    bool stem = index == -1;
    int kind = 0, per = per_layer;
    unsigned uses = 0, needs = 0;
    ES_RETURN(es_yaml_expect(n, ES_YAML_MAP, err));
    stage_defaults(s, spec, n, index, per_layer, act);
    sn_block_kind_find(spec->vocabulary ? "embedding" : "conv", &kind);
    snprintf(s->name, sizeof s->name, stem ? "stem" : "stages.%d", index);
    set_one(&s->range[SN_BLOCK], kind);
    if (!stem) {
        ES_RETURN(es_yaml_get_enum(n, "per", per_names, &per, err));
        for (int f = 0; f < SN_FIELDS; f++)
            s->range[f].per_layer = per && f != SN_WIDTH;
        ES_RETURN(read_kinds(n, spec, s, err));
    }
    for (int b = 0; b < s->range[SN_BLOCK].n; b++) {
        uses |= sn_block_kinds[s->range[SN_BLOCK].values[b]]->uses;
        needs |= sn_block_kinds[s->range[SN_BLOCK].values[b]]->needs;
    }
    ES_RETURN(check_stage_keys(n, s, stem, uses, err));
    const es_yaml_node *depth = es_yaml_find(n, "depth");
    if (depth && !stem)
        ES_RETURN(read_range(depth, SN_FIELDS, 1, SN_LAYERS_MAX, &s->depth, err));
    ES_RETURN(read_fields(n, s, uses, err));
    for (int f = 0; f < SN_FIELDS; f++)
        if (needs >> f & 1 && s->range[f].n == 0)
            return es_yaml_fail(n, err, "`%s` is missing", sn_field_names[f]);
    field_defaults(s, uses);
    ES_RETURN(read_options(n, spec, s, err));
    bool cells = strcmp(sn_block_kinds[s->range[SN_BLOCK].values[0]]->name, "cell") == 0;
    return cells ? read_stage_cell(n, spec, s, err) : ES_OK;
}

static es_status read_head(const es_yaml_node *n, sn_spec *spec, int act, sn_stage_spec *s, es_error *err)
{
    static const char *const pools[] = {"global", "flatten", NULL};
    ES_RETURN(es_yaml_expect(n, ES_YAML_MAP, err));
    stage_defaults(s, spec, n, -1, false, act);
    snprintf(s->name, sizeof s->name, "head");
    int kind = 0, pool = 0;
    const sn_block_kind *head = sn_block_kind_find("head", &kind);
    set_one(&s->range[SN_BLOCK], kind);
    s->o.norm = false;
    ES_RETURN(check_stage_keys(n, s, true, head->uses, err));
    ES_RETURN(read_fields(n, s, head->uses, err));
    field_defaults(s, head->uses);
    ES_RETURN(es_yaml_get_bool(n, "norm", &s->o.norm, err));
    ES_RETURN(es_yaml_get_bool(n, "affine", &s->o.affine, err));
    ES_RETURN(es_yaml_get_enum(n, "pool", pools, &pool, err));
    ES_RETURN(get_float(n, "dropout", 0, 0.9, &s->o.rate, err));
    s->o.flatten = pool;
    if (!es_yaml_find(n, "classes"))
        return es_yaml_fail(n, err, "`classes` is missing");
    ES_RETURN(get_int(n, "classes", 2, SN_CHANNELS_MAX, &s->o.classes, err));
    const es_yaml_node *hidden = es_yaml_find(n, "hidden");
    if (!hidden)
        return ES_OK;
    ES_RETURN(es_yaml_expect(hidden, ES_YAML_LIST, err));
    if (hidden->count > SN_HIDDEN_MAX)
        return es_yaml_fail(hidden, err, "%zu hidden layers; allowed: at most %d", hidden->count, SN_HIDDEN_MAX);
    s->o.hidden = (int)hidden->count;
    for (size_t i = 0; i < hidden->count; i++) {
        int64_t v;
        ES_RETURN(es_yaml_i64(hidden->items[i], 1, SN_CHANNELS_MAX, &v, err));
        s->o.hidden_width[i] = (int)v;
    }
    return ES_OK;
}

static es_status read_cell_ops(const es_yaml_node *n, sn_range *out, es_error *err)
{
    if (!n || n->kind != ES_YAML_LIST || n->count < 1 || n->count > SR_OPTIONS_MAX)
        return es_yaml_fail(n, err, "expected a list of 1 to %d ops", SR_OPTIONS_MAX);
    for (size_t i = 0; i < n->count; i++) {
        ES_RETURN(es_yaml_enum(n->items[i], sn_cell_op_names, &out->values[i], err));
        for (size_t j = 0; j < i; j++)
            if (out->values[j] == out->values[i])
                return es_yaml_fail(n->items[i], err, "%s is there twice", n->items[i]->text);
    }
    out->n = (int)n->count;
    return ES_OK;
}

static es_status read_cell_edges(const es_yaml_node *n, const sn_range *ops, sn_cell_spec *c, es_error *err)
{
    const es_yaml_node *edges = es_yaml_find(n, "edges");
    if (!edges) { /* all, by target then source */
        for (int to = 1; to <= c->nodes; to++)
            for (int from = 0; from < to; from++)
                c->edge[c->edges++] = (sn_edge_spec){.from = from, .to = to, .ops = *ops};
        return ES_OK;
    }
    ES_RETURN(es_yaml_expect(edges, ES_YAML_LIST, err));
    if (edges->count < 1 || edges->count > SN_EDGES_MAX)
        return es_yaml_fail(edges, err, "%zu edges; allowed: 1 to %d", edges->count, SN_EDGES_MAX);
    for (size_t i = 0; i < edges->count; i++) {
        static const char *const keys[] = {"from", "to", "ops", NULL};
        const es_yaml_node *e = edges->items[i], *own;
        sn_edge_spec *d = &c->edge[c->edges];
        ES_RETURN(es_yaml_expect(e, ES_YAML_MAP, err));
        ES_RETURN(es_yaml_check_keys(e, keys, err));
        *d = (sn_edge_spec){.from = -1, .to = -1, .ops = *ops};
        ES_RETURN(get_int(e, "from", 0, c->nodes - 1, &d->from, err));
        ES_RETURN(get_int(e, "to", 1, c->nodes, &d->to, err));
        if (d->from < 0 || d->to <= d->from)
            return es_yaml_fail(e, err, "an edge needs `from` and a later node `to`");
        for (int j = 0; j < c->edges; j++)
            if (c->edge[j].from == d->from && c->edge[j].to == d->to)
                return es_yaml_fail(e, err, "the edge from %d to %d is there twice", d->from, d->to);
        if ((own = es_yaml_find(e, "ops")))
            ES_RETURN(read_cell_ops(own, &d->ops, err));
        else if (!ops->n)
            return es_yaml_fail(e, err, "`ops` is missing, here or in the cell");
        c->edges++;
    }
    return ES_OK;
}

static es_status read_cell(const char *name, const es_yaml_node *n, sn_cell_spec *c, es_error *err)
{
    static const char *const keys[] = {"nodes",  "ops",       "edges",      "output", "input",
                                       "affine", "entangled", "activation", NULL};
    static const char *const outputs[] = {"last", "concat", NULL}, *const inputs[] = {"keep", "project", NULL};
    ES_RETURN(es_yaml_expect(n, ES_YAML_MAP, err));
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    if (strlen(name) >= sizeof c->name || strpbrk(name, ".+:=;, "))
        return es_yaml_fail(n, err, "a cell's name has at most %zu letters and none of . + : = ; , or space",
                            sizeof c->name - 1);
    snprintf(c->name, sizeof c->name, "%s", name);
    int output = 0, input = 0;
    sn_range ops = {0};
    c->affine = true;
    c->act = KN_ACT_RELU;
    c->nodes = -1;
    ES_RETURN(get_int(n, "nodes", 1, SN_CELL_NODES_MAX, &c->nodes, err));
    if (c->nodes < 0)
        return es_yaml_fail(n, err, "`nodes` is missing: how many besides the input");
    ES_RETURN(es_yaml_get_enum(n, "output", outputs, &output, err));
    ES_RETURN(es_yaml_get_enum(n, "input", inputs, &input, err));
    ES_RETURN(es_yaml_get_bool(n, "affine", &c->affine, err));
    ES_RETURN(es_yaml_get_bool(n, "entangled", &c->entangled, err));
    ES_RETURN(es_yaml_get_enum(n, "activation", sn_act_names, &c->act, err));
    c->concat = output;
    c->preprocess = input;
    const es_yaml_node *list = es_yaml_find(n, "ops");
    if (list)
        ES_RETURN(read_cell_ops(list, &ops, err));
    else if (!es_yaml_find(n, "edges"))
        return es_yaml_fail(n, err, "`ops` is missing: what an edge may choose from");
    return read_cell_edges(n, &ops, c, err);
}

static es_status read_cells(const es_yaml_node *n, sn_spec *spec, es_error *err)
{
    if (!n)
        return ES_OK;
    ES_RETURN(es_yaml_expect(n, ES_YAML_MAP, err));
    if (n->count < 1 || n->count > SN_CELLS_MAX)
        return es_yaml_fail(n, err, "%zu cells; allowed: 1 to %d", n->count, SN_CELLS_MAX);
    spec->cell = es_arena_alloc(spec->arena, n->count * sizeof *spec->cell);
    spec->cells = (int)n->count;
    for (int i = 0; i < spec->cells; i++)
        ES_RETURN(read_cell(n->keys[i], n->items[i], &spec->cell[i], err));
    return ES_OK;
}

/* input: {tokens: 1024, vocabulary: 256} */
static es_status read_token_input(const es_yaml_node *n, sn_spec *spec, es_error *err)
{
    static const char *const keys[] = {"tokens", "vocabulary", NULL};
    spec->height = spec->channels = 1;
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(get_int(n, "tokens", 1, 65536, &spec->width, err));
    ES_RETURN(get_int(n, "vocabulary", 2, 1 << 20, &spec->vocabulary, err));
    return spec->width && spec->vocabulary
               ? ES_OK
               : es_yaml_fail(n, err, "`%s` is missing: an input of tokens is {tokens: 1024, vocabulary: 256}",
                              spec->width ? "vocabulary" : "tokens");
}

static es_status read_input(const es_yaml_node *n, const es_yaml_node *root, sn_spec *spec, es_error *err)
{
    char rest;
    if (n && n->kind == ES_YAML_MAP)
        return read_token_input(n, spec, err);
    if (!n)
        return es_yaml_fail(
            root, err, "`input` is missing: height x width x channels, as 32x32x3, or {tokens: 1024, vocabulary: 256}");
    if (n->kind != ES_YAML_SCALAR ||
        sscanf(n->text, "%dx%dx%d%c", &spec->height, &spec->width, &spec->channels, &rest) != 3)
        return es_yaml_fail(n, err, "expected height x width x channels, as 32x32x3");
    if (spec->height < 1 || spec->width < 1 || spec->channels < 1 || spec->height > 4096 || spec->width > 4096 ||
        spec->channels > 1024)
        return es_yaml_fail(n, err, "%s is out of range; allowed: up to 4096x4096x1024", n->text);
    return ES_OK;
}

static int gcd(int a, int b) { return b ? gcd(b, a % b) : a; }

static es_status read_resolution(const es_yaml_node *n, sn_spec *spec, es_error *err)
{
    if (!n)
        return ES_OK;
    if (spec->vocabulary)
        return es_yaml_fail(n, err, "an input of tokens has no resolution");
    ES_RETURN(read_range(n, SN_FIELDS, 1, 4096, &spec->resolution, err));
    for (int i = 0; i < spec->resolution.n; i++) {
        int r = spec->resolution.values[i], g = gcd(r, spec->height);
        if (r == spec->height && r == spec->width)
            continue;
        if (spec->height != spec->width)
            return es_yaml_fail(n, err, "only a square input can be resized");
        if (r / g > 16)
            return es_yaml_fail(n, err,
                                "%d from %d has no small ratio (%d/%d); allowed: ratios with a numerator up to 16", r,
                                spec->height, r / g, spec->height / g);
    }
    return ES_OK;
}

static es_status read_notation(const es_yaml_node *n, sn_spec *spec, es_error *err)
{
    spec->notation = es_arena_strdup(spec->arena, "compact");
    spec->join = es_arena_strdup(spec->arena, "");
    if (!n)
        return ES_OK;
    if (n->kind == ES_YAML_SCALAR) {
        static const char *const names[] = {"compact", "nas-bench-201", NULL};
        int k;
        ES_RETURN(es_yaml_enum(n, names, &k, err));
        spec->notation = es_arena_strdup(spec->arena, names[k]);
        return ES_OK;
    }
    static const char *const keys[] = {"columns", "join", NULL};
    const char *join = "";
    ES_RETURN(es_yaml_expect(n, ES_YAML_MAP, err));
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_str(n, "join", &join, err));
    const es_yaml_node *list = es_yaml_find(n, "columns");
    if (!list || list->kind != ES_YAML_LIST || list->count < 1 || list->count > 64)
        return es_yaml_fail(list ? list : n, err, "expected `columns:` with a list of 1 to 64 fields");
    spec->notation = es_arena_strdup(spec->arena, "columns");
    spec->join = es_arena_strdup(spec->arena, join);
    spec->columns = (int)list->count;
    spec->column = es_arena_alloc(spec->arena, list->count * sizeof *spec->column);
    for (size_t i = 0; i < list->count; i++) {
        const char *text;
        ES_RETURN(es_yaml_str(list->items[i], &text, err));
        spec->column[i] = es_arena_strdup(spec->arena, text);
    }
    return ES_OK;
}

static es_status read_stages(const es_yaml_node *root, sn_spec *spec, es_error *err)
{
    int act = spec->vocabulary ? KN_ACT_GELU : KN_ACT_SILU, per = 1;
    ES_RETURN(es_yaml_get_enum(root, "activation", sn_act_names, &act, err));
    ES_RETURN(es_yaml_get_enum(root, "per", per_names, &per, err));
    const es_yaml_node *stem = es_yaml_find(root, "stem"), *stages = es_yaml_find(root, "stages"),
                       *head = es_yaml_find(root, "head");
    if (!stages || (!head && !spec->vocabulary))
        return es_yaml_fail(root, err, "`%s` is missing", stages ? "head" : "stages");
    if (head && spec->vocabulary)
        return es_yaml_fail(head, err,
                            "a space of tokens ends with a norm and the embedding table itself: leave `head` out");
    if (!stem && spec->vocabulary)
        return es_yaml_fail(root, err, "`stem` is missing: the widths of the embedding, as {width: [384, 512]}");
    ES_RETURN(es_yaml_expect(stages, ES_YAML_LIST, err));
    if (stages->count < 1 || stages->count > SN_STAGES_MAX)
        return es_yaml_fail(stages, err, "%zu stages; allowed: 1 to %d", stages->count, SN_STAGES_MAX);
    spec->stage = es_arena_alloc(spec->arena, (stages->count + 2) * sizeof *spec->stage);
    if (stem)
        ES_RETURN(read_stage(stem, spec, -1, false, act, &spec->stage[spec->stages++], err));
    for (size_t i = 0; i < stages->count; i++)
        ES_RETURN(read_stage(stages->items[i], spec, (int)i, per, act, &spec->stage[spec->stages++], err));
    sn_stage_spec *last = &spec->stage[spec->stages++];
    if (!spec->vocabulary)
        return read_head(head, spec, act, last, err);
    int kind = 0;
    stage_defaults(last, spec, root, -1, false, act);
    snprintf(last->name, sizeof last->name, "head");
    sn_block_kind_find("language_head", &kind);
    set_one(&last->range[SN_BLOCK], kind);
    last->o.classes = spec->vocabulary;
    return ES_OK;
}

static es_status read_root(const es_yaml_node *n, sn_spec *spec, es_error *err)
{
    static const char *const keys[] = {"name",         "input",    "resolution", "activation", "per",
                                       "norm_epsilon", "counting", "notation",   "stem",       "cells",
                                       "stages",       "head",     NULL};
    static const char *const counting_keys[] = {"classifier_bias", NULL};
    const char *name = "space";
    ES_RETURN(es_yaml_expect(n, ES_YAML_MAP, err));
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_str(n, "name", &name, err));
    spec->name = es_arena_strdup(spec->arena, name);
    spec->eps = 1e-5f;
    ES_RETURN(get_float(n, "norm_epsilon", 1e-8, 1, &spec->eps, err));
    const es_yaml_node *counting = es_yaml_find(n, "counting");
    if (counting) {
        ES_RETURN(es_yaml_expect(counting, ES_YAML_MAP, err));
        ES_RETURN(es_yaml_check_keys(counting, counting_keys, err));
        ES_RETURN(es_yaml_get_bool(counting, "classifier_bias", &spec->count_bias, err));
    }
    ES_RETURN(read_input(es_yaml_find(n, "input"), n, spec, err));
    ES_RETURN(read_resolution(es_yaml_find(n, "resolution"), spec, err));
    ES_RETURN(read_notation(es_yaml_find(n, "notation"), spec, err));
    ES_RETURN(read_cells(es_yaml_find(n, "cells"), spec, err));
    return read_stages(n, spec, err);
}

es_status sn_spec_read(const es_yaml_node *node, sn_spec **out, es_error *err)
{
    es_arena *arena = es_arena_new(32 * 1024);
    sn_spec *spec = es_arena_alloc(arena, sizeof *spec);
    spec->arena = arena;
    atomic_init(&spec->users, 1);
    es_status s = read_root(node, spec, err);
    if (s != ES_OK)
        sn_spec_release(&spec);
    *out = spec;
    return s;
}

void sn_spec_release(sn_spec **spec)
{
    if (!*spec)
        return;
    if (atomic_fetch_sub(&(*spec)->users, 1) == 1) {
        es_arena *arena = (*spec)->arena;
        es_arena_destroy(&arena);
    }
    *spec = NULL;
}
