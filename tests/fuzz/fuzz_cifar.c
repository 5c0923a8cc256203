/* CIFAR binary: records to images, two files appended to one set. */
#include "tests/fuzz/images.h"

static es_status parse(fuzz_part a, fuzz_part b, const sn_expect *want, sn_images *im, es_error *e)
{
    es_status s = sn_cifar_parse("one.bin", a.p, a.n, want, im, e);
    if (s == ES_OK)
        s = sn_cifar_parse("two.bin", b.p, b.n, want, im, e);
    if (s != ES_OK)
        sn_images_free(im); /* a second file that is refused leaves the first one's images */
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_images(data, size, true, parse); }
