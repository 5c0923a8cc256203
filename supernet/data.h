/* data.h - data sets and their order: what a step sees is a function of (seed, epoch, index), never of what ran before.
 *
 *     sn_data *d; sn_data_open(&file->data, file->seed, &d, err);           // reads, checks (labels in range, sizes), splits train / validation by the seed
 *     sn_data_shape(d, &h, &w, &c); sn_data_count(d, SN_TRAIN_SPLIT);
 *     sn_loader *l; sn_loader_new(d, &file->augment, seed, batch, dev, &l, err);
 *     sn_batch b; sn_loader_train(l, step, &b, err);                        // the batch of this global step, augmented, on the device; the next is prefetched
 *     sn_loader_eval(l, SN_VALIDATION_SPLIT, first, count, &b, err);        // in stored order, no augmentation
 *
 * Formats: IDX (gzip or not), CIFAR binary, NPY/NPZ, CSV. Images stay U8 in memory; pad-crop, flip, cutout and normalisation (training-set mean and standard
 * deviation per channel) are applied when a batch is made, keyed by Philox (seed, AUGMENT, epoch, sample). The training order of an epoch is a
 * permutation keyed by (seed, SHUFFLE, epoch); the last partial batch of an epoch is dropped.
 */
#ifndef SN_DATA_H
#define SN_DATA_H

#include "kernels/device.h"
#include "supernet/searchfile.h"

typedef enum sn_split { SN_TRAIN_SPLIT, SN_VALIDATION_SPLIT, SN_TEST_SPLIT } sn_split;

typedef struct sn_data sn_data;
es_status sn_data_open(const sn_data_config *c, uint64_t seed, int classes, sn_data **out, es_error *err) ES_MUST_CHECK;
void sn_data_close(sn_data **d);
int64_t sn_data_count(const sn_data *d, sn_split s);
void sn_data_shape(const sn_data *d, int *h, int *w, int *c);

typedef struct sn_batch {
    const float *images;   /* device, [n, h, w, c], valid until the next call on the loader */
    const int32_t *labels; /* device, [n] */
    int n;
} sn_batch;

typedef struct sn_loader sn_loader;
es_status sn_loader_new(const sn_data *d, const sn_augment_config *a, uint64_t seed, int batch, kn_device *dev,
                        sn_loader **out, es_error *err) ES_MUST_CHECK;
void sn_loader_destroy(sn_loader **l);
int64_t sn_loader_steps_per_epoch(const sn_loader *l);
es_status sn_loader_train(sn_loader *l, uint64_t step, sn_batch *out, es_error *err) ES_MUST_CHECK;
es_status sn_loader_eval(sn_loader *l, sn_split s, int64_t first, int count, sn_batch *out,
                         es_error *err) ES_MUST_CHECK;

#endif
