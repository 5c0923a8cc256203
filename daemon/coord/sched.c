#include "daemon/coord/sched.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/fair.h"
#include "daemon/coord/fit.h"
#include "daemon/coord/gang.h"
#include "daemon/coord/turn.h"
#include "daemon/coord/worker.h"

/* Wire job kinds 1 to 8. */
static const uint32_t all_kinds = 0x1fe;

static void window_push(dm_search *s, const dm_ready *r)
{
    if (s->window_at > 0 && s->window_at + s->window_n == DM_WINDOW) {
        memmove(s->window, s->window + s->window_at, (size_t)s->window_n * sizeof s->window[0]);
        s->window_at = 0;
    }
    s->window[s->window_at + s->window_n++] = *r;
}

void dm_sched_added(dm_search *s, const dm_ready *r)
{
    if (!s->more && s->window_n < DM_WINDOW)
        window_push(s, r);
    else
        s->more = true;
    s->c->dirty = true;
}

void dm_sched_later(dm_search *s, int64_t due_ms)
{
    if (due_ms < s->due_ms)
        s->due_ms = due_ms;
}

/* A time further away than any backoff comes from a clock that has been set back: nobody waits a day for that. */
bool dm_sched_due(const dm_search *s)
{
    return s->due_ms <= s->c->wall_ms || (s->due_ms != INT64_MAX && s->due_ms > s->c->wall_ms + s->c->o.backoff_max_ms);
}

void dm_sched_took(dm_lease *l)
{
    if (l->kind < 0 || l->kind >= 16)
        return;
    double *mean = &l->search->took_ms[l->kind], ms = (double)(l->search->c->now_ms - l->began_ms);
    *mean = *mean > 0 ? *mean + (ms - *mean) / 4 : ms;
}

static es_status window_fill(dm_coord *c, dm_search *s, es_error *err)
{
    bool due = dm_sched_due(s);
    if (s->window_n > 0 || (!s->more && !due))
        return ES_OK;
    int64_t next, now = due && s->due_ms > c->wall_ms ? s->due_ms : c->wall_ms;
    s->window_at = 0;
    ES_RETURN(dm_job_ready(c->store, s->id, now, DM_WINDOW, s->window, &s->window_n, &next, err));
    s->more = next <= now;
    s->due_ms = s->more ? INT64_MAX : next;
    return ES_OK;
}

/* Whether the job, which comes after the gang that holds w, is over before that gang is whole. */
static bool over_in_time(const dm_coord *c, const dm_search *s, const dm_ready *r)
{
    double took = r->kind < 16 ? s->took_ms[r->kind] : 0;
    return took > 0 && (double)c->now_ms + took <= (double)c->hold_until_ms;
}

static void sched_wake_at(dm_coord *c, int64_t at_ms)
{
    if (at_ms < c->sched_at_ms)
        c->sched_at_ms = at_ms;
}

/* The window's first job for the worker, or -1. *room false: it is for this worker, but not beside what that holds: nothing after it goes there either,
 * or it would wait for ever. */
static int window_find(dm_coord *c, const dm_search *s, const dm_worker *w, bool behind_hold, bool *room)
{
    for (int i = 0; i < s->window_n; i++) {
        const dm_ready *r = &s->window[s->window_at + i];
        bool gang = dm_gang_size(s, r->kind) > 1;
        if (gang && (behind_hold || s->hold.tried == c->sched_run || s->hold.rest_until_ms > c->now_ms))
            continue;
        dm_fit fit = dm_fits(c, w, r);
        *room = fit == DM_FITS;
        if (behind_hold ? fit == DM_FITS && over_in_time(c, s, r) : fit == DM_FITS || fit == DM_NO_ROOM)
            return i;
        c->sched_blocked = c->sched_blocked || fit != DM_NEVER_FITS;
        if (fit == DM_ASKED) /* until the others are gone, or cannot be expected any more */
            sched_wake_at(c, c->now_ms + c->o.lease_ms);
    }
    return -1;
}

static void window_remove(dm_search *s, int i)
{
    dm_ready *w = s->window + s->window_at;
    if (i == 0)
        s->window_at++;
    else
        memmove(w + i, w + i + 1, (size_t)(s->window_n - i - 1) * sizeof *w);
    if (--s->window_n == 0)
        s->window_at = 0;
}

/* Whether a comes before b. */
static bool sched_before(const dm_search *a, const dm_search *b)
{
    return a->priority != b->priority ? a->priority > b->priority : dm_fair_before(a, b);
}

es_status dm_sched_waiting(dm_search *s, const dm_ready **jobs, int *n, es_error *err)
{
    ES_RETURN(window_fill(s->c, s, err));
    *jobs = s->window + s->window_at;
    *n = s->window_n;
    return ES_OK;
}

static es_status sched_pick(dm_coord *c, const dm_worker *w, dm_search **best, int *at, es_error *err)
{
    bool held = c->hold && strcmp(w->machine_kind, c->hold_kind) == 0;
    bool best_room = true, room;
    *best = NULL;
    for (int i = 0; i < c->searches_n; i++) {
        dm_search *s = c->searches[i];
        if (s->state != DM_SEARCH_RUNNING || (*best && s->priority < (*best)->priority))
            continue;
        ES_RETURN(window_fill(c, s, err));
        if (s->window_n == 0 || (*best && !sched_before(s, *best)))
            continue;
        int k = window_find(c, s, w, held && (s == c->hold || sched_before(c->hold, s)), &room);
        if (k >= 0) {
            *best = s;
            *at = k;
            best_room = room;
        }
    }
    if (!best_room) {
        *best = NULL;
        c->sched_blocked = true;
    }
    return ES_OK;
}

/* ---- grants */

typedef struct grants {
    Espalier__Wire__Granted granted[DM_LEASES_PER_MESSAGE];
    Espalier__Wire__Granted *list[DM_LEASES_PER_MESSAGE];
    Espalier__Wire__Lease lease[DM_LEASES_PER_MESSAGE];
    Espalier__Wire__Gang gang[DM_LEASES_PER_MESSAGE];
    uint8_t *spec[DM_LEASES_PER_MESSAGE];
    size_t n, bytes;
} grants;

static void grants_send(dm_coord *c, grants *g, dm_worker *w, uint64_t request_id)
{
    Espalier__Wire__LeaseBatch b = ESPALIER__WIRE__LEASE_BATCH__INIT;
    if (g->n == 0)
        return;
    b.n_granted = g->n;
    b.granted = g->list;
    dm_coord_reply(c, &w->addr, request_id, &DM_TO_PEER(LEASES, leases, &b));
    for (size_t i = 0; i < g->n; i++)
        free(g->spec[i]);
    g->n = g->bytes = 0;
}

/* The stored spec plus the search's text. */
static es_status spec_complete(dm_coord *c, const dm_lease *l, dm_bytes *out, es_error *err)
{
    dm_job_row row;
    ProtobufCMessage *base = NULL;
    out->data = NULL;
    out->n = 0;
    ES_RETURN(dm_job_get(c->store, l->job, &row, err));
    es_status s = dm_decode(&espalier__wire__job_spec__descriptor, row.spec, row.spec_bytes, &base, err);
    if (s == ES_OK) {
        dm_job_spec copy = *(dm_job_spec *)base; /* shallow: borrows from base */
        copy.search_text = l->search->text;
        copy.length_from = dm_text(""); /* not for workers */
        copy.length_agreed = false;
        s = dm_encode(&copy.base, DM_CONTROL_MAX, out, err);
    }
    dm_message_free(&base);
    dm_job_row_free(&row);
    return s;
}

static es_status grants_add(dm_coord *c, grants *g, const dm_lease *l, es_error *err)
{
    size_t i = g->n;
    dm_bytes spec = {0};
    if (l->kind != ESPALIER__WIRE__JOB_KIND__JOB_NOOP)
        ES_RETURN(spec_complete(c, l, &spec, err));
    espalier__wire__lease__init(&g->lease[i]);
    g->lease[i].job = (uint64_t)l->job;
    g->lease[i].attempt = (uint32_t)l->attempt;
    espalier__wire__granted__init(&g->granted[i]);
    g->granted[i].lease = &g->lease[i];
    g->granted[i].search = (uint64_t)l->search->id;
    g->granted[i].kind = (Espalier__Wire__JobKind)l->kind;
    g->granted[i].spec = (ProtobufCBinaryData){.len = spec.n, .data = spec.data};
    if (l->gang) {
        espalier__wire__gang__init(&g->gang[i]);
        g->gang[i].rank = (uint32_t)l->rank;
        g->gang[i].size = (uint32_t)l->gang->size;
        g->granted[i].gang = &g->gang[i];
    }
    g->list[i] = &g->granted[i];
    g->spec[i] = spec.data;
    g->bytes += spec.n + 64;
    g->n++;
    return ES_OK;
}

static bool grants_full(const grants *g) { return g->n == DM_LEASES_PER_MESSAGE || g->bytes > DM_CONTROL_MAX / 2; }

/* The job of the window is running from here on, on all of `w`. */
static es_status sched_lease(dm_coord *c, dm_search *s, int at, dm_worker **w, int n, dm_lease **out, es_error *err)
{
    dm_ready r = s->window[s->window_at + at];
    dm_job_move_args m = {.id = r.id,
                          .search = s->id,
                          .from = DM_JOB_READY,
                          .to = DM_JOB_RUNNING,
                          .why = "leased",
                          .now_ms = c->wall_ms,
                          .worker = w[0]->id,
                          .attempt = r.attempt + 1};
    window_remove(s, at);
    ES_RETURN(dm_job_move(c->store, &m, err));
    s->served = ++c->serial;
    for (int i = 0; i < n; i++)
        w[i]->want--;
    if (n > 1)
        return dm_gang_add(c, s, w, n, &r, r.attempt + 1, out, err);
    *out = dm_lease_add(c, s, w[0], &r, r.attempt + 1);
    if (r.kind != ESPALIER__WIRE__JOB_KIND__JOB_NOOP)
        es_log(ES_LOG_INFO,
               "job leased job=%" PRId64 " attempt=%" PRId64 " search=%" PRId64 " worker=%" PRId64 " kind=%s", r.id,
               r.attempt + 1, s->id, w[0]->id, dm_job_kind_name(r.kind));
    return ES_OK;
}

/* ---- gangs */

/* The gang is next and cannot start: it keeps the free workers of a kind on which it can be whole, for a while. */
static void gang_hold(dm_coord *c, dm_search *s, const dm_ready *r, int size)
{
    dm_hold *h = &s->hold;
    int most, free_now;
    int64_t whole_ms;
    const char *kind = dm_gang_outlook(c, r, size, &most, &free_now, &whole_ms);
    h->tried = c->sched_run;
    if (most < size || c->hold) {
        h->since_ms = 0;
        return;
    }
    if (h->limit_ms == 0)
        h->limit_ms = c->o.hold_ms;
    if (h->since_ms == 0)
        h->since_ms = c->now_ms;
    if (c->now_ms - h->since_ms >= h->limit_ms) {
        h->rest_until_ms = c->now_ms + h->limit_ms;
        h->limit_ms *= 2;
        h->since_ms = 0;
        sched_wake_at(c, h->rest_until_ms);
        return;
    }
    c->hold = s;
    c->hold_until_ms = whole_ms;
    snprintf(c->hold_kind, sizeof c->hold_kind, "%s", kind);
    sched_wake_at(c, h->since_ms + h->limit_ms);
}

/* Starts the gang whole, or holds workers for it. */
static es_status sched_gang(dm_coord *c, dm_search *s, int at, int size, es_error *err)
{
    const dm_ready r = s->window[s->window_at + at];
    dm_worker **w;
    dm_lease *rank0;
    if (!dm_gang_find(c, &r, size, &w)) {
        gang_hold(c, s, &r, size);
        return ES_OK;
    }
    s->hold = (dm_hold){0};
    grants *g = es_xcalloc(1, sizeof *g);
    es_status status = sched_lease(c, s, at, w, size, &rank0, err);
    for (int i = 0; i < size && status == ES_OK; i++) {
        status = grants_add(c, g, rank0->gang->rank[i], err);
        grants_send(c, g, w[i], w[i]->want_id);
    }
    free(g);
    free(w);
    return status;
}

static es_status sched_serve(dm_coord *c, dm_worker *w, grants *g, es_error *err)
{
    es_status status = ES_OK;
    while (status == ES_OK && w->want > 0) {
        dm_search *s;
        dm_lease *l;
        int at = 0;
        status = sched_pick(c, w, &s, &at, err);
        if (status != ES_OK || !s)
            break;
        int size = dm_gang_size(s, s->window[s->window_at + at].kind);
        if (size > 1) {
            status = sched_gang(c, s, at, size, err);
            continue;
        }
        status = sched_lease(c, s, at, &w, 1, &l, err);
        if (status == ES_OK)
            status = grants_add(c, g, l, err);
        if (grants_full(g))
            grants_send(c, g, w, w->want_id);
    }
    grants_send(c, g, w, w->want_id);
    return status;
}

static void sched_begin(dm_coord *c)
{
    dm_worker *w;
    c->sched_run++;
    c->sched_at_ms = INT64_MAX;
    c->hold = NULL;
    if (!c->fleet_changed)
        return;
    c->fleet_changed = false;
    c->memory_most = 0;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;)
        if (w->online && !w->drained[0] && w->memory_bytes > c->memory_most)
            c->memory_most = w->memory_bytes;
}

es_status dm_sched_run(dm_coord *c, es_error *err)
{
    for (int i = 0; i < c->searches_n && !c->dirty; i++)
        c->dirty = dm_sched_due(c->searches[i]);
    if (!c->want_first) { /* whoever wants work next makes it dirty */
        c->sched_at_ms = INT64_MAX;
        return ES_OK;
    }
    if (!c->dirty && c->now_ms < c->sched_at_ms)
        return ES_OK;
    sched_begin(c);
    grants *g = es_xcalloc(1, sizeof *g);
    es_status s = ES_OK;
    for (dm_worker *w = c->want_first, *next; w && s == ES_OK; w = next) {
        uint32_t before = w->want;
        c->sched_blocked = false;
        s = sched_serve(c, w, g, err);
        next = w->want_next; /* only now: others may have become ranks of a gang */
        if (w->want == 0)
            dm_worker_want(c, w, 0, 0);
        else if (w->want == before && (w->kinds & all_kinds) == all_kinds && !c->sched_blocked)
            break; /* a worker that does everything got nothing: nobody will */
    }
    for (dm_worker *w = c->want_first, *next; w; w = next) { /* ranks of gangs whose leader came before or after them */
        next = w->want_next;
        if (w->want == 0)
            dm_worker_want(c, w, 0, 0);
    }
    c->dirty = false;
    c->hold = NULL; /* of this run only: others ask what is free, too */
    free(g);
    return s;
}

es_status dm_sched_send_again(dm_coord *c, dm_worker *w, uint32_t n, uint64_t request_id, uint32_t *sent, es_error *err)
{
    grants *g = es_xcalloc(1, sizeof *g);
    es_status s = ES_OK;
    *sent = 0;
    for (dm_lease *l = w->leases; l && s == ES_OK && *sent < n; l = l->next) {
        if (l->confirmed)
            continue;
        s = grants_add(c, g, l, err);
        (*sent)++;
        if (grants_full(g))
            grants_send(c, g, w, request_id);
    }
    grants_send(c, g, w, request_id);
    free(g);
    return s;
}
