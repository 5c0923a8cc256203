/* Parameters, weights and devices. */
#include <math.h>

#include "base/arena.h"
#include "kernels/params/params.h"
#include "tests/check_main.h"
#include "tests/kernels/harness.h"

static kn_param add(kn_params *p, const char *name, kn_shape s, kn_init_kind init, unsigned flags)
{
    es_error err;
    kn_param id = -1;
    kt_ok(kn_params_add(p, name, s, init, flags, &id, &err), &err);
    return id;
}

START_TEST(declaring)
    {
        es_error err;
        kn_param id;
        kn_params *p = kn_params_new();
        for (int i = 0; i < 300; i++) {
            char name[32];
            snprintf(name, sizeof name, "layer.%d", i);
            ck_assert_int_eq(add(p, name, KN_SHAPE(1 + i, 3), KN_INIT_HE_IN, KN_PARAM_DECAY), i);
        }
        ck_assert_int_eq(kn_params_add(p, "layer.7", KN_SHAPE(1), KN_INIT_ZERO, 0, &id, &err), ES_EXISTS);
        ck_assert_str_eq(err.where, "layer.7");
        ck_assert_int_eq(kn_params_add(p, "", KN_SHAPE(1), KN_INIT_ZERO, 0, &id, &err), ES_INVALID);
        ck_assert_int_eq(kn_params_add(p, "none", KN_SHAPE(3, 0), KN_INIT_ZERO, 0, &id, &err), ES_INVALID);
        ck_assert(strstr(err.text, "[3, 0]") != NULL);
        ck_assert_int_eq(kn_params_add(p, "point", kn_shape_make(0, NULL), KN_INIT_ZERO, 0, &id, &err), ES_INVALID);
        ck_assert_int_eq(kn_params_add(p, "flat", KN_SHAPE(3, 3), KN_INIT_ZERO, KN_PARAM_DEPTHWISE, &id, &err),
                         ES_INVALID);
        ck_assert(strstr(err.text, "[kh][kw][channels]") != NULL);
        ck_assert_int_eq(kn_params_add(p, "huge", KN_SHAPE(1 << 20, 1 << 20), KN_INIT_ZERO, 0, &id, &err), ES_INVALID);
        kn_params_seal(p);
        ck_assert_int_eq(kn_params_count(p), 300);
        int64_t at = 0;
        for (int i = 0; i < 300; i++) {
            const kn_param_def *d = kn_params_def(p, i);
            ck_assert_int_eq(d->offset % 64, 0);
            ck_assert_int_ge(d->offset, at);
            at = d->offset + d->count;
            ck_assert(kn_params_find(p, d->name, &id) && id == i);
        }
        ck_assert_int_ge(kn_params_elements(p), at);
        ck_assert(!kn_params_find(p, "layer.300", &id));
        kn_params_destroy(&p);
    }
END_TEST

static double variance(const float *v, int64_t n)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++)
        sum += v[i], square += (double)v[i] * v[i];
    return square / (double)n - sum / (double)n * (sum / (double)n);
}

static kn_weights *weights(kn_device *dev, const kn_params *p, uint64_t seed)
{
    es_error err;
    kn_weights *w = NULL;
    kt_ok(kn_weights_new(dev, p, KN_WITH_GRAD, &w, &err), &err);
    kt_ok(kn_weights_init(w, seed, &err), &err);
    return w;
}

START_TEST(initial_values)
    {
        es_error err;
        kn_device *dev = NULL;
        kt_ok(kn_device_open("cpu", &dev, &err), &err);
        kn_params *p = kn_params_new();
        kn_param conv = add(p, "conv", KN_SHAPE(64, 3, 3, 32), KN_INIT_HE_OUT, 0),
                 dw = add(p, "dw", KN_SHAPE(5, 5, 400), KN_INIT_HE_OUT, KN_PARAM_DEPTHWISE);
        kn_param in = add(p, "in", KN_SHAPE(100, 200), KN_INIT_HE_IN, 0),
                 uni = add(p, "uni", KN_SHAPE(100, 200), KN_INIT_UNIFORM_IN, 0);
        kn_param emb = add(p, "emb", KN_SHAPE(100, 64), KN_INIT_NORMAL_002, 0),
                 one = add(p, "one", KN_SHAPE(7), KN_INIT_ONE, 0);
        kn_params_seal(p);
        kn_weights *w = weights(dev, p, 42);
        const float *v = kn_weights_values(w);
        const struct {
            kn_param id;
            double want;
        } t[] = {{conv, 2.0 / (9 * 64)}, {dw, 2.0 / 25}, {in, 2.0 / 200}, {uni, 1.0 / 3 / 200}, {emb, 0.0004}};
        for (int i = 0; i < 5; i++) {
            const kn_param_def *d = kn_params_def(p, t[i].id);
            ck_assert_double_eq_tol(variance(v + d->offset, d->count) / t[i].want, 1, 0.06);
        }
        ck_assert_float_eq(v[kn_params_def(p, one)->offset + 6], 1);
        for (int i = 0; i < kn_params_count(p); i++) { /* padding is zero */
            const kn_param_def *d = kn_params_def(p, i);
            int64_t end = i + 1 < kn_params_count(p) ? kn_params_def(p, i + 1)->offset : kn_params_elements(p);
            for (int64_t k = d->offset + d->count; k < end; k++)
                ck_assert_float_eq(v[k], 0);
        }

        /* The same name gives the same numbers, whatever else is declared; another seed gives others. */
        kn_params *q = kn_params_new();
        add(q, "something else", KN_SHAPE(9), KN_INIT_HE_IN, 0);
        kn_param again = add(q, "in", KN_SHAPE(100, 200), KN_INIT_HE_IN, 0);
        kn_params_seal(q);
        kn_weights *x = weights(dev, q, 42), *y = weights(dev, q, 43);
        const float *a = v + kn_params_def(p, in)->offset, *b = kn_weights_values(x) + kn_params_def(q, again)->offset;
        ck_assert_mem_eq(a, b, 20000 * sizeof(float));
        ck_assert_mem_ne(a, kn_weights_values(y) + kn_params_def(q, again)->offset, 20000 * sizeof(float));
        kn_weights_destroy(&w);
        kn_weights_destroy(&x);
        kn_weights_destroy(&y);
        kn_params_destroy(&p);
        kn_params_destroy(&q);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(moving_weights)
    {
        es_error err;
        kn_device *dev = NULL;
        kt_ok(kn_device_open("cpu:1", &dev, &err), &err);
        kn_params *p = kn_params_new(), *empty = kn_params_new(), *other = kn_params_new();
        add(p, "a", KN_SHAPE(3, 5), KN_INIT_HE_IN, 0);
        add(other, "a", KN_SHAPE(3, 5), KN_INIT_HE_IN, 0);
        kn_params_seal(p);
        kn_params_seal(empty);
        kn_params_seal(other);
        kn_weights *w = weights(dev, p, 1), *copy = weights(dev, p, 2), *none = weights(dev, empty, 1),
                   *alien = weights(dev, other, 1), *bare = NULL;
        float host[64], back[64];
        kt_ok(kn_weights_download(w, host, &err), &err);
        kt_ok(kn_weights_copy(copy, w, &err), &err);
        ck_assert_mem_eq(kn_weights_values(copy), host, sizeof host);
        host[0] = 5;
        kt_ok(kn_weights_upload(w, host, &err), &err);
        kt_ok(kn_weights_download(w, back, &err), &err);
        ck_assert_mem_eq(back, host, sizeof host);
        ck_assert_int_eq(kn_weights_copy(alien, w, &err), ES_INVALID);
        kn_weights_grads(w)[3] = 9;
        kt_ok(kn_weights_zero_grads(w, &err), &err);
        ck_assert_float_eq(kn_weights_grads(w)[3], 0);
        kt_ok(kn_weights_zero_grads(none, &err), &err);
        kt_ok(kn_weights_download(none, back, &err), &err);
        ck_assert_ptr_null(kn_weights_values(none));
        kt_ok(kn_weights_new(dev, p, 0, &bare, &err), &err);
        ck_assert_ptr_null(kn_weights_grads(bare));
        ck_assert_int_eq(kn_weights_zero_grads(bare, &err), ES_INVALID);
        kn_weights_destroy(&w);
        kn_weights_destroy(&copy);
        kn_weights_destroy(&none);
        kn_weights_destroy(&alien);
        kn_weights_destroy(&bare);
        kn_params_destroy(&p);
        kn_params_destroy(&empty);
        kn_params_destroy(&other);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(devices)
    {
        es_error err;
        kn_device *dev = NULL;
        static const char *const bad[] = {"",
                                          "gpu",
                                          "cpu:",
                                          "cpu:0",
                                          "cpu:-1",
                                          "cpu:2x",
                                          "cpux",
                                          "cuda:",
                                          "cuda:x",
                                          "reference:2",
                                          "cpu:99999999999999999999"};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            ck_assert_msg(kn_device_open(bad[i], &dev, &err) == ES_INVALID, "\"%s\"", bad[i]);
            ck_assert(strstr(err.text, "cpu:THREADS") != NULL);
            ck_assert_ptr_null(dev);
        }
#ifndef ES_HAVE_CUDA
        ck_assert_int_eq(kn_device_open("cuda:0", &dev, &err), ES_UNSUPPORTED);
        ck_assert(strstr(err.text, "-DESPALIER_CUDA=ON") != NULL);
#endif
        kt_ok(kn_device_open("cpu:3", &dev, &err), &err);
        ck_assert_int_eq(kn_device_backend(dev), KN_BACKEND_CPU);
        ck_assert_str_eq(kn_device_name(dev), "cpu");
        ck_assert(strstr(kn_device_model(dev), "3 threads") != NULL);
        size_t avail = 0, total = 0;
        kt_ok(kn_device_memory(dev, &avail, &total, &err), &err);
        ck_assert_uint_gt(avail, 0);
        ck_assert_uint_ge(total, avail);
        void *p = NULL;
        ck_assert_int_eq(kn_device_alloc(dev, (size_t)1 << 60, &p, &err), ES_NO_MEMORY);
        ck_assert(strstr(err.text, "1152921504606846976 bytes asked for") != NULL);
        ck_assert_int_eq(kn_device_alloc(dev, SIZE_MAX, &p, &err), ES_NO_MEMORY);
        kt_ok(kn_device_alloc(dev, 0, &p, &err), &err);
        ck_assert_ptr_null(p);
        kt_ok(kn_device_alloc(dev, 1000, &p, &err), &err);
        ck_assert_uint_eq((uintptr_t)p % 256, 0);
        char from[1000], to[1000];
        memset(from, 7, sizeof from);
        kt_ok(kn_device_upload(dev, p, from, sizeof from, &err), &err);
        kt_ok(kn_device_download(dev, to, p, sizeof to, &err), &err);
        ck_assert_mem_eq(from, to, sizeof to);
        kt_ok(kn_device_zero(dev, p, 1000, &err), &err);
        ck_assert_int_eq(((char *)p)[999], 0);
        kt_ok(kn_device_sync(dev, &err), &err);
        kn_device_free(dev, p);
        kn_device_free(dev, NULL);
        kn_device_close(&dev);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(shapes)
    {
        char text[64];
        kn_shape s = KN_SHAPE(8, 32, 32, 3), point = kn_shape_make(0, NULL),
                 wide = KN_SHAPE(2147483647, 2147483647, 2147483647, 2147483647, 2147483647);
        ck_assert_str_eq(kn_shape_text(&s, text), "[8, 32, 32, 3]");
        ck_assert_str_eq(kn_shape_text(&point, text), "[]");
        ck_assert_uint_le(strlen(kn_shape_text(&wide, text)), 63);
        ck_assert_int_eq(kn_shape_count(&s), 24576);
        ck_assert_int_eq(kn_shape_count(&point), 1);
        kn_tensor t = {.shape = KN_SHAPE(2, 1, 3), .stride = {3, 77, 1}};
        ck_assert(kn_tensor_contiguous(&t));
        t.stride[0] = 4;
        ck_assert(!kn_tensor_contiguous(&t));
        ck_assert_str_eq(kn_dtype_name(KN_BF16), "bf16");
        ck_assert_uint_eq(kn_dtype_bytes(KN_U8), 1);
    }
END_TEST

ES_TEST_MAIN("params", declaring, initial_values, moving_weights, devices, shapes)
