#include "daemon/config.h"

#include <stdio.h>
#include <string.h>

#include "base/yaml.h"
#include "daemon/wire/codec.h"

void dm_config_default(dm_config *c)
{
    *c = (dm_config){.controls = 1, .log = ES_LOG_INFO, .coord = dm_options_default()};
    c->limits = dm_limits_default();
    c->weights_free_bytes = (int64_t)1 << 30;
    c->weights_per_key_bytes = (int64_t)64 << 30;
    snprintf(c->dir, sizeof c->dir, "/var/lib/espalier");
    snprintf(c->control[0], sizeof c->control[0], "tcp://127.0.0.1:5700");
    snprintf(c->data, sizeof c->data, "tcp://127.0.0.1:5701");
    snprintf(c->status, sizeof c->status, "tcp://127.0.0.1:5702");
    snprintf(c->http, sizeof c->http, "127.0.0.1:5703");
    c->coord.lease_ms = 15000;
    c->coord.heartbeat_ms = 2000;
    c->weights_grace_s = 600;
    c->backup_every_s = 86400;
    c->backup_keep = 3;
}

static es_status config_text(const es_yaml_node *n, char out[DM_CONFIG_TEXT], es_error *err)
{
    const char *text;
    ES_RETURN(es_yaml_str(n, &text, err));
    if (strlen(text) >= DM_CONFIG_TEXT)
        return es_yaml_fail(n, err, "has %zu bytes, at most %d are allowed", strlen(text), DM_CONFIG_TEXT - 1);
    snprintf(out, DM_CONFIG_TEXT, "%s", text);
    return ES_OK;
}

static es_status config_get_text(const es_yaml_node *root, const char *key, char out[DM_CONFIG_TEXT], es_error *err)
{
    const es_yaml_node *n = es_yaml_find(root, key);
    return n ? config_text(n, out, err) : ES_OK;
}

static es_status config_controls(const es_yaml_node *root, dm_config *c, es_error *err)
{
    const es_yaml_node *n = es_yaml_find(root, "control");
    if (!n)
        return ES_OK;
    if (n->kind != ES_YAML_LIST)
        return config_text(n, c->control[0], err);
    if (n->count < 1 || n->count > DM_CONTROLS_MAX)
        return es_yaml_fail(n, err, "has %zu endpoints, allowed are 1 to %d", n->count, DM_CONTROLS_MAX);
    c->controls = (int)n->count;
    for (size_t i = 0; i < n->count; i++)
        ES_RETURN(config_text(n->items[i], c->control[i], err));
    return ES_OK;
}

static es_status config_int(const es_yaml_node *root, const char *key, int64_t min, int64_t max, int *out,
                            es_error *err)
{
    int64_t v = *out;
    ES_RETURN(es_yaml_get_i64(root, key, min, max, &v, err));
    *out = (int)v;
    return ES_OK;
}

/* What is kept: weights, backups. */
static es_status config_kept(const es_yaml_node *root, dm_config *c, es_error *err)
{
    static const char *const retention_keys[] = {"checkpoints",    "failed_days", "final_days",
                                                 "final_searches", "worker_days", NULL};
    static const char *const backup_keys[] = {"dir", "every_s", "keep", NULL};
    const es_yaml_node *r = es_yaml_find(root, "retention"), *b = es_yaml_find(root, "backup");
    dm_retention *o = &c->coord.retain;
    ES_RETURN(config_int(root, "weights_grace_s", 1, 30 * 86400, &c->weights_grace_s, err));
    if (r) {
        ES_RETURN(es_yaml_expect(r, ES_YAML_MAP, err));
        ES_RETURN(es_yaml_check_keys(r, retention_keys, err));
        ES_RETURN(config_int(r, "checkpoints", 1, 1000, &o->checkpoints, err));
        ES_RETURN(config_int(r, "failed_days", 0, 36500, &o->failed_days, err));
        ES_RETURN(config_int(r, "final_days", 0, 36500, &o->final_days, err));
        ES_RETURN(config_int(r, "final_searches", 0, 1000000, &o->final_searches, err));
        ES_RETURN(config_int(r, "worker_days", 0, 36500, &o->worker_days, err));
    }
    if (b) {
        const es_yaml_node *dir = es_yaml_find(b, "dir");
        char text[DM_CONFIG_TEXT];
        ES_RETURN(es_yaml_expect(b, ES_YAML_MAP, err));
        ES_RETURN(es_yaml_check_keys(b, backup_keys, err));
        if (dir) {
            ES_RETURN(config_text(dir, text, err));
            if (text[0] != '/')
                return es_yaml_fail(dir, err, "is \"%s\", an absolute path is needed", text);
            snprintf(c->backup_dir, sizeof c->backup_dir, "%s", text);
        }
        ES_RETURN(es_yaml_get_i64(b, "every_s", 0, 365 * 86400, &c->backup_every_s, err));
        ES_RETURN(config_int(b, "keep", 1, 1000, &c->backup_keep, err));
    }
    return ES_OK;
}

/* What one user, connection or key may take. */
static es_status config_limits(const es_yaml_node *root, dm_config *c, es_error *err)
{
    const int64_t top = (int64_t)1 << 50;
    dm_limit_options *l = &c->limits;
    ES_RETURN(config_int(root, "client_priority_max", -1000, 1000, &c->coord.client_priority_max, err));
    ES_RETURN(config_int(root, "searches_per_user", 1, 1000000, &c->coord.searches_per_user, err));
    ES_RETURN(es_yaml_get_i64(root, "queued_bytes_per_user", 1 << 16, (int64_t)1 << 40, &c->coord.queued_bytes_per_user,
                              err));
    ES_RETURN(config_int(root, "peer_messages_per_s", 1, 10000000, &l->messages_per_s, err));
    ES_RETURN(es_yaml_get_i64(root, "peer_bytes_per_s", 1 << 16, (int64_t)1 << 40, &l->bytes_per_s, err));
    ES_RETURN(es_yaml_get_i64(root, "peer_queue_bytes", DM_DATA_MAX, top, &l->queue_bytes, err));
    ES_RETURN(config_int(root, "peers_max", 10, 10000000, &l->peers_max, err));
    ES_RETURN(es_yaml_get_i64(root, "weights_max_bytes", 0, top, &c->weights_max_bytes, err));
    ES_RETURN(es_yaml_get_i64(root, "weights_free_bytes", 0, top, &c->weights_free_bytes, err));
    /* Less, and a key could never store one large manifest. */
    return es_yaml_get_i64(root, "weights_per_key_bytes", DM_DATA_MAX, top, &c->weights_per_key_bytes, err);
}

static es_status config_root(const es_yaml_node *root, dm_config *c, es_error *err)
{
    static const char *const keys[] = {"dir",
                                       "control",
                                       "data",
                                       "status",
                                       "http",
                                       "log",
                                       "lease_ms",
                                       "heartbeat_ms",
                                       "backoff_ms",
                                       "failures_max",
                                       "losses_max",
                                       "drain_after",
                                       "hold_ms",
                                       "events_kept",
                                       "log_format",
                                       "weights_grace_s",
                                       "retention",
                                       "backup",
                                       "keys",
                                       "http_token",
                                       "insecure",
                                       "client_priority_max",
                                       "searches_per_user",
                                       "queued_bytes_per_user",
                                       "peer_messages_per_s",
                                       "peer_bytes_per_s",
                                       "peer_queue_bytes",
                                       "peers_max",
                                       "weights_max_bytes",
                                       "weights_free_bytes",
                                       "weights_per_key_bytes",
                                       NULL};
    static const char *const tokens[] = {"auto", "always", "never", NULL};
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    static const char *const formats[] = {"text", "json", NULL};
    int format = c->log_json;
    int level = (int)c->log, token = (int)c->http_token;
    ES_RETURN(es_yaml_expect(root, ES_YAML_MAP, err));
    ES_RETURN(es_yaml_check_keys(root, keys, err));
    ES_RETURN(config_get_text(root, "dir", c->dir, err));
    ES_RETURN(config_controls(root, c, err));
    ES_RETURN(config_get_text(root, "data", c->data, err));
    ES_RETURN(config_get_text(root, "status", c->status, err));
    ES_RETURN(config_get_text(root, "http", c->http, err));
    ES_RETURN(config_get_text(root, "keys", c->keys, err));
    ES_RETURN(es_yaml_get_bool(root, "insecure", &c->insecure, err));
    ES_RETURN(es_yaml_get_enum(root, "http_token", tokens, &token, err));
    c->http_token = (dm_http_token)token;
    ES_RETURN(es_yaml_get_enum(root, "log", levels, &level, err));
    c->log = (es_log_level)level;
    ES_RETURN(es_yaml_get_enum(root, "log_format", formats, &format, err));
    c->log_json = format == 1;
    ES_RETURN(config_kept(root, c, err));
    ES_RETURN(config_int(root, "lease_ms", 100, 86400000, &c->coord.lease_ms, err));
    ES_RETURN(config_int(root, "heartbeat_ms", 20, 3600000, &c->coord.heartbeat_ms, err));
    ES_RETURN(config_int(root, "backoff_ms", 1, 3600000, &c->coord.backoff_ms, err));
    ES_RETURN(config_int(root, "failures_max", 1, 1000, &c->coord.failures_max, err));
    ES_RETURN(config_int(root, "losses_max", 0, 1000000, &c->coord.losses_max, err));
    ES_RETURN(config_int(root, "drain_after", 0, 1000000, &c->coord.drain_after, err));
    ES_RETURN(config_int(root, "hold_ms", 1000, 86400000, &c->coord.hold_ms, err));
    ES_RETURN(config_limits(root, c, err));
    return es_yaml_get_i64(root, "events_kept", 1000, INT64_MAX / 2, &c->coord.events_kept, err);
}

es_status dm_config_parse(const char *name, const char *text, size_t n, dm_config *c, es_error *err)
{
    es_yaml *doc = NULL;
    es_status s = es_yaml_parse(name, text, n, &doc, err);
    if (s == ES_OK)
        s = config_root(es_yaml_root(doc), c, err);
    es_yaml_destroy(&doc);
    return s;
}

es_status dm_config_read(const char *path, dm_config *c, es_error *err)
{
    es_yaml *doc = NULL;
    es_status s = es_yaml_read(path, &doc, err);
    if (s == ES_OK)
        s = config_root(es_yaml_root(doc), c, err);
    es_yaml_destroy(&doc);
    return s;
}

static es_status config_endpoint(const char *name, const char *text, es_error *err)
{
    if (strncmp(text, "tcp://", 6) == 0 && strchr(text + 6, ':') && text[6] != ':')
        return ES_OK;
    if (strncmp(text, "ipc://", 6) == 0 && text[6]) {
        if (strlen(text + 6) > 107)
            return es_fail(err, ES_INVALID, name, "the path of \"%s\" has %zu bytes, a socket's may have 107", text,
                           strlen(text + 6));
        return ES_OK;
    }
    return es_fail(err, ES_INVALID, name,
                   "\"%s\" is no endpoint: allowed are tcp://ADDRESS:PORT (ADDRESS may be *) and ipc://PATH", text);
}

bool dm_config_has_tcp(const dm_config *c)
{
    bool tcp = strncmp(c->data, "tcp://", 6) == 0 || strncmp(c->status, "tcp://", 6) == 0;
    for (int i = 0; i < c->controls; i++)
        tcp = tcp || strncmp(c->control[i], "tcp://", 6) == 0;
    return tcp;
}

static bool only_here(const char *endpoint)
{
    return strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "tcp://127.", 10) == 0;
}

es_status dm_config_check(dm_config *c, es_error *err)
{
    if (!c->dir[0])
        return es_fail(err, ES_INVALID, "dir", "is empty: name the folder for the databases");
    if (!c->backup_dir[0])
        snprintf(c->backup_dir, sizeof c->backup_dir, "%s/backups", c->dir);
    if (!c->keys[0])
        snprintf(c->keys, sizeof c->keys, "%s/keys", c->dir);
    for (int i = 0; i < c->controls; i++)
        ES_RETURN(config_endpoint("control", c->control[i], err));
    ES_RETURN(config_endpoint("data", c->data, err));
    for (int i = 0; i < c->controls; i++)
        if (!only_here(c->control[i]) && only_here(c->data))
            return es_fail(err, ES_INVALID, "data",
                           "\"%s\" is reached from this host only, control \"%s\" from others: workers there could not "
                           "fetch weights; set data too, for example tcp://*:5701",
                           c->data, c->control[i]);
    if (c->status[0])
        ES_RETURN(config_endpoint("status", c->status, err));
    if (c->coord.heartbeat_ms * 2 > c->coord.lease_ms)
        return es_fail(err, ES_INVALID, "heartbeat_ms",
                       "is %d, lease_ms %d: at least two heartbeats must fit into a lease", c->coord.heartbeat_ms,
                       c->coord.lease_ms);
    return ES_OK;
}
