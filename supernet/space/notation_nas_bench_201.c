/* NAS-Bench-201's own string (arXiv:2001.00326): per node the ops of its incoming edges with their source, "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|". */
#include <stdio.h>
#include <string.h>

#include "supernet/space/notation.h"

static const sn_named *edge(const sn_space *sp, int to, int from)
{
    char name[64];
    snprintf(name, sizeof name, "cells.%s.%d.%d", sp->spec->cell[0].name, to, from);
    return sn_template_find(sp, name);
}

static es_status check(const sn_space *sp, es_error *err)
{
    bool whole = sp->spec->cells == 1;
    for (int to = 1; whole && to <= sp->spec->cell[0].nodes; to++)
        for (int from = 0; from < to; from++)
            whole &= edge(sp, to, from) != NULL;
    int edges = whole ? sp->spec->cell[0].edges : 0, genes = 0;
    for (int i = 0; i < edges; i++)
        genes += sp->edge[0][i].gene >= 0;
    if (!whole || genes != sr_space_choices(sp->choices))
        return es_fail(err, ES_INVALID, "notation",
                       "nas-bench-201 writes the ops of one cell with all its edges; this space has other choices");
    return ES_OK;
}

static void format(const sn_space *sp, const sr_arch *a, es_str *out)
{
    for (int to = 1; to <= sp->spec->cell[0].nodes; to++) {
        es_str_add(out, to > 1 ? "+|" : "|");
        for (int from = 0; from < to; from++)
            es_str_addf(out, "%s~%d|", sn_notation_label(edge(sp, to, from), a), from);
    }
}

static es_status parse(const sn_space *sp, const char *text, sr_arch *out, es_error *err)
{
    const char *at = text;
    for (int to = 1; to <= sp->spec->cell[0].nodes; to++) {
        if (to > 1 && *at++ != '+')
            return es_fail(err, ES_INVALID, NULL, "expected '+' before node %d", to);
        if (*at++ != '|')
            return es_fail(err, ES_INVALID, NULL,
                           "expected '|' at the start of node %d, as |nor_conv_3x3~0|+|none~0|skip_connect~1|+...", to);
        for (int from = 0; from < to; from++) {
            char tail[16];
            size_t n = strcspn(at, "~|+");
            ES_RETURN(sn_notation_set(edge(sp, to, from), at, n, out, err));
            at += n;
            int len = snprintf(tail, sizeof tail, "~%d|", from);
            if (strncmp(at, tail, (size_t)len) != 0)
                return es_fail(err, ES_INVALID, NULL, "expected %s after an op of node %d", tail, to);
            at += len;
        }
    }
    return *at ? es_fail(err, ES_INVALID, NULL, "unexpected text after the last node: %.40s", at) : ES_OK;
}

const sn_notation sn_notation_nas_bench_201 = {
    .name = "nas-bench-201", .check = check, .format = format, .parse = parse};
