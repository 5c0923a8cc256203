#include "daemon/http/api.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/str.h"

enum { ANSWERS_AT_ONCE = 16 };

/* One question. The HTTP thread owns it, but for the time between suspending and resuming its connection. */
typedef struct ticket {
    struct MHD_Connection *con;
    dm_question question;
    unsigned code; /* 0: not answered yet */
    char *json;
    struct ticket *next;
} ticket;

struct dm_http_api {
    pthread_mutex_t lock;
    ticket *first, **last;
    int fd;
    bool closed;
};

dm_http_api *dm_http_api_new(void)
{
    dm_http_api *a = es_xcalloc(1, sizeof *a);
    pthread_mutex_init(&a->lock, NULL);
    a->last = &a->first;
    a->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return a;
}

void dm_http_api_free(dm_http_api **a)
{
    if (!*a)
        return;
    ES_ASSERT(!(*a)->first);
    pthread_mutex_destroy(&(*a)->lock);
    close((*a)->fd);
    free(*a);
    *a = NULL;
}

int dm_http_api_fd(const dm_http_api *a) { return a->fd; }

/* ---- paths */

static bool parse_count(const char *text, int64_t *out)
{
    *out = 0;
    return !text || (es_str_to_i64(text, false, out) && *out >= 0);
}

/* "searches/17/pareto" -> 17, "pareto"; the rest may be missing. */
static bool parse_id(const char *text, int64_t *id, const char **rest)
{
    char number[24];
    size_t n = strcspn(text, "/");
    if (n == 0 || n >= sizeof number)
        return false;
    memcpy(number, text, n);
    number[n] = 0;
    *rest = text[n] ? text + n + 1 : "";
    return es_str_to_i64(number, false, id) && *id > 0;
}

bool dm_http_api_parse(const char *path, const char *limit, const char *after, dm_question *out)
{
    static const char *const of_search[] = {"pareto", "result", "curves", "logs", "events"};
    const char *rest;
    int64_t id;
    *out = (dm_question){0};
    if (!parse_count(limit, &out->limit) || !parse_count(after, &out->after) || strncmp(path, "/api/", 5) != 0)
        return false;
    path += 5;
    if (strcmp(path, "status") == 0)
        out->what = "status";
    else if (strcmp(path, "searches") == 0)
        out->what = "list";
    else if (strcmp(path, "workers") == 0)
        out->what = "workers";
    else if (strcmp(path, "events") == 0)
        out->what = "events";
    else if (strncmp(path, "jobs/", 5) == 0 && parse_id(path + 5, &id, &rest) && !rest[0]) {
        out->what = "job";
        out->job = (uint64_t)id;
    } else if (strncmp(path, "searches/", 9) == 0 && parse_id(path + 9, &id, &rest)) {
        out->what = rest[0] ? NULL : "show";
        out->search = (uint64_t)id;
        for (size_t i = 0; i < sizeof of_search / sizeof of_search[0]; i++)
            if (strcmp(rest, of_search[i]) == 0)
                out->what = of_search[i];
    }
    return out->what != NULL;
}

bool dm_http_api_takes(const char *path) { return strncmp(path, "/api", 4) == 0 && (path[4] == '/' || !path[4]); }

/* ---- the HTTP thread */

static char *error_json(const es_error *e)
{
    es_json j;
    es_json_begin(&j, 0);
    es_json_object(&j, NULL);
    es_json_object(&j, "error");
    es_json_str(&j, "code", es_status_name(e->code));
    es_json_str(&j, "where", e->where);
    es_json_str(&j, "text", e->text);
    es_json_end(&j);
    es_json_end(&j);
    return es_json_finish(&j);
}

static enum MHD_Result reply(struct MHD_Connection *con, unsigned code, const char *json)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(json), (void *)(uintptr_t)json, MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", "application/json");
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    enum MHD_Result ok = MHD_queue_response(con, code, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result refuse(struct MHD_Connection *con, unsigned code, es_status status, const char *text)
{
    es_error e;
    es_fail(&e, status, "http", "%s", text);
    char *json = error_json(&e);
    enum MHD_Result ok = reply(con, code, json);
    free(json);
    return ok;
}

enum MHD_Result dm_http_api_request(dm_http_api *a, struct MHD_Connection *con, const char *path, void **state)
{
    ticket *t = *state;
    if (t) /* resumed: answered */
        return t->code ? reply(con, t->code, t->json) : MHD_YES;
    dm_question q;
    if (!dm_http_api_parse(path, MHD_lookup_connection_value(con, MHD_GET_ARGUMENT_KIND, "limit"),
                           MHD_lookup_connection_value(con, MHD_GET_ARGUMENT_KIND, "after"), &q))
        return refuse(con, MHD_HTTP_NOT_FOUND, ES_NOT_FOUND,
                      "there is /api/status, /api/searches, /api/searches/N with /pareto, /result, /curves, /logs, "
                      "/events, /api/events, /api/workers, /api/jobs/N");
    t = es_xcalloc(1, sizeof *t);
    *t = (ticket){.con = con, .question = q};
    pthread_mutex_lock(&a->lock);
    bool closed = a->closed;
    if (!closed) {
        *state = t;
        MHD_suspend_connection(con);
        *a->last = t;
        a->last = &t->next;
    }
    pthread_mutex_unlock(&a->lock);
    if (closed) {
        free(t);
        return refuse(con, MHD_HTTP_SERVICE_UNAVAILABLE, ES_CANCELLED, "the coordinator ends");
    }
    (void)!eventfd_write(a->fd, 1);
    return MHD_YES;
}

void dm_http_api_ended(void **state)
{
    ticket *t = *state;
    if (!t)
        return;
    free(t->json);
    free(t);
    *state = NULL;
}

/* ---- the main thread */

static ticket *take(dm_http_api *a)
{
    pthread_mutex_lock(&a->lock);
    ticket *t = a->first;
    if (t) {
        a->first = t->next;
        if (!a->first)
            a->last = &a->first;
    }
    pthread_mutex_unlock(&a->lock);
    return t;
}

static unsigned code_of(es_status s)
{
    switch (s) {
    case ES_OK: return MHD_HTTP_OK;
    case ES_NOT_FOUND: return MHD_HTTP_NOT_FOUND;
    case ES_BUSY: return MHD_HTTP_CONFLICT;
    case ES_INVALID: return MHD_HTTP_BAD_REQUEST;
    default: return MHD_HTTP_SERVICE_UNAVAILABLE;
    }
}

static void give(ticket *t, es_status s, char *json, const es_error *why)
{
    t->json = s == ES_OK ? json : error_json(why);
    t->code = code_of(s);
    MHD_resume_connection(t->con); /* the ticket is the HTTP thread's again */
}

void dm_http_api_answer(dm_http_api *a, dm_coord *coord)
{
    eventfd_t ignored;
    (void)!eventfd_read(a->fd, &ignored);
    for (int i = 0; i < ANSWERS_AT_ONCE; i++) {
        ticket *t = take(a);
        if (!t)
            return;
        es_error why = {.code = ES_OK};
        char *json = NULL;
        es_status s = dm_coord_ask(coord, &t->question, &json, &why);
        give(t, s, json, &why);
    }
    (void)!eventfd_write(a->fd, 1); /* there may be more: the next turn */
}

void dm_http_api_close(dm_http_api *a)
{
    es_error why;
    ticket *t;
    pthread_mutex_lock(&a->lock);
    a->closed = true;
    pthread_mutex_unlock(&a->lock);
    es_fail(&why, ES_CANCELLED, "http", "the coordinator ends");
    while ((t = take(a)) != NULL)
        give(t, ES_CANCELLED, NULL, &why);
}
