/* Who may ask over HTTP: the rule's table, the token file, and a real server with a token. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "daemon/http/http.h"
#include "daemon/http/slow.h"
#include "tests/check_main.h"

static unsigned ask(const dm_http_rule *r, const char *method, const char *path, const char *host, const char *auth,
                    const char *token)
{
    const char *why = NULL;
    unsigned code = dm_http_access(
        r, &(dm_http_ask){.method = method, .path = path, .host = host, .authorization = auth, .token = token}, &why);
    ck_assert_ptr_nonnull(why);
    ck_assert_int_eq(code != 0, why[0] != 0);
    return code;
}

START_TEST(loopback_is_open_but_not_to_other_names)
    {
        dm_http_rule r;
        const char *dir = es_test_dir();
        char path[600];
        snprintf(path, sizeof path, "%s/http.token", dir);
        ck_assert_ok(dm_http_rule_make(&r, "127.0.0.1:5703", DM_HTTP_TOKEN_AUTO, path, NULL));
        ck_assert(!es_file_exists(path));
        ck_assert_uint_eq(ask(&r, "GET", "/metrics", "127.0.0.1:5703", NULL, NULL), 0);
        ck_assert_uint_eq(ask(&r, "HEAD", "/metrics", "localhost:5703", NULL, NULL), 0);
        ck_assert_uint_eq(ask(&r, "GET", "/api", "localhost", NULL, NULL), 0);
        ck_assert_uint_eq(ask(&r, "GET", "/api", "[::1]:5703", NULL, NULL), 0);
        ck_assert_uint_eq(ask(&r, "GET", "/api", "evil.example", NULL, NULL), 403);
        ck_assert_uint_eq(ask(&r, "GET", "/api", "localhost.evil.example", NULL, NULL), 403);
        ck_assert_uint_eq(ask(&r, "GET", "/api", "127.0.0.1.evil.example", NULL, NULL), 403);
        ck_assert_uint_eq(ask(&r, "GET", "/api", "", NULL, NULL), 403);
        ck_assert_uint_eq(ask(&r, "GET", "/healthz", "evil.example", NULL, NULL), 0);
        ck_assert_uint_eq(ask(&r, "POST", "/metrics", "localhost", NULL, NULL), 405);
        ck_assert_uint_eq(ask(&r, "DELETE", "/healthz", "localhost", NULL, NULL), 405);
    }
END_TEST

START_TEST(elsewhere_a_token_is_needed)
    {
        dm_http_rule r, again;
        char path[600], bearer[100], wrong[DM_HTTP_TOKEN_HEX];
        struct stat st;
        es_error e;
        snprintf(path, sizeof path, "%s/k/http.token", es_test_dir());
        ck_assert_ok_err(dm_http_rule_make(&r, "0.0.0.0:5703", DM_HTTP_TOKEN_AUTO, path, &e), &e);
        ck_assert_uint_eq(strlen(r.token), 64);
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_uint_eq(st.st_mode & 0777, 0600);
        ck_assert_ok_err(dm_http_rule_make(&again, "127.0.0.1:1", DM_HTTP_TOKEN_ALWAYS, path, &e), &e);
        ck_assert_str_eq(r.token, again.token);
        snprintf(bearer, sizeof bearer, "Bearer %s", r.token);
        snprintf(wrong, sizeof wrong, "%s", r.token);
        wrong[63] = wrong[63] == '0' ? '1' : '0';
        ck_assert_uint_eq(ask(&r, "GET", "/metrics", "head:5703", bearer, NULL), 0);
        ck_assert_uint_eq(ask(&r, "GET", "/", "head:5703", NULL, r.token), 0);
        ck_assert_uint_eq(ask(&r, "GET", "/", "head:5703", NULL, NULL), 401);
        ck_assert_uint_eq(ask(&r, "GET", "/", "head:5703", NULL, wrong), 401);
        ck_assert_uint_eq(ask(&r, "GET", "/", "head:5703", NULL, ""), 401);
        ck_assert_uint_eq(ask(&r, "GET", "/", "head:5703", r.token, NULL), 401);
        ck_assert_uint_eq(ask(&r, "GET", "/", "head:5703", "Bearer ", NULL), 401);
        ck_assert_uint_eq(ask(&r, "GET", "/healthz", "head:5703", NULL, NULL), 0);
        ck_assert_ok(dm_http_rule_make(&again, "0.0.0.0:1", DM_HTTP_TOKEN_NEVER, path, &e));
        ck_assert_uint_eq(ask(&again, "GET", "/", "head:5703", NULL, NULL), 0);
        ck_assert_int_eq(chmod(path, 0644), 0);
        ck_assert_status(dm_http_rule_make(&again, "0.0.0.0:1", DM_HTTP_TOKEN_AUTO, path, &e), ES_DENIED);
        ck_assert_has(e.text, "chmod 600");
        ck_assert_int_eq(chmod(path, 0600), 0);
        ck_assert_int_eq(truncate(path, 10), 0);
        ck_assert_status(dm_http_rule_make(&again, "0.0.0.0:1", DM_HTTP_TOKEN_AUTO, path, &e), ES_INVALID);
    }
END_TEST

static int http_connect(const dm_http *h)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    int64_t port = 0;
    ck_assert(es_str_to_i64(strchr(dm_http_address(h), ':') + 1, false, &port));
    a.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static int http_status(const dm_http *h, const char *head)
{
    char got[4096] = "";
    int code = 0, fd = http_connect(h);
    ck_assert_int_eq(write(fd, head, strlen(head)), (ssize_t)strlen(head));
    for (size_t n = 0; n < sizeof got - 1;) {
        ssize_t k = read(fd, got + n, sizeof got - 1 - n);
        if (k <= 0)
            break;
        got[n += (size_t)k] = 0;
    }
    close(fd);
    sscanf(got, "HTTP/1.1 %d", &code);
    return code;
}

START_TEST(a_server_with_a_token)
    {
        dm_http_rule r = {.loopback = true};
        dm_http *h;
        es_error e;
        char head[40000];
        memset(r.token, 'a', 64);
        ck_assert_ok_err(dm_http_start("127.0.0.1:0", &r, &h, &e), &e);
        dm_http_update(h, "metrics\n", NULL);
        ck_assert_int_eq(http_status(h, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 401);
        ck_assert_int_eq(http_status(h, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200);
        ck_assert_int_eq(http_status(h, "GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 401);
        snprintf(head, sizeof head,
                 "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", r.token);
        ck_assert_int_eq(http_status(h, head), 200);
        snprintf(head, sizeof head, "GET /metrics?token=%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", r.token);
        ck_assert_int_eq(http_status(h, head), 200);
        /* More header than a connection has memory for; more connections than one address may have. */
        int n = snprintf(head, sizeof head, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ");
        memset(head + n, 'x', 30000);
        memcpy(head + n + 30000, "\r\n\r\n", 5);
        int code = http_status(h, head);
        ck_assert_msg(code == 0 || code == 413 || code == 431 || code == 414, "an endless header: %d", code);
        int fd[40], open = 0;
        for (int i = 0; i < 40; i++) {
            fd[i] = http_connect(h);
            ck_assert_int_ge(write(fd[i], "GET /he", 7), 0);
        }
        struct timeval wait = {.tv_usec = 300000};
        for (int i = 0; i < 40; i++) {
            char c;
            setsockopt(fd[i], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
            wait.tv_usec = 20000;
            open += recv(fd[i], &c, 1, 0) < 0 && errno == EAGAIN; /* a refused one is closed */
        }
        ck_assert_msg(open <= 32, "%d half requests of one address are kept", open);
        for (int i = 0; i < 40; i++)
            close(fd[i]);
        dm_http_stop(&h);
    }
END_TEST

/* One byte now and then is no silence: after its time a head that is not there ends the connection, and others are not touched. */
START_TEST(slow_heads_end)
    {
        dm_http_rule r = {.loopback = true};
        dm_http *h;
        es_error e;
        char c;
        ck_assert_ok_err(dm_http_start("127.0.0.1:0", &r, &h, &e), &e);
        dm_http_update(h, "metrics\n", NULL);
        int slow = http_connect(h);
        ck_assert_int_eq(write(slow, "GET /hea", 8), 8);
        ck_assert_int_eq(http_status(h, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), 200);
        int64_t now = es_clock_mono_ms(es_clock_system());
        ck_assert_int_eq(dm_http_end_slow(h, now), 0);
        ck_assert_int_eq(write(slow, "l", 1), 1);
        /* Two, when the server has not yet let go of the one that it has answered. */
        ck_assert_int_ge(dm_http_end_slow(h, now + DM_HTTP_HEAD_MS + 1000), 1);
        struct timeval wait = {.tv_sec = 5};
        setsockopt(slow, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
        ck_assert_msg(recv(slow, &c, 1, 0) >= 0 || errno == ECONNRESET, "it is still open");
        for (int i = 0; i < 500 && dm_http_end_slow(h, now + 2 * DM_HTTP_HEAD_MS) != 0; i++)
            poll(NULL, 0, 10); /* until the server has let go of it */
        ck_assert_int_eq(dm_http_end_slow(h, now + 2 * DM_HTTP_HEAD_MS), 0);
        close(slow);
        dm_http_stop(&h);
    }
END_TEST

ES_TEST_MAIN("http_access", loopback_is_open_but_not_to_other_names, elsewhere_a_token_is_needed, a_server_with_a_token,
             slow_heads_end)
