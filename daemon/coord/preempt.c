#include "daemon/coord/preempt.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/finish.h"
#include "daemon/coord/fit.h"
#include "daemon/coord/gang.h"
#include "daemon/coord/sched.h"
#include "daemon/coord/turn.h"
#include "daemon/coord/worker.h"

enum { EVERY_MS = 200 };

void dm_preempt_push(dm_coord *c, const dm_lease *l)
{
    if (!l->worker->online)
        return;
    Espalier__Wire__HeartbeatReply h = ESPALIER__WIRE__HEARTBEAT_REPLY__INIT;
    dm_lease_id id = ESPALIER__WIRE__LEASE__INIT, *list[] = {&id};
    id.job = (uint64_t)l->job;
    id.attempt = (uint32_t)l->attempt;
    h.n_preempt = 1;
    h.preempt = list;
    dm_coord_reply(c, &l->worker->addr, 0, &DM_TO_PEER(HEARTBEAT, heartbeat, &h));
}

/* Workers that this job could have soon: with a free slot, or being cleared for somebody of no higher priority. */
static int room_coming(const dm_coord *c, const dm_search *s, const dm_ready *r, const char *kind)
{
    dm_worker *w;
    int n = 0;
    for (size_t i = 0; (w = es_map_next(&c->workers, &i)) != NULL;) {
        bool clearing = false;
        if (!dm_would_fit(c, w, r) || (kind && strcmp(w->machine_kind, kind) != 0))
            continue;
        for (const dm_lease *l = w->leases; l; l = l->next)
            clearing = clearing || (l->preempt && l->search->priority < s->priority);
        n += clearing || (w->held < w->slots && dm_fits(c, w, r) == DM_FITS);
    }
    return n;
}

static dm_lease *victim(const dm_coord *c, const dm_search *s, const dm_ready *r, const char *kind)
{
    dm_lease *l, *best = NULL;
    for (size_t i = 0; (l = es_map_next(&c->leases, &i)) != NULL;) {
        if (!dm_kind_trains(l->kind) || l->preempt || l->search->priority >= s->priority ||
            !dm_would_fit(c, l->worker, r) || (kind && strcmp(l->worker->machine_kind, kind) != 0))
            continue;
        if (!best || l->search->priority < best->search->priority ||
            (l->search->priority == best->search->priority && l->began_ms > best->began_ms))
            best = l;
    }
    return best;
}

static void preempt(dm_coord *c, dm_lease *l, const dm_search *s)
{
    es_log(ES_LOG_INFO, "preempted job=%" PRId64 " attempt=%" PRId64 " priority=%" PRId64 " for search=%" PRId64,
           l->job, l->attempt, l->search->priority, s->id);
    dm_lease_preempt(l, true);
    for (int i = 0; l->gang && i < l->gang->size; i++)
        if (l->gang->rank[i])
            dm_preempt_push(c, l->gang->rank[i]);
    if (!l->gang)
        dm_preempt_push(c, l);
}

static void preempt_for(dm_coord *c, const dm_search *s, const dm_ready *jobs, int n)
{
    int ranks = dm_gang_size(s, jobs[0].kind), most, free_now, need = n;
    int64_t whole_ms;
    const char *kind = NULL;
    if (ranks > 1) {
        kind = dm_gang_outlook(c, &jobs[0], ranks, &most, &free_now, &whole_ms);
        if (most < ranks)
            return;
        need = ranks;
    }
    need -= room_coming(c, s, &jobs[0], kind);
    for (dm_lease *l; need > 0 && (l = victim(c, s, &jobs[0], kind)) != NULL; need -= l->gang ? l->gang->left : 1)
        preempt(c, l, s);
}

es_status dm_sched_preempt(dm_coord *c, es_error *err)
{
    int64_t lowest = INT64_MAX;
    dm_lease *l;
    if (c->now_ms < c->preempt_at_ms)
        return ES_OK;
    c->preempt_at_ms = c->now_ms + EVERY_MS;
    for (size_t i = 0; (l = es_map_next(&c->leases, &i)) != NULL;)
        if (dm_kind_trains(l->kind) && !l->preempt && l->search->priority < lowest)
            lowest = l->search->priority;
    for (int i = 0; i < c->searches_n; i++) {
        dm_search *s = c->searches[i];
        const dm_ready *jobs;
        int n;
        if (s->state != DM_SEARCH_RUNNING || s->priority <= lowest)
            continue;
        ES_RETURN(dm_sched_waiting(s, &jobs, &n, err));
        if (n > 0)
            preempt_for(c, s, jobs, n);
    }
    return ES_OK;
}
