#include "daemon/config.h"

#include <stdio.h>
#include <string.h>

#include "base/yaml.h"
#include "daemon/settings.h"

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

es_status dm_config_parse(const char *name, const char *text, size_t n, dm_config *c, es_error *err)
{
    es_yaml *doc = NULL;
    es_status s = es_yaml_parse(name, text, n, &doc, err);
    if (s == ES_OK)
        s = dm_settings_read(es_yaml_root(doc), c, err);
    es_yaml_destroy(&doc);
    return s;
}

es_status dm_config_read(const char *path, dm_config *c, es_error *err)
{
    es_yaml *doc = NULL;
    es_status s = es_yaml_read(path, &doc, err);
    if (s == ES_OK)
        s = dm_settings_read(es_yaml_root(doc), c, err);
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
