/* weights.db: chunks by hash, versions whole or not at all, nothing kept that nobody names. */
#include "base/hash.h"
#include "daemon/weights.h"
#include "tests/check_main.h"

static dm_weights *w;
static es_error err;

static void open_store(void)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/weights.db", es_test_dir());
    ck_assert_ok_err(dm_weights_open(path, &w, &err), &err);
}

static dm_data_reply *ask(dm_data_request *r)
{
    dm_bytes out, reply;
    ProtobufCMessage *m;
    if (!r->version)
        r->version = DM_WIRE_VERSION;
    r->request_id = 77;
    ck_assert_ok(dm_encode(&r->base, DM_DATA_MAX, &out, &err));
    ck_assert_ok(dm_weights_begin(w, &err));
    ck_assert_ok_err(dm_weights_answer(w, out.data, out.n, 1000, &reply, &err), &err);
    ck_assert_ok(dm_weights_commit(w, &err));
    ck_assert_ok_err(dm_decode(&espalier__wire__data_reply__descriptor, reply.data, reply.n, &m, &err), &err);
    free(out.data);
    free(reply.data);
    ck_assert_uint_eq(((dm_data_reply *)m)->request_id, 77);
    return (dm_data_reply *)m;
}

static void done(dm_data_reply *r)
{
    ProtobufCMessage *m = (ProtobufCMessage *)r;
    dm_message_free(&m);
}

static int put_chunk(const char *text, bool lie)
{
    Espalier__Wire__PutChunk p = ESPALIER__WIRE__PUT_CHUNK__INIT;
    dm_data_request r = ESPALIER__WIRE__DATA_REQUEST__INIT;
    es_hash h;
    char copy[64];
    snprintf(copy, sizeof copy, "%s", text);
    es_hash_bytes(copy, strlen(copy), &h);
    h.b[0] ^= lie;
    p.hash = (ProtobufCBinaryData){.len = ES_HASH_BYTES, .data = h.b};
    p.data = (ProtobufCBinaryData){.len = strlen(copy), .data = (uint8_t *)copy};
    r.what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_CHUNK;
    r.put_chunk = &p;
    dm_data_reply *a = ask(&r);
    int what = a->what_case;
    done(a);
    return what;
}

static void manifest_of(const char *kind, const char *const *chunks, int n, uint64_t bytes, dm_bytes *out)
{
    Espalier__Wire__Manifest m = ESPALIER__WIRE__MANIFEST__INIT;
    Espalier__Wire__Array a = ESPALIER__WIRE__ARRAY__INIT, *list[] = {&a};
    ProtobufCBinaryData refs[8];
    es_hash h[8];
    char name[] = "values", copy[16];
    snprintf(copy, sizeof copy, "%s", kind);
    for (int i = 0; i < n; i++) {
        es_hash_bytes(chunks[i], strlen(chunks[i]), &h[i]);
        refs[i] = (ProtobufCBinaryData){.len = ES_HASH_BYTES, .data = h[i].b};
    }
    a.name = name;
    a.bytes = bytes;
    a.n_chunks = (size_t)n;
    a.chunks = refs;
    m.kind = copy;
    m.n_arrays = 1;
    m.arrays = list;
    ck_assert_ok(dm_encode(&m.base, DM_DATA_MAX, out, &err));
}

/* The version's id, or "" with the refusal in err. */
static const char *put_version(const char *kind, const char *const *chunks, int n, uint64_t bytes)
{
    static char id[4][80];
    static int turn;
    Espalier__Wire__PutManifest p = ESPALIER__WIRE__PUT_MANIFEST__INIT;
    dm_data_request r = ESPALIER__WIRE__DATA_REQUEST__INIT;
    dm_bytes b;
    char *out = id[turn++ % 4];
    manifest_of(kind, chunks, n, bytes, &b);
    p.manifest = (ProtobufCBinaryData){.len = b.n, .data = b.data};
    r.what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_MANIFEST;
    r.put_manifest = &p;
    dm_data_reply *a = ask(&r);
    if (a->what_case == ESPALIER__WIRE__DATA_REPLY__WHAT_ERROR) {
        es_fail(&err, ES_INVALID, a->error->where, "%s: %s", a->error->code, a->error->text);
        out[0] = 0;
    } else {
        snprintf(out, sizeof id[0], "%s", a->stored->weights);
    }
    done(a);
    free(b.data);
    return out;
}

static size_t missing(const char *const *chunks, int n)
{
    Espalier__Wire__Missing m = ESPALIER__WIRE__MISSING__INIT;
    dm_data_request r = ESPALIER__WIRE__DATA_REQUEST__INIT;
    ProtobufCBinaryData refs[8];
    es_hash h[8];
    for (int i = 0; i < n; i++) {
        es_hash_bytes(chunks[i], strlen(chunks[i]), &h[i]);
        refs[i] = (ProtobufCBinaryData){.len = ES_HASH_BYTES, .data = h[i].b};
    }
    m.n_chunks = (size_t)n;
    m.chunks = refs;
    r.what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_MISSING;
    r.missing = &m;
    dm_data_reply *a = ask(&r);
    size_t count = a->missing->n_chunks;
    done(a);
    return count;
}

enum { STORED = ESPALIER__WIRE__DATA_REPLY__WHAT_STORED, REFUSED = ESPALIER__WIRE__DATA_REPLY__WHAT_ERROR };
static const char *const abc[] = {"alpha", "beta", "gamma"};

START_TEST(versions_come_whole)
    {
        open_store();
        ck_assert_str_eq(put_version("supernet", abc, 2, 9), "");
        ck_assert_has(err.text, "is not in the store: send it first");
        ck_assert_int_eq(put_chunk("alpha", false), STORED);
        ck_assert_int_eq(put_chunk("alpha", false), STORED); /* again */
        ck_assert_int_eq(put_chunk("beta", true), REFUSED);
        ck_assert_uint_eq(missing(abc, 3), 2);
        ck_assert_int_eq(put_chunk("beta", false), STORED);
        ck_assert_str_eq(put_version("supernet", abc, 2, 10), "");
        ck_assert_has(err.text, "its chunks have 9 bytes, the manifest says 10");
        ck_assert_str_eq(put_version("", abc, 2, 9), "");
        ck_assert_has(err.text, "needs a kind");
        const char *id = put_version("supernet", abc, 2, 9);
        ck_assert_uint_eq(strlen(id), 64);
        ck_assert_str_eq(put_version("supernet", abc, 2, 9), id);
        ck_assert(dm_weights_has(w, id));
        ck_assert(!dm_weights_has(w, "00"));
        dm_weights_close(&w);
    }
END_TEST

START_TEST(what_was_put_comes_back)
    {
        open_store();
        put_chunk("alpha", false);
        const char *id = put_version("subnet", abc, 1, 5);
        Espalier__Wire__GetManifest g = ESPALIER__WIRE__GET_MANIFEST__INIT;
        Espalier__Wire__GetChunk c = ESPALIER__WIRE__GET_CHUNK__INIT;
        dm_data_request r = ESPALIER__WIRE__DATA_REQUEST__INIT;
        char copy[80];
        snprintf(copy, sizeof copy, "%s", id);
        g.weights = copy;
        r.what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_MANIFEST;
        r.get_manifest = &g;
        dm_data_reply *a = ask(&r);
        es_hash h;
        char hex[ES_HASH_HEX];
        es_hash_bytes(a->manifest->manifest.data, a->manifest->manifest.len, &h);
        es_hash_hex(&h, hex);
        ck_assert_str_eq(hex, id);
        done(a);
        es_hash_bytes("alpha", 5, &h);
        c.hash = (ProtobufCBinaryData){.len = ES_HASH_BYTES, .data = h.b};
        r = (dm_data_request)ESPALIER__WIRE__DATA_REQUEST__INIT;
        r.what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_CHUNK;
        r.get_chunk = &c;
        a = ask(&r);
        ck_assert_uint_eq(a->chunk->data.len, 5);
        ck_assert_int_eq(memcmp(a->chunk->data.data, "alpha", 5), 0);
        done(a);
        h.b[0] ^= 1;
        a = ask(&r);
        ck_assert_str_eq(a->error->code, "not-found");
        done(a);
        r.version = 9;
        a = ask(&r);
        ck_assert_str_eq(a->error->code, "version");
        done(a);
        dm_weights_close(&w);
    }
END_TEST

START_TEST(a_dropped_version_takes_only_its_own_chunks)
    {
        open_store();
        for (int i = 0; i < 3; i++)
            put_chunk(abc[i], false);
        const char *first = put_version("supernet", abc, 2, 9), *second = put_version("supernet", abc + 1, 2, 9);
        ck_assert_ok(dm_weights_begin(w, NULL));
        ck_assert_ok(dm_weights_drop(w, first, NULL));
        ck_assert_ok(dm_weights_drop(w, "unknown", NULL));
        ck_assert_ok(dm_weights_commit(w, NULL));
        ck_assert(!dm_weights_has(w, first));
        ck_assert(dm_weights_has(w, second));
        ck_assert_uint_eq(missing(abc, 3), 1); /* alpha; beta is shared */
        dm_weights_close(&w);
    }
END_TEST

START_TEST(unfinished_uploads_are_collected)
    {
        open_store();
        put_chunk("alpha", false);
        put_chunk("beta", false);
        ck_assert_str_ne(put_version("supernet", abc, 1, 5), "");
        int64_t n;
        ck_assert_ok(dm_weights_collect(w, 500, &n, NULL)); /* younger than that */
        ck_assert_int_eq(n, 0);
        ck_assert_ok(dm_weights_collect(w, 2000, &n, NULL));
        ck_assert_int_eq(n, 1);
        ck_assert_uint_eq(missing(abc, 2), 1);
        dm_weights_close(&w);
    }
END_TEST

ES_TEST_MAIN("weights", versions_come_whole, what_was_put_comes_back, a_dropped_version_takes_only_its_own_chunks,
             unfinished_uploads_are_collected)
