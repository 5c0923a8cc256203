/* walk.h - the one walk over (space, architecture): it emits abstract layers, and a visitor makes of them what it wants.
 *
 *     static uint32_t count(sn_walk *w, const sn_op *op) { ++*(int *)w->ctx; return 0; }
 *     sn_walk w = {.space = sp, .arch = a, .emit = count, .ctx = &n};
 *     es_status s = sn_walk_run(&w, err);
 *
 * Cost, explain, parameter declaration, slices and lowering are visitors, so they cannot disagree. With arch NULL the walk declares: every unit at its deepest,
 * every field at its largest, every alternative in turn; shapes of weights are then the largest that any architecture uses.
 * A slot is the place of one layer's parameters, numbered once per space: a visitor that needs parameters keeps a table by slot and formats no names.
 */
#ifndef SN_WALK_H
#define SN_WALK_H

#include "supernet/space/template.h"

typedef struct sn_val {
    int h, w, c;  /* after flatten and in the classifier h = w = 1 */
    uint32_t ref; /* the visitor's own handle */
} sn_val;

typedef enum sn_op_kind {
    SN_OP_INPUT,
    SN_OP_RESIZE,
    SN_OP_CONV,
    SN_OP_DEPTHWISE,
    SN_OP_LINEAR,
    SN_OP_BIAS,
    SN_OP_NORM,
    SN_OP_ACT,
    SN_OP_MAX_POOL,
    SN_OP_AVG_POOL,
    SN_OP_GLOBAL_POOL,
    SN_OP_FLATTEN,
    SN_OP_ADD,
    SN_OP_SCALE,
    SN_OP_CONCAT,
    SN_OP_ZERO,
    SN_OP_DROPOUT,
    SN_OP_DROP_PATH,
    SN_OP_EMBED,      /* token ids -> rows of the table, and the learned position added */
    SN_OP_LAYER_NORM, /* over the channels; a gain, no shift */
    SN_OP_ATTENTION,  /* causal; of a position, x[0] is each head's query, key and value */
    SN_OP_TIED,       /* logits: x times the embedding table of the slot, transposed */
    SN_OP_OUTPUT
} sn_op_kind;
extern const char *const sn_op_names[];

typedef struct sn_op {
    sn_op_kind kind;
    const char *name; /* inside the unit, static */
    int slot;         /* -1: no parameters and no random numbers */
    int n;            /* inputs */
    sn_val x[KN_IN_MAX], out;
    int k, stride, pad, groups, dilation;
    int heads, symbols; /* ATTENTION; EMBED: rows of the table */
    kn_act act;         /* NORM, BIAS, ACT: applied after */
    bool affine, zero_gamma, per_channel;
    bool classifier; /* LINEAR: the last one */
    float rate;
} sn_op;

typedef struct sn_walk sn_walk;
struct sn_walk {
    const sn_space *space;
    const sr_arch *arch; /* NULL: declare */
    uint32_t (*emit)(sn_walk *w, const sn_op *op);
    /* Before the k-th unit that is walked (from 0; units that are left out do not count) and after the last: what the next unit gets for x. May be NULL. */
    uint32_t (*boundary)(sn_walk *w, int k, sn_val x);
    void (*unit_done)(sn_walk *w, const sn_unit *u, sn_val in, sn_val out); /* may be NULL */
    void *ctx;
    const uint8_t *unit_flags; /* by unit, may be NULL */
    /* The walk's own. */
    const sn_unit *unit;
    int unit_index, kind; /* kind: index into the unit's block options */
    int set[SN_FIELDS];   /* the unit's fields in this architecture */
    const char *scope;    /* inside a cell: the edge and op */
    bool want_names;      /* set by visitors that call sn_walk_name */
    bool frozen;
    es_status status;
    es_error *err;
};

es_status sn_walk_run(sn_walk *w, es_error *err) ES_MUST_CHECK;
/* One unit alone, as block option `kind` with the fields in w->set: for checks. */
sn_val sn_walk_block(sn_walk *w, const sn_unit *u, int kind, sn_val x);
/* "stages.0.blocks.1.expand" of the op being emitted. */
void sn_walk_name(const sn_walk *w, const sn_op *op, char *buf, size_t size);
es_status sn_walk_fail(sn_walk *w, const char *fmt, ...) ES_PRINTF(2, 3); /* keeps the first failure */

/* What a convolution or a pooling slides over its input. What is not named is 0: (sn_window){.k = 1} is a 1x1 convolution. */
typedef struct sn_window {
    int k;
    int stride, dilation, groups; /* 0: 1. groups only of convolutions, and they must divide both channel counts */
    int pad;                      /* or SN_PAD_SAME: the size stays (at stride 1) */
} sn_window;
enum { SN_PAD_SAME = -1 };

/* Layers, for blocks. Slots are relative to the unit's. */
sn_val sn_walk_conv(sn_walk *w, sn_val x, int slot, const char *name, int out, sn_window win);
sn_val sn_walk_depthwise(sn_walk *w, sn_val x, int slot, const char *name, sn_window win);
sn_val sn_walk_linear(sn_walk *w, sn_val x, int slot, const char *name, int out, bool classifier);
sn_val sn_walk_bias(sn_walk *w, sn_val x, int slot, const char *name,
                    kn_act act); /* shares the slot and name of the layer before */
sn_val sn_walk_norm(sn_walk *w, sn_val x, int slot, const char *name, kn_act act, bool affine, bool zero_gamma);
sn_val sn_walk_act(sn_walk *w, sn_val x, kn_act act); /* NONE: x */
sn_val sn_walk_pool(sn_walk *w, sn_val x, bool max, sn_window win);
sn_val sn_walk_global_pool(sn_walk *w, sn_val x);
sn_val sn_walk_flatten(sn_walk *w, sn_val x);
sn_val sn_walk_add(sn_walk *w, sn_val a, sn_val b);
sn_val sn_walk_concat(sn_walk *w, const sn_val *x, int n);
sn_val sn_walk_zero(sn_walk *w, int h, int wd, int c);
sn_val sn_walk_dropout(sn_walk *w, sn_val x, int slot, float rate, bool per_channel); /* rate 0: x */
sn_val sn_walk_drop_path(sn_walk *w, sn_val x, int slot, float rate);

sn_val sn_walk_embed(sn_walk *w, sn_val tokens, int slot, const char *name, int width);
sn_val sn_walk_layer_norm(sn_walk *w, sn_val x, int slot, const char *name);
sn_val sn_walk_attention(sn_walk *w, sn_val qkv, int heads);
sn_val sn_walk_tied(sn_walk *w, sn_val x, const sn_unit *embedding,
                    int out); /* reads the table of that unit's slot 0 */

/* Shared pieces of blocks. */
enum { SN_SE_SLOTS = 2, SN_SHORTCUT_SLOTS = 2 };
sn_val sn_walk_se(sn_walk *w, sn_val x, int slot); /* squeeze-excite when the unit's `se` is on */
bool sn_walk_shortcut(sn_walk *w, sn_val x, sn_val y, int slot, sn_val *out); /* what is added to y; false: nothing */
/* Convolution, then batch norm or bias as the stage says, then act; padding and dilation are the stage's. Uses two slots. */
typedef struct sn_conv_act {
    const char *conv, *norm; /* names */
    int out, k, stride, groups;
    kn_act act;
    bool zero_gamma; /* of the norm: the branch begins as nothing */
} sn_conv_act;
sn_val sn_walk_conv_act(sn_walk *w, sn_val x, int slot, const sn_conv_act *c);
int sn_round_channels(int c, int divisor); /* to the nearest multiple, at least `divisor`, never below 90 % */

/* A kind of block: one file blocks/<name>.c and one line in blocks/kinds.c. */
struct sn_block_kind {
    const char *name;
    unsigned uses;                                         /* 1u << sn_field_kind: the choices it has */
    unsigned needs;                                        /* those that must be given */
    bool even_kernels;                                     /* kernels need not be odd */
    bool head;                                             /* not a stage */
    bool tokens;                                           /* of spaces that read tokens, not images */
    const char *const *keys;                               /* further keys of the stage that it reads */
    int slots;                                             /* that it uses at most */
    int (*slots_of)(const sn_space *sp, const sn_unit *u); /* instead, where the spec decides */
    sn_val (*walk)(sn_walk *w, const sn_unit *u, sn_val x);
};
extern const sn_block_kind *const sn_block_kinds[]; /* NULL-terminated */
const sn_block_kind *sn_block_kind_find(const char *name, int *index);

/* Ops of a cell's edges: one table in blocks/cell.c. */
extern const char *const sn_cell_op_names[]; /* NULL-terminated */

#endif
