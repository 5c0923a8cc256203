#include "daemon/auth/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"

enum { BURST_S = 4, TELL_EVERY_MS = 1000, LOG_EVERY_MS = 60000, SWEEP_EVERY_MS = 1000, COUNTED_BYTES = 4096 };

/* Answers on their way to one connection; shared with ZeroMQ's threads, which let go of it answer by answer. */
typedef struct outlet {
    atomic_int refs;
    atomic_size_t bytes;
} outlet;

typedef struct entry {
    uint64_t key;
    dm_bucket messages, bytes;
    double factor;
    int64_t told_ms, logged_ms;
    outlet *out;
} entry;

struct dm_limits {
    dm_limit_options o;
    es_map entries;
    int64_t swept_ms;
    uint64_t refused, dropped;
};

dm_limit_options dm_limits_default(void)
{
    return (dm_limit_options){
        .messages_per_s = 2000, .bytes_per_s = 16 << 20, .queue_bytes = 32 << 20, .peers_max = 20000};
}

void dm_bucket_fill(dm_bucket *b, double per_ms, double burst, int64_t now_ms)
{
    if (b->at_ms == 0)
        b->tokens = burst;
    else if (now_ms > b->at_ms)
        b->tokens += (double)(now_ms - b->at_ms) * per_ms;
    if (b->tokens > burst)
        b->tokens = burst;
    b->at_ms = now_ms > 0 ? now_ms : 1;
}

bool dm_bucket_take(dm_bucket *b, double n)
{
    if (b->tokens <= 0)
        return false;
    b->tokens -= n;
    return true;
}

/* ---- entries */

static void outlet_let_go(outlet *out)
{
    if (out && atomic_fetch_sub(&out->refs, 1) == 1)
        free(out);
}

static void entry_free(dm_limits *l, entry *e)
{
    es_map_remove(&l->entries, e->key);
    outlet_let_go(e->out);
    free(e);
}

dm_limits *dm_limits_new(const dm_limit_options *o)
{
    dm_limits *l = es_xcalloc(1, sizeof *l);
    l->o = *o;
    return l;
}

void dm_limits_set(dm_limits *l, const dm_limit_options *o) { l->o = *o; }

void dm_limits_free(dm_limits **pl)
{
    dm_limits *l = *pl;
    entry *e;
    if (!l)
        return;
    for (size_t i = 0; (e = es_map_next(&l->entries, &i)) != NULL;)
        entry_free(l, e);
    es_map_free(&l->entries);
    free(l);
    *pl = NULL;
}

static uint64_t entry_key(char kind, const void *id, size_t n)
{
    char text[1 + 256];
    es_id h;
    uint64_t key;
    text[0] = kind;
    n = n < sizeof text - 1 ? n : sizeof text - 1;
    memcpy(text + 1, id, n);
    es_id_bytes(text, n + 1, &h);
    memcpy(&key, &h, sizeof key);
    return key ? key : 1;
}

static void entry_fill(const dm_limits *l, entry *e, int64_t now_ms)
{
    double m = l->o.messages_per_s * e->factor, b = (double)l->o.bytes_per_s * e->factor;
    dm_bucket_fill(&e->messages, m / 1000, m * BURST_S, now_ms);
    dm_bucket_fill(&e->bytes, b / 1000, b * BURST_S, now_ms);
}

/* Entries that say nothing any more: full, and nothing on its way. */
static void sweep(dm_limits *l, int64_t now_ms)
{
    entry *e;
    if (now_ms - l->swept_ms < SWEEP_EVERY_MS && l->swept_ms)
        return;
    l->swept_ms = now_ms;
    for (size_t i = 0; (e = es_map_next(&l->entries, &i)) != NULL;) {
        entry_fill(l, e, now_ms);
        double m = l->o.messages_per_s * e->factor * BURST_S, b = (double)l->o.bytes_per_s * e->factor * BURST_S;
        if (e->messages.tokens >= m && e->bytes.tokens >= b && (!e->out || atomic_load(&e->out->bytes) == 0))
            entry_free(l, e);
    }
}

/* NULL: there are too many. It never sweeps: that would free an entry that the caller has just been given. */
static entry *entry_get(dm_limits *l, uint64_t key, double factor, int64_t now_ms)
{
    entry *e = es_map_get(&l->entries, key);
    if (!e) {
        if (l->entries.live >= (size_t)l->o.peers_max)
            return NULL;
        e = es_xcalloc(1, sizeof *e);
        e->key = key;
        e->factor = factor;
        es_map_put(&l->entries, key, e);
    }
    entry_fill(l, e, now_ms);
    return e;
}

/* ---- in */

static dm_verdict over(dm_limits *l, entry *key, entry *e, const dm_who *who, int64_t now_ms, const char *of,
                       es_error *why)
{
    l->refused++;
    if (now_ms - key->logged_ms >= LOG_EVERY_MS || !key->logged_ms) { /* however many connections it has */
        key->logged_ms = now_ms;
        es_log(ES_LOG_WARN, "%s (%s) sends more than is allowed (%s); %" PRIu64 " messages refused so far", who->name,
               dm_role_name(who->role), of, l->refused);
    }
    if (now_ms - e->told_ms < TELL_EVERY_MS && e->told_ms)
        return DM_DROP;
    e->told_ms = now_ms;
    es_fail(why, ES_BUSY, who->name,
            "more than %d messages or %" PRId64 " bytes a second (%s): the rest is dropped, send less",
            l->o.messages_per_s, l->o.bytes_per_s, of);
    return DM_TELL;
}

dm_verdict dm_limits_take(dm_limits *l, const void *id, size_t id_n, const dm_who *who, size_t bytes, int64_t now_ms,
                          es_error *why)
{
    if (who->local)
        return DM_PASS;
    if (l->entries.live + 2 > (size_t)l->o.peers_max)
        sweep(l, now_ms);
    entry *key = entry_get(l, entry_key('k', who->name, strlen(who->name)), DM_LIMITS_KEY_FACTOR, now_ms);
    entry *con = entry_get(l, entry_key('c', id, id_n), 1, now_ms);
    if (!key || !con) {
        l->refused++;
        return DM_DROP;
    }
    if (key->messages.tokens < 1 || key->bytes.tokens <= 0)
        return over(l, key, key, who, now_ms, "all connections of the key", why);
    if (con->messages.tokens < 1 || con->bytes.tokens <= 0)
        return over(l, key, con, who, now_ms, "one connection", why);
    dm_bucket_take(&key->messages, 1);
    dm_bucket_take(&key->bytes, (double)bytes);
    dm_bucket_take(&con->messages, 1);
    dm_bucket_take(&con->bytes, (double)bytes);
    return DM_PASS;
}

/* ---- out */

typedef struct parcel {
    outlet *out;
    size_t n;
    uint8_t bytes[];
} parcel;

static void parcel_gone(void *data, void *hint)
{
    (void)data;
    parcel *p = hint;
    atomic_fetch_sub(&p->out->bytes, p->n);
    outlet_let_go(p->out);
    free(p);
}

static bool send_id(dm_limits *l, void *router, const void *id, size_t id_n)
{
    if (zmq_send(router, id, id_n, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        return true;
    l->dropped += errno == EAGAIN; /* it reads too slowly; otherwise it is gone */
    return false;
}

bool dm_limits_send(dm_limits *l, void *router, const void *id, size_t id_n, const void *bytes, size_t n)
{
    entry *e = n > COUNTED_BYTES ? es_map_get(&l->entries, entry_key('c', id, id_n)) : NULL;
    if (!e)
        return send_id(l, router, id, id_n) && zmq_send(router, bytes, n, ZMQ_DONTWAIT) >= 0;
    if (!e->out) {
        e->out = es_xcalloc(1, sizeof *e->out);
        atomic_store(&e->out->refs, 1);
    }
    if (atomic_load(&e->out->bytes) + n > (size_t)l->o.queue_bytes) {
        l->dropped++;
        return false;
    }
    parcel *p = malloc(sizeof *p + n);
    if (!p || !send_id(l, router, id, id_n)) {
        free(p);
        return false;
    }
    *p = (parcel){.out = e->out, .n = n};
    memcpy(p->bytes, bytes, n);
    atomic_fetch_add(&e->out->refs, 1);
    atomic_fetch_add(&e->out->bytes, n);
    zmq_msg_t m;
    if (zmq_msg_init_data(&m, p->bytes, n, parcel_gone, p) != 0) {
        parcel_gone(p->bytes, p);
        return zmq_send(router, "", 0, ZMQ_DONTWAIT) >=
               0; /* the message was begun: an empty end is no message of ours */
    }
    bool sent = zmq_msg_send(&m, router, ZMQ_DONTWAIT) >= 0;
    if (!sent)
        zmq_msg_close(&m);
    return sent;
}

uint64_t dm_limits_refused(const dm_limits *l) { return l->refused; }
uint64_t dm_limits_dropped(const dm_limits *l) { return l->dropped; }
size_t dm_limits_peers(const dm_limits *l) { return l->entries.live; }
