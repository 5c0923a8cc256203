/* set.h - the inside of an sn_data, for the loader; and the making of one sample.
 *
 *     sn_distort g = sn_distort_draw(&augment, h, w, seed, epoch, row);         // what happens to this row in this epoch
 *     sn_sample_make(d, sn_data_images(d, SN_TRAIN_SPLIT), row, augment.normalise, &g, out);
 *
 * A sample is a function of (seed, epoch, row) and nothing else, so batches may be made in any order, on any thread, or on a device (resident.h) with
 * the same bits.
 */
#ifndef SN_DATA_SET_H
#define SN_DATA_SET_H

#include "supernet/data/tokens.h"

enum { SN_DATA_CHANNELS_MAX = 64 };

struct sn_data {
    sn_images train, test;      /* as in the files */
    sn_tokens text[SN_SPLITS];  /* instead of images */
    int tokens;                 /* of a window; 0: images */
    uint32_t *index[SN_SPLITS]; /* rows of `train` (or of `test`), in stored order */
    int64_t count[SN_SPLITS];
    float mean[SN_DATA_CHANNELS_MAX],
        inverse[SN_DATA_CHANNELS_MAX]; /* of the raw values of the training split: (x - mean) inverse */
};

static inline const sn_images *sn_data_images(const sn_data *d, sn_split s)
{
    return s == SN_TEST_SPLIT ? &d->test : &d->train;
}

/* What happens to one sample on its way into a batch. */
typedef struct sn_distort {
    int dy, dx;      /* the crop's offset: output row y is input row y + dy, black outside */
    bool flip;       /* left to right, after the crop */
    int cut, cy, cx; /* cutout: side and top left corner (may be negative); 0: none */
} sn_distort;

sn_distort sn_distort_draw(const sn_augment_config *a, int h, int w, uint64_t seed, uint64_t epoch, uint64_t sample);
/* A raw value v of channel k becomes v mul[k] + add[k]. */
void sn_sample_scale(const sn_data *d, const sn_images *im, bool normalise, float *mul, float *add);
/* out: [h, w, c] floats. distort NULL: none. */
void sn_sample_make(const sn_data *d, const sn_images *im, int64_t row, bool normalise, const sn_distort *distort,
                    float *out);

#endif
