#include "supernet/data/resident.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "kernels/device/images.h"

enum { SHARE = 4 }; /* at most this part of the device's free memory */

struct sn_resident {
    const sn_data *d;
    kn_device *dev;
    struct {
        void *pixels, *labels;
    } set[2]; /* training file, test file */
    void *rows[SN_ORDERS];
    size_t room[SN_ORDERS], bytes;
};

static size_t image_bytes(const sn_images *im)
{
    return (size_t)im->n * (size_t)im->h * (size_t)im->w * (size_t)im->c * (im->u8 ? 1 : sizeof(float));
}

static es_status put(sn_resident *r, const void *from, size_t bytes, void **to, es_error *err)
{
    ES_RETURN(kn_device_alloc(r->dev, bytes, to, err));
    r->bytes += bytes;
    return kn_device_upload(r->dev, *to, from, bytes, err);
}

static es_status put_all(sn_resident *r, es_error *err)
{
    for (int i = 0; i < 2; i++) {
        const sn_images *im = i ? &r->d->test : &r->d->train;
        if (im->n == 0)
            continue;
        ES_RETURN(put(r, im->u8 ? (const void *)im->u8 : im->f32, image_bytes(im), &r->set[i].pixels, err));
        ES_RETURN(put(r, im->labels, (size_t)im->n * sizeof *im->labels, &r->set[i].labels, err));
    }
    for (int s = 0; s < SN_SPLITS; s++)
        ES_RETURN(sn_resident_order(r, s, r->d->index[s], r->d->count[s], err));
    return kn_device_sync(r->dev, err);
}

es_status sn_resident_new(const sn_data *d, kn_device *dev, sn_resident **out, es_error *err)
{
    size_t free_bytes = 0, total = 0;
    *out = NULL;
    if (!kn_device_makes_images(dev) || d->tokens || d->train.c > KN_IMAGE_CHANNELS)
        return ES_OK;
    ES_RETURN(kn_device_memory(dev, &free_bytes, &total, err));
    if (sn_data_bytes(d) > free_bytes / SHARE)
        return ES_OK;
    sn_resident *r = es_xcalloc(1, sizeof *r);
    r->d = d;
    r->dev = dev;
    es_status s = put_all(r, err);
    if (s != ES_OK)
        sn_resident_destroy(&r);
    *out = r;
    return s == ES_NO_MEMORY ? ES_OK : s; /* somebody else was quicker: batches come from the host then */
}

void sn_resident_destroy(sn_resident **rp)
{
    sn_resident *r = *rp;
    if (!r)
        return;
    for (int i = 0; i < 2; i++) {
        kn_device_free(r->dev, r->set[i].pixels);
        kn_device_free(r->dev, r->set[i].labels);
    }
    for (int i = 0; i < SN_ORDERS; i++)
        kn_device_free(r->dev, r->rows[i]);
    free(r);
    *rp = NULL;
}

size_t sn_resident_bytes(const sn_resident *r) { return r ? r->bytes : 0; }

es_status sn_resident_order(sn_resident *r, int order, const uint32_t *rows, int64_t n, es_error *err)
{
    size_t bytes = (size_t)n * sizeof *rows;
    if (bytes > r->room[order]) {
        kn_device_free(r->dev, r->rows[order]);
        r->rows[order] = NULL;
        r->bytes -= r->room[order];
        r->room[order] = 0;
        ES_RETURN(kn_device_alloc(r->dev, bytes, &r->rows[order], err));
        r->bytes += r->room[order] = bytes;
    }
    return kn_device_upload(r->dev, r->rows[order], rows, bytes, err);
}

es_status sn_resident_make(sn_resident *r, const sn_resident_batch *b, float *images, int32_t *labels, es_error *err)
{
    int which = b->order == SN_TEST_SPLIT;
    const sn_images *im = which ? &r->d->test : &r->d->train;
    kn_images call = {.pixels = r->set[which].pixels,
                      .dtype = im->u8 ? KN_U8 : KN_F32,
                      .labels = r->set[which].labels,
                      .rows = (const uint32_t *)r->rows[b->order] + b->first,
                      .n = b->n,
                      .h = im->h,
                      .w = im->w,
                      .c = im->c,
                      .distort = b->distort,
                      .pad_crop = b->augment->pad_crop,
                      .cutout = b->augment->cutout,
                      .flip = b->augment->flip,
                      .seed = b->seed,
                      .epoch = b->epoch,
                      .out = images,
                      .out_labels = labels};
    sn_sample_scale(r->d, im, b->augment->normalise, call.mul, call.add);
    return kn_images_make(r->dev, &call, err);
}
