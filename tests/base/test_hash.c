#include "base/hash.h"

#include "tests/check_main.h"

START_TEST(known_answers)
    {
        /* b2sum -l 256 and -l 128 of "abc" */
        es_hash h;
        es_id id;
        char hex[ES_HASH_HEX], idhex[ES_ID_HEX];
        es_hash_bytes("abc", 3, &h);
        es_hash_hex(&h, hex);
        ck_assert_str_eq(hex, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
        es_id_bytes("abc", 3, &id);
        es_id_hex(&id, idhex);
        ck_assert_str_eq(idhex, "cf4ab791c62b8d2b2109c90275287816");
    }
END_TEST

START_TEST(parse_is_the_inverse)
    {
        es_hash h, back;
        es_error e;
        char hex[ES_HASH_HEX];
        es_hash_bytes("x", 1, &h);
        es_hash_hex(&h, hex);
        ck_assert_ok(es_hash_parse(hex, &back, &e));
        ck_assert(es_hash_equal(&h, &back));
        hex[10] = 'g';
        ck_assert_status(es_hash_parse(hex, &back, &e), ES_INVALID);
        ck_assert_has(e.text, "64 hexadecimal digits expected");
        ck_assert_status(es_hash_parse("ab", &back, NULL), ES_INVALID);
        ck_assert_status(es_hash_parse("", &back, NULL), ES_INVALID);
        ck_assert(es_hash_equal(&h, &back)); /* untouched by failures */
    }
END_TEST

START_TEST(pieces_equal_the_whole)
    {
        unsigned char data[5000];
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (unsigned char)(i * 31);
        es_hash whole, pieces;
        es_hash_bytes(data, sizeof data, &whole);
        es_hasher *h = es_hasher_new();
        for (size_t at = 0, n = 1; at < sizeof data; at += n, n = n * 3 % 700 + 1)
            es_hasher_add(h, data + at, at + n > sizeof data ? sizeof data - at : n);
        es_hasher_end(&h, &pieces);
        ck_assert_ptr_null(h);
        ck_assert(es_hash_equal(&whole, &pieces));
        data[4999] ^= 1;
        es_hash_bytes(data, sizeof data, &pieces);
        ck_assert(!es_hash_equal(&whole, &pieces));
        es_id a, b;
        es_id_bytes("a", 1, &a);
        es_id_bytes("b", 1, &b);
        ck_assert(es_id_equal(&a, &a));
        ck_assert(!es_id_equal(&a, &b));
    }
END_TEST

ES_TEST_MAIN("base/hash", known_answers, parse_is_the_inverse, pieces_equal_the_whole)
