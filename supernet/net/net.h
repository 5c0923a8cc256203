/* net.h - the supernet of a space: its parameters at their largest, and the lowering of an architecture to a graph.
 *
 *     sn_net *net; sn_net_new(space, &net, err);                 // declares kn_params for weights and for batch-norm statistics
 *     sn_lower_options o = {.batch = 256, .mode = SN_TRAIN};
 *     sn_lowered out; sn_net_lower(net, arch, &o, graph, &out, err);   // adds nodes: images -> logits
 *     loss = kn_cross_entropy(g, out.logits, ...)
 *
 * A subnet is an argument of the call, never a mutation of the net: width prefixes, centred kernels, depth prefixes, resolution.
 * The same walk gives `espalier explain` (layers with shapes, parameters and MACs) and the cost model.
 *
 * Stand-alone: sn_net_extract cuts a subnet's weights out as dense tensors, and sn_net_standalone makes the net of a space whose every choice has one option, so
 * that the extracted weights run on their own and give the same outputs bit for bit.
 */
#ifndef SN_NET_H
#define SN_NET_H

#include "base/hash.h"
#include "kernels/graph/graph.h"
#include "supernet/space/space.h"

typedef struct sn_net sn_net;

es_status sn_net_new(const sn_space *sp, sn_net **out, es_error *err) ES_MUST_CHECK; /* borrows the space */
void sn_net_destroy(sn_net **n);
const sn_space *sn_net_space(const sn_net *n);
const kn_params *sn_net_params(const sn_net *n); /* KN_SET_WEIGHTS */
const kn_params *sn_net_stats(const sn_net *n);  /* KN_SET_STATS: mean and variance of every batch norm; may be empty */

typedef enum sn_mode {
    SN_TRAIN, /* batch statistics, none kept; dropout and drop-path on where `regularise` */
    SN_CALIBRATE, /* batch statistics, blended into the stats set with the run's scalar SN_SCALAR_BLEND (1/n: cumulative average) */
    SN_INFER,      /* statistics from the stats set */
    SN_BATCH_STATS /* evaluation with the statistics of the batch itself */
} sn_mode;

enum { SN_IN_IMAGES = 0, SN_IN_LABELS = 1, SN_IN_TEACHER = 2, SN_IN_LINK = 3, SN_OUT_LINK = 3, SN_SCALAR_BLEND = 0 };

typedef struct sn_lower_options {
    int batch;
    sn_mode mode;
    bool regularise;           /* dropout and drop-path active (only the largest subnet, BigNAS) */
    const uint8_t *unit_flags; /* SN_UNIT_*, one per unit (sn_net_units); NULL: all zero */
    int first,
        end; /* a piece of the chain (below): links [first, end) from SN_IN_LINK to SN_OUT_LINK; the first begins with the images, the last ends with the
                       logits; end 0: all of it */
} sn_lower_options;

typedef struct sn_lowered {
    /* F32 [batch, h, w, c], input slot SN_IN_IMAGES: normalised already; resized inside when the architecture chooses a resolution; of tokens I32 [batch * tokens]. */
    kn_val images;
    kn_val logits; /* [batch, classes]; of tokens [batch * tokens, vocabulary], each the next one's */
} sn_lowered;

es_status sn_net_lower(const sn_net *n, const sr_arch *a, const sn_lower_options *o, kn_graph *g, sn_lowered *out,
                       es_error *err) ES_MUST_CHECK;

/* A subnet as a chain: the units it walks, in order. Two links of equal `unit` do the same with the same slices of the weights, whatever came before (link 0
 * includes the images and their resizing); equal `prefix` means so for all links up to and with this one. */
typedef struct sn_link {
    es_hash unit, prefix;
    kn_shape out; /* of one sample, behind the link: [1, h, w, c], or rows [1, c], [tokens, c] */
} sn_link;
es_status sn_net_chain(const sn_net *n, const sr_arch *a, const uint8_t *unit_flags, sn_link **links, int *count,
                       es_error *err) ES_MUST_CHECK; /* caller frees *links */

/* Every parameter slice that a subnet uses: for extraction, for touched-only reductions, for counting. */
typedef struct sn_slice {
    int set;
    kn_param id;
    kn_box box;
} sn_slice;
es_status sn_net_slices(const sn_net *n, const sr_arch *a, sn_slice **slices, int *count,
                        es_error *err) ES_MUST_CHECK; /* caller frees; each (id, box) once */

/* Units: the top-level blocks of the supernet, numbered once per space: the stem, every layer of every stage at its deepest, the head.
 *
 * Modules (Deep Model Assembling) need no second net. A meta model is the same net lowered with some units left out; a hybrid H_k leaves out those of every part
 * but k; weights of both live in a kn_weights of the same kn_params, so that "copy the meta model, start part k afresh" and "assemble" are copies of the
 * parameters whose unit lies in a part:
 *
 *     int part[units]; sn_net_cut(net, arch, 4, NULL, part, err);           // by multiply-adds; stem in part 0, head in part 3
 *     uint8_t flags[units]; sn_net_part_flags(net, arch, part, -1, flags, err); // the meta model: at most one block a stage and part
 *     sn_net_part_flags(net, arch, part, k, flags, err);                       // H_k: part k whole; the others as in the meta model, and frozen
 *     sn_net_lower(net, arch, &(sn_lower_options){.batch = 64, .mode = SN_TRAIN, .unit_flags = flags}, ...);
 *     wanted(set, id): part[sn_net_param_unit(net, set, id)] == k              // for kn_grad_params and kn_optim_trainable
 */
int sn_net_units(const sn_net *n);
int sn_net_param_unit(const sn_net *n, int set, kn_param id);

typedef struct sn_block {
    int unit, stage, layer; /* stage -1: stem or head */
    char name[48];          /* "stages.1.blocks.0": the prefix of its parameters' names */
    int64_t params, macs;
    bool keeps_shape; /* may be left out */
} sn_block;
es_status sn_net_blocks(const sn_net *n, const sr_arch *a, sn_block **blocks, int *count,
                        es_error *err) ES_MUST_CHECK; /* those `a` uses, in order; caller frees */

/* part[unit] = 0 .. parts - 1, -1 for a unit that `a` does not use. `at` (parts - 1 rising indices into sn_net_blocks: where parts 1, 2 ... begin) or NULL: so that the
 * dearest part is as cheap as possible. */
es_status sn_net_cut(const sn_net *n, const sr_arch *a, int parts, const int *at, int *part,
                     es_error *err) ES_MUST_CHECK;
/* The meta model keeps of every part the blocks that change the shape, or its first block where none does. */
es_status sn_net_part_flags(const sn_net *n, const sr_arch *a, const int *part, int trained, uint8_t *flags,
                            es_error *err) ES_MUST_CHECK;

#endif
