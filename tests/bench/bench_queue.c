/* bench_queue.c - what the coordinator can carry: the real espalierd, real sockets, every job durable (synchronous=FULL).
 *
 *     bench_queue throughput [jobs] [workers] [endpoint]     jobs of zero work, from enqueue to finished; tcp://127.0.0.1:PORT: with keys
 *     bench_queue latency [seconds] [per second]             submit to lease, percentiles
 *     bench_queue crowd [workers] [seconds] [endpoint]       idle connected workers with heartbeats every 5 s: the coordinator's share of a core
 *     bench_queue history [finished] [waiting]               leasing, list, show and pareto on a database that large
 *     bench_queue trials [trials] [slots] [ms]               trials that take so long, on so many slots: the time over the ideal
 *
 * The database lives in a new folder under the current one, which should be on the disk to be measured.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zmq.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "tests/bench/queue_rig.h"

static void throughput(uint64_t jobs, int workers)
{
    enum { AT_ONCE = 10000 };
    volatile uint64_t total = 0;
    qr_worker *w = es_xcalloc((size_t)workers, sizeof *w);
    dm_peer *client = qr_connect();
    double t0 = qr_now_s(), cpu0 = qr_cpu(NULL);
    for (int i = 0; i < workers; i++)
        qr_worker_start(&w[i], i + 1, 512, jobs, &total);
    for (uint64_t sent = 0, k = 0; sent < jobs; k++) {
        char token[32];
        uint64_t n = jobs - sent < AT_ONCE ? jobs - sent : AT_ONCE;
        snprintf(token, sizeof token, "t%" PRIu64, k);
        qr_enqueue(client, token, n);
        sent += n;
    }
    double enqueued = qr_now_s() - t0;
    for (int i = 0; i < workers; i++)
        pthread_join(w[i].thread, NULL);
    double t = qr_now_s() - t0;
    long mib;
    double cpu = qr_cpu(&mib) - cpu0;
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
    qr_worker w = {0};
    dm_peer *client = qr_connect();
    double *sent = es_xcalloc(n + 2, sizeof *sent), *wait = es_xcalloc(n + 2, sizeof *wait);
    es_error err;
    w.leased_at = es_xcalloc(n + 2, sizeof *w.leased_at);
    w.leased_max = n + 2;
    qr_worker_start(&w, 1, 64, n, &total);
    double t0 = qr_now_s();
    for (uint64_t i = 1; i <= n; i++) { /* job ids count from 1 */
        Espalier__Wire__EnqueueNoop e = ESPALIER__WIRE__ENQUEUE_NOOP__INIT;
        char token[32];
        double due = t0 + (double)i / per_second;
        while (qr_now_s() < due) { /* answers are read meanwhile */
            dm_to_peer *r;
            int ms = (int)((due - qr_now_s()) * 1000);
            if (dm_peer_recv(client, ms > 0 ? ms : 0, &r, &err) == ES_OK)
                dm_to_peer_free(&r);
        }
        snprintf(token, sizeof token, "l%" PRIu64, i);
        e.token = token;
        e.count = 1;
        dm_from_peer m = DM_FROM_PEER(ENQUEUE_NOOP, enqueue_noop, &e);
        m.request_id = dm_peer_next_id(client);
        sent[i] = qr_now_s();
        if (dm_peer_send(client, &m, &err) != ES_OK)
            qr_die("submit", &err);
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
    snprintf(qr_dir, sizeof qr_dir, "%s/queue.XXXXXX", cwd);
    if (!mkdtemp(qr_dir))
        qr_die("no folder", NULL);
    qr_start(strcmp(what, "trials") != 0 && argc > 4 ? argv[4] : NULL);
    if (strcmp(what, "throughput") == 0)
        throughput(argument(argc, argv, 2, 200000), (int)argument(argc, argv, 3, 1));
    else if (strcmp(what, "latency") == 0)
        latency((double)argument(argc, argv, 2, 10), (double)argument(argc, argv, 3, 1000));
    else if (strcmp(what, "crowd") == 0)
        qr_crowd((int)argument(argc, argv, 2, 10000), (double)argument(argc, argv, 3, 15));
    else if (strcmp(what, "history") == 0)
        qr_history(argument(argc, argv, 2, 10000000), argument(argc, argv, 3, 1000000));
    else if (strcmp(what, "trials") == 0)
        qr_trials(argument(argc, argv, 2, 10000), (int)argument(argc, argv, 3, 16), (int)argument(argc, argv, 4, 100));
    qr_stop();
    return es_file_remove_tree(qr_dir, &err) == ES_OK ? 0 : 1;
}
