/* images.h - what every parser of images promises, for its fuzzer: see supernet/data/formats.h.
 *
 *     fuzz_images_check(sn_csv_parse("fuzz.csv", text, n, &want, &im, &err), &want, &im, &err);
 */
#ifndef ES_TESTS_FUZZ_IMAGES_H
#define ES_TESTS_FUZZ_IMAGES_H

#include "supernet/data/formats.h"

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

#endif
