#include "base/status.h"

#include <errno.h>

#include "tests/check_main.h"

START_TEST(names_are_distinct)
    {
        for (int i = 0; i < ES_STATUS_COUNT; i++) {
            ck_assert_str_ne(es_status_name((es_status)i), "unknown");
            for (int j = 0; j < i; j++)
                ck_assert_str_ne(es_status_name((es_status)i), es_status_name((es_status)j));
        }
        ck_assert_str_eq(es_status_name((es_status)999), "unknown");
        ck_assert_str_eq(es_status_name(ES_DISK_FULL), "disk-full");
    }
END_TEST

START_TEST(fail_fills_and_cuts)
    {
        es_error e;
        ck_assert_int_eq(es_fail(&e, ES_INVALID, "a:1", "%d is not %s", 3, "four"), ES_INVALID);
        ck_assert_str_eq(e.where, "a:1");
        ck_assert_str_eq(e.text, "3 is not four");
        ck_assert_int_eq(es_fail(NULL, ES_IO, "x", "nobody listens"), ES_IO);
        char big[2000];
        memset(big, 'x', sizeof big - 1);
        big[sizeof big - 1] = '\0';
        es_fail(&e, ES_IO, big, "%s", big);
        ck_assert_uint_eq(strlen(e.where), sizeof e.where - 1);
        ck_assert_uint_eq(strlen(e.text), sizeof e.text - 1);
        /* a two-byte letter on the boundary is left out whole */
        big[sizeof e.where - 2] = '\xc3';
        big[sizeof e.where - 1] = '\xa4';
        es_fail(&e, ES_IO, big, "t");
        ck_assert_uint_eq(strlen(e.where), sizeof e.where - 2);
        /* arguments may come from the error itself */
        es_fail(&e, ES_IO, "w", "inner");
        es_fail(&e, ES_IO, e.where, "outer: %s", e.text);
        ck_assert_str_eq(e.where, "w");
        ck_assert_str_eq(e.text, "outer: inner");
    }
END_TEST

START_TEST(errno_maps)
    {
        static const struct {
            int e;
            es_status s;
        } map[] = {{ENOSPC, ES_DISK_FULL}, {EDQUOT, ES_DISK_FULL}, {ENOENT, ES_NOT_FOUND}, {ENOMEM, ES_NO_MEMORY},
                   {EACCES, ES_DENIED},    {EPERM, ES_DENIED},     {EEXIST, ES_EXISTS},    {EBADF, ES_IO}};
        for (size_t i = 0; i < sizeof map / sizeof map[0]; i++) {
            es_error e;
            errno = map[i].e;
            ck_assert_int_eq(es_fail_errno(&e, "/dev/x", "cannot open"), map[i].s);
            ck_assert_has(e.text, "cannot open: ");
            ck_assert_has(e.text, strerror(map[i].e));
            ck_assert_int_eq(errno, map[i].e);
        }
    }
END_TEST

START_TEST(at_prefixes_or_wins)
    {
        es_error e;
        ck_assert_int_eq(es_at(&e, es_fail(&e, ES_INVALID, "field", "bad"), "file"), ES_INVALID);
        ck_assert_str_eq(e.where, "file: field");
        es_fail(&e, ES_INVALID, NULL, "bad");
        es_at(&e, ES_INVALID, "file");
        ck_assert_str_eq(e.where, "file");
        char big[120];
        memset(big, 'p', sizeof big - 1);
        big[sizeof big - 1] = '\0';
        es_fail(&e, ES_INVALID, "inner-place", "bad");
        es_at(&e, ES_INVALID, big);
        ck_assert_str_eq(e.where, big);
        char line[64];
        es_fail(&e, ES_INVALID, "w", "t");
        ck_assert_str_eq(es_error_line(&e, line, sizeof line), "w: t");
        e.where[0] = '\0';
        ck_assert_str_eq(es_error_line(&e, line, sizeof line), "t");
        ck_assert_str_eq(es_error_line(&e, line, 1), "");
        es_fail(&e, ES_INVALID, "same", "t");
        ck_assert_int_eq(es_at(&e, ES_OK, "not added"), ES_OK);
        ck_assert_str_eq(e.where, "same");
    }
END_TEST

static es_status inner(int *calls)
{
    (*calls)++;
    return ES_BUSY;
}

static es_status with_goto(int *calls, int *freed)
{
    es_status s = ES_OK;
    ES_GOTO(inner(calls));
    ES_GOTO(inner(calls));
fail:
    (*freed)++;
    return s;
}

static es_status with_return(int *calls)
{
    ES_RETURN(inner(calls));
    ES_RETURN(inner(calls));
    return ES_OK;
}

START_TEST(macros_stop_at_the_first_failure)
    {
        int calls = 0, freed = 0;
        ck_assert_int_eq(with_goto(&calls, &freed), ES_BUSY);
        ck_assert_int_eq(calls, 1);
        ck_assert_int_eq(freed, 1);
        ck_assert_int_eq(with_return(&calls), ES_BUSY);
        ck_assert_int_eq(calls, 2);
    }
END_TEST

static void breaks(void *ctx) { ES_ASSERT(*(int *)ctx == 2); }

START_TEST(assertions_stay_on)
    {
        int one = 1, two = 2;
        ck_assert(es_test_aborts(breaks, &one));
        ck_assert(!es_test_aborts(breaks, &two));
    }
END_TEST

ES_TEST_MAIN("base/status", names_are_distinct, fail_fills_and_cuts, errno_maps, at_prefixes_or_wins,
             macros_stop_at_the_first_failure, assertions_stay_on)
