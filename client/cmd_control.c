/* cancel, pause, resume, retry, priority, delete, pin, unpin, backup: one command each, and a line that says what happened. */
#include "client/connect.h"

#include <inttypes.h>

static int command(const cl_args *a, Espalier__Wire__Verb verb, int64_t value, const char *done)
{
    es_error err = {0};
    es_status s = ES_OK;
    dm_peer *p = NULL;
    es_str said = ES_STR_INIT;
    uint64_t id = 0;
    if (!cl_search_id(a, 0, &id))
        return CL_USAGE;
    ES_GOTO(cl_connect(a, &p, &err));
    ES_GOTO(cl_do(p, &(cl_order){.verb = verb, .search = id, .value = value}, &said, &err));
    if (said.len)
        printf("search %" PRIu64 ": %s\n", id, said.p);
    else
        printf("search %" PRIu64 " %s\n", id, done);
fail:
    es_str_free(&said);
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static int run_cancel(const cl_args *a) { return command(a, ESPALIER__WIRE__VERB__VERB_CANCEL, 0, "cancelled"); }
static int run_pause(const cl_args *a) { return command(a, ESPALIER__WIRE__VERB__VERB_PAUSE, 0, "paused"); }
static int run_resume(const cl_args *a) { return command(a, ESPALIER__WIRE__VERB__VERB_RESUME, 0, "resumed"); }

static int run_retry(const cl_args *a) { return command(a, ESPALIER__WIRE__VERB__VERB_RETRY, 0, "goes on"); }

static int run_delete(const cl_args *a) { return command(a, ESPALIER__WIRE__VERB__VERB_DELETE, 0, "deleted"); }
static int run_pin(const cl_args *a) { return command(a, ESPALIER__WIRE__VERB__VERB_PIN, 0, "pinned"); }
static int run_unpin(const cl_args *a) { return command(a, ESPALIER__WIRE__VERB__VERB_UNPIN, 0, "no longer pinned"); }

static int run_backup(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    dm_peer *p = NULL;
    const char *dir = a->words ? a->word[0] : "";
    es_str said = ES_STR_INIT;
    if (dir[0] && dir[0] != '/')
        return cl_usage(a, "DIR is \"%s\", an absolute path is needed: it is the coordinator that writes there",
                        a->word[0]);
    ES_GOTO(cl_connect(a, &p, &err));
    ES_GOTO(cl_do(p, &(cl_order){.verb = ESPALIER__WIRE__VERB__VERB_BACKUP, .text = dir}, &said, &err));
    printf("%s: state.db and weights.db\n", said.p);
fail:
    es_str_free(&said);
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static int run_reload(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    dm_peer *p = NULL;
    es_str said = ES_STR_INIT;
    ES_GOTO(cl_connect(a, &p, &err));
    ES_GOTO(cl_do(p, &(cl_order){.verb = ESPALIER__WIRE__VERB__VERB_RELOAD}, &said, &err));
    puts(said.p);
fail:
    es_str_free(&said);
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static int run_priority(const cl_args *a)
{
    int64_t value = 0;
    if (!cl_number(a, "PRIORITY", a->word[1], -1000, 1000, &value))
        return CL_USAGE;
    return command(a, ESPALIER__WIRE__VERB__VERB_PRIORITY, value, "has its new priority");
}

static const cl_option options[] = {CL_ENDPOINT, CL_END};
const cl_command cl_cmd_cancel = {"cancel", "SEARCH", "end a search for good", 1, 1, run_cancel, options, NULL};
const cl_command cl_cmd_pause = {
    "pause", "SEARCH", "start no more jobs of a search; running ones stop at their next checkpoint", 1, 1, run_pause,
    options, NULL};
const cl_command cl_cmd_resume = {"resume", "SEARCH", "go on with a paused search", 1, 1, run_resume, options, NULL};
const cl_command cl_cmd_priority = {
    "priority", "SEARCH PRIORITY", "change a search's priority: higher goes first", 2, 2, run_priority, options, NULL};
const cl_command cl_cmd_retry = {
    "retry", "SEARCH", "go on with a failed search: its failed jobs get all their attempts again", 1, 1, run_retry,
    options, NULL};
const cl_command cl_cmd_delete = {
    "delete", "SEARCH", "forget a search that is over: its rows, and the weights nothing else needs", 1, 1, run_delete,
    options,  NULL};
const cl_command cl_cmd_pin = {"pin", "SEARCH", "keep a search's weights, however old", 1, 1, run_pin, options, NULL};
const cl_command cl_cmd_unpin = {"unpin", "SEARCH", "let the retention rule apply to a search again", 1, 1, run_unpin,
                                 options, NULL};
const cl_command cl_cmd_reload = {
    "reload", "", "let the coordinator read its configuration file and keys again", 0, 0, run_reload, options, NULL};
const cl_command cl_cmd_backup = {
    "backup", "[DIR]", "copy the coordinator's databases, while it works, into a directory on its host, and verify it",
    0,        1,       run_backup,
    options,  NULL};
