#include "daemon/config.h"

#include "base/file.h"
#include "tests/check_main.h"

static void set(char *field, const char *text) { snprintf(field, DM_CONFIG_TEXT, "%s", text); }

START_TEST(nothing_is_open_to_others_by_default)
    {
        dm_config c;
        es_error e;
        dm_config_default(&c);
        ck_assert_ok_err(dm_config_check(&c, &e), &e);
        for (int i = 0; i < c.controls; i++)
            ck_assert_has(c.control[i], "//127.0.0.1:");
        ck_assert_has(c.data, "//127.0.0.1:");
        ck_assert_has(c.status, "//127.0.0.1:");
        ck_assert_has(c.http, "127.0.0.1:");
    }
END_TEST

START_TEST(control_open_to_others_needs_data_to_be)
    {
        dm_config c;
        es_error e;
        dm_config_default(&c);
        set(c.control[0], "tcp://*:5700");
        ck_assert_status(dm_config_check(&c, &e), ES_INVALID);
        ck_assert_str_eq(e.where, "data");
        ck_assert_has(e.text, "set data too");
        set(c.data, "tcp://*:5701");
        ck_assert_ok_err(dm_config_check(&c, &e), &e);
        set(c.control[0], "ipc:///tmp/x");
        set(c.data, "ipc:///tmp/y");
        ck_assert_ok_err(dm_config_check(&c, &e), &e);
    }
END_TEST

START_TEST(mistakes_in_the_file_say_where)
    {
        const char *path = es_test_join(es_test_dir(), "d.yaml");
        static const struct {
            const char *text, *where, *what;
        } bad[] = {{"contrl: tcp://*:1\n", ":1:1: contrl", "did you mean \"control\""},
                   {"dir: /tmp\nlease_ms: soon\n", ":2:11: lease_ms", "not a whole number"},
                   {"control: []\n", ":1:10: control", "allowed are 1 to"}};
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            dm_config c;
            es_error e;
            dm_config_default(&c);
            ck_assert_ok(es_file_write(path, bad[i].text, strlen(bad[i].text), &e));
            ck_assert_status(dm_config_read(path, &c, &e), ES_INVALID);
            ck_assert_has(e.where, bad[i].where);
            ck_assert_has(e.text, bad[i].what);
        }
        dm_config c;
        es_error e;
        dm_config_default(&c);
        set(c.control[0], "udp://x");
        ck_assert_status(dm_config_check(&c, &e), ES_INVALID);
        ck_assert_has(e.text, "allowed are tcp://ADDRESS:PORT");
    }
END_TEST

ES_TEST_MAIN("daemon/config", nothing_is_open_to_others_by_default, control_open_to_others_needs_data_to_be,
             mistakes_in_the_file_say_where)
