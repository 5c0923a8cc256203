/* worker.h - espalier-worker as a library: connect, ask for work, do it, hand it in, until told to stop.
 *
 *     wk_options o = wk_options_default(); o.endpoint = "tcp://head:5700";
 *     s = wk_run(&o, stop_fd, err);
 *
 * Two threads, or more with several slots. The control thread (control.c) owns the connection to the coordinator and never computes: heartbeats leave in time whatever a job does. The
 * compute thread (compute.c) owns the device and the weights connection. Between the two: a mailbox.
 *
 * A result is offered until the coordinator says accepted or stale, through any number of its deaths. SIGTERM or SIGINT: the running job stops at its next step,
 * hands back what it has, and the worker leaves with a Goodbye (exit 0); a second signal, WK_DRAIN_MS without a coordinator,
 * or WK_DRAIN_GREETED_MS more with one end it at once.
 */
#ifndef WK_WORKER_H
#define WK_WORKER_H

#include "base/status.h"

enum { WK_DRAIN_MS = 5000, WK_DRAIN_GREETED_MS = 45000 };

typedef struct wk_options {
    const char *endpoint;
    const char *key, *server_key; /* files; NULL: where daemon/wire/keys.h looks */
    bool insecure;                /* tcp in clear */
    const char *device;           /* kn_device_open */
    const char *name;             /* NULL: host:pid:device */
    const char *cache;            /* directory for weights chunks; NULL: none */
    uint64_t cache_bytes;
    /* Numeric, where the other ranks of a gang reach this worker; NULL: of the way to the coordinator. */
    const char *address;
    int slots;    /* jobs run at once on the device, side by side */
    int sessions; /* searches whose trainer stays in memory */
} wk_options;

wk_options wk_options_default(void);

/* Returns ES_OK after a clean stop. `stop`: an eventfd, written to once when the worker shall stop, twice when at once. */
es_status wk_run(const wk_options *o, int stop, es_error *err) ES_MUST_CHECK;

#endif
