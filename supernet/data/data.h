/* data.h - data sets and their order: what a step sees is a function of (seed, epoch, index), never of what ran before.
 *
 *     sn_expect e = {.h = 28, .w = 28, .c = 1, .classes = 10};                  // what the space wants; 0 is "any"
 *     sn_data *d; sn_data_open(&file->data, file->seed, &e, &d, err);           // reads, checks (labels in range, sizes), splits
 *     sn_data_shape(d, &h, &w, &c); sn_data_count(d, SN_TRAIN_SPLIT);
 *     sn_loader *l; sn_loader_new(d, &file->augment, seed, batch, dev, &l, err);
 *     sn_batch b; sn_loader_train(l, step, &b, err);                            // the batch of this global step, augmented, on the device
 *     sn_loader_eval(l, SN_VALIDATION_SPLIT, first, count, &b, err);            // in stored order, no augmentation
 *     sn_loader_calibration(l, first, count, &b, err);                          // training samples in a fixed drawn order, no augmentation
 *
 * A data set of tokens (text, token files; supernet/data/tokens.h) has windows as samples: `images` are then their tokens, labels the tokens that follow.
 *
 * Formats: IDX (gzip or not), CIFAR binary, NPY/NPZ, CSV; supernet/data/formats.h has their parsers. Bytes stay bytes in memory; pad-crop, flip, cutout and
 * normalisation are applied when a batch is made.
 *
 * Split: `validation` samples drawn by Philox (seed, SPLIT) leave the training file; both splits keep the file's order. `limit` then keeps only the first so many
 * of the training split, so that the validation split is the same with and without it.
 *
 * Augmentation: one Philox block (seed, AUGMENT, epoch, sample of the file) decides a training sample's crop, flip and cutout. Crops pad with black (0), cutout
 * writes 0 after normalisation (the mean: DeVries and Taylor, arXiv:1708.04552). Without `normalise` bytes become value / 255 and floats stay; with it every
 * channel has mean 0 and standard deviation 1 over the training split.
 *
 * Order: an epoch is a permutation keyed by (seed, SHUFFLE, epoch); the last partial batch of an epoch is dropped. The batch of the next step is made on a
 * thread of the loader's own while the caller works on this one; asking for any other step is allowed and costs only the making. On an accelerator the data set is
 * uploaded once, when a quarter of the free memory holds it, and batches are made there: the same bits, and no copy from the host but an epoch's order.
 */
#ifndef SN_DATA_H
#define SN_DATA_H

#include "kernels/device/device.h"
#include "supernet/data/formats.h"
#include "supernet/searchfile/searchfile.h"

typedef enum sn_split { SN_TRAIN_SPLIT, SN_VALIDATION_SPLIT, SN_TEST_SPLIT, SN_SPLITS } sn_split;
const char *sn_split_name(sn_split s); /* "train", "validation", "test" */

typedef struct sn_data sn_data;
es_status sn_data_open(const sn_data_config *c, uint64_t seed, const sn_expect *e, sn_data **out,
                       es_error *err) ES_MUST_CHECK;
void sn_data_close(sn_data **d);
int64_t sn_data_count(const sn_data *d,
                      sn_split s); /* samples; 0: there is none (no test file named, nothing held out) */
void sn_data_shape(const sn_data *d, int *h, int *w, int *c);
size_t sn_data_bytes(const sn_data *d); /* held in host memory */

typedef struct sn_batch {
    const void *images; /* device, float [n, h, w, c] or int32 [n, tokens], valid until the next call on the loader */
    const int32_t *labels; /* device, [n] or [n, tokens] */
    int n;
} sn_batch;

typedef struct sn_loader sn_loader;
es_status sn_loader_new(const sn_data *d, const sn_augment_config *a, uint64_t seed, int batch, kn_device *dev,
                        sn_loader **out, es_error *err) ES_MUST_CHECK; /* borrows d, dev */
void sn_loader_destroy(sn_loader **l);
int64_t sn_loader_steps_per_epoch(const sn_loader *l);
/* From here on this loader makes part `rank` of `size` equal parts of every batch: the parts in rank order are the batch. */
es_status sn_loader_share(sn_loader *l, int rank, int size, es_error *err) ES_MUST_CHECK;
size_t sn_loader_device_bytes(const sn_loader *l);
es_status sn_loader_train(sn_loader *l, uint64_t step, sn_batch *out, es_error *err) ES_MUST_CHECK;
es_status sn_loader_eval(sn_loader *l, sn_split s, int64_t first, int count, sn_batch *out,
                         es_error *err) ES_MUST_CHECK;
es_status sn_loader_calibration(sn_loader *l, int64_t first, int count, sn_batch *out, es_error *err) ES_MUST_CHECK;

#endif
