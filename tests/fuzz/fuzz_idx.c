/* IDX: the first two bytes say how long the labels are. */
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
    size_t labels = (size_t)(data[0] | data[1] << 8);
    data += 2;
    size -= 2;
    if (labels > size)
        labels = size;
    es_status s = sn_idx_parse("images", data + labels, size - labels, "labels", data, labels, &want, &im, &e);
    fuzz_images_check(s, &want, &im, &e);
    return 0;
}
