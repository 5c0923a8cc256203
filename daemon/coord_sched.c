/* Who gets which job: higher priority first; within a priority the user, then the search, with the fewest running jobs; ties to whoever waited longest.
 *
 * Ready jobs stay in the database; each search has a window of the oldest ones in memory, filled when it is empty. So a million waiting jobs cost no
 * memory, and picking costs the same with ten of them or ten million. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord_internal.h"

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

/* The window's first job of a kind the worker does, or -1. */
static int window_find(const dm_search *s, uint32_t kinds)
{
    for (int i = 0; i < s->window_n; i++)
        if (kinds >> s->window[s->window_at + i].kind & 1)
            return i;
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

static int64_t user_running(const dm_coord *c, const char *user)
{
    int64_t n = 0;
    for (int i = 0; i < c->searches_n; i++)
        if (strcmp(c->searches[i]->user, user) == 0)
            n += c->searches[i]->running;
    return n;
}

/* Whether a comes before b. */
static bool sched_before(const dm_coord *c, const dm_search *a, const dm_search *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (strcmp(a->user, b->user) != 0) {
        int64_t ua = user_running(c, a->user), ub = user_running(c, b->user);
        if (ua != ub)
            return ua < ub;
    }
    if (a->running != b->running)
        return a->running < b->running;
    return a->served != b->served ? a->served < b->served : a->id < b->id;
}

static es_status sched_pick(dm_coord *c, uint32_t kinds, dm_search **best, int *at, es_error *err)
{
    *best = NULL;
    for (int i = 0; i < c->searches_n; i++) {
        dm_search *s = c->searches[i];
        if (s->state != DM_SEARCH_RUNNING || (*best && s->priority < (*best)->priority))
            continue;
        ES_RETURN(window_fill(c, s, err));
        int k = window_find(s, kinds);
        if (k >= 0 && (!*best || sched_before(c, s, *best))) {
            *best = s;
            *at = k;
        }
    }
    return ES_OK;
}

/* ---- grants */

typedef struct grants {
    Espalier__Wire__Granted granted[DM_LEASES_PER_MESSAGE];
    Espalier__Wire__Granted *list[DM_LEASES_PER_MESSAGE];
    Espalier__Wire__Lease lease[DM_LEASES_PER_MESSAGE];
    uint8_t *spec[DM_LEASES_PER_MESSAGE];
    size_t n, bytes;
} grants;

static void grants_send(dm_coord *c, grants *g, dm_worker *w, uint64_t request_id)
{
    Espalier__Wire__LeaseBatch b = ESPALIER__WIRE__LEASE_BATCH__INIT;
    dm_to_peer m = ESPALIER__WIRE__TO_PEER__INIT;
    if (g->n == 0)
        return;
    b.n_granted = g->n;
    b.granted = g->list;
    m.what_case = ESPALIER__WIRE__TO_PEER__WHAT_LEASES;
    m.leases = &b;
    dm_coord_reply(c, &w->addr, request_id, &m);
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
    g->list[i] = &g->granted[i];
    g->spec[i] = spec.data;
    g->bytes += spec.n + 64;
    g->n++;
    return ES_OK;
}

static bool grants_full(const grants *g) { return g->n == DM_LEASES_PER_MESSAGE || g->bytes > DM_CONTROL_MAX / 2; }

static es_status sched_lease(dm_coord *c, dm_search *s, int at, dm_worker *w, dm_lease **out, es_error *err)
{
    dm_ready r = s->window[s->window_at + at];
    dm_job_move_args m = {.id = r.id,
                          .search = s->id,
                          .from = DM_JOB_READY,
                          .to = DM_JOB_RUNNING,
                          .why = "leased",
                          .now_ms = c->wall_ms,
                          .worker = w->id,
                          .attempt = r.attempt + 1};
    window_remove(s, at);
    ES_RETURN(dm_job_move(c->store, &m, err));
    s->served = ++c->serial;
    *out = dm_lease_add(c, s, w, &r, r.attempt + 1);
    return ES_OK;
}

static es_status sched_serve(dm_coord *c, dm_worker *w, grants *g, es_error *err)
{
    es_status status = ES_OK;
    while (status == ES_OK && w->want > 0) {
        dm_search *s;
        dm_lease *l;
        int at = 0;
        status = sched_pick(c, w->kinds, &s, &at, err);
        if (status != ES_OK || !s)
            break;
        status = sched_lease(c, s, at, w, &l, err);
        if (status == ES_OK)
            status = grants_add(c, g, l, err);
        w->want--;
        if (grants_full(g))
            grants_send(c, g, w, w->want_id);
    }
    grants_send(c, g, w, w->want_id);
    return status;
}

es_status dm_sched_run(dm_coord *c, es_error *err)
{
    for (int i = 0; i < c->searches_n && !c->dirty; i++)
        c->dirty = dm_sched_due(c->searches[i]);
    if (!c->dirty || !c->want_first)
        return ES_OK;
    grants *g = es_xcalloc(1, sizeof *g);
    es_status s = ES_OK;
    for (dm_worker *w = c->want_first, *next; w && s == ES_OK; w = next) {
        next = w->want_next;
        uint32_t before = w->want;
        s = sched_serve(c, w, g, err);
        if (w->want == 0)
            dm_worker_want(c, w, 0, 0);
        else if (w->want == before && (w->kinds & all_kinds) == all_kinds)
            break; /* a worker that does everything got nothing: nobody will */
    }
    c->dirty = false;
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
