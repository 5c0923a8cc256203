/* space.h - the `space:` section of a search file: what can be chosen (an sr_space) and what each choice means (a network).
 *
 *     sn_space *sp; sn_space_read(yaml_node, &sp, err);                    // or sn_space_load("examples/spaces/ofa-mbv3.yaml", &sp, err)
 *     const sr_space *choices = sn_space_choices(sp);
 *     sn_arch_parse(sp, "|nor_conv_3x3~0|+...", arch, err);                // a published space reads and writes its table's own notation
 *     char *text = sn_arch_format(sp, arch);
 *     sn_cost c; sn_space_cost(sp, arch, &c, err);
 *
 * The cost model and the graph come from one walk over the network (net/net.h), so they cannot disagree. docs/search-file.md is the reference of every field.
 */
#ifndef SN_SPACE_H
#define SN_SPACE_H

#include "base/str.h"
#include "base/yaml.h"
#include "search/space.h"

typedef struct sn_space sn_space;

es_status sn_space_read(const es_yaml_node *node, sn_space **out,
                        es_error *err) ES_MUST_CHECK; /* keeps nothing of the document */
es_status sn_space_load(const char *path, sn_space **out,
                        es_error *err) ES_MUST_CHECK; /* a file whose root (or `space:` key) is a space */
void sn_space_destroy(sn_space **sp);

const sr_space *sn_space_choices(const sn_space *sp);
void sn_space_input(const sn_space *sp, int *height, int *width, int *channels);
int sn_space_classes(const sn_space *sp); /* of tokens: the vocabulary */
/* Reads tokens, and gives scores for the next one at every position; else images, one score a sample. */
bool sn_space_tokens(const sn_space *sp);
int sn_space_positions(const sn_space *sp); /* scores a sample has: tokens of a window; 1 for an image */
char *sn_arch_format(const sn_space *sp, const sr_arch *a); /* in the space's notation; caller owns */
es_status sn_arch_parse(const sn_space *sp, const char *text, sr_arch *out, es_error *err) ES_MUST_CHECK;

/* The space with every choice fixed as in `a`: its only architecture. Its net's parameters have the same names and the slices' extents. */
es_status sn_space_fix(const sn_space *sp, const sr_arch *a, sn_space **out, es_error *err) ES_MUST_CHECK;

/* Flags by unit (a top-level block; net.h numbers them): an architecture walked otherwise than as it is. */
enum {
    SN_UNIT_SKIP = 1,   /* left out: its input is its output. Refused for a unit that changes the shape. */
    SN_UNIT_FROZEN = 2, /* batch norms use the stored statistics whatever the mode, and no dropout */
};

typedef struct sn_cost {
    int64_t params;           /* unique storage, counted once */
    int64_t macs;             /* multiply-adds, by the space's counting rule (docs/search-file.md) */
    int64_t activation_bytes; /* largest sum of fp32 inputs and outputs alive at one layer, batch 1 */
    int64_t layers_bytes;     /* sum of every layer's fp32 output, batch 1: what a backward pass looks at */
    int layers;               /* ops that are walked */
} sn_cost;
es_status sn_space_cost(const sn_space *sp, const sr_arch *a, sn_cost *out, es_error *err) ES_MUST_CHECK;

/* What the client prints; each appends to `out`. */
es_status sn_explain_print(const sn_space *sp, const sr_arch *a, es_str *out,
                           es_error *err) ES_MUST_CHECK; /* a table of layers */
es_status sn_explain_dot(const sn_space *sp, const sr_arch *a, es_str *out,
                         es_error *err) ES_MUST_CHECK; /* for Graphviz */
/* "architecture,params,macs,activation_bytes", then one line per line of `archs` (n bytes; empty lines are skipped), in order; a bad line: "name:line". */
es_status sn_cost_csv(const sn_space *sp, const char *name, const char *archs, size_t n, es_str *out,
                      es_error *err) ES_MUST_CHECK;

#endif
