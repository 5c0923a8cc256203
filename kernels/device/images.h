/* images.h - a batch of images made on the device from a data set that lives there: gathered, cropped, mirrored, cut, normalised in one kernel.
 *
 *     if (kn_device_makes_images(dev))
 *         ES_RETURN(kn_images_make(dev, &(kn_images){.pixels = all, .dtype = KN_U8, .labels = labels, .rows = order + first, .n = 512, ...}, err));
 *
 * What happens to a sample is a function of (seed, epoch, its row): one block es_philox(seed, ES_USE_AUGMENT, epoch, row) of r[0..3]. Crop: the output's row y is the
 * input's row y + dy, black outside, dy = r[0] (2 pad + 1) >> 32 less pad, dx from r[1] alike; mirrored left to right when r[2] is odd; a square of `cutout` whose
 * corner is (r[2] & ~1) h >> 32, r[3] w >> 32, less half its side, is 0 afterwards. A value v becomes v mul + add, rounded after the product and after the sum, so that
 * the host, which does the same (supernet/data/augment.c), gets the same bits.
 * The work is queued on the device like a kernel of a plan: nothing is allocated, copied from the host or waited for.
 */
#ifndef KN_IMAGES_H
#define KN_IMAGES_H

#include "kernels/device/device.h"
#include "kernels/tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KN_IMAGE_CHANNELS = 64 };

typedef struct kn_images {
    const void *pixels; /* device, [all][h][w][c], KN_U8 or KN_F32 */
    kn_dtype dtype;
    const int32_t *labels; /* device, [all] */
    const uint32_t *rows;  /* device, [n]: the samples of the batch */
    int n, h, w, c;        /* c at most KN_IMAGE_CHANNELS */
    float mul[KN_IMAGE_CHANNELS], add[KN_IMAGE_CHANNELS];
    bool distort; /* false: as it is stored */
    int pad_crop, cutout;
    bool flip;
    uint64_t seed, epoch;
    float *out;          /* device, [n][h][w][c] */
    int32_t *out_labels; /* device, [n] */
} kn_images;

bool kn_device_makes_images(const kn_device *dev);
es_status kn_images_make(kn_device *dev, const kn_images *im, es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
