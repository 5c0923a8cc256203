#include "base/file.h"
#include "tests/check_main.h"
#include "worker/cache.h"

enum { CHUNK = 100 << 10 };

static es_hash put(const dm_chunk_cache *c, uint8_t *data, int number)
{
    es_hash h;
    memset(data, number, CHUNK);
    es_hash_bytes(data, CHUNK, &h);
    c->put(c->ctx, &h, data, CHUNK);
    return h;
}

START_TEST(keeps_and_gives_back)
    {
        const char *dir = es_test_dir();
        uint8_t *data = malloc(CHUNK), *got = malloc(CHUNK);
        wk_cache *c = NULL;
        es_error err;
        ck_assert_ok_err(wk_cache_open(es_test_join(dir, "a/b"), 10 << 20, &c, &err), &err);
        dm_chunk_cache k = wk_cache_chunks(c);
        es_hash h = put(&k, data, 7), other = h;
        other.b[0] ^= 1;
        ck_assert_uint_eq(k.get(k.ctx, &h, got, CHUNK), CHUNK);
        ck_assert_mem_eq(got, data, CHUNK);
        ck_assert_uint_eq(k.get(k.ctx, &other, got, CHUNK), 0);
        ck_assert_uint_eq(k.get(k.ctx, &h, got, 10), 10); /* never more than asked for */
        wk_cache_close(&c);
        ck_assert_ok(wk_cache_open(es_test_join(dir, "a/b"), 10 << 20, &c, &err)); /* still there */
        ck_assert_uint_eq(wk_cache_bytes(c), CHUNK);
        wk_cache_close(&c);
        free(data);
        free(got);
    }
END_TEST

START_TEST(stays_within_its_bytes)
    {
        uint8_t *data = malloc(CHUNK), *got = malloc(CHUNK);
        wk_cache *c = NULL;
        es_error err;
        ck_assert_ok_err(wk_cache_open(es_test_dir(), 1 << 20, &c, &err), &err);
        dm_chunk_cache k = wk_cache_chunks(c);
        es_hash last = put(&k, data, 0);
        for (int i = 1; i < 40; i++) {
            last = put(&k, data, i);
            ck_assert_uint_le(wk_cache_bytes(c), 1 << 20);
        }
        ck_assert_uint_eq(k.get(k.ctx, &last, got, CHUNK), CHUNK);
        int kept = 0;
        for (int i = 0; i < 40; i++) {
            es_hash h;
            memset(data, i, CHUNK);
            es_hash_bytes(data, CHUNK, &h);
            kept += k.get(k.ctx, &h, got, CHUNK) > 0;
        }
        ck_assert_int_ge(kept, 5);
        ck_assert_int_le(kept, 10);
        wk_cache_close(&c);
        free(data);
        free(got);
    }
END_TEST

START_TEST(bad_directory)
    {
        wk_cache *c = NULL;
        es_error err;
        const char *file = es_test_join(es_test_dir(), "file");
        ck_assert_ok(es_file_write(file, "", 0, NULL));
        ck_assert_int_ne(wk_cache_open(es_test_join(file, "cache"), 1 << 20, &c, &err), ES_OK);
        ck_assert_ptr_null(c);
        ck_assert_has(err.where, "file");
    }
END_TEST

ES_TEST_MAIN("cache", keeps_and_gives_back, stays_within_its_bytes, bad_directory)
