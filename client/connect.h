/* connect.h - asking a coordinator: queries as parsed JSON, commands, submission.
 *
 *     dm_peer *p; cl_connect(a, &p, err);                       // --endpoint, else ESPALIER_ENDPOINT, else tcp://127.0.0.1:5700
 *     json_t *j; cl_query(p, &(cl_ask){.what = "show", .search = 17}, &j, err); ... json_decref(j);
 *                                                              // tcp: with the keys that --key, --server-key, environment and ~/.config name (daemon/wire/keys.h)
 *
 * The shapes of the answers are in schemas/status.md. Numbers that are absent or null read as 0 (cl_num) and texts as "" (cl_text).
 */
#ifndef CL_CONNECT_H
#define CL_CONNECT_H

#include "base/str.h"
#include "client/command.h"
#include "daemon/wire/peer.h"

#include <jansson.h>

enum { CL_CALL_MS = 10000 };
#define CL_ENDPOINT                                                                \
    {"--endpoint", "ENDPOINT", "the coordinator: tcp://HOST:PORT or ipc://PATH"},  \
        {"--key", "FILE", "tcp: this user's secret key"},                          \
        {"--server-key", "FILE", "tcp: the coordinator's public key, server.pub"}, \
    {                                                                              \
        "--insecure", NULL, "tcp without keys, in clear"                           \
    }
#define CL_JSON                                                                       \
    {                                                                                 \
        "--json", NULL, "print the coordinator's answer as it is (schemas/status.md)" \
    }
#define CL_END           \
    {                    \
        NULL, NULL, NULL \
    }

typedef struct cl_ask {
    const char *what;
    uint64_t search, job, after;
    uint32_t limit;
    int timeout_ms; /* 0: CL_CALL_MS */
} cl_ask;

/* Who asks: $USER, else the name of this process's user (a service has no $USER), else "nobody". */
const char *cl_user(void);

es_status cl_connect(const cl_args *a, dm_peer **out, es_error *err) ES_MUST_CHECK;
es_status cl_query(dm_peer *p, const cl_ask *ask, json_t **out, es_error *err) ES_MUST_CHECK;
typedef struct cl_order {
    Espalier__Wire__Verb verb;
    uint64_t search, job;
    int64_t value;
    const char *text;
} cl_order;
es_status cl_do(dm_peer *p, const cl_order *order, es_str *said, es_error *err) ES_MUST_CHECK; /* said: may be NULL */
es_status cl_submit(dm_peer *p, const char *token, const char *text, int priority, uint64_t *search, bool *existed,
                    es_error *err) ES_MUST_CHECK;
/* The keys for an endpoint, as the command's options say. */
es_status cl_login(const cl_args *a, const char *endpoint, dm_login *out, es_error *err) ES_MUST_CHECK;
/* The weights endpoint, as this coordinator names it, with the keys of the control connection. */
es_status cl_connect_data(dm_peer *control, dm_peer **out, es_error *err) ES_MUST_CHECK;

double cl_num(const json_t *object, const char *key);
int64_t cl_int(const json_t *object, const char *key);
const char *cl_text(const json_t *object, const char *key);
bool cl_null(const json_t *object, const char *key); /* absent or null */

/* Most commands: connect, ask, print (as JSON with --json). Returns the exit status. */
int cl_ask_and_print(const cl_args *a, const cl_ask *ask, void (*print)(const json_t *answer));
void cl_print_json(const json_t *j);
/* The word as a search's number; false after a message (return CL_USAGE). */
bool cl_search_id(const cl_args *a, int word, uint64_t *out);

#endif
