#include "kernels/graph/graph_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

enum { FIRST_NODES = 512 };

kn_graph *kn_graph_new(const kn_params *const params[KN_SETS])
{
    kn_graph *g = es_xcalloc(1, sizeof *g);
    for (int i = 0; i < KN_SETS; i++)
        g->params[i] = params == NULL ? NULL : params[i];
    kn_graph_reset(g);
    return g;
}

void kn_graph_destroy(kn_graph **g)
{
    if (*g == NULL)
        return;
    free((*g)->nodes);
    free((*g)->values);
    free((*g)->grad);
    free((*g)->need);
    free(*g);
    *g = NULL;
}

void kn_graph_reset(kn_graph *g)
{
    g->n_nodes = 0;
    g->n_values = 1;
    g->scope = "";
    g->status = ES_OK;
    g->error = (es_error){.code = ES_OK};
}

es_status kn_graph_status(const kn_graph *g, es_error *err)
{
    if (g->status != ES_OK && err != NULL)
        *err = g->error;
    return g->status;
}

void kn_graph_scope(kn_graph *g, const char *name) { g->scope = name == NULL ? "" : name; }

size_t kn_graph_nodes(const kn_graph *g) { return g->n_nodes; }

kn_shape kn_shape_of(const kn_graph *g, kn_val v)
{
    if (v == KN_NONE ||
        v >= g->n_values) /* built on a mistake: any shape will do, the graph's status says what is wrong */
        return (kn_shape){.rank = 0, .d = {1, 1, 1, 1, 1}};
    return g->values[v].shape;
}

kn_val kn_graph_fail(kn_graph *g, es_status code, const char *op, const char *fmt, ...)
{
    if (g->status != ES_OK)
        return KN_NONE;
    char text[sizeof g->error.text], where[sizeof g->error.where];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(where, sizeof where, "%s%s%s", g->scope, g->scope[0] == '\0' ? "" : ": ", op);
    g->status = es_fail(&g->error, code, where, "%s", text);
    return KN_NONE;
}

/* "text; inputs [2, 3], none, [3, 4]" */
static void fail_inference(kn_graph *g, const kn_node *n, es_status code, const es_error *e)
{
    char list[KN_IN_MAX * 66 + 16] = "", text[64];
    size_t at = 0;
    for (int i = 0; i < n->n_in && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i == 0 ? "; inputs " : ", ",
                               n->in[i] == KN_NONE ? "none" : kn_shape_text(&g->values[n->in[i]].shape, text));
    kn_graph_fail(g, code, kn_op_table[n->op].name, "%s%s", e->text, list);
}

static void grow(kn_graph *g)
{
    if (g->n_nodes == g->cap_nodes) {
        g->cap_nodes = g->cap_nodes == 0 ? FIRST_NODES : 2 * g->cap_nodes;
        g->nodes = es_xrealloc(g->nodes, g->cap_nodes * sizeof *g->nodes);
    }
    if (g->n_values + KN_OUT_MAX > g->cap_values) {
        g->cap_values = g->cap_values == 0 ? FIRST_NODES : 2 * g->cap_values;
        g->values = es_xrealloc(g->values, g->cap_values * sizeof *g->values);
    }
}

kn_val kn_emit(kn_graph *g, kn_op op, const kn_attr *a, const kn_val *in, int n_in)
{
    if (g->status != ES_OK)
        return KN_NONE;
    const kn_op_info *info = &kn_op_table[op];
    ES_ASSERT(n_in <= KN_IN_MAX);
    for (int i = 0; i < n_in; i++) {
        if (in[i] >= g->n_values)
            return kn_graph_fail(g, ES_INVALID, info->name, "input %d is not a value of this graph", i);
        if (in[i] == KN_NONE && (info->optional >> i & 1) == 0)
            return kn_graph_fail(g, ES_INVALID, info->name, "input %d is missing", i);
    }
    if (info->infer == NULL)
        return kn_graph_fail(g, ES_UNSUPPORTED, info->name, "this build has no such op");
    grow(g);
    kn_node *n = &g->nodes[g->n_nodes];
    n->op = op;
    n->n_in = (uint8_t)n_in;
    n->n_out = info->n_out;
    memset(n->in, 0, sizeof n->in);
    if (n_in > 0) /* sources come with NULL */
        memcpy(n->in, in, (size_t)n_in * sizeof *in);
    n->out = info->n_out == 0 ? KN_NONE : g->n_values;
    n->scope = g->scope;
    n->a = *a;
    kn_shape shape[KN_OUT_MAX];
    kn_dtype dtype[KN_OUT_MAX];
    for (int i = 0; i < info->n_out; i++) {
        shape[i] = (kn_shape){.rank = 0, .d = {1, 1, 1, 1, 1}};
        dtype[i] = KN_F32;
    }
    es_error e = {.code = ES_OK};
    es_status s = info->infer(g, n, shape, dtype, &e);
    if (s != ES_OK) {
        fail_inference(g, n, s, &e);
        return KN_NONE;
    }
    for (int i = 0; i < info->n_out; i++)
        g->values[g->n_values + (uint32_t)i] =
            (kn_value){.shape = shape[i], .node = g->n_nodes, .dtype = (uint8_t)dtype[i], .index = (uint8_t)i};
    g->n_values += info->n_out;
    g->n_nodes++;
    return n->out;
}

char *kn_graph_dot(const kn_graph *g)
{
    es_str s = ES_STR_INIT;
    char text[64];
    es_str_addf(&s, "digraph espalier {\n  node [shape=box];\n");
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const kn_node *n = &g->nodes[i];
        es_str_addf(&s, "  n%u [label=\"%s", i, kn_op_table[n->op].name);
        if (n->scope[0] != '\0')
            es_str_addf(&s, "\\n%s", n->scope);
        if (n->op == KN_OP_PARAM)
            es_str_addf(&s, "\\n%s", kn_params_def(g->params[n->a.set], n->a.param)->name);
        for (int k = 0; k < n->n_out; k++)
            es_str_addf(&s, "\\n%s", kn_shape_text(&g->values[n->out + (uint32_t)k].shape, text));
        es_str_addf(&s, "\"];\n");
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] != KN_NONE)
                es_str_addf(&s, "  n%u -> n%u;\n", g->values[n->in[k]].node, i);
    }
    es_str_addf(&s, "}\n");
    return es_str_take(&s);
}
