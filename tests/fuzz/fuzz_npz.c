/* NPZ: a ZIP archive of NPY arrays. */
#include "tests/fuzz/images.h"

static es_status parse(fuzz_part a, fuzz_part b, const sn_expect *want, sn_images *im, es_error *e)
{
    (void)b;
    return sn_npz_parse("fuzz.npz", a.p, a.n, true, want, im, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_images(data, size, false, parse); }
