/* Programs of another protocol version: the message names both versions, and the exit status is not 0. */
#include <pthread.h>
#include <sys/wait.h>
#include <zmq.h>

#include "daemon/wire/peer.h"
#include "tests/check_main.h"

enum { OTHER = 99 };

/* A coordinator of the future: whatever it is asked, it answers in its own version. */
static void *future_coordinator(void *arg)
{
    void *router = arg;
    char id[256], body[65536];
    for (int idn; (idn = zmq_recv(router, id, sizeof id, 0)) >= 0;) {
        if (zmq_recv(router, body, sizeof body, 0) < 0)
            break;
        dm_to_peer r = ESPALIER__WIRE__TO_PEER__INIT;
        Espalier__Wire__Done d = ESPALIER__WIRE__DONE__INIT;
        r.version = OTHER;
        r.request_id = 1;
        r.what_case = ESPALIER__WIRE__TO_PEER__WHAT_DONE;
        r.done = &d;
        dm_bytes b;
        ck_assert_ok(dm_encode(&r.base, DM_CONTROL_MAX, &b, NULL));
        zmq_send(router, id, (size_t)idn, ZMQ_SNDMORE);
        zmq_send(router, b.data, b.n, 0);
        free(b.data);
    }
    zmq_close(router);
    return NULL;
}

/* Runs a program to its end; its exit status, and what it said on standard error. */
static int run(const char *command, char *said, size_t size)
{
    FILE *f = popen(command, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(said, 1, size - 1, f);
    said[n] = 0;
    int status = pclose(f);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(peers_refuse_another_coordinator)
    {
        void *ctx = zmq_ctx_new(), *router = zmq_socket(ctx, ZMQ_ROUTER);
        char endpoint[64], command[2048], said[8192];
        size_t n = sizeof endpoint;
        ck_assert_int_eq(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
        ck_assert_int_eq(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &n), 0);
        pthread_t thread;
        pthread_create(&thread, NULL, future_coordinator, router);
        snprintf(command, sizeof command, "timeout 30 %s %s --device cpu:1 --insecure 2>&1",
                 es_test_built("espalier-worker"), endpoint);
        ck_assert_int_eq(run(command, said, sizeof said), 1);
        ck_assert_has(said, "speaks protocol version 99, this program speaks 1");
        snprintf(command, sizeof command, "timeout 30 %s list --insecure --endpoint %s 2>&1", es_test_built("espalier"),
                 endpoint);
        ck_assert_int_eq(run(command, said, sizeof said), 1);
        ck_assert_has(said, "speaks protocol version 99, this program speaks 1");
        zmq_ctx_shutdown(ctx);
        pthread_join(thread, NULL);
        zmq_ctx_term(ctx);
    }
END_TEST

/* A worker of another version greets the real coordinator. */
START_TEST(coordinator_refuses_another_peer)
    {
        char dir[512], control[600], data[600], status[600], text[700], version[32];
        snprintf(dir, sizeof dir, "%s", es_test_dir());
        snprintf(control, sizeof control, "ipc://%s/c", dir);
        snprintf(data, sizeof data, "ipc://%s/d", dir);
        snprintf(status, sizeof status, "ipc://%s/s", dir);
        pid_t pid = fork();
        if (pid == 0) {
            execl(es_test_built("espalierd"), "espalierd", "--dir", dir, "--control", control, "--data", data,
                  "--status", status, (char *)NULL);
            _exit(127);
        }
        void *ctx = zmq_ctx_new(), *dealer = zmq_socket(ctx, ZMQ_DEALER);
        int wait_ms = 30000;
        zmq_setsockopt(dealer, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
        ck_assert_int_eq(zmq_connect(dealer, control), 0);
        dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
        Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
        uint8_t uid[16] = {1};
        m.version = OTHER;
        m.request_id = 5;
        m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_HELLO;
        h.worker_uid = (ProtobufCBinaryData){sizeof uid, uid};
        m.hello = &h;
        dm_bytes b;
        ck_assert_ok(dm_encode(&m.base, DM_CONTROL_MAX, &b, NULL));
        ck_assert_int_ge(zmq_send(dealer, b.data, b.n, 0), 0);
        free(b.data);
        uint8_t in[65536];
        int n = zmq_recv(dealer, in, sizeof in, 0);
        ck_assert_msg(n > 0, "no answer");
        ProtobufCMessage *r = NULL;
        ck_assert_ok(dm_decode(&espalier__wire__to_peer__descriptor, in, (size_t)n, &r, NULL));
        const dm_to_peer *reply = (const dm_to_peer *)r;
        ck_assert_int_eq((int)reply->what_case, ESPALIER__WIRE__TO_PEER__WHAT_ERROR);
        ck_assert_str_eq(reply->error->code, "version");
        snprintf(text, sizeof text, "%s", reply->error->text);
        snprintf(version, sizeof version, "%d", OTHER);
        ck_assert_has(text, version);
        snprintf(version, sizeof version, "%d", (int)DM_WIRE_VERSION);
        ck_assert_has(text, version);
        dm_message_free(&r);
        zmq_close(dealer);
        zmq_ctx_term(ctx);
        kill(pid, SIGTERM);
        int st = 0;
        waitpid(pid, &st, 0);
        ck_assert(WIFEXITED(st) && WEXITSTATUS(st) == 0);
    }
END_TEST

ES_TEST_MAIN("version", peers_refuse_another_coordinator, coordinator_refuses_another_peer)
