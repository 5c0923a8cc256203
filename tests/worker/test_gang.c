#include "worker/gang.h"

#include "tests/check_main.h"

static const char *address(const char *given, const char *endpoint)
{
    static char out[64];
    es_error err = {0};
    return wk_gang_address(given, endpoint, out, sizeof out, &err) == ES_OK ? out : es_status_name(err.code);
}

START_TEST(others_reach_a_worker_where_the_coordinator_does)
    {
        ck_assert_str_eq(address(NULL, "ipc:///tmp/x"), "127.0.0.1");
        ck_assert_str_eq(address(NULL, "tcp://127.0.0.1:5700"), "127.0.0.1");
        ck_assert_str_eq(address(NULL, "tcp://127.0.0.2:5700"), "127.0.0.1"); /* one's own end, not the other's */
        ck_assert_str_eq(address("10.1.2.3", "tcp://127.0.0.1:5700"), "10.1.2.3");
        ck_assert_str_eq(address("fe80::1", "tcp://127.0.0.1:5700"), "fe80::1");
        ck_assert_str_eq(address("head", "tcp://127.0.0.1:5700"), "invalid");
    }
END_TEST

ES_TEST_MAIN("gang", others_reach_a_worker_where_the_coordinator_does)
