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
        ck_assert_int_eq(t[4], '-');
        ck_assert_int_eq(t[10], 'T');
        char *second = strchr(t, '\n') + 1;
        ck_assert_str_eq(second + 24, " error worker: cannot start: data/x: does not exist status=not-found\n");
        second[-1] = '\0';
        ck_assert_str_eq(t + 24, " warn worker: lease lost job=7");
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
        ck_assert_has(t, "a b [2Jc\n");
        ck_assert_uint_lt(strlen(t), 2200);
        free(t);
    }
END_TEST

static void *chatter(void *arg)
{
    for (int i = 0; i < 500; i++)
        es_log(ES_LOG_INFO, "thread=%d line=%d end", *(int *)arg, i);
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
            ck_assert_str_eq(p + strlen(p) - 4, " end");
            ck_assert_int_eq(p[4], '-');
        }
        ck_assert_int_eq(lines, 2000);
        free(t);
    }
END_TEST

ES_TEST_MAIN("base/log", a_line_has_time_level_and_component, levels_by_name, long_and_hostile_texts_stay_one_line,
             threads_do_not_mix_lines)
