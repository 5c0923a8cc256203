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

#include "kernels/graph.h"
#include "supernet/space.h"

typedef struct sn_net sn_net;

es_status sn_net_new(const sn_space *sp, sn_net **out, es_error *err) ES_MUST_CHECK; /* borrows the space */
void sn_net_destroy(sn_net **n);
const sn_space *sn_net_space(const sn_net *n);
const kn_params *sn_net_params(const sn_net *n); /* KN_SET_WEIGHTS */
const kn_params *sn_net_stats(const sn_net *n);  /* KN_SET_STATS: mean and variance of every batch norm; may be empty */

typedef enum sn_mode {
    SN_TRAIN,     /* batch statistics, none kept; dropout and drop-path on where `regularise` */
    SN_CALIBRATE, /* batch statistics, blended into the stats set with the run's scalar SN_SCALAR_BLEND (1/n: cumulative average) */
    SN_INFER,     /* statistics from the stats set */
    SN_BATCH_STATS /* evaluation with the statistics of the batch itself */
} sn_mode;

enum { SN_IN_IMAGES = 0, SN_IN_LABELS = 1, SN_IN_TEACHER = 2, SN_SCALAR_BLEND = 0 };

typedef struct sn_lower_options {
    int batch;
    sn_mode mode;
    bool regularise;   /* dropout and drop-path active (only the largest subnet, BigNAS) */
    bool logits_only;  /* false: also fills per-layer outputs */
} sn_lower_options;

typedef struct sn_lowered {
    kn_val images; /* F32 [batch, h, w, c], input slot SN_IN_IMAGES: normalised already; resized inside when the architecture chooses a resolution */
    kn_val logits; /* [batch, classes] */
} sn_lowered;

es_status sn_net_lower(const sn_net *n, const sr_arch *a, const sn_lower_options *o, kn_graph *g, sn_lowered *out, es_error *err) ES_MUST_CHECK;

/* One line of `espalier explain`. */
typedef struct sn_layer {
    char name[96], op[48];
    kn_shape in, out; /* batch 1 */
    int64_t params, macs;
} sn_layer;
es_status sn_space_explain(const sn_space *sp, const sr_arch *a, sn_layer **layers, int *count, es_error *err) ES_MUST_CHECK; /* caller frees *layers */

/* Every parameter slice that a subnet uses: for extraction, for touched-only reductions, for counting. */
typedef struct sn_slice { int set; kn_param id; kn_box box; } sn_slice;
es_status sn_net_slices(const sn_net *n, const sr_arch *a, sn_slice **slices, int *count, es_error *err) ES_MUST_CHECK; /* caller frees; each (id, box) once */

/* The space with every choice fixed as in `a`: its only architecture. Its net's parameters have the same names and the slices' extents. */
es_status sn_space_fix(const sn_space *sp, const sr_arch *a, sn_space **out, es_error *err) ES_MUST_CHECK;

#endif
