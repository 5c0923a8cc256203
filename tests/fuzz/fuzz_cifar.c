/* CIFAR binary: records to images, two files appended to one set. */
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
    es_status s = sn_cifar_parse("one.bin", data, size / 2, &want, &im, &e);
    if (s == ES_OK && sn_cifar_parse("two.bin", data + size / 2, size - size / 2, &want, &im, &e) != ES_OK) {
        sn_images_free(&im);
        return 0;
    }
    fuzz_images_check(s, &want, &im, &e);
    return 0;
}
