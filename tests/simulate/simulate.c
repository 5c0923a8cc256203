#include "tests/simulate/simulate.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"
#include "daemon/store/attempt_rows.h"
#include "daemon/store/job.h"
#include "daemon/store/result_rows.h"
#include "daemon/store/search_rows.h"
#include "daemon/store/worker_rows.h"
#include "tests/daemon/work.h"
#include "tests/simulate/world.h"

#define SPACE                                                                         \
    "task: {data: {train: /nowhere/a, test: /nowhere/b, validation: 100}}\n"          \
    "space:\n  input: 8x8x1\n  stages:\n    - {block: conv, width: [8, 12, 16, 24], " \
    "depth: [1, 2, 3], kernel: [1, 3, 5]}\n"                                          \
    "  head: {classes: 10}\nsupernet: {epochs: 1, batch: 8, slice_steps: 4}\n"

enum { GANG_PRIORITY = 1 };
static const char gang_text[] =
    "name: simulated\nseed: 5\n" SPACE "search: {algorithm: nsga2, population: 12, evaluations: 60}\n"
    "objectives: [accuracy: max, macs: min, latency_ms: min]\n"
    "resources: {priority: 1, gpus: 2}\n";
static const char urgent_text[] =
    "name: urgent\nseed: 6\n" SPACE "search: {algorithm: regularised-evolution, population: 8, evaluations: 24}\n"
    "objectives: [accuracy: max, macs: min]\nresources: {priority: 2}\n";

static const char rival_text[] =
    "name: rival\nseed: 7\n" SPACE "search: {algorithm: regularised-evolution, population: 8, evaluations: 24}\n"
    "objectives: [accuracy: max, macs: min]\nresources: {priority: 2}\n";

const char *sim_search_text(int i) { return i < 2 ? gang_text : i == 2 ? urgent_text : rival_text; }
const char *sim_search_user(int i) { return i == 1 ? "bert" : "anna"; }

/* ---- invariants */

void sim_broken(const sim *s, const char *what, int64_t a, int64_t b)
{
    fprintf(stderr, "simulate: seed %" PRIu64 ", turn %" PRId64 ": %s (%" PRId64 ", %" PRId64 ")\n", s->seed,
            s->report->turns, what, a, b);
    abort();
}

static uint8_t *job_state(sim *s, int64_t job)
{
    if (job >= s->jobs_cap) {
        int64_t cap = s->jobs_cap ? s->jobs_cap : 1024;
        while (cap <= job)
            cap *= 2;
        s->jobs = es_xrealloc(s->jobs, (size_t)cap);
        memset(s->jobs + s->jobs_cap, 0, (size_t)(cap - s->jobs_cap));
        s->jobs_cap = cap;
    }
    return &s->jobs[job];
}

typedef struct priority_check {
    sim *s;
    int64_t priority;
    int above;
} priority_check;

/* A gang waits until it can be whole. What the search asked for stands in its row: the client may not have heard yet that its search is there. */
static bool is_gang(const sim *s, int64_t search, int kind)
{
    dm_search_row row = {0};
    bool gang = kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET &&
                dm_search_get(dm_coord_store(s->c), search, &row, NULL) == ES_OK && strstr(row.text, "gpus: 2") != NULL;
    dm_search_row_free(&row);
    return gang;
}

/* Its training is over by one worker's word, and waits for another's. */
static bool wants_witness(sim *s, int64_t job)
{
    dm_checkpoint cp;
    char hex[72];
    return dm_checkpoint_last(dm_coord_store(s->c), job, &cp, hex, NULL) == ES_OK && cp.step >= cp.steps;
}

/* Has it a job that could run now, on whatever worker? */
static bool waits_now(sim *s, int64_t search)
{
    dm_ready ready[1];
    int n;
    int64_t next;
    return dm_job_ready(dm_coord_store(s->c), search, s->clock.wall_ms(&s->clock) - 1, 1, ready, &n, &next, NULL) ==
               ES_OK &&
           n > 0 && !is_gang(s, search, ready[0].kind) && !wants_witness(s, ready[0].id);
}

typedef struct gang_wait {
    sim *s;
    bool waits;
} gang_wait;

static bool gang_wait_row(void *ctx, const dm_search_row *r)
{
    gang_wait *x = ctx;
    dm_job_row row = {0};
    if (is_gang(x->s, r->id, ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET) &&
        dm_job_by_key(dm_coord_store(x->s->c), r->id, "train", &row, NULL) == ES_OK)
        x->waits = x->waits || row.state == DM_JOB_READY;
    dm_job_row_free(&row);
    return true;
}

/* A gang that waits holds workers; what is over in time may use them, of whatever priority. */
static bool gang_waits(sim *s)
{
    gang_wait x = {.s = s};
    if (dm_search_each(dm_coord_store(s->c), 0, 100, gang_wait_row, &x, NULL) != ES_OK)
        sim_broken(s, "reading failed", 0, 0);
    return x.waits;
}

static bool priority_row(void *ctx, const dm_search_row *r)
{
    priority_check *x = ctx;
    if (r->state == DM_SEARCH_RUNNING && r->priority > x->priority && r->priority > x->above && waits_now(x->s, r->id))
        sim_broken(x->s, "a job of lower priority is leased while one of a higher waits", x->priority, r->id);
    return true;
}

/* The lowest priority leased in this turn against all that still waits. */
static void check_priority(sim *s, int above)
{
    priority_check x = {.s = s, .priority = INT64_MAX, .above = above};
    for (int i = 0; i < s->moves_n; i++) {
        dm_job_row row;
        dm_search_row search;
        if (s->moves[i].to != DM_JOB_RUNNING || dm_job_get(dm_coord_store(s->c), s->moves[i].job, &row, NULL) != ES_OK)
            continue;
        if (dm_search_get(dm_coord_store(s->c), row.search, &search, NULL) == ES_OK && search.priority < x.priority)
            x.priority = search.priority;
        dm_search_row_free(&search);
        dm_job_row_free(&row);
    }
    if (x.priority != INT64_MAX && dm_search_each(dm_coord_store(s->c), 0, 100, priority_row, &x, NULL) != ES_OK)
        sim_broken(s, "reading failed", 0, 0);
}

static void on_move(void *ctx, int64_t job, int from, int to)
{
    sim *s = ctx;
    if (!dm_job_may((dm_job_state)from, (dm_job_state)to))
        sim_broken(s, "a move the table does not have", from, to);
    if (s->moves_n == s->moves_cap) {
        s->moves_cap = s->moves_cap ? 2 * s->moves_cap : 256;
        s->moves = es_xrealloc(s->moves, (size_t)s->moves_cap * sizeof *s->moves);
    }
    s->moves[s->moves_n++] = (struct sim_move){.job = job, .from = from, .to = to};
    s->leased = s->leased || to == DM_JOB_RUNNING;
}

static bool running_row(void *ctx, const dm_search_row *r)
{
    sim *s = ctx;
    int64_t sum = 0;
    for (int i = 1; i < DM_JOB_STATES; i++) {
        if (r->n[i] < 0)
            sim_broken(s, "a negative count of jobs", r->id, r->n[i]);
        sum += r->n[i];
    }
    s->counted += sum;
    s->open_jobs += r->n[DM_JOB_WAITING] + r->n[DM_JOB_READY] + r->n[DM_JOB_RUNNING];
    s->failed_jobs += r->n[DM_JOB_FAILED] + r->n[DM_JOB_CANCELLED];
    s->noop_jobs += strcmp(r->driver, "noop") == 0 ? sum : 0;
    return true;
}

/* After a turn that was committed: what it did, on top of what was known. */
static void apply_moves(sim *s)
{
    for (int i = 0; i < s->moves_n; i++) {
        uint8_t *state = job_state(s, s->moves[i].job);
        if (*state && *state != s->moves[i].from)
            sim_broken(s, "a job moved from a state it was not in", s->moves[i].job, *state);
        *state = (uint8_t)s->moves[i].to;
    }
    if (s->moves_n > 0) /* written over */
        s->doubt_n = s->doubt_sets = 0;
    s->moves_n = 0;
}

/* Do the rows stand as known, but for the moves of one turn (set 0: the one in progress; others: turns whose commit failed)? */
static bool explains(sim *s, const struct sim_move *moves, int n, int set, int64_t *odd)
{
    *odd = 0;
    for (int64_t job = 1; job < s->jobs_cap && !*odd; job++) {
        int expected = s->jobs[job];
        for (int i = 0; i < n && expected; i++)
            if (moves[i].job == job && moves[i].set == set)
                expected = moves[i].to;
        if (expected && s->found[job] != expected)
            *odd = job;
    }
    return *odd == 0;
}

/* After a crash: the rows must be what was known, plus the last turn as a whole or not at all. A commit that failed is a turn whose outcome nobody knows: its
 * peers were told of an error, and until the next commit it may be on the disk. */
static void check_recovered(sim *s)
{
    dm_store *st = dm_coord_store(s->c);
    int n = s->moves_n < s->moves_before_reload ? s->moves_n : s->moves_before_reload;
    int64_t odd = 0, first_odd = 0;
    s->found = es_xrealloc(s->found, (size_t)s->jobs_cap + 1);
    for (int64_t job = 1; job < s->jobs_cap; job++) {
        int state = 0;
        int64_t attempt, worker;
        if (s->jobs[job] && dm_job_peek(st, job, &state, &attempt, &worker, NULL) != ES_OK)
            sim_broken(s, "a job is gone after a crash", job, 0);
        s->found[job] = (uint8_t)state;
    }
    bool ok = explains(s, NULL, 0, 0, &first_odd) || explains(s, s->moves, n, 0, &odd);
    for (int set = 1; set <= s->doubt_sets && !ok; set++)
        ok = explains(s, s->doubt, s->doubt_n, set, &odd);
    if (!ok)
        sim_broken(s, "a job is in a state it never had after a crash, or a turn survived in part", first_odd,
                   s->found[first_odd]);
    for (int64_t job = 1; job < s->jobs_cap; job++)
        if (s->jobs[job])
            s->jobs[job] = s->found[job];
    s->moves_n = s->doubt_n = s->doubt_sets = 0;
}

/* The turn was taken back, but it may be on the disk. */
static void doubt(sim *s)
{
    s->doubt_sets++;
    for (int i = 0; i < s->moves_n; i++) {
        if (s->doubt_n == s->doubt_cap) {
            s->doubt_cap = s->doubt_cap ? 2 * s->doubt_cap : 256;
            s->doubt = es_xrealloc(s->doubt, (size_t)s->doubt_cap * sizeof *s->doubt);
        }
        s->doubt[s->doubt_n] = s->moves[i];
        s->doubt[s->doubt_n++].set = s->doubt_sets;
    }
    s->moves_n = s->finishes_n = 0;
}

static void check_accepted(sim *s)
{
    for (int i = 0; i < s->accepted_n; i++) {
        int state;
        int64_t attempt, worker;
        if (dm_job_peek(dm_coord_store(s->c), s->accepted[i].job, &state, &attempt, &worker, NULL) != ES_OK ||
            state != DM_JOB_DONE || attempt != s->accepted[i].attempt)
            sim_broken(s, "an acknowledged result is lost", s->accepted[i].job, state);
    }
}

void sim_note_accepted(sim *s, int64_t job, int64_t attempt)
{
    int64_t before = (int64_t)(intptr_t)es_map_get(&s->accepted_by_job, (uint64_t)job);
    if (before && before != attempt)
        sim_broken(s, "two leases' results of one job count", job, attempt);
    if (before)
        return;
    es_map_put(&s->accepted_by_job, (uint64_t)job, (void *)(intptr_t)attempt);
    if (s->accepted_n == s->accepted_cap) {
        s->accepted_cap = s->accepted_cap ? 2 * s->accepted_cap : 256;
        s->accepted = es_xrealloc(s->accepted, (size_t)s->accepted_cap * sizeof *s->accepted);
    }
    s->accepted[s->accepted_n++] = (struct sim_accepted){job, attempt};
    s->report->accepted++;
}

/* ---- results: only of the holder, only for its own attempt */

void sim_note_finish(sim *s, const dm_from_peer *m)
{
    if (m->what_case != ESPALIER__WIRE__FROM_PEER__WHAT_FINISH || m->finish->worker_uid.len != 16)
        return;
    for (size_t i = 0; i < m->finish->n_finish; i++) {
        const Espalier__Wire__Finish *f = m->finish->finish[i];
        if (!f->lease)
            continue;
        if (s->finishes_n == s->finishes_cap) {
            s->finishes_cap = s->finishes_cap ? 2 * s->finishes_cap : 256;
            s->finishes = es_xrealloc(s->finishes, (size_t)s->finishes_cap * sizeof *s->finishes);
        }
        struct sim_finish *n = &s->finishes[s->finishes_n++];
        n->job = (int64_t)f->lease->job;
        n->attempt = f->lease->attempt;
        memcpy(n->uid, m->finish->worker_uid.data, 16);
    }
}

typedef struct ended {
    int64_t attempt, worker;
    int outcome;
} ended;

static bool ended_row(void *ctx, const dm_attempt_row *r)
{
    ended *e = ctx;
    if (r->attempt != e->attempt)
        return true;
    e->outcome = r->outcome;
    e->worker = r->worker;
    return false;
}

static uint64_t version_key(const char *hex)
{
    return strtoull((char[17]){hex[0], hex[1], hex[2], hex[3], hex[4], hex[5], hex[6], hex[7], hex[8], hex[9], hex[10],
                               hex[11], 0},
                    NULL, 16) +
           1;
}

/* A slice of training that counts has brought it on: a worker that only says so would be given the job for ever. */
static void check_progress(sim *s, int64_t job)
{
    dm_checkpoint cp;
    char hex[72];
    int64_t before = (int64_t)(intptr_t)es_map_get(&s->trained, (uint64_t)job);
    if (dm_checkpoint_last(dm_coord_store(s->c), job, &cp, hex, NULL) != ES_OK)
        sim_broken(s, "a slice that counts left no checkpoint", job, before);
    if (cp.step >= cp.steps && cp.step == before)
        return; /* it bears witness that this is the end */
    if (cp.step <= before)
        sim_broken(s, "a slice of training counts that brought it no further", job, before);
    void *key = (void *)(uintptr_t)version_key(cp.weights);
    if (es_map_get(&s->trained_weights, (uint64_t)job) == key)
        sim_broken(s, "a slice of training counts that left the weights as they were", job, cp.step);
    es_map_put(&s->trained, (uint64_t)job, (void *)(intptr_t)cp.step);
    es_map_put(&s->trained_weights, (uint64_t)job, key);
}

/* A training that began anew in a commit that came through although nobody heard of it. */
static void forget_trained(sim *s)
{
    dm_checkpoint cp;
    char hex[72];
    for (int64_t job = 1; job < s->jobs_cap; job++)
        if (es_map_get(&s->trained, (uint64_t)job) != NULL &&
            dm_checkpoint_last(dm_coord_store(s->c), job, &cp, hex, NULL) == ES_NOT_FOUND) {
            es_map_remove(&s->trained, (uint64_t)job);
            es_map_remove(&s->trained_weights, (uint64_t)job);
        }
}

/* In this turn the job left its lease with a result or a failure: the holder must have said so, of this very attempt. */
static void check_ended(sim *s, int64_t job, int to)
{
    dm_store *st = dm_coord_store(s->c);
    int state;
    int64_t worker = 0, said = 0;
    ended e = {0};
    if (dm_job_peek(st, job, &state, &e.attempt, &e.worker, NULL) != ES_OK ||
        dm_attempt_each(st, job, ended_row, &e, NULL) != ES_OK)
        sim_broken(s, "reading failed", job, to);
    bool failed = e.outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, slice = e.outcome == DM_OUTCOME_SLICE;
    dm_checkpoint cp;
    char hex[72];
    if (failed && dm_checkpoint_last(st, job, &cp, hex, NULL) == ES_NOT_FOUND) { /* it begins anew */
        es_map_remove(&s->trained, (uint64_t)job);
        es_map_remove(&s->trained_weights, (uint64_t)job);
    }
    if (to != DM_JOB_DONE && !failed && !slice)
        return;
    for (int i = 0; i < s->finishes_n && !said; i++)
        said = s->finishes[i].job == job && s->finishes[i].attempt == e.attempt &&
               dm_worker_find(st, s->finishes[i].uid, &worker, NULL) == ES_OK && worker == e.worker;
    if (!said)
        sim_broken(s, "a result counts that its holder did not give for this attempt", job, e.attempt);
    if (slice)
        check_progress(s, job);
}

/* What is acknowledged: a result that is in the rows, or a slot given back. */
void sim_check_reply(sim *s, const dm_to_peer *m)
{
    if (m->what_case != ESPALIER__WIRE__TO_PEER__WHAT_FINISHED || !s->c)
        return;
    for (size_t i = 0; i < m->finished->n_accepted; i++) {
        int state;
        ended e = {.attempt = m->finished->accepted[i]->attempt};
        int64_t job = (int64_t)m->finished->accepted[i]->job, attempt, worker;
        if (dm_job_peek(dm_coord_store(s->c), job, &state, &attempt, &worker, NULL) != ES_OK)
            sim_broken(s, "a result of no job is acknowledged", job, e.attempt);
        if (e.attempt > attempt)
            sim_broken(s, "a result of an attempt that never was is acknowledged", job, e.attempt);
    }
}

/* Whole, on distinct workers of one machine kind. */
typedef struct gang_check {
    sim *s;
    int n, size;
    int64_t worker[16];
    char kind[128];
} gang_check;

static bool gang_row(void *ctx, const dm_gang_row *r, const void *id, size_t n)
{
    gang_check *x = ctx;
    dm_worker_row w;
    dm_worker_text text;
    (void)id;
    (void)n;
    if (dm_worker_get(dm_coord_store(x->s->c), r->worker, &w, &text, NULL) != ES_OK)
        sim_broken(x->s, "a rank on a worker that does not exist", r->job, r->rank);
    for (int i = 0; i < x->n; i++)
        if (x->worker[i] == r->worker)
            sim_broken(x->s, "two ranks of a gang on one worker", r->job, r->worker);
    if (x->n > 0 && strcmp(x->kind, text.machine_kind) != 0)
        sim_broken(x->s, "a gang on two kinds of machines", r->job, r->rank);
    snprintf(x->kind, sizeof x->kind, "%s", text.machine_kind);
    x->worker[x->n++] = r->worker;
    x->size = r->size;
    return x->n < 16;
}

static void check_gang(sim *s, int64_t job)
{
    dm_job_row row;
    gang_check x = {.s = s};
    if (dm_job_get(dm_coord_store(s->c), job, &row, NULL) != ES_OK)
        sim_broken(s, "reading failed", job, 0);
    bool gang = is_gang(s, row.search, row.kind);
    if (gang && row.state == DM_JOB_RUNNING) {
        if (dm_gang_each(dm_coord_store(s->c), job, row.attempt, gang_row, &x, NULL) != ES_OK)
            sim_broken(s, "reading failed", job, 0);
        if (x.n != 2 || x.size != 2)
            sim_broken(s, "a gang that is not whole has started", job, x.n);
        s->report->gangs++;
    }
    dm_job_row_free(&row);
}

/* ---- weights: a set of ids that outlives crashes */

const char *sim_put_version(void *ctx, const char *seed)
{
    static char hex[ES_HASH_HEX];
    sim *s = ctx;
    es_hash h;
    es_hash_bytes(seed, strlen(seed), &h);
    es_hash_hex(&h, hex);
    es_map_put(&s->versions, version_key(hex), s);
    return hex;
}

static bool has_version(void *ctx, const char *hex)
{
    return es_map_get(&((sim *)ctx)->versions, version_key(hex)) != NULL;
}
static void drop_version(void *ctx, const char *hex) { es_map_remove(&((sim *)ctx)->versions, version_key(hex)); }

void sim_check_weights(sim *s, const Espalier__Wire__Granted *g)
{
    ProtobufCMessage *base = NULL;
    if (g->kind == ESPALIER__WIRE__JOB_KIND__JOB_NOOP)
        return;
    if (dm_decode(&espalier__wire__job_spec__descriptor, g->spec.data, g->spec.len, &base, NULL) != ES_OK)
        sim_broken(s, "a lease without a readable spec", (int64_t)g->lease->job, 0);
    const dm_job_spec *spec = (const dm_job_spec *)base;
    int state;
    int64_t attempt, worker;
    /* Only a lease that is still good must find its weights: a late one may name what was let go since. */
    bool current =
        s->c && dm_job_peek(dm_coord_store(s->c), (int64_t)g->lease->job, &state, &attempt, &worker, NULL) == ES_OK &&
        state == DM_JOB_RUNNING && attempt == (int64_t)g->lease->attempt;
    if (current && spec->weights[0] && !has_version(s, spec->weights))
        sim_broken(s, "a lease names weights that do not exist", (int64_t)g->lease->job, 0);
    dm_message_free(&base);
}

/* ---- the coordinator's environment */

static int64_t sim_mono(es_clock *c) { return ((sim *)c)->now_ms * 1000000; }
static int64_t sim_wall(es_clock *c) { return 1700000000000 + ((sim *)c)->now_ms + ((sim *)c)->wall_offset_ms; }

static void sim_out(void *ctx, const dm_addr *to, const void *bytes, size_t n) { sim_net_send(ctx, to, bytes, n); }

static void open_coordinator(sim *s)
{
    es_error err = {0};
    s->moves_before_reload = s->moves_n;
    for (int tries = 0; !s->c; tries++) {
        es_status status = dm_coord_open(&s->options, &s->env, &s->c, &err);
        if (status != ES_OK && (tries > 3 || status == ES_CORRUPT)) {
            fprintf(stderr, "%s: %s\n", err.where, err.text);
            sim_broken(s, "the coordinator does not start after a crash", status, tries);
        }
    }
    dm_store_on_move(dm_coord_store(s->c), on_move, s);
    check_recovered(s);
    check_accepted(s);
    sim_fair_restarted(s, true);
    sim_peers_forgotten(s);
    forget_trained(s);
    s->reloads = false; /* what failed before the crash is over */
}

static void crash(sim *s, bool power)
{
    if (!sim_disk_dead(s->disk))
        sim_disk_die_after(s->disk, 0);
    dm_coord_close(&s->c); /* nothing it still does reaches the disk */
    sim_disk_crash(s->disk, power);
    s->report->crashes++;
    s->report->power_cuts += power;
    open_coordinator(s);
}

static void turn(sim *s)
{
    s->leased = false;
    dm_coord_turn(s->c);
    s->report->turns++;
    if (sim_disk_dead(s->disk)) {
        bool power = es_rng_below(&s->rng, 2) == 0;
        crash(s, power);
        if (!power &&
            es_rng_below(&s->rng, 3) == 0) /* what the killed process wrote, and its successor read, must last */
            crash(s, true);
        s->finishes_n = 0;
        return;
    }
    if (dm_coord_health(s->c, NULL) != ES_OK) {
        doubt(s);
        s->reloads = true;
        return;
    }
    for (int i = 0; i < s->moves_n; i++) {
        bool last = true; /* of its job in this turn: the rows say how that one came about */
        for (int k = i + 1; k < s->moves_n && last; k++)
            last = s->moves[k].job != s->moves[i].job;
        if (last && s->moves[i].from == DM_JOB_RUNNING &&
            (s->moves[i].to == DM_JOB_DONE || s->moves[i].to == DM_JOB_READY))
            check_ended(s, s->moves[i].job, s->moves[i].to);
        if (last && s->moves[i].to == DM_JOB_RUNNING)
            check_gang(s, s->moves[i].job);
    }
    s->finishes_n = 0;
    /* A gang that waits holds workers, for itself and for what comes after it: not for what is more urgent. */
    int above = s->leased && gang_waits(s) ? GANG_PRIORITY : INT_MIN;
    if (s->leased)
        check_priority(s, above);
    if (s->reloads) { /* in this turn it has read its rows again */
        sim_fair_restarted(s, false);
        sim_peers_forgotten(s);
        forget_trained(s);
    } else {
        sim_fair_turn(s, waits_now, above);
    }
    s->reloads = false;
    apply_moves(s);
}

/* ---- faults */

static void some_fault(sim *s)
{
    switch (es_rng_below(&s->rng, 12)) {
    case 0: crash(s, false); break;
    case 1: crash(s, true); break;
    case 2: sim_disk_die_after(s->disk, 1 + es_rng_below(&s->rng, 60)); break; /* in the middle of a turn to come */
    case 3:
        sim_disk_full(s->disk, true);
        s->disk_well_at_ms = s->now_ms + 1000 + es_rng_below(&s->rng, 20000);
        s->report->disk_faults++;
        break;
    case 4:
        sim_disk_fail_writes(s->disk, 1 + (int)es_rng_below(&s->rng, 3));
        s->report->disk_faults++;
        break;
    case 5:
        s->wall_offset_ms += (int64_t)es_rng_below(&s->rng, 172800000) - 86400000;
        break;                                                              /* the clock jumps by up to a day */
    case 6: s->now_ms += es_rng_below(&s->rng, 14 * 86400) * 1000LL; break; /* everybody sleeps for up to two weeks */
    default: sim_worker_fault(s, (int)es_rng_below(&s->rng, SIM_WORKERS)); break;
    }
}

static void calm(sim *s)
{
    s->faults = false;
    sim_disk_full(s->disk, false);
    sim_disk_fail_writes(s->disk, 0);
    if (!sim_disk_dead(s->disk))
        sim_disk_die_after(s->disk, -1);
    for (int i = 0; i < SIM_WORKERS; i++)
        sim_worker_wake(s, i);
}

static void step(sim *s)
{
    int64_t next = sim_next_event(s);
    s->now_ms = next > s->now_ms ? next : s->now_ms + 1;
    if (s->disk_well_at_ms && s->now_ms >= s->disk_well_at_ms) {
        sim_disk_full(s->disk, false);
        s->disk_well_at_ms = 0;
    }
    if (s->faults && es_rng_below(&s->rng, 60) == 0)
        some_fault(s);
    sim_deliver(s);
    sim_peers_act(s);
    turn(s);
}

static void count_jobs(sim *s)
{
    s->counted = s->open_jobs = s->failed_jobs = s->noop_jobs = 0;
    if (dm_search_each(dm_coord_store(s->c), 0, 1000, running_row, s, NULL) != ES_OK)
        sim_broken(s, "reading failed", 0, 0);
}

static bool all_results(const sim *s)
{
    for (int i = 0; i < SIM_SEARCHES; i++)
        if (!s->report->result[i])
            return false;
    return true;
}

static void finish(sim *s)
{
    calm(s);
    for (int64_t i = 0;; i++) {
        if (s->client.searching && s->client.idle && i % 100 == 0 && all_results(s)) {
            count_jobs(s);
            if (s->open_jobs == 0)
                break;
        }
        if (i > 400000)
            sim_broken(s, "it does not come to an end without faults", s->client.queued_jobs, s->open_jobs);
        s->client.closing = true;
        step(s);
    }
    check_accepted(s);
    if (s->failed_jobs != 0 || s->noop_jobs != s->client.queued_jobs)
        sim_broken(s, "accepted jobs are missing, or there are more than were accepted", s->noop_jobs,
                   s->client.queued_jobs);
    s->report->jobs = s->counted;
}

void sim_run(uint64_t seed, int64_t steps, bool faults, sim_report *out)
{
    char vfs[48];
    sim *s = es_xcalloc(1, sizeof *s);
    memset(out, 0, sizeof *out);
    snprintf(vfs, sizeof vfs, "simulated-%" PRIu64 "-%d", seed, faults);
    s->seed = seed;
    s->report = out;
    s->faults = faults;
    s->rng = es_rng_make(seed, ES_USE_TEST, 1);
    s->clock = (es_clock){.mono_ns = sim_mono, .wall_ms = sim_wall};
    s->now_ms = 1000;
    s->disk = sim_disk_new(&s->rng, vfs);
    s->options = dm_options_default();
    s->options.state_path = "state.db";
    s->options.failures_max = 1000;
    s->options.losses_max = 0;
    s->options.retain.worker_days = 1; /* clocks jump by as much */
    s->options.drain_after = 0;
    s->env = (dm_env){.ctx = s,
                      .clock = &s->clock,
                      .seed = seed,
                      .vfs = vfs,
                      .send = sim_out,
                      .has_version = has_version,
                      .drop_version = drop_version};
    sim_peers_start(s);
    sim_fair_start(s);
    open_coordinator(s);
    for (int64_t i = 0; i < steps; i++)
        step(s);
    finish(s);
    out->simulated_ms = s->now_ms;
    out->torn = sim_disk_torn(s->disk);
    dm_coord_close(&s->c);
    sim_fair_stop(s);
    sim_peers_stop(s);
    sim_disk_free(&s->disk);
    es_map_free(&s->versions);
    es_map_free(&s->accepted_by_job);
    es_map_free(&s->trained);
    es_map_free(&s->trained_weights);
    free(s->accepted);
    free(s->finishes);
    free(s->doubt);
    free(s->found);
    free(s->jobs);
    free(s->moves);
    free(s);
}
