/* The network, six workers of two kinds, and a client, all of them unreliable. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "tests/daemon/work.h"
#include "tests/simulate/world.h"

enum { BEAT_MS = 5000, AGAIN_MS = 3000, TRAIN_STEPS = 25, FORGOTTEN_MS = 600000 };

/* ---- the network */

static bool sooner(const sim_message *a, const sim_message *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void heap_push(sim *s, sim_message m)
{
    if (s->messages_n == s->messages_cap) {
        s->messages_cap = s->messages_cap ? 2 * s->messages_cap : 256;
        s->messages = es_xrealloc(s->messages, (size_t)s->messages_cap * sizeof *s->messages);
    }
    int i = s->messages_n++;
    for (; i > 0 && sooner(&m, &s->messages[(i - 1) / 2]); i = (i - 1) / 2)
        s->messages[i] = s->messages[(i - 1) / 2];
    s->messages[i] = m;
}

static sim_message heap_pop(sim *s)
{
    sim_message top = s->messages[0], last = s->messages[--s->messages_n];
    int i = 0;
    for (int child; (child = 2 * i + 1) < s->messages_n; i = child) {
        if (child + 1 < s->messages_n && sooner(&s->messages[child + 1], &s->messages[child]))
            child++;
        if (!sooner(&s->messages[child], &last))
            break;
        s->messages[i] = s->messages[child];
    }
    s->messages[i] = last;
    return top;
}

/* Lost, doubled, late; reordered because each copy has its own delay. */
static void post(sim *s, int from, int to, uint16_t life, const void *bytes, size_t n)
{
    int copies = 1;
    if (s->faults) {
        uint32_t fate = es_rng_below(&s->rng, 100);
        copies = fate < 5 ? 0 : fate < 10 ? 2 : 1;
        s->report->lost += copies == 0;
        s->report->doubled += copies == 2;
    }
    for (int i = 0; i < copies; i++) {
        int64_t delay = 1 + es_rng_below(&s->rng, 20);
        if (s->faults && es_rng_below(&s->rng, 30) == 0)
            delay += es_rng_below(&s->rng, 60000);
        if (s->faults && i > 0 && es_rng_below(&s->rng, 4) == 0) /* an echo, long after: of a lease that is over */
            delay += es_rng_below(&s->rng, 600000);
        sim_message m = {.at_ms = s->now_ms + delay,
                         .order = s->serial++,
                         .from = from,
                         .to = to,
                         .life = life,
                         .n = n,
                         .bytes = es_xcalloc(1, n + 1)};
        memcpy(m.bytes, bytes, n);
        heap_push(s, m);
    }
}

static dm_addr addr_of(int peer, uint16_t life)
{
    return (dm_addr){.n = 3, .id = {(uint8_t)peer, (uint8_t)life, (uint8_t)(life >> 8)}};
}

void sim_net_send(sim *s, const dm_addr *to, const void *bytes, size_t n)
{
    ProtobufCMessage *base;
    if (dm_decode(&espalier__wire__to_peer__descriptor, bytes, n, &base, NULL) != ES_OK)
        sim_broken(s, "the coordinator sends what is no message", to->id[0], (int64_t)n);
    sim_check_reply(s, (const dm_to_peer *)base);
    dm_message_free(&base);
    post(s, 0, to->id[0], (uint16_t)(to->id[1] | to->id[2] << 8), bytes, n);
}

static void tell(sim *s, int from, dm_from_peer *m)
{
    dm_bytes b;
    m->version = DM_WIRE_VERSION;
    m->request_id = ++s->serial;
    if (dm_encode(&m->base, DM_CONTROL_MAX, &b, NULL) != ES_OK)
        abort();
    post(s, from, 0, from == SIM_CLIENT ? 0 : s->workers[from - 1].life, b.data, b.n);
    free(b.data);
}

/* ---- workers */

static ProtobufCBinaryData uid_of(sim_worker *w) { return (ProtobufCBinaryData){.len = 16, .data = w->uid}; }

static void worker_forget(sim_worker *w)
{
    for (int i = 0; i < w->held_n; i++)
        free(w->held[i].granted);
    w->held_n = 0;
}

static void worker_born(sim *s, int i)
{
    sim_worker *w = &s->workers[i];
    worker_forget(w);
    uint16_t life = (uint16_t)(w->life + 1);
    memset(w, 0, sizeof *w);
    w->life = life;
    for (int k = 0; k < 16; k++)
        w->uid[k] = (uint8_t)es_rng_u32(&s->rng);
}

/* A rank died. Its peers' collective is aborted, often sooner than the coordinator knows. */
static void peers_notice(sim *s, int dead, const sim_held *lost)
{
    for (int i = 0; i < SIM_WORKERS; i++)
        for (int k = 0; k < s->workers[i].held_n; k++) {
            sim_held *h = &s->workers[i].held[k];
            if (i == dead || h->job != lost->job || h->attempt != lost->attempt || es_rng_below(&s->rng, 3) == 0)
                continue;
            h->outcome = ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED;
            h->lost_peer = true;
            h->done_at_ms = s->now_ms + es_rng_below(&s->rng, 5000);
        }
}

void sim_worker_fault(sim *s, int i)
{
    sim_worker *w = &s->workers[i];
    int64_t ms = 1 + es_rng_below(&s->rng, 120000);
    if (es_rng_below(&s->rng, 2)) { /* SIGKILL; somebody starts another one later */
        for (int k = 0; k < w->held_n; k++)
            if (w->held[k].size > 1)
                peers_notice(s, i, &w->held[k]);
        worker_born(s, i);
        s->report->worker_deaths++;
    } else { /* SIGSTOP, perhaps for longer than a lease */
        s->report->pauses++;
    }
    w->silent_until_ms = s->now_ms + ms;
}

void sim_worker_wake(sim *s, int i) { s->workers[i].silent_until_ms = 0; }

static void worker_hello(sim *s, int i)
{
    static Espalier__Wire__JobKind kinds[] = {1, 2, 3, 4, 5, 6, 7, 8};
    sim_worker *w = &s->workers[i];
    Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
    Espalier__Wire__Lease leases[SIM_HELD], *list[SIM_HELD];
    for (int k = 0; k < w->held_n; k++) {
        espalier__wire__lease__init(&leases[k]);
        leases[k].job = w->held[k].job;
        leases[k].attempt = w->held[k].attempt;
        list[k] = &leases[k];
    }
    char kind[] = "kind-a";
    kind[5] = i % 2 ? 'b' : 'a';
    h.machine_kind = kind;
    h.worker_uid = uid_of(w);
    h.n_kinds = 8;
    h.kinds = kinds;
    h.slots = i == 0 ? 2 : 1;
    h.n_holding = (size_t)w->held_n;
    h.holding = list;
    tell(s, i + 1, &DM_FROM_PEER(HELLO, hello, &h));
}

static void worker_beat(sim *s, int i)
{
    sim_worker *w = &s->workers[i];
    Espalier__Wire__Heartbeat h = ESPALIER__WIRE__HEARTBEAT__INIT;
    Espalier__Wire__Lease leases[SIM_HELD];
    Espalier__Wire__Progress p[SIM_HELD], *list[SIM_HELD];
    for (int k = 0; k < w->held_n; k++) {
        espalier__wire__lease__init(&leases[k]);
        espalier__wire__progress__init(&p[k]);
        leases[k].job = w->held[k].job;
        leases[k].attempt = w->held[k].attempt;
        p[k].lease = &leases[k];
        list[k] = &p[k];
    }
    h.worker_uid = uid_of(w);
    h.n_progress = (size_t)w->held_n;
    h.progress = list;
    tell(s, i + 1, &DM_FROM_PEER(HEARTBEAT, heartbeat, &h));
}

static void worker_want(sim *s, int i, uint32_t n)
{
    Espalier__Wire__Want want = ESPALIER__WIRE__WANT__INIT;
    want.worker_uid = uid_of(&s->workers[i]);
    want.slots = n;
    tell(s, i + 1, &DM_FROM_PEER(WANT, want, &want));
}

static void send_finish(sim *s, int i, uint64_t job, uint32_t attempt, int outcome, const dm_job_result *r,
                        const char *why)
{
    Espalier__Wire__FinishBatch b = ESPALIER__WIRE__FINISH_BATCH__INIT;
    Espalier__Wire__Finish f = ESPALIER__WIRE__FINISH__INIT, *list[] = {&f};
    dm_lease_id lease = ESPALIER__WIRE__LEASE__INIT;
    dm_bytes bytes = {0};
    lease.job = job;
    lease.attempt = attempt;
    f.lease = &lease;
    f.outcome = (Espalier__Wire__Outcome)outcome;
    if (outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED) {
        f.error_code = dm_text(why);
        f.error = dm_text("simulated failure");
    }
    if (r && dm_encode(&r->base, DM_CONTROL_MAX, &bytes, NULL) != ES_OK)
        abort();
    f.result = (ProtobufCBinaryData){.len = bytes.n, .data = bytes.data};
    b.worker_uid = uid_of(&s->workers[i]);
    b.n_finish = 1;
    b.finish = list;
    tell(s, i + 1, &DM_FROM_PEER(FINISH, finish, &b));
    free(bytes.data);
}

/* Training that is told to hand back: the same job, up to a step on the way. */
static dm_bytes shortened(const Espalier__Wire__Granted *g)
{
    ProtobufCMessage *base;
    dm_bytes b;
    if (dm_decode(&espalier__wire__job_spec__descriptor, g->spec.data, g->spec.len, &base, NULL) != ES_OK)
        abort();
    dm_job_spec *spec = (dm_job_spec *)base;
    spec->until_step = spec->step + 1;
    if (dm_encode(base, DM_CONTROL_MAX, &b, NULL) != ES_OK)
        abort();
    dm_message_free(&base);
    return b;
}

/* Workers are of three keys, two of each. */
static int key_of(int from) { return (from - 1) % SIM_KEYS; }

/* Lies, or stands by a lie: workers of a key that have said a training is over say so again when they are asked. */
static void result_lies(sim *s, int i, const sim_held *h, work_result *r)
{
    struct sim_told *told = &s->told;
    const uint64_t honest = r->result.steps;
    bool liar = s->faults && key_of(i + 1) == SIM_LIARS;
    if (liar && told->job == h->job && told->steps == r->from && r->from > 0 && r->result.steps > 0) {
        r->result.steps = r->result.step = r->from;
        r->result.weights = r->began;
    } else if (h->lie) {
        sim_spoil(s, r, h->kind, liar && h->size == 0);
    } else {
        return;
    }
    s->report->lies++;
    if (liar && r->result.steps != honest)
        *told = (struct sim_told){h->job, r->result.steps};
}

static void worker_finish(sim *s, int i, sim_held *h)
{
    ProtobufCMessage *base = NULL;
    work_result r;
    bool result = (h->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_DONE || h->part) && h->rank == 0 &&
                  h->kind != ESPALIER__WIRE__JOB_KIND__JOB_NOOP;
    if (result) {
        if (dm_decode(&espalier__wire__granted__descriptor, h->granted, h->granted_n, &base, NULL) != ES_OK)
            abort();
        Espalier__Wire__Granted g = *(const Espalier__Wire__Granted *)base; /* borrows */
        dm_bytes b = {0};
        if (h->part) {
            b = shortened(&g);
            g.spec = (ProtobufCBinaryData){.len = b.n, .data = b.data};
        }
        work_do(&r, &g, TRAIN_STEPS, sim_put_version, s);
        free(b.data);
        result_lies(s, i, h, &r);
    }
    send_finish(s, i, h->job, h->attempt, h->outcome, base ? &r.result : NULL, h->lost_peer ? "lost-peer" : "io");
    dm_message_free(&base);
}

/* Results for leases it does not hold: made up, or another worker's, which it has seen somewhere. */
static void worker_lie(sim *s, int i)
{
    const sim_worker *other = &s->workers[es_rng_below(&s->rng, SIM_WORKERS)];
    uint64_t job = 1 + es_rng_below(&s->rng, 200);
    uint32_t attempt = 1000 + es_rng_below(&s->rng, 4);
    if (other != &s->workers[i] && other->held_n > 0) {
        job = other->held[0].job;
        attempt = other->held[0].attempt;
    }
    for (int k = 0; k < s->workers[i].held_n; k++)
        if (s->workers[i].held[k].job == job)
            return; /* that would be no lie */
    send_finish(s, i, job, attempt,
                es_rng_below(&s->rng, 2) ? ESPALIER__WIRE__OUTCOME__OUTCOME_DONE
                                         : ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED,
                NULL, "io");
    s->report->lies++;
}

static void worker_offer(sim *s, int i, const sim_held *h)
{
    Espalier__Wire__GangOffer o = ESPALIER__WIRE__GANG_OFFER__INIT;
    dm_lease_id lease = ESPALIER__WIRE__LEASE__INIT;
    uint8_t id[16];
    memset(id, (int)h->job, sizeof id);
    lease.job = h->job;
    lease.attempt = h->attempt;
    o.worker_uid = uid_of(&s->workers[i]);
    o.lease = &lease;
    o.id = (ProtobufCBinaryData){.len = sizeof id, .data = id};
    tell(s, i + 1, &DM_FROM_PEER(GANG_OFFER, gang_offer, &o));
}

static void worker_goodbye(sim *s, int i)
{
    Espalier__Wire__Goodbye g = ESPALIER__WIRE__GOODBYE__INIT;
    g.worker_uid = uid_of(&s->workers[i]);
    tell(s, i + 1, &DM_FROM_PEER(GOODBYE, goodbye, &g));
    worker_born(s, i);
    s->workers[i].silent_until_ms = s->now_ms + es_rng_below(&s->rng, 60000);
}

static void worker_act(sim *s, int i)
{
    sim_worker *w = &s->workers[i];
    if (s->now_ms < w->silent_until_ms)
        return;
    if (!w->welcomed) {
        if (s->now_ms >= w->hello_at_ms) {
            worker_hello(s, i);
            w->hello_at_ms = s->now_ms + AGAIN_MS;
        }
        return;
    }
    if (s->now_ms >= w->beat_at_ms) {
        worker_beat(s, i);
        w->beat_at_ms = s->now_ms + BEAT_MS;
    }
    for (int k = 0; k < w->held_n; k++) {
        sim_held *h = &w->held[k];
        if (s->now_ms < h->done_at_ms || s->now_ms < h->told_at_ms + AGAIN_MS)
            continue;
        worker_finish(s, i, h);
        h->told_at_ms = s->now_ms;
    }
    int slots = i == 0 ? 2 : 1;
    if (w->held_n < slots && s->now_ms >= w->want_at_ms) {
        worker_want(s, i, (uint32_t)(slots - w->held_n));
        w->want_at_ms = s->now_ms + AGAIN_MS;
    }
    if (s->faults && es_rng_below(&s->rng, 200) == 0)
        worker_lie(s, i);
    if (s->faults && es_rng_below(&s->rng, 3000) == 0)
        worker_goodbye(s, i);
}

static int held_index(const sim_worker *w, const dm_lease_id *l)
{
    for (int k = 0; k < w->held_n; k++)
        if (w->held[k].job == l->job && w->held[k].attempt == l->attempt)
            return k;
    return -1;
}

static void held_drop(sim_worker *w, int k)
{
    w->seen[w->seen_n++ % SIM_SEEN] = (dm_lease_id){.job = w->held[k].job, .attempt = w->held[k].attempt};
    free(w->held[k].granted);
    w->held[k] = w->held[--w->held_n];
}

static void worker_take(sim *s, sim_worker *w, const Espalier__Wire__Granted *g)
{
    bool seen = held_index(w, g->lease) >= 0 || w->held_n == SIM_HELD;
    for (int k = 0; k < SIM_SEEN && k < w->seen_n; k++)
        seen = seen || (w->seen[k].job == g->lease->job && w->seen[k].attempt == g->lease->attempt);
    if (seen)
        return;
    sim_check_weights(s, g);
    for (int i = 0; i < SIM_WORKERS; i++)
        for (int k = 0; k < s->workers[i].held_n; k++) {
            const sim_held *o = &s->workers[i].held[k];
            if (o->job == g->lease->job && o->attempt == g->lease->attempt &&
                (!g->gang || o->rank == (int)g->gang->rank))
                sim_broken(s, "two workers hold one lease", (int64_t)o->job, o->rank);
        }
    dm_bytes b;
    if (dm_encode(&g->base, DM_CONTROL_MAX, &b, NULL) != ES_OK)
        abort();
    sim_held *h = &w->held[w->held_n++];
    /* Trainings are few, and there is more to lie about. */
    bool trains = g->kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET && !g->gang;
    uint32_t luck = s->faults ? es_rng_below(&s->rng, 50) : 50;
    *h = (sim_held){.job = g->lease->job,
                    .attempt = g->lease->attempt,
                    .kind = (int)g->kind,
                    .granted = b.data,
                    .granted_n = b.n,
                    .done_at_ms =
                        s->now_ms + es_rng_below(&s->rng, g->kind == ESPALIER__WIRE__JOB_KIND__JOB_NOOP ? 200 : 20000),
                    .told_at_ms = -AGAIN_MS,
                    .rank = g->gang ? (int)g->gang->rank : 0,
                    .size = g->gang ? (int)g->gang->size : 0,
                    .lie = s->faults && es_rng_below(&s->rng, trains ? 4 : 60) == 0,
                    .outcome = luck == 0   ? ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED
                               : luck == 1 ? ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED
                                           : ESPALIER__WIRE__OUTCOME__OUTCOME_DONE};
    if (h->size > 1 && h->rank == 0)
        worker_offer(s, (int)(w - s->workers), h);
}

static void worker_finished(sim *s, sim_worker *w, const Espalier__Wire__FinishReply *r)
{
    for (size_t i = 0; i < r->n_accepted; i++) {
        int k = held_index(w, r->accepted[i]);
        if (k < 0)
            continue; /* an echo */
        bool trains = w->held[k].kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET;
        bool told = w->held[k].told_at_ms > 0; /* else the answer is to what it said when it held this job before */
        if (told && w->held[k].outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_DONE && !trains && !w->held[k].lie)
            sim_note_accepted(s, (int64_t)r->accepted[i]->job, r->accepted[i]->attempt);
        held_drop(w, k);
        w->want_at_ms = 0;
    }
    for (size_t i = 0; i < r->n_stale; i++) {
        int k = held_index(w, r->stale[i]);
        if (k >= 0)
            held_drop(w, k);
    }
}

static void worker_preempt(sim *s, sim_worker *w, const dm_lease_id *l)
{
    int at = held_index(w, l);
    if (at < 0 || w->held[at].told_at_ms >= 0 || w->held[at].outcome != ESPALIER__WIRE__OUTCOME__OUTCOME_DONE)
        return;
    w->held[at].outcome = ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED;
    w->held[at].part = w->held[at].kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET;
    w->held[at].done_at_ms = s->now_ms + es_rng_below(&s->rng, 500);
    s->report->preempted++;
}

static void worker_receive(sim *s, int i, const dm_to_peer *m)
{
    sim_worker *w = &s->workers[i];
    if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_WELCOME) {
        w->welcomed = true;
        for (size_t k = 0; k < m->welcome->n_lost; k++) {
            int at = held_index(w, m->welcome->lost[k]);
            if (at >= 0)
                held_drop(w, at);
        }
    } else if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_LEASES) {
        for (size_t k = 0; k < m->leases->n_granted; k++)
            worker_take(s, w, m->leases->granted[k]);
    } else if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_HEARTBEAT) {
        if (m->heartbeat->unknown_worker)
            w->welcomed = false;
        for (size_t k = 0; k < m->heartbeat->n_stop; k++) {
            int at = held_index(w, m->heartbeat->stop[k]);
            if (at < 0 || w->held[at].told_at_ms >= 0) /* one that is reported already waits for its answer */
                continue;
            if (w->held[at].size > 1) { /* says so: its gang waits to hear it */
                w->held[at].outcome = ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED;
                w->held[at].done_at_ms = s->now_ms;
            } else {
                held_drop(w, at);
            }
        }
        for (size_t k = 0; k < m->heartbeat->n_preempt; k++)
            worker_preempt(s, w, m->heartbeat->preempt[k]);
    } else if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_FINISHED) {
        worker_finished(s, w, m->finished);
    }
}

/* ---- the client: enqueues, submits a search, asks for its result */

static void client_next(sim *s)
{
    sim_client *c = &s->client;
    c->token++;
    c->count = 1 + es_rng_below(&s->rng, 12);
    c->priority = (int)es_rng_below(&s->rng, 3);
    c->idle = c->closing;
    c->think_until_ms = s->now_ms + es_rng_below(&s->rng, 60000);
}

static void client_submit(sim *s, int i)
{
    struct sim_asked *a = &s->client.asked[i];
    Espalier__Wire__Submit sub = ESPALIER__WIRE__SUBMIT__INIT;
    char token[32], text[4096], user[16];
    snprintf(token, sizeof token, "search %d", i);
    snprintf(text, sizeof text, "%s", sim_search_text(i));
    snprintf(user, sizeof user, "%s", sim_search_user(i));
    sub.token = token;
    sub.text = text;
    sub.user = user;
    dm_from_peer m = DM_FROM_PEER(SUBMIT, submit, &sub);
    tell(s, SIM_CLIENT, &m);
    a->request = m.request_id;
    a->at_ms = s->now_ms + AGAIN_MS;
}

static void client_poll(sim *s, int i)
{
    struct sim_asked *a = &s->client.asked[i];
    Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
    q.what = dm_text("result");
    q.search = a->search;
    dm_from_peer m = DM_FROM_PEER(QUERY, query, &q);
    tell(s, SIM_CLIENT, &m);
    a->poll = m.request_id;
    a->poll_at_ms = s->now_ms + 30000;
}

static void client_act(sim *s)
{
    sim_client *c = &s->client;
    bool known = true;
    for (int i = 0; i < SIM_SEARCHES; i++) {
        struct sim_asked *a = &c->asked[i];
        if (i >= 2 && a->at_ms == 0)
            a->at_ms =
                s->now_ms + 20000 + es_rng_below(&s->rng, 60000); /* the urgent ones come when the others train */
        if (!a->search && s->now_ms >= a->at_ms)
            client_submit(s, i);
        if (a->search && !s->report->result[i] && s->now_ms >= a->poll_at_ms)
            client_poll(s, i);
        known = known && a->search;
    }
    if (known && !c->searching) {
        c->searching = true;
        client_next(s);
    }
    if (c->searching && !c->idle && s->now_ms >= c->think_until_ms && s->now_ms >= c->act_at_ms) {
        Espalier__Wire__EnqueueNoop e = ESPALIER__WIRE__ENQUEUE_NOOP__INIT;
        char token[32];
        snprintf(token, sizeof token, "t%d", c->token);
        e.token = token;
        e.count = c->count;
        e.priority = c->priority;
        dm_from_peer m = DM_FROM_PEER(ENQUEUE_NOOP, enqueue_noop, &e);
        tell(s, SIM_CLIENT, &m);
        c->request = m.request_id;
        c->act_at_ms = s->now_ms + AGAIN_MS;
    }
}

static void client_receive(sim *s, const dm_to_peer *m)
{
    sim_client *c = &s->client;
    if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_SUBMITTED && m->request_id == c->request && c->request) {
        c->request = 0;
        c->queued_jobs += c->count;
        client_next(s);
    }
    for (int i = 0; i < SIM_SEARCHES; i++) {
        struct sim_asked *a = &c->asked[i];
        if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_SUBMITTED && m->request_id == a->request)
            a->search = m->submitted->search;
        if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_ANSWER && m->request_id == a->poll && !s->report->result[i])
            s->report->result[i] = es_xstrdup(m->answer->json);
    }
}

/* ---- together */

void sim_peers_start(sim *s)
{
    for (int i = 0; i < SIM_WORKERS; i++)
        worker_born(s, i);
}

void sim_peers_stop(sim *s)
{
    for (int i = 0; i < SIM_WORKERS; i++)
        worker_forget(&s->workers[i]);
    while (s->messages_n)
        free(heap_pop(s).bytes);
    free(s->messages);
}

int64_t sim_next_event(const sim *s)
{
    int64_t next = s->now_ms + 1000;
    return s->messages_n && s->messages[0].at_ms < next ? s->messages[0].at_ms : next;
}

/* Somebody of another key is there, as the coordinator sees it, to say how long a training is. */
static bool has_witness(const sim *s, int from)
{
    for (int j = 0; j < SIM_WORKERS; j++)
        if (key_of(j + 1) != key_of(from) && s->workers[j].greeted_ms &&
            s->now_ms - s->workers[j].heard_ms < s->options.lease_ms / 2)
            return true;
    return false;
}

/* A lie about the length that nobody is there to find out: it gets lost. */
static bool unseen_lie(const sim *s, int from, const dm_from_peer *m)
{
    bool lie = false;
    for (size_t i = 0; m->what_case == ESPALIER__WIRE__FROM_PEER__WHAT_FINISH && i < m->finish->n_finish; i++) {
        ProtobufCMessage *base = NULL;
        const ProtobufCBinaryData *b = &m->finish->finish[i]->result;
        if (b->len && dm_decode(&espalier__wire__job_result__descriptor, b->data, b->len, &base, NULL) == ES_OK)
            lie = lie || (((const dm_job_result *)base)->steps && ((const dm_job_result *)base)->steps != TRAIN_STEPS);
        dm_message_free(&base);
    }
    return lie && !has_witness(s, from);
}

static void note_heard(sim *s, int from, uint16_t life, const dm_from_peer *m)
{
    if (from > SIM_WORKERS || s->workers[from - 1].life != life)
        return;
    sim_worker *w = &s->workers[from - 1];
    if (s->now_ms - w->heard_ms > FORGOTTEN_MS) /* it may have to say hello again before it is anybody */
        w->greeted_ms = 0;
    if (m->what_case == ESPALIER__WIRE__FROM_PEER__WHAT_HELLO)
        w->greeted_ms = s->now_ms;
    if (m->what_case == ESPALIER__WIRE__FROM_PEER__WHAT_GOODBYE)
        w->greeted_ms = 0;
    w->heard_ms = s->now_ms;
}

void sim_peers_forgotten(sim *s)
{
    for (int i = 0; i < SIM_WORKERS; i++)
        s->workers[i].greeted_ms = 0;
}

static void to_coordinator(sim *s, const sim_message *m)
{
    dm_addr from = addr_of(m->from, m->life);
    ProtobufCMessage *base = NULL;
    dm_who who = dm_who_local();
    if (m->from <= SIM_WORKERS)
        snprintf(who.name, sizeof who.name, "key%d", key_of(m->from));
    if (dm_decode(&espalier__wire__from_peer__descriptor, m->bytes, m->n, &base, NULL) != ES_OK)
        abort();
    const dm_from_peer *said = (const dm_from_peer *)base;
    if (!unseen_lie(s, m->from, said)) {
        note_heard(s, m->from, m->life, said);
        sim_note_finish(s, said);
        sim_fair_message(s, said);
        dm_coord_deliver_as(s->c, &from, &who, m->bytes, m->n);
    }
    dm_message_free(&base);
}

void sim_deliver(sim *s)
{
    for (int taken = 0; s->messages_n && s->messages[0].at_ms <= s->now_ms && taken < DM_TURN_MESSAGES; taken++) {
        sim_message m = heap_pop(s);
        s->report->messages++;
        if (m.to == 0) {
            to_coordinator(s, &m);
        } else if (m.to == SIM_CLIENT ||
                   (m.life == s->workers[m.to - 1].life && s->now_ms >= s->workers[m.to - 1].silent_until_ms)) {
            ProtobufCMessage *base = NULL;
            if (dm_decode(&espalier__wire__to_peer__descriptor, m.bytes, m.n, &base, NULL) != ES_OK)
                abort();
            if (m.to == SIM_CLIENT)
                client_receive(s, (const dm_to_peer *)base);
            else
                worker_receive(s, m.to - 1, (const dm_to_peer *)base);
            dm_message_free(&base);
        }
        free(m.bytes);
    }
}

void sim_peers_act(sim *s)
{
    for (int i = 0; i < SIM_WORKERS; i++)
        worker_act(s, i);
    client_act(s);
}
