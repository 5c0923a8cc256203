/* What `espalier explain` prints: the layers of an architecture with shapes, parameters and multiply-adds; and a Graphviz graph. Two more visitors of the walk. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "supernet/space/cost.h"

typedef struct list {
    sn_layer *layers;
    int count, room;
    es_str *dot;
} list;

static kn_shape shape_of(const sn_val *v) { return KN_SHAPE(1, v->h, v->w, v->c); }

static void describe(const sn_op *op, char *buf, size_t size)
{
    const char *act = op->act != KN_ACT_NONE ? sn_act_names[op->act] : NULL;
    int n = 0;
    switch (op->kind) {
    case SN_OP_CONV:
    case SN_OP_DEPTHWISE:
        n = snprintf(buf, size, "%s %dx%d", sn_op_names[op->kind], op->k, op->k);
        if (op->stride > 1)
            n += snprintf(buf + n, size - (size_t)n, " stride %d", op->stride);
        if (op->dilation > 1)
            n += snprintf(buf + n, size - (size_t)n, " dilation %d", op->dilation);
        if (op->kind == SN_OP_CONV && op->groups > 1)
            snprintf(buf + n, size - (size_t)n, " groups %d", op->groups);
        return;
    case SN_OP_MAX_POOL:
    case SN_OP_AVG_POOL:
        snprintf(buf, size, "%s %dx%d stride %d", sn_op_names[op->kind], op->k, op->k, op->stride);
        return;
    case SN_OP_ACT: snprintf(buf, size, "%s", act ? act : "none"); return;
    case SN_OP_DROPOUT:
    case SN_OP_DROP_PATH: snprintf(buf, size, "%s %g", sn_op_names[op->kind], (double)op->rate); return;
    default: snprintf(buf, size, "%s%s%s", sn_op_names[op->kind], act ? " + " : "", act ? act : "");
    }
}

static uint32_t add_layer(sn_walk *w, const sn_op *op)
{
    list *l = w->ctx;
    if (l->count == l->room) {
        l->room = l->room ? 2 * l->room : 64;
        l->layers = es_xrealloc(l->layers, (size_t)l->room * sizeof *l->layers);
    }
    sn_layer *d = &l->layers[l->count++];
    memset(d, 0, sizeof *d);
    sn_walk_name(w, op, d->name, sizeof d->name);
    describe(op, d->op, sizeof d->op);
    d->in = op->n ? shape_of(&op->x[0]) : shape_of(&op->out);
    d->out = shape_of(&op->out);
    d->params = sn_op_params(op);
    d->macs = sn_op_macs(w->space, op);
    for (int i = 0; l->dot && i < op->n; i++)
        es_str_addf(l->dot, "  n%u -> n%d [label=\"%dx%dx%d\"];\n", op->x[i].ref, l->count, op->x[i].h, op->x[i].w,
                    op->x[i].c);
    return (uint32_t)l->count;
}

es_status sn_space_explain(const sn_space *sp, const sr_arch *a, sn_layer **layers, int *count, es_error *err)
{
    list l = {0};
    sn_walk w = {.space = sp, .arch = a, .emit = add_layer, .ctx = &l, .want_names = true};
    es_status s = sn_walk_run(&w, err);
    if (s != ES_OK) {
        free(l.layers);
        l = (list){0};
    }
    *layers = l.layers;
    *count = l.count;
    return s;
}

static void add_shape(es_str *out, const kn_shape *s)
{
    char buf[48];
    snprintf(buf, sizeof buf, "%dx%dx%d", s->d[1], s->d[2], s->d[3]);
    es_str_addf(out, "%-14s", buf);
}

es_status sn_explain_print(const sn_space *sp, const sr_arch *a, es_str *out, es_error *err)
{
    sn_layer *layers = NULL;
    int count, wide = 5;
    sn_cost c;
    es_status s = ES_OK;
    ES_GOTO(sn_space_explain(sp, a, &layers, &count, err));
    ES_GOTO(sn_space_cost(sp, a, &c, err));
    for (int i = 0; i < count; i++)
        wide = (int)strlen(layers[i].name) > wide ? (int)strlen(layers[i].name) : wide;
    char *text = sn_arch_format(sp, a);
    es_str_addf(out, "architecture %s\n%-*s  %-30s%-14s%-14s%12s%14s\n", text, wide, "layer", "op", "in", "out",
                "params", "macs");
    free(text);
    for (int i = 0; i < count; i++) {
        es_str_addf(out, "%-*s  %-30s", wide, layers[i].name, layers[i].op);
        add_shape(out, &layers[i].in);
        add_shape(out, &layers[i].out);
        es_str_addf(out, "%12" PRId64 "%14" PRId64 "\n", layers[i].params, layers[i].macs);
    }
    es_str_addf(out, "total: %" PRId64 " params, %" PRId64 " macs, %" PRId64 " bytes of activations (batch 1, fp32)\n",
                c.params, c.macs, c.activation_bytes);
fail:
    free(layers);
    return s;
}

es_status sn_explain_dot(const sn_space *sp, const sr_arch *a, es_str *out, es_error *err)
{
    es_str edges = ES_STR_INIT;
    list l = {.dot = &edges};
    sn_walk w = {.space = sp, .arch = a, .emit = add_layer, .ctx = &l, .want_names = true};
    es_status s = sn_walk_run(&w, err);
    if (s == ES_OK) {
        es_str_add(out, "digraph architecture {\n  node [shape=box, fontname=\"monospace\"];\n");
        for (int i = 0; i < l.count; i++)
            es_str_addf(out, "  n%d [label=\"%s\\n%s\\n%" PRId64 " params, %" PRId64 " macs\"];\n", i + 1,
                        l.layers[i].name, l.layers[i].op, l.layers[i].params, l.layers[i].macs);
        es_str_addf(out, "%s}\n", edges.p);
    }
    es_str_free(&edges);
    free(l.layers);
    return s;
}
