#include "daemon/coord/retry.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/search.h"
#include "daemon/coord/turn.h"

enum { RETRY_JOBS = 500 }; /* looked at in a turn */

static es_status retry_allowed(dm_coord *c, int64_t search, es_error *why, es_error *err)
{
    dm_search_row r;
    es_status s = dm_search_get(c->store, search, &r, err);
    dm_search_state state = r.state;
    dm_search_row_free(&r);
    if (s == ES_NOT_FOUND)
        es_fail(why, s, NULL, "there is no search %" PRId64, search);
    else if (s == ES_OK && state != DM_SEARCH_FAILED)
        es_fail(why, ES_INVALID, NULL, "search %" PRId64 " is %s, only a failed one can be retried", search,
                dm_search_state_name(state));
    return s == ES_NOT_FOUND ? ES_OK : s;
}

es_status dm_retry_begin(dm_coord *c, const dm_addr *from, uint64_t id, int64_t search, es_error *why, es_error *err)
{
    ES_RETURN(retry_allowed(c, search, why, err));
    if (why->code != ES_OK)
        return ES_OK;
    int i = 0;
    while (i < c->retries_n && c->retries[i].search != search)
        i++;
    if (i == DM_RETRIES) {
        es_fail(why, ES_BUSY, NULL, "%d searches are on their way back already: ask again in a moment", DM_RETRIES);
        return ES_OK;
    }
    if (i == c->retries_n)
        c->retries[c->retries_n++] = (dm_retry){.search = search};
    c->retries[i].from = *from; /* said again: the later one is who hears the answer */
    c->retries[i].request = id;
    return ES_OK;
}

void dm_retries_refuse(dm_coord *c, const es_error *why)
{
    for (int i = 0; i < c->retries_n; i++)
        dm_coord_refuse(c, &c->retries[i].from, c->retries[i].request, why);
    c->retries_n = 0;
}

/* All its failed jobs are ready. */
static es_status retry_end(dm_coord *c, es_error *err)
{
    dm_retry r = c->retries[0];
    es_error how = {.code = ES_OK};
    memmove(c->retries, c->retries + 1, (size_t)--c->retries_n * sizeof c->retries[0]);
    ES_RETURN(retry_allowed(c, r.search, &how, err)); /* turns have passed: it may have been deleted */
    if (how.code == ES_OK) {
        snprintf(how.text, sizeof how.text, "goes on: %" PRId64 " failed job%s every attempt again", r.revived,
                 r.revived == 1 ? " gets" : "s get");
        es_log(ES_LOG_INFO, "retried search=%" PRId64 " jobs=%" PRId64, r.search, r.revived);
        ES_RETURN(dm_search_move(c->store, r.search, DM_SEARCH_FAILED, DM_SEARCH_RUNNING, NULL, c->wall_ms, err));
        ES_RETURN(dm_search_load(c, r.search, err));
    }
    dm_coord_done(c, &r.from, r.request, &how);
    return ES_OK;
}

es_status dm_retry_turn(dm_coord *c, es_error *err)
{
    if (c->retries_n == 0)
        return ES_OK;
    dm_retry *r = &c->retries[0];
    int64_t ids[RETRY_JOBS];
    int n;
    bool more;
    ES_RETURN(dm_job_failed_after(c->store, r->search, r->key, RETRY_JOBS, ids, &n, &more, err));
    for (int i = 0; i < n; i++) {
        dm_job_move_args m = {
            .id = ids[i], .search = r->search, .from = DM_JOB_FAILED, .to = DM_JOB_READY, .why = "retried"};
        ES_RETURN(dm_job_move(c->store, &m, err));
    }
    r->revived += n;
    return more ? ES_OK : retry_end(c, err);
}
