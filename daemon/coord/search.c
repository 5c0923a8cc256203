#include "daemon/coord/search.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/driver.h"
#include "daemon/coord/fair.h"
#include "daemon/coord/retain.h"
#include "daemon/coord/retry.h"
#include "daemon/coord/sched.h"
#include "daemon/coord/turn.h"
#include "daemon/coord/worker.h"

enum { SWEEP_JOBS = 500, NAME_MAX_BYTES = 128, TOKEN_MAX_BYTES = 128 };

dm_search *dm_search_find(dm_coord *c, int64_t id)
{
    for (int i = 0; i < c->searches_n; i++)
        if (c->searches[i]->id == id)
            return c->searches[i];
    return NULL;
}

static void search_free(dm_search *s)
{
    dm_user_leave(s->c, s);
    if (s->driver && s->driver->close)
        s->driver->close(s);
    sn_search_file_destroy(&s->file);
    free(s->name);
    free(s->text);
    free(s);
}

void dm_searches_free(dm_coord *c)
{
    for (int i = 0; i < c->searches_n; i++)
        search_free(c->searches[i]);
    c->searches_n = 0;
}

static es_status search_event(dm_coord *c, const dm_search *s, const char *reason, es_error *err)
{
    dm_event e;
    es_json *j = dm_event_begin(c, &e, "search.state", s, 0, true);
    es_json_str(j, "name", s->name);
    es_json_str(j, "state", dm_search_state_name(s->state));
    es_json_str(j, "phase", s->phase);
    es_json_i64(j, "priority", s->priority);
    es_json_str(j, "reason", reason);
    return dm_event_end(c, &e, err);
}

/* Takes over `file` (NULL for noop). The driver reads its rows here; what is wrong with them ends the search. */
static es_status search_add(dm_coord *c, const dm_search_row *r, sn_search_file *file, dm_search **out, es_error *err)
{
    dm_search *s = es_xcalloc(1, sizeof *s);
    s->c = c;
    s->id = r->id;
    s->priority = r->priority;
    s->state = r->state;
    es_status status = dm_user_join(c, s, r, err);
    s->name = es_xstrdup(r->name);
    s->text = es_xstrdup(r->text);
    snprintf(s->phase, sizeof s->phase, "%s", r->phase ? r->phase : "");
    s->file = file;
    for (int training = 0; training < 2 && file; training++)
        s->memory_bytes[training] = sn_search_file_memory(file, training != 0);
    s->driver = dm_driver_named(r->driver);
    s->more = s->busy = true;
    s->due_ms = INT64_MAX;
    if (c->searches_n == c->searches_cap) {
        c->searches_cap = c->searches_cap ? 2 * c->searches_cap : 16;
        c->searches = es_xrealloc(c->searches, (size_t)c->searches_cap * sizeof(dm_search *));
    }
    c->searches[c->searches_n++] = s;
    c->dirty = true;
    *out = s;
    ES_RETURN(status);
    es_error why;
    if (!s->driver) {
        es_fail(&why, ES_VERSION, NULL, "this program has no driver \"%s\"", r->driver);
        return dm_search_end(c, s, DM_SEARCH_FAILED, why.text, err);
    }
    status = s->driver->open ? s->driver->open(s, &why) : ES_OK;
    if (status == ES_OK)
        return ES_OK;
    if (dm_is_store_failure(status)) {
        if (err)
            *err = why;
        return status;
    }
    char line[640];
    return dm_search_end(c, s, DM_SEARCH_FAILED, es_error_line(&why, line, sizeof line), err);
}

es_status dm_search_load(dm_coord *c, int64_t id, es_error *err)
{
    dm_search_row r;
    sn_search_file *file = NULL;
    dm_search *s;
    es_error why;
    ES_RETURN(dm_search_get(c->store, id, &r, err));
    es_status status = ES_OK;
    if (r.text[0] && sn_search_file_parse(r.name, r.text, strlen(r.text), NULL, &file, &why) != ES_OK) {
        char line[640]; /* it was accepted once: by an older program with other rules */
        status = dm_search_move(c->store, id, r.state, DM_SEARCH_FAILED, es_error_line(&why, line, sizeof line),
                                c->wall_ms, err);
    } else {
        status = search_add(c, &r, file, &s, err);
    }
    dm_search_row_free(&r);
    return status;
}

es_status dm_searches_load(dm_coord *c, es_error *err)
{
    int64_t *ids;
    int n;
    es_status s = dm_search_live(c->store, &ids, &n, err);
    for (int i = 0; i < n && s == ES_OK; i++)
        s = dm_search_load(c, ids[i], err);
    free(ids);
    return s;
}

es_status dm_search_phase(dm_search *s, es_error *err, const char *fmt, ...)
{
    char phase[sizeof s->phase];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(phase, sizeof phase, fmt, ap);
    va_end(ap);
    if (strcmp(phase, s->phase) == 0)
        return ES_OK;
    snprintf(s->phase, sizeof s->phase, "%s", phase);
    ES_RETURN(dm_search_set_phase(s->c->store, s->id, phase, err));
    return search_event(s->c, s, NULL, err);
}

/* Every lease of a search: cancelled for good, or given back. */
static es_status search_drop_leases(dm_coord *c, dm_search *s, bool cancel, es_error *err)
{
    dm_lease *l;
    for (size_t i = 0; s->running > 0 && (l = es_map_next(&c->leases, &i)) != NULL;) {
        if (l->search != s)
            continue;
        if (!cancel) {
            ES_RETURN(dm_lease_return(c, l, ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED, "its search failed", 0, err));
            continue;
        }
        dm_job_move_args m = {.id = l->job,
                              .search = s->id,
                              .from = DM_JOB_RUNNING,
                              .to = DM_JOB_CANCELLED,
                              .why = "its search ended",
                              .now_ms = c->wall_ms};
        ES_RETURN(dm_job_move(c->store, &m, err));
        dm_lease_drop(c, l);
    }
    return ES_OK;
}

es_status dm_search_end(dm_coord *c, dm_search *s, dm_search_state to, const char *reason, es_error *err)
{
    if (s->state != DM_SEARCH_RUNNING && s->state != DM_SEARCH_PAUSED)
        return ES_OK;
    ES_RETURN(search_drop_leases(c, s, to != DM_SEARCH_FAILED, err));
    ES_RETURN(dm_search_move(c->store, s->id, s->state, to, reason, c->wall_ms, err));
    s->state = to;
    c->sweeping = true;
    es_log(to == DM_SEARCH_FAILED ? ES_LOG_WARN : ES_LOG_INFO, "search=%" PRId64 " %s%s%s", s->id,
           dm_search_state_name(to), reason ? ": " : "", reason ? reason : "");
    return search_event(c, s, reason, err);
}

/* ---- work between messages */

typedef struct sweep_context {
    dm_coord *c;
    int64_t search;
    dm_job_state state;
    int64_t ids[SWEEP_JOBS];
    int n;
} sweep_context;

static bool sweep_row(void *ctx, const dm_job_row *r)
{
    sweep_context *x = ctx;
    x->ids[x->n++] = r->id;
    return x->n < SWEEP_JOBS;
}

static es_status sweep(dm_coord *c, es_error *err)
{
    static const dm_job_state states[] = {DM_JOB_WAITING, DM_JOB_READY, DM_JOB_RUNNING};
    sweep_context x = {.c = c};
    es_status s = dm_search_unswept(c->store, &x.search, err);
    if (s == ES_NOT_FOUND) {
        c->sweeping = false;
        return ES_OK;
    }
    ES_RETURN(s);
    for (int i = 0; i < 3; i++) {
        x.n = 0;
        ES_RETURN(dm_job_each_live(c->store, x.search, states[i], SWEEP_JOBS, sweep_row, &x, err));
        for (int k = 0; k < x.n; k++) {
            dm_job_move_args m = {.id = x.ids[k],
                                  .search = x.search,
                                  .from = states[i],
                                  .to = DM_JOB_CANCELLED,
                                  .why = "its search is over",
                                  .now_ms = c->wall_ms};
            ES_RETURN(dm_job_move(c->store, &m, err));
        }
    }
    return ES_OK;
}

es_status dm_searches_work(dm_coord *c, es_error *err)
{
    if (c->sweeping)
        ES_RETURN(sweep(c, err));
    for (int i = 0; i < c->searches_n; i++) {
        dm_search *s = c->searches[i];
        if ((s->state == DM_SEARCH_RUNNING || s->state == DM_SEARCH_PAUSED) && s->busy) {
            es_error why;
            s->busy = false;
            es_status status = s->driver->advance ? s->driver->advance(s, &why) : ES_OK;
            if (status != ES_OK && dm_is_store_failure(status)) {
                if (err)
                    *err = why;
                return status;
            }
            char line[640];
            if (status != ES_OK)
                ES_RETURN(dm_search_end(c, s, DM_SEARCH_FAILED, es_error_line(&why, line, sizeof line), err));
        }
    }
    int kept = 0;
    es_status over = ES_OK;
    for (int i = 0; i < c->searches_n; i++) {
        dm_search *s = c->searches[i];
        if (s->state == DM_SEARCH_RUNNING || s->state == DM_SEARCH_PAUSED) {
            c->searches[kept++] = s;
            continue;
        }
        if (over == ES_OK)
            over = dm_fair_over(c, s, err);
        search_free(s);
    }
    c->searches_n = kept;
    return over;
}

/* ---- submit */

static void answer_submitted(dm_coord *c, const dm_addr *from, uint64_t id, int64_t search, bool existed)
{
    Espalier__Wire__Submitted sub = ESPALIER__WIRE__SUBMITTED__INIT;
    sub.search = (uint64_t)search;
    sub.existed = existed;
    dm_coord_reply(c, from, id, &DM_TO_PEER(SUBMITTED, submitted, &sub));
}

static const char *str(const char *text) { return text ? text : ""; }

/* Whether the sender may add a search of that size. */
static es_status submit_limits(const dm_coord *c, const dm_search_row *r, es_error *why)
{
    int n = 0;
    int64_t bytes = (int64_t)strlen(r->text);
    if (c->who.role == DM_ROLE_ADMIN)
        return ES_OK;
    if (r->priority > c->o.client_priority_max)
        return es_fail(why, ES_DENIED, "priority", "is %lld, a client's may be at most %d: an admin may raise it",
                       (long long)r->priority, c->o.client_priority_max);
    for (int i = 0; i < c->searches_n; i++)
        if (strcmp(c->searches[i]->user->name, r->user) == 0) {
            n++;
            bytes += (int64_t)strlen(c->searches[i]->text);
        }
    if (n >= c->o.searches_per_user)
        return es_fail(why, ES_BUSY, r->user, "has %d searches that are not over, at most %d are allowed", n,
                       c->o.searches_per_user);
    if (bytes > c->o.queued_bytes_per_user)
        return es_fail(why, ES_BUSY, r->user, "has searches of %lld bytes that are not over, at most %lld are allowed",
                       (long long)bytes, (long long)c->o.queued_bytes_per_user);
    return ES_OK;
}

/* The search file, checked; why says what is wrong with the request. */
static es_status submit_read(const Espalier__Wire__Submit *m, sn_search_file **file, es_error *why)
{
    size_t n = strlen(str(m->text)), token = strlen(str(m->token));
    *file = NULL;
    if (token < 1 || token > TOKEN_MAX_BYTES || strlen(str(m->user)) > NAME_MAX_BYTES)
        return es_fail(why, ES_INVALID, "submit", "token must have 1 to %d bytes, user at most %d", TOKEN_MAX_BYTES,
                       NAME_MAX_BYTES);
    if (n > DM_SPEC_TEXT_MAX)
        return es_fail(why, ES_INVALID, "submit.text", "has %zu bytes, at most %d are allowed", n, DM_SPEC_TEXT_MAX);
    return sn_search_file_parse("search.yaml", str(m->text), n, NULL, file, why);
}

/* Takes file over, also on failure. */
static es_status submit_add(dm_coord *c, dm_search_row *r, sn_search_file *file, es_error *err)
{
    dm_search *added;
    es_status s = dm_search_insert(c->store, r, err);
    if (s != ES_OK) {
        sn_search_file_destroy(&file);
        return s;
    }
    ES_RETURN(search_add(c, r, file, &added, err));
    return search_event(c, added, NULL, err);
}

es_status dm_on_submit(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Submit *m, es_error *err)
{
    es_error why;
    int64_t search;
    es_status s = dm_search_find_token(c->store, str(m->token), &search, err);
    if (s == ES_OK) {
        answer_submitted(c, from, id, search, true);
        return ES_OK;
    }
    if (s != ES_NOT_FOUND)
        return s;
    sn_search_file *file;
    if (submit_read(m, &file, &why) != ES_OK)
        return dm_coord_refused(c, from, id, &why);
    /* A key's name is not up to its holder. */
    dm_search_row r = {.token = m->token,
                       .name = file->name,
                       .user = dm_text(c->who.local ? str(m->user) : c->who.name),
                       .text = file->text ? file->text : m->text,
                       .priority = m->priority ? m->priority : file->priority,
                       .submitted_ms = c->wall_ms,
                       .driver = dm_text(dm_driver_for(file)->name)};
    if (submit_limits(c, &r, &why) != ES_OK) {
        sn_search_file_destroy(&file);
        return dm_coord_refused(c, from, id, &why);
    }
    ES_RETURN(submit_add(c, &r, file, err));
    answer_submitted(c, from, id, r.id, false);
    return ES_OK;
}

es_status dm_on_noops(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__EnqueueNoop *m,
                      es_error *err)
{
    es_error why;
    int64_t search, first;
    const char *token = str(m->token);
    if (!token[0] || strlen(token) > TOKEN_MAX_BYTES || m->count < 1 || m->count > DM_NOOPS_MAX) {
        es_fail(&why, ES_INVALID, "enqueue_noop", "token must have 1 to %d bytes, count must be 1 to %d",
                TOKEN_MAX_BYTES, DM_NOOPS_MAX);
        return dm_coord_refused(c, from, id, &why);
    }
    es_status s = dm_enqueue_find(c->store, token, &search, err);
    if (s == ES_OK) {
        answer_submitted(c, from, id, search, true);
        return ES_OK;
    }
    if (s != ES_NOT_FOUND)
        return s;
    char name[48];
    snprintf(name, sizeof name, "noop priority %d", m->priority);
    s = dm_search_find_token(c->store, name, &search, err);
    dm_search *live = s == ES_OK ? dm_search_find(c, search) : NULL;
    if (s == ES_NOT_FOUND) {
        dm_search_row r = {.token = name,
                           .name = name,
                           .user = dm_text(""),
                           .text = dm_text(""),
                           .priority = m->priority,
                           .submitted_ms = c->wall_ms,
                           .driver = dm_text("noop")};
        ES_RETURN(dm_search_insert(c->store, &r, err));
        ES_RETURN(search_add(c, &r, NULL, &live, err));
        search = r.id;
    } else if (s != ES_OK) {
        return s;
    }
    if (!live) {
        es_fail(&why, ES_CANCELLED, NULL, "search %" PRId64 " for zero-work jobs is over", search);
        return dm_coord_refused(c, from, id, &why);
    }
    ES_RETURN(dm_job_create_noops(c->store, search, (int64_t)m->count, c->wall_ms, &first, err));
    ES_RETURN(dm_enqueue_insert(c->store, token, search, err));
    for (uint64_t i = 0; i < m->count && !live->more; i++) /* ids of one transaction follow one another */
        dm_sched_added(live, &(dm_ready){.id = first + (int64_t)i, .kind = ESPALIER__WIRE__JOB_KIND__JOB_NOOP});
    c->dirty = true;
    answer_submitted(c, from, id, search, false);
    return ES_OK;
}

/* ---- commands */

static es_status search_pause(dm_coord *c, dm_search *s, bool pause, es_error *err)
{
    dm_search_state to = pause ? DM_SEARCH_PAUSED : DM_SEARCH_RUNNING;
    if (s->state == to)
        return ES_OK;
    dm_lease *l;
    for (size_t i = 0; (l = es_map_next(&c->leases, &i)) != NULL;)
        if (l->search == s)
            dm_lease_preempt(l, pause);
    ES_RETURN(dm_search_move(c->store, s->id, s->state, to, NULL, c->wall_ms, err));
    s->state = to;
    s->busy = true; /* one that goes on: it may have stood where there was more to do */
    c->dirty = true;
    return search_event(c, s, NULL, err);
}

/* A client commands its own searches only, and not beyond its priority. Anything else: *why. */
static es_status command_allowed(dm_coord *c, const Espalier__Wire__Command *m, es_error *why, es_error *err)
{
    int64_t id = (int64_t)m->search;
    dm_search_row r;
    if (c->who.role == DM_ROLE_ADMIN)
        return ES_OK;
    es_status s = dm_search_get(c->store, id, &r, err);
    if (s == ES_NOT_FOUND) {
        es_fail(why, s, NULL, "there is no search %" PRId64, id);
        return ES_OK;
    }
    ES_RETURN(s);
    if (strcmp(r.user, c->who.name) != 0)
        es_fail(why, ES_DENIED, "command",
                "search %" PRId64 " is %s's, and %s is a client: it commands its own; an admin any", id, r.user,
                c->who.name);
    else if (m->verb == ESPALIER__WIRE__VERB__VERB_PRIORITY && m->value > c->o.client_priority_max)
        es_fail(why, ES_DENIED, "priority", "is %lld, a client's may be at most %d: an admin may raise it",
                (long long)m->value, c->o.client_priority_max);
    dm_search_row_free(&r);
    return ES_OK;
}

static es_status command_search(dm_coord *c, const Espalier__Wire__Command *m, es_error *why, es_error *err)
{
    int64_t id = (int64_t)m->search;
    ES_RETURN(command_allowed(c, m, why, err));
    if (why->code != ES_OK)
        return ES_OK;
    if (m->verb >= ESPALIER__WIRE__VERB__VERB_DELETE)
        return dm_retain_command(c, id, m->verb, why, err);
    dm_search *s = dm_search_find(c, id);
    if (!s) {
        dm_search_row r;
        es_status status = dm_search_get(c->store, id, &r, why);
        if (status == ES_OK && !(m->verb == ESPALIER__WIRE__VERB__VERB_CANCEL && r.state == DM_SEARCH_CANCELLED))
            es_fail(why, ES_INVALID, NULL, "search %" PRId64 " is %s already", id, dm_search_state_name(r.state));
        else if (status == ES_OK)
            why->code = ES_OK; /* repeated */
        dm_search_row_free(&r);
        return ES_OK;
    }
    if (m->verb == ESPALIER__WIRE__VERB__VERB_CANCEL)
        return dm_search_end(c, s, DM_SEARCH_CANCELLED, m->text && m->text[0] ? m->text : "cancelled by its user", err);
    if (m->verb != ESPALIER__WIRE__VERB__VERB_PRIORITY)
        return search_pause(c, s, m->verb == ESPALIER__WIRE__VERB__VERB_PAUSE, err);
    s->priority = m->value;
    c->dirty = true;
    ES_RETURN(dm_search_set_priority(c->store, id, m->value, err));
    return search_event(c, s, NULL, err);
}

es_status dm_on_command(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__Command *m, es_error *err)
{
    es_error why = {.code = ES_OK};
    switch (m->verb) {
    case ESPALIER__WIRE__VERB__VERB_CANCEL:
    case ESPALIER__WIRE__VERB__VERB_PAUSE:
    case ESPALIER__WIRE__VERB__VERB_RESUME:
    case ESPALIER__WIRE__VERB__VERB_PRIORITY:
    case ESPALIER__WIRE__VERB__VERB_DELETE:
    case ESPALIER__WIRE__VERB__VERB_PIN:
    case ESPALIER__WIRE__VERB__VERB_UNPIN: ES_RETURN(command_search(c, m, &why, err)); break;
    case ESPALIER__WIRE__VERB__VERB_RETRY:
        ES_RETURN(command_allowed(c, m, &why, err));
        if (why.code == ES_OK)
            ES_RETURN(dm_retry_begin(c, from, id, (int64_t)m->search, &why, err));
        if (why.code == ES_OK)
            return ES_OK; /* answered when it goes on */
        break;
    case ESPALIER__WIRE__VERB__VERB_SHUTDOWN: c->shutdown = true; break;
    case ESPALIER__WIRE__VERB__VERB_RELOAD:
        if (!c->env.reload)
            es_fail(&why, ES_UNSUPPORTED, "reload", "this coordinator has no configuration file");
        else if (c->env.reload(c->env.ctx, why.text, &why) == ES_OK)
            why.code = ES_OK;
        break;
    case ESPALIER__WIRE__VERB__VERB_BACKUP:
        if (!c->env.backup)
            es_fail(&why, ES_UNSUPPORTED, "backup", "this coordinator has no disk to copy");
        else if (c->env.backup(c->env.ctx, from, id, str(m->text), &why) == ES_OK)
            return ES_OK; /* answered when it is made */
        break;
    case ESPALIER__WIRE__VERB__VERB_NONE:
    case _ESPALIER__WIRE__VERB_IS_INT_SIZE:
        es_fail(&why, ES_UNSUPPORTED, "command.verb", "is %d, which this coordinator does not know", m->verb);
    }
    if (why.code != ES_OK)
        return dm_coord_refused(c, from, id, &why);
    dm_coord_done(c, from, id, &why);
    return ES_OK;
}
