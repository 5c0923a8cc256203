#include "client/connect.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

es_status cl_connect(const cl_args *a, dm_peer **out, es_error *err)
{
    const char *endpoint = cl_value(a, "--endpoint");
    if (!endpoint)
        endpoint = getenv("ESPALIER_ENDPOINT");
    if (!endpoint || !endpoint[0])
        endpoint = "tcp://127.0.0.1:5700";
    dm_login login;
    *out = NULL;
    ES_RETURN(dm_endpoint_check(endpoint, err));
    ES_RETURN(cl_login(a, endpoint, &login, err));
    return dm_peer_open(&(dm_peer_options){.endpoint = endpoint, .login = &login}, out, err);
}

es_status cl_login(const cl_args *a, const char *endpoint, dm_login *out, es_error *err)
{
    dm_keys_where where = {.role = DM_ROLE_CLIENT, .key = cl_value(a, "--key"), .server = cl_value(a, "--server-key")};
    return dm_login_find(endpoint, &where, cl_flag(a, "--insecure"), out, err);
}

static es_status unexpected(dm_peer *p, es_error *err)
{
    return es_fail(err, ES_CORRUPT, dm_peer_endpoint(p), "the coordinator's answer is none to this question");
}

es_status cl_query(dm_peer *p, const cl_ask *ask, json_t **out, es_error *err)
{
    *out = NULL;
    Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
    q.what = dm_text(ask->what);
    q.search = ask->search;
    q.job = ask->job;
    q.limit = ask->limit;
    q.after = ask->after;
    dm_from_peer m = DM_FROM_PEER(QUERY, query, &q);
    dm_to_peer *r = NULL;
    es_status s = dm_peer_call(p, &m, ask->timeout_ms ? ask->timeout_ms : CL_CALL_MS, &r, err);
    if (s == ES_OK && r->what_case != ESPALIER__WIRE__TO_PEER__WHAT_ANSWER)
        s = unexpected(p, err);
    if (s == ES_OK) {
        json_error_t e;
        *out = json_loads(r->answer->json, 0, &e);
        if (!*out)
            s = es_fail(err, ES_CORRUPT, dm_peer_endpoint(p), "the coordinator's answer is no JSON: %s", e.text);
    }
    dm_to_peer_free(&r);
    return s;
}

es_status cl_do(dm_peer *p, const cl_order *order, es_str *said, es_error *err)
{
    Espalier__Wire__Command c = ESPALIER__WIRE__COMMAND__INIT;
    c.verb = order->verb;
    c.search = order->search;
    c.value = order->value;
    c.job = order->job;
    c.text = dm_text(order->text);
    dm_from_peer m = DM_FROM_PEER(COMMAND, command, &c);
    dm_to_peer *r = NULL;
    bool slow = order->verb == ESPALIER__WIRE__VERB__VERB_BACKUP || order->verb == ESPALIER__WIRE__VERB__VERB_RETRY;
    ES_RETURN(dm_peer_call(p, &m, slow ? 60 * CL_CALL_MS : CL_CALL_MS, &r, err));
    es_status s = ES_OK;
    if (r->what_case != ESPALIER__WIRE__TO_PEER__WHAT_DONE)
        s = unexpected(p, err);
    else if (said)
        es_str_add(said, r->done->text);
    dm_to_peer_free(&r);
    return s;
}

const char *cl_user(void)
{
    const char *user = getenv("USER");
    if (user && user[0])
        return user;
    const struct passwd *entry = getpwuid(geteuid());
    return entry && entry->pw_name[0] ? entry->pw_name : "nobody";
}

es_status cl_submit(dm_peer *p, const char *token, const char *text, int priority, uint64_t *search, bool *existed,
                    es_error *err)
{
    Espalier__Wire__Submit q = ESPALIER__WIRE__SUBMIT__INIT;
    q.token = dm_text(token);
    q.text = dm_text(text);
    q.priority = priority;
    q.user = dm_text(cl_user());
    dm_from_peer m = DM_FROM_PEER(SUBMIT, submit, &q);
    dm_to_peer *r = NULL;
    ES_RETURN(dm_peer_call(p, &m, 3 * CL_CALL_MS, &r, err));
    es_status s = ES_OK;
    if (r->what_case != ESPALIER__WIRE__TO_PEER__WHAT_SUBMITTED) {
        s = unexpected(p, err);
    } else {
        *search = r->submitted->search;
        *existed = r->submitted->existed;
    }
    dm_to_peer_free(&r);
    return s;
}

es_status cl_connect_data(dm_peer *control, dm_peer **out, es_error *err)
{
    json_t *status = NULL;
    ES_RETURN(cl_query(control, &(cl_ask){.what = "status"}, &status, err));
    char *endpoint =
        dm_peer_data_endpoint(dm_peer_endpoint(control), cl_text(json_object_get(status, "endpoints"), "data"));
    es_status s = dm_peer_open(
        &(dm_peer_options){.endpoint = endpoint, .frame_max = DM_DATA_MAX, .login = dm_peer_login(control)}, out, err);
    free(endpoint);
    json_decref(status);
    return s;
}

double cl_num(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

int64_t cl_int(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_integer(v) ? json_integer_value(v) : (int64_t)json_number_value(v);
}

const char *cl_text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

bool cl_null(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return !v || json_is_null(v);
}

void cl_print_json(const json_t *j)
{
    json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
}

int cl_ask_and_print(const cl_args *a, const cl_ask *ask, void (*print)(const json_t *answer))
{
    es_error err = {0};
    dm_peer *p = NULL;
    json_t *j = NULL;
    es_status s = ES_OK;
    ES_GOTO(cl_connect(a, &p, &err));
    ES_GOTO(cl_query(p, ask, &j, &err));
    if (cl_flag(a, "--json"))
        cl_print_json(j);
    else
        print(j);
    if (fflush(stdout) != 0)
        s = es_fail_errno(&err, "standard output", "cannot write");
fail:
    json_decref(j);
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

bool cl_search_id(const cl_args *a, int word, uint64_t *out)
{
    int64_t n = 0;
    if (!cl_number(a, "SEARCH", a->word[word], 1, INT64_MAX, &n))
        return false;
    *out = (uint64_t)n;
    return true;
}
