#include "supernet/data/formats.h"

#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE };

/* The set grows by one file: both arrays are reallocated together, and *out stays whole when one fails. */
static es_status grow(const char *name, sn_images *out, int64_t n, es_error *err)
{
    uint8_t *px = realloc(out->u8, (size_t)n * PIXELS);
    if (px)
        out->u8 = px;
    int32_t *lb = realloc(out->labels, (size_t)n * sizeof *lb);
    if (lb)
        out->labels = lb;
    if (!px || !lb)
        return es_fail(err, ES_NO_MEMORY, name, "%zu bytes for its images", (size_t)n * PIXELS);
    return ES_OK;
}

es_status sn_cifar_parse(const char *name, const void *bytes, size_t size, const sn_expect *e, sn_images *out,
                         es_error *err)
{
    size_t labels = e->classes == 100 ? 2 : 1, record = labels + PIXELS;
    const uint8_t *p = bytes;
    es_status s;
    ES_GOTO(sn_images_shape(name, e, SIDE, SIDE, 3, err));
    if (size == 0 || size % record != 0)
        ES_GOTO(es_fail(
            err, ES_INVALID, name,
            "%zu bytes are no whole number of CIFAR records of %zu bytes (%zu left over): truncated, or another "
            "format",
            size, record, size % record));
    int64_t more = (int64_t)(size / record);
    ES_GOTO(grow(name, out, out->n + more, err));
    for (int64_t i = 0; i < more; i++, p += record) {
        int label = p[labels - 1];
        ES_GOTO(sn_images_label(name, e, i, label, err));
        out->labels[out->n + i] = label;
        uint8_t *to = out->u8 + (out->n + i) * PIXELS;
        const uint8_t *from = p + labels;
        for (int k = 0; k < PLANE; k++)
            for (int c = 0; c < 3; c++)
                to[3 * k + c] = from[c * PLANE + k];
    }
    out->n += more;
    out->h = out->w = SIDE;
    out->c = 3;
fail:
    if (s != ES_OK)
        sn_images_free(out);
    return s;
}
