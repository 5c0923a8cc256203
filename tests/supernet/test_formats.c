#include "supernet/data/formats.h"

#include <zlib.h>

#include "tests/check_main.h"
#include "tests/supernet/make.h"

static const sn_expect want = {.h = 4, .w = 5, .c = 1, .classes = 3};

static es_status idx(int n, int h, int w, size_t cut, size_t labels_cut, int classes, sn_images *im, es_error *err)
{
    size_t is, ls;
    uint8_t *images = make_idx_images(n, h, w, &is), *labels = make_idx_labels(n, classes, &ls);
    es_status s = sn_idx_parse("x-images", images, is - cut, "x-labels", labels, ls - labels_cut, &want, im, err);
    free(images);
    free(labels);
    return s;
}

START_TEST(idx_reads)
    {
        sn_images im;
        es_error err = {0};
        ck_assert_ok_err(idx(7, 4, 5, 0, 0, 3, &im, &err), &err);
        ck_assert_int_eq(im.n, 7);
        ck_assert_int_eq(im.c, 1);
        ck_assert_ptr_null(im.f32);
        for (int i = 0; i < 7; i++) {
            ck_assert_int_eq(im.labels[i], i % 3);
            ck_assert_int_eq(im.u8[(i * 4 + 2) * 5 + 3], make_pixel(i, 2, 3));
        }
        sn_images_free(&im);
        ck_assert_ptr_null(im.u8);
    }
END_TEST

START_TEST(idx_refuses)
    {
        sn_images im;
        es_error err = {0};
        ck_assert_status(idx(7, 4, 5, 1, 0, 3, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "truncated: its head announces 140 bytes of data, 139 are there");
        ck_assert_str_eq(err.where, "x-images");
        ck_assert_ptr_null(im.u8);
        ck_assert_status(idx(7, 4, 5, 0, 2, 3, &im, &err), ES_INVALID);
        ck_assert_str_eq(err.where, "x-labels");
        ck_assert_status(idx(7, 5, 4, 0, 0, 3, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "images are 5x4x1, but the space's input is 4x5x1");
        ck_assert_status(idx(7, 4, 5, 0, 0, 4, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "label 3 of sample 3 is out of range: the space's head has 3 classes (0 to 2)");
        size_t is, ls;
        uint8_t *images = make_idx_images(4, 4, 5, &is), *labels = make_idx_labels(5, 3, &ls);
        ck_assert_status(sn_idx_parse("i", images, is, "l", labels, ls, &want, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "5 labels for 4 images in i");
        ck_assert_status(sn_idx_parse("i", labels, ls, "l", labels, ls, &want, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "rank 1: expected 3 or 4 (images)");
        images[2] = 0x0d;
        ck_assert_status(sn_idx_parse("i", images, is, "l", labels, ls, &want, &im, &err), ES_UNSUPPORTED);
        images[0] = 'P';
        ck_assert_status(sn_idx_parse("i", images, is, "l", labels, ls, &want, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "not an IDX file");
        free(images);
        free(labels);
    }
END_TEST

START_TEST(idx_files_gzip_and_missing)
    {
        const char *prefix = es_test_join(es_test_dir(), "set");
        char path[1200];
        es_error err = {0};
        sn_images im;
        snprintf(path, sizeof path, "%s", prefix);
        ck_assert_status(sn_images_read(SN_DATA_IDX, prefix, true, &want, &im, &err), ES_NOT_FOUND);
        ck_assert_has(err.where, "-images-idx3-ubyte");
        size_t is, ls;
        uint8_t *images = make_idx_images(6, 4, 5, &is), *labels = make_idx_labels(6, 3, &ls);
        snprintf(path, sizeof path, "%s-images-idx3-ubyte.gz", prefix);
        gzFile gz = gzopen(path, "wb");
        ck_assert_int_eq(gzwrite(gz, images, (unsigned)is), (int)is);
        ck_assert_int_eq(gzclose(gz), Z_OK);
        snprintf(path, sizeof path, "%s-labels-idx1-ubyte", prefix);
        make_file(path, labels, ls);
        ck_assert_ok_err(sn_images_read(SN_DATA_IDX, prefix, true, &want, &im, &err), &err);
        ck_assert_int_eq(im.n, 6);
        ck_assert_int_eq(im.u8[19], make_pixel(0, 3, 4));
        sn_images_free(&im);
        free(images);
        free(labels);
    }
END_TEST

START_TEST(cifar_reads_several_files)
    {
        enum { RECORD = 3073 };
        static uint8_t bytes[3 * RECORD];
        const sn_expect e = {.h = 32, .w = 32, .c = 3, .classes = 10};
        es_error err = {0};
        sn_images im = {0};
        for (int i = 0; i < 3; i++) {
            bytes[i * RECORD] = (uint8_t)(i + 4);
            for (int c = 0; c < 3; c++)
                for (int k = 0; k < 1024; k++)
                    bytes[i * RECORD + 1 + c * 1024 + k] = (uint8_t)(i * 11 + c * 50 + k);
        }
        const char *dir = es_test_dir();
        char list[2600], one[1100], two[1100];
        snprintf(one, sizeof one, "%s/a.bin", dir);
        snprintf(two, sizeof two, "%s/b.bin", dir);
        make_file(one, bytes, RECORD);
        make_file(two, bytes + RECORD, 2 * RECORD);
        snprintf(list, sizeof list, "%s, %s", one, two);
        ck_assert_ok_err(sn_images_read(SN_DATA_CIFAR, list, true, &e, &im, &err), &err);
        ck_assert_int_eq(im.n, 3);
        for (int i = 0; i < 3; i++) {
            ck_assert_int_eq(im.labels[i], i + 4);
            ck_assert_int_eq(im.u8[(i * 1024 + 33) * 3 + 2],
                             (uint8_t)(i * 11 + 100 + 33)); /* planar became interleaved */
        }
        sn_images_free(&im);
        make_file(two, bytes, 2 * RECORD - 10);
        ck_assert_status(sn_images_read(SN_DATA_CIFAR, list, true, &e, &im, &err), ES_INVALID);
        ck_assert_str_eq(err.where, two);
        ck_assert_has(err.text, "6136 bytes are no whole number of CIFAR records of 3073 bytes");
        ck_assert_int_eq(im.n, 0);
        bytes[0] = 10;
        ck_assert_status(sn_cifar_parse("c", bytes, RECORD, &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "label 10 of sample 0 is out of range");
        const sn_expect hundred = {.classes = 100};
        static uint8_t fine[3074];
        fine[0] = 7;
        fine[1] = 99;
        ck_assert_ok_err(sn_cifar_parse("c", fine, sizeof fine, &hundred, &im, &err), &err);
        ck_assert_int_eq(im.labels[0], 99);
        sn_images_free(&im);
    }
END_TEST

static es_status csv(const char *text, const sn_expect *e, sn_images *im, es_error *err)
{
    return sn_csv_parse("t.csv", text, strlen(text), e, im, err);
}

START_TEST(csv_reads)
    {
        const sn_expect e = {.h = 2, .w = 2, .c = 1, .classes = 3};
        sn_images im;
        es_error err = {0};
        ck_assert_ok_err(csv("1,2,3,16,0\n5,6,7,255,2\r\n\n", &e, &im, &err), &err);
        ck_assert_int_eq(im.n, 2);
        ck_assert_int_eq(im.u8[7], 255);
        ck_assert_int_eq(im.labels[1], 2);
        sn_images_free(&im);
        ck_assert_ok_err(csv("label,a,b,c,d\n1,0.5,2,3,-4", &e, &im, &err), &err);
        ck_assert_ptr_null(im.u8);
        ck_assert_float_eq(im.f32[0], 0.5f);
        ck_assert_float_eq(im.f32[3], -4.0f);
        ck_assert_int_eq(im.labels[0], 1);
        sn_images_free(&im);
    }
END_TEST

START_TEST(csv_refuses)
    {
        const sn_expect e = {.h = 2, .w = 2, .c = 1, .classes = 3};
        sn_images im;
        es_error err = {0};
        ck_assert_status(csv("", &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "no images");
        ck_assert_status(csv("1,2,3,4,0\n1,2,3,0\n", &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "line 2 has 4 columns, the first has 5");
        ck_assert_status(csv("1,2,3,0\n", &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "3 pixels a line, but the space's input is 2x2x1");
        ck_assert_status(csv("1,2,3,4,0\n1,x,3,4,0\n", &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "line 2, column 2: \"x\" is no number");
        ck_assert_status(csv("1,2,3,nan,0\n", &e, &im, &err), ES_INVALID);
        ck_assert_status(csv("1,2,3,4,0.5\n", &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "label 0.5 is no class number");
        ck_assert_status(csv("1,2,3,4,-1\n", &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "label -1 of sample 0 is out of range");
    }
END_TEST

START_TEST(digits)
    {
        const char *path = es_test_shared("data/digits.csv");
        ES_TEST_NEEDS(path);
        const sn_expect e = {.h = 8, .w = 8, .c = 1, .classes = 10};
        sn_images im;
        es_error err = {0};
        ck_assert_ok_err(sn_images_read(SN_DATA_CSV, path, true, &e, &im, &err), &err);
        ck_assert_int_eq(im.n, 1797);
        ck_assert_ptr_nonnull(im.u8);
        sn_images_free(&im);
    }
END_TEST

static size_t npy(uint8_t *to, const char *descr, const char *shape, const void *data, size_t bytes)
{
    char head[200];
    int n = snprintf(head, sizeof head, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    memcpy(to, "\x93NUMPY\x01\x00", 8);
    to[8] = (uint8_t)n;
    to[9] = 0;
    memcpy(to + 10, head, (size_t)n);
    memcpy(to + 10 + n, data, bytes);
    return 10 + (size_t)n + bytes;
}

START_TEST(npy_reads)
    {
        uint8_t images[512], labels[512];
        float px[2 * 2 * 2] = {0, 1, 2, 3, 4, 5, 6, 7.5f};
        int64_t lb[2] = {2, 0};
        size_t in = npy(images, "<f4", "(2, 2, 2)", px, sizeof px), ln = npy(labels, "<i8", "(2,)", lb, sizeof lb);
        const sn_expect e = {.h = 2, .w = 2, .c = 1, .classes = 3};
        sn_npy ai, al;
        sn_images im;
        es_error err = {0};
        ck_assert_ok_err(sn_npy_parse("i", images, in, &ai, &err), &err);
        ck_assert_ok_err(sn_npy_parse("l", labels, ln, &al, &err), &err);
        ck_assert_ok_err(sn_npy_images("i", &ai, "l", &al, &e, &im, &err), &err);
        ck_assert_float_eq(im.f32[7], 7.5f);
        ck_assert_int_eq(im.labels[0], 2);
        sn_images_free(&im);
        uint8_t bytes[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
        in = npy(images, "|u1", "(3, 4)", bytes, 12); /* flat rows */
        ck_assert_ok_err(sn_npy_parse("i", images, in, &ai, &err), &err);
        ck_assert_status(sn_npy_images("i", &ai, "l", &al, &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "2 labels (rank 1) for 3 images");
        int16_t three[3] = {0, 1, -1};
        ln = npy(labels, "<i2", "(3, 1)", three, sizeof three);
        ck_assert_ok_err(sn_npy_parse("l", labels, ln, &al, &err), &err);
        ck_assert_status(sn_npy_images("i", &ai, "l", &al, &e, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "label -1 of sample 2 is out of range");
    }
END_TEST

START_TEST(npy_refuses)
    {
        uint8_t b[512];
        double d[4] = {0};
        sn_npy a;
        es_error err = {0};
        size_t n = npy(b, "<f8", "(4,)", d, sizeof d);
        ck_assert_ok_err(sn_npy_parse("a", b, n, &a, &err), &err);
        ck_assert_status(sn_npy_parse("a", b, n - 1, &a, &err), ES_INVALID);
        ck_assert_has(err.text, "truncated: its shape needs 32 bytes of data, 31 are there");
        ck_assert_status(sn_npy_parse("a", b, 20, &a, &err), ES_INVALID);
        n = npy(b, ">f8", "(4,)", d, sizeof d);
        ck_assert_status(sn_npy_parse("a", b, n, &a, &err), ES_UNSUPPORTED);
        n = npy(b, "<c8", "(4,)", d, sizeof d);
        ck_assert_status(sn_npy_parse("a", b, n, &a, &err), ES_UNSUPPORTED);
        n = npy(b, "<f8", "(4, 999999999999999999999)", d, sizeof d);
        ck_assert_status(sn_npy_parse("a", b, n, &a, &err), ES_INVALID);
        ck_assert_status(sn_npy_parse("a", "PK\3\4........", 12, &a, &err), ES_INVALID);
        ck_assert_has(err.text, "not an NPY file");
    }
END_TEST

/* numpy is not needed by the project, so Python's own zipfile writes the archive, stored and deflated. */
START_TEST(npz_from_python)
    {
        const char *dir = es_test_dir();
        char command[3000], path[1200];
        snprintf(path, sizeof path, "%s/set.npz", dir);
        snprintf(command, sizeof command,
                 "python3 -c \"\n"
                 "import zipfile\n"
                 "def npy(d, s, b):\n"
                 "    h = str({'descr': d, 'fortran_order': False, 'shape': s}).encode()\n"
                 "    return b'\\x93NUMPY\\x01\\x00' + len(h).to_bytes(2, 'little') + h + b\n"
                 "with zipfile.ZipFile('%s', 'w') as z:\n"
                 "    z.writestr('other.txt', 'x' * 1000)\n"
                 "    z.writestr('x_test.npy', npy('|u1', (5, 4, 5), bytes(range(100))), zipfile.ZIP_DEFLATED)\n"
                 "    with z.open('y_test.npy', 'w', force_zip64=True) as f: f.write(npy('<i4', (5,), "
                 "b'\\x02\\x00\\x00\\x00' * 5))\n"
                 "\"",
                 path);
        if (system(command) != 0) {
            es_test_skip("python3");
            return;
        }
        sn_images im;
        es_error err = {0};
        ck_assert_ok_err(sn_images_read(SN_DATA_NPY, path, false, &want, &im, &err), &err);
        ck_assert_int_eq(im.n, 5);
        ck_assert_int_eq(im.u8[77], 77);
        ck_assert_int_eq(im.labels[4], 2);
        sn_images_free(&im);
        ck_assert_status(sn_images_read(SN_DATA_NPY, path, true, &want, &im, &err), ES_INVALID);
        ck_assert_has(err.text, "the archive holds none of x_train and y_train");
        /* A damaged member is found by its checksum. */
        FILE *f = fopen(path, "r+b");
        fseek(f, 0, SEEK_END);
        long size = ftell(f);
        char *bytes = malloc((size_t)size);
        fseek(f, 0, SEEK_SET);
        ck_assert_int_eq((long)fread(bytes, 1, (size_t)size, f), size);
        char *at = memmem(bytes, (size_t)size, "\x02\0\0\0\x02\0\0\0", 8);
        ck_assert_ptr_nonnull(at);
        *at = 1;
        fseek(f, 0, SEEK_SET);
        fwrite(bytes, 1, (size_t)size, f);
        fclose(f);
        ck_assert_status(sn_images_read(SN_DATA_NPY, path, false, &want, &im, &err), ES_CORRUPT);
        ck_assert_has(err.text, "y_test.npy: its checksum does not match its data");
        make_file(path, bytes, (size_t)size - 30);
        ck_assert_status(sn_images_read(SN_DATA_NPY, path, false, &want, &im, &err), ES_CORRUPT);
        ck_assert_has(err.text, "truncated");
        free(bytes);
    }
END_TEST

ES_TEST_MAIN("formats", idx_reads, idx_refuses, idx_files_gzip_and_missing, cifar_reads_several_files, csv_reads,
             csv_refuses, digits, npy_reads, npy_refuses, npz_from_python)
