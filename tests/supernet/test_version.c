#include "supernet/version/version.h"

#include "base/file.h"
#include "tests/check_main.h"

static sn_version *sample(void)
{
    sn_version *v = sn_version_new("supernet");
    es_error err = {0};
    float w[6] = {1, -2, 3.5f, 0, 1e-30f, 6};
    int32_t k[1] = {-7};
    uint8_t b[3] = {0, 128, 255};
    kn_shape matrix = KN_SHAPE(2, 3), three = KN_SHAPE(3), scalar = {.rank = 0, .d = {1, 1, 1, 1, 1}},
             zero = KN_SHAPE(0);
    ck_assert_ok_err(sn_version_add(v, "stem.weight", KN_F32, &matrix, w, &err), &err);
    ck_assert_ok_err(sn_version_add(v, "bytes", KN_U8, &three, b, &err), &err);
    ck_assert_ok_err(sn_version_add(v, "count", KN_I32, &scalar, k, &err), &err);
    ck_assert_ok_err(sn_version_add(v, "a \"quoted\" name", KN_F32, &zero, w, &err), &err);
    sn_version_meta(v, "{\"step\": 400, \"text\": \"\\u00e9\\n\"}");
    return v;
}

START_TEST(arrays_are_sorted_unique_and_copied)
    {
        sn_version *v = sample();
        es_error err = {0};
        kn_shape one = KN_SHAPE(1);
        float x = 1;
        ck_assert_int_eq(v->count, 4);
        for (int i = 1; i < v->count; i++)
            ck_assert_int_lt(strcmp(v->arrays[i - 1].name, v->arrays[i].name), 0);
        const sn_array *a = sn_version_find(v, "stem.weight");
        ck_assert_uint_eq(a->bytes, 24);
        ck_assert_float_eq(((float *)a->data)[2], 3.5f);
        ck_assert_ptr_null(sn_version_find(v, "stem"));
        ck_assert_status(sn_version_add(v, "count", KN_F32, &one, &x, &err), ES_EXISTS);
        ck_assert_status(sn_version_add(v, "", KN_F32, &one, &x, &err), ES_INVALID);
        sn_version_destroy(&v);
        sn_version_destroy(&v);
    }
END_TEST

START_TEST(safetensors_round_trip)
    {
        sn_version *v = sample(), *back = NULL;
        es_error err = {0};
        const char *path = es_test_join(es_test_dir(), "w.safetensors");
        ck_assert_ok_err(sn_version_write_safetensors(v, path, &err), &err);
        ck_assert_ok_err(sn_version_read_safetensors(path, &back, &err), &err);
        ck_assert(sn_version_equal(v, back));
        ((float *)back->arrays[3].data)[5] += 1;
        ck_assert(!sn_version_equal(v, back));
        sn_version_destroy(&v);
        sn_version_destroy(&back);
    }
END_TEST

/* Every cut of a file is refused, and so is every one of these heads. */
START_TEST(safetensors_refuses)
    {
        sn_version *v = sample(), *back = NULL;
        es_error err = {0};
        char *bytes = NULL;
        size_t size = 0;
        ck_assert_ok_err(sn_safetensors_format(v, &bytes, &size, &err), &err);
        ck_assert_uint_eq((size - 24 - 3 - 4) % 8, 0);
        for (size_t n = 0; n < size; n++) {
            ck_assert_status(sn_safetensors_parse("cut", bytes, n, &back, &err), ES_CORRUPT);
            ck_assert_ptr_null(back);
        }
        free(bytes);
        static const struct {
            const char *head, *says;
        } bad[] = {
            {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "8 bytes of data, its shape needs 12"},
            {"{\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", "element type F64"},
            {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,8]}}",
             "size 0 of its shape is out of range"},
            {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,16]}}", "do not lie in the 8 bytes"},
            {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "do not lie in the 8 bytes"},
            {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"U8\",\"shape\":[8],"
             "\"data_offsets\":[0,8]}}",
             "overlap"},
            {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
             "8 bytes of data, its arrays describe 4"},
            {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
             "no list of at most 5 sizes"},
            {"[1,2]", "no JSON object"},
            {"{\"a\":7}", "element type (none)"},
        };
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            char file[512] = {0};
            size_t n = strlen(bad[i].head);
            file[0] = (char)n;
            ck_assert_uint_lt(n, 128);
            memcpy(file + 8, bad[i].head, n);
            es_status s = sn_safetensors_parse("bad", file, 8 + n + 8, &back, &err);
            ck_assert_msg(s != ES_OK, "%s", bad[i].head);
            ck_assert_has(err.text, bad[i].says);
            ck_assert_ptr_null(back);
        }
        sn_version_destroy(&v);
    }
END_TEST

START_TEST(read_by_the_safetensors_package)
    {
        if (system("python3 -c 'import safetensors.numpy' 2>/dev/null") != 0) {
            es_test_skip("Python's safetensors and numpy are not installed");
            return;
        }
        sn_version *v = sample();
        es_error err = {0};
        char command[2048];
        const char *path = es_test_join(es_test_dir(), "w.safetensors");
        ck_assert_ok_err(sn_version_write_safetensors(v, path, &err), &err);
        snprintf(command, sizeof command,
                 "python3 -c \"\n"
                 "from safetensors.numpy import load_file\n"
                 "from safetensors import safe_open\n"
                 "a = load_file('%s')\n"
                 "assert a['stem.weight'].tolist() == [[1, -2, 3.5], [0, float.fromhex('0x1.4484cp-100'), 6]], a\n"
                 "assert a['bytes'].tolist() == [0, 128, 255] and a['count'].tolist() == -7\n"
                 "m = safe_open('%s', 'np').metadata()\n"
                 "assert m['kind'] == 'supernet' and '400' in m['espalier'], m\n\"",
                 path, path);
        ck_assert_int_eq(system(command), 0);
        sn_version_destroy(&v);
    }
END_TEST

ES_TEST_MAIN("version", arrays_are_sorted_unique_and_copied, safetensors_round_trip, safetensors_refuses,
             read_by_the_safetensors_package)
