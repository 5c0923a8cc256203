#include "daemon/weights/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"

enum { CHUNK_MAX = 1 << 20, MISSING_MAX = 60000 };

extern const char *const dm_weights_sql[];

es_status dm_weights_open(const char *path, dm_weights **out, es_error *err)
{
    dm_weights *w = *out = es_xcalloc(1, sizeof *w);
    dm_db_options o = {.path = path,
                       .schema = "weights",
                       .migrations = dm_weights_sql,
                       .busy_ms = 10000,
                       .cache_kib = 8 << 10,
                       .shrinks = true};
    es_status s = dm_db_open(&o, &w->db, err);
    if (s != ES_OK)
        dm_weights_close(out);
    return s;
}

void dm_weights_close(dm_weights **w)
{
    if (!*w)
        return;
    dm_db_close(&(*w)->db);
    dm_quota_free(*w);
    free(*w);
    *w = NULL;
}

es_status dm_weights_begin(dm_weights *w, es_error *err) { return dm_db_begin(w->db, err); }
es_status dm_weights_commit(dm_weights *w, es_error *err) { return dm_db_commit(w->db, err); }
void dm_weights_rollback(dm_weights *w) { dm_db_rollback(w->db); }
dm_db *dm_weights_db(dm_weights *w) { return w->db; }

bool dm_weights_has(dm_weights *w, const char *hex)
{
    int64_t one;
    return dm_db_get_i64(w->db, &one, "SELECT 1 FROM version WHERE id = ?", NULL, "s", hex) == ES_OK;
}

/* ---- requests; each fills in `reply`, or `why` for what is wrong with the request */

typedef struct answer {
    dm_weights *w;
    int64_t now_ms;
    dm_data_reply reply;
    Espalier__Wire__Missing missing;
    Espalier__Wire__Stored stored;
    Espalier__Wire__ManifestBytes manifest;
    Espalier__Wire__PutChunk chunk;
    Espalier__Wire__Error error;
    es_error why;
    char hex[ES_HASH_HEX];
    dm_stmt *open; /* whose row the reply borrows */
    void *owned;
} answer;

static es_status do_missing(answer *a, const Espalier__Wire__Missing *m, es_error *err)
{
    if (m->n_chunks > MISSING_MAX) {
        es_fail(&a->why, ES_INVALID, "missing", "asks for %zu chunks, at most %d at once", m->n_chunks, MISSING_MAX);
        return ES_OK;
    }
    ProtobufCBinaryData *list = a->owned = es_xcalloc(m->n_chunks + 1, sizeof *list);
    for (size_t i = 0; i < m->n_chunks; i++) {
        int64_t one;
        es_status s = dm_db_get_i64(a->w->db, &one, "SELECT 1 FROM chunk WHERE hash = ?", err, "b", m->chunks[i].data,
                                    m->chunks[i].len);
        if (s == ES_NOT_FOUND)
            list[a->missing.n_chunks++] = m->chunks[i];
        else if (s == ES_OK) /* an upload counts on it: it stays for now, even if no version has it */
            s = dm_db_run(a->w->db, "UPDATE orphan SET since_ms = ? WHERE chunk = ? AND since_ms < ?", err, "ibi",
                          a->now_ms, m->chunks[i].data, m->chunks[i].len, a->now_ms);
        if (s != ES_OK && s != ES_NOT_FOUND)
            return s;
    }
    a->missing.chunks = list;
    a->reply.what_case = ESPALIER__WIRE__DATA_REPLY__WHAT_MISSING;
    a->reply.missing = &a->missing;
    return ES_OK;
}

static es_status do_put_chunk(answer *a, const Espalier__Wire__PutChunk *m, es_error *err)
{
    es_hash h;
    if (m->data.len < 1 || m->data.len > CHUNK_MAX || m->hash.len != ES_HASH_BYTES) {
        es_fail(&a->why, ES_INVALID, "put_chunk", "has %zu bytes under a hash of %zu: 1 to %d under %d are allowed",
                m->data.len, m->hash.len, CHUNK_MAX, ES_HASH_BYTES);
        return ES_OK;
    }
    es_hash_bytes(m->data.data, m->data.len, &h);
    es_hash_hex(&h, a->hex);
    if (memcmp(h.b, m->hash.data, ES_HASH_BYTES) != 0) {
        es_fail(&a->why, ES_CORRUPT, "put_chunk", "the bytes hash to %.16s..., not to the hash they came with", a->hex);
        return ES_OK;
    }
    ES_RETURN(dm_db_run(a->w->db, "INSERT OR IGNORE INTO chunk (hash, added_ms, data) VALUES (?, ?, ?)", err, "bib",
                        m->hash.data, m->hash.len, a->now_ms, m->data.data, m->data.len));
    if (dm_db_changes(a->w->db) == 1) /* until a version has it */
        ES_RETURN(dm_db_run(a->w->db, "INSERT INTO orphan (chunk, since_ms) VALUES (?, ?)", err, "bi", m->hash.data,
                            m->hash.len, a->now_ms));
    else
        ES_RETURN(dm_db_run(a->w->db, "UPDATE orphan SET since_ms = ? WHERE chunk = ?", err, "ib", a->now_ms,
                            m->hash.data, m->hash.len));
    a->stored.weights = a->hex;
    a->reply.what_case = ESPALIER__WIRE__DATA_REPLY__WHAT_STORED;
    a->reply.stored = &a->stored;
    return ES_OK;
}

/* All chunks here, lengths as claimed. Wrong: a->why. */
static es_status manifest_check(answer *a, const Espalier__Wire__Manifest *m, int64_t *total, es_error *err)
{
    *total = 0;
    for (size_t i = 0; i < m->n_arrays; i++) {
        const Espalier__Wire__Array *x = m->arrays[i];
        uint64_t sum = 0;
        for (size_t k = 0; k < x->n_chunks; k++) {
            int64_t length;
            es_status s = dm_db_get_i64(a->w->db, &length, "SELECT length(data) FROM chunk WHERE hash = ?", err, "b",
                                        x->chunks[k].data, x->chunks[k].len);
            if (s == ES_NOT_FOUND) {
                /* Not NOT_FOUND, which would be the job's end: an upload slower than the grace of orphans is tried again. */
                es_fail(&a->why, ES_IO, x->name, "chunk %zu of %zu is not in the store: send it first", k, x->n_chunks);
                return ES_OK;
            }
            ES_RETURN(s);
            sum += (uint64_t)length;
        }
        if (sum != x->bytes) {
            es_fail(&a->why, ES_CORRUPT, x->name, "its chunks have %llu bytes, the manifest says %llu",
                    (unsigned long long)sum, (unsigned long long)x->bytes);
            return ES_OK;
        }
        *total += (int64_t)sum;
    }
    return ES_OK;
}

static es_status manifest_store(answer *a, const Espalier__Wire__Manifest *man, const ProtobufCBinaryData *bytes,
                                int64_t total, es_error *err)
{
    ES_RETURN(dm_db_run(
        a->w->db, "INSERT INTO version (id, kind, bytes, created_ms, touched_ms, manifest) VALUES (?, ?, ?, ?, ?, ?)",
        err, "ssiiib", a->hex, man->kind, total, a->now_ms, a->now_ms, bytes->data, bytes->len));
    for (size_t i = 0; i < man->n_arrays; i++)
        for (size_t k = 0; k < man->arrays[i]->n_chunks; k++) {
            const ProtobufCBinaryData *c = &man->arrays[i]->chunks[k];
            ES_RETURN(dm_db_run(a->w->db, "INSERT OR IGNORE INTO version_chunk (chunk, version) VALUES (?, ?)", err,
                                "bs", c->data, c->len, a->hex));
            ES_RETURN(dm_db_run(a->w->db, "DELETE FROM orphan WHERE chunk = ?", err, "b", c->data, c->len));
        }
    return ES_OK;
}

static es_status do_put_manifest(answer *a, const Espalier__Wire__PutManifest *m, es_error *err)
{
    ProtobufCMessage *base = NULL;
    es_hash h;
    int64_t total;
    if (dm_decode(&espalier__wire__manifest__descriptor, m->manifest.data, m->manifest.len, &base, &a->why) != ES_OK)
        return ES_OK;
    a->why.code = ES_OK;
    const Espalier__Wire__Manifest *man = (const Espalier__Wire__Manifest *)base;
    if (!man->kind[0])
        es_fail(&a->why, ES_INVALID, "put_manifest", "a version needs a kind");
    es_hash_bytes(m->manifest.data, m->manifest.len, &h);
    es_hash_hex(&h, a->hex);
    es_status s = ES_OK;
    if (a->why.code == ES_OK &&
        dm_weights_has(a->w, a->hex)) { /* again, or of another search: from here on it is as young as a new one */
        s = dm_db_run(a->w->db, "UPDATE version SET touched_ms = ? WHERE id = ?", err, "is", a->now_ms, a->hex);
    } else if (a->why.code == ES_OK) {
        s = manifest_check(a, man, &total, err);
        if (s == ES_OK && a->why.code == ES_OK)
            s = manifest_store(a, man, &m->manifest, total, err);
    }
    dm_message_free(&base);
    a->stored.weights = a->hex;
    a->reply.what_case = ESPALIER__WIRE__DATA_REPLY__WHAT_STORED;
    a->reply.stored = &a->stored;
    return s;
}

static es_status do_get_manifest(answer *a, const Espalier__Wire__GetManifest *m, es_error *err)
{
    size_t n;
    ES_RETURN(dm_db_query(a->w->db, &a->open, "SELECT manifest FROM version WHERE id = ?", err, "s", m->weights));
    es_status s = dm_stmt_row(a->open, err);
    if (s == ES_NOT_FOUND) {
        es_fail(&a->why, ES_NOT_FOUND, m->weights, "there is no such weights version");
        return ES_OK;
    }
    ES_RETURN(s);
    a->manifest.manifest.data = (uint8_t *)(uintptr_t)dm_stmt_blob(a->open, 0, &n);
    a->manifest.manifest.len = n;
    a->reply.what_case = ESPALIER__WIRE__DATA_REPLY__WHAT_MANIFEST;
    a->reply.manifest = &a->manifest;
    return ES_OK;
}

static es_status do_get_chunk(answer *a, const Espalier__Wire__GetChunk *m, es_error *err)
{
    size_t n;
    ES_RETURN(
        dm_db_query(a->w->db, &a->open, "SELECT data FROM chunk WHERE hash = ?", err, "b", m->hash.data, m->hash.len));
    es_status s = dm_stmt_row(a->open, err);
    if (s == ES_NOT_FOUND) {
        es_fail(&a->why, ES_NOT_FOUND, "get_chunk", "there is no such chunk");
        return ES_OK;
    }
    ES_RETURN(s);
    a->chunk.hash = m->hash;
    a->chunk.data.data = (uint8_t *)(uintptr_t)dm_stmt_blob(a->open, 0, &n);
    a->chunk.data.len = n;
    a->reply.what_case = ESPALIER__WIRE__DATA_REPLY__WHAT_CHUNK;
    a->reply.chunk = &a->chunk;
    return ES_OK;
}

static es_status answer_dispatch(answer *a, const dm_data_request *r, es_error *err)
{
    if (r->version != DM_WIRE_VERSION) {
        es_fail(&a->why, ES_VERSION, NULL,
                "this peer speaks protocol %u, the coordinator protocol %d: use programs of the same release",
                r->version, DM_WIRE_VERSION);
        return ES_OK;
    }
    switch (r->what_case) {
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_MISSING: return do_missing(a, r->missing, err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_CHUNK: return do_put_chunk(a, r->put_chunk, err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_MANIFEST: return do_put_manifest(a, r->put_manifest, err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_MANIFEST: return do_get_manifest(a, r->get_manifest, err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_CHUNK: return do_get_chunk(a, r->get_chunk, err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT__NOT_SET:
    case _ESPALIER__WIRE__DATA_REQUEST__WHAT__CASE_IS_INT_SIZE: break;
    }
    es_fail(&a->why, ES_UNSUPPORTED, NULL, "this coordinator does not know that request");
    return ES_OK;
}

static es_status answer_encode(answer *a, uint64_t request_id, dm_bytes *reply, es_error *err)
{
    if (a->why.code != ES_OK) {
        a->error.code = dm_text(es_status_name(a->why.code));
        a->error.where = a->why.where;
        a->error.text = a->why.text;
        a->reply.what_case = ESPALIER__WIRE__DATA_REPLY__WHAT_ERROR;
        a->reply.error = &a->error;
    }
    a->reply.version = DM_WIRE_VERSION;
    a->reply.request_id = request_id;
    return dm_encode(&a->reply.base, DM_DATA_MAX, reply, err);
}

static void answer_init(answer *a, dm_weights *w, int64_t now_ms)
{
    *a = (answer){.w = w, .now_ms = now_ms};
    espalier__wire__data_reply__init(&a->reply);
    espalier__wire__missing__init(&a->missing);
    espalier__wire__stored__init(&a->stored);
    espalier__wire__manifest_bytes__init(&a->manifest);
    espalier__wire__put_chunk__init(&a->chunk);
    espalier__wire__error__init(&a->error);
}

es_status dm_weights_answer_as(dm_weights *w, const dm_who *who, const void *bytes, size_t n, int64_t now_ms,
                               dm_bytes *reply, es_error *err)
{
    answer a;
    ProtobufCMessage *base = NULL;
    uint64_t id = 0;
    es_status s = ES_OK;
    answer_init(&a, w, now_ms);
    if (dm_decode(&espalier__wire__data_request__descriptor, bytes, n, &base, &a.why) == ES_OK) {
        const dm_data_request *m = (const dm_data_request *)base;
        a.why.code = ES_OK;
        id = m->request_id;
        size_t stores = m->what_case == ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_CHUNK ? m->put_chunk->data.len
                        : m->what_case == ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_MANIFEST
                            ? m->put_manifest->manifest.len
                            : 0;
        if (dm_role_may_data(who, m, &a.why) == ES_OK) {
            a.why.code = ES_OK;
            if (stores)
                s = dm_quota_take(w, who, stores, now_ms, &a.why, err);
            if (s == ES_OK && a.why.code == ES_OK)
                s = answer_dispatch(&a, m, err);
        }
    }
    if (s == ES_OK)
        s = answer_encode(&a, id, reply, err);
    dm_stmt_end(a.open);
    free(a.owned);
    dm_message_free(&base);
    return s;
}

es_status dm_weights_answer(dm_weights *w, const void *bytes, size_t n, int64_t now_ms, dm_bytes *reply, es_error *err)
{
    dm_who local = dm_who_local();
    return dm_weights_answer_as(w, &local, bytes, n, now_ms, reply, err);
}

es_status dm_weights_refusal(const void *bytes, size_t n, const es_error *why, dm_bytes *reply, es_error *err)
{
    answer a;
    ProtobufCMessage *base = NULL;
    answer_init(&a, NULL, 0);
    uint64_t id = 0;
    if (dm_decode(&espalier__wire__data_request__descriptor, bytes, n, &base, NULL) == ES_OK)
        id = ((const dm_data_request *)base)->request_id;
    dm_message_free(&base);
    a.why = *why;
    return answer_encode(&a, id, reply, err);
}
