/* NPY: two arrays, images and labels; the first two bytes say how long the second is. */
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
    if (size < 2)
        return 0;
    size_t n = (size_t)(data[0] | data[1] << 8);
    data += 2;
    size -= 2;
    if (n > size)
        n = size;
    sn_npy labels, images;
    if (sn_npy_parse("labels.npy", data, n, &labels, &e) == ES_OK &&
        sn_npy_parse("images.npy", data + n, size - n, &images, &e) == ES_OK)
        fuzz_images_check(sn_npy_images("images.npy", &images, "labels.npy", &labels, &want, &im, &e), &want, &im, &e);
    return 0;
}
