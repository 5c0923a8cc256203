#include "base/log.h"
#include "tests/check_main.h"
#include "worker/loglines.h"

START_TEST(keeps_the_last_whole_lines)
    {
        es_log_init("test", ES_LOG_INFO);
        wk_loglines_start();
        for (int i = 0; i < 2000; i++)
            es_log(ES_LOG_INFO, "line number %d of the log", i);
        char *text = wk_loglines_take();
        ck_assert_uint_le(strlen(text), WK_LOG_BYTES);
        ck_assert_uint_gt(strlen(text), WK_LOG_BYTES / 2);
        ck_assert_has(text, "line number 1999 of");
        ck_assert_ptr_null(strstr(text, "line number 3 of"));
        ck_assert_int_eq(text[strlen(text) - 1], '\n');
        for (char *at = text; *at; at = strchr(at, '\n') + 1)
            ck_assert_ptr_nonnull(strstr(at, "line number"));
        free(text);
    }
END_TEST

ES_TEST_MAIN("loglines", keeps_the_last_whole_lines)
