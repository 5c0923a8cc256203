/* Batches made on a device that holds the data set have the bits of those made on the host: the reference device always, an accelerator where there is one. */
#include "supernet/data/resident.h"

#include "base/arena.h"
#include "base/rng.h"
#include "kernels/device/device_internal.h"
#include "tests/accelerator.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"

enum { TRAIN = 70, HELD = 20, TEST = 31 };

/* A set in memory: bytes, or real numbers. */
static sn_data *data_new(int h, int w, int c, bool bytes)
{
    sn_data *d = es_xcalloc(1, sizeof *d);
    es_rng r = es_rng_make(3, ES_USE_TEST, (uint64_t)(h * 100 + c));
    for (int s = 0; s < 2; s++) {
        sn_images *im = s ? &d->test : &d->train;
        *im = (sn_images){.n = s ? TEST : TRAIN + HELD, .h = h, .w = w, .c = c};
        size_t n = (size_t)im->n * (size_t)(h * w * c);
        im->labels = es_xcalloc((size_t)im->n, sizeof *im->labels);
        im->u8 = bytes ? es_xcalloc(n, 1) : NULL;
        im->f32 = bytes ? NULL : es_xcalloc(n, sizeof(float));
        for (size_t i = 0; i < n; i++) {
            if (bytes)
                im->u8[i] = (uint8_t)es_rng_below(&r, 256);
            else
                im->f32[i] = es_rng_normal(&r);
        }
        for (int64_t i = 0; i < im->n; i++)
            im->labels[i] = (int32_t)es_rng_below(&r, 10);
    }
    const int64_t count[SN_SPLITS] = {TRAIN, HELD, TEST};
    for (int s = 0; s < SN_SPLITS; s++) {
        d->count[s] = count[s];
        d->index[s] = es_xcalloc((size_t)count[s], sizeof(uint32_t));
        for (int64_t i = 0; i < count[s]; i++) /* held-out samples are every fourth or so: the splits interleave */
            d->index[s][i] = (uint32_t)(s == SN_TRAIN_SPLIT ? i * 9 / 7 : s == SN_VALIDATION_SPLIT ? i * 4 : i);
    }
    for (int k = 0; k < c; k++) {
        d->mean[k] = 100.3f + (float)k;
        d->inverse[k] = 1 / (60.7f + (float)k);
    }
    return d;
}

static void same(kn_device *dev, const sn_batch *a, const sn_batch *b, size_t sample)
{
    es_error err = {0};
    ck_assert_int_eq(a->n, b->n);
    size_t n = (size_t)a->n * sample;
    float *images = es_xcalloc(n, sizeof *images);
    int32_t *labels = es_xcalloc((size_t)a->n, sizeof *labels);
    ck_assert_ok_err(kn_device_download(dev, images, b->images, n * sizeof *images, &err), &err);
    ck_assert_ok_err(kn_device_download(dev, labels, b->labels, (size_t)a->n * sizeof *labels, &err), &err);
    ck_assert_mem_eq(images, a->images, n * sizeof *images);
    ck_assert_mem_eq(labels, a->labels, (size_t)a->n * sizeof *labels);
    free(images);
    free(labels);
}

static void compare(kn_device *cpu, kn_device *dev, const sn_data *d, const sn_augment_config *a)
{
    es_error err = {0};
    sn_loader *host = NULL, *device = NULL;
    sn_batch x, y;
    size_t sample = (size_t)d->train.h * (size_t)d->train.w * (size_t)d->train.c;
    ck_assert_ok_err(sn_loader_new(d, a, 11, 16, cpu, &host, &err), &err);
    ck_assert_ok_err(sn_loader_new(d, a, 11, 16, dev, &device, &err), &err);
    ck_assert_uint_ge(sn_loader_device_bytes(device), sn_data_bytes(d)); /* it does live there */
    static const uint64_t steps[] = {0, 1, 3, 4, 9, 2, 1000};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        ck_assert_ok_err(sn_loader_train(host, steps[i], &x, &err), &err);
        ck_assert_ok_err(sn_loader_train(device, steps[i], &y, &err), &err);
        same(dev, &x, &y, sample);
    }
    for (int s = 0; s < SN_SPLITS; s++) {
        int n = (int)d->count[s] - 3;
        ck_assert_ok_err(sn_loader_eval(host, (sn_split)s, 3, n, &x, &err), &err);
        ck_assert_ok_err(sn_loader_eval(device, (sn_split)s, 3, n, &y, &err), &err);
        same(dev, &x, &y, sample);
    }
    ck_assert_ok_err(sn_loader_calibration(host, 5, 40, &x, &err), &err);
    ck_assert_ok_err(sn_loader_calibration(device, 5, 40, &y, &err), &err);
    same(dev, &x, &y, sample);
    sn_loader_destroy(&host);
    sn_loader_destroy(&device);
}

static void check_device(kn_device *dev)
{
    static const sn_augment_config augment[] = {{0},
                                                {.normalise = true},
                                                {.pad_crop = 2, .flip = true},
                                                {.pad_crop = 3, .flip = true, .cutout = 4, .normalise = true},
                                                {.cutout = 9}};
    kn_device *cpu = NULL;
    es_error err = {0};
    ck_assert_ok_err(kn_device_open("cpu:1", &cpu, &err), &err);
    for (int kind = 0; kind < 4; kind++) {
        sn_data *d = data_new(9, kind & 1 ? 9 : 7, kind & 1 ? 3 : 1, kind < 2);
        for (size_t i = 0; i < sizeof augment / sizeof *augment; i++)
            compare(cpu, dev, d, &augment[i]);
        sn_data_close(&d);
    }
    kn_device_close(&cpu);
}

/* Steps of training copy nothing from the host, but the order of an epoch when it begins. */
static void check_steps(const char *device)
{
    lab *l = lab_new(device, SN_METHOD_SINGLE_PATH);
    l->file.data.limit = 3 * l->file.supernet.batch;
    sn_trainer *t = lab_trainer(l);
    lab_run(t, 1);
    kn_device_count before = l->dev->count;
    lab_run(t, 3);
    ck_assert_uint_eq(l->dev->count.uploads, before.uploads);
    ck_assert_uint_eq(l->dev->count.late_searches, before.late_searches);
    lab_run(t, 5); /* an epoch is 3 steps */
    ck_assert_uint_eq(l->dev->count.uploads, before.uploads + 1);
    sn_trainer_destroy(&t);
    lab_destroy(&l);
}

START_TEST(reference)
    {
        es_error err = {0};
        kn_device *dev = NULL;
        ck_assert_ok_err(kn_device_open("reference", &dev, &err), &err);
        check_device(dev);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(reference_steps)
    {
        check_steps("reference");
    }
END_TEST

START_TEST(accelerator)
    {
        kn_device *dev = es_test_accelerator(NULL);
        if (!dev)
            return;
        check_device(dev);
        kn_device_close(&dev);
        check_steps(es_test_accelerator_name());
    }
END_TEST

ES_TEST_MAIN("resident", reference, reference_steps, accelerator)
