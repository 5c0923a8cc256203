/* queue_rig.h - a real espalierd, its clients and workers of zero-work jobs, for the queue's benchmarks.
 *
 *     qr_begin(); qr_start(NULL);                        // in a new folder under the current one, which is on the disk to be measured
 *     dm_peer *client = qr_connect(); qr_enqueue(client, "token", 1000);
 *     qr_worker w = {0}; qr_worker_start(&w, 1, 64, 1000, &total); pthread_join(w.thread, NULL);
 *     qr_stop(); qr_end();
 *
 * Whatever goes wrong ends the program, and the coordinator with it.
 */
#ifndef TESTS_BENCH_QUEUE_RIG_H
#define TESTS_BENCH_QUEUE_RIG_H

#include <pthread.h>
#include <sys/types.h>

#include "daemon/wire/peer.h"

extern char qr_dir[512], qr_control[600];
extern pid_t qr_pid;

typedef struct qr_worker {
    dm_peer *peer;
    uint8_t uid[16];
    uint32_t slots;
    uint64_t finished, target;
    volatile uint64_t *total;
    double *leased_at; /* latency: when each lease came, by job */
    uint64_t leased_max;
    pthread_t thread;
} qr_worker;

void qr_die(const char *what, const es_error *err);
double qr_now_s(void);
void qr_start(const char *endpoint); /* NULL: ipc in the folder */
void qr_stop(void);
double qr_cpu(long *resident_mib); /* seconds of processor time the coordinator has used, and its resident memory */
void qr_login(dm_login *login);    /* over tcp: the admin's key that the coordinator made */
dm_peer *qr_connect(void);
dm_to_peer *qr_call(dm_peer *p, dm_from_peer *m);
void qr_enqueue(dm_peer *p, const char *token, uint64_t count);

void qr_worker_hello(qr_worker *w, int number);
void qr_worker_want(qr_worker *w, uint32_t n);
void qr_worker_finish(qr_worker *w, const Espalier__Wire__LeaseBatch *b);
/* A thread that finishes jobs as soon as they come, until `total` of all workers is `target`. */
void qr_worker_start(qr_worker *w, int number, uint32_t slots, uint64_t target, volatile uint64_t *total);

/* bench_queue.c's larger measurements. */
void qr_crowd(int workers, double seconds);
void qr_history(uint64_t finished, uint64_t waiting);
void qr_trials(uint64_t trials, int slots, int hold_ms);

#endif
