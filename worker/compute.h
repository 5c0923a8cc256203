/* compute.h - the threads that do the work, as many as jobs may run at once, and the mailbox between them and the control thread.
 *
 *     wk_compute *c; wk_compute_start(&options, &c, err);       // opens the device first: a device that is not there is said at once
 *     wk_compute_give(c, granted);                              // a job; with one thread they are done in the order given
 *     zmq_poll(... wk_compute_fd(c) ...);                       // readable when a job ended
 *     while ((f = wk_compute_take(c))) send(f);                 // caller owns: wk_finish_free
 *     wk_compute_stop(c, job, attempt, WK_PREEMPT);             // soon: it ends with what is done so far
 *     wk_compute_end(&c);
 *
 * Every function may be called from the control thread only; none waits for work.
 */
#ifndef WK_COMPUTE_H
#define WK_COMPUTE_H

#include "worker/cache.h"
#include "worker/job.h"

typedef struct wk_compute wk_compute;

typedef struct wk_compute_options {
    kn_device *dev;        /* borrowed; used by the first compute thread alone from here on */
    const char *device;    /* its name: further threads open it for themselves */
    int lanes;             /* jobs at once; 0: 1 */
    wk_cache *cache;       /* borrowed; may be NULL */
    const dm_login *login; /* of the weights connection; borrowed */
    int sessions;
    const char *address; /* for the other ranks of a gang; borrowed */
} wk_compute_options;

typedef struct wk_finish {
    struct wk_finish *next;
    uint64_t job;
    uint32_t attempt;
    Espalier__Wire__Outcome outcome;
    dm_bytes result;
    es_error error;
    bool lost_peer; /* the wire's error_code "lost-peer" */
    char *log;
    int64_t sent_ms; /* the control thread's */
} wk_finish;
void wk_finish_free(wk_finish *f);

typedef struct wk_progress {
    uint64_t job, step, steps;
    uint32_t attempt;
    double loss, per_second;
} wk_progress;

es_status wk_compute_start(const wk_compute_options *o, wk_compute **out, es_error *err) ES_MUST_CHECK;
void wk_compute_end(wk_compute **c); /* cancels what is left and waits for the thread */
void wk_compute_data_endpoint(wk_compute *c, const char *endpoint);
void wk_compute_give(wk_compute *c, const Espalier__Wire__Granted *g);
/* Of gangs. What rank 0 wants told, at most every half second until the id has come back; false: nothing. */
bool wk_compute_offer(wk_compute *c, int64_t now_ms, uint64_t *job, uint32_t *attempt, kn_gang_id *id);
void wk_compute_gang_id(wk_compute *c, uint64_t job, uint32_t attempt, const void *id, size_t n);
int wk_compute_fd(const wk_compute *c); /* also when there is an offer */
wk_finish *wk_compute_take(wk_compute *c);
int wk_compute_jobs(wk_compute *c, wk_progress *out,
                    int max); /* running and waiting ones; returns how many there are */
bool wk_compute_stop(wk_compute *c, uint64_t job, uint32_t attempt, wk_stop how); /* whether it is there */
void wk_compute_stop_all(wk_compute *c, wk_stop how);

#endif
