/* bench_queue.c - what the coordinator can carry: the real espalierd, real sockets, every job durable (synchronous=FULL).
 *
 *     bench_queue throughput [jobs] [workers] [endpoint]     jobs of zero work, from enqueue to finished; tcp://127.0.0.1:PORT: with keys
 *     bench_queue latency [seconds] [per second]             submit to lease, percentiles
 *     bench_queue crowd [workers] [seconds] [endpoint]                  idle connected workers with heartbeats every 5 s: the coordinator's share of a core
 *     bench_queue history [finished] [waiting]               leasing, list and show on a database that large
 *
 * The database lives in a new folder under the current one, which should be on the disk to be measured.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "daemon/wire_peer.h"

extern char **environ;

static char dir[512], control[600];
static pid_t daemon_pid;

static void die(const char *what, const es_error *err)
{
    fprintf(stderr, "bench_queue: %s: %s %s\n", what, err ? err->where : "", err ? err->text : "");
    if (daemon_pid > 0)
        kill(daemon_pid, SIGKILL);
    exit(1);
}

static double now_s(void) { return (double)es_clock_mono_ns(es_clock_system()) / 1e9; }

/* ---- the coordinator as a child; ready when it says so */

static void start_daemon(const char *endpoint)
{
    char program[700], self[512] = "", data[600], line[1400] = "";
    int out[2];
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        die("where am I", NULL);
    for (int up = 0; up < 3; up++)
        *strrchr(self, '/') = 0;
    snprintf(program, sizeof program, "%s/espalierd", self);
    snprintf(control, sizeof control, "%s", endpoint ? endpoint : "");
    if (!endpoint)
        snprintf(control, sizeof control, "ipc://%s/control", dir);
    snprintf(data, sizeof data, "ipc://%s/data", dir);
    char *argv[] = {program,    "--dir", dir,      "--control", control, "--data", data,
                    "--status", "",      "--http", "",          "--log", "warn",   NULL};
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    if (pipe(out) != 0)
        die("pipe", NULL);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addclose(&fa, out[0]);
    if (posix_spawn(&daemon_pid, program, &fa, NULL, argv, environ) != 0)
        die(program, NULL);
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    if (!f || !fgets(line, sizeof line, f) || strncmp(line, "ready ", 6) != 0)
        die("espalierd did not become ready", NULL);
    fclose(f);
}

static void stop_daemon(void)
{
    int st;
    kill(daemon_pid, SIGTERM);
    waitpid(daemon_pid, &st, 0);
    if (!WIFEXITED(st) || WEXITSTATUS(st) != 0)
        fprintf(stderr, "espalierd ended with %d\n", st);
    daemon_pid = 0;
}

/* Seconds of processor time the coordinator has used, and its resident bytes. */
static double daemon_cpu(long *resident_mib)
{
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;
    long rss = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)daemon_pid);
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

/* Over tcp: the admin's key that the coordinator made. */
static es_status find_login(dm_login *login, es_error *err)
{
    char key[600];
    snprintf(key, sizeof key, "%s/keys/admin.key", dir);
    return dm_login_find(control, &(dm_keys_where){.role = DM_ROLE_ADMIN, .key = key}, false, login, err);
}

static dm_peer *connect_peer(void)
{
    dm_peer *p;
    es_error err;
    dm_login login;
    if (find_login(&login, &err) != ES_OK)
        die("keys", &err);
    dm_peer_options o = {.endpoint = control, .login = &login};
    if (dm_peer_open(&o, &p, &err) != ES_OK)
        die("connect", &err);
    return p;
}

static dm_to_peer *call(dm_peer *p, dm_from_peer *m)
{
    dm_to_peer *reply;
    es_error err;
    if (dm_peer_call(p, m, 60000, &reply, &err) != ES_OK)
        die("call", &err);
    return reply;
}

static void enqueue(dm_peer *p, const char *token, uint64_t count)
{
    Espalier__Wire__EnqueueNoop e = ESPALIER__WIRE__ENQUEUE_NOOP__INIT;
    dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
    char copy[64];
    snprintf(copy, sizeof copy, "%s", token);
    e.token = copy;
    e.count = count;
    m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_ENQUEUE_NOOP;
    m.enqueue_noop = &e;
    dm_to_peer *r = call(p, &m);
    dm_to_peer_free(&r);
}

/* ---- a worker of zero-work jobs */

typedef struct noop_worker {
    dm_peer *peer;
    uint8_t uid[16];
    uint32_t slots;
    uint64_t finished, target;
    volatile uint64_t *total;
    double *leased_at; /* latency: when each lease came, by job */
    uint64_t leased_max;
    pthread_t thread;
} noop_worker;

static void worker_hello(noop_worker *w, int number)
{
    static Espalier__Wire__JobKind kinds[] = {ESPALIER__WIRE__JOB_KIND__JOB_NOOP};
    Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
    dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
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
    m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_HELLO;
    m.hello = &h;
    dm_to_peer *r = call(w->peer, &m);
    dm_to_peer_free(&r);
}

static void worker_want(noop_worker *w, uint32_t n)
{
    Espalier__Wire__Want want = ESPALIER__WIRE__WANT__INIT;
    dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
    es_error err;
    want.worker_uid = (ProtobufCBinaryData){.len = 16, .data = w->uid};
    want.slots = n;
    m.request_id = dm_peer_next_id(w->peer);
    m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_WANT;
    m.want = &want;
    if (dm_peer_send(w->peer, &m, &err) != ES_OK)
        die("want", &err);
}

static void worker_finish(noop_worker *w, const Espalier__Wire__LeaseBatch *b)
{
    static __thread Espalier__Wire__Finish f[1024], *list[1024];
    Espalier__Wire__FinishBatch fb = ESPALIER__WIRE__FINISH_BATCH__INIT;
    dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
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
    m.request_id = dm_peer_next_id(w->peer);
    m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_FINISH;
    m.finish = &fb;
    if (dm_peer_send(w->peer, &m, &err) != ES_OK)
        die("finish", &err);
}

static void *worker_main(void *ctx)
{
    noop_worker *w = ctx;
    es_error err;
    uint32_t left = w->slots;
    worker_want(w, w->slots);
    while (__atomic_load_n(w->total, __ATOMIC_RELAXED) < w->target) {
        dm_to_peer *m;
        es_status s = dm_peer_recv(w->peer, 200, &m, &err);
        if (s == ES_TIMEOUT)
            continue;
        if (s != ES_OK)
            die("receive", &err);
        if (m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_LEASES) {
            double at = now_s();
            for (size_t i = 0; w->leased_at && i < m->leases->n_granted; i++)
                if (m->leases->granted[i]->lease->job < w->leased_max)
                    w->leased_at[m->leases->granted[i]->lease->job] = at;
            worker_finish(w, m->leases);
            left -= (uint32_t)m->leases->n_granted;
            if (left == 0) { /* what was asked for and not given yet is still coming */
                worker_want(w, w->slots);
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

static void worker_start(noop_worker *w, int number, uint32_t slots, uint64_t target, volatile uint64_t *total)
{
    w->peer = connect_peer();
    w->slots = slots;
    w->target = target;
    w->total = total;
    worker_hello(w, number);
    pthread_create(&w->thread, NULL, worker_main, w);
}

static void throughput(uint64_t jobs, int workers)
{
    enum { AT_ONCE = 10000 };
    volatile uint64_t total = 0;
    noop_worker *w = es_xcalloc((size_t)workers, sizeof *w);
    dm_peer *client = connect_peer();
    double t0 = now_s(), cpu0 = daemon_cpu(NULL);
    for (int i = 0; i < workers; i++)
        worker_start(&w[i], i + 1, 512, jobs, &total);
    for (uint64_t sent = 0, k = 0; sent < jobs; k++) {
        char token[32];
        uint64_t n = jobs - sent < AT_ONCE ? jobs - sent : AT_ONCE;
        snprintf(token, sizeof token, "t%" PRIu64, k);
        enqueue(client, token, n);
        sent += n;
    }
    double enqueued = now_s() - t0;
    for (int i = 0; i < workers; i++)
        pthread_join(w[i].thread, NULL);
    double t = now_s() - t0;
    long mib;
    double cpu = daemon_cpu(&mib) - cpu0;
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    double own = (double)ru.ru_utime.tv_sec + (double)ru.ru_stime.tv_sec +
                 (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
    printf("throughput: %" PRIu64
           " jobs, %d workers: %.2f s (all enqueued after %.2f s), %.0f jobs/s; coordinator %.2f s of processor time "
           "(%.1f us a job), %ld MiB; clients %.2f s\n",
           jobs, workers, t, enqueued, (double)jobs / t, cpu, cpu / (double)jobs * 1e6, mib, own);
    for (int i = 0; i < workers; i++)
        dm_peer_close(&w[i].peer);
    dm_peer_close(&client);
    free(w);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void latency(double seconds, double per_second)
{
    uint64_t n = (uint64_t)(seconds * per_second);
    volatile uint64_t total = 0;
    noop_worker w = {0};
    dm_peer *client = connect_peer();
    double *sent = es_xcalloc(n + 2, sizeof *sent), *wait = es_xcalloc(n + 2, sizeof *wait);
    es_error err;
    w.leased_at = es_xcalloc(n + 2, sizeof *w.leased_at);
    w.leased_max = n + 2;
    worker_start(&w, 1, 64, n, &total);
    double t0 = now_s();
    for (uint64_t i = 1; i <= n; i++) { /* job ids count from 1 */
        Espalier__Wire__EnqueueNoop e = ESPALIER__WIRE__ENQUEUE_NOOP__INIT;
        dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
        char token[32];
        double due = t0 + (double)i / per_second;
        while (now_s() < due) { /* answers are read meanwhile */
            dm_to_peer *r;
            int ms = (int)((due - now_s()) * 1000);
            if (dm_peer_recv(client, ms > 0 ? ms : 0, &r, &err) == ES_OK)
                dm_to_peer_free(&r);
        }
        snprintf(token, sizeof token, "l%" PRIu64, i);
        e.token = token;
        e.count = 1;
        m.request_id = dm_peer_next_id(client);
        m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_ENQUEUE_NOOP;
        m.enqueue_noop = &e;
        sent[i] = now_s();
        if (dm_peer_send(client, &m, &err) != ES_OK)
            die("submit", &err);
    }
    pthread_join(w.thread, NULL);
    for (uint64_t i = 1; i <= n; i++)
        wait[i - 1] = (w.leased_at[i] - sent[i]) * 1000;
    qsort(wait, n, sizeof *wait, by_value);
    printf("latency: %" PRIu64
           " jobs at %.0f/s, submit to lease: median %.2f ms, 95 %% %.2f ms, 99 %% %.2f ms, longest %.2f ms\n",
           n, per_second, wait[n / 2], wait[n * 95 / 100], wait[n * 99 / 100], wait[n - 1]);
    dm_peer_close(&w.peer);
    dm_peer_close(&client);
    free(w.leased_at);
    free(sent);
    free(wait);
}

static void crowd(int workers, double seconds)
{
    void *zmq = zmq_ctx_new();
    void **sockets = es_xcalloc((size_t)workers, sizeof *sockets);
    noop_worker w = {.slots = 1};
    dm_login login;
    es_error err;
    if (find_login(&login, &err) != ES_OK)
        die("keys", &err);
    zmq_ctx_set(zmq, ZMQ_MAX_SOCKETS, workers + 10);
    struct rlimit rl;
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    double t0 = now_s();
    for (int i = 0; i < workers; i++) {
        sockets[i] = zmq_socket(zmq, ZMQ_DEALER);
        if (!sockets[i] || dm_peer_secure(sockets[i], control, &login, &err) != ES_OK ||
            zmq_connect(sockets[i], control) != 0) {
            printf("crowd: only %d sockets: %s\n", i, zmq_strerror(errno));
            workers = i;
            break;
        }
    }
    static Espalier__Wire__JobKind kinds[] = {ESPALIER__WIRE__JOB_KIND__JOB_NOOP};
    uint64_t answers = 0;
    double cpu0 = 0, begun = 0;
    for (int round = 0;; round++) { /* each worker once in 5 s, evenly */
        double round0 = now_s();
        if (round == 1) { /* hellos are done: from here on it is heartbeats */
            cpu0 = daemon_cpu(NULL);
            begun = now_s();
            printf("crowd: %d workers connected and welcomed in %.1f s\n", workers, begun - t0);
        }
        if (round > 0 && now_s() - begun > seconds)
            break;
        for (int i = 0; i < workers; i++) {
            dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
            Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
            Espalier__Wire__Heartbeat b = ESPALIER__WIRE__HEARTBEAT__INIT;
            dm_bytes bytes;
            memset(w.uid, 0, sizeof w.uid);
            memcpy(w.uid, &(int){i + 1}, sizeof(int));
            h.worker_uid = b.worker_uid = (ProtobufCBinaryData){.len = 16, .data = w.uid};
            h.slots = 1;
            h.n_kinds = 1;
            h.kinds = kinds;
            m.version = DM_WIRE_VERSION;
            m.request_id = (uint64_t)round + 1;
            m.what_case = round ? ESPALIER__WIRE__FROM_PEER__WHAT_HEARTBEAT : ESPALIER__WIRE__FROM_PEER__WHAT_HELLO;
            if (round)
                m.heartbeat = &b;
            else
                m.hello = &h;
            if (dm_encode(&m.base, DM_CONTROL_MAX, &bytes, NULL) != ES_OK)
                die("encode", NULL);
            zmq_send(sockets[i], bytes.data, bytes.n, 0);
            free(bytes.data);
            char sink[4096];
            while (round && zmq_recv(sockets[i], sink, sizeof sink, ZMQ_DONTWAIT) >= 0)
                answers++; /* of the round before */
            double due = round0 + 5.0 * (i + 1) / workers;
            if (round && now_s() < due)
                zmq_poll(NULL, 0, (long)((due - now_s()) * 1000));
        }
        for (int i = 0; round == 0 && i < workers; i++) { /* every welcome */
            char sink[4096];
            zmq_recv(sockets[i], sink, sizeof sink, 0);
        }
    }
    long mib;
    double t = now_s() - begun, cpu = daemon_cpu(&mib) - cpu0;
    printf("crowd: %d workers, a heartbeat every 5 s each, %.0f s: %.3f of a core, %ld MiB, %" PRIu64 " answers\n",
           workers, t, cpu / t, mib, answers);
    for (int i = 0; i < workers; i++) {
        zmq_setsockopt(sockets[i], ZMQ_LINGER, &(int){0}, sizeof(int));
        zmq_close(sockets[i]);
    }
    zmq_ctx_term(zmq);
    free(sockets);
}

static double query_ms(dm_peer *p, const char *what, uint64_t search)
{
    Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
    dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
    char copy[16];
    double best = 1e9;
    snprintf(copy, sizeof copy, "%s", what);
    q.what = copy;
    q.search = search;
    for (int i = 0; i < 5; i++) {
        double t0 = now_s();
        m.what_case = ESPALIER__WIRE__FROM_PEER__WHAT_QUERY;
        m.query = &q;
        dm_to_peer *r = call(p, &m);
        dm_to_peer_free(&r);
        double t = (now_s() - t0) * 1000;
        best = t < best ? t : best;
    }
    return best;
}

/* Rows are written directly, as years of use would have left them. */
static void history(uint64_t finished, uint64_t waiting)
{
    char path[600], sql[700];
    sqlite3 *db;
    dm_peer *client = connect_peer();
    enqueue(client, "first", 1);
    dm_peer_close(&client);
    stop_daemon();
    snprintf(path, sizeof path, "%s/state.db", dir);
    double t0 = now_s();
    if (sqlite3_open(path, &db) != SQLITE_OK)
        die("open", NULL);
    snprintf(sql, sizeof sql,
             "PRAGMA synchronous=OFF; BEGIN;"
             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %" PRIu64 ")"
             " INSERT INTO job (search, kind, state, attempt, worker, created_ms, leased_ms, ended_ms) SELECT 1, 8, 4, "
             "1, 1, i, i, i FROM n;"
             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %" PRIu64 ")"
             " INSERT INTO job (search, kind, state, created_ms) SELECT 1, 8, 2, i FROM n;"
             "UPDATE search SET n_done = n_done + %" PRIu64 ", n_ready = n_ready + %" PRIu64 "; COMMIT;",
             finished, waiting, finished, waiting);
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        die(why, NULL);
    sqlite3_close(db);
    printf("history: %" PRIu64 " finished and %" PRIu64 " waiting jobs written in %.1f s\n", finished, waiting,
           now_s() - t0);
    t0 = now_s();
    start_daemon(NULL);
    long mib;
    daemon_cpu(&mib);
    printf("history: the coordinator is ready %.2f s after its start, %ld MiB\n", now_s() - t0, mib);
    client = connect_peer();
    printf("history: list %.2f ms, show %.2f ms, status %.2f ms\n", query_ms(client, "list", 0),
           query_ms(client, "show", 1), query_ms(client, "status", 0));
    dm_peer_close(&client);
    volatile uint64_t total = 0;
    noop_worker w = {0};
    t0 = now_s();
    uint64_t some = waiting < 200000 ? waiting : 200000;
    worker_start(&w, 9, 512, some, &total);
    pthread_join(w.thread, NULL);
    daemon_cpu(&mib);
    printf("history: leased and finished %" PRIu64 " of the waiting jobs at %.0f/s, %ld MiB\n", (uint64_t)total,
           (double)total / (now_s() - t0), mib);
    dm_peer_close(&w.peer);
}

static uint64_t argument(int argc, char **argv, int i, uint64_t normal)
{
    int64_t v;
    return i < argc && es_str_to_i64(argv[i], true, &v) && v > 0 ? (uint64_t)v : normal;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "throughput";
    char cwd[400];
    es_error err;
    if (!getcwd(cwd, sizeof cwd))
        return 1;
    snprintf(dir, sizeof dir, "%s/queue.XXXXXX", cwd);
    if (!mkdtemp(dir))
        die("no folder", NULL);
    bool crowded = strcmp(what, "crowd") == 0;
    start_daemon(argc > 4 ? argv[4] : NULL);
    if (strcmp(what, "throughput") == 0)
        throughput(argument(argc, argv, 2, 200000), (int)argument(argc, argv, 3, 1));
    else if (strcmp(what, "latency") == 0)
        latency((double)argument(argc, argv, 2, 10), (double)argument(argc, argv, 3, 1000));
    else if (crowded)
        crowd((int)argument(argc, argv, 2, 10000), (double)argument(argc, argv, 3, 15));
    else if (strcmp(what, "history") == 0)
        history(argument(argc, argv, 2, 10000000), argument(argc, argv, 3, 1000000));
    stop_daemon();
    return es_file_remove_tree(dir, &err) == ES_OK ? 0 : 1;
}
