#include "daemon/reload.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef enum kind { TEXT, INT, I64, FLAG } kind;
typedef struct setting {
    const char *name;
    size_t at, size;
    kind kind;
    bool live;
} setting;

#define AT(field) offsetof(dm_config, field), sizeof(((dm_config *)0)->field)
static const setting settings[] = {
    {"log", AT(log), INT, true},
    {"log_format", AT(log_json), FLAG, true},
    {"lease_ms", AT(coord.lease_ms), INT, true},
    {"heartbeat_ms", AT(coord.heartbeat_ms), INT, true},
    {"backoff_ms", AT(coord.backoff_ms), INT, true},
    {"failures_max", AT(coord.failures_max), INT, true},
    {"losses_max", AT(coord.losses_max), INT, true},
    {"drain_after", AT(coord.drain_after), INT, true},
    {"hold_ms", AT(coord.hold_ms), INT, true},
    {"events_kept", AT(coord.events_kept), I64, true},
    {"client_priority_max", AT(coord.client_priority_max), INT, true},
    {"searches_per_user", AT(coord.searches_per_user), INT, true},
    {"queued_bytes_per_user", AT(coord.queued_bytes_per_user), I64, true},
    {"weights_grace_s", AT(weights_grace_s), INT, true},
    {"retention.checkpoints", AT(coord.retain.checkpoints), INT, true},
    {"retention.failed_days", AT(coord.retain.failed_days), INT, true},
    {"retention.final_days", AT(coord.retain.final_days), INT, true},
    {"retention.final_searches", AT(coord.retain.final_searches), INT, true},
    {"retention.worker_days", AT(coord.retain.worker_days), INT, true},
    {"backup.dir", AT(backup_dir), TEXT, true},
    {"backup.every_s", AT(backup_every_s), I64, true},
    {"backup.keep", AT(backup_keep), INT, true},
    {"dir", AT(dir), TEXT, false},
    {"control", AT(control[0]), TEXT, false},
    {"control[1]", AT(control[1]), TEXT, false},
    {"control[2]", AT(control[2]), TEXT, false},
    {"control[3]", AT(control[3]), TEXT, false},
    {"data", AT(data), TEXT, false},
    {"status", AT(status), TEXT, false},
    {"http", AT(http), TEXT, false},
    {"http_token", AT(http_token), INT, false},
    {"keys", AT(keys), TEXT, false},
    {"insecure", AT(insecure), FLAG, false},
    {"peer_messages_per_s", AT(limits.messages_per_s), INT, true},
    {"peer_bytes_per_s", AT(limits.bytes_per_s), I64, true},
    {"peer_queue_bytes", AT(limits.queue_bytes), I64, true},
    {"peers_max", AT(limits.peers_max), INT, true},
    {"weights_max_bytes", AT(weights_max_bytes), I64, true},
    {"weights_free_bytes", AT(weights_free_bytes), I64, true},
    {"weights_per_key_bytes", AT(weights_per_key_bytes), I64, true},
};
#undef AT

static const void *field(const dm_config *c, const setting *s) { return (const char *)c + s->at; }

static bool same(const setting *s, const dm_config *a, const dm_config *b)
{
    if (s->kind == TEXT)
        return strcmp(field(a, s), field(b, s)) == 0;
    return memcmp(field(a, s), field(b, s), s->size) == 0;
}

static void show(const setting *s, const dm_config *c, char out[80])
{
    int i;
    int64_t l;
    switch (s->kind) {
    case TEXT: snprintf(out, 80, "%s", (const char *)field(c, s)); break;
    case INT:
        memcpy(&i, field(c, s), sizeof i);
        snprintf(out, 80, "%d", i);
        break;
    case I64:
        memcpy(&l, field(c, s), sizeof l);
        snprintf(out, 80, "%" PRId64, l);
        break;
    case FLAG: snprintf(out, 80, "%s", *(const bool *)field(c, s) ? "yes" : "no"); break;
    }
}

void dm_reload_merge(dm_config *running, const dm_config *fresh, dm_reload_result *out)
{
    memset(out, 0, sizeof *out);
    size_t used = 0;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const setting *s = &settings[i];
        char old[80], new[80];
        if (same(s, running, fresh))
            continue;
        show(s, running, old);
        show(s, fresh, new);
        if (s->live)
            es_log(ES_LOG_INFO, "setting changed name=%s old=%s new=%s", s->name, old, new);
        else
            es_log(ES_LOG_WARN, "setting needs a restart name=%s old=%s new=%s", s->name, old, new);
        out->changed += s->live;
        out->waiting += !s->live;
        if (s->live)
            memcpy((char *)running + s->at, field(fresh, s), s->size);
        else if (used < sizeof out->text)
            used += (size_t)snprintf(out->text + used, sizeof out->text - used, "%s%s", used ? ", " : "", s->name);
    }
    char waiting[sizeof out->text];
    memcpy(waiting, out->text, sizeof waiting);
    snprintf(out->text, sizeof out->text, "%d settings changed%s%.300s", out->changed,
             out->waiting ? "; these need a restart: " : "", waiting);
}
