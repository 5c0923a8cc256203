#include "supernet/net/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supernet/net/internal.h"

/* What the declaring walk learns of a slot: every alternative that uses it, at its largest. */
typedef struct draft {
    sn_op_kind kind;
    bool used, bias, affine, zero_gamma;
    int order, unit, out, k, in; /* of an embedding: in positions, k symbols */
    char name[128];
} draft;
typedef struct declaration {
    draft *slot;
    int order;
} declaration;

static int larger(int a, int b) { return a > b ? a : b; }

static uint32_t declare(sn_walk *w, const sn_op *op)
{
    declaration *d = w->ctx;
    if (op->slot < 0 || op->kind == SN_OP_DROPOUT || op->kind == SN_OP_DROP_PATH || op->kind == SN_OP_TIED)
        return 0;
    draft *s = &d->slot[op->slot];
    if (op->kind == SN_OP_BIAS) {
        ES_ASSERT(s->used);
        s->bias = true;
        return 0;
    }
    if (!s->used) {
        s->used = true;
        s->kind = op->kind;
        s->order = d->order++;
        s->unit = w->unit_index;
        sn_walk_name(w, op, s->name, sizeof s->name);
    }
    ES_ASSERT(s->kind == op->kind);
    s->affine |= op->affine;
    s->zero_gamma |= op->zero_gamma;
    s->out = larger(s->out, op->out.c);
    s->k = larger(s->k, op->kind == SN_OP_EMBED ? op->symbols : op->k);
    s->in = larger(s->in, op->kind == SN_OP_CONV    ? op->x[0].c / op->groups
                          : op->kind == SN_OP_EMBED ? op->out.w
                                                    : op->x[0].c);
    return 0;
}

static es_status add(sn_net *n, int set, const draft *d, const char *suffix, kn_shape shape, kn_init_kind init,
                     unsigned flags, kn_param *out, es_error *err)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", d->name, suffix);
    kn_params *p = set == KN_SET_WEIGHTS ? n->params : n->stats;
    ES_RETURN(kn_params_add(p, name, shape, init, flags, out, err));
    n->unit_of[set] = es_xrealloc(n->unit_of[set], (size_t)kn_params_count(p) * sizeof(int));
    n->unit_of[set][*out] = d->unit;
    return ES_OK;
}

static es_status add_slot(sn_net *n, const draft *d, sn_slot *s, es_error *err)
{
    s->k = d->k;
    if (d->kind == SN_OP_EMBED) {
        ES_RETURN(add(n, KN_SET_WEIGHTS, d, "table", KN_SHAPE(d->k, d->out), KN_INIT_NORMAL_002, KN_PARAM_DECAY,
                      &s->weight, err));
        return add(n, KN_SET_WEIGHTS, d, "position", KN_SHAPE(d->in, d->out), KN_INIT_NORMAL_002, KN_PARAM_DECAY,
                   &s->position, err);
    }
    if (d->kind == SN_OP_LAYER_NORM)
        return add(n, KN_SET_WEIGHTS, d, "gamma", KN_SHAPE(d->out), KN_INIT_ONE, 0, &s->gamma, err);
    if (d->kind == SN_OP_NORM) {
        kn_shape c = KN_SHAPE(d->out);
        if (d->affine) {
            ES_RETURN(
                add(n, KN_SET_WEIGHTS, d, "gamma", c, d->zero_gamma ? KN_INIT_ZERO : KN_INIT_ONE, 0, &s->gamma, err));
            ES_RETURN(add(n, KN_SET_WEIGHTS, d, "beta", c, KN_INIT_ZERO, 0, &s->beta, err));
        }
        ES_RETURN(add(n, KN_SET_STATS, d, "mean", c, KN_INIT_ZERO, 0, &s->mean, err));
        return add(n, KN_SET_STATS, d, "var", c, KN_INIT_ONE, 0, &s->var, err);
    }
    kn_shape shape = d->kind == SN_OP_LINEAR ? KN_SHAPE(d->out, d->in)
                     : d->kind == SN_OP_CONV ? KN_SHAPE(d->out, d->k, d->k, d->in)
                                             : KN_SHAPE(d->k, d->k, d->out);
    unsigned flags = KN_PARAM_DECAY | (d->kind == SN_OP_DEPTHWISE ? KN_PARAM_DEPTHWISE : 0);
    /* With a bias no norm follows: the usual initialisation of such layers. Else He's, and of transformers their own, as the benchmark's twins. */
    kn_init_kind init = n->space->spec->vocabulary ? KN_INIT_NORMAL_002 : d->bias ? KN_INIT_UNIFORM_IN : KN_INIT_HE_OUT;
    ES_RETURN(add(n, KN_SET_WEIGHTS, d, "weight", shape, init, flags, &s->weight, err));
    return d->bias ? add(n, KN_SET_WEIGHTS, d, "bias", KN_SHAPE(d->out), KN_INIT_ZERO, 0, &s->bias, err) : ES_OK;
}

static int by_order(const void *a, const void *b)
{
    const draft *x = *(const draft *const *)a, *y = *(const draft *const *)b;
    return x->order - y->order;
}

static es_status add_all(sn_net *n, draft *drafts, es_error *err)
{
    int count = 0;
    const draft **sorted = es_xcalloc((size_t)n->space->slots + 1, sizeof *sorted);
    for (int i = 0; i < n->space->slots; i++)
        if (drafts[i].used)
            sorted[count++] = &drafts[i];
    qsort(sorted, (size_t)count, sizeof *sorted,
          by_order); /* in the order of the network, whatever the numbering of slots */
    es_status s = ES_OK;
    for (int i = 0; i < count && s == ES_OK; i++)
        s = add_slot(n, sorted[i], &n->slot[sorted[i] - drafts], err);
    free(sorted);
    return s;
}

es_status sn_net_new(const sn_space *sp, sn_net **out, es_error *err)
{
    sn_net *n = es_xcalloc(1, sizeof *n);
    declaration d = {.slot = es_xcalloc((size_t)sp->slots + 1, sizeof *d.slot)};
    sn_walk w = {.space = sp, .emit = declare, .ctx = &d, .want_names = true};
    es_status s = ES_OK;
    n->space = sp;
    n->params = kn_params_new();
    n->stats = kn_params_new();
    n->slot = es_xcalloc((size_t)sp->slots + 1, sizeof *n->slot);
    for (int i = 0; i < sp->slots; i++)
        n->slot[i] = (sn_slot){-1, -1, -1, -1, -1, -1, -1, 0};
    ES_GOTO(sn_walk_run(&w, err));
    ES_GOTO(add_all(n, d.slot, err));
    kn_params_seal(n->params);
    kn_params_seal(n->stats);
fail:
    free(d.slot);
    if (s != ES_OK)
        sn_net_destroy(&n);
    *out = n;
    return s;
}

void sn_net_destroy(sn_net **n)
{
    if (!*n)
        return;
    kn_params_destroy(&(*n)->params);
    kn_params_destroy(&(*n)->stats);
    free((*n)->slot);
    for (int i = 0; i < KN_SETS; i++)
        free((*n)->unit_of[i]);
    free(*n);
    *n = NULL;
}

const sn_space *sn_net_space(const sn_net *n) { return n->space; }
const kn_params *sn_net_params(const sn_net *n) { return n->params; }
const kn_params *sn_net_stats(const sn_net *n) { return n->stats; }

static sn_slice slice1(int set, kn_param id, int c)
{
    return (sn_slice){.set = set, .id = id, .box = {.extent = {c, 1, 1, 1, 1}}};
}

int sn_net_op_slices(const sn_net *n, const sn_op *op, sn_slice out[SN_OP_SLICES_MAX])
{
    if (op->slot < 0)
        return 0;
    const sn_slot *s = &n->slot[op->slot];
    int c = op->out.c, centre = (s->k - op->k) / 2, count = 0;
    switch (op->kind) {
    case SN_OP_CONV:
        out[0] = (sn_slice){KN_SET_WEIGHTS,
                            s->weight,
                            {.start = {0, centre, centre}, .extent = {c, op->k, op->k, op->x[0].c / op->groups, 1}}};
        return 1;
    case SN_OP_DEPTHWISE:
        out[0] = (sn_slice){KN_SET_WEIGHTS, s->weight, {.start = {centre, centre}, .extent = {op->k, op->k, c, 1, 1}}};
        return 1;
    case SN_OP_LINEAR: out[0] = (sn_slice){KN_SET_WEIGHTS, s->weight, {.extent = {c, op->x[0].c, 1, 1, 1}}}; return 1;
    case SN_OP_BIAS: out[0] = slice1(KN_SET_WEIGHTS, s->bias, c); return 1;
    case SN_OP_NORM:
        if (op->affine) {
            out[count++] = slice1(KN_SET_WEIGHTS, s->gamma, c);
            out[count++] = slice1(KN_SET_WEIGHTS, s->beta, c);
        }
        out[count++] = slice1(KN_SET_STATS, s->mean, c);
        out[count++] = slice1(KN_SET_STATS, s->var, c);
        return count;
    case SN_OP_LAYER_NORM: out[0] = slice1(KN_SET_WEIGHTS, s->gamma, c); return 1;
    case SN_OP_EMBED:
        out[0] = (sn_slice){KN_SET_WEIGHTS, s->weight, {.extent = {op->symbols, c, 1, 1, 1}}};
        out[1] = (sn_slice){KN_SET_WEIGHTS, s->position, {.extent = {op->out.w, c, 1, 1, 1}}};
        return 2;
    case SN_OP_TIED: out[0] = (sn_slice){KN_SET_WEIGHTS, s->weight, {.extent = {c, op->x[0].c, 1, 1, 1}}}; return 1;
    default: return 0;
    }
}

typedef struct gather {
    const sn_net *net;
    sn_slice *slices;
    int count, room;
} gather;

static uint32_t gather_op(sn_walk *w, const sn_op *op)
{
    gather *l = w->ctx;
    sn_slice own[SN_OP_SLICES_MAX];
    int n = sn_net_op_slices(l->net, op, own);
    for (int i = 0; i < n; i++) {
        bool there = false;
        for (int j = 0; j < l->count && !there; j++)
            there = l->slices[j].set == own[i].set && l->slices[j].id == own[i].id &&
                    memcmp(&l->slices[j].box, &own[i].box, sizeof own[i].box) == 0;
        if (there)
            continue;
        if (l->count == l->room) {
            l->room = l->room ? 2 * l->room : 128;
            l->slices = es_xrealloc(l->slices, (size_t)l->room * sizeof *l->slices);
        }
        l->slices[l->count++] = own[i];
    }
    return 0;
}

es_status sn_net_slices(const sn_net *n, const sr_arch *a, sn_slice **slices, int *count, es_error *err)
{
    gather l = {.net = n};
    sn_walk w = {.space = n->space, .arch = a, .emit = gather_op, .ctx = &l};
    es_status s = sn_walk_run(&w, err);
    if (s != ES_OK) {
        free(l.slices);
        l = (gather){0};
    }
    *slices = l.slices;
    *count = l.count;
    return s;
}
