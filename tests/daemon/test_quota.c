/* What a worker may store, and what it may hand in as "the same weights, trained on". */
#include "base/hash.h"
#include "daemon/weights/weights.h"
#include "tests/check_main.h"

static const dm_who gpu1 = {.role = DM_ROLE_WORKER, .name = "gpu-1"}, gpu2 = {.role = DM_ROLE_WORKER, .name = "gpu-2"};

static es_status answer(dm_weights *w, const dm_who *who, dm_data_request *m, int64_t now, es_error *e)
{
    dm_bytes out, reply;
    ProtobufCMessage *in = NULL;
    m->version = DM_WIRE_VERSION;
    ck_assert_ok(dm_encode(&m->base, DM_DATA_MAX, &out, e));
    ck_assert_ok_err(dm_weights_begin(w, e), e);
    ck_assert_ok_err(dm_weights_answer_as(w, who, out.data, out.n, now, &reply, e), e);
    ck_assert_ok_err(dm_weights_commit(w, e), e);
    ck_assert_ok(dm_decode(&espalier__wire__data_reply__descriptor, reply.data, reply.n, &in, e));
    const dm_data_reply *r = (const dm_data_reply *)in;
    es_status s = r->what_case == ESPALIER__WIRE__DATA_REPLY__WHAT_ERROR ? dm_error_status(r->error, e) : ES_OK;
    dm_message_free(&in);
    free(out.data);
    free(reply.data);
    return s;
}

static es_status put(dm_weights *w, const dm_who *who, int number, size_t n, int64_t now, es_hash *h, es_error *e)
{
    uint8_t *bytes = calloc(1, n);
    Espalier__Wire__PutChunk c = ESPALIER__WIRE__PUT_CHUNK__INIT;
    memcpy(bytes, &number, sizeof number);
    es_hash_bytes(bytes, n, h);
    c.hash = (ProtobufCBinaryData){ES_HASH_BYTES, h->b};
    c.data = (ProtobufCBinaryData){n, bytes};
    es_status s = answer(w, who, &DM_DATA_REQUEST(PUT_CHUNK, put_chunk, &c), now, e);
    free(bytes);
    return s;
}

static dm_weights *store(void)
{
    dm_weights *w;
    es_error e;
    char path[600];
    snprintf(path, sizeof path, "%s/weights.db", es_test_dir());
    ck_assert_ok_err(dm_weights_open(path, &w, &e), &e);
    return w;
}

START_TEST(a_key_has_its_share_and_gets_it_again)
    {
        dm_weights *w = store();
        es_error e;
        es_hash h;
        dm_weights_set_quota(w, &(dm_quota){.per_key_bytes = 1000000, .per_key_ms = 10000});
        for (int i = 0; i < 4; i++)
            ck_assert_ok_err(put(w, &gpu1, i, 250000, 1000, &h, &e), &e);
        ck_assert_status(put(w, &gpu1, 9, 250000, 1001, &h, &e), ES_BUSY);
        ck_assert_has(e.text, "weights_per_key_bytes");
        ck_assert_ok_err(put(w, &gpu2, 9, 250000, 1001, &h, &e), &e);
        ck_assert_ok_err(put(w, &gpu1, 10, 250000, 3600, &h, &e),
                         &e); /* a quarter of the time, a quarter of the share */
        ck_assert_status(put(w, &gpu1, 11, 250000, 3700, &h, &e), ES_BUSY);
        /* A configuration read again: more at once for who has used it up; less does not give back what was used. */
        dm_weights_set_quota(w, &(dm_quota){.per_key_bytes = 1500000, .per_key_ms = 10000});
        for (int i = 12; i < 14; i++)
            ck_assert_ok_err(put(w, &gpu1, i, 250000, 3700, &h, &e), &e);
        ck_assert_status(put(w, &gpu1, 14, 250000, 3700, &h, &e), ES_BUSY);
        dm_weights_set_quota(w, &(dm_quota){.per_key_bytes = 1000000, .per_key_ms = 1000});
        ck_assert_status(put(w, &gpu1, 15, 250000, 3800, &h, &e), ES_BUSY);
        ck_assert_ok_err(put(w, &gpu1, 15, 250000, 4800, &h, &e), &e); /* and in the new time */
        dm_who local = dm_who_local();
        for (int i = 20; i < 30; i++)
            ck_assert_ok(put(w, &local, i, 250000, 1000, &h, &e));
        dm_weights_close(&w);
    }
END_TEST

START_TEST(the_file_and_the_disk_have_limits)
    {
        dm_weights *w = store();
        es_error e;
        es_hash h;
        dm_who local = dm_who_local();
        es_status s = ES_OK;
        int n = 0;
        dm_weights_set_quota(w, &(dm_quota){.max_bytes = 3000000});
        while (s == ES_OK && n < 100)
            s = put(w, &local, n++, 250000, 1000, &h, &e);
        ck_assert_status(s, ES_DISK_FULL);
        ck_assert_has(e.text, "weights_max_bytes");
        ck_assert_int_ge(n, 8);
        ck_assert_int_le(n, 13);
        dm_weights_set_quota(w, &(dm_quota){.free_bytes = (int64_t)1 << 60});
        ck_assert_status(put(w, &gpu1, 500, 1000, 1000, &h, &e), ES_DISK_FULL);
        ck_assert_has(e.text, "weights_free_bytes");
        ck_assert_ok(put(w, &local, 501, 1000, 1000, &h, &e)); /* the last of the disk is this user's own */
        dm_weights_close(&w);
    }
END_TEST

/* A version of two arrays of zeros. */
static void version(dm_weights *w, int64_t rows, const char *second, char hex[ES_HASH_HEX])
{
    es_error e;
    es_hash h[2], id;
    Espalier__Wire__Manifest man = ESPALIER__WIRE__MANIFEST__INIT;
    Espalier__Wire__Array a = ESPALIER__WIRE__ARRAY__INIT, b = ESPALIER__WIRE__ARRAY__INIT, *list[] = {&a, &b};
    Espalier__Wire__PutManifest p = ESPALIER__WIRE__PUT_MANIFEST__INIT;
    char first[] = "head.weight", f32[] = "f32", kind[] = "supernet", meta[] = "{}", name[32];
    int64_t shape[] = {rows, 4};
    ProtobufCBinaryData chunk[2];
    dm_bytes bytes;
    snprintf(name, sizeof name, "%s", second);
    ck_assert_ok(put(w, &gpu1, 1, (size_t)rows * 16, 1000, &h[0], &e));
    ck_assert_ok(put(w, &gpu1, 2, 16, 1000, &h[1], &e));
    a.name = first;
    b.name = name;
    a.dtype = b.dtype = f32;
    a.n_shape = 2;
    a.shape = shape;
    b.n_shape = 1;
    b.shape = shape + 1;
    a.bytes = (uint64_t)rows * 16;
    b.bytes = 16;
    for (int i = 0; i < 2; i++) {
        chunk[i] = (ProtobufCBinaryData){ES_HASH_BYTES, h[i].b};
        list[i]->n_chunks = 1;
        list[i]->chunks = &chunk[i];
    }
    man.kind = kind;
    man.meta = meta;
    man.n_arrays = 2;
    man.arrays = list;
    ck_assert_ok(dm_encode(&man.base, DM_DATA_MAX, &bytes, &e));
    es_hash_bytes(bytes.data, bytes.n, &id);
    es_hash_hex(&id, hex);
    p.manifest = (ProtobufCBinaryData){bytes.n, bytes.data};
    ck_assert_ok_err(answer(w, &gpu1, &DM_DATA_REQUEST(PUT_MANIFEST, put_manifest, &p), 1000, &e), &e);
    free(bytes.data);
}

START_TEST(weights_of_another_shape_are_no_continuation)
    {
        dm_weights *w = store();
        es_error e;
        char good[ES_HASH_HEX], wider[ES_HASH_HEX], other[ES_HASH_HEX];
        version(w, 8, "stem.weight", good);
        version(w, 16, "stem.weight", wider);
        version(w, 8, "trunk.weight", other);
        ck_assert_ok_err(dm_weights_alike(w, good, good, &e), &e);
        ck_assert_status(dm_weights_alike(w, wider, good, &e), ES_CORRUPT);
        ck_assert_has(e.text, "array head.weight has another type or shape");
        ck_assert_status(dm_weights_alike(w, other, good, &e), ES_CORRUPT);
        ck_assert_has(e.text, "has no array stem.weight");
        good[0] = good[0] == '0' ? '1' : '0';
        ck_assert_status(dm_weights_alike(w, good, wider, &e), ES_NOT_FOUND);
        dm_weights_close(&w);
    }
END_TEST

ES_TEST_MAIN("quota", a_key_has_its_share_and_gets_it_again, the_file_and_the_disk_have_limits,
             weights_of_another_shape_are_no_continuation)
