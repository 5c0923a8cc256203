/* watch: the progress line of a search, woken by the coordinator's status socket; --events prints the events themselves. */
#include "client/connect.h"
#include "client/progress.h"
#include "client/results.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { LOOK_MS = 1000 };

typedef struct feed {
    void *ctx, *socket;
} feed;

static void feed_close(feed *f)
{
    if (f->socket)
        zmq_close(f->socket);
    if (f->ctx)
        zmq_ctx_term(f->ctx);
}

static es_status feed_open(feed *f, dm_peer *p, uint64_t search, es_error *err)
{
    json_t *status = NULL;
    ES_RETURN(cl_query(p, &(cl_ask){.what = "status"}, &status, err));
    char *endpoint =
        dm_peer_data_endpoint(dm_peer_endpoint(p), cl_text(json_object_get(status, "endpoints"), "status"));
    json_decref(status);
    es_status s = ES_OK;
    char topic[40];
    snprintf(topic, sizeof topic, "search.%" PRIu64, search);
    int zero = 0;
    f->ctx = zmq_ctx_new();
    f->socket = f->ctx ? zmq_socket(f->ctx, ZMQ_SUB) : NULL;
    if (!f->socket || zmq_setsockopt(f->socket, ZMQ_LINGER, &zero, sizeof zero) ||
        zmq_setsockopt(f->socket, ZMQ_SUBSCRIBE, topic, strlen(topic)))
        s = es_fail(err, ES_IO, endpoint, "cannot subscribe to the status socket: %s", zmq_strerror(errno));
    if (s == ES_OK && endpoint[0])
        s = dm_peer_secure(f->socket, endpoint, dm_peer_login(p), err);
    if (s == ES_OK && endpoint[0] && zmq_connect(f->socket, endpoint) != 0)
        s = es_fail(err, ES_IO, endpoint, "cannot subscribe to the status socket: %s", zmq_strerror(errno));
    free(endpoint);
    return s;
}

/* Waits for an event, and takes all that are there. */
static void feed_wait(feed *f, uint64_t search, bool print)
{
    zmq_pollitem_t item = {.socket = f->socket, .events = ZMQ_POLLIN};
    zmq_poll(&item, 1, LOOK_MS);
    char topic[64], want[40], body[65536];
    snprintf(want, sizeof want, "search.%" PRIu64, search);
    for (int n; (n = zmq_recv(f->socket, topic, sizeof topic - 1, ZMQ_DONTWAIT)) >= 0;) {
        topic[n < (int)sizeof topic ? n : (int)sizeof topic - 1] = 0;
        n = zmq_recv(f->socket, body, sizeof body - 1, ZMQ_DONTWAIT);
        if (n < 0 || !print || strcmp(topic, want) != 0) /* "search.1" is also how "search.17" begins */
            continue;
        printf("%.*s\n", n < (int)sizeof body ? n : (int)sizeof body, body);
        fflush(stdout);
    }
}

static bool over(const char *state) { return strcmp(state, "running") != 0 && strcmp(state, "paused") != 0; }

static int run_watch(const cl_args *a)
{
    es_error err = {0};
    es_status s = ES_OK;
    dm_peer *p = NULL;
    feed f = {0};
    cl_progress progress;
    json_t *answer = NULL;
    uint64_t id = 0;
    char state[32] = "";
    bool events = cl_flag(a, "--events");
    if (!cl_search_id(a, 0, &id))
        return CL_USAGE;
    cl_progress_begin(&progress, stdout);
    ES_GOTO(cl_connect(a, &p, &err));
    ES_GOTO(feed_open(&f, p, id, &err));
    while (!over(state) || !state[0]) {
        json_decref(answer);
        ES_GOTO(cl_query(p, &(cl_ask){.what = "show", .search = id, .timeout_ms = 60000}, &answer, &err));
        const json_t *search = json_object_get(answer, "search");
        snprintf(state, sizeof state, "%s", cl_text(search, "state"));
        if (!events)
            cl_progress_show(&progress, search);
        if (!over(state))
            feed_wait(&f, id, events);
    }
    if (!events)
        cl_progress_end(&progress);
    if (!strcmp(state, "failed"))
        s = es_fail(&err, ES_INVALID, a->word[0], "the search failed: %s",
                    cl_text(json_object_get(answer, "search"), "reason"));
fail:
    json_decref(answer);
    feed_close(&f);
    dm_peer_close(&p);
    return s == ES_OK ? CL_OK : cl_fail(&err);
}

static const cl_option options[] = {{"--events", NULL, "print every event as a line of JSON"}, CL_ENDPOINT, CL_END};
const cl_command cl_cmd_watch = {"watch", "SEARCH", "follow a search until it ends", 1, 1, run_watch, options, NULL};
