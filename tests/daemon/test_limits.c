/* What one peer may cost, by a clock of our own; and a peer that asks and never reads. */
#include "daemon/auth/limits.h"

#include <zmq.h>

#include "base/clock.h"
#include "tests/check_main.h"

static const dm_who ann = {.role = DM_ROLE_CLIENT, .name = "ann"}, bob = {.role = DM_ROLE_CLIENT, .name = "bob"};

static dm_limits *limits(int messages, int64_t bytes, int peers)
{
    return dm_limits_new(&(dm_limit_options){messages, bytes, 1 << 20, peers});
}

static int pass(dm_limits *l, const char *id, const dm_who *who, size_t bytes, int64_t now, int n)
{
    es_error why;
    int passed = 0;
    for (int i = 0; i < n; i++)
        passed += dm_limits_take(l, id, strlen(id), who, bytes, now, &why) == DM_PASS;
    return passed;
}

START_TEST(messages_a_second)
    {
        dm_limits *l = limits(100, 1 << 20, 100);
        es_error why;
        ck_assert_int_eq(pass(l, "a", &ann, 1, 1000, 1000), 400); /* four seconds' worth at once */
        ck_assert_int_eq(pass(l, "a", &ann, 1, 1500, 1000), 50);
        ck_assert_int_eq(pass(l, "b", &ann, 1, 1500, 1000), 400); /* another connection is not the culprit */
        ck_assert_int_eq(pass(l, "a", &ann, 1, 60000, 1000), 400);
        /* Told once a second, then silence. */
        ck_assert_int_eq(dm_limits_take(l, "a", 1, &ann, 1, 61000, &why), DM_PASS);
        pass(l, "a", &ann, 1, 61000, 1000);
        ck_assert_int_eq(dm_limits_take(l, "a", 1, &ann, 1, 61000, &why), DM_DROP);
        pass(l, "a", &ann, 1, 62100, 110);
        int told = 0;
        for (int i = 0; i < 5; i++)
            told += dm_limits_take(l, "a", 1, &ann, 1, 63500, &why) == DM_TELL;
        ck_assert_int_le(told, 1);
        dm_limits_free(&l);
    }
END_TEST

START_TEST(limits_change_while_peers_are_there)
    {
        dm_limits *l = limits(100, 1 << 20, 100);
        dm_limit_options o = {10, 1 << 20, 1 << 20, 100};
        ck_assert_int_eq(pass(l, "a", &ann, 1, 1000, 300), 300);
        dm_limits_set(l, &o);
        ck_assert_int_eq(pass(l, "a", &ann, 1, 1000, 300), 40); /* the burst is the new one */
        ck_assert_int_eq(pass(l, "a", &ann, 1, 2000, 300), 10);
        o.messages_per_s = 1000;
        dm_limits_set(l, &o);
        ck_assert_int_eq(pass(l, "a", &ann, 1, 2100, 300), 100);
        o.peers_max = 2; /* of ann: the key and the connection */
        dm_limits_set(l, &o);
        ck_assert_int_eq(pass(l, "b", &bob, 1, 2100, 1), 0);
        dm_limits_free(&l);
    }
END_TEST

START_TEST(an_error_says_what_is_allowed)
    {
        dm_limits *l = limits(10, 1 << 20, 100);
        es_error why = {.code = ES_OK};
        pass(l, "a", &ann, 1, 1000, 40);
        ck_assert_int_eq(dm_limits_take(l, "a", 1, &ann, 1, 1000, &why), DM_TELL);
        ck_assert_int_eq(why.code, ES_BUSY);
        ck_assert_has(why.text, "more than 10 messages");
        ck_assert_int_eq(dm_limits_take(l, "a", 1, &ann, 1, 1001, &why), DM_DROP);
        ck_assert_int_eq(dm_limits_take(l, "a", 1, &ann, 1, 1099, &why), DM_DROP);
        ck_assert_uint_eq(dm_limits_refused(l), 3);
        dm_limits_free(&l);
    }
END_TEST

START_TEST(bytes_a_second_and_all_of_a_key)
    {
        dm_limits *l = limits(1000000, 1000, 1000);
        ck_assert_int_eq(pass(l, "a", &ann, 1000, 1000, 100), 4);
        ck_assert_int_eq(pass(l, "a", &ann, 1000, 2000, 100), 1);
        ck_assert_int_eq(pass(l, "big", &bob, 1000000, 1000, 3),
                         1); /* larger than all it may save: once, then it is paid for */
        ck_assert_int_eq(pass(l, "big", &bob, 1, 100000, 3), 0);
        /* 200 connections of one key share 64 times the limit of one. */
        dm_who eve = {.role = DM_ROLE_WORKER, .name = "eve"};
        int n = 0;
        for (int i = 0; i < 200; i++) {
            char id[16];
            snprintf(id, sizeof id, "e%d", i);
            n += pass(l, id, &eve, 1000, 5000, 10);
        }
        ck_assert_int_eq(n, DM_LIMITS_KEY_FACTOR * 4);
        ck_assert_int_eq(pass(l, "f", &(dm_who){.role = DM_ROLE_WORKER, .name = "fay"}, 1000, 5000, 10), 4);
        dm_who local = dm_who_local();
        ck_assert_int_eq(pass(l, "l", &local, 1000, 5000, 100), 100);
        dm_limits_free(&l);
    }
END_TEST

START_TEST(peers_are_bounded_and_the_quiet_are_forgotten)
    {
        dm_limits *l = limits(10, 1000, 50);
        int n = 0;
        for (int i = 0; i < 1000; i++) {
            char id[16];
            snprintf(id, sizeof id, "%d", i);
            n += pass(l, id, &ann, 1, 1000, 1);
        }
        ck_assert_int_eq(n, 49); /* and the key's entry */
        ck_assert_uint_eq(dm_limits_peers(l), 50);
        ck_assert_int_eq(pass(l, "new", &bob, 1, 60000, 1), 1);
        ck_assert_uint_le(dm_limits_peers(l), 3);
        dm_limits_free(&l);
        /* A known key's new connection finds the table full of quiet ones: they go, the key's own entry must not go with them. */
        l = limits(10, 1000, 50);
        for (int i = 0; i < 49; i++)
            ck_assert_int_eq(pass(l, (char[]){(char)('A' + i), 0}, &ann, 1, 1000, 1), 1);
        ck_assert_uint_eq(dm_limits_peers(l), 50);
        ck_assert_int_eq(pass(l, "late", &ann, 1, 60000, 1), 1);
        ck_assert_uint_eq(dm_limits_peers(l), 2);
        dm_limits_free(&l);
    }
END_TEST

START_TEST(who_does_not_read_holds_its_share)
    {
        void *ctx = zmq_ctx_new(), *router = zmq_socket(ctx, ZMQ_ROUTER), *dealer = zmq_socket(ctx, ZMQ_DEALER);
        int yes = 1, zero = 0, small = 1, wait = 5000;
        char endpoint[64], id[64], body[64];
        size_t size = sizeof endpoint;
        dm_limits *l = dm_limits_new(&(dm_limit_options){1000, 1 << 20, 4 << 20, 100});
        es_error why;
        zmq_setsockopt(router, ZMQ_ROUTER_MANDATORY, &yes, sizeof yes);
        zmq_setsockopt(router, ZMQ_LINGER, &zero, sizeof zero);
        zmq_setsockopt(router, ZMQ_RCVTIMEO, &wait, sizeof wait);
        zmq_setsockopt(dealer, ZMQ_LINGER, &zero, sizeof zero);
        zmq_setsockopt(dealer, ZMQ_RCVHWM, &small, sizeof small);
        zmq_setsockopt(dealer, ZMQ_RCVTIMEO, &wait, sizeof wait);
        ck_assert_int_eq(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
        ck_assert_int_eq(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
        ck_assert_int_eq(zmq_connect(dealer, endpoint), 0);
        ck_assert_int_eq(zmq_send(dealer, "x", 1, 0), 1);
        int n = zmq_recv(router, id, sizeof id, 0);
        ck_assert_int_gt(n, 0);
        ck_assert_int_eq(zmq_recv(router, body, sizeof body, 0), 1);
        ck_assert_int_eq(dm_limits_take(l, id, (size_t)n, &ann, 1, 1000, &why), DM_PASS);
        char *answer = calloc(1, 1 << 20);
        int sent = 0;
        for (int i = 0; i < 200; i++)
            sent += dm_limits_send(l, router, id, (size_t)n, answer, 1 << 20);
        /* What the kernel's buffers took, and four that wait. */
        ck_assert_msg(sent >= 4 && sent < 30, "%d answers of 1 MiB are kept for a peer that does not read", sent);
        ck_assert_uint_eq(dm_limits_dropped(l), (uint64_t)(200 - sent));
        for (int i = 0; i < sent; i++) {
            zmq_msg_t m;
            zmq_msg_init(&m);
            ck_assert_int_eq(zmq_msg_recv(&m, dealer, 0), 1 << 20);
            zmq_msg_close(&m);
        }
        /* It has read: there is room again. The last bytes leave ZeroMQ's thread a moment after they arrive. */
        int64_t end = es_clock_mono_ms(es_clock_system()) + 5000;
        while (!dm_limits_send(l, router, id, (size_t)n, answer, 1 << 20))
            ck_assert(es_clock_mono_ms(es_clock_system()) < end);
        free(answer);
        dm_limits_free(&l); /* answers on their way outlive it */
        zmq_close(dealer);
        zmq_close(router);
        zmq_ctx_term(ctx);
    }
END_TEST

ES_TEST_MAIN("limits", messages_a_second, limits_change_while_peers_are_there, an_error_says_what_is_allowed,
             bytes_a_second_and_all_of_a_key, peers_are_bounded_and_the_quiet_are_forgotten,
             who_does_not_read_holds_its_share)
