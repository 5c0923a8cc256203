#include "supernet/data/formats.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"

static const size_t SN_FILE_BYTES_MAX = (size_t)4 << 30; /* one data file, unpacked */

void sn_images_free(sn_images *im)
{
    free(im->u8);
    free(im->f32);
    free(im->labels);
    memset(im, 0, sizeof *im);
}

es_status sn_images_shape(const char *name, const sn_expect *e, int64_t h, int64_t w, int64_t c, es_error *err)
{
    if (h < 1 || w < 1 || c < 1 || h > 4096 || w > 4096 || c > 64)
        return es_fail(err, ES_INVALID, name,
                       "images of %" PRId64 "x%" PRId64 "x%" PRId64
                       ": allowed are 1 to 4096 rows and columns, 1 to 64 channels",
                       h, w, c);
    if ((e->h && e->h != h) || (e->w && e->w != w) || (e->c && e->c != c))
        return es_fail(err, ES_INVALID, name,
                       "images are %" PRId64 "x%" PRId64 "x%" PRId64 ", but the space's input is %dx%dx%d", h, w, c,
                       e->h, e->w, e->c);
    return ES_OK;
}

es_status sn_images_label(const char *name, const sn_expect *e, int64_t sample, int64_t label, es_error *err)
{
    if (label < 0 || label > INT32_MAX || (e->classes && label >= e->classes))
        return es_fail(err, ES_INVALID, name,
                       "label %" PRId64 " of sample %" PRId64
                       " is out of range: the space's head has %d classes (0 to %d)",
                       label, sample, e->classes, e->classes - 1);
    return ES_OK;
}

es_status sn_images_alloc(const char *name, size_t bytes, void *pointer_out, es_error *err)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p)
        return es_fail(err, ES_NO_MEMORY, name, "%zu bytes for its images", bytes);
    memcpy(pointer_out, &p, sizeof p);
    return ES_OK;
}

/* Reads PREFIX + suffix, or the same with ".gz". */
static es_status read_idx_file(const char *prefix, const char *suffix, char path[SN_PATH_MAX + 64], char **data,
                               size_t *size, es_error *err)
{
    snprintf(path, SN_PATH_MAX + 64, "%s%s.gz", prefix, suffix);
    if (!es_file_exists(path)) {
        snprintf(path, SN_PATH_MAX + 64, "%s%s", prefix, suffix);
        if (!es_file_exists(path))
            return es_fail(err, ES_NOT_FOUND, path,
                           "no such file (nor with .gz): data of format idx are named by their "
                           "prefix, before \"-images-idx3-ubyte\"");
    }
    return es_file_read(path, SN_FILE_BYTES_MAX, data, size, err);
}

static es_status read_idx(const char *prefix, const sn_expect *e, sn_images *out, es_error *err)
{
    char images_path[SN_PATH_MAX + 64], labels_path[SN_PATH_MAX + 64];
    char *images = NULL, *labels = NULL;
    size_t images_size = 0, labels_size = 0;
    es_status s;
    ES_GOTO(read_idx_file(prefix, "-images-idx3-ubyte", images_path, &images, &images_size, err));
    ES_GOTO(read_idx_file(prefix, "-labels-idx1-ubyte", labels_path, &labels, &labels_size, err));
    ES_GOTO(sn_idx_parse(images_path, images, images_size, labels_path, labels, labels_size, e, out, err));
fail:
    free(images);
    free(labels);
    return s;
}

static es_status read_cifar(char *list, const sn_expect *e, sn_images *out, es_error *err)
{
    char *save = NULL, *data = NULL;
    es_status s = ES_OK;
    for (char *path = strtok_r(list, ",", &save); path; path = strtok_r(NULL, ",", &save)) {
        size_t size = 0;
        path += strspn(path, " ");
        ES_GOTO(es_file_read(path, SN_FILE_BYTES_MAX, &data, &size, err));
        ES_GOTO(sn_cifar_parse(path, data, size, e, out, err));
        free(data);
        data = NULL;
    }
    if (out->n == 0)
        s = es_fail(err, ES_INVALID, list, "no file named: expected one or more, separated by commas");
fail:
    free(data);
    if (s != ES_OK)
        sn_images_free(out);
    return s;
}

/* "images.npy,labels.npy" or "both.npz". */
static es_status read_numpy(char *list, bool training, const sn_expect *e, sn_images *out, es_error *err)
{
    char *comma = strchr(list, ','), *images = NULL, *labels = NULL;
    size_t images_size = 0, labels_size = 0;
    sn_npy ai, al;
    es_status s;
    if (comma) {
        *comma++ = 0;
        comma += strspn(comma, " ");
    }
    ES_GOTO(es_file_read(list, SN_FILE_BYTES_MAX, &images, &images_size, err));
    if (!comma && images_size >= 4 && memcmp(images, "PK\3\4", 4) == 0) {
        ES_GOTO(sn_npz_parse(list, images, images_size, training, e, out, err));
    } else if (!comma) {
        ES_GOTO(es_fail(err, ES_INVALID, list, "expected an .npz file, or \"images.npy,labels.npy\""));
    } else {
        ES_GOTO(es_file_read(comma, SN_FILE_BYTES_MAX, &labels, &labels_size, err));
        ES_GOTO(sn_npy_parse(list, images, images_size, &ai, err));
        ES_GOTO(sn_npy_parse(comma, labels, labels_size, &al, err));
        ES_GOTO(sn_npy_images(list, &ai, comma, &al, e, out, err));
    }
fail:
    free(images);
    free(labels);
    return s;
}

static es_status read_csv(const char *path, const sn_expect *e, sn_images *out, es_error *err)
{
    char *text = NULL;
    size_t size = 0;
    es_status s;
    ES_GOTO(es_file_read(path, SN_FILE_BYTES_MAX, &text, &size, err));
    ES_GOTO(sn_csv_parse(path, text, size, e, out, err));
fail:
    free(text);
    return s;
}

es_status sn_images_read(sn_data_format format, const char *path, bool training, const sn_expect *e, sn_images *out,
                         es_error *err)
{
    char *list = es_xstrdup(path);
    es_status s = ES_INVALID;
    memset(out, 0, sizeof *out);
    switch (format) {
    case SN_DATA_IDX: s = read_idx(list, e, out, err); break;
    case SN_DATA_CIFAR: s = read_cifar(list, e, out, err); break;
    case SN_DATA_NPY: s = read_numpy(list, training, e, out, err); break;
    case SN_DATA_CSV: s = read_csv(list, e, out, err); break;
    case SN_DATA_TEXT:
    case SN_DATA_TOKENS: s = es_fail(err, ES_INVALID, path, "tokens are no images"); break;
    }
    free(list);
    return s;
}
