#include "supernet/space/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/space/walk.h"

enum { NAMED_MAX = 4096, SET_MAX = 256, BIG = 4096, COMBINATIONS_MAX = 20000 };

const char *sn_field_label(sn_field_kind kind, int value, char buf[16])
{
    if (kind == SN_ACT)
        return sn_act_names[value];
    if (kind == SN_BLOCK)
        return sn_block_kinds[value]->name;
    if (kind == SN_SE)
        return value ? "on" : "off";
    snprintf(buf, 16, "%d", value);
    return buf;
}

const sn_named *sn_template_find(const sn_space *sp, const char *name)
{
    for (int i = 0; i < sp->named; i++)
        if (strcmp(sp->name[i].name, name) == 0)
            return &sp->name[i];
    return NULL;
}

typedef struct build {
    sn_space *sp;
    const sn_space *like;
    const sr_arch *fixed;
    int *channels, n_channels; /* what may arrive at the next unit */
    es_error *err;
} build;

/* A field called `name` with the given options: a constant when there is one, or when the space is being fixed; else a new choice under `parent`. */
static es_status add_field(build *b, const char *name, const int *values, const char *const *labels, int n, int parent,
                           uint32_t mask, sn_field *out)
{
    sn_space *sp = b->sp;
    if (sp->named == NAMED_MAX)
        return es_fail(b->err, ES_INVALID, sp->spec->name, "more than %d fields", NAMED_MAX);
    int at = 0;
    if (b->like) {
        const sn_named *old = sn_template_find(b->like, name);
        ES_ASSERT(old != NULL);
        at = old->field.gene < 0 ? 0 : b->fixed->gene[old->field.gene];
        n = 1;
    }
    int *copy = es_arena_alloc(sp->arena, (size_t)n * sizeof *copy);
    const char **text = es_arena_alloc(sp->arena, (size_t)n * sizeof *text);
    for (int i = 0; i < n; i++) {
        copy[i] = values[at + i];
        text[i] = es_arena_strdup(sp->arena, labels[at + i]);
    }
    *out = (sn_field){.gene = -1, .n = n, .values = copy};
    if (n > 1) {
        if (sr_space_choices(sp->choices) == SR_CHOICES_MAX)
            return es_fail(b->err, ES_INVALID, sp->spec->name, "more than %d choices", SR_CHOICES_MAX);
        out->gene = sr_space_add(sp->choices, name, text, n, parent, mask);
    }
    sp->name[sp->named++] = (sn_named){.name = es_arena_strdup(sp->arena, name), .field = *out, .labels = text};
    return ES_OK;
}

static es_status add_range(build *b, const char *name, sn_field_kind kind, const sn_range *r, int parent, uint32_t mask,
                           sn_field *out)
{
    char text[SR_OPTIONS_MAX][16];
    const char *labels[SR_OPTIONS_MAX];
    for (int i = 0; i < r->n; i++)
        labels[i] = sn_field_label(kind, r->values[i], text[i]);
    return add_field(b, name, r->values, labels, r->n, parent, mask, out);
}

static es_status add_cells(build *b)
{
    sn_space *sp = b->sp;
    for (int c = 0; c < sp->spec->cells; c++) {
        const sn_cell_spec *cell = &sp->spec->cell[c];
        for (int e = 0; e < cell->edges; e++) {
            const sn_edge_spec *d = &cell->edge[e];
            const char *labels[SR_OPTIONS_MAX];
            char name[64];
            for (int i = 0; i < d->ops.n; i++)
                labels[i] = sn_cell_op_names[d->ops.values[i]];
            snprintf(name, sizeof name, "cells.%s.%d.%d", cell->name, d->to, d->from);
            sp->edge_scope[c][e] = es_arena_printf(sp->arena, "%d-%d", d->to, d->from);
            ES_RETURN(add_field(b, name, d->ops.values, labels, d->ops.n, -1, 0, &sp->edge[c][e]));
        }
    }
    return ES_OK;
}

/* Which options of the block field have this choice at all, as a mask. */
static uint32_t kinds_using(const sn_field *block, sn_field_kind f)
{
    uint32_t mask = 0;
    for (int i = 0; i < block->n; i++)
        if (sn_block_kinds[block->values[i]]->uses >> f & 1)
            mask |= 1u << i;
    return mask;
}

static es_status add_unit_fields(build *b, const sn_stage_spec *st, sn_unit *u, const sn_unit *first, int depth_gene,
                                 uint32_t depth_mask)
{
    char name[96];
    for (int f = 0; f < SN_FIELDS; f++) {
        const sn_range *r = &st->range[f];
        if (r->n == 0)
            continue;
        if (!r->per_layer && first != u) { /* the stage's: one field for all its layers */
            u->field[f] = first->field[f];
            continue;
        }
        int parent = r->per_layer ? depth_gene : -1;
        uint32_t mask = depth_mask, all = (1u << u->field[SN_BLOCK].n) - 1,
                 using = f == SN_BLOCK ? 0 : kinds_using(&u->field[SN_BLOCK], (sn_field_kind)f);
        if (f != SN_BLOCK && u->field[SN_BLOCK].gene >= 0 && using != all &&
            (r->per_layer || !st->range[SN_BLOCK].per_layer)) {
            parent = u->field[SN_BLOCK].gene;
            mask = using;
        }
        if (st->index < 0 || r->per_layer)
            snprintf(name, sizeof name, "%s.%s", u->name, sn_field_names[f]);
        else
            snprintf(name, sizeof name, "%s.%s", st->name, sn_field_names[f]);
        ES_RETURN(add_range(b, name, (sn_field_kind)f, r, parent, mask, &u->field[f]));
    }
    return ES_OK;
}

static uint32_t emit_nothing(sn_walk *w, const sn_op *op)
{
    (void)w, (void)op;
    return 0;
}

static es_status add_channels(int *set, int *n, int c, build *b, const char *where)
{
    for (int i = 0; i < *n; i++)
        if (set[i] == c)
            return ES_OK;
    if (*n == SET_MAX)
        return es_fail(b->err, ES_INVALID, where, "more than %d different numbers of channels can arrive here",
                       SET_MAX);
    set[(*n)++] = c;
    return ES_OK;
}

/* Walks the unit alone for every combination of its options with every number of channels that may arrive: what goes out, whether a shortcut may have to reshape,
 * and whether every combination is possible at all (groups). */
static es_status try_unit(build *b, sn_unit *u, const sn_unit *before, int *out, int *n_out)
{
    const sn_field *f = u->field;
    /* Inside a stage of one width, what arrives is what leaves. */
    bool same_width = u->layer > 0 && f[SN_WIDTH].n > 1 && before->field[SN_WIDTH].gene == f[SN_WIDTH].gene;
    sn_walk w = {.space = b->sp, .emit = emit_nothing};
    u->reshapes = false;
    for (int k = 0; k < f[SN_BLOCK].n; k++) {
        int n[SN_FIELDS], at[SN_FIELDS] = {0};
        const sn_block_kind *kind = sn_block_kinds[f[SN_BLOCK].values[k]];
        for (int i = 0; i < SN_FIELDS; i++)
            n[i] = i != SN_BLOCK && i != SN_ACT && i != SN_KERNEL && f[i].n > 0 ? f[i].n : 1;
        int64_t combinations = b->n_channels;
        for (int i = 0; i < SN_FIELDS; i++)
            combinations *= n[i];
        if (combinations > COMBINATIONS_MAX)
            return es_fail(b->err, ES_INVALID, u->stage->where,
                           "%lld combinations of options and arriving channels in one layer; allowed: %d",
                           (long long)combinations, COMBINATIONS_MAX);
        for (bool more = true; more;) {
            for (int i = 0; i < SN_FIELDS; i++)
                w.set[i] = f[i].n > 0 ? f[i].values[at[i]] : 0;
            for (int c = 0; c < b->n_channels; c++) {
                int in = b->channels[c];
                if (same_width && kind->needs >> SN_WIDTH & 1 && strcmp(kind->name, "dense") != 0 &&
                    in != w.set[SN_WIDTH])
                    continue;
                w.status = ES_OK;
                w.err = b->err;
                sn_val y = sn_walk_block(&w, u, k, (sn_val){.h = BIG, .w = BIG, .c = in});
                if (w.status != ES_OK)
                    return es_at(b->err, w.status, u->stage->where);
                u->reshapes |= y.c != in;
                ES_RETURN(add_channels(out, n_out, y.c, b, u->stage->where));
            }
            int i = 0; /* the next combination */
            while (i < SN_FIELDS && ++at[i] == n[i])
                at[i++] = 0;
            more = i < SN_FIELDS;
        }
    }
    return ES_OK;
}

static es_status check_unit(build *b, sn_unit *u, const sn_unit *before, int least_depth)
{
    int out[SET_MAX], n_out = 0;
    if (u->layer >= least_depth) /* may be absent: what arrives may go on */
        for (int i = 0; i < b->n_channels; i++)
            out[n_out++] = b->channels[i];
    if (u->stage->o.flatten && b->n_channels > 1)
        return es_fail(
            b->err, ES_INVALID, u->stage->where,
            "`pool: flatten` needs a fixed number of channels, but %d different ones may arrive; use `pool: global`",
            b->n_channels);
    if (u->stage->o.flatten) /* its sizes are those of the real input: check_sizes */
        return ES_OK;
    ES_RETURN(try_unit(b, u, before, out, &n_out));
    memcpy(b->channels, out, sizeof out);
    b->n_channels = n_out;
    return ES_OK;
}

static int block_slots(const sn_space *sp, const sn_unit *u, const sn_block_kind *k)
{
    return k->slots_of ? k->slots_of(sp, u) : k->slots;
}

static es_status add_stage(build *b, const sn_stage_spec *st)
{
    sn_space *sp = b->sp;
    char name[96];
    sn_field *depth = es_arena_alloc(sp->arena, sizeof *depth);
    int first = sp->units;
    if (st->index < 0)
        *depth = (sn_field){.gene = -1, .n = 1, .values = st->depth.values};
    else { /* the stage's width comes before its depth: the order people write them in */
        snprintf(name, sizeof name, "%s.depth", st->name);
        ES_RETURN(add_range(b, name, SN_FIELDS, &st->depth, -1, 0, depth));
    }
    int layers = sn_field_largest(depth);
    for (int l = 0; l < layers; l++) {
        sn_unit *u = &sp->unit[sp->units++];
        u->name = st->index < 0 ? st->name : es_arena_printf(sp->arena, "%s.blocks.%d", st->name, l);
        u->stage = st;
        u->layer = l;
        u->stride = l == 0 && st->o.stride ? st->o.stride : 1;
        u->depth = depth->gene >= 0 ? depth : NULL;
        uint32_t mask = 0;
        for (int i = 0; i < depth->n; i++)
            if (depth->values[i] > l)
                mask |= 1u << i;
        int parent = l < sn_field_smallest(depth) ? -1 : depth->gene;
        ES_RETURN(add_unit_fields(b, st, u, &sp->unit[first], parent, mask));
        u->slot = es_arena_alloc(sp->arena, (size_t)u->field[SN_BLOCK].n * sizeof(int));
        for (int k = 0; k < u->field[SN_BLOCK].n; k++) {
            u->slot[k] = sp->slots;
            sp->slots += block_slots(sp, u, sn_block_kinds[u->field[SN_BLOCK].values[k]]);
        }
        ES_RETURN(check_unit(b, u, u > sp->unit ? u - 1 : u, sn_field_smallest(depth)));
    }
    return ES_OK;
}

/* Sizes: the walks that make the input smallest. Everything between follows. */
static es_status check_sizes(build *b)
{
    sn_space *sp = b->sp;
    sr_arch *a = sr_arch_new(sp->choices);
    es_status s = ES_OK;
    for (int i = 0; i < 3 && s == ES_OK; i++) {
        sn_walk w = {.space = sp, .arch = a, .emit = emit_nothing};
        if (i == 0)
            sr_arch_smallest(sp->choices, a);
        else
            sr_arch_largest(sp->choices, a);
        if (i == 2 && sp->resolution.n > 1)
            a->gene[sp->resolution.gene] = 0;
        s = sn_walk_run(&w, b->err);
        if (s != ES_OK && w.unit)
            es_at(b->err, s, w.unit->stage->where);
    }
    free(a);
    return s;
}

static es_status build_all(build *b)
{
    sn_space *sp = b->sp;
    const sn_spec *spec = sp->spec;
    int units = 0;
    for (int i = 0; i < spec->stages; i++)
        units += spec->stage[i].depth.values[spec->stage[i].depth.n - 1];
    sp->unit = es_arena_alloc(sp->arena, (size_t)units * sizeof *sp->unit);
    sp->name = es_arena_alloc(sp->arena, NAMED_MAX * sizeof *sp->name);
    b->channels = es_arena_alloc(sp->arena, SET_MAX * sizeof *b->channels);
    b->channels[0] = spec->channels;
    b->n_channels = 1;
    if (spec->resolution.n > 0)
        ES_RETURN(add_range(b, "resolution", SN_FIELDS, &spec->resolution, -1, 0, &sp->resolution));
    ES_RETURN(add_cells(b));
    for (int i = 0; i < spec->stages; i++) {
        if (spec->stage[i].o.flatten && sp->resolution.n > 1)
            return es_fail(b->err, ES_INVALID, spec->stage[i].where,
                           "`pool: flatten` needs one resolution; use `pool: global`");
        ES_RETURN(add_stage(b, &spec->stage[i]));
    }
    return check_sizes(b);
}

es_status sn_template_build(sn_spec *spec, const sn_space *like, const sr_arch *fixed, sn_space **out, es_error *err)
{
    es_arena *arena = es_arena_new(64 * 1024);
    sn_space *sp = es_arena_alloc(arena, sizeof *sp);
    sp->arena = arena;
    sp->spec = spec;
    sp->choices = sr_space_new();
    build b = {.sp = sp, .like = like, .fixed = fixed, .err = err};
    es_status s = build_all(&b);
    if (s == ES_OK)
        sn_template_keys(sp);
    else
        sn_space_destroy(&sp);
    *out = sp;
    return s;
}
