#include "daemon/coord/fit.h"

#include <stdlib.h>
#include <string.h>

static bool takes_kind(const dm_worker *w, int kind) { return w->online && !w->drained[0] && (w->kinds >> kind & 1); }

static bool is_alone(int kind) { return kind == ESPALIER__WIRE__JOB_KIND__JOB_MEASURE_LATENCY; }

static bool memory_suffices(const dm_coord *c, const dm_worker *w, const dm_ready *r)
{
    return w->memory_bytes == 0 || (uint64_t)r->memory_bytes <= w->memory_bytes || w->memory_bytes >= c->memory_most;
}

uint32_t dm_worker_key(const dm_worker *w)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    const char *end = strchr(w->name, '/');
    for (const char *p = w->name; end && p < end; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    return end ? h | 1 : 0;
}

bool dm_others_may(const dm_coord *c, const dm_ready *r)
{
    dm_worker *w;
    if (c->now_ms - c->loaded_ms < c->o.lease_ms)
        return true;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;)
        if (dm_worker_key(w) != r->asked && dm_would_fit(c, w, r))
            return true;
    return false;
}

dm_fit dm_fits(const dm_coord *c, const dm_worker *w, const dm_ready *r)
{
    if (!takes_kind(w, r->kind))
        return DM_NEVER_FITS;
    if (!memory_suffices(c, w, r))
        return DM_TOO_SMALL;
    if (r->asked && dm_worker_key(w) == r->asked && dm_others_may(c, r))
        return DM_ASKED;
    if (w->held == 0)
        return DM_FITS;
    if (is_alone(r->kind) || is_alone(w->leases->kind)) /* what is alone is the only one */
        return DM_NO_ROOM;
    if (w->memory_bytes && (uint64_t)(w->memory_used + r->memory_bytes) > w->memory_bytes)
        return DM_NO_ROOM;
    return DM_FITS;
}

bool dm_would_fit(const dm_coord *c, const dm_worker *w, const dm_ready *r)
{
    return takes_kind(w, r->kind) && memory_suffices(c, w, r);
}

/* ---- gangs */

static bool is_free(const dm_coord *c, const dm_worker *w, const dm_ready *r)
{
    return w->want > 0 && w->held == 0 && dm_fits(c, w, r) == DM_FITS &&
           !(c->hold && strcmp(w->machine_kind, c->hold_kind) == 0);
}

bool dm_gang_find(dm_coord *c, const dm_ready *r, int size, dm_worker ***out)
{
    dm_worker **list = es_xcalloc((size_t)size, sizeof *list);
    for (dm_worker *first = c->want_first; first; first = first->want_next) {
        int n = 0;
        const char *kind = first->machine_kind;
        bool seen = false;
        for (dm_worker *w = c->want_first; w != first && !seen; w = w->want_next)
            seen = strcmp(w->machine_kind, kind) == 0; /* this kind has been looked at */
        for (dm_worker *w = first; w && n < size && !seen; w = w->want_next)
            if (strcmp(w->machine_kind, kind) == 0 && is_free(c, w, r))
                list[n++] = w;
        if (n == size) {
            *out = list;
            return true;
        }
    }
    free(list);
    return false;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* When the worker is expected to hold nothing; 0: nobody knows. */
static int64_t free_at(const dm_coord *c, const dm_worker *w)
{
    int64_t at = c->now_ms;
    for (const dm_lease *l = w->leases; l; l = l->next) {
        double took = l->kind < 16 ? l->search->took_ms[l->kind] : 0;
        if (took <= 0)
            return 0;
        int64_t end = l->began_ms + (int64_t)took;
        at = end > at ? end : at;
    }
    return at;
}

static int64_t whole_at(const dm_coord *c, const char *kind, const dm_ready *r, int size, int able)
{
    dm_worker *w;
    int n = 0;
    int64_t *at = es_xcalloc((size_t)able, sizeof *at);
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;)
        if (dm_would_fit(c, w, r) && strcmp(w->machine_kind, kind) == 0 && n < able) {
            int64_t free_ms = free_at(c, w);
            at[n++] = free_ms ? free_ms : INT64_MAX;
        }
    qsort(at, (size_t)n, sizeof *at, by_time);
    int64_t whole = size <= n && at[size - 1] != INT64_MAX ? at[size - 1] : 0;
    free(at);
    return whole;
}

const char *dm_gang_outlook(const dm_coord *c, const dm_ready *r, int size, int *most, int *free_now, int64_t *whole_ms)
{
    enum { KINDS = 32 }; /* machine kinds of one fleet; those beyond get no gangs */
    struct {
        const char *kind;
        int able, free;
    } kinds[KINDS];
    int n = 0, best = 0;
    dm_worker *w;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;) {
        int k = 0;
        if (!dm_would_fit(c, w, r))
            continue;
        while (k < n && strcmp(kinds[k].kind, w->machine_kind) != 0)
            k++;
        if (k == KINDS)
            continue;
        if (k == n) {
            kinds[n].kind = w->machine_kind;
            kinds[n].able = kinds[n].free = 0;
            n++;
        }
        kinds[k].able++;
        kinds[k].free += is_free(c, w, r);
    }
    for (int k = 1; k < n; k++) {
        bool enough = kinds[k].able >= size, had = kinds[best].able >= size;
        if (enough != had ? enough : enough ? kinds[k].free > kinds[best].free : kinds[k].able > kinds[best].able)
            best = k;
    }
    *most = n ? kinds[best].able : 0;
    *free_now = n ? kinds[best].free : 0;
    *whole_ms = *most >= size ? whole_at(c, kinds[best].kind, r, size, *most) : 0;
    return n ? kinds[best].kind : "";
}
