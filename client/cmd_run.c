/* run: a whole search on this machine. Coordinator and workers are child processes (local.h); this one submits, watches, and brings the results home. */
#include "base/arena.h"
#include "base/file.h"
#include "base/hash.h"
#include "client/local.h"
#include "client/progress.h"
#include "client/results.h"
#include "supernet/searchfile/searchfile.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_MS = 300, TEXT_MAX = 1 << 20 };

typedef struct run {
    const cl_args *a;
    sn_search_file *file;
    char *out, *state, *identity; /* directories, and the file in `state` that says which search it holds */
    int64_t workers, threads;
    const char *device;
    cl_local *local;
    dm_peer *control, *data;
    uint64_t search;
    cl_progress progress;
} run;

static volatile sig_atomic_t interrupted;
static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}
static bool is_interrupted(void *ctx)
{
    (void)ctx;
    return interrupted != 0;
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

static char *path_in(const char *dir, const char *name)
{
    es_str s = ES_STR_INIT;
    es_str_addf(&s, "%s/%s", dir, name);
    return es_str_take(&s);
}

static bool same_text(const char *path, const char *text)
{
    char *had = NULL;
    bool same = es_file_exists(path) && es_file_read(path, TEXT_MAX, &had, NULL, NULL) == ES_OK && !strcmp(had, text);
    free(had);
    return same;
}

/* A directory that results could not be written to is refused now, not in an hour. */
static es_status prepare_out(run *r, es_error *err)
{
    ES_RETURN(es_file_mkdirs(r->out, err));
    char *probe = path_in(r->out, ".espalier-probe");
    es_status s = es_file_write(probe, "", 0, err);
    unlink(probe);
    free(probe);
    return s;
}

/* Finished before, by the same search file: the results are shown again. */
static bool finished_before(run *r)
{
    char *result = path_in(r->out, "result.json"), *search = path_in(r->out, "search.yaml"), *text = NULL;
    bool yes = !es_file_exists(r->state) && same_text(search, r->file->text) &&
               es_file_read(result, (size_t)256 << 20, &text, NULL, NULL) == ES_OK;
    json_t *j = yes ? json_loads(text, 0, NULL) : NULL;
    if (j) {
        cl_front_print(json_object_get(j, "front"), stdout);
        printf("%s: this search was finished before; --again runs it anew\n", r->out);
    }
    json_decref(j);
    free(text);
    free(result);
    free(search);
    return j != NULL;
}

/* --again. Opened once, so that a run still at work in there is not robbed of its databases. */
static es_status forget(run *r, es_error *err)
{
    if (!es_file_exists(r->state))
        return ES_OK;
    cl_local *l = NULL;
    ES_RETURN(cl_local_open(r->state, &l, err));
    cl_local_close(&l);
    return es_file_remove_tree(r->state, err);
}

static es_status claim_state(run *r, es_error *err)
{
    if (es_file_exists(r->identity) && !same_text(r->identity, r->file->text))
        return es_fail(err, ES_EXISTS, r->state,
                       "the directory holds an unfinished search of another search file; finish it, choose another "
                       "--out, or remove it");
    return es_file_write(r->identity, r->file->text, strlen(r->file->text), err);
}

/* The search's own row. */
static es_status look(run *r, json_t **answer, const json_t **search, es_error *err)
{
    ES_RETURN(cl_query(r->control, &(cl_ask){.what = "list", .after = r->search + 1, .limit = 1, .timeout_ms = 1000},
                       answer, err));
    *search = json_array_get(json_object_get(*answer, "searches"), 0);
    return ES_OK;
}

/* The same token: the search that the directory holds. One that had failed (bad data, a full disk) is tried again, for that is why it is run again. */
static es_status submit(run *r, es_error *err)
{
    es_hash h;
    char token[ES_HASH_HEX];
    bool existed;
    json_t *answer = NULL;
    const json_t *search = NULL;
    es_hash_bytes(r->file->text, strlen(r->file->text), &h);
    es_hash_hex(&h, token);
    ES_RETURN(cl_submit(r->control, token, r->file->text, r->file->priority, &r->search, &existed, err));
    if (!existed)
        return ES_OK;
    es_status s = look(r, &answer, &search, err);
    bool failed = s == ES_OK && !strcmp(cl_text(search, "state"), "failed");
    json_decref(answer);
    if (failed)
        s = cl_do(r->control, &(cl_order){.verb = ESPALIER__WIRE__VERB__VERB_RETRY, .search = r->search}, NULL, err);
    if (s == ES_OK)
        fprintf(stderr, "%s: %s\n", r->file->name,
                failed ? "trying again what had failed" : "going on where it stopped");
    return s;
}

static es_status ended_badly(const json_t *search, const char *state, es_error *err)
{
    const char *reason = cl_text(search, "reason");
    if (!strcmp(state, "cancelled"))
        return es_fail(err, ES_CANCELLED, cl_text(search, "name"), "the search was cancelled; --again begins it anew");
    return es_fail(err, ES_INVALID, cl_text(search, "name"), "the search failed: %s",
                   reason[0] ? reason : "no reason given");
}

static es_status wait_done(run *r, es_error *err)
{
    for (bool done = false; !done && !interrupted;) {
        json_t *answer = NULL;
        const json_t *search = NULL;
        es_status s = look(r, &answer, &search, err);
        if (s == ES_OK) {
            const char *state = cl_text(search, "state");
            cl_progress_show(&r->progress, search);
            done = !strcmp(state, "done");
            if (!strcmp(state, "failed") || !strcmp(state, "cancelled"))
                s = ended_badly(search, state, err);
        } else if (s == ES_TIMEOUT) {
            s = ES_OK; /* it may be starting again: its child's end is looked at next */
        }
        json_decref(answer);
        if (s == ES_OK && !done)
            s = cl_local_tend(r->local, err);
        ES_RETURN(s);
        if (!done)
            poll(NULL, 0, LOOK_MS);
    }
    return interrupted ? es_fail(err, ES_CANCELLED, r->file->name, "interrupted") : ES_OK;
}

static es_status bring_home(run *r, es_error *err)
{
    json_t *result = NULL;
    char *copy = path_in(r->out, "search.yaml");
    es_status s = ES_OK;
    ES_GOTO(cl_query(r->control, &(cl_ask){.what = "result", .search = r->search, .timeout_ms = 60000}, &result, err));
    ES_GOTO(dm_peer_open(&(dm_peer_options){.endpoint = cl_local_data_endpoint(r->local), .frame_max = DM_DATA_MAX},
                         &r->data, err));
    ES_GOTO(es_file_write(copy, r->file->text, strlen(r->file->text), err));
    ES_GOTO(cl_results_write(r->out, result, r->data, is_interrupted, NULL, err));
    cl_front_print(json_object_get(result, "front"), stdout);
    printf("%s: result.json, pareto.csv, and %zu members in front/\n", r->out,
           json_array_size(json_object_get(result, "front")));
    fflush(stdout);
fail:
    json_decref(result);
    free(copy);
    return s;
}

static es_status run_search(run *r, es_error *err)
{
    ES_RETURN(cl_local_open(r->state, &r->local, err));
    ES_RETURN(claim_state(r, err));
    ES_RETURN(cl_local_start(r->local, (int)r->workers, (int)r->threads, r->device, err));
    ES_RETURN(dm_peer_open(&(dm_peer_options){.endpoint = cl_local_endpoint(r->local)}, &r->control, err));
    ES_RETURN(submit(r, err));
    cl_progress_begin(&r->progress, stderr);
    es_status s = wait_done(r, err);
    cl_progress_end(&r->progress);
    ES_RETURN(s);
    return bring_home(r, err);
}

static bool read_options(const cl_args *a, run *r)
{
    const char *workers = cl_value(a, "--workers"), *threads = cl_value(a, "--threads"),
               *device = cl_value(a, "--device");
    r->workers = 1;
    r->device = device ? device : "cpu";
    return (!workers || cl_number(a, "--workers", workers, 1, CL_WORKERS_MAX, &r->workers)) &&
           (!threads || cl_number(a, "--threads", threads, 1, 4096, &r->threads));
}

/* A search that trains in gangs gets as many workers as a gang has ranks; with fewer it would wait for ever. */
static es_status enough_workers(run *r, es_error *err)
{
    const int ranks =
        r->file->task == SN_TASK_TABLE || r->file->supernet.method == SN_METHOD_MODULES ? 1 : r->file->gpus;
    if (ranks <= 1)
        return ES_OK;
    if (!cl_value(r->a, "--workers"))
        r->workers = ranks;
    if (r->workers < ranks || r->workers > CL_WORKERS_MAX)
        return es_fail(err, ES_INVALID, "resources.gpus",
                       "%d ranks need %d workers on this machine: --workers is %d, at most %d", ranks, ranks,
                       (int)r->workers, CL_WORKERS_MAX);
    if (strncmp(r->device, "cuda:", 5) == 0)
        return es_fail(err, ES_INVALID, "--device",
                       "\"%s\" is one GPU for %d ranks: use --device cuda, which gives every worker its own", r->device,
                       ranks);
    return ES_OK;
}

static int run_run(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    run r = {.a = a};
    bool tried = false;
    if (!read_options(a, &r))
        return CL_USAGE;
    ES_GOTO(sn_search_file_load(a->word[0], &r.file, &err));
    ES_GOTO(enough_workers(&r, &err));
    r.out = es_xstrdup(cl_value(a, "--out") ? cl_value(a, "--out") : r.file->name);
    r.state = path_in(r.out, ".espalier");
    r.identity = path_in(r.state, "search.yaml");
    ES_GOTO(prepare_out(&r, &err));
    if (cl_flag(a, "--again"))
        ES_GOTO(forget(&r, &err));
    else if (finished_before(&r))
        goto fail;
    catch_signals();
    tried = true;
    ES_GOTO(run_search(&r, &err));
fail:
    dm_peer_close(&r.control);
    dm_peer_close(&r.data);
    cl_local_close(&r.local);
    if (tried && s == ES_OK && !cl_flag(a, "--keep"))
        s = es_file_remove_tree(r.state, &err);
    int code = s == ES_OK ? CL_OK : cl_fail(&err);
    if (tried && interrupted)
        fprintf(stderr, "espalier: nothing is lost; the same command goes on where it stopped\n");
    free(r.out);
    free(r.state);
    free(r.identity);
    sn_search_file_destroy(&r.file);
    return code;
}

static const cl_option options[] = {
    {"--out", "DIR", "where results go (default: the search's name)"},
    {"--workers", "N", "worker processes (default 1, or as many as `resources.gpus` asks)"},
    {"--threads", "N", "cores for all workers together (default: all)"},
    {"--device", "NAME", "cpu (default), cpu:THREADS, cuda (one GPU a worker), cuda:NUMBER"},
    {"--keep", NULL, "keep the databases in DIR/.espalier after the end"},
    {"--again", NULL, "forget an unfinished or finished run of this search in DIR"},
    CL_END,
};
const cl_command cl_cmd_run = {
    "run",
    "SEARCH.yaml",
    "run a search on this machine, with nothing to set up",
    1,
    1,
    run_run,
    options,
    "Starts espalierd and espalier-worker as children, shows progress, and ends with a table of the Pareto front and, "
    "in DIR,\n"
    "result.json, pareto.csv, and front/01, 02 ... with each member's architecture and weights (safetensors).\n"
    "Ctrl-C, a crash or a power cut lose nothing: the same command goes on where it stopped.\n"};
