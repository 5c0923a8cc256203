#include "daemon/server.h"
#include "daemon/store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/auth/accept.h"
#include "daemon/auth/auth.h"
#include "daemon/auth/backlog.h"
#include "daemon/auth/limits.h"
#include "daemon/backup/damaged_log.h"
#include "daemon/backup/restore.h"
#include "daemon/backup/set.h"
#include "daemon/http/http.h"
#include "daemon/keep.h"
#include "daemon/notify.h"
#include "daemon/reload.h"
#include "daemon/store/folder.h"
#include "daemon/weights/data_thread.h"
#include "daemon/weights/weights.h"
#include "daemon/wire/codec.h"

enum {
    LOCAL_HWM = 100000,
    TCP_RECEIVE_HWM = 64,
    TCP_SEND_HWM = 4096,
    BACKLOG_EACH = 96 << 20, /* more than the high-water marks let wait of a peer that ends its messages */
    BACKLOG_ALL = 1 << 30,
    CHECK_BYTES_MAX = 64 << 20,
    EMPTY_BYTES = 16 << 10
};

struct dm_server {
    dm_config config;
    void *zmq, *router, *pub;
    dm_auth *auth;
    dm_limits *limits;
    dm_backlog *backlog;
    int lock;
    dm_data *data;
    dm_weights *weights; /* the main thread's own connection: "is it there?" */
    dm_coord *coord;
    dm_http *http;
    dm_keep *keep;
    es_status (*reread)(void *ctx, dm_config *out, es_error *err); /* the configuration; NULL: there is no file */
    void *reread_ctx;
    int64_t metrics_at_ms, descriptors_at_ms;
    bool descriptors_gone;
    char bound[DM_CONTROLS_MAX][256], status[256], ready[1200];
    char state_path[400], weights_path[400];
};

/* ---- what the coordinator asks of the world */

static void server_send(void *ctx, const dm_addr *to, const void *bytes, size_t n)
{
    dm_server *s = ctx;
    dm_limits_send(s->limits, s->router, to->id, to->n, bytes, n); /* dropped: the peer asks again */
}

static void server_publish(void *ctx, const char *topic, const char *json)
{
    dm_server *s = ctx;
    if (s->pub && zmq_send(s->pub, topic, strlen(topic), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        zmq_send(s->pub, json, strlen(json), ZMQ_DONTWAIT);
}

static bool server_has_version(void *ctx, const char *hex)
{
    dm_server *s = ctx;
    return !dm_data_dropping(s->data, hex) && dm_weights_has(s->weights, hex);
}

static es_status server_alike(void *ctx, const char *hex, const char *like, es_error *err)
{
    dm_server *s = ctx;
    return dm_weights_alike(s->weights, hex, like, err);
}

static void server_drop_version(void *ctx, const char *hex)
{
    dm_server *s = ctx;
    if (s->keep && !dm_keep_holds(s->keep))
        (void)!dm_data_drop(s->data, hex); /* what stays is found again by the walk */
}

static es_status server_backup(void *ctx, const dm_addr *from, uint64_t id, const char *dir, es_error *err)
{
    dm_server *s = ctx;
    return dm_keep_backup(s->keep, from, id, dir, err);
}

/* ---- opening */

static es_status server_pub(dm_server *s, const char *endpoint, es_error *err)
{
    int zero = 0, hwm = 10000;
    int64_t subscription_max = 4096;
    s->pub = zmq_socket(s->zmq, ZMQ_PUB);
    if (!s->pub)
        return es_fail(err, ES_IO, NULL, "no more sockets: %s", zmq_strerror(errno));
    zmq_setsockopt(s->pub, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(s->pub, ZMQ_MAXMSGSIZE, &subscription_max, sizeof subscription_max);
    zmq_setsockopt(s->pub, ZMQ_LINGER, &zero, sizeof zero);
    ES_RETURN(dm_auth_bind(s->auth, s->pub, "status", endpoint, s->status, err));
    dm_backlog_subscribers(s->status);
    return ES_OK;
}

static es_status server_sockets(dm_server *s, es_error *err)
{
    int linger = 500, backlog = 4096, yes = 1;
    int64_t max = DM_CONTROL_MAX;
    s->router = zmq_socket(s->zmq, ZMQ_ROUTER);
    if (!s->router)
        return es_fail(err, ES_IO, NULL, "no more sockets: %s", zmq_strerror(errno));
    /* What cannot be sent is then told, and counted (auth/limits.h). */
    zmq_setsockopt(s->router, ZMQ_ROUTER_MANDATORY, &yes, sizeof yes);
    zmq_setsockopt(s->router, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(s->router, ZMQ_BACKLOG, &backlog, sizeof backlog);
    zmq_setsockopt(s->router, ZMQ_MAXMSGSIZE, &max, sizeof max);
    for (int i = 0; i < s->config.controls; i++) {
        /* Messages that wait, of one peer: a stranger's are few; local programs (a load test) may run ahead. Holds for endpoints bound after it. */
        bool tcp = strncmp(s->config.control[i], "tcp://", 6) == 0;
        int in = tcp ? TCP_RECEIVE_HWM : LOCAL_HWM, out = tcp ? TCP_SEND_HWM : LOCAL_HWM;
        zmq_setsockopt(s->router, ZMQ_RCVHWM, &in, sizeof in);
        zmq_setsockopt(s->router, ZMQ_SNDHWM, &out, sizeof out);
        ES_RETURN(dm_auth_bind(s->auth, s->router, "control", s->config.control[i], s->bound[i], err));
    }
    return s->config.status[0] ? server_pub(s, s->config.status, err) : ES_OK;
}

/* Subscribers speak once and then only listen: one whose key was taken away would hear on. So all are cut, and who may comes back. */
static void server_pub_again(dm_server *s)
{
    char endpoint[sizeof s->status];
    es_error err = {0};
    es_status status = ES_BUSY;
    snprintf(endpoint, sizeof endpoint, "%s", s->status);
    for (int i = 0; i < 200 && status == ES_BUSY; i++) { /* ZeroMQ closes a port a moment later */
        if (s->pub)
            zmq_close(s->pub);
        s->pub = NULL;
        poll(NULL, 0, i > 0 ? 5 : 0);
        status = server_pub(s, endpoint, &err);
    }
    if (status != ES_OK) {
        zmq_close(s->pub);
        s->pub = NULL;
        es_log_error(ES_LOG_ERROR, "no status socket until a restart", &err);
    }
}

/* Weights are large and their peers many requests ahead: four times the messages, 64 times the bytes of control. */
static dm_limit_options data_limits(const dm_config *c)
{
    dm_limit_options l = c->limits;
    l.messages_per_s *= 4;
    l.bytes_per_s *= 64;
    l.queue_bytes *= 2;
    return l;
}

static dm_quota data_quota(const dm_config *c)
{
    return (dm_quota){c->weights_max_bytes, c->weights_free_bytes, c->weights_per_key_bytes,
                      (int64_t)c->weights_grace_s * 1000};
}

static es_status server_data(dm_server *s, es_error *err)
{
    const dm_config *c = &s->config;
    return dm_data_start(&(dm_data_options){.zmq = s->zmq,
                                            .auth = s->auth,
                                            .endpoint = c->data,
                                            .path = s->weights_path,
                                            .limits = data_limits(c),
                                            .quota = data_quota(c)},
                         &s->data, err);
}

static es_status server_http(dm_server *s, es_error *err)
{
    dm_http_rule rule;
    char token[400];
    snprintf(token, sizeof token, "%s/http.token", s->config.keys);
    ES_RETURN(dm_http_rule_make(&rule, s->config.http, s->config.http_token, token, err));
    if (!rule.loopback && !rule.token[0])
        es_log(ES_LOG_WARN, "HTTP at %s needs no token (http_token: never): whoever reaches it can read everything",
               s->config.http);
    return dm_http_start(s->config.http, &rule, &s->http, err);
}

es_status dm_server_check(const dm_config *config, es_error *err)
{
    dm_backup_info info;
    int lock = -1;
    char state[600], weights[600];
    snprintf(state, sizeof state, "%s/state.db", config->dir);
    snprintf(weights, sizeof weights, "%s/weights.db", config->dir);
    if (!es_file_exists(state))
        return es_fail(err, ES_NOT_FOUND, state, "there is no database to check");
    es_status status = dm_folder_lock(config->dir, &lock, err);
    if (status == ES_OK) /* before anything is opened, which drops what is damaged */
        status = dm_damaged_log_check(state, err);
    if (status == ES_OK)
        status = dm_damaged_log_check(weights, err);
    if (status == ES_OK)
        status = dm_backup_inspect(config->dir, NULL, NULL, &info, err);
    if (lock >= 0)
        close(lock);
    return status;
}

/* Weights that a killed machine left damaged would be handed out for weeks before anybody noticed; a small store is read whole, a large one by `--check`. */
static es_status server_weights(dm_server *s, es_error *err)
{
    dm_weights_size size;
    char log[440];
    snprintf(log, sizeof log, "%s-wal", s->state_path);
    /* Less than a schema's pages, and no log to make it whole: SQLite would begin a new database there. */
    bool empty = es_file_bytes(s->state_path) < EMPTY_BYTES && es_file_bytes(log) <= 0;
    ES_RETURN(dm_weights_open(s->weights_path, &s->weights, err));
    ES_RETURN(dm_weights_sizes(s->weights, &size, err));
    if (empty && size.versions > 0)
        return es_fail(err, ES_CORRUPT, s->state_path,
                       "is missing or empty, but weights.db beside it holds %" PRId64
                       " versions: searches were kept here; restore the last backup",
                       size.versions);
    if (size.pages * size.page_bytes <= CHECK_BYTES_MAX)
        return dm_weights_check(s->weights, NULL, NULL, err);
    return ES_OK;
}

static dm_options server_options(const dm_server *s)
{
    dm_options o = s->config.coord;
    o.state_path = s->state_path;
    o.data_endpoint = dm_data_endpoint(s->data);
    o.endpoints[0] = s->bound[0];
    o.endpoints[1] = s->status;
    o.endpoints[2] = s->http ? dm_http_address(s->http) : NULL;
    return o;
}

void dm_server_on_reload(dm_server *s, es_status (*read)(void *ctx, dm_config *out, es_error *err), void *ctx)
{
    s->reread = read;
    s->reread_ctx = ctx;
}

/* All of it, or, when anything in the file is wrong, nothing. */
static es_status server_reload(void *ctx, char text[400], es_error *err)
{
    dm_server *s = ctx;
    dm_config fresh;
    dm_reload_result r;
    dm_notify_reloading();
    es_status status = s->reread ? s->reread(s->reread_ctx, &fresh, err) : ES_OK;
    if (status == ES_OK)
        status = dm_auth_reload(s->auth, err);
    if (status != ES_OK) {
        es_log_error(ES_LOG_ERROR, "configuration stays as it was", err);
        dm_notify("READY=1\nSTATUS=the configuration on disk has a mistake, the old one is in force");
        return status;
    }
    if (dm_auth_took_away(s->auth) && s->pub)
        server_pub_again(s);
    if (s->reread)
        dm_reload_merge(&s->config, &fresh, &r);
    else
        snprintf(r.text, sizeof r.text, "keys read again");
    es_log_init("espalierd", s->config.log);
    es_log_json(s->config.log_json);
    dm_options o = server_options(s);
    dm_coord_set_options(s->coord, &o);
    dm_limit_options limits = data_limits(&s->config);
    dm_quota quota = data_quota(&s->config);
    dm_limits_set(s->limits, &s->config.limits);
    dm_data_set_limits(s->data, &limits, &quota);
    dm_keep_set(s->keep, &s->config);
    es_log(ES_LOG_INFO, "configuration read: %s", r.text);
    dm_notify("READY=1\nSTATUS=%s", r.text);
    snprintf(text, 400, "%s", r.text);
    return ES_OK;
}

/* The folder is ours, and its databases are whole. */
static es_status server_claim(dm_server *s, es_error *err)
{
    ES_RETURN(dm_config_check(&s->config, err));
    ES_RETURN(es_file_mkdirs(s->config.dir, err));
    ES_RETURN(dm_folder_lock(s->config.dir, &s->lock, err));
    snprintf(s->state_path, sizeof s->state_path, "%s/state.db", s->config.dir);
    snprintf(s->weights_path, sizeof s->weights_path, "%s/weights.db", s->config.dir);
    ES_RETURN(dm_restore_finish(s->config.dir, err));
    dm_damaged_log_tell(s->state_path, s->config.backup_dir);
    dm_damaged_log_tell(s->weights_path, s->config.backup_dir);
    return server_weights(s, err);
}

/* Everything that others reach us by; keys before sockets, sockets before who answers on them. */
static es_status server_listen(dm_server *s, es_error *err)
{
    bool tcp = dm_config_has_tcp(&s->config);
    s->zmq = zmq_ctx_new();
    zmq_ctx_set(s->zmq, ZMQ_MAX_SOCKETS, 65000);
    s->limits = dm_limits_new(&s->config.limits);
    dm_auth_options auth = {.zmq = s->zmq, .keys = s->config.keys, .curve = tcp, .insecure = s->config.insecure};
    ES_RETURN(dm_auth_open(&auth, &s->auth, err));
    if (tcp)
        ES_RETURN(dm_backlog_start(&(dm_backlog_options){.each = BACKLOG_EACH, .all = BACKLOG_ALL}, &s->backlog, err));
    ES_RETURN(server_sockets(s, err));
    ES_RETURN(server_data(s, err));
    return s->config.http[0] ? server_http(s, err) : ES_OK;
}

static es_status server_coord(dm_server *s, es_error *err)
{
    dm_options o = server_options(s);
    dm_env env = {.ctx = s,
                  .clock = es_clock_system(),
                  .seed = (uint64_t)es_clock_wall_ms(es_clock_system()),
                  .send = server_send,
                  .publish = server_publish,
                  .has_version = server_has_version,
                  .alike = server_alike,
                  .drop_version = server_drop_version,
                  .reload = server_reload,
                  .backup = server_backup};
    ES_RETURN(dm_coord_open(&o, &env, &s->coord, err));
    s->keep = dm_keep_new(s->coord, s->weights, s->data, s->weights_path);
    dm_keep_set(s->keep, &s->config);
    return ES_OK;
}

es_status dm_server_open(const dm_config *config, dm_server **out, es_error *err)
{
    dm_server *s = *out = es_xcalloc(1, sizeof *s);
    s->config = *config;
    s->lock = -1;
    es_status status = server_claim(s, err);
    if (status == ES_OK)
        status = server_listen(s, err);
    if (status == ES_OK)
        status = server_coord(s, err);
    if (status != ES_OK) {
        dm_server_close(out);
        return status;
    }
    snprintf(s->ready, sizeof s->ready, "ready control=%s data=%s status=%s http=%s dir=%s", s->bound[0],
             dm_data_endpoint(s->data), s->status, s->http ? dm_http_address(s->http) : "", s->config.dir);
    return ES_OK;
}

const char *dm_server_ready(const dm_server *s) { return s->ready; }

/* ---- running */

/* Once a second what /metrics and /healthz say. */
static void server_metrics(dm_server *s)
{
    int64_t now = es_clock_mono_ms(es_clock_system());
    if (!s->http || now < s->metrics_at_ms)
        return;
    es_str text = ES_STR_INIT;
    es_error err = {0};
    char line[700] = "";
    bool sick = dm_coord_health(s->coord, &err) != ES_OK || dm_coord_metrics(s->coord, &text, &err) != ES_OK;
    es_str_addf(
        &text,
        "# HELP espalier_refused_total Handshakes with unknown keys, and messages of keys that were taken back.\n"
        "# TYPE espalier_refused_total counter\nespalier_refused_total %" PRIu64 "\n"
        "# HELP espalier_limited_total Messages of peers over their rate, and answers to peers that read too slowly.\n"
        "# TYPE espalier_limited_total counter\nespalier_limited_total{what=\"messages\"} %" PRIu64 "\n"
        "espalier_limited_total{what=\"answers\"} %" PRIu64 "\n",
        dm_auth_refused(s->auth), dm_limits_refused(s->limits), dm_limits_dropped(s->limits));
    dm_keep_metrics(s->keep, &text);
    dm_http_update(s->http, text.p, sick ? es_error_line(&err, line, sizeof line) : NULL);
    es_str_free(&text);
    s->metrics_at_ms = now + 1000;
}

/* Once a second: could another peer connect? Nobody else would say so. */
static void server_descriptors(dm_server *s)
{
    int64_t now = es_clock_mono_ms(es_clock_system());
    if (now < s->descriptors_at_ms)
        return;
    s->descriptors_at_ms = now + 1000;
    bool gone = dm_accept_short();
    if (gone && !s->descriptors_gone)
        es_log(ES_LOG_ERROR, "no file descriptors are left for more peers (`ulimit -n` is %d): they have to wait",
               dm_accept_limit());
    else if (!gone && s->descriptors_gone)
        es_log(ES_LOG_INFO, "file descriptors are free again");
    s->descriptors_gone = gone;
}

/* Whether the sender keeps to its limits; if not, it is told now and then. */
static bool server_within(dm_server *s, zmq_msg_t *id, zmq_msg_t *body, const dm_who *who)
{
    es_error why;
    dm_bytes reply;
    int64_t now = es_clock_mono_ms(es_clock_system());
    dm_verdict v = dm_limits_take(s->limits, zmq_msg_data(id), zmq_msg_size(id), who, zmq_msg_size(body), now, &why);
    if (v == DM_TELL && dm_refusal(zmq_msg_data(body), zmq_msg_size(body), &why, &reply, NULL) == ES_OK) {
        dm_limits_send(s->limits, s->router, zmq_msg_data(id), zmq_msg_size(id), reply.data, reply.n);
        free(reply.data);
    }
    return v == DM_PASS;
}

/* Takes what is there, at most one turn's worth. */
static void server_receive(dm_server *s)
{
    for (int i = 0; i < DM_TURN_MESSAGES; i++) {
        dm_addr from = {0};
        zmq_msg_t id, body;
        zmq_msg_init(&id);
        zmq_msg_init(&body);
        if (zmq_msg_recv(&id, s->router, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&id);
            zmq_msg_close(&body);
            return;
        }
        bool more = zmq_msg_more(&id) != 0;
        while (more) { /* the last frame is the message */
            more = zmq_msg_recv(&body, s->router, 0) >= 0 && zmq_msg_more(&body);
            dm_backlog_taken(&body);
        }
        dm_who who;
        if (zmq_msg_size(&id) <= DM_ADDR_MAX && dm_auth_who(s->auth, &body, &who) &&
            server_within(s, &id, &body, &who)) {
            from.n = (uint8_t)zmq_msg_size(&id);
            memcpy(from.id, zmq_msg_data(&id), from.n);
            dm_coord_deliver_as(s->coord, &from, &who, zmq_msg_data(&body), zmq_msg_size(&body));
        }
        zmq_msg_close(&id);
        zmq_msg_close(&body);
    }
}

/* SIGHUP: configuration and keys are read again. Any other signal: true, it is over. */
static bool server_signalled(dm_server *s, int signal_fd)
{
    struct signalfd_siginfo info;
    es_error err;
    char text[400];
    if (read(signal_fd, &info, sizeof info) != sizeof info || info.ssi_signo != SIGHUP)
        return true;
    (void)!server_reload(s, text, &err); /* it has said how it went */
    return false;
}

es_status dm_server_run(dm_server *s, int signal_fd, es_error *err)
{
    for (;;) {
        int wait = dm_coord_turn(s->coord);
        int keep = dm_keep_turn(s->keep);
        int alive = dm_notify_alive();
        wait = keep < wait ? keep : wait;
        wait = alive < wait ? alive : wait;
        server_metrics(s);
        server_descriptors(s);
        if (dm_coord_shutdown_asked(s->coord)) {
            es_log(ES_LOG_INFO, "ends: asked by an operator");
            return ES_OK;
        }
        zmq_pollitem_t items[] = {{.socket = s->router, .events = ZMQ_POLLIN},
                                  {.fd = signal_fd, .events = ZMQ_POLLIN},
                                  {.fd = s->http ? dm_http_questions_fd(s->http) : -1, .events = ZMQ_POLLIN}};
        if (zmq_poll(items, s->http ? 3 : 2, wait) < 0 && errno != EINTR)
            return es_fail(err, ES_IO, "control", "%s", zmq_strerror(errno));
        if ((items[1].revents & ZMQ_POLLIN) && server_signalled(s, signal_fd)) {
            es_log(ES_LOG_INFO, "ends: asked by a signal");
            return ES_OK;
        }
        if (s->http && (items[2].revents & ZMQ_POLLIN))
            dm_http_answer(s->http, s->coord);
        server_receive(s);
    }
}

void dm_server_close(dm_server **ps)
{
    dm_server *s = *ps;
    if (!s)
        return;
    dm_http_stop(&s->http);
    dm_keep_destroy(&s->keep);
    dm_coord_close(&s->coord);
    dm_data_stop(&s->data);
    dm_weights_close(&s->weights);
    if (s->router)
        zmq_close(s->router);
    if (s->pub)
        zmq_close(s->pub);
    dm_backlog_stop(&s->backlog);
    dm_limits_free(&s->limits);
    dm_auth_close(&s->auth);
    if (s->zmq)
        zmq_ctx_term(s->zmq);
    if (s->lock >= 0)
        close(s->lock);
    free(s);
    *ps = NULL;
}
