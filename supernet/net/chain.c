/* The visitor that sees a subnet as a chain of units: what each is made of, as a hash, and the shape it hands on. */
#include <stdlib.h>

#include "base/arena.h"
#include "supernet/net/internal.h"

typedef struct chain {
    es_hasher *unit;
    sn_link *links;
    int n, room;
    uint32_t ops; /* so far in this unit */
} chain;

/* A reference within a unit is its op's number and whether the value has rank 2. */
static uint32_t emit(sn_walk *w, const sn_op *op)
{
    chain *c = w->ctx;
    int32_t seen[16 + 4 * KN_IN_MAX];
    int n = 0;
    if (!c->unit)
        c->unit = es_hasher_new();
    const int32_t own[] = {(int32_t)op->kind, op->slot,     op->n,       op->k,         op->stride, op->pad,
                           op->groups,        op->dilation, op->act,     op->affine,    op->out.h,  op->out.w,
                           op->out.c,         op->heads,    op->symbols, op->classifier};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        seen[n++] = own[i];
    for (int i = 0; i < op->n; i++) {
        seen[n++] = op->x[i].h;
        seen[n++] = op->x[i].w;
        seen[n++] = op->x[i].c;
        seen[n++] = (int32_t)op->x[i].ref;
    }
    es_hasher_add(c->unit, seen, (size_t)n * sizeof *seen);
    es_hasher_add(c->unit, &w->frozen, sizeof w->frozen);
    return ++c->ops << 1 | sn_op_flat(op);
}

static uint32_t boundary(sn_walk *w, int k, sn_val x)
{
    chain *c = w->ctx;
    bool flat = x.ref & 1;
    if (k == 0)
        return x.ref; /* the images belong to the first unit */
    if (c->n == c->room) {
        c->room = 2 * c->room + 16;
        c->links = es_xrealloc(c->links, (size_t)c->room * sizeof *c->links);
    }
    sn_link *l = &c->links[c->n++];
    const int32_t shape[] = {x.h, x.w, x.c, flat};
    if (!c->unit) /* a unit without ops: it hands on what it gets, and its shape is all there is to it */
        c->unit = es_hasher_new();
    es_hasher_add(c->unit, shape, sizeof shape);
    es_hasher_end(&c->unit, &l->unit);
    es_hash both[2] = {l->unit, l->unit};
    if (k > 1)
        both[1] = l[-1].prefix;
    es_hash_bytes(both, k > 1 ? sizeof both : sizeof both[0], &l->prefix);
    l->out = sn_val_shape(&x, 1, flat);
    c->ops = 0;
    return flat;
}

es_status sn_net_chain(const sn_net *n, const sr_arch *a, const uint8_t *unit_flags, sn_link **links, int *count,
                       es_error *err)
{
    chain c = {0};
    sn_walk w = {.space = n->space, .arch = a, .emit = emit, .boundary = boundary, .ctx = &c, .unit_flags = unit_flags};
    es_status s = sn_walk_run(&w, err);
    if (c.unit) { /* the output's, behind the last unit; or what a failed walk left */
        es_hash rest;
        es_hasher_end(&c.unit, &rest);
    }
    if (s != ES_OK)
        free(c.links);
    *links = s == ES_OK ? c.links : NULL;
    *count = s == ES_OK ? c.n : 0;
    return s;
}
