/* NPY: two arrays, labels and images. */
#include "tests/fuzz/images.h"

static es_status parse(fuzz_part a, fuzz_part b, const sn_expect *want, sn_images *im, es_error *e)
{
    sn_npy labels, images;
    ES_RETURN(sn_npy_parse("labels.npy", a.p, a.n, &labels, e));
    ES_RETURN(sn_npy_parse("images.npy", b.p, b.n, &images, e));
    return sn_npy_images("images.npy", &images, "labels.npy", &labels, want, im, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_images(data, size, true, parse); }
