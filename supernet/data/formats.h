/* formats.h - image files as arrays in memory: one parser per format, each from (bytes, size), so that a fuzzer drives the same code as a file.
 *
 *     sn_expect e = {.h = 28, .w = 28, .c = 1, .classes = 10};                  // what the space wants; 0 is "any"
 *     sn_images im = {0};
 *     ES_GOTO(sn_images_read(SN_DATA_IDX, "data/train", true, &e, &im, err));    // picks the parser, reads the files
 *     ES_GOTO(sn_csv_parse("digits.csv", text, n, &e, &im, err));                // or from memory
 *     sn_images_free(&im);
 *
 * Invariants after success: n >= 1; exactly one of u8 and f32 is set, NHWC, n h w c elements; labels are in [0, classes) (or only >= 0 when classes is 0); h, w
 * and c are those expected. After a failure *out is empty. Messages name the file, what it holds and what was expected.
 */
#ifndef SN_DATA_FORMATS_H
#define SN_DATA_FORMATS_H

#include "supernet/searchfile/searchfile.h"

typedef struct sn_expect {
    int h, w, c, classes;
    int tokens; /* of a window; 0: images */
} sn_expect;

typedef struct sn_images {
    int64_t n;
    int h, w, c;
    uint8_t *u8; /* owned */
    float *f32;  /* owned */
    int32_t *labels;
} sn_images;

/* Token ids; tokens.h reads and cuts them. */
typedef struct sn_tokens {
    int64_t n;
    int item;     /* bytes a token: 1, 2, 4 */
    uint8_t *ids; /* owned */
} sn_tokens;

void sn_images_free(sn_images *im); /* empty again; NULL-safe members */
es_status sn_images_read(sn_data_format format, const char *path, bool training, const sn_expect *e, sn_images *out,
                         es_error *err) ES_MUST_CHECK;

/* One parser per format. `name` is for messages. */

/* IDX (LeCun): the images' file (u8; rank 3 [n, h, w] or rank 4 [n, h, w, c]) and the labels' file (u8, rank 1). */
es_status sn_idx_parse(const char *images_name, const void *images, size_t images_size, const char *labels_name,
                       const void *labels, size_t labels_size, const sn_expect *e, sn_images *out,
                       es_error *err) ES_MUST_CHECK;

/* CIFAR binary: records of one label (CIFAR-10) or coarse and fine label (CIFAR-100, chosen by 100 expected classes, of which the fine one is
 * read) and 3,072 bytes of planar RGB. Appends to *out, so that several files become one set. */
es_status sn_cifar_parse(const char *name, const void *bytes, size_t size, const sn_expect *e, sn_images *out,
                         es_error *err) ES_MUST_CHECK;

/* CSV: one image a line, pixels in NHWC order and the label in the last column, or in the column a heading line calls "label". */
es_status sn_csv_parse(const char *name, const char *text, size_t size, const sn_expect *e, sn_images *out,
                       es_error *err) ES_MUST_CHECK;

/* NPY: one array; borrows the bytes. Little-endian bool, integers and floats of 1 to 8 bytes, C order. */
enum { SN_NPY_RANK_MAX = 8 };
typedef struct sn_npy {
    char kind; /* 'b', 'i', 'u', 'f' */
    int item;  /* bytes an element */
    int rank;
    int64_t d[SN_NPY_RANK_MAX], count;
    const uint8_t *data;
} sn_npy;
es_status sn_npy_parse(const char *name, const void *bytes, size_t size, sn_npy *out, es_error *err) ES_MUST_CHECK;
/* Images [n, h, w], [n, h, w, c] or [n, h w c] and labels [n] or [n, 1]. */
es_status sn_npy_images(const char *images_name, const sn_npy *images, const char *labels_name, const sn_npy *labels,
                        const sn_expect *e, sn_images *out, es_error *err) ES_MUST_CHECK;

/* A member of a ZIP archive (stored or deflated, checked against its CRC). Caller frees *data. ES_NOT_FOUND when there is none of that name. */
es_status sn_zip_member(const char *name, const void *bytes, size_t size, const char *member, uint8_t **data, size_t *n,
                        es_error *err) ES_MUST_CHECK;
/* NPZ: members x_train, y_train (training) or x_test, y_test; else images, labels; else x, y. */
es_status sn_npz_parse(const char *name, const void *bytes, size_t size, bool training, const sn_expect *e,
                       sn_images *out, es_error *err) ES_MUST_CHECK;

/* Shared by the parsers: shape and label checks, allocation. */
es_status sn_images_shape(const char *name, const sn_expect *e, int64_t h, int64_t w, int64_t c,
                          es_error *err) ES_MUST_CHECK;
es_status sn_images_label(const char *name, const sn_expect *e, int64_t sample, int64_t label,
                          es_error *err) ES_MUST_CHECK;
es_status sn_images_alloc(const char *name, size_t bytes, void *pointer_out, es_error *err) ES_MUST_CHECK;

#endif
