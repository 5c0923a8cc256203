/* events: what happened, as the coordinator keeps it; `watch --events` goes on from there. */
#include "client/connect.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* 2026-11-23T06:18:23Z 1234 job.state search=17 job=5 state=done */
static void print_event(json_t *e)
{
    char when[32];
    const time_t s = (time_t)(cl_int(e, "ms") / 1000);
    struct tm tm;
    const char *key;
    json_t *v;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&s, &tm));
    printf("%s %" PRId64 " %s", when, cl_int(e, "event"), cl_text(e, "kind"));
    json_object_foreach(e, key, v)
    {
        if (!strcmp(key, "event") || !strcmp(key, "ms") || !strcmp(key, "kind") || json_is_null(v))
            continue;
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
        size_t n = strlen(text);
        bool bare = json_is_string(v) && n > 2 && !strpbrk(json_string_value(v), " \"\\");
        printf(" %s=%.*s", key, (int)(bare ? n - 2 : n), bare ? text + 1 : text);
        free(text);
    }
    puts("");
}

/* One page; *after: the last event of it. */
static es_status print_page(dm_peer *p, const cl_args *a, uint64_t search, uint64_t *after, bool *more, es_error *err)
{
    json_t *answer = NULL, *e;
    size_t i;
    ES_RETURN(cl_query(p, &(cl_ask){.what = "events", .search = search, .after = *after}, &answer, err));
    json_t *events = json_object_get(answer, "events");
    *more = json_array_size(events) > 0;
    json_array_foreach(events, i, e)
    {
        if (cl_flag(a, "--json")) {
            json_dumpf(e, stdout, JSON_COMPACT);
            puts("");
        } else {
            print_event(e);
        }
        *after = (uint64_t)cl_int(e, "event");
    }
    json_decref(answer);
    return ES_OK;
}

static int run_events(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    dm_peer *p = NULL;
    uint64_t search = 0;
    int64_t first = 0;
    const char *text = cl_value(a, "--after");
    bool more = true;
    if ((a->words > 0 && !cl_search_id(a, 0, &search)) ||
        (text && !cl_number(a, "--after", text, 0, INT64_MAX, &first)))
        return CL_USAGE;
    uint64_t after = (uint64_t)first;
    ES_GOTO(cl_connect(a, &p, &err));
    while (more)
        ES_GOTO(print_page(p, a, search, &after, &more, &err));
    if (fflush(stdout) != 0)
        s = es_fail_errno(&err, "standard output", "cannot write");
fail:
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static const cl_option options[] = {{"--after", "EVENT", "only what came after the event of this number"},
                                    {"--json", NULL, "a line of JSON for each, as `watch --events` prints them"},
                                    CL_ENDPOINT,
                                    CL_END};
const cl_command cl_cmd_events = {
    "events", "[SEARCH]", "print what happened, to a search or to all and the workers, oldest first", 0, 1, run_events,
    options,  NULL};
