/* resident.h - a data set in the memory of a device that makes its own batches (kernels/device/images.h): uploaded once, no copy from the host in a step.
 *
 *     sn_resident *r; ES_RETURN(sn_resident_new(d, dev, &r, err));            // NULL: no images, the device makes none, or too little of its memory is free
 *     sn_resident_order(r, SN_ORDER_EPOCH, rows, n, err);                     // once an epoch
 *     sn_resident_batch b = {.order = SN_ORDER_EPOCH, .first = first, .n = n, .augment = &augment, .distort = true, .seed = seed, .epoch = epoch};
 *     sn_resident_make(r, &b, images, labels, err);
 *
 * The same bits as sn_sample_make gives on the host. Work is queued: a batch may be overwritten by the next while the device still reads it only if both go
 * through the same device, whose stream keeps the order.
 */
#ifndef SN_DATA_RESIDENT_H
#define SN_DATA_RESIDENT_H

#include "supernet/data/set.h"

/* Lists of samples that live on the device: the stored order of each split, calibration, and the epoch in hand. */
enum { SN_ORDER_CALIBRATION = SN_SPLITS, SN_ORDER_EPOCH, SN_ORDERS };

typedef struct sn_resident sn_resident;
es_status sn_resident_new(const sn_data *d, kn_device *dev, sn_resident **out, es_error *err) ES_MUST_CHECK;
void sn_resident_destroy(sn_resident **r);
size_t sn_resident_bytes(const sn_resident *r); /* on the device; NULL: 0 */
es_status sn_resident_order(sn_resident *r, int order, const uint32_t *rows, int64_t n, es_error *err) ES_MUST_CHECK;

/* Entries first .. first + n - 1 of an order. */
typedef struct sn_resident_batch {
    int order;
    int64_t first;
    int n;
    const sn_augment_config *augment;
    bool distort; /* crop, flip and cut as (seed, epoch, row) say; else only normalised */
    uint64_t seed, epoch;
} sn_resident_batch;
/* images and labels are the device's, with room for n samples. */
es_status sn_resident_make(sn_resident *r, const sn_resident_batch *b, float *images, int32_t *labels,
                           es_error *err) ES_MUST_CHECK;

#endif
