#include "daemon/http/http.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/str.h"
#include "daemon/http/api.h"
#include "daemon/http/slow.h"

struct dm_http {
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    dm_http_rule rule;
    char *metrics, *sick; /* NULL: well */
    char address[64];
    dm_http_api *api;
    dm_http_slow *slow;
};

extern const char *const dm_page_html[]; /* http/page/index.html */

static enum MHD_Result http_reply(struct MHD_Connection *con, unsigned code, const char *type, const char *text)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    /* The page brings everything with it, and talks to nobody but this address. */
    MHD_add_response_header(r, "Content-Security-Policy",
                            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src "
                            "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    if (code == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer realm=\"espalier\"");
    enum MHD_Result ok = MHD_queue_response(con, code, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result http_request(void *ctx, struct MHD_Connection *con, const char *url, const char *method,
                                    const char *version, const char *upload, size_t *upload_n, void **state)
{
    dm_http *h = ctx;
    (void)version;
    (void)upload;
    (void)upload_n;
    dm_http_slow_begins(con);
    dm_http_ask ask = {.method = method,
                       .path = url,
                       .host = MHD_lookup_connection_value(con, MHD_HEADER_KIND, "Host"),
                       .authorization = MHD_lookup_connection_value(con, MHD_HEADER_KIND, "Authorization"),
                       .token = MHD_lookup_connection_value(con, MHD_GET_ARGUMENT_KIND, "token")};
    const char *why;
    unsigned refused = dm_http_access(&h->rule, &ask, &why);
    if (refused)
        return http_reply(con, refused, "text/plain", why);
    bool metrics = strcmp(url, "/metrics") == 0;
    if (dm_http_api_takes(url))
        return dm_http_api_request(h->api, con, url, state);
    if (strcmp(url, "/") == 0)
        return http_reply(con, MHD_HTTP_OK, "text/html; charset=utf-8", dm_page_html[0]);
    if (!metrics && strcmp(url, "/healthz") != 0)
        return http_reply(con, MHD_HTTP_NOT_FOUND, "text/plain", "/, /api, /metrics and /healthz are served here\n");
    pthread_mutex_lock(&h->lock);
    char *text = es_xstrdup(metrics ? h->metrics ? h->metrics : "" : h->sick ? h->sick : "ok\n");
    bool sick = !metrics && h->sick;
    pthread_mutex_unlock(&h->lock);
    enum MHD_Result ok = http_reply(con, sick ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK,
                                    metrics ? "text/plain; version=0.0.4" : "text/plain", text);
    free(text);
    return ok;
}

static void http_ended(void *ctx, struct MHD_Connection *con, void **state, enum MHD_RequestTerminationCode how)
{
    (void)ctx;
    (void)how;
    dm_http_api_ended(state);
    dm_http_slow_ends(con);
}

int dm_http_questions_fd(const dm_http *h) { return dm_http_api_fd(h->api); }
void dm_http_answer(dm_http *h, dm_coord *coord) { dm_http_api_answer(h->api, coord); }

static es_status http_parse(const char *address, struct sockaddr_in *out, es_error *err)
{
    char host[64];
    int64_t port;
    const char *colon = strrchr(address, ':');
    memset(out, 0, sizeof *out);
    out->sin_family = AF_INET;
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - address) : 0, address);
    if (!colon || !es_str_to_i64(colon + 1, false, &port) || port < 0 || port > 65535 ||
        inet_pton(AF_INET, host, &out->sin_addr) != 1)
        return es_fail(err, ES_INVALID, "http",
                       "\"%s\" is no address: allowed is IPV4:PORT, as 127.0.0.1:5703, or empty for none", address);
    out->sin_port = htons((uint16_t)port);
    return ES_OK;
}

es_status dm_http_start(const char *address, const dm_http_rule *rule, dm_http **out, es_error *err)
{
    struct sockaddr_in at;
    *out = NULL;
    ES_RETURN(http_parse(address, &at, err));
    dm_http *h = es_xcalloc(1, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    h->rule = *rule;
    h->api = dm_http_api_new();
    h->slow = dm_http_slow_new();
    h->daemon =
        MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, http_request, h,
                         MHD_OPTION_SOCK_ADDR, &at, MHD_OPTION_CONNECTION_LIMIT, (unsigned)DM_HTTP_CONNECTIONS,
                         MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_PER_IP_CONNECTION_LIMIT, 32u,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_NOTIFY_COMPLETED, http_ended,
                         NULL, MHD_OPTION_NOTIFY_CONNECTION, dm_http_slow_connection, h->slow, MHD_OPTION_END);
    if (!h->daemon) {
        dm_http_stop(&h);
        return es_fail(err, ES_BUSY, address,
                       "cannot listen there for HTTP: the address is in use or not this machine's");
    }
    const union MHD_DaemonInfo *port = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
    char host[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &at.sin_addr, host, sizeof host);
    snprintf(h->address, sizeof h->address, "%s:%u", host, port ? (unsigned)port->port : ntohs(at.sin_port));
    *out = h;
    return ES_OK;
}

const char *dm_http_address(const dm_http *h) { return h->address; }

int dm_http_end_slow(dm_http *h, int64_t now_ms) { return dm_http_slow_end_all(h->slow, now_ms); }

void dm_http_update(dm_http *h, const char *metrics, const char *sick)
{
    dm_http_end_slow(h, es_clock_mono_ms(es_clock_system()));
    char *m = es_xstrdup(metrics), *s = sick ? es_xstrdup(sick) : NULL;
    pthread_mutex_lock(&h->lock);
    char *old_m = h->metrics, *old_s = h->sick;
    h->metrics = m;
    h->sick = s;
    pthread_mutex_unlock(&h->lock);
    free(old_m);
    free(old_s);
}

void dm_http_stop(dm_http **ph)
{
    dm_http *h = *ph;
    if (!h)
        return;
    dm_http_api_close(h->api); /* nothing may be suspended when it stops */
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    dm_http_api_free(&h->api);
    dm_http_slow_free(&h->slow);
    pthread_mutex_destroy(&h->lock);
    free(h->metrics);
    free(h->sick);
    free(h);
    *ph = NULL;
}
