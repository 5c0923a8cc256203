#include "daemon/wire/transfer.h"

#include "base/arena.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 8, REPEAT_MS = 5000, TURN_MS = 200, MISSING_BATCH = 8192 };

/* ---- many requests under way at once ---- */

typedef struct transfer transfer;
struct transfer {
    dm_peer *p;
    const dm_transfer_options *o;
    void *ctx;
    void (*fill)(transfer *t, size_t i,
                 dm_data_request *m); /* request number i; what it points to lives until the next fill */
    es_status (*got)(transfer *t, size_t i, const dm_data_reply *r, es_error *err);
    union {
        Espalier__Wire__Missing missing;
        Espalier__Wire__PutChunk put_chunk;
        Espalier__Wire__PutManifest put_manifest;
        Espalier__Wire__GetManifest get_manifest;
        Espalier__Wire__GetChunk get_chunk;
    } body;
};

typedef struct pending {
    bool active;
    size_t index;
    uint64_t id;
    int64_t sent_ms;
} pending;

static es_status transfer_send(transfer *t, pending *slot, int64_t now, es_error *err)
{
    dm_data_request m = ESPALIER__WIRE__DATA_REQUEST__INIT;
    m.request_id = slot->id;
    t->fill(t, slot->index, &m);
    es_status s = dm_peer_data_send(t->p, &m, err);
    /* Not connected: look again next turn. */
    slot->sent_ms = s == ES_BUSY ? now - REPEAT_MS : now;
    return s == ES_BUSY ? ES_OK : s;
}

static es_status transfer_answer(transfer *t, pending *slots, const dm_data_reply *r, size_t *done, es_error *err)
{
    for (int k = 0; k < WINDOW; k++) {
        if (!slots[k].active || slots[k].id != r->request_id)
            continue;
        if (r->what_case == ESPALIER__WIRE__DATA_REPLY__WHAT_ERROR)
            return dm_error_status(r->error, err);
        slots[k].active = false;
        *done += 1;
        return t->got(t, slots[k].index, r, err);
    }
    return ES_OK; /* the second answer to a repeated request */
}

static es_status transfer_run(transfer *t, size_t count, es_error *err)
{
    es_clock *clock = es_clock_system();
    pending slots[WINDOW] = {0};
    size_t next = 0, done = 0;
    int64_t heard = es_clock_mono_ms(clock);
    while (done < count) {
        int64_t now = es_clock_mono_ms(clock);
        if (t->o->stop && t->o->stop(t->o->ctx))
            return es_fail(err, ES_CANCELLED, dm_peer_endpoint(t->p), "the transfer of weights was stopped");
        if (t->o->timeout_ms > 0 && now - heard > t->o->timeout_ms)
            return es_fail(err, ES_TIMEOUT, dm_peer_endpoint(t->p), "no answer about weights within %d s",
                           t->o->timeout_ms / 1000);
        for (int k = 0; k < WINDOW; k++) {
            if (!slots[k].active) {
                if (next == count)
                    continue;
                slots[k] =
                    (pending){.active = true, .index = next++, .id = dm_peer_next_id(t->p), .sent_ms = now - REPEAT_MS};
            }
            if (now - slots[k].sent_ms >= REPEAT_MS)
                ES_RETURN(transfer_send(t, &slots[k], now, err));
        }
        dm_data_reply *r = NULL;
        es_status s = dm_peer_data_recv(t->p, TURN_MS, &r, err);
        if (s == ES_TIMEOUT)
            continue;
        ES_RETURN(s);
        heard = es_clock_mono_ms(clock);
        s = transfer_answer(t, slots, r, &done, err);
        dm_data_reply_free(&r);
        ES_RETURN(s);
    }
    return ES_OK;
}

/* ---- a version as a manifest ---- */

typedef struct cut {
    Espalier__Wire__Manifest manifest;
    Espalier__Wire__Array *arrays;
    es_arena *arena;
    size_t chunks;
    es_hash *hash; /* of every chunk, in order */
    const uint8_t **at;
    size_t *size;
    dm_bytes packed;
} cut;

static int by_name(const void *a, const void *b)
{
    const sn_array *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static void cut_array(cut *c, const sn_array *a, Espalier__Wire__Array *out)
{
    espalier__wire__array__init(out);
    out->name = es_arena_strdup(c->arena, a->name);
    out->dtype = es_arena_strdup(c->arena, kn_dtype_name(a->dtype));
    out->n_shape = (size_t)a->shape.rank;
    out->shape = es_arena_alloc(c->arena, sizeof *out->shape * (out->n_shape + 1));
    for (size_t i = 0; i < out->n_shape; i++)
        out->shape[i] = a->shape.d[i];
    out->bytes = a->bytes;
    out->n_chunks = (a->bytes + SN_CHUNK_BYTES - 1) / SN_CHUNK_BYTES;
    out->chunks = es_arena_alloc(c->arena, sizeof *out->chunks * (out->n_chunks + 1));
    for (size_t i = 0; i < out->n_chunks; i++) {
        size_t from = i * SN_CHUNK_BYTES, left = a->bytes - from, k = c->chunks++;
        c->at[k] = (const uint8_t *)a->data + from;
        c->size[k] = left < SN_CHUNK_BYTES ? left : SN_CHUNK_BYTES;
        es_hash_bytes(c->at[k], c->size[k], &c->hash[k]);
        out->chunks[i] = (ProtobufCBinaryData){ES_HASH_BYTES, c->hash[k].b};
    }
}

static void cut_free(cut *c)
{
    free(c->packed.data);
    free(c->hash);
    free(c->at);
    free(c->size);
    es_arena_destroy(&c->arena);
}

static es_status cut_make(cut *c, const sn_version *v, es_error *err)
{
    *c = (cut){.manifest = ESPALIER__WIRE__MANIFEST__INIT, .arena = es_arena_new(64 << 10)};
    size_t n = (size_t)v->count, chunks = 1;
    for (size_t i = 0; i < n; i++)
        chunks += v->arrays[i].bytes / SN_CHUNK_BYTES + 1;
    c->hash = es_xcalloc(chunks, sizeof *c->hash);
    c->at = es_xcalloc(chunks, sizeof *c->at);
    c->size = es_xcalloc(chunks, sizeof *c->size);
    const sn_array **order = es_arena_alloc(c->arena, sizeof *order * (n + 1));
    for (size_t i = 0; i < n; i++)
        order[i] = &v->arrays[i];
    qsort(order, n, sizeof *order, by_name);
    Espalier__Wire__Array *arrays = es_arena_alloc(c->arena, sizeof *arrays * (n + 1));
    Espalier__Wire__Array **list = es_arena_alloc(c->arena, sizeof *list * (n + 1));
    for (size_t i = 0; i < n; i++) {
        cut_array(c, order[i], &arrays[i]);
        list[i] = &arrays[i];
    }
    c->manifest.kind = es_arena_strdup(c->arena, v->kind);
    c->manifest.meta = es_arena_strdup(c->arena, v->meta ? v->meta : "");
    c->manifest.n_arrays = n;
    c->manifest.arrays = list;
    return dm_encode(&c->manifest.base, DM_DATA_MAX - 1024, &c->packed, err);
}

static void cut_id(const cut *c, char id[ES_HASH_HEX])
{
    es_hash h;
    es_hash_bytes(c->packed.data, c->packed.n, &h);
    es_hash_hex(&h, id);
}

es_status dm_weights_id(const sn_version *v, char id[ES_HASH_HEX], es_error *err)
{
    cut c;
    es_status s = cut_make(&c, v, err);
    if (s == ES_OK)
        cut_id(&c, id);
    cut_free(&c);
    return s;
}

/* ---- sending ---- */

typedef struct putting {
    cut *c;
    size_t *todo, n_todo;       /* chunk numbers the other side lacks */
    ProtobufCBinaryData *asked; /* unique hashes */
    size_t n_asked;
    size_t *asked_chunk; /* asked[i] is the hash of chunk asked_chunk[i] */
} putting;

static _Thread_local const es_hash *sorting; /* qsort has no context */

static int by_hash(const void *a, const void *b)
{
    const size_t *x = a, *y = b;
    return memcmp(sorting[*x].b, sorting[*y].b, ES_HASH_BYTES);
}

static void unique_chunks(putting *u)
{
    cut *c = u->c;
    size_t *order = es_xcalloc(c->chunks + 1, sizeof *order);
    for (size_t i = 0; i < c->chunks; i++)
        order[i] = i;
    sorting = c->hash;
    qsort(order, c->chunks, sizeof *order, by_hash);
    u->asked = es_xcalloc(c->chunks + 1, sizeof *u->asked);
    u->asked_chunk = es_xcalloc(c->chunks + 1, sizeof *u->asked_chunk);
    u->todo = es_xcalloc(c->chunks + 1, sizeof *u->todo);
    for (size_t i = 0; i < c->chunks; i++) {
        if (i && es_hash_equal(&c->hash[order[i]], &c->hash[order[i - 1]]))
            continue;
        u->asked_chunk[u->n_asked] = order[i];
        u->asked[u->n_asked++] = (ProtobufCBinaryData){ES_HASH_BYTES, c->hash[order[i]].b};
    }
    free(order);
}

static void fill_missing(transfer *t, size_t i, dm_data_request *m)
{
    putting *u = t->ctx;
    espalier__wire__missing__init(&t->body.missing);
    size_t from = i * MISSING_BATCH, left = u->n_asked - from;
    t->body.missing.chunks = u->asked + from;
    t->body.missing.n_chunks = left < MISSING_BATCH ? left : MISSING_BATCH;
    m->what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_MISSING;
    m->missing = &t->body.missing;
}

static es_status got_missing(transfer *t, size_t i, const dm_data_reply *r, es_error *err)
{
    putting *u = t->ctx;
    if (r->what_case != ESPALIER__WIRE__DATA_REPLY__WHAT_MISSING)
        return es_fail(err, ES_CORRUPT, dm_peer_endpoint(t->p), "unexpected answer to Missing");
    size_t from = i * MISSING_BATCH, to = from + MISSING_BATCH < u->n_asked ? from + MISSING_BATCH : u->n_asked;
    for (size_t k = 0; k < r->missing->n_chunks; k++) {
        const ProtobufCBinaryData *h = &r->missing->chunks[k];
        for (size_t a = from; a < to && h->len == ES_HASH_BYTES; a++) {
            if (memcmp(u->asked[a].data, h->data, ES_HASH_BYTES) != 0)
                continue;
            if (u->n_todo < u->c->chunks)
                u->todo[u->n_todo++] = u->asked_chunk[a];
            break;
        }
    }
    return ES_OK;
}

static void fill_chunk(transfer *t, size_t i, dm_data_request *m)
{
    putting *u = t->ctx;
    size_t k = u->todo[i];
    espalier__wire__put_chunk__init(&t->body.put_chunk);
    t->body.put_chunk.hash = (ProtobufCBinaryData){ES_HASH_BYTES, u->c->hash[k].b};
    t->body.put_chunk.data.len = u->c->size[k];
    memcpy(&t->body.put_chunk.data.data, &u->c->at[k], sizeof u->c->at[k]); /* only read */
    m->what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_CHUNK;
    m->put_chunk = &t->body.put_chunk;
}

static es_status got_stored(transfer *t, size_t i, const dm_data_reply *r, es_error *err)
{
    (void)i;
    if (r->what_case != ESPALIER__WIRE__DATA_REPLY__WHAT_STORED)
        return es_fail(err, ES_CORRUPT, dm_peer_endpoint(t->p), "unexpected answer to a chunk or manifest");
    return ES_OK;
}

static void fill_manifest(transfer *t, size_t i, dm_data_request *m)
{
    (void)i;
    putting *u = t->ctx;
    espalier__wire__put_manifest__init(&t->body.put_manifest);
    t->body.put_manifest.manifest = (ProtobufCBinaryData){u->c->packed.n, u->c->packed.data};
    m->what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_MANIFEST;
    m->put_manifest = &t->body.put_manifest;
}

es_status dm_weights_put(dm_peer *p, const sn_version *v, const dm_transfer_options *o, char id[ES_HASH_HEX],
                         es_error *err)
{
    es_status s = ES_OK;
    cut c;
    putting u = {.c = &c};
    transfer t = {.p = p, .o = o, .ctx = &u};
    ES_GOTO(cut_make(&c, v, err));
    cut_id(&c, id);
    unique_chunks(&u);
    t.fill = fill_missing;
    t.got = got_missing;
    ES_GOTO(transfer_run(&t, (u.n_asked + MISSING_BATCH - 1) / MISSING_BATCH, err));
    t.fill = fill_chunk;
    t.got = got_stored;
    ES_GOTO(transfer_run(&t, u.n_todo, err));
    t.fill = fill_manifest;
    ES_GOTO(transfer_run(&t, 1, err));
fail:
    free(u.asked);
    free(u.asked_chunk);
    free(u.todo);
    cut_free(&c);
    return s;
}

/* ---- fetching ---- */

typedef struct wanted {
    es_hash hash;
    uint8_t *to;
    size_t n;
} wanted;

typedef struct fetching {
    const char *id;
    Espalier__Wire__Manifest *manifest;
    wanted *chunk;
    size_t n_chunks;
} fetching;

static void fill_get_manifest(transfer *t, size_t i, dm_data_request *m)
{
    (void)i;
    fetching *f = t->ctx;
    espalier__wire__get_manifest__init(&t->body.get_manifest);
    memcpy(&t->body.get_manifest.weights, &f->id, sizeof f->id); /* only read */
    m->what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_MANIFEST;
    m->get_manifest = &t->body.get_manifest;
}

static es_status got_manifest(transfer *t, size_t i, const dm_data_reply *r, es_error *err)
{
    (void)i;
    fetching *f = t->ctx;
    if (r->what_case != ESPALIER__WIRE__DATA_REPLY__WHAT_MANIFEST)
        return es_fail(err, ES_CORRUPT, f->id, "unexpected answer to GetManifest");
    const ProtobufCBinaryData *b = &r->manifest->manifest;
    es_hash h;
    char hex[ES_HASH_HEX];
    es_hash_bytes(b->data, b->len, &h);
    es_hash_hex(&h, hex);
    if (strcmp(hex, f->id) != 0)
        return es_fail(err, ES_CORRUPT, f->id, "the manifest received has another hash (%s)", hex);
    ProtobufCMessage *m = NULL;
    ES_RETURN(dm_decode(&espalier__wire__manifest__descriptor, b->data, b->len, &m, err));
    f->manifest = (Espalier__Wire__Manifest *)m;
    return ES_OK;
}

static void fill_get_chunk(transfer *t, size_t i, dm_data_request *m)
{
    fetching *f = t->ctx;
    espalier__wire__get_chunk__init(&t->body.get_chunk);
    t->body.get_chunk.hash = (ProtobufCBinaryData){ES_HASH_BYTES, f->chunk[i].hash.b};
    m->what_case = ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_CHUNK;
    m->get_chunk = &t->body.get_chunk;
}

static bool chunk_matches(const wanted *w, const void *data, size_t n)
{
    es_hash h;
    if (n != w->n)
        return false;
    es_hash_bytes(data, n, &h);
    return es_hash_equal(&h, &w->hash);
}

static es_status got_chunk(transfer *t, size_t i, const dm_data_reply *r, es_error *err)
{
    fetching *f = t->ctx;
    wanted *w = &f->chunk[i];
    if (r->what_case != ESPALIER__WIRE__DATA_REPLY__WHAT_CHUNK)
        return es_fail(err, ES_CORRUPT, f->id, "unexpected answer to GetChunk");
    const ProtobufCBinaryData *d = &r->chunk->data;
    if (!chunk_matches(w, d->data, d->len))
        return es_fail(err, ES_CORRUPT, f->id, "a chunk of %zu bytes does not have its hash", d->len);
    memcpy(w->to, d->data, d->len);
    if (t->o->cache.put)
        t->o->cache.put(t->o->cache.ctx, &w->hash, d->data, d->len);
    return ES_OK;
}

static es_status array_check(const fetching *f, const Espalier__Wire__Array *a, kn_dtype *dtype, kn_shape *shape,
                             es_error *err)
{
    int d = 0;
    while (d < KN_DTYPE_COUNT && strcmp(kn_dtype_name((kn_dtype)d), a->dtype) != 0)
        d++;
    if (d == KN_DTYPE_COUNT)
        return es_fail(err, ES_CORRUPT, f->id, "array %s has the unknown type %s", a->name, a->dtype);
    *dtype = (kn_dtype)d;
    int32_t dim[KN_RANK_MAX] = {0};
    uint64_t bytes = kn_dtype_bytes(*dtype);
    bool good = a->n_shape <= KN_RANK_MAX;
    for (size_t i = 0; good && i < a->n_shape; i++) {
        good = a->shape[i] >= 0 && a->shape[i] <= INT32_MAX &&
               (a->shape[i] == 0 || bytes <= UINT64_MAX / 2 / (uint64_t)a->shape[i]);
        dim[i] = good ? (int32_t)a->shape[i] : 0;
        bytes *= (uint64_t)dim[i];
    }
    good = good && bytes == a->bytes && a->n_chunks == (a->bytes + SN_CHUNK_BYTES - 1) / SN_CHUNK_BYTES;
    for (size_t i = 0; good && i < a->n_chunks; i++)
        good = a->chunks[i].len == ES_HASH_BYTES;
    if (!good)
        return es_fail(err, ES_CORRUPT, f->id, "array %s: shape, bytes and chunks contradict each other", a->name);
    *shape = kn_shape_make((int)a->n_shape, dim);
    return ES_OK;
}

/* Adds array i to the version and lists its chunks; those in the cache are filled in at once. */
static es_status array_begin(fetching *f, const dm_transfer_options *o, const Espalier__Wire__Array *a, sn_version *v,
                             es_error *err)
{
    kn_dtype dtype = KN_F32;
    kn_shape shape;
    ES_RETURN(array_check(f, a, &dtype, &shape, err));
    void *zero = calloc(1, a->bytes + 1);
    if (!zero)
        return es_fail(err, ES_NO_MEMORY, f->id, "no memory for array %s of %" PRIu64 " bytes", a->name, a->bytes);
    es_status s = sn_version_add(v, a->name, dtype, &shape, zero, err);
    free(zero);
    ES_RETURN(s);
    const sn_array *to = sn_version_find(v, a->name);
    for (size_t i = 0; i < a->n_chunks; i++) {
        size_t from = i * SN_CHUNK_BYTES, left = a->bytes - from;
        wanted w = {.to = (uint8_t *)to->data + from, .n = left < SN_CHUNK_BYTES ? left : SN_CHUNK_BYTES};
        memcpy(w.hash.b, a->chunks[i].data, ES_HASH_BYTES);
        if (o->cache.get && chunk_matches(&w, w.to, o->cache.get(o->cache.ctx, &w.hash, w.to, w.n)))
            continue;
        f->chunk[f->n_chunks++] = w;
    }
    return ES_OK;
}

es_status dm_weights_get(dm_peer *p, const char *id, const dm_transfer_options *o, sn_version **out, es_error *err)
{
    es_status s = ES_OK;
    *out = NULL;
    fetching f = {.id = id};
    transfer t = {.p = p, .o = o, .ctx = &f, .fill = fill_get_manifest, .got = got_manifest};
    sn_version *v = NULL;
    ES_GOTO(transfer_run(&t, 1, err));
    uint64_t bytes = 0, chunks = 0, max = o->bytes_max ? o->bytes_max : (uint64_t)64 << 30;
    for (size_t i = 0; i < f.manifest->n_arrays; i++) {
        bytes = f.manifest->arrays[i]->bytes > max ? max + 1 : bytes + f.manifest->arrays[i]->bytes;
        chunks += f.manifest->arrays[i]->n_chunks;
        if (bytes > max) {
            s = es_fail(err, ES_INVALID, id, "the version holds more than %" PRIu64 " bytes, the limit here", max);
            goto fail;
        }
    }
    if (strlen(f.manifest->kind) >= sizeof v->kind) {
        s = es_fail(err, ES_CORRUPT, id, "a version of the unknown kind %s", f.manifest->kind);
        goto fail;
    }
    v = sn_version_new(f.manifest->kind);
    sn_version_meta(v, f.manifest->meta);
    f.chunk = es_xcalloc(chunks + 1, sizeof *f.chunk);
    for (size_t i = 0; i < f.manifest->n_arrays; i++)
        ES_GOTO(array_begin(&f, o, f.manifest->arrays[i], v, err));
    t.fill = fill_get_chunk;
    t.got = got_chunk;
    ES_GOTO(transfer_run(&t, f.n_chunks, err));
    *out = v;
    v = NULL;
fail:
    sn_version_destroy(&v);
    free(f.chunk);
    if (f.manifest) {
        ProtobufCMessage *m = &f.manifest->base;
        dm_message_free(&m);
    }
    return s;
}
