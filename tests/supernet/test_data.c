#include "supernet/data/data.h"

#include <math.h>

#include "base/rng.h"
#include "supernet/data/set.h"
#include "tests/check_main.h"
#include "tests/supernet/make.h"

static const sn_augment_config none = {0};

static sn_data *bars(int n, int64_t validation, int64_t limit, bool test, es_error *err)
{
    sn_data_config c = {.format = SN_DATA_IDX, .validation = validation, .limit = limit};
    sn_expect e = {.h = 9, .w = 9, .c = 1, .classes = 4};
    sn_data *d = NULL;
    snprintf(c.train, sizeof c.train, "%s", es_test_join(es_test_dir(), "train"));
    make_bars(c.train, n, 9, 4, 1);
    if (test) {
        snprintf(c.test, sizeof c.test, "%s2", c.train);
        make_bars(c.test, 20, 9, 4, 2);
    }
    return sn_data_open(&c, 5, &e, &d, err) == ES_OK ? d : NULL;
}

START_TEST(splits_are_apart_and_stable)
    {
        es_error err = {0};
        sn_data *d = bars(100, 30, 0, true, &err), *same = bars(100, 30, 10, false, &err);
        ck_assert_ptr_nonnull(d);
        ck_assert_ptr_nonnull(same);
        ck_assert_int_eq(sn_data_count(d, SN_TRAIN_SPLIT), 70);
        ck_assert_int_eq(sn_data_count(d, SN_VALIDATION_SPLIT), 30);
        ck_assert_int_eq(sn_data_count(d, SN_TEST_SPLIT), 20);
        ck_assert_int_eq(sn_data_count(same, SN_TRAIN_SPLIT), 10);
        ck_assert_int_eq(sn_data_count(same, SN_TEST_SPLIT), 0);
        bool seen[100] = {0};
        for (int s = SN_TRAIN_SPLIT; s <= SN_VALIDATION_SPLIT; s++)
            for (int64_t i = 0; i < d->count[s]; i++) {
                ck_assert(!seen[d->index[s][i]]);
                seen[d->index[s][i]] = true;
                if (i)
                    ck_assert_uint_lt(d->index[s][i - 1], d->index[s][i]);
            }
        /* A limit shortens training only. */
        ck_assert_mem_eq(same->index[SN_VALIDATION_SPLIT], d->index[SN_VALIDATION_SPLIT], 30 * sizeof(uint32_t));
        sn_data_close(&d);
        sn_data_close(&same);
    }
END_TEST

START_TEST(validation_must_leave_something)
    {
        es_error err = {0};
        ck_assert_ptr_null(bars(10, 10, 0, false, &err));
        ck_assert_has(err.text, "10 samples cannot be held out of the 10");
        ck_assert_str_eq(err.where, "task.data.validation");
    }
END_TEST

START_TEST(normalised_to_mean_0_and_deviation_1)
    {
        es_error err = {0};
        sn_data *d = bars(60, 0, 0, false, &err);
        float px[81];
        double sum = 0, square = 0;
        for (int i = 0; i < 60; i++) {
            sn_sample_make(d, &d->train, i, true, NULL, px);
            for (int k = 0; k < 81; k++) {
                sum += (double)px[k];
                square += (double)px[k] * (double)px[k];
            }
        }
        ck_assert_double_eq_tol(sum / (60 * 81), 0, 1e-5);
        ck_assert_double_eq_tol(square / (60 * 81), 1, 1e-4);
        sn_sample_make(d, &d->train, 7, false, NULL, px);
        ck_assert_float_eq(px[5], (float)d->train.u8[7 * 81 + 5] * (1.0f / 255.0f));
        sn_data_close(&d);
    }
END_TEST

/* The augmented sample against a second way to say it: index arithmetic on the whole image. */
START_TEST(crop_flip_and_cutout)
    {
        es_error err = {0};
        sn_data *d = bars(10, 0, 0, false, &err);
        const sn_augment_config a = {.pad_crop = 2, .cutout = 3, .flip = true, .normalise = false};
        int flips = 0, cuts = 0;
        for (uint64_t epoch = 0; epoch < 60; epoch++) {
            sn_distort g = sn_distort_draw(&a, 9, 9, 11, epoch, 3);
            float px[81];
            sn_sample_make(d, &d->train, 3, false, &g, px);
            flips += g.flip;
            ck_assert_int_le(abs(g.dx), 2);
            ck_assert_int_le(abs(g.dy), 2);
            for (int y = 0; y < 9; y++)
                for (int x = 0; x < 9; x++) {
                    int fy = y + g.dy, fx = (g.flip ? 8 - x : x) + g.dx;
                    bool inside = fy >= 0 && fy < 9 && fx >= 0 && fx < 9;
                    bool cut = y >= g.cy && y < g.cy + 3 && x >= g.cx && x < g.cx + 3;
                    float expected = cut || !inside ? 0 : (float)d->train.u8[3 * 81 + fy * 9 + fx] * (1.0f / 255.0f);
                    cuts += cut;
                    ck_assert_float_eq(px[y * 9 + x], expected);
                }
            sn_distort again = sn_distort_draw(&a, 9, 9, 11, epoch, 3);
            ck_assert(memcmp(&again, &g, sizeof g) == 0);
        }
        ck_assert_int_ge(flips, 15);
        ck_assert_int_le(flips, 45);
        ck_assert_int_ge(cuts, 60 * 4);
        sn_data_close(&d);
    }
END_TEST

static sn_loader *loader(const sn_data *d, const sn_augment_config *a, int batch, kn_device *dev)
{
    sn_loader *l = NULL;
    es_error err = {0};
    ck_assert_ok_err(sn_loader_new(d, a, 99, batch, dev, &l, &err), &err);
    return l;
}

START_TEST(a_step_does_not_depend_on_what_ran_before)
    {
        es_error err = {0};
        kn_device *dev = NULL;
        ck_assert_ok_err(kn_device_open("cpu", &dev, &err), &err);
        sn_data *d = bars(50, 10, 0, false, &err);
        const sn_augment_config a = {.pad_crop = 1, .cutout = 2, .flip = true, .normalise = true};
        sn_loader *straight = loader(d, &a, 6, dev), *jumping = loader(d, &a, 6, dev);
        ck_assert_int_eq(sn_loader_steps_per_epoch(straight), 6); /* 40 / 6, the rest dropped */
        for (uint64_t step = 0; step < 20; step++) {
            sn_batch b, j;
            ck_assert_ok_err(sn_loader_train(straight, step, &b, &err), &err);
            ck_assert_int_eq(b.n, 6);
            if (step % 3 == 1) {
                ck_assert_ok_err(sn_loader_eval(jumping, SN_VALIDATION_SPLIT, 0, 10, &j, &err),
                                 &err); /* another use in between */
                ck_assert_ok_err(sn_loader_train(jumping, step, &j, &err), &err);
                ck_assert_mem_eq(b.images, j.images, 6 * 81 * sizeof(float));
                ck_assert_mem_eq(b.labels, j.labels, 6 * sizeof(int32_t));
            }
        }
        sn_loader_destroy(&straight);
        sn_loader_destroy(&jumping);
        sn_data_close(&d);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(an_epoch_shows_every_sample_once)
    {
        es_error err = {0};
        kn_device *dev = NULL;
        ck_assert_ok_err(kn_device_open("cpu", &dev, &err), &err);
        sn_data *d = bars(40, 0, 0, false, &err);
        sn_loader *l = loader(d, &none, 8, dev);
        int order_differs = 0;
        int32_t first[40];
        for (uint64_t step = 0; step < 10; step++) {
            sn_batch b;
            ck_assert_ok_err(sn_loader_train(l, step, &b, &err), &err);
            for (int i = 0; i < 8; i++) {
                int found = -1;
                float px[81];
                for (int k = 0; k < 40 && found < 0; k++) {
                    sn_sample_make(d, &d->train, k, false, NULL, px);
                    if (memcmp(px, (const float *)b.images + i * 81, sizeof px) == 0)
                        found = k;
                }
                ck_assert_int_ge(found, 0);
                ck_assert_int_eq(d->train.labels[found], b.labels[i]);
                int at = (int)(step % 5) * 8 + i;
                for (int k = 0; k < at && step < 5; k++)
                    ck_assert_int_ne(first[k], found);
                if (step < 5)
                    first[at] = found;
                else
                    order_differs += first[at] != found;
            }
        }
        ck_assert_int_gt(order_differs, 20);
        sn_loader_destroy(&l);
        sn_data_close(&d);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(evaluation_is_in_stored_order_and_calibration_fixed)
    {
        es_error err = {0};
        kn_device *dev = NULL;
        ck_assert_ok_err(kn_device_open("cpu", &dev, &err), &err);
        sn_data *d = bars(50, 20, 0, true, &err);
        const sn_augment_config a = {.pad_crop = 2, .flip = true, .normalise = true};
        sn_loader *l = loader(d, &a, 5, dev), *m = loader(d, &a, 7, dev);
        sn_batch b, c;
        float px[81];
        ck_assert_ok_err(sn_loader_eval(l, SN_VALIDATION_SPLIT, 3, 17, &b, &err), &err);
        for (int i = 0; i < 17; i++) {
            sn_sample_make(d, &d->train, d->index[SN_VALIDATION_SPLIT][3 + i], true, NULL, px);
            ck_assert_mem_eq(px, (const float *)b.images + i * 81, sizeof px);
        }
        ck_assert_ok_err(sn_loader_eval(l, SN_TEST_SPLIT, 0, 20, &b, &err), &err);
        ck_assert_mem_eq(b.labels, d->test.labels, 20 * sizeof(int32_t));
        ck_assert_ok_err(sn_loader_calibration(l, 4, 8, &b, &err), &err);
        ck_assert_ok_err(sn_loader_calibration(m, 0, 12, &c, &err), &err);
        ck_assert_mem_eq(b.images, (const float *)c.images + 4 * 81, 8 * 81 * sizeof(float));
        sn_loader *big = NULL;
        ck_assert_status(sn_loader_new(d, &a, 1, 31, dev, &big, &err), ES_INVALID);
        ck_assert_has(err.text, "31: allowed are 1 to 30");
        sn_loader_destroy(&l);
        sn_loader_destroy(&m);
        sn_data_close(&d);
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("data", splits_are_apart_and_stable, validation_must_leave_something, normalised_to_mean_0_and_deviation_1,
             crop_flip_and_cutout, a_step_does_not_depend_on_what_ran_before, an_epoch_shows_every_sample_once,
             evaluation_is_in_stored_order_and_calibration_fixed)
