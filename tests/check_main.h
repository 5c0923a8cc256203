/* check_main.h - what makes a test file self-contained.
 *
 *     #include "tests/check_main.h"
 *     START_TEST(adds) { ck_assert_int_eq(1 + 1, 2); } END_TEST
 *     START_TEST(needs_table)
 *     {
 *         ES_TEST_NEEDS(es_test_shared("nas/table.csv"));       // not there: printed, counted as skipped
 *     }
 *     END_TEST
 *     ES_TEST_MAIN("arith", adds, needs_table)
 *
 * Every test runs in a process of its own, in a scratch folder. The exit status is the verdict: 0, 1, or 77 when every test was skipped.
 * CK_RUN_CASE=name is not needed: give test names as arguments to run only those.
 */
#ifndef ES_TESTS_CHECK_MAIN_H
#define ES_TESTS_CHECK_MAIN_H

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"

/* Shared with the test processes. */
static volatile int *es_test_skips;

static inline void es_test_skip(const char *why)
{
    fprintf(stderr, "SKIPPED: %s\n", why);
    if (es_test_skips)
        __sync_fetch_and_add(es_test_skips, 1);
}

/* Leaves the test, counted as skipped, when the file is not there. */
#define ES_TEST_NEEDS(path)              \
    do {                                 \
        const char *needs_ = (path);     \
        if (access(needs_, R_OK) != 0) { \
            es_test_skip(needs_);        \
            return;                      \
        }                                \
    } while (0)

/* Paths; each call's result lives in one of 32 rotating buffers. */
static inline const char *es_test_join(const char *dir, const char *name)
{
    static char buf[32][1024];
    static unsigned turn;
    char path[sizeof buf[0]]; /* the arguments may be earlier results */
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return memcpy(buf[turn++ % 32], path, sizeof path);
}

/* A file of the source tree ("examples/fashion.yaml"). */
static inline const char *es_test_source(const char *name)
{
    const char *dir = getenv("ESPALIER_SOURCE");
    return es_test_join(dir ? dir : ES_TEST_SOURCE, name);
}

/* A built program ("espalierd"). */
static inline const char *es_test_built(const char *name)
{
    const char *dir = getenv("ESPALIER_BUILD");
    return es_test_join(dir ? dir : ES_TEST_BUILD, name);
}

/* Reference data kept beside the source tree: $ESPALIER_SHARED, else ../shared. */
static inline const char *es_test_shared(const char *name)
{
    const char *dir = getenv("ESPALIER_SHARED");
    return es_test_join(dir ? dir : es_test_source("../shared"), name);
}

/* An absolute path to a new empty folder inside the scratch folder. */
static inline const char *es_test_dir(void)
{
    char cwd[900], path[1024];
    if (!getcwd(cwd, sizeof cwd))
        abort();
    snprintf(path, sizeof path, "%s/tmp.XXXXXX", cwd);
    if (!mkdtemp(path))
        abort();
    return es_test_join(cwd, path + strlen(cwd) + 1);
}

/* Whether fn(ctx) ends its process with abort(), as a failed ES_ASSERT does. */
static inline bool es_test_aborts(void (*fn)(void *ctx), void *ctx)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(3);
        signal(SIGABRT, SIG_DFL);
        fn(ctx);
        _exit(0);
    }
    int st = 0;
    waitpid(pid, &st, 0);
    return WIFSIGNALED(st) && WTERMSIG(st) == SIGABRT;
}

/* Status and message, with the message in the failure text. */
#define ck_assert_ok(call)                                                     \
    do {                                                                       \
        es_status ck_s_ = (call);                                              \
        ck_assert_msg(ck_s_ == ES_OK, "%s: %s", #call, es_status_name(ck_s_)); \
    } while (0)
#define ck_assert_ok_err(call, err)                                                                               \
    do {                                                                                                          \
        es_status ck_s_ = (call);                                                                                 \
        ck_assert_msg(ck_s_ == ES_OK, "%s: %s: %s: %s", #call, es_status_name(ck_s_), (err)->where, (err)->text); \
    } while (0)
#define ck_assert_status(call, expected)                                                        \
    do {                                                                                        \
        es_status ck_s_ = (call);                                                               \
        ck_assert_msg(ck_s_ == (expected), "%s: %s, expected %s", #call, es_status_name(ck_s_), \
                      es_status_name(expected));                                                \
    } while (0)
#define ck_assert_has(text, part)                                                                    \
    do {                                                                                             \
        const char *ck_t_ = (text), *ck_p_ = (part);                                                 \
        ck_assert_msg(strstr(ck_t_, ck_p_) != NULL, "\"%s\" does not contain \"%s\"", ck_t_, ck_p_); \
    } while (0)

static inline int es_test_run(const char *module, const TTest **tests, size_t n, int argc, char **argv)
{
    Suite *suite = suite_create(module);
    es_test_skips = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    size_t added = 0;
    for (size_t i = 0; i < n; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted = wanted || strcmp(argv[a], tests[i]->name) == 0;
        if (!wanted)
            continue;
        TCase *tc = tcase_create(tests[i]->name);
        tcase_add_test(tc, tests[i]);
        suite_add_tcase(suite, tc);
        added++;
    }
    if (added == 0) {
        fprintf(stderr, "%s: no such test\n", module);
        return 2;
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner), skipped = *es_test_skips;
    srunner_free(runner);
    if (skipped)
        printf("%s: %d of %zu skipped\n", module, skipped, added);
    return failed ? 1 : (size_t)skipped >= added ? 77 : 0;
}

#define ES_TEST_MAIN(module, ...)                                                      \
    int main(int argc, char **argv)                                                    \
    {                                                                                  \
        const TTest *tests[] = {__VA_ARGS__};                                          \
        return es_test_run(module, tests, sizeof tests / sizeof tests[0], argc, argv); \
    }

#endif
