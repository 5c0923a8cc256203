#include "daemon/wire/codec.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

es_status dm_encode(const ProtobufCMessage *m, size_t max, dm_bytes *out, es_error *err)
{
    *out = (dm_bytes){0};
    size_t n = protobuf_c_message_get_packed_size(m);
    if (n > max)
        return es_fail(err, ES_INVALID, m->descriptor->short_name, "message of %zu bytes, allowed are at most %zu", n,
                       max);
    uint8_t *data = malloc(n + 1);
    if (!data)
        return es_fail(err, ES_NO_MEMORY, m->descriptor->short_name, "no memory for a message of %zu bytes", n);
    protobuf_c_message_pack(m, data);
    *out = (dm_bytes){data, n};
    return ES_OK;
}

/* Decoding allocates from a chain of blocks that lies in front of the message itself, so that freeing is one walk and the sum is bounded. */
typedef struct block {
    struct block *next;
    size_t used, size;
    _Alignas(16) uint8_t bytes[];
} block;

typedef struct pool {
    block *head;
    size_t taken, allowed;
} pool;

static void *pool_alloc(void *ctx, size_t n)
{
    pool *p = ctx;
    n = (n + 15) & ~(size_t)15;
    if (!p->head || p->head->size - p->head->used < n) {
        size_t size = n > 4096 ? n : 4096;
        if (size > p->allowed - p->taken) {
            size = n;
            if (size > p->allowed - p->taken)
                return NULL;
        }
        block *b = malloc(sizeof *b + size);
        if (!b)
            return NULL;
        *b = (block){.next = p->head, .size = size};
        p->head = b;
        p->taken += size;
    }
    void *out = p->head->bytes + p->head->used;
    p->head->used += n;
    return out;
}

static void pool_free(void *ctx, void *data)
{
    (void)ctx;
    (void)data;
}

static void blocks_free(block *b)
{
    while (b) {
        block *next = b->next;
        free(b);
        b = next;
    }
}

es_status dm_decode(const ProtobufCMessageDescriptor *d, const void *data, size_t n, ProtobufCMessage **out,
                    es_error *err)
{
    *out = NULL;
    pool p = {.allowed = (size_t)DM_DECODE_FACTOR * n + (64 << 10)};
    ProtobufCAllocator a = {.alloc = pool_alloc, .free = pool_free, .allocator_data = &p};
    ProtobufCMessage *m = protobuf_c_message_unpack(d, &a, n, data);
    if (!m) {
        blocks_free(p.head);
        return es_fail(err, ES_CORRUPT, d->short_name,
                       "%zu bytes are no message of this kind, or one beyond its limits", n);
    }
    /* Unknown fields are ignored (wire.proto), so their pointer is free to remember the blocks for dm_message_free. */
    m->n_unknown_fields = 0;
    m->unknown_fields = (ProtobufCMessageUnknownField *)(void *)p.head;
    *out = m;
    return ES_OK;
}

void dm_message_free(ProtobufCMessage **m)
{
    if (!*m)
        return;
    blocks_free((block *)(void *)(*m)->unknown_fields);
    *m = NULL;
}

es_status dm_refusal(const void *request, size_t n, const es_error *why, dm_bytes *out, es_error *err)
{
    ProtobufCMessage *m = NULL;
    ES_RETURN(dm_decode(&espalier__wire__from_peer__descriptor, request, n, &m, err));
    Espalier__Wire__Error e = ESPALIER__WIRE__ERROR__INIT;
    dm_to_peer r = ESPALIER__WIRE__TO_PEER__INIT;
    e.code = dm_text(es_status_name(why->code));
    e.where = dm_text(why->where);
    e.text = dm_text(why->text);
    r.version = DM_WIRE_VERSION;
    r.request_id = ((const dm_from_peer *)m)->request_id;
    r.what_case = ESPALIER__WIRE__TO_PEER__WHAT_ERROR;
    r.error = &e;
    es_status s = dm_encode(&r.base, DM_CONTROL_MAX, out, err);
    dm_message_free(&m);
    return s;
}

es_status dm_error_status(const Espalier__Wire__Error *e, es_error *err)
{
    es_status code = ES_IO;
    for (int s = ES_OK + 1; s < ES_STATUS_COUNT; s++)
        if (!strcmp(es_status_name((es_status)s), e->code))
            code = (es_status)s;
    return es_fail(err, code, e->where, "%s", e->text[0] ? e->text : "refused without a reason");
}

enum { KINDS_MAX = 32, KIND_NAME_MAX = 32 };
static char kind_names[KINDS_MAX][KIND_NAME_MAX];

/* From the descriptor, so that a kind's name is written once: in schemas/wire.proto. */
static void name_kinds(void)
{
    const ProtobufCEnumDescriptor *d = &espalier__wire__job_kind__descriptor;
    for (unsigned i = 0; i < d->n_values; i++) {
        const char *from = d->values[i].name + strlen("JOB_");
        if (d->values[i].value <= 0 || d->values[i].value >= KINDS_MAX)
            continue;
        char *to = kind_names[d->values[i].value];
        for (int k = 0; from[k] && k < KIND_NAME_MAX - 1; k++)
            to[k] = from[k] == '_' ? '.' : (char)tolower((unsigned char)from[k]);
    }
}

const char *dm_job_kind_name(int kind)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, name_kinds);
    return kind > 0 && kind < KINDS_MAX && kind_names[kind][0] ? kind_names[kind] : "unknown";
}
