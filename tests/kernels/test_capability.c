/* What a GPU can run of a build (kernels/device/capability.h): every kind of card that is in use, builds that have no kernels for one, and the pretended capability that the tests of
 * fallbacks use. No GPU is needed but for the last test, which opens one as what it is not. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include "kernels/device/capability.h"

static const char *refusal(const kn_gpu_facts *f, const char *pretend, es_status expected)
{
    static char text[sizeof((es_error *)0)->text];
    kn_capability can;
    es_error err = {0};
    ck_assert_int_eq(kn_capability_decide(f, pretend, &can, &err), expected);
    return memcpy(text, err.text, sizeof text);
}

static kn_capability decide(const kn_gpu_facts *f, const char *pretend)
{
    kn_capability can;
    es_error err = {0};
    ck_assert_ok_err(kn_capability_decide(f, pretend, &can, &err), &err);
    return can;
}

START_TEST(cards_in_use)
    {
        /* The build without a list, on a machine without a GPU: PTX of 8.0 and code for 9.0a. And one of its own list each. */
        const struct {
            kn_gpu_facts f;
            bool early, hopper;
        } all[] = {
            {{"A100", 8, 0, 166912, 800, false, ""}, false, false},
            {{"RTX 3090", 8, 6, 101376, 860, false, ""}, false, false},
            {{"Orin", 8, 7, 166912, 860, false, ""}, false, false},
            {{"L4", 8, 9, 101376, 800, false, ""}, false, false},
            {{"RTX 4090", 8, 9, 101376, 890, false, ""}, false, false},
            {{"H200", 9, 0, 232448, 900, true, ""}, true, true},
            {{"H200, PTX of 9.0", 9, 0, 232448, 900, false, ""}, true, false},
            {{"H200, PTX of 8.0", 9, 0, 232448, 800, false, ""}, false, false},
            {{"B200", 10, 0, 232448, 900, false, ""}, true, false},
            {{"RTX 5090", 12, 0, 101376, 1200, false, ""}, true, false},
            {{"RTX 5090, PTX of 8.0", 12, 0, 101376, 800, false, ""}, false, false},
        };
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
            const kn_capability can = decide(&all[i].f, NULL);
            ck_assert_msg(can.early == all[i].early, "%s: early %d", all[i].f.name, can.early);
            ck_assert_msg(can.hopper == all[i].hopper, "%s: hopper %d", all[i].f.name, can.hopper);
            ck_assert_uint_eq(can.shared_bytes, all[i].f.shared_bytes);
        }
    }
END_TEST

START_TEST(refused_with_what_is_needed)
    {
        const kn_gpu_facts old = {"cuda:1 (Tesla T4)", 7, 5, 65536, 0, false, "80-virtual;90a"};
        const char *text = refusal(&old, NULL, ES_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(text, "cuda:1 (Tesla T4)"));
        ck_assert_ptr_nonnull(strstr(text, "7.5"));
        ck_assert_ptr_nonnull(strstr(text, "8.0"));

        const kn_gpu_facts other = {"cuda:0 (NVIDIA GeForce RTX 3090)", 8, 6, 101376, 0, false, "90a"};
        text = refusal(&other, NULL, ES_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(text, "RTX 3090"));
        ck_assert_ptr_nonnull(strstr(text, "\"90a\""));
        ck_assert_ptr_nonnull(strstr(text, "-DESPALIER_CUDA_ARCHITECTURES=86"));

        const kn_gpu_facts small = {"cuda:0 (some card)", 8, 9, 65536, 890, false, "89"};
        ck_assert_ptr_nonnull(strstr(refusal(&small, NULL, ES_UNSUPPORTED), "65536"));
    }
END_TEST

START_TEST(a_pretended_capability_is_below_the_true_one)
    {
        const kn_gpu_facts h200 = {"cuda:0 (NVIDIA H200)", 9, 0, 232448, 900, true, "90a"};
        ck_assert(decide(&h200, "").hopper);
        const kn_capability can = decide(&h200, "8.0");
        ck_assert_int_eq(can.number, 80);
        ck_assert(!can.hopper && !can.early);
        ck_assert_uint_eq(can.shared_bytes, KN_SHARED_LEAST);
        ck_assert(!decide(&h200, "9.0").hopper); /* its shared memory is the least of any */
        ck_assert_ptr_nonnull(strstr(refusal(&h200, "7.5", ES_UNSUPPORTED), "7.5"));
        ck_assert_ptr_nonnull(strstr(refusal(&h200, "10.0", ES_INVALID), "above"));
        const char *nonsense[] = {"8", "8.", "8.0a", "eight", "-8.0", "8.-1", " ", "8.00", "999.0"};
        for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++)
            ck_assert_msg(strstr(refusal(&h200, nonsense[i], ES_INVALID), "no compute capability"), "%s", nonsense[i]);
    }
END_TEST

START_TEST(a_gpu_as_what_it_is_not)
    {
        es_error err = {0};
        char name[64];
        kn_device *dev = es_test_accelerator("only a GPU has a compute capability");
        if (!dev)
            return;
        snprintf(name, sizeof name, "%s", kn_device_name(dev));
        kn_device_close(&dev);
        ck_assert_ok_err(kn_device_gpu_fit(0, &err), &err);
        setenv("ESPALIER_TEST_CAPABILITY", "7.5", 1);
        ck_assert_int_eq(kn_device_gpu_fit(0, &err), ES_UNSUPPORTED);
        ck_assert_int_eq(kn_device_open(name, &dev, &err), ES_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(err.text, "compute capability 7.5"));
        setenv("ESPALIER_TEST_CAPABILITY", "99.0", 1);
        ck_assert_int_eq(kn_device_open(name, &dev, &err), ES_INVALID);
        setenv("ESPALIER_TEST_CAPABILITY", "8.0", 1);
        ck_assert_ok_err(kn_device_open(name, &dev, &err), &err);
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("capability", cards_in_use, refused_with_what_is_needed, a_pretended_capability_is_below_the_true_one,
             a_gpu_as_what_it_is_not)
