/* stream.h - batches streamed through the chain of a subnet (net/net.h), link by link: what calibration and scoring of one or of many subnets are made of.
 *
 *     sn_stream_begin(t, batches, budget, stats, err);
 *     for each subnet, in an order in which common prefixes lie together:
 *         sn_stream_load(t, arch, flags, links, n, err);                  // which links are new; plans of those it shares with the one before are kept
 *         sn_stream_calibrate(t, weights, stats, err);                    // every calibration batch through the links
 *         sn_stream_score(t, weights, stats, scores, err);                // every batch of the split; two sums a batch into device memory
 *
 * Every link is a plan of its own (kept in links.h), whoever asks and whatever it shares, and what passes between two is in memory in the plans' storage type. So a link
 * computes the same bits from the same input, and a subnet scored alone and one that took its first links' values from another are equal bit for bit.
 *
 * Values that are kept: behind a link where subnets still to come part from this one, all calibration and all scoring batches, on a stack in one piece of device
 * memory of at most `budget` bytes (the deepest that fit). Where they do not fit the links before are run again, which gives the same bits.
 */
#ifndef SN_STREAM_H
#define SN_STREAM_H

#include "supernet/train/methods.h"

/* Equal batches of a number of samples: `count` of them, the last one maybe smaller. */
typedef struct sn_batches {
    int64_t samples, count;
    int size, last;
} sn_batches;
sn_batches sn_batches_make(int64_t samples, int most); /* as few as `most` allows, as equal as can be */

typedef struct sn_stream sn_stream;
void sn_stream_destroy(sn_stream **s, kn_device *dev);

/* calibration.count 0: no batch norms. scoring.count 0: only calibration. keep_bytes: memory for kept values, 0 for none. */
es_status sn_stream_begin(sn_trainer *t, const sn_batches *calibration, const sn_batches *scoring, sn_split split,
                          size_t keep_bytes, es_error *err) ES_MUST_CHECK;
/* Architecture, flags and links are borrowed until the next subnet's. keep: one bit behind each link, where its values shall be kept if they fit (NULL: nowhere). */
es_status sn_stream_load(sn_trainer *t, const sr_arch *a, const uint8_t *flags, const sn_link *links, int n,
                         const bool *keep, es_error *err) ES_MUST_CHECK;
es_status sn_stream_calibrate(sn_trainer *t, kn_weights *weights, kn_weights *stats, es_error *err) ES_MUST_CHECK;
es_status sn_stream_score(sn_trainer *t, kn_weights *weights, kn_weights *stats, float *scores,
                          es_error *err) ES_MUST_CHECK;
size_t sn_stream_bytes(const sn_stream *s); /* device memory that it holds; NULL: 0 */
size_t sn_stream_kept_bytes(const sn_trainer *t, const sn_link *l, const sn_batches *calibration,
                            const sn_batches *scoring);
int64_t sn_stream_links_run(const sn_trainer *t); /* since begin: links whose values were computed */

#endif
