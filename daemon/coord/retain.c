#include "daemon/coord/retain.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"

enum { RETAIN_SEARCHES = 16, RETAIN_PAUSE_MS = 20, RETAIN_WORKERS = 200 };

static bool older_than(const dm_coord *c, int64_t ms, int days)
{
    return days > 0 && c->wall_ms - ms > (int64_t)days * 86400000;
}

/* Says why the weights of a search that is over go; NULL: they stay. */
static es_status retain_why(dm_coord *c, const dm_retain_row *r, const char **why, es_error *err)
{
    const dm_retention *o = &c->o.retain;
    int64_t newer;
    *why = NULL;
    if (r->deleted)
        *why = "deleted";
    else if (r->state == DM_SEARCH_CANCELLED)
        *why = "cancelled";
    else if (r->pinned)
        return ES_OK;
    else if (r->state == DM_SEARCH_FAILED && older_than(c, r->ended_ms, o->failed_days))
        *why = "failed and was not retried";
    else if (r->state == DM_SEARCH_DONE && older_than(c, r->ended_ms, o->final_days)) {
        ES_RETURN(dm_retain_newer(c->store, r->ended_ms, o->final_searches, &newer, err));
        *why = newer >= o->final_searches ? "done long ago" : NULL;
    }
    return ES_OK;
}

static es_status retain_search(dm_coord *c, const dm_retain_row *r, es_error *err)
{
    const char *why;
    if (r->state == DM_SEARCH_RUNNING || r->state == DM_SEARCH_PAUSED)
        return ES_OK;
    if (r->state == DM_SEARCH_DONE && r->work && !r->pinned)
        ES_RETURN(dm_retain_release_work(c->store, r->id, err));
    ES_RETURN(retain_why(c, r, &why, err));
    if (!why)
        return ES_OK;
    es_log(ES_LOG_INFO, "weights let go search=%" PRId64 ": %s", r->id, why);
    return dm_retain_release_all(c->store, r->id, err);
}

es_status dm_retain_turn(dm_coord *c, es_error *err)
{
    dm_retain_row r;
    bool busy = false, over = true;
    if (c->now_ms < c->retain_at_ms)
        return ES_OK;
    for (int i = 0; i < RETAIN_SEARCHES; i++) {
        es_status s = dm_retain_next(c->store, c->retain_cursor, &r, err);
        if (s == ES_NOT_FOUND) {
            c->retain_cursor = 0;
            break;
        }
        ES_RETURN(s);
        ES_RETURN(retain_search(c, &r, err));
        c->retain_cursor = r.id;
        over = i + 1 < RETAIN_SEARCHES;
    }
    int64_t id = 0;
    es_status s;
    do
        s = dm_search_purge(c->store, id, &id, &busy, err);
    while (s == ES_OK && !busy);
    if (s != ES_OK && s != ES_NOT_FOUND)
        return s;
    c->retain_at_ms = c->now_ms + (busy || !over ? RETAIN_PAUSE_MS : c->o.retain.every_ms);
    return ES_OK;
}

/* Workers come and go by the thousand on a cluster. A row that nobody was heard of under for worker_days is of no use: what such a worker did names it by its
 * number, in attempts, and by its name, in events. Those in memory are connected, or hold a lease. */
es_status dm_retain_workers(dm_coord *c, es_error *err)
{
    int64_t id, limit = c->wall_ms - (int64_t)c->o.retain.worker_days * 86400000;
    int gone = 0;
    for (int i = 0; i < RETAIN_WORKERS && c->o.retain.worker_days > 0; i++) {
        es_status s = dm_worker_stale(c->store, limit, &id, err);
        if (s == ES_NOT_FOUND)
            break;
        ES_RETURN(s);
        bool here = es_map_get(&c->workers, (uint64_t)id) != NULL;
        ES_RETURN(here ? dm_worker_seen(c->store, id, c->wall_ms, err) : dm_worker_delete(c->store, id, err));
        gone += !here;
    }
    if (gone > 0)
        es_log(ES_LOG_INFO, "workers forgotten n=%d: not heard of for %d days", gone, c->o.retain.worker_days);
    return ES_OK;
}

/* delete, pin, unpin */
es_status dm_retain_command(dm_coord *c, int64_t id, Espalier__Wire__Verb verb, es_error *why, es_error *err)
{
    dm_search_row r;
    if (dm_search_get(c->store, id, &r, why) != ES_OK)
        return ES_OK;
    why->code = ES_OK;
    bool live = r.state == DM_SEARCH_RUNNING || r.state == DM_SEARCH_PAUSED, noop = strcmp(r.driver, "noop") == 0;
    const char *state = dm_search_state_name(r.state);
    dm_search_row_free(&r);
    c->retain_at_ms = c->now_ms;
    if (verb != ESPALIER__WIRE__VERB__VERB_DELETE)
        return dm_search_set_pinned(c->store, id, verb == ESPALIER__WIRE__VERB__VERB_PIN, err);
    if (live || noop) {
        es_fail(why, ES_INVALID, NULL, "search %" PRId64 " is %s: %s", id, noop ? "the queue's own" : state,
                noop ? "it stays" : "cancel it first, then it can be deleted");
        return ES_OK;
    }
    es_log(ES_LOG_INFO, "search deleted search=%" PRId64, id);
    return dm_search_set_deleted(c->store, id, c->wall_ms, err);
}
