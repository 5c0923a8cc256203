/* The call through the device's vtable, and the naive reference. */
#include "kernels/device/images.h"

#include "base/rng.h"
#include "kernels/device/device_internal.h"

bool kn_device_makes_images(const kn_device *dev) { return dev->vt->images != NULL; }

es_status kn_images_make(kn_device *dev, const kn_images *im, es_error *err)
{
    ES_ASSERT(im->c >= 1 && im->c <= KN_IMAGE_CHANNELS && (im->dtype == KN_U8 || im->dtype == KN_F32));
    if (dev->vt->images == NULL)
        return es_fail(err, ES_UNSUPPORTED, dev->name, "makes no batches of images in its own memory");
    return im->n < 1 ? ES_OK : dev->vt->images(dev, im, err);
}

static int below(uint32_t bits, int n) { return (int)((uint64_t)bits * (uint32_t)n >> 32); }

es_status kn_ref_images(kn_device *d, const kn_images *im, es_error *err)
{
    int h = im->h, w = im->w, c = im->c;
    (void)d, (void)err;
    for (int64_t i = 0, size = (int64_t)h * w * c; i < im->n * size; i++) {
        int64_t sample = i / size, row = im->rows[sample];
        int k = (int)(i % c), x = (int)(i / c % w), y = (int)(i / c / w % h);
        uint32_t r[4];
        es_philox(im->seed, ES_USE_AUGMENT, im->epoch, (uint64_t)row, r);
        int pad = im->distort ? im->pad_crop : 0, cut = im->distort ? im->cutout : 0;
        int dy = below(r[0], 2 * pad + 1) - pad, dx = below(r[1], 2 * pad + 1) - pad;
        int cy = below(r[2] & ~1u, h) - cut / 2, cx = below(r[3], w) - cut / 2;
        int fy = y + dy, fx = (im->distort && im->flip && (r[2] & 1) ? w - 1 - x : x) + dx;
        int64_t at = row * size + ((int64_t)fy * w + fx) * c + k;
        float v = 0;
        if (fy >= 0 && fy < h && fx >= 0 && fx < w)
            v = im->dtype == KN_U8 ? (float)((const uint8_t *)im->pixels)[at] : ((const float *)im->pixels)[at];
        volatile float product = v * im->mul[k]; /* rounded before the sum */
        bool gone = y >= cy && y < cy + cut && x >= cx && x < cx + cut;
        im->out[i] = gone ? 0 : product + im->add[k];
        im->out_labels[sample] = im->labels[row];
    }
    return ES_OK;
}
