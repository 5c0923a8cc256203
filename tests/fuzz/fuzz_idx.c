/* IDX: labels, then images. */
#include "tests/fuzz/images.h"

static es_status parse(fuzz_part a, fuzz_part b, const sn_expect *want, sn_images *im, es_error *e)
{
    return sn_idx_parse("images", b.p, b.n, "labels", a.p, a.n, want, im, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_images(data, size, true, parse); }
