/* images.h - what every parser of images promises, for its fuzzer: see supernet/data/formats.h.
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_images(data, size, true, parse); }
 *
 * The first byte is what the space wants; with two parts, the next two (the lower one first) are the length of the first part.
 */
#ifndef ES_TESTS_FUZZ_IMAGES_H
#define ES_TESTS_FUZZ_IMAGES_H

#include "supernet/data/formats.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct fuzz_part {
    const uint8_t *p;
    size_t n;
} fuzz_part;
typedef es_status fuzz_images_parse(fuzz_part a, fuzz_part b, const sn_expect *want, sn_images *im, es_error *e);

/* What the space wants, from one byte: nothing, a shape, a number of classes. */
static inline sn_expect fuzz_images_want(uint8_t how)
{
    sn_expect e = {0, 0, 0, 0};
    if (how & 1)
        e.classes = how & 8 ? 100 : 10;
    if (how & 2)
        e.h = e.w = how & 16 ? 32 : 2;
    if (how & 4)
        e.c = how & 32 ? 3 : 1;
    return e;
}

static inline void fuzz_images_check(es_status s, const sn_expect *want, sn_images *im, const es_error *e)
{
    if (s != ES_OK) {
        ES_ASSERT(e->code == s && e->text[0] && im->n == 0 && !im->u8 && !im->f32 && !im->labels);
        return;
    }
    ES_ASSERT(im->n >= 1 && !im->u8 != !im->f32 && im->h >= 1 && im->w >= 1 && im->c >= 1);
    ES_ASSERT((!want->h || im->h == want->h) && (!want->w || im->w == want->w) && (!want->c || im->c == want->c));
    size_t count = (size_t)im->n * (size_t)im->h * (size_t)im->w * (size_t)im->c;
    volatile float last = im->u8 ? im->u8[count - 1] : im->f32[count - 1]; /* the sanitizer looks */
    (void)last;
    for (int64_t i = 0; i < im->n; i++)
        ES_ASSERT(im->labels[i] >= 0 && (!want->classes || im->labels[i] < want->classes));
    sn_images_free(im);
}

static inline int fuzz_images(const uint8_t *data, size_t size, bool two_parts, fuzz_images_parse *parse)
{
    const size_t head = two_parts ? 3 : 1;
    if (size < head)
        return 0;
    sn_expect want = fuzz_images_want(data[0]);
    sn_images im = {0};
    es_error e;
    size_t n = size - head, first = two_parts ? (size_t)(data[1] | data[2] << 8) : n;
    if (first > n)
        first = n;
    fuzz_part a = {data + head, first}, b = {data + head + first, n - first};
    es_status s = parse(a, b, &want, &im, &e);
    fuzz_images_check(s, &want, &im, &e);
    return 0;
}

#endif
