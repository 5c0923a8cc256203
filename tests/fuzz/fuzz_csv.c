/* CSV: text to images. */
#include "tests/fuzz/images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    sn_expect want = fuzz_images_want(data[0]);
    sn_images im = {0};
    es_error e;
    data++;
    size--;
    fuzz_images_check(sn_csv_parse("fuzz.csv", (const char *)data, size, &want, &im, &e), &want, &im, &e);
    return 0;
}
