#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>

#include "base/file.h"
#include "tests/check_main.h"

/* Sends standard error to a file from here on. */
static const char *capture(void)
{
    const char *path = es_test_join(es_test_dir(), "log");
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0600);
    ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
    close(fd);
    return path;
}

static char *content(const char *path)
{
    char *text;
    ck_assert_ok(es_file_read(path, 1 << 24, &text, NULL, NULL));
    return text;
}

START_TEST(a_line_has_time_level_and_component)
    {
        const char *path = capture();
        es_log_init("worker", ES_LOG_INFO);
        es_log(ES_LOG_DEBUG, "not shown");
        es_log(ES_LOG_WARN, "lease lost job=%d", 7);
        es_error e;
        es_fail(&e, ES_NOT_FOUND, "data/x", "does not exist");
        es_log_error(ES_LOG_ERROR, "cannot start", &e);
        es_log(ES_LOG_OFF, "not a level to log at");
        char *t = content(path);
        char *second = strchr(t, '\n') + 1;
        second[-1] = '\0';
        ck_assert_int_eq(strncmp(t, "time=20", 7), 0);
        ck_assert_str_eq(t + 29, " level=warn component=worker event=\"lease lost\" job=7");
        ck_assert_str_eq(second + 29, " level=error component=worker event=\"cannot start\" status=not-found"
                                      " detail=\"data/x: does not exist\"\n");
        free(t);
    }
END_TEST

START_TEST(texts_become_event_pairs_and_detail)
    {
        static const struct {
            const char *text, *line, *json;
        } rows[] = {
            {"search=4 done", "event=\"done\" search=4", "\"event\":\"done\",\"search\":4}"},
            {"worker=2 drained: 3 jobs in a row failed", "event=\"drained\" worker=2 detail=\"3 jobs in a row failed\"",
             "\"event\":\"drained\",\"worker\":2,\"detail\":\"3 jobs in a row failed\"}"},
            {"weights let go search=17: done \"long\" ago", "search=17 detail=\"done \\\"long\\\" ago\"",
             "\"detail\":\"done \\\"long\\\" ago\"}"},
            {"moved from=a/b to=c:d n=007", "event=\"moved\" from=a/b to=c:d n=007", "\"to\":\"c:d\",\"n\":\"007\"}"},
            {"a = b, c == d x=", "event=\"a = b, c == d x=\"", "\"event\":\"a = b, c == d x=\"}"},
            {"", "event=\"\"", "\"event\":\"\"}"}};
        const char *path = capture();
        es_log_init("c", ES_LOG_INFO);
        for (int json = 0; json < 2; json++) {
            es_log_json(json);
            for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                es_log(ES_LOG_INFO, "%s", rows[i].text);
        }
        es_log_context("job=%d search=%d", 5, 6);
        es_log(ES_LOG_INFO, "inside search=9");
        es_log_context(NULL);
        char *t = content(path), *save = NULL, *line = strtok_r(t, "\n", &save);
        for (int json = 0; json < 2; json++)
            for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++, line = strtok_r(NULL, "\n", &save)) {
                const char *want = json ? rows[i].json : rows[i].line;
                ck_assert_has(line, want);
                ck_assert_str_eq(line + strlen(line) - strlen(want), want);
            }
        ck_assert_has(line, "\"event\":\"inside\",\"search\":9,\"job\":5}"); /* the line's own word wins */
        free(t);
    }
END_TEST

START_TEST(levels_by_name)
    {
        es_log_level l = ES_LOG_OFF;
        ck_assert(es_log_level_parse("debug", &l) && l == ES_LOG_DEBUG);
        ck_assert(es_log_level_parse("error", &l) && l == ES_LOG_ERROR);
        ck_assert(!es_log_level_parse("loud", &l) && l == ES_LOG_ERROR);
    }
END_TEST

START_TEST(long_and_hostile_texts_stay_one_line)
    {
        const char *path = capture();
        char big[5000];
        memset(big, 'x', sizeof big - 1);
        big[sizeof big - 1] = '\0';
        es_log(ES_LOG_INFO, "a\nb\033[2Jc");
        es_log(ES_LOG_INFO, "%s", big);
        char *t = content(path);
        int lines = 0;
        for (char *p = t; *p; p++)
            lines += *p == '\n';
        ck_assert_int_eq(lines, 2);
        ck_assert_has(t, "\"a b [2Jc\"\n");
        ck_assert_uint_lt(strlen(t), 2200);
        free(t);
    }
END_TEST

static void *chatter(void *arg)
{
    for (int i = 0; i < 500; i++)
        es_log(ES_LOG_INFO, "thread=%d line=%d end: end", *(int *)arg, i);
    return NULL;
}

static void count(void *ctx, es_log_level level, const char *line)
{
    (void)level;
    if (strstr(line, "end"))
        ++*(int *)ctx;
}

START_TEST(threads_do_not_mix_lines)
    {
        const char *path = capture();
        pthread_t th[4];
        int id[4], seen = 0;
        es_log_hook(count, &seen);
        for (int i = 0; i < 4; i++) {
            id[i] = i;
            pthread_create(&th[i], NULL, chatter, &id[i]);
        }
        for (int i = 0; i < 4; i++)
            pthread_join(th[i], NULL);
        es_log_hook(NULL, NULL);
        ck_assert_int_eq(seen, 2000);
        char *t = content(path);
        int lines = 0;
        char *save = NULL;
        for (char *p = strtok_r(t, "\n", &save); p; p = strtok_r(NULL, "\n", &save), lines++) {
            ck_assert_uint_ge(strlen(p), 30);
            ck_assert_str_eq(p + strlen(p) - 5, "=\"end\"" + 1);
            ck_assert_int_eq(strncmp(p, "time=", 5), 0);
        }
        ck_assert_int_eq(lines, 2000);
        free(t);
    }
END_TEST

ES_TEST_MAIN("base/log", a_line_has_time_level_and_component, texts_become_event_pairs_and_detail, levels_by_name,
             long_and_hostile_texts_stay_one_line, threads_do_not_mix_lines)
