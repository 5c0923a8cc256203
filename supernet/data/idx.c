/* IDX: a magic number 0, 0, type, rank; rank big-endian sizes; the elements. */
#include "supernet/data/formats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { IDX_U8 = 0x08 };

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Checks the head and the length against it; d[] gets the sizes. */
static es_status idx_head(const char *name, const uint8_t *p, size_t size, int rank_min, int rank_max, int64_t d[4],
                          const uint8_t **elements, es_error *err)
{
    if (size < 4 || p[0] != 0 || p[1] != 0)
        return es_fail(err, ES_INVALID, name, "not an IDX file: it starts with no IDX magic number");
    int rank = p[3];
    if (p[2] != IDX_U8)
        return es_fail(err, ES_UNSUPPORTED, name, "IDX element type 0x%02x: expected unsigned bytes (0x08)", p[2]);
    if (rank < rank_min || rank > rank_max)
        return es_fail(err, ES_INVALID, name, "IDX rank %d: expected %s", rank,
                       rank_max == 1 ? "1 (labels)" : "3 or 4 (images)");
    size_t head = 4 + 4 * (size_t)rank;
    if (size < head)
        return es_fail(err, ES_INVALID, name, "truncated: %zu bytes, its head alone needs %zu", size, head);
    uint64_t count = 1;
    for (int i = 0; i < 4; i++)
        d[i] = 1;
    for (int i = 0; i < rank; i++) {
        d[i] = big_endian(p + 4 + 4 * i);
        if (d[i] == 0 || count > (UINT64_C(1) << 40) / (uint64_t)d[i])
            return es_fail(err, ES_INVALID, name, "IDX size %d is %" PRId64 ": sizes start at 1", i, d[i]);
        count *= (uint64_t)d[i];
    }
    if (size - head < count)
        return es_fail(err, ES_INVALID, name, "truncated: its head announces %" PRIu64 " bytes of data, %zu are there",
                       count, size - head);
    if (size - head > count)
        return es_fail(err, ES_INVALID, name, "%zu bytes too long: its head announces %" PRIu64 " bytes of data",
                       size - head - (size_t)count, count);
    *elements = p + head;
    return ES_OK;
}

es_status sn_idx_parse(const char *images_name, const void *images, size_t images_size, const char *labels_name,
                       const void *labels, size_t labels_size, const sn_expect *e, sn_images *out, es_error *err)
{
    const uint8_t *px = NULL, *lb = NULL;
    int64_t d[4], ld[4];
    es_status s;
    memset(out, 0, sizeof *out);
    ES_GOTO(idx_head(images_name, images, images_size, 3, 4, d, &px, err));
    ES_GOTO(idx_head(labels_name, labels, labels_size, 1, 1, ld, &lb, err));
    ES_GOTO(sn_images_shape(images_name, e, d[1], d[2], d[3], err));
    if (ld[0] != d[0])
        ES_GOTO(es_fail(err, ES_INVALID, labels_name, "%" PRId64 " labels for %" PRId64 " images in %s", ld[0], d[0],
                        images_name));
    size_t bytes = (size_t)(d[0] * d[1] * d[2] * d[3]);
    ES_GOTO(sn_images_alloc(images_name, bytes, &out->u8, err));
    ES_GOTO(sn_images_alloc(labels_name, (size_t)d[0] * sizeof(int32_t), &out->labels, err));
    memcpy(out->u8, px, bytes);
    for (int64_t i = 0; i < d[0]; i++) {
        ES_GOTO(sn_images_label(labels_name, e, i, lb[i], err));
        out->labels[i] = lb[i];
    }
    out->n = d[0];
    out->h = (int)d[1];
    out->w = (int)d[2];
    out->c = (int)d[3];
fail:
    if (s != ES_OK)
        sn_images_free(out);
    return s;
}
