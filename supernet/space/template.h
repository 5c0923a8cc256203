/* template.h - what a space means: a list of units (blocks), each with fields that are fixed or chosen by a gene. Internal to supernet/.
 *
 *     spec (what the user wrote: one entry per stage, with its ranges)  --sn_template_build-->  units, fields, choices
 *
 * A field's value in an architecture is sn_field_value(): an array look-up, so that walking costs nothing. The same spec with every field fixed is the
 * stand-alone space of an architecture (sn_space_fix). Everything lives in the space's arena; the spec is shared by counting.
 */
#ifndef SN_TEMPLATE_H
#define SN_TEMPLATE_H

#include <stdatomic.h>

#include "base/arena.h"
#include "kernels/graph/graph.h"
#include "supernet/space/space.h"

enum {
    SN_STAGES_MAX = 64,
    SN_LAYERS_MAX = 64,
    SN_CELLS_MAX = 8,
    SN_CELL_NODES_MAX = 7, /* besides the input: at most KN_IN_MAX values are concatenated */
    SN_EDGES_MAX = SN_CELL_NODES_MAX * (SN_CELL_NODES_MAX + 1) / 2,
    SN_HIDDEN_MAX = 8,
    SN_CHANNELS_MAX = 1 << 20, /* also after flatten */
};

/* What a layer can choose. The order is the order of genes inside a layer. */
typedef enum sn_field_kind {
    SN_BLOCK,
    SN_WIDTH,
    SN_KERNEL,
    SN_EXPAND,
    SN_GROUPS,
    SN_SE,
    SN_ACT,
    SN_HEADS,
    SN_FIELDS
} sn_field_kind;
extern const char *const sn_field_names[SN_FIELDS + 1]; /* "block", "width" ... NULL */
extern const char *const sn_act_names[]; /* kn_act by index, NULL-terminated; the ones a space may name */

typedef struct sn_range {
    int n; /* 0: not given */
    bool per_layer;
    int values[SR_OPTIONS_MAX]; /* from smallest to largest network */
} sn_range;

typedef enum sn_shortcut {
    SN_SHORTCUT_NONE,
    SN_SHORTCUT_IDENTITY, /* where the shapes match */
    SN_SHORTCUT_POOL, /* average pool for the stride, 1x1 convolution where channels differ (BigNAS, NAS-Bench-201) */
    SN_SHORTCUT_CONV  /* 1x1 convolution with the stride and batch norm where shapes differ (ResNet) */
} sn_shortcut;

/* Fixed per stage; a block kind reads what its keys set. */
typedef struct sn_block_options {
    int stride;  /* 0: the kind's own default */
    int padding; /* -1: keeps the size (at stride 1) */
    int dilation;
    bool norm, affine, bias, zero_gamma, preact;
    sn_shortcut shortcut;
    int divisor; /* hidden channels are rounded to a multiple */
    int se_ratio, se_divisor, se_act /* -1: the block's */, se_gate;
    float drop_path, rate;
    bool spatial, max_pool, flatten;
    int reduce;
    int cell;
    int head_dim;                                     /* transformer: width of one attention head */
    int classes, hidden, hidden_width[SN_HIDDEN_MAX]; /* head */
} sn_block_options;

typedef struct sn_stage_spec {
    char name[24]; /* "stem", "stages.3", "head" */
    int index;     /* of the stage, -1 for stem and head */
    sn_range depth, range[SN_FIELDS];
    sn_block_options o;
    const char *where; /* "file:line:column: field", for messages of checks made later */
} sn_stage_spec;

typedef struct sn_edge_spec {
    int from, to;
    sn_range ops; /* indices into sn_cell_ops */
} sn_edge_spec;
typedef struct sn_cell_spec {
    char name[32];
    int nodes, edges; /* nodes besides the input, which is node 0 */
    sn_edge_spec edge[SN_EDGES_MAX];
    bool concat, preprocess, affine, entangled;
    int act;
} sn_cell_spec;

typedef struct sn_spec {
    atomic_int users;
    es_arena *arena; /* owns everything below */
    char *name, *notation, *join;
    int columns;
    char **column;               /* patterns of the `columns` notation */
    int height, width, channels; /* of tokens: 1, how many, 1 */
    int vocabulary;              /* 0: images */
    sn_range resolution;
    float eps;
    bool count_bias; /* of the classifier, as multiply-adds (NAS-Bench-201) */
    int cells, stages;
    sn_cell_spec *cell;
    sn_stage_spec *stage; /* stem (when there is one), stages, head */
} sn_spec;

/* A value of an architecture. */
typedef struct sn_field {
    int gene; /* -1: values[0] always */
    int n;
    const int *values;
} sn_field;
static inline int sn_field_value(const sn_field *f, const sr_arch *a)
{
    return f->values[f->gene < 0 ? 0 : a->gene[f->gene]];
}
static inline int sn_field_largest(const sn_field *f) { return f->values[f->n - 1]; }
static inline int sn_field_smallest(const sn_field *f) { return f->values[0]; }

typedef struct sn_block_kind sn_block_kind;

typedef struct sn_unit {
    const char *name; /* "stages.1.blocks.0" */
    const sn_stage_spec *stage;
    int layer, stride;
    const sn_field *depth;     /* used when its value is above layer; NULL: always */
    sn_field field[SN_FIELDS]; /* n = 0 where the stage has none */
    int *slot;                 /* first slot per block option */
    /* Some architecture gives it an input of another shape than its output: a shortcut may need weights. */
    bool reshapes;
} sn_unit;

/* A field under its name, for notations: "stages.1.depth", "cells.normal.2.1", "resolution". */
typedef struct sn_named {
    const char *name;
    sn_field field;
    const char *const *labels;
} sn_named;

/* The compact notation's view of a choice: "0" and "k" for stages.0.blocks.1.kernel; `first` is the first choice with the same two. */
typedef struct sn_key {
    const char *section, *item;
    int first;
} sn_key;

struct sn_space {
    sn_spec *spec;
    es_arena *arena;
    sr_space *choices;
    int units, slots, named;
    sn_unit *unit;
    sn_named *name; /* sorted by appearance */
    sn_key *key;    /* by choice */
    sn_field resolution;
    sn_field edge[SN_CELLS_MAX][SN_EDGES_MAX];          /* index into sn_cell_ops */
    const char *edge_scope[SN_CELLS_MAX][SN_EDGES_MAX]; /* "1-0" */
};

/* What an index means as an option of a field: "24", "relu", "mbconv", "on". */
const char *sn_field_label(sn_field_kind kind, int value, char buf[16]);
/* Takes over one use of `spec` (also on failure). `like` and `fixed` (both or none): every field gets its value in that architecture. */
es_status sn_template_build(sn_spec *spec, const sn_space *like, const sr_arch *fixed, sn_space **out,
                            es_error *err) ES_MUST_CHECK;
void sn_template_keys(sn_space *sp); /* fills key; the last step of building */
const sn_named *sn_template_find(const sn_space *sp, const char *name);
es_status sn_spec_read(const es_yaml_node *node, sn_spec **out, es_error *err) ES_MUST_CHECK;
void sn_spec_release(sn_spec **spec);

#endif
