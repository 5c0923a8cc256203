/* Much at once: 10,000 workers, 10 million jobs, 10,000 trials that take their time. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
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
#include "daemon/store/pagesum.h"
#include "supernet/searchfile/searchfile.h"
#include "tests/bench/queue_rig.h"

/* ---- a crowd of idle workers */

enum { CROWD_EACH = 2500, BEAT_S = 5 }; /* sockets of one process: each takes two descriptors */

static void crowd_send(void *socket, int number, uint64_t round)
{
    static Espalier__Wire__JobKind kinds[] = {ESPALIER__WIRE__JOB_KIND__JOB_NOOP};
    dm_from_peer m = ESPALIER__WIRE__FROM_PEER__INIT;
    Espalier__Wire__Hello h = ESPALIER__WIRE__HELLO__INIT;
    Espalier__Wire__Heartbeat b = ESPALIER__WIRE__HEARTBEAT__INIT;
    dm_bytes bytes;
    uint8_t uid[16] = {0};
    memcpy(uid, &number, sizeof number);
    h.worker_uid = b.worker_uid = (ProtobufCBinaryData){.len = sizeof uid, .data = uid};
    h.slots = 1;
    h.n_kinds = 1;
    h.kinds = kinds;
    m.version = DM_WIRE_VERSION;
    m.request_id = round + 1;
    m.what_case = round ? ESPALIER__WIRE__FROM_PEER__WHAT_HEARTBEAT : ESPALIER__WIRE__FROM_PEER__WHAT_HELLO;
    if (round)
        m.heartbeat = &b;
    else
        m.hello = &h;
    if (dm_encode(&m.base, DM_CONTROL_MAX, &bytes, NULL) != ES_OK || zmq_send(socket, bytes.data, bytes.n, 0) < 0)
        qr_die("a simulated worker cannot send", NULL);
    free(bytes.data);
}

/* One process of the crowd: says 'w' when all its workers are welcomed, then beats until it is killed, and writes how many answers came after each round. */
static void crowd_process(int first, int n, int out)
{
    void *zmq = zmq_ctx_new(), **sockets = es_xcalloc((size_t)n, sizeof *sockets);
    char sink[4096];
    es_error err;
    dm_login login;
    qr_login(&login);
    if (es_file_limit((unsigned)n * 2 + 100, &err) != ES_OK)
        qr_die("a process of the crowd", &err);
    zmq_ctx_set(zmq, ZMQ_MAX_SOCKETS, n + 10);
    for (int i = 0; i < n; i++) {
        sockets[i] = zmq_socket(zmq, ZMQ_DEALER);
        if (!sockets[i] || dm_peer_secure(sockets[i], qr_control, &login, &err) != ES_OK ||
            zmq_connect(sockets[i], qr_control) != 0)
            qr_die(zmq_strerror(zmq_errno()), NULL);
        crowd_send(sockets[i], first + i + 1, 0);
    }
    int patience = 120000;
    for (int i = 0; i < n; i++) {
        zmq_setsockopt(sockets[i], ZMQ_RCVTIMEO, &patience, sizeof patience);
        if (zmq_recv(sockets[i], sink, sizeof sink, 0) < 0)
            qr_die("a simulated worker was not welcomed", NULL);
    }
    if (write(out, "w", 1) != 1)
        qr_die("pipe", NULL);
    for (uint64_t round = 1;; round++) { /* each worker once, evenly */
        double began = qr_now_s();
        uint64_t answers = 0;
        for (int i = 0; i < n; i++) {
            while (zmq_recv(sockets[i], sink, sizeof sink, ZMQ_DONTWAIT) >= 0)
                answers++; /* of the round before */
            crowd_send(sockets[i], first + i + 1, round);
            double due = began + (double)BEAT_S * (i + 1) / n;
            if (qr_now_s() < due)
                zmq_poll(NULL, 0, (long)((due - qr_now_s()) * 1000));
        }
        if (write(out, &answers, sizeof answers) != sizeof answers)
            _exit(0);
    }
}

void qr_crowd(int workers, double seconds)
{
    int n = (workers + CROWD_EACH - 1) / CROWD_EACH;
    pid_t *child = es_xcalloc((size_t)n, sizeof *child);
    int *in = es_xcalloc((size_t)n, sizeof *in);
    double t0 = qr_now_s();
    for (int i = 0, first = 0; i < n; i++) {
        int fd[2], share = (workers - first) / (n - i);
        if (pipe(fd) != 0 || (child[i] = fork()) < 0)
            qr_die("no more processes", NULL);
        if (child[i] == 0) {
            close(fd[0]);
            qr_pid = 0;
            crowd_process(first, share, fd[1]);
        }
        close(fd[1]);
        in[i] = fd[0];
        first += share;
    }
    for (int i = 0; i < n; i++) {
        char c;
        if (read(in[i], &c, 1) != 1)
            qr_die("a process of the crowd ended", NULL);
    }
    double begun = qr_now_s(), cpu0 = qr_cpu(NULL);
    printf("crowd: %d workers in %d processes connected and welcomed in %.1f s\n", workers, n, begun - t0);
    zmq_poll(NULL, 0, (long)(seconds * 1000));
    long mib;
    double cpu = qr_cpu(&mib) - cpu0, t = qr_now_s() - begun;
    uint64_t answers = 0, rounds = 0;
    for (int i = 0; i < n; i++) {
        uint64_t some;
        kill(child[i], SIGKILL);
        waitpid(child[i], NULL, 0);
        while (read(in[i], &some, sizeof some) == sizeof some) {
            answers += some;
            rounds++;
        }
        close(in[i]);
    }
    printf("crowd: %d workers, a heartbeat every %d s each, %.0f s: %.3f of a core, %ld MiB, %" PRIu64
           " answers in %" PRIu64 " rounds\n",
           workers, BEAT_S, t, cpu / t, mib, answers, rounds / (uint64_t)n);
    if (answers == 0 && seconds >= 3 * BEAT_S)
        qr_die("nobody was answered", NULL);
    free(child);
    free(in);
}

/* ---- trials that take their time, as other tuners' do */

typedef struct held {
    uint64_t job;
    uint32_t attempt;
    double until;
} held;

static void trials_finish(qr_worker *w, held *h, int *n)
{
    Espalier__Wire__LeaseBatch b = ESPALIER__WIRE__LEASE_BATCH__INIT;
    Espalier__Wire__Granted granted[64], *list[64];
    dm_lease_id lease[64];
    double now = qr_now_s();
    int left = 0;
    for (int i = 0; i < *n; i++) {
        if (h[i].until > now) {
            h[left++] = h[i];
            continue;
        }
        size_t k = b.n_granted++;
        espalier__wire__lease__init(&lease[k]);
        espalier__wire__granted__init(&granted[k]);
        lease[k].job = h[i].job;
        lease[k].attempt = h[i].attempt;
        granted[k].lease = &lease[k];
        list[k] = &granted[k];
    }
    b.granted = list;
    *n = left;
    if (b.n_granted) {
        qr_worker_finish(w, &b);
        qr_worker_want(w, (uint32_t)b.n_granted);
    }
}

static int trials_wait_ms(const held *h, int n)
{
    double next = qr_now_s() + 1;
    for (int i = 0; i < n; i++)
        next = h[i].until < next ? h[i].until : next;
    double left = (next - qr_now_s()) * 1000;
    return left > 0 ? (int)left + 1 : 0;
}

void qr_trials(uint64_t trials, int slots, int hold_ms)
{
    held h[64];
    int n = 0;
    uint64_t done = 0;
    es_error err;
    qr_worker w = {.slots = (uint32_t)slots};
    if (slots > 64)
        qr_die("at most 64 slots", NULL);
    dm_peer *client = qr_connect();
    w.peer = qr_connect();
    qr_worker_hello(&w, 1);
    double t0 = qr_now_s(), ideal = (double)trials * hold_ms / 1000 / slots;
    qr_enqueue(client, "trials", trials);
    qr_worker_want(&w, w.slots);
    while (done < trials) {
        dm_to_peer *m;
        es_status s = dm_peer_recv(w.peer, trials_wait_ms(h, n), &m, &err);
        if (s == ES_OK && m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_LEASES)
            for (size_t i = 0; i < m->leases->n_granted && n < slots; i++)
                h[n++] = (held){m->leases->granted[i]->lease->job, m->leases->granted[i]->lease->attempt,
                                qr_now_s() + hold_ms / 1000.0};
        else if (s == ES_OK && m->what_case == ESPALIER__WIRE__TO_PEER__WHAT_FINISHED)
            done += m->finished->n_accepted;
        else if (s != ES_OK && s != ES_TIMEOUT)
            qr_die("receive", &err);
        if (s == ES_OK)
            dm_to_peer_free(&m);
        trials_finish(&w, h, &n);
    }
    double t = qr_now_s() - t0;
    printf("trials: %" PRIu64
           " of %d ms on %d slots: %.2f s, ideal %.2f s: %.2f %% over it (%.3f ms a trial and slot)\n",
           trials, hold_ms, slots, t, ideal, (t / ideal - 1) * 100, (t - ideal) * 1000 * slots / (double)trials);
    dm_peer_close(&w.peer);
    dm_peer_close(&client);
}

/* ---- years of history */

static char *query_json(dm_peer *p, const char *what, uint64_t search)
{
    Espalier__Wire__Query q = ESPALIER__WIRE__QUERY__INIT;
    q.what = dm_text(what);
    q.search = search;
    dm_to_peer *r = qr_call(p, &DM_FROM_PEER(QUERY, query, &q));
    if (r->what_case != ESPALIER__WIRE__TO_PEER__WHAT_ANSWER)
        qr_die(what, NULL);
    char *json = es_xstrdup(r->answer->json);
    dm_to_peer_free(&r);
    return json;
}

static void command(dm_peer *p, Espalier__Wire__Verb verb, uint64_t search)
{
    Espalier__Wire__Command c = ESPALIER__WIRE__COMMAND__INIT;
    c.verb = verb;
    c.search = search;
    dm_to_peer *r = qr_call(p, &DM_FROM_PEER(COMMAND, command, &c));
    dm_to_peer_free(&r);
}

static double query_ms(dm_peer *p, const char *what, uint64_t search)
{
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        double t0 = qr_now_s();
        free(query_json(p, what, search));
        double t = (qr_now_s() - t0) * 1000;
        best = t < best ? t : best;
    }
    return best;
}

/* A live search whose evaluations are in the tens of thousands: how long `pareto` takes while it goes on, and after its end. */
static void history_pareto(dm_peer *client, int64_t evaluations)
{
    static const char space[] = "space:\n  input: 8x8x1\n  stages:\n"
                                "    - {block: conv, width: [8, 12, 16, 24, 32, 40, 48, 56], kernel: [1, 3, 5]}\n"
                                "    - {block: conv, width: [8, 12, 16, 24, 32, 40, 48, 56], kernel: [1, 3, 5]}\n"
                                "    - {block: conv, width: [8, 12, 16, 24, 32, 40, 48, 56], kernel: [1, 3, 5]}\n"
                                "    - {block: conv, width: [8, 12, 16, 24], kernel: [1, 3]}\n  head: {classes: 10}\n";
    char text[2400], path[600], copy[2400];
    sn_search_file *file;
    es_error err;
    snprintf(text, sizeof text, "name: t\ntask: {data: {train: a, validation: 1}}\n%s", space);
    if (sn_search_file_parse("bench", text, strlen(text), NULL, &file, &err) != ES_OK)
        qr_die("the space", &err);
    snprintf(path, sizeof path, "%s/table.csv", qr_dir);
    FILE *f = fopen(path, "w");
    sr_arch *a = sr_arch_new(sn_space_choices(file->space));
    if (!f)
        qr_die(path, NULL);
    fprintf(f, "arch,valid,test\n");
    for (uint64_t i = 0; sr_arch_nth(sn_space_choices(file->space), i, a); i++) {
        char *name = sn_arch_format(file->space, a);
        es_rng r = es_rng_make(1, ES_USE_TEST, i);
        sn_cost c;
        if (sn_space_cost(file->space, a, &c, &err) != ES_OK)
            qr_die("cost", &err);
        double accuracy = 0.95 - 4 / log((double)c.params + 100) * 0.5 + 0.05 * es_rng_uniform_f64(&r);
        fprintf(f, "\"%s\",%.5f,%.5f\n", name, accuracy, accuracy - 0.01);
        free(name);
    }
    fclose(f);
    free(a);
    sn_search_file_destroy(&file);
    snprintf(copy, sizeof copy,
             "name: t\ntask: {kind: table, file: %s, architecture: arch, value: valid, report: test}\n%s"
             "search: {algorithm: random, evaluations: %" PRId64
             "}\nobjectives: [accuracy: max, macs: min, params: min]\n",
             path, space, evaluations);
    Espalier__Wire__Submit q = ESPALIER__WIRE__SUBMIT__INIT;
    q.token = dm_text("front");
    q.text = copy;
    q.user = dm_text("bench");
    dm_to_peer *reply = qr_call(client, &DM_FROM_PEER(SUBMIT, submit, &q));
    uint64_t id = reply->submitted->search;
    dm_to_peer_free(&reply);
    int64_t told = 0;
    while (told < evaluations / 2) {
        char *json = query_json(client, "show", id);
        const char *at = strstr(json, "\"evaluations\": {\"done\": ");
        if (!at && strstr(json, "\"state\": \"running\"") == NULL)
            qr_die(json, NULL);
        told = !at ? 0 : strtoll(at + strlen("\"evaluations\": {\"done\": "), NULL, 10);
        free(json);
        zmq_poll(NULL, 0, 20);
    }
    command(client, ESPALIER__WIRE__VERB__VERB_PAUSE,
            id); /* it goes on with what is under way: look-ups are in the figure */
    double live = query_ms(client, "pareto", id);
    command(client, ESPALIER__WIRE__VERB__VERB_RESUME, id);
    printf("history: pareto of a live search with %" PRId64 " evaluations, 3 objectives, %.2f ms", told, live);
    for (bool over = false; !over; zmq_poll(NULL, 0, 50)) {
        char *json = query_json(client, "show", id);
        over = strstr(json, "\"state\": \"done\"") != NULL;
        free(json);
    }
    printf("; ended, with %" PRId64 ", %.2f ms\n", evaluations, query_ms(client, "pareto", id));
}

/* Rows are written directly, as years of use would have left them. */
void qr_history(uint64_t finished, uint64_t waiting)
{
    char path[600], sql[700];
    sqlite3 *db;
    dm_peer *client = qr_connect();
    qr_enqueue(client, "first", 1);
    dm_peer_close(&client);
    qr_stop();
    snprintf(path, sizeof path, "%s/state.db", qr_dir);
    double t0 = qr_now_s();
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, dm_pagesum_vfs()) != SQLITE_OK)
        qr_die("open", NULL);
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
        qr_die(why, NULL);
    sqlite3_close(db);
    printf("history: %" PRIu64 " finished and %" PRIu64 " waiting jobs written in %.1f s\n", finished, waiting,
           qr_now_s() - t0);
    t0 = qr_now_s();
    qr_start(NULL);
    long mib;
    qr_cpu(&mib);
    printf("history: the coordinator is ready %.2f s after its start, %ld MiB\n", qr_now_s() - t0, mib);
    client = qr_connect();
    printf("history: list %.2f ms, show %.2f ms, status %.2f ms\n", query_ms(client, "list", 0),
           query_ms(client, "show", 1), query_ms(client, "status", 0));
    history_pareto(client, 100000);
    dm_peer_close(&client);
    volatile uint64_t total = 0;
    qr_worker w = {0};
    t0 = qr_now_s();
    uint64_t some = waiting < 200000 ? waiting : 200000;
    qr_worker_start(&w, 9, 512, some, &total);
    pthread_join(w.thread, NULL);
    qr_cpu(&mib);
    printf("history: leased and finished %" PRIu64 " of the waiting jobs at %.0f/s, %ld MiB\n", (uint64_t)total,
           (double)total / (qr_now_s() - t0), mib);
    dm_peer_close(&w.peer);
}
