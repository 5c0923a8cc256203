/* Reloading: every field of the configuration is either taken over or said to need a restart; none is forgotten. */
#include "daemon/reload.h"

#include "base/file.h"
#include "base/log.h"
#include "daemon/settings.h"
#include "tests/check_main.h"

static const struct {
    const char *key, *line;
    bool live;
} fields[] = {
    {"dir", "dir: /elsewhere", false},
    {"control", "control: tcp://127.0.0.1:9", false},
    {"data", "data: tcp://127.0.0.1:9", false},
    {"status", "status: tcp://127.0.0.1:9", false},
    {"http", "http: 127.0.0.1:9", false},
    {"log", "log: debug", true},
    {"lease_ms", "lease_ms: 20000", true},
    {"heartbeat_ms", "heartbeat_ms: 1000", true},
    {"backoff_ms", "backoff_ms: 77", true},
    {"failures_max", "failures_max: 9", true},
    {"losses_max", "losses_max: 9", true},
    {"drain_after", "drain_after: 9", true},
    {"hold_ms", "hold_ms: 9000", true},
    {"events_kept", "events_kept: 5000", true},
    {"log_format", "log_format: json", true},
    {"weights_grace_s", "weights_grace_s: 9", true},
    {"retention", "retention: {checkpoints: 2}", true},
    {"retention", "retention: {failed_days: 2}", true},
    {"retention", "retention: {final_days: 2}", true},
    {"retention", "retention: {final_searches: 2}", true},
    {"retention", "retention: {worker_days: 2}", true},
    {"backup", "backup: {dir: /elsewhere}", true},
    {"backup", "backup: {every_s: 0}", true},
    {"backup", "backup: {keep: 9}", true},
    {"keys", "keys: /elsewhere", false},
    {"http_token", "http_token: always", false},
    {"insecure", "insecure: true", false},
    {"client_priority_max", "client_priority_max: 9", true},
    {"searches_per_user", "searches_per_user: 9", true},
    {"queued_bytes_per_user", "queued_bytes_per_user: 70000", true},
    {"peer_messages_per_s", "peer_messages_per_s: 9", true},
    {"peer_bytes_per_s", "peer_bytes_per_s: 70000", true},
    {"peer_queue_bytes", "peer_queue_bytes: 77000000", true},
    {"peers_max", "peers_max: 99", true},
    {"weights_max_bytes", "weights_max_bytes: 9", true},
    {"weights_free_bytes", "weights_free_bytes: 9", true},
    {"weights_per_key_bytes", "weights_per_key_bytes: 7000000", true},
};
enum { FIELDS = sizeof fields / sizeof fields[0] };

static void parse(const char *text, dm_config *c)
{
    es_error err;
    dm_config_default(c);
    ck_assert_ok_err(dm_config_parse("espalierd.yaml", text, strlen(text), c, &err), &err);
}

START_TEST(every_field_is_taken_over_or_needs_a_restart)
    {
        es_log_init("test", ES_LOG_ERROR);
        for (int i = 0; i < FIELDS; i++) {
            dm_config running, fresh, before;
            dm_reload_result r;
            parse("{}", &running);
            before = running;
            parse(fields[i].line, &fresh);
            dm_reload_merge(&running, &fresh, &r);
            ck_assert_msg(r.changed == fields[i].live && r.waiting == !fields[i].live, "%s: %d changed, %d wait",
                          fields[i].line, r.changed, r.waiting);
            if (!fields[i].live)
                ck_assert_has(r.text, fields[i].key);
            dm_reload_merge(&before, &running, &r); /* what was taken over, and that alone */
            ck_assert_int_eq(r.changed, fields[i].live);
            ck_assert_int_eq(r.waiting, 0);
            dm_reload_merge(&running, &fresh, &r); /* again: what waits is said again, nothing else */
            ck_assert_int_eq(r.changed, 0);
            ck_assert_int_eq(r.waiting, !fields[i].live);
        }
    }
END_TEST

/* Whoever adds a setting is told to say what a reload does with it, and to write it down. */
START_TEST(no_setting_is_forgotten)
    {
        char *page;
        int n = 0;
        ck_assert_ok(es_file_read(es_test_source("schemas/status.md"), 1 << 20, &page, NULL, NULL));
        for (const dm_setting *s = dm_settings; s->name; s++, n++) {
            const char *dot = strchr(s->name, '.'), *key = dot ? dot + 1 : s->name;
            if (strchr(s->name, '['))
                continue;
            bool known = false;
            for (int i = 0; i < FIELDS; i++)
                known = known || (strncmp(s->name, fields[i].key, strlen(fields[i].key)) == 0 &&
                                  strstr(fields[i].line, key) && fields[i].live == s->live);
            ck_assert_msg(known, "%s: what does a reload do with it? (`fields` above)", s->name);
            ck_assert_msg(strstr(page, key) != NULL, "%s is not in schemas/status.md", s->name);
        }
        ck_assert_int_ge(n, 38);
        free(page);
    }
END_TEST

/* What the log says of a change is what the file would. */
START_TEST(settings_are_shown_as_they_are_written)
    {
        static const struct {
            const char *name, *shown;
        } want[] = {{"log", "warn"},      {"log_format", "json"},    {"http_token", "never"},
                    {"insecure", "true"}, {"events_kept", "5000"},   {"lease_ms", "20000"},
                    {"backup.dir", "/b"}, {"control[1]", "ipc:///c"}};
        enum { WANT = sizeof want / sizeof want[0] };
        dm_config c;
        char shown[80];
        int found = 0;
        parse("{log: warn, log_format: json, http_token: never, insecure: true, events_kept: 5000, lease_ms: 20000,"
              " backup: {dir: /b}, control: [\"ipc:///b\", \"ipc:///c\"]}",
              &c);
        for (int i = 0; i < WANT; i++)
            for (const dm_setting *s = dm_settings; s->name; s++)
                if (strcmp(s->name, want[i].name) == 0) {
                    dm_setting_show(s, &c, shown);
                    ck_assert_str_eq(shown, want[i].shown);
                    found++;
                }
        ck_assert_int_eq(found, WANT);
    }
END_TEST

START_TEST(mistakes_say_where)
    {
        static const struct {
            const char *text, *where, *what;
        } bad[] = {{"retention: {checkpoints: 0}\n", ":1:26: retention.checkpoints", "1 to 1000"},
                   {"retention: 5\n", ":1:12: retention", ""},
                   {"backup: {every: 5}\n", ":1:10: backup.every", "did you mean \"every_s\""},
                   {"backup: {dir: here}\n", ":1:15: backup.dir", "an absolute path"},
                   /* one message of the weights socket, a manifest perhaps, must fit */
                   {"weights_per_key_bytes: 4194303\n", ":1:24: weights_per_key_bytes", "4194304"},
                   {"log_format: xml\n", ":1:13: log_format", "json"}};
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            dm_config c;
            es_error e;
            dm_config_default(&c);
            ck_assert_status(dm_config_parse("d.yaml", bad[i].text, strlen(bad[i].text), &c, &e), ES_INVALID);
            ck_assert_has(e.where, bad[i].where);
            ck_assert_has(e.text, bad[i].what);
        }
    }
END_TEST

ES_TEST_MAIN("reload", every_field_is_taken_over_or_needs_a_restart, no_setting_is_forgotten,
             settings_are_shown_as_they_are_written, mistakes_say_where)
