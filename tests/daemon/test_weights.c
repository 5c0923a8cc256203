/* weights.db: chunks by hash, versions whole or not at all, nothing kept that nobody names. */
#include <sqlite3.h>

#include "base/hash.h"
#include "daemon/store/pagesum.h"
#include "daemon/weights/weights.h"
#include "tests/check_main.h"

enum { MANY = 80 };
static dm_weights *w;
static es_error err;
static int64_t now_ms = 1000;
static char path[1200];

static void open_store(void)
{
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
    ck_assert_ok_err(dm_weights_answer(w, out.data, out.n, now_ms, &reply, &err), &err);
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
    es_hash h;
    es_hash_bytes(text, strlen(text), &h);
    h.b[0] ^= lie;
    p.hash = (ProtobufCBinaryData){.len = ES_HASH_BYTES, .data = h.b};
    p.data = (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)dm_text(text)};
    dm_data_reply *a = ask(&DM_DATA_REQUEST(PUT_CHUNK, put_chunk, &p));
    int what = a->what_case;
    done(a);
    return what;
}

static void manifest_of(const char *kind, const char *const *chunks, int n, uint64_t bytes, dm_bytes *out)
{
    Espalier__Wire__Manifest m = ESPALIER__WIRE__MANIFEST__INIT;
    Espalier__Wire__Array a = ESPALIER__WIRE__ARRAY__INIT, *list[] = {&a};
    ProtobufCBinaryData refs[MANY];
    es_hash h[MANY];
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
    dm_bytes b;
    char *out = id[turn++ % 4];
    manifest_of(kind, chunks, n, bytes, &b);
    p.manifest = (ProtobufCBinaryData){.len = b.n, .data = b.data};
    dm_data_reply *a = ask(&DM_DATA_REQUEST(PUT_MANIFEST, put_manifest, &p));
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
    ProtobufCBinaryData refs[8];
    es_hash h[8];
    for (int i = 0; i < n; i++) {
        es_hash_bytes(chunks[i], strlen(chunks[i]), &h[i]);
        refs[i] = (ProtobufCBinaryData){.len = ES_HASH_BYTES, .data = h[i].b};
    }
    m.n_chunks = (size_t)n;
    m.chunks = refs;
    dm_data_reply *a = ask(&DM_DATA_REQUEST(MISSING, missing, &m));
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
        g.weights = dm_text(id);
        dm_data_request r = DM_DATA_REQUEST(GET_MANIFEST, get_manifest, &g);
        dm_data_reply *a = ask(&r);
        es_hash h;
        char hex[ES_HASH_HEX];
        es_hash_bytes(a->manifest->manifest.data, a->manifest->manifest.len, &h);
        es_hash_hex(&h, hex);
        ck_assert_str_eq(hex, id);
        done(a);
        es_hash_bytes("alpha", 5, &h);
        c.hash = (ProtobufCBinaryData){.len = ES_HASH_BYTES, .data = h.b};
        r = DM_DATA_REQUEST(GET_CHUNK, get_chunk, &c);
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
        ck_assert_ok(dm_weights_drop(w, first, 1, 2000, NULL)); /* too young */
        ck_assert(dm_weights_has(w, first));
        ck_assert_ok(dm_weights_drop(w, first, 5000, 2000, NULL));
        ck_assert_ok(dm_weights_drop(w, "unknown", 5000, 2000, NULL));
        ck_assert_ok(dm_weights_commit(w, NULL));
        ck_assert(!dm_weights_has(w, first));
        ck_assert(dm_weights_has(w, second));
        ck_assert_uint_eq(missing(abc, 3), 0); /* alpha has no version any more, and waits */
        int64_t n;
        ck_assert_ok(dm_weights_collect(w, 2001, &n, NULL));
        ck_assert_int_eq(n, 1);
        ck_assert_uint_eq(missing(abc, 3), 1); /* alpha went; beta is shared */
        ck_assert_ok_err(dm_weights_check(w, NULL, NULL, &err), &err);
        dm_weights_close(&w);
    }
END_TEST

/* What an upload was told is here stays for the grace, although the only version that had it goes meanwhile. */
START_TEST(an_upload_in_flight_keeps_its_chunks)
    {
        open_store();
        put_chunk("alpha", false);
        put_chunk("beta", false);
        const char *old = put_version("supernet", abc, 2, 9);
        now_ms = 5000;
        ck_assert_ok(dm_weights_drop(w, old, 4000, 4500, NULL));
        ck_assert_uint_eq(missing(abc, 2), 0); /* asked at 5000 */
        int64_t n;
        ck_assert_ok(dm_weights_collect(w, 5000, &n, NULL));
        ck_assert_int_eq(n, 0);
        ck_assert_str_ne(put_version("supernet", abc + 1, 1, 4), ""); /* has beta now */
        ck_assert_ok(dm_weights_collect(w, 99999, &n, NULL));
        ck_assert_int_eq(n, 1);
        ck_assert_uint_eq(missing(abc, 2), 1);
        /* A version put again is young again. */
        now_ms = 9000;
        char *again = strdup(put_version("supernet", abc + 1, 1, 4));
        ck_assert_ok(dm_weights_drop(w, again, 9000, 9500, NULL));
        ck_assert(dm_weights_has(w, again));
        ck_assert_ok_err(dm_weights_check(w, NULL, NULL, &err), &err);
        free(again);
        dm_weights_close(&w);
    }
END_TEST

/* Lets go of `gone` step by step; dies before step `die`. Returns the number of steps. */
static int collect_in_steps(const char *gone, int die)
{
    int step = 0;
    int64_t n = 1, left = 1;
#define STEP(call)           \
    do {                     \
        if (step++ == die)   \
            raise(SIGKILL);  \
        if ((call) != ES_OK) \
            _exit(3);        \
    } while (0)
    STEP(dm_weights_begin(w, NULL));
    STEP(dm_weights_drop(w, gone, 5000, 2000, NULL));
    STEP(dm_weights_commit(w, NULL));
    while (n > 0) {
        STEP(dm_weights_begin(w, NULL));
        STEP(dm_weights_collect(w, 5000, &n, NULL));
        STEP(dm_weights_commit(w, NULL));
    }
    while (left > 0)
        STEP(dm_weights_shrink(w, &left, NULL));
#undef STEP
    return step;
}

START_TEST(a_crash_at_any_moment_of_collecting_is_harmless)
    {
        int steps = 100;
        for (int die = 0; die <= steps; die++) {
            dm_weights_size size;
            char texts[MANY][16];
            const char *chunks[MANY];
            open_store();
            for (int i = 0; i < MANY; i++) { /* more than one portion of orphans */
                snprintf(texts[i], sizeof texts[i], "chunk %03d", i);
                chunks[i] = texts[i];
                put_chunk(chunks[i], false);
            }
            char *gone = strdup(put_version("supernet", chunks, MANY, 9 * MANY)),
                 *kept = strdup(put_version("subnet", chunks + 4, 1, 9));
            ck_assert_str_ne(gone, "");
            dm_weights_close(&w);
            pid_t child = fork();
            if (child == 0) {
                if (dm_weights_open(path, &w, NULL) != ES_OK)
                    _exit(4);
                collect_in_steps(gone, die);
                _exit(0);
            }
            int status;
            waitpid(child, &status, 0);
            ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
            ck_assert_ok_err(dm_weights_open(path, &w, &err), &err);
            ck_assert_ok_err(dm_weights_check(w, NULL, NULL, &err), &err);
            ck_assert(dm_weights_has(w, kept));
            steps = collect_in_steps(gone, -1); /* what was left to do is done by the next walk */
            ck_assert_ok_err(dm_weights_check(w, NULL, NULL, &err), &err);
            ck_assert_ok(dm_weights_sizes(w, &size, NULL));
            ck_assert_int_eq(size.versions, 1);
            ck_assert_int_eq(size.orphans, 0);
            ck_assert_int_eq(size.free_pages, 0);
            ck_assert_uint_eq(missing(chunks + 4, 1), 0);
            ck_assert_uint_eq(missing(chunks, 4), 4);
            dm_weights_close(&w);
            free(gone);
            free(kept);
        }
    }
END_TEST

START_TEST(damage_to_chunks_and_manifests_is_found)
    {
        static const char *const harm[] = {"UPDATE chunk SET data = x'00112233' WHERE length(data) = 5",
                                           "UPDATE version SET manifest = x'0a03616263'",
                                           "DELETE FROM version_chunk; DELETE FROM chunk WHERE length(data) = 4"};
        for (int i = 0; i < 3; i++) {
            sqlite3 *db;
            open_store();
            put_chunk("alpha", false);
            put_chunk("beta", false);
            put_version("supernet", abc, 2, 9);
            ck_assert_ok_err(dm_weights_check(w, NULL, NULL, &err), &err);
            ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, dm_pagesum_vfs()), SQLITE_OK);
            ck_assert_int_eq(sqlite3_exec(db, harm[i], NULL, NULL, NULL), SQLITE_OK);
            sqlite3_close(db);
            ck_assert_status(dm_weights_check(w, NULL, NULL, &err), ES_CORRUPT);
            ck_assert_has(err.text, "restore the last backup");
            dm_weights_close(&w);
        }
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
             an_upload_in_flight_keeps_its_chunks, a_crash_at_any_moment_of_collecting_is_harmless,
             damage_to_chunks_and_manifests_is_found, unfinished_uploads_are_collected)
