/* accelerator.h - the device that tests of an accelerator use: what ESPALIER_TEST_DEVICE names, else cuda:0, else the test is skipped and says so.
 *
 *     kn_device *dev = es_test_accelerator("only accelerators count");       // cuda only: the reason why any other named device is passed over
 *     if (!dev)
 *         return;
 *     const char *device = es_test_accelerator_name();                       // for those who open it themselves; NULL: skipped
 *
 * A device that was named and cannot be opened fails the test.
 */
#ifndef ES_TESTS_ACCELERATOR_H
#define ES_TESTS_ACCELERATOR_H

#include "kernels/device/device.h"
#include "tests/check_main.h"

/* not_cuda NULL: whatever is named will do. The caller closes it. */
static inline kn_device *es_test_accelerator(const char *not_cuda)
{
    const char *named = getenv("ESPALIER_TEST_DEVICE");
    kn_device *dev = NULL;
    es_error err = {0};
    es_status s = kn_device_open(named ? named : "cuda:0", &dev, &err);
    if (!named && s != ES_OK) {
        es_test_skip(err.text);
        return NULL;
    }
    ck_assert_ok_err(s, &err);
    if (not_cuda && kn_device_backend(dev) != KN_BACKEND_CUDA) {
        es_test_skip(not_cuda);
        kn_device_close(&dev);
    }
    return dev;
}

static inline const char *es_test_accelerator_name(void)
{
    const char *named = getenv("ESPALIER_TEST_DEVICE");
    kn_device *dev = es_test_accelerator(NULL);
    if (!dev)
        return NULL;
    kn_device_close(&dev);
    return named ? named : "cuda:0";
}

#endif
