#include "tests/daemon/world.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "tests/daemon/work.h"

int world_train_steps = 25;
static char refusal[700];
const char *world_refusal(void) { return refusal; }

static int64_t world_mono(es_clock *c) { return ((world *)c)->now_ms * 1000000; }
static int64_t world_wall(es_clock *c) { return 1700000000000 + ((world *)c)->now_ms; }

static void world_out(void *ctx, const dm_addr *to, const void *bytes, size_t n)
{
    world *w = ctx;
    if (w->sent_n == w->sent_cap) {
        w->sent_cap = w->sent_cap ? 2 * w->sent_cap : 64;
        w->sent = es_xrealloc(w->sent, (size_t)w->sent_cap * sizeof *w->sent);
    }
    w->sent[w->sent_n].peer = to->id[0];
    w->sent[w->sent_n].n = n;
    w->sent[w->sent_n].taken = false;
    w->sent[w->sent_n].bytes = es_xcalloc(1, n + 1);
    memcpy(w->sent[w->sent_n++].bytes, bytes, n);
}

static void world_publish(void *ctx, const char *topic, const char *json)
{
    (void)topic;
    (void)json;
    ((world *)ctx)->published++;
}

static bool world_has(void *ctx, const char *hex)
{
    world *w = ctx;
    for (int i = 0; i < w->versions_n && i < 64; i++)
        if (strcmp(w->versions[i], hex) == 0)
            return true;
    return false;
}

static void world_drop(void *ctx, const char *hex)
{
    world *w = ctx;
    snprintf(w->dropped[w->dropped_n++ % 64], 72, "%s", hex);
}

static void world_open(world *w)
{
    es_error err;
    if (dm_coord_open(&w->options, &w->env, &w->c, &err) != ES_OK) {
        fprintf(stderr, "coordinator: %s: %s\n", err.where, err.text);
        abort();
    }
}

world *world_new(const char *dir)
{
    world *w = es_xcalloc(1, sizeof *w);
    w->clock = (es_clock){.mono_ns = world_mono, .wall_ms = world_wall};
    w->now_ms = 1000;
    w->next_id = 1;
    snprintf(w->path, sizeof w->path, "%s/state.db", dir);
    w->options = dm_options_default();
    w->options.state_path = w->path;
    w->options.data_endpoint = "tcp://*:1";
    w->env = (dm_env){.ctx = w,
                      .clock = &w->clock,
                      .seed = 1,
                      .send = world_out,
                      .publish = world_publish,
                      .has_version = world_has,
                      .drop_version = world_drop};
    world_open(w);
    world_turn(w);
    return w;
}

void world_forget_sent(world *w)
{
    for (int i = 0; i < w->sent_n; i++)
        free(w->sent[i].bytes);
    w->sent_n = 0;
}

void world_free(world **w)
{
    dm_coord_close(&(*w)->c);
    world_forget_sent(*w);
    free((*w)->sent);
    free(*w);
    *w = NULL;
}

void world_restart(world *w)
{
    dm_coord_close(&w->c);
    world_forget_sent(w);
    world_open(w);
    world_turn(w);
}

int world_turn(world *w) { return dm_coord_turn(w->c); }

void world_pass(world *w, int64_t ms)
{
    for (int64_t end = w->now_ms + ms; w->now_ms < end;) {
        int64_t step = end - w->now_ms < 100 ? end - w->now_ms : 100;
        w->now_ms += step;
        world_turn(w);
    }
}

void world_send(world *w, int peer, dm_from_peer *m)
{
    dm_bytes b;
    dm_addr from = {.n = 1, .id = {(uint8_t)peer}};
    dm_who who = dm_who_local(); /* a uid stays what it is */
    snprintf(who.name, sizeof who.name, "%s", w->key ? w->key : "");
    if (!m->version)
        m->version = DM_WIRE_VERSION;
    if (!m->request_id)
        m->request_id = w->next_id++;
    if (dm_encode(&m->base, DM_CONTROL_MAX, &b, NULL) != ES_OK)
        abort();
    dm_coord_deliver_as(w->c, &from, &who, b.data, b.n);
    free(b.data);
}

dm_to_peer *world_take(world *w, int peer, int what_case)
{
    for (int i = 0; i < w->sent_n; i++) {
        ProtobufCMessage *m;
        if (w->sent[i].taken || w->sent[i].peer != peer)
            continue;
        if (dm_decode(&espalier__wire__to_peer__descriptor, w->sent[i].bytes, w->sent[i].n, &m, NULL) != ES_OK)
            abort();
        if ((int)((dm_to_peer *)m)->what_case == what_case) {
            w->sent[i].taken = true;
            return (dm_to_peer *)m;
        }
        dm_message_free(&m);
    }
    return NULL;
}

void world_free_message(dm_to_peer **m)
{
    ProtobufCMessage *base = (ProtobufCMessage *)*m;
    dm_message_free(&base);
    *m = NULL;
}

static ProtobufCBinaryData world_uid(int worker)
{
    static uint8_t uid[16];
    memset(uid, 0, sizeof uid);
    uid[0] = (uint8_t)worker;
    uid[8] = 0xaa;
    return (ProtobufCBinaryData){.len = 16, .data = uid};
}

void world_hello(world *w, int worker, unsigned slots) { world_hello_as(w, worker, slots, "", 0, NULL); }

void world_hello_as(world *w, int worker, unsigned slots, const char *machine_kind, uint64_t memory_bytes,
                    const dm_lease_id *holding)
{
    static Espalier__Wire__JobKind kinds[] = {1, 2, 3, 4, 5, 6, 7, 8};
    Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
    char name[32];
    snprintf(name, sizeof name, "worker-%d", worker);
    h.worker_uid = world_uid(worker);
    h.name = name;
    h.n_kinds = 8;
    h.kinds = kinds;
    h.slots = slots;
    char kind[64];
    snprintf(kind, sizeof kind, "%s", machine_kind);
    h.machine_kind = kind;
    h.memory_bytes = memory_bytes;
    dm_lease_id copy, *list[] = {&copy};
    if (holding) {
        copy = *holding;
        h.n_holding = 1;
        h.holding = list;
    }
    world_send(w, worker, &DM_FROM_PEER(HELLO, hello, &h));
}

uint64_t world_want(world *w, int worker, unsigned n)
{
    Espalier__Wire__Want want = ESPALIER__WIRE__WANT__INIT;
    want.worker_uid = world_uid(worker);
    want.slots = n;
    dm_from_peer m = DM_FROM_PEER(WANT, want, &want);
    world_send(w, worker, &m);
    return m.request_id;
}

void world_heartbeat(world *w, int worker, const dm_lease_id *leases, int n)
{
    Espalier__Wire__Heartbeat h = ESPALIER__WIRE__HEARTBEAT__INIT;
    Espalier__Wire__Progress p[16], *list[16];
    dm_lease_id copies[16];
    for (int i = 0; i < n; i++) {
        espalier__wire__progress__init(&p[i]);
        copies[i] = leases[i];
        p[i].lease = &copies[i];
        list[i] = &p[i];
    }
    h.worker_uid = world_uid(worker);
    h.n_progress = (size_t)n;
    h.progress = list;
    world_send(w, worker, &DM_FROM_PEER(HEARTBEAT, heartbeat, &h));
}

world_held world_taken(world *w, int worker)
{
    world_held h = {0};
    dm_to_peer *m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_LEASES);
    ProtobufCMessage *spec;
    if (!m)
        return h;
    ck_assert_uint_eq(m->leases->n_granted, 1);
    const Espalier__Wire__Granted *g = m->leases->granted[0];
    h = (world_held){.job = g->lease->job, .search = g->search, .attempt = g->lease->attempt, .kind = (int)g->kind};
    if (g->gang) {
        h.rank = g->gang->rank;
        h.size = g->gang->size;
    }
    if (g->spec.len &&
        dm_decode(&espalier__wire__job_spec__descriptor, g->spec.data, g->spec.len, &spec, NULL) == ES_OK) {
        h.step = ((dm_job_spec *)spec)->step;
        dm_message_free(&spec);
    }
    world_free_message(&m);
    return h;
}

void world_finish(world *w, int worker, uint64_t job, unsigned attempt, int outcome, const dm_job_result *r,
                  const char *code)
{
    Espalier__Wire__FinishBatch b = ESPALIER__WIRE__FINISH_BATCH__INIT;
    Espalier__Wire__Finish f = ESPALIER__WIRE__FINISH__INIT, *list[] = {&f};
    dm_lease_id lease = ESPALIER__WIRE__LEASE__INIT;
    dm_bytes bytes = {0};
    lease.job = job;
    lease.attempt = attempt;
    f.lease = &lease;
    f.outcome = (Espalier__Wire__Outcome)outcome;
    f.error_code = dm_text(code);
    f.error = dm_text("it broke");
    if (r && dm_encode(&r->base, DM_CONTROL_MAX, &bytes, NULL) != ES_OK)
        abort();
    f.result = (ProtobufCBinaryData){.len = bytes.n, .data = bytes.data};
    b.worker_uid = world_uid(worker);
    b.n_finish = 1;
    b.finish = list;
    world_send(w, worker, &DM_FROM_PEER(FINISH, finish, &b));
    free(bytes.data);
}

void world_offer(world *w, int worker, uint64_t job, unsigned attempt, const char *id)
{
    Espalier__Wire__GangOffer o = ESPALIER__WIRE__GANG_OFFER__INIT;
    dm_lease_id lease = ESPALIER__WIRE__LEASE__INIT;
    uint8_t bytes[512] = {0};
    size_t n = strlen(id);
    memcpy(bytes, id, n < sizeof bytes ? n : sizeof bytes);
    lease.job = job;
    lease.attempt = attempt;
    o.worker_uid = world_uid(worker);
    o.lease = &lease;
    o.id = (ProtobufCBinaryData){.len = n, .data = bytes};
    world_send(w, worker, &DM_FROM_PEER(GANG_OFFER, gang_offer, &o));
}

void world_goodbye(world *w, int worker)
{
    Espalier__Wire__Goodbye g = ESPALIER__WIRE__GOODBYE__INIT;
    g.worker_uid = world_uid(worker);
    world_send(w, worker, &DM_FROM_PEER(GOODBYE, goodbye, &g));
}

void world_noops(world *w, const char *token, unsigned count, int priority)
{
    Espalier__Wire__EnqueueNoop e = ESPALIER__WIRE__ENQUEUE_NOOP__INIT;
    e.token = dm_text(token);
    e.count = count;
    e.priority = priority;
    world_send(w, 200, &DM_FROM_PEER(ENQUEUE_NOOP, enqueue_noop, &e));
}

/* The answer to a request of client 200, or NULL with the refusal noted. */
static dm_to_peer *world_answer(world *w, int what_case)
{
    world_turn(w);
    dm_to_peer *m = world_take(w, 200, what_case), *e;
    refusal[0] = 0;
    if (!m && (e = world_take(w, 200, ESPALIER__WIRE__TO_PEER__WHAT_ERROR)) != NULL) {
        snprintf(refusal, sizeof refusal, "%s: %s: %s", e->error->code, e->error->where, e->error->text);
        world_free_message(&e);
    }
    return m;
}

const char world_small_search[] = "name: small\nseed: 3\n"
                                  "task: {data: {train: /nowhere/train, test: /nowhere/test, validation: 100}}\n"
                                  "space:\n  input: 8x8x1\n  stages:\n    - {block: conv, width: [8, 12, 16, 24], "
                                  "depth: [1, 2, 3], kernel: [1, 3, 5]}\n"
                                  "  head: {classes: 10}\n"
                                  "supernet: {epochs: 1, batch: 8, slice_steps: 10}\n"
                                  "search: {algorithm: nsga2, population: 12, evaluations: 50}\n"
                                  "objectives: [accuracy: max, macs: min]\n";

uint64_t world_submit(world *w, const char *token, const char *text) { return world_submit_as(w, token, "", text); }

uint64_t world_submit_as(world *w, const char *token, const char *user, const char *text)
{
    Espalier__Wire__Submit s = ESPALIER__WIRE__SUBMIT__INIT;
    s.token = dm_text(token);
    s.text = dm_text(text);
    s.user = dm_text(user);
    world_send(w, 200, &DM_FROM_PEER(SUBMIT, submit, &s));
    dm_to_peer *a = world_answer(w, ESPALIER__WIRE__TO_PEER__WHAT_SUBMITTED);
    uint64_t id = a ? a->submitted->search : 0;
    if (a)
        world_free_message(&a);
    return id;
}

void world_command(world *w, int verb, uint64_t search, int64_t value)
{
    Espalier__Wire__Command c = ESPALIER__WIRE__COMMAND__INIT;
    c.verb = (Espalier__Wire__Verb)verb;
    c.search = search;
    c.value = value;
    world_send(w, 200, &DM_FROM_PEER(COMMAND, command, &c));
    dm_to_peer *a = world_answer(w, ESPALIER__WIRE__TO_PEER__WHAT_DONE);
    if (a)
        world_free_message(&a);
}

char *world_query(world *w, const char *what, uint64_t search, uint64_t job)
{
    Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
    q.what = dm_text(what);
    q.search = search;
    q.job = job;
    world_send(w, 200, &DM_FROM_PEER(QUERY, query, &q));
    dm_to_peer *a = world_answer(w, ESPALIER__WIRE__TO_PEER__WHAT_ANSWER);
    char *json = a ? es_xstrdup(a->answer->json) : NULL;
    if (a)
        world_free_message(&a);
    return json;
}

const char *world_version(world *w, const char *seed)
{
    static char hex[ES_HASH_HEX];
    es_hash h;
    es_hash_bytes(seed, strlen(seed), &h);
    es_hash_hex(&h, hex);
    if (!world_has(w, hex))
        snprintf(w->versions[w->versions_n++ % 64], 72, "%s", hex);
    return hex;
}

/* ---- a worker whose results are functions of the job */

static const char *put_version(void *ctx, const char *seed) { return world_version(ctx, seed); }

static void work_one(world *w, int worker, const Espalier__Wire__Granted *g)
{
    work_result r;
    work_do(&r, g, world_train_steps, put_version, w);
    world_finish(w, worker, g->lease->job, g->lease->attempt, ESPALIER__WIRE__OUTCOME__OUTCOME_DONE, &r.result, NULL);
}

int world_work(world *w, int worker)
{
    int done = 0;
    world_want(w, worker, 1);
    world_turn(w);
    for (dm_to_peer *m; (m = world_take(w, worker, ESPALIER__WIRE__TO_PEER__WHAT_LEASES)) != NULL;) {
        for (size_t i = 0; i < m->leases->n_granted; i++, done++)
            work_one(w, worker, m->leases->granted[i]);
        world_free_message(&m);
        world_turn(w);
    }
    return done;
}

int64_t world_count(world *w, const char *column)
{
    char *json = world_query(w, "list", 0, 0), key[64];
    int64_t sum = 0;
    snprintf(key, sizeof key, "\"%s\":", column);
    for (const char *p = json; p && (p = strstr(p, key)) != NULL; p += strlen(key))
        sum += strtoll(p + strlen(key), NULL, 10);
    free(json);
    return sum;
}
