#include "tests/bench/queue_rig.h"

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"

extern char **environ;

char qr_dir[512], qr_control[600];
pid_t qr_pid;

void qr_die(const char *what, const es_error *err)
{
    fprintf(stderr, "bench_queue: %s: %s %s\n", what, err ? err->where : "", err ? err->text : "");
    if (qr_pid > 0)
        kill(qr_pid, SIGKILL);
    exit(1);
}

double qr_now_s(void) { return (double)es_clock_mono_ns(es_clock_system()) / 1e9; }

/* ---- the coordinator as a child; ready when it says so */

void qr_start(const char *endpoint)
{
    char program[700], self[512] = "", data[600], line[1400] = "";
    int out[2];
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        qr_die("where am I", NULL);
    for (int up = 0; up < 3; up++)
        *strrchr(self, '/') = 0;
    snprintf(program, sizeof program, "%s/espalierd", self);
    snprintf(qr_control, sizeof qr_control, "%s", endpoint ? endpoint : "");
    if (!endpoint)
        snprintf(qr_control, sizeof qr_control, "ipc://%s/control", qr_dir);
    snprintf(data, sizeof data, "ipc://%s/data", qr_dir);
    char *argv[] = {program,    "--dir", qr_dir,   "--control", qr_control, "--data", data,
                    "--status", "",      "--http", "",          "--log",    "warn",   NULL};
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    if (pipe(out) != 0)
        qr_die("pipe", NULL);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addclose(&fa, out[0]);
    if (posix_spawn(&qr_pid, program, &fa, NULL, argv, environ) != 0)
        qr_die(program, NULL);
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    if (!f || !fgets(line, sizeof line, f) || strncmp(line, "ready ", 6) != 0)
        qr_die("espalierd did not become ready", NULL);
    fclose(f);
}

void qr_stop(void)
{
    int st;
    kill(qr_pid, SIGTERM);
    waitpid(qr_pid, &st, 0);
    if (!WIFEXITED(st) || WEXITSTATUS(st) != 0)
        fprintf(stderr, "espalierd ended with %d\n", st);
    qr_pid = 0;
}

/* Seconds of processor time the coordinator has used, and its resident bytes. */
double qr_cpu(long *resident_mib)
{
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;
    long rss = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)qr_pid);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    char *p = strrchr(text, ')');
    if (p)
        sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld", &user,
               &sys, &rss);
    if (resident_mib)
        *resident_mib = rss * sysconf(_SC_PAGESIZE) >> 20;
    return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

void qr_login(dm_login *login)
{
    char key[600];
    es_error err;
    snprintf(key, sizeof key, "%s/keys/admin.key", qr_dir);
    if (dm_login_find(qr_control, &(dm_keys_where){.role = DM_ROLE_ADMIN, .key = key}, false, login, &err) != ES_OK)
        qr_die("keys", &err);
}

dm_peer *qr_connect(void)
{
    dm_peer *p;
    es_error err;
    dm_login login;
    qr_login(&login);
    dm_peer_options o = {.endpoint = qr_control, .login = &login};
    if (dm_peer_open(&o, &p, &err) != ES_OK)
        qr_die("connect", &err);
    return p;
}

dm_to_peer *qr_call(dm_peer *p, dm_from_peer *m)
{
    dm_to_peer *reply;
    es_error err;
    if (dm_peer_call(p, m, 60000, &reply, &err) != ES_OK)
        qr_die("call", &err);
    return reply;
}

void qr_enqueue(dm_peer *p, const char *token, uint64_t count)
{
    Espalier__Wire__EnqueueNoop e = ESPALIER__WIRE__ENQUEUE_NOOP__INIT;
    e.token = dm_text(token);
    e.count = count;
    dm_to_peer *r = qr_call(p, &DM_FROM_PEER(ENQUEUE_NOOP, enqueue_noop, &e));
    dm_to_peer_free(&r);
}

/* ---- a worker of zero-work jobs */

void qr_worker_hello(qr_worker *w, int number)
{
    static Espalier__Wire__JobKind kinds[] = {ESPALIER__WIRE__JOB_KIND__JOB_NOOP};
    Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
    char name[32];
    snprintf(name, sizeof name, "bench-%d", number);
    memset(w->uid, 0, sizeof w->uid);
    memcpy(w->uid, &number, sizeof number);
    w->uid[4] = 1;
    h.worker_uid = (ProtobufCBinaryData){.len = 16, .data = w->uid};
    h.name = name;
    h.n_kinds = 1;
    h.kinds = kinds;
    h.slots = w->slots;
    dm_to_peer *r = qr_call(w->peer, &DM_FROM_PEER(HELLO, hello, &h));
    dm_to_peer_free(&r);
}

void qr_worker_want(qr_worker *w, uint32_t n)
{
    Espalier__Wire__Want want = ESPALIER__WIRE__WANT__INIT;
    es_error err;
    want.worker_uid = (ProtobufCBinaryData){.len = 16, .data = w->uid};
    want.slots = n;
    dm_from_peer m = DM_FROM_PEER(WANT, want, &want);
    m.request_id = dm_peer_next_id(w->peer);
    if (dm_peer_send(w->peer, &m, &err) != ES_OK)
        qr_die("want", &err);
}

void qr_worker_finish(qr_worker *w, const Espalier__Wire__LeaseBatch *b)
{
    static __thread Espalier__Wire__Finish f[1024], *list[1024];
    Espalier__Wire__FinishBatch fb = ESPALIER__WIRE__FINISH_BATCH__INIT;
    es_error err;
    for (size_t i = 0; i < b->n_granted && i < 1024; i++) {
        espalier__wire__finish__init(&f[i]);
        f[i].lease = b->granted[i]->lease;
        f[i].outcome = ESPALIER__WIRE__OUTCOME__OUTCOME_DONE;
        list[i] = &f[i];
    }
    fb.worker_uid = (ProtobufCBinaryData){.len = 16, .data = w->uid};
    fb.n_finish = b->n_granted;
    fb.finish = list;
    dm_from_peer m = DM_FROM_PEER(FINISH, finish, &fb);
    m.request_id = dm_peer_next_id(w->peer);
    if (dm_peer_send(w->peer, &m, &err) != ES_OK)
        qr_die("finish", &err);
}

static void *worker_main(void *ctx)
{
    qr_worker *w = ctx;
    es_error err;
    uint32_t left = w->slots;
    qr_worker_want(w, w->slots);
    while (__atomic_load_n(w->total, __ATOMIC_RELAXED) < w->target) {
        dm_to_peer *m;
        es_status s = dm_peer_recv(w->peer, 200, &m, &err);
        if (s == ES_TIMEOUT)
            continue;
        if (s != ES_OK)
            qr_die("receive", &err);
        if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_LEASES) {
            double at = qr_now_s();
            for (size_t i = 0; w->leased_at && i < m->leases->n_granted; i++)
                if (m->leases->granted[i]->lease->job < w->leased_max)
                    w->leased_at[m->leases->granted[i]->lease->job] = at;
            qr_worker_finish(w, m->leases);
            left -= (uint32_t)m->leases->n_granted;
            if (left == 0) { /* what was asked for and not given yet is still coming */
                qr_worker_want(w, w->slots);
                left = w->slots;
            }
        } else if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_FINISHED) {
            __atomic_fetch_add(w->total, m->finished->n_accepted, __ATOMIC_RELAXED);
        } else if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_ERROR) {
            fprintf(stderr, "refused: %s\n", m->error->text);
        }
        dm_to_peer_free(&m);
    }
    return NULL;
}

void qr_worker_start(qr_worker *w, int number, uint32_t slots, uint64_t target, volatile uint64_t *total)
{
    w->peer = qr_connect();
    w->slots = slots;
    w->target = target;
    w->total = total;
    qr_worker_hello(w, number);
    pthread_create(&w->thread, NULL, worker_main, w);
}
