#include "daemon/settings.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "daemon/wire/codec.h"

static const char *const tokens[] = {"auto", "always", "never", NULL};
static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const formats[] = {"text", "json", NULL};

#define MOST_BYTES ((int64_t)1 << 50)
#define MOST_OF_A_PEER ((int64_t)1 << 40)

#define AT(field) offsetof(dm_config, field), sizeof(((dm_config *)0)->field)
#define LIVE true
#define RESTART false
const dm_setting dm_settings[] = {
    /* clang-format off */
    {"dir", AT(dir), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"control", AT(control[0]), RESTART, DM_SETTING_LIST, 0, 0, NULL},
    {"control[1]", AT(control[1]), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"control[2]", AT(control[2]), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"control[3]", AT(control[3]), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"data", AT(data), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"status", AT(status), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"http", AT(http), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"http_token", AT(http_token), RESTART, DM_SETTING_ENUM, 0, 0, tokens},
    {"keys", AT(keys), RESTART, DM_SETTING_TEXT, 0, 0, NULL},
    {"insecure", AT(insecure), RESTART, DM_SETTING_FLAG, 0, 0, NULL},
    {"log", AT(log), LIVE, DM_SETTING_ENUM, 0, 0, levels},
    {"log_format", AT(log_json), LIVE, DM_SETTING_ENUM, 0, 0, formats},
    {"lease_ms", AT(coord.lease_ms), LIVE, DM_SETTING_INT, 100, 86400000, NULL},
    {"heartbeat_ms", AT(coord.heartbeat_ms), LIVE, DM_SETTING_INT, 20, 3600000, NULL},
    {"backoff_ms", AT(coord.backoff_ms), LIVE, DM_SETTING_INT, 1, 3600000, NULL},
    {"failures_max", AT(coord.failures_max), LIVE, DM_SETTING_INT, 1, 1000, NULL},
    {"losses_max", AT(coord.losses_max), LIVE, DM_SETTING_INT, 0, 1000000, NULL},
    {"drain_after", AT(coord.drain_after), LIVE, DM_SETTING_INT, 0, 1000000, NULL},
    {"hold_ms", AT(coord.hold_ms), LIVE, DM_SETTING_INT, 1000, 86400000, NULL},
    {"events_kept", AT(coord.events_kept), LIVE, DM_SETTING_I64, 1000, INT64_MAX / 2, NULL},
    /* what is kept */
    {"weights_grace_s", AT(weights_grace_s), LIVE, DM_SETTING_INT, 1, 30 * 86400, NULL},
    {"retention.checkpoints", AT(coord.retain.checkpoints), LIVE, DM_SETTING_INT, 1, 1000, NULL},
    {"retention.failed_days", AT(coord.retain.failed_days), LIVE, DM_SETTING_INT, 0, 36500, NULL},
    {"retention.final_days", AT(coord.retain.final_days), LIVE, DM_SETTING_INT, 0, 36500, NULL},
    {"retention.final_searches", AT(coord.retain.final_searches), LIVE, DM_SETTING_INT, 0, 1000000, NULL},
    {"retention.worker_days", AT(coord.retain.worker_days), LIVE, DM_SETTING_INT, 0, 36500, NULL},
    {"backup.dir", AT(backup_dir), LIVE, DM_SETTING_PATH, 0, 0, NULL},
    {"backup.every_s", AT(backup_every_s), LIVE, DM_SETTING_I64, 0, 365 * 86400, NULL},
    {"backup.keep", AT(backup_keep), LIVE, DM_SETTING_INT, 1, 1000, NULL},
    /* what one user, connection or key may take */
    {"client_priority_max", AT(coord.client_priority_max), LIVE, DM_SETTING_INT, -1000, 1000, NULL},
    {"searches_per_user", AT(coord.searches_per_user), LIVE, DM_SETTING_INT, 1, 1000000, NULL},
    {"queued_bytes_per_user", AT(coord.queued_bytes_per_user), LIVE, DM_SETTING_I64, 1 << 16, MOST_OF_A_PEER, NULL},
    {"peer_messages_per_s", AT(limits.messages_per_s), LIVE, DM_SETTING_INT, 1, 10000000, NULL},
    {"peer_bytes_per_s", AT(limits.bytes_per_s), LIVE, DM_SETTING_I64, 1 << 16, MOST_OF_A_PEER, NULL},
    {"peer_queue_bytes", AT(limits.queue_bytes), LIVE, DM_SETTING_I64, DM_DATA_MAX, MOST_BYTES, NULL},
    {"peers_max", AT(limits.peers_max), LIVE, DM_SETTING_INT, 10, 10000000, NULL},
    {"weights_max_bytes", AT(weights_max_bytes), LIVE, DM_SETTING_I64, 0, MOST_BYTES, NULL},
    {"weights_free_bytes", AT(weights_free_bytes), LIVE, DM_SETTING_I64, 0, MOST_BYTES, NULL},
    /* less, and a key could never store one large manifest */
    {"weights_per_key_bytes", AT(weights_per_key_bytes), LIVE, DM_SETTING_I64, DM_DATA_MAX, MOST_BYTES, NULL},
    {NULL, 0, 0, false, DM_SETTING_TEXT, 0, 0, NULL},
    /* clang-format on */
};
enum { KEYS_MAX = sizeof dm_settings / sizeof dm_settings[0] + 2 };

static const char *const sections[] = {"retention", "backup", NULL};

/* What a field is called in a section ("": the root); NULL: it is not one of it. */
static const char *key_in(const dm_setting *s, const char *section)
{
    const char *dot = strchr(s->name, '.');
    if (strchr(s->name, '['))
        return NULL;
    if (!section[0] || !dot)
        return section[0] || dot ? NULL : s->name;
    size_t n = (size_t)(dot - s->name);
    return strlen(section) == n && strncmp(s->name, section, n) == 0 ? dot + 1 : NULL;
}

static es_status read_text(const es_yaml_node *n, char out[DM_CONFIG_TEXT], es_error *err)
{
    const char *text;
    ES_RETURN(es_yaml_str(n, &text, err));
    if (strlen(text) >= DM_CONFIG_TEXT)
        return es_yaml_fail(n, err, "has %zu bytes, at most %d are allowed", strlen(text), DM_CONFIG_TEXT - 1);
    snprintf(out, DM_CONFIG_TEXT, "%s", text);
    return ES_OK;
}

static es_status read_controls(const es_yaml_node *n, dm_config *c, es_error *err)
{
    if (n->kind != ES_YAML_LIST)
        return read_text(n, c->control[0], err);
    if (n->count < 1 || n->count > DM_CONTROLS_MAX)
        return es_yaml_fail(n, err, "has %zu endpoints, allowed are 1 to %d", n->count, DM_CONTROLS_MAX);
    c->controls = (int)n->count;
    for (size_t i = 0; i < n->count; i++)
        ES_RETURN(read_text(n->items[i], c->control[i], err));
    return ES_OK;
}

static es_status read_setting(const es_yaml_node *n, const dm_setting *s, dm_config *c, es_error *err)
{
    void *to = (char *)c + s->at;
    int64_t number = 0;
    int name = 0;
    switch (s->kind) {
    case DM_SETTING_TEXT: return read_text(n, to, err);
    case DM_SETTING_PATH:
        ES_RETURN(read_text(n, to, err));
        return *(char *)to == '/' ? ES_OK : es_yaml_fail(n, err, "is \"%s\", an absolute path is needed", (char *)to);
    case DM_SETTING_LIST: return read_controls(n, c, err);
    case DM_SETTING_INT:
        ES_RETURN(es_yaml_i64(n, s->min, s->max, &number, err));
        *(int *)to = (int)number;
        return ES_OK;
    case DM_SETTING_I64: return es_yaml_i64(n, s->min, s->max, to, err);
    case DM_SETTING_FLAG: return es_yaml_bool(n, to, err);
    case DM_SETTING_ENUM:
        ES_RETURN(es_yaml_enum(n, s->names, &name, err));
        if (s->size == sizeof(bool))
            *(bool *)to = name;
        else
            memcpy(to, &name, sizeof name);
        return ES_OK;
    }
    return ES_OK;
}

static es_status read_section(const es_yaml_node *map, const char *section, dm_config *c, es_error *err)
{
    const char *keys[KEYS_MAX + 1] = {NULL};
    int n = 0;
    for (const dm_setting *s = dm_settings; s->name; s++)
        if (key_in(s, section))
            keys[n++] = key_in(s, section);
    for (int i = 0; !section[0] && sections[i]; i++)
        keys[n++] = sections[i];
    ES_RETURN(es_yaml_expect(map, ES_YAML_MAP, err));
    ES_RETURN(es_yaml_check_keys(map, keys, err));
    for (const dm_setting *s = dm_settings; s->name; s++) {
        const es_yaml_node *value = key_in(s, section) ? es_yaml_find(map, key_in(s, section)) : NULL;
        if (value)
            ES_RETURN(read_setting(value, s, c, err));
    }
    return ES_OK;
}

es_status dm_settings_read(const es_yaml_node *root, dm_config *c, es_error *err)
{
    ES_RETURN(read_section(root, "", c, err));
    for (int i = 0; sections[i]; i++) {
        const es_yaml_node *map = es_yaml_find(root, sections[i]);
        if (map)
            ES_RETURN(read_section(map, sections[i], c, err));
    }
    return ES_OK;
}

static bool is_text(const dm_setting *s)
{
    return s->kind == DM_SETTING_TEXT || s->kind == DM_SETTING_PATH || s->kind == DM_SETTING_LIST;
}

static const void *value_of(const dm_setting *s, const dm_config *c) { return (const char *)c + s->at; }

bool dm_setting_same(const dm_setting *s, const dm_config *a, const dm_config *b)
{
    return is_text(s) ? strcmp(value_of(s, a), value_of(s, b)) == 0
                      : memcmp(value_of(s, a), value_of(s, b), s->size) == 0;
}

void dm_setting_take(const dm_setting *s, dm_config *to, const dm_config *from)
{
    memcpy((char *)to + s->at, value_of(s, from), s->size);
}

void dm_setting_show(const dm_setting *s, const dm_config *c, char out[80])
{
    const void *value = value_of(s, c);
    int64_t wide = 0;
    int number = 0;
    if (is_text(s)) {
        snprintf(out, 80, "%s", (const char *)value);
        return;
    }
    if (s->size == sizeof wide)
        memcpy(&wide, value, sizeof wide);
    else if (s->size == sizeof number)
        memcpy(&number, value, sizeof number);
    else
        number = *(const bool *)value;
    if (s->kind == DM_SETTING_FLAG)
        snprintf(out, 80, "%s", number ? "true" : "false");
    else if (s->kind == DM_SETTING_ENUM) {
        int n = 0;
        while (s->names[n] && n < number)
            n++;
        snprintf(out, 80, "%s", s->names[n] ? s->names[n] : "off"); /* --log off has no name in the file */
    } else
        snprintf(out, 80, "%" PRId64, s->size == sizeof wide ? wide : number);
}
