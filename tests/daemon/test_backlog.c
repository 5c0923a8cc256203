/* Connections that keep bytes waiting: the largest are cut, the others are not. */
#include "daemon/auth/backlog.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/auth/accept.h"
#include "tests/check_main.h"

enum { N = 6 };

typedef struct pair {
    int client, server;
} pair;

static int listen_here(struct sockaddr_in *a)
{
    socklen_t n = sizeof *a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_int_eq(bind(fd, (struct sockaddr *)a, sizeof *a), 0);
    ck_assert_int_eq(listen(fd, N), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)a, &n), 0);
    return fd;
}

static pair connection(int listener, const struct sockaddr_in *a)
{
    pair p = {.client = socket(AF_INET, SOCK_STREAM, 0)};
    ck_assert_int_eq(connect(p.client, (const struct sockaddr *)a, sizeof *a), 0);
    p.server = accept4(listener, NULL, NULL, SOCK_NONBLOCK); /* the program's own: it tells the table */
    ck_assert_int_ge(p.server, 0);
    return p;
}

/* Sends `bytes`, which the server's side reads: as ZeroMQ does, which then keeps them. */
static void send_bytes(const pair *p, size_t bytes)
{
    static char buffer[1 << 16];
    for (size_t sent = 0, got = 0; got < bytes;) {
        size_t n = bytes - sent < sizeof buffer ? bytes - sent : sizeof buffer;
        if (n) {
            ssize_t k = send(p->client, buffer, n, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += k > 0 ? (size_t)k : 0;
        }
        ssize_t k = recv(p->server, buffer, sizeof buffer, 0);
        if (k > 0)
            got += (size_t)k;
        else
            poll(&(struct pollfd){.fd = p->server, .events = POLLIN}, 1, 100);
    }
}

static bool alive(const pair *p)
{
    char c;
    ssize_t n = recv(p->client, &c, 1, MSG_DONTWAIT);
    return n < 0 && errno == EAGAIN;
}

START_TEST(the_largest_are_cut)
    {
        struct sockaddr_in a;
        dm_accept_keep(32); /* and the linker takes its accept4, not a sanitizer's */
        int listener = listen_here(&a);
        pair p[N];
        for (int i = 0; i < N; i++)
            p[i] = connection(listener, &a);
        dm_backlog_options o = {.each = 8 << 20, .all = 6 << 20};
        dm_backlog_look(&o, 1000);
        ck_assert_uint_eq(dm_backlog_cut(), 0);
        send_bytes(&p[0], 9 << 20);
        dm_backlog_look(&o, 1000);
        ck_assert_uint_eq(dm_backlog_cut(), 1);
        ck_assert(!alive(&p[0]) && alive(&p[1]));
        /* None is too large, but together they are: the larger half of them goes. */
        send_bytes(&p[1], 3 << 20);
        send_bytes(&p[2], 3 << 20);
        send_bytes(&p[3], 1 << 20);
        send_bytes(&p[4], 1000);
        dm_backlog_look(&o, 1000);
        ck_assert_uint_eq(dm_backlog_cut(), 3);
        ck_assert(!alive(&p[1]) && !alive(&p[2]));
        ck_assert(alive(&p[3]) && alive(&p[4]) && alive(&p[5]));
        /* A descriptor that is used again begins at nothing. */
        close(p[0].client);
        close(p[0].server);
        pair again = connection(listener, &a);
        send_bytes(&again, 1000);
        dm_backlog_look(&o, 1000);
        ck_assert_uint_eq(dm_backlog_cut(), 3);
        ck_assert(alive(&again));
    }
END_TEST

START_TEST(pings_do_not_add_up)
    {
        struct sockaddr_in a;
        int listener = listen_here(&a);
        pair peer = connection(listener, &a), http = connection(listener, &a);
        dm_backlog_options o = {.each = 1000, .all = 1 << 30};
        dm_backlog_ignore(http.server); /* nobody takes frames out of it */
        send_bytes(&http, 2000);
        for (int i = 1; i <= 100; i++) {
            send_bytes(&peer, 42);
            dm_backlog_look(&o, 5000 * i);
        }
        ck_assert_uint_eq(dm_backlog_cut(), 0);
        ck_assert(alive(&peer) && alive(&http));
        send_bytes(&peer, 1100); /* what they are allowed is not saved up */
        dm_backlog_look(&o, 5000 * 100 + 100);
        ck_assert_uint_eq(dm_backlog_cut(), 1);
        ck_assert(!alive(&peer));
    }
END_TEST

START_TEST(subscriptions_cost_more)
    {
        struct sockaddr_in a, b;
        char bound[64];
        int status = listen_here(&a), control = listen_here(&b);
        pair subscriber = connection(status, &a), peer = connection(control, &b);
        dm_backlog_options o = {.each = 1 << 20, .all = 1 << 30};
        snprintf(bound, sizeof bound, "tcp://127.0.0.1:%d", ntohs(a.sin_port));
        dm_backlog_subscribers(bound);
        send_bytes(&subscriber, 30 << 10);
        send_bytes(&peer, 40 << 10);
        dm_backlog_look(&o, 1000);
        ck_assert_uint_eq(dm_backlog_cut(), 0);
        send_bytes(&subscriber, 10 << 10);
        dm_backlog_look(&o, 1000);
        ck_assert_uint_eq(dm_backlog_cut(), 1);
        ck_assert(!alive(&subscriber) && alive(&peer));
    }
END_TEST

START_TEST(what_was_taken_does_not_wait)
    {
        dm_accept_keep(32);
        void *ctx = zmq_ctx_new(), *router = zmq_socket(ctx, ZMQ_ROUTER), *dealer = zmq_socket(ctx, ZMQ_DEALER);
        char endpoint[64];
        size_t size = sizeof endpoint;
        int wait = 5000;
        dm_backlog_options o = {.each = 256 << 10, .all = 1 << 30};
        char *body = calloc(1, 100 << 10);
        zmq_setsockopt(router, ZMQ_RCVTIMEO, &wait, sizeof wait);
        ck_assert_int_eq(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
        ck_assert_int_eq(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
        ck_assert_int_eq(zmq_connect(dealer, endpoint), 0);
        for (int i = 0; i < 50; i++) { /* 5 MB pass, never more than 100 kB wait */
            zmq_msg_t id, m;
            zmq_msg_init(&id);
            zmq_msg_init(&m);
            ck_assert_int_gt(zmq_send(dealer, body, 100 << 10, 0), 0);
            ck_assert_int_gt(zmq_msg_recv(&id, router, 0), 0);
            ck_assert_int_eq(zmq_msg_recv(&m, router, 0), 100 << 10);
            dm_backlog_taken(&m);
            zmq_msg_close(&m);
            zmq_msg_close(&id);
            dm_backlog_look(&o, 1000);
        }
        ck_assert_uint_eq(dm_backlog_cut(), 0);
        /* Five more that nobody takes are too much. */
        for (int i = 0; i < 5; i++)
            ck_assert_int_gt(zmq_send(dealer, body, 100 << 10, 0), 0);
        for (int i = 0; i < 500 && dm_backlog_cut() == 0; i++) {
            poll(NULL, 0, 10);
            dm_backlog_look(&o, 1000);
        }
        ck_assert_uint_eq(dm_backlog_cut(), 1);
        free(body);
        int zero = 0;
        zmq_setsockopt(dealer, ZMQ_LINGER, &zero, sizeof zero);
        zmq_close(dealer);
        zmq_close(router);
        zmq_ctx_term(ctx);
    }
END_TEST

ES_TEST_MAIN("backlog", the_largest_are_cut, pings_do_not_add_up, subscriptions_cost_more, what_was_taken_does_not_wait)
