/* NPY: the magic "\x93NUMPY", a version, the length of a text, that text (a Python dictionary with descr, fortran_order and shape), the elements.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#include "supernet/data/formats.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NPY_HEAD_MAX = 4096 };

/* The text after "'key':", or NULL. */
static const char *npy_value(const char *head, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *p = strstr(head, quoted);
    if (!p)
        return NULL;
    p += strlen(quoted);
    p += strspn(p, " ");
    return *p == ':' ? p + 1 + strspn(p + 1, " ") : NULL;
}

static es_status npy_dtype(const char *name, const char *head, sn_npy *out, es_error *err)
{
    const char *d = npy_value(head, "descr");
    char order = 0, kind = 0;
    int item = 0;
    if (!d || sscanf(d, "'%c%c%d'", &order, &kind, &item) != 3)
        return es_fail(err, ES_INVALID, name, "its NPY head names no simple element type (descr)");
    bool sized = item == 1 || item == 2 || item == 4 || item == 8;
    if (!strchr("biuf", kind) || !kind || !sized || (kind == 'f' && item < 4))
        return es_fail(err, ES_UNSUPPORTED, name,
                       "NPY element type %c%d: expected bool, integers of 1 to 8 bytes, or floats of 4 or 8 bytes",
                       kind, item);
    if (order == '>' && item > 1)
        return es_fail(err, ES_UNSUPPORTED, name, "big-endian NPY elements: expected little-endian ones");
    out->kind = kind;
    out->item = item;
    return ES_OK;
}

static es_status npy_shape(const char *name, const char *head, sn_npy *out, es_error *err)
{
    const char *p = npy_value(head, "shape"), *order = npy_value(head, "fortran_order");
    if (!p || *p != '(' || !order)
        return es_fail(err, ES_INVALID, name, "its NPY head names no shape or order");
    out->rank = 0;
    out->count = 1;
    for (p++;;) {
        p += strspn(p, " ,");
        if (*p == ')')
            break;
        char *end;
        long long v = strtoll(p, &end, 10);
        if (end == p || v < 0 || out->rank == SN_NPY_RANK_MAX || (v && out->count > (INT64_C(1) << 40) / v))
            return es_fail(err, ES_INVALID, name, "its NPY shape is no tuple of at most %d sizes", SN_NPY_RANK_MAX);
        out->d[out->rank++] = v;
        out->count *= v;
        p = end;
    }
    if (strncmp(order, "True", 4) == 0 && out->rank > 1)
        return es_fail(err, ES_UNSUPPORTED, name, "NPY in Fortran order: save numpy.ascontiguousarray(x)");
    return ES_OK;
}

es_status sn_npy_parse(const char *name, const void *bytes, size_t size, sn_npy *out, es_error *err)
{
    const uint8_t *p = bytes;
    char head[NPY_HEAD_MAX + 1];
    memset(out, 0, sizeof *out);
    if (size < 12 || memcmp(p, "\x93NUMPY", 6) != 0)
        return es_fail(err, ES_INVALID, name, "not an NPY file: it does not start with \\x93NUMPY");
    size_t start = p[6] == 1 ? 10 : 12;
    size_t length = (size_t)p[8] | (size_t)p[9] << 8;
    if (p[6] > 1)
        length |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (p[6] < 1 || p[6] > 3)
        return es_fail(err, ES_UNSUPPORTED, name, "NPY version %d: expected 1, 2 or 3", p[6]);
    if (length > NPY_HEAD_MAX || size - start < length)
        return es_fail(err, ES_INVALID, name, "truncated: its NPY head of %zu bytes does not fit into %zu", length,
                       size);
    memcpy(head, p + start, length);
    head[length] = 0;
    ES_RETURN(npy_dtype(name, head, out, err));
    ES_RETURN(npy_shape(name, head, out, err));
    size_t have = size - start - length;
    if (have / (size_t)out->item < (size_t)out->count)
        return es_fail(err, ES_INVALID, name, "truncated: its shape needs %" PRId64 " bytes of data, %zu are there",
                       out->count * out->item, have);
    out->data = p + start + length;
    return ES_OK;
}

static double npy_float(const sn_npy *a, int64_t i)
{
    float f;
    double d;
    if (a->item == 4) {
        memcpy(&f, a->data + 4 * i, 4);
        return (double)f;
    }
    memcpy(&d, a->data + 8 * i, 8);
    return d;
}

/* Element i as a whole number; false when it is none. */
static bool npy_integer(const sn_npy *a, int64_t i, int64_t *out)
{
    uint64_t bits = 0;
    if (a->kind == 'f') {
        double v = npy_float(a, i);
        if (!(v == floor(v)) || fabs(v) > 1e15)
            return false;
        *out = (int64_t)v;
        return true;
    }
    memcpy(&bits, a->data + i * a->item, (size_t)a->item); /* little-endian, as this machine */
    if (a->kind == 'i' && a->item < 8 && bits >> (8 * a->item - 1))
        bits |= ~UINT64_C(0) << (8 * a->item);
    *out = (int64_t)bits;
    return !(a->kind == 'u' && *out < 0);
}

static es_status npy_pixels(const char *name, const sn_npy *a, sn_images *out, es_error *err)
{
    if (a->item == 1 && a->kind != 'i') {
        ES_RETURN(sn_images_alloc(name, (size_t)a->count, &out->u8, err));
        memcpy(out->u8, a->data, (size_t)a->count);
        return ES_OK;
    }
    ES_RETURN(sn_images_alloc(name, (size_t)a->count * sizeof(float), &out->f32, err));
    for (int64_t i = 0; i < a->count; i++) {
        int64_t whole = 0;
        if (a->kind != 'f' && npy_integer(a, i, &whole))
            out->f32[i] = (float)whole;
        else if (a->kind == 'f')
            out->f32[i] = (float)npy_float(a, i);
        else
            out->f32[i] = NAN;
        if (!isfinite(out->f32[i]))
            return es_fail(err, ES_INVALID, name, "pixel %" PRId64 " is no finite number", i);
    }
    return ES_OK;
}

es_status sn_npy_images(const char *images_name, const sn_npy *images, const char *labels_name, const sn_npy *labels,
                        const sn_expect *e, sn_images *out, es_error *err)
{
    es_status s;
    memset(out, 0, sizeof *out);
    bool flat = images->rank == 2;
    if (images->rank < 2 || images->rank > 4 || images->d[0] < 1)
        ES_GOTO(es_fail(err, ES_INVALID, images_name,
                        "an array of rank %d: expected images [n, h, w], [n, h, w, c] or [n, h w c]", images->rank));
    if (flat && (!e->h || images->d[1] != (int64_t)e->h * e->w * e->c))
        ES_GOTO(es_fail(err, ES_INVALID, images_name, "%" PRId64 " pixels an image, but the space's input is %dx%dx%d",
                        images->d[1], e->h, e->w, e->c));
    int64_t h = flat ? e->h : images->d[1], w = flat ? e->w : images->d[2];
    int64_t c = flat ? e->c : images->rank == 4 ? images->d[3] : 1;
    ES_GOTO(sn_images_shape(images_name, e, h, w, c, err));
    if (labels->rank < 1 || labels->rank > 2 || labels->count != labels->d[0] || labels->d[0] != images->d[0])
        ES_GOTO(es_fail(err, ES_INVALID, labels_name, "%" PRId64 " labels (rank %d) for %" PRId64 " images",
                        labels->count, labels->rank, images->d[0]));
    ES_GOTO(npy_pixels(images_name, images, out, err));
    ES_GOTO(sn_images_alloc(labels_name, (size_t)labels->count * sizeof(int32_t), &out->labels, err));
    for (int64_t i = 0; i < labels->count; i++) {
        int64_t v;
        if (!npy_integer(labels, i, &v))
            ES_GOTO(es_fail(err, ES_INVALID, labels_name, "label of sample %" PRId64 " is no class number", i));
        ES_GOTO(sn_images_label(labels_name, e, i, v, err));
        out->labels[i] = (int32_t)v;
    }
    out->n = images->d[0];
    out->h = (int)h;
    out->w = (int)w;
    out->c = (int)c;
fail:
    if (s != ES_OK)
        sn_images_free(out);
    return s;
}

es_status sn_npz_parse(const char *name, const void *bytes, size_t size, bool training, const sn_expect *e,
                       sn_images *out, es_error *err)
{
    static const char *const pairs[][2] = {
        {"x_train.npy", "y_train.npy"}, {"x_test.npy", "y_test.npy"}, {"images.npy", "labels.npy"}, {"x.npy", "y.npy"}};
    uint8_t *images = NULL, *labels = NULL;
    size_t images_size = 0, labels_size = 0;
    char images_name[SN_PATH_MAX + 32], labels_name[SN_PATH_MAX + 32];
    sn_npy ai, al;
    es_status s = ES_NOT_FOUND;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0] && s == ES_NOT_FOUND; i++) {
        if (i == (training ? 1 : 0))
            continue;
        snprintf(images_name, sizeof images_name, "%s/%s", name, pairs[i][0]);
        snprintf(labels_name, sizeof labels_name, "%s/%s", name, pairs[i][1]);
        s = sn_zip_member(name, bytes, size, pairs[i][0], &images, &images_size, err);
        if (s == ES_OK)
            ES_GOTO(sn_zip_member(name, bytes, size, pairs[i][1], &labels, &labels_size, err));
    }
    if (s == ES_NOT_FOUND)
        s = es_fail(err, ES_INVALID, name, "the archive holds none of %s, images and labels, x and y",
                    training ? "x_train and y_train" : "x_test and y_test");
    ES_GOTO(s);
    ES_GOTO(sn_npy_parse(images_name, images, images_size, &ai, err));
    ES_GOTO(sn_npy_parse(labels_name, labels, labels_size, &al, err));
    ES_GOTO(sn_npy_images(images_name, &ai, labels_name, &al, e, out, err));
fail:
    free(images);
    free(labels);
    return s;
}
