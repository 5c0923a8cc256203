#include "daemon/weights/data_thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/auth/backlog.h"
#include "daemon/weights/weights.h"

enum { BATCH_MESSAGES = 64, BATCH_BYTES = 32 << 20, COLLECT_EVERY_MS = 60000, DROPS_MAX = 256, TCP_RECEIVE_HWM = 16 };

struct dm_data {
    void *router, *pair, *control; /* control: the main thread's end of the pair */
    dm_auth *auth;
    dm_limits *limits;
    dm_weights *weights;
    pthread_t thread;
    bool started;
    char endpoint[256];
    int64_t collect_at_ms, collect_grace_ms;
    _Atomic int64_t grace_ms;
    pthread_mutex_t fresh_lock; /* of what the main thread wants from now on */
    bool fresh;
    dm_limit_options fresh_limits;
    dm_quota fresh_quota;
    char dropping[DROPS_MAX][72]; /* the main thread's: ordered, not yet acknowledged */
    int dropping_n;
};

typedef struct data_message {
    zmq_msg_t from, body;
    dm_who who;
    dm_bytes reply;
} data_message;

static bool data_take(dm_data *d, data_message *m)
{
    zmq_msg_init(&m->from);
    zmq_msg_init(&m->body);
    m->reply = (dm_bytes){0};
    if (zmq_msg_recv(&m->from, d->router, ZMQ_DONTWAIT) < 0)
        return false;
    while (zmq_msg_more(&m->from)) { /* the last frame is the request */
        int n = zmq_msg_recv(&m->body, d->router, 0);
        dm_backlog_taken(&m->body);
        if (n < 0 || !zmq_msg_more(&m->body))
            break;
    }
    return true;
}

static void data_close(data_message *m)
{
    free(m->reply.data);
    zmq_msg_close(&m->from);
    zmq_msg_close(&m->body);
}

static void data_give(dm_data *d, data_message *m)
{
    if (m->reply.data) /* dropped when the peer reads too slowly: it asks again */
        dm_limits_send(d->limits, d->router, zmq_msg_data(&m->from), zmq_msg_size(&m->from), m->reply.data, m->reply.n);
    data_close(m);
}

static bool data_within(dm_data *d, data_message *m)
{
    es_error why, err;
    int64_t now = es_clock_mono_ms(es_clock_system());
    const void *id = zmq_msg_data(&m->from), *body = zmq_msg_data(&m->body);
    size_t id_n = zmq_msg_size(&m->from), n = zmq_msg_size(&m->body);
    dm_verdict v = dm_limits_take(d->limits, id, id_n, &m->who, n, now, &why);
    dm_bytes reply;
    if (v == DM_TELL && dm_weights_refusal(body, n, &why, &reply, &err) == ES_OK) {
        dm_limits_send(d->limits, d->router, id, id_n, reply.data, reply.n);
        free(reply.data);
    }
    return v == DM_PASS;
}

static es_status data_answer_all(dm_data *d, data_message *batch, int n, es_error *err)
{
    int64_t now = es_clock_steady_ms();
    ES_RETURN(dm_weights_begin(d->weights, err));
    for (int i = 0; i < n; i++)
        ES_RETURN(dm_weights_answer_as(d->weights, &batch[i].who, zmq_msg_data(&batch[i].body),
                                       zmq_msg_size(&batch[i].body), now, &batch[i].reply, err));
    return dm_weights_commit(d->weights, err);
}

static void data_batch(dm_data *d)
{
    data_message batch[BATCH_MESSAGES + 1];
    es_error err, second;
    size_t bytes = 0;
    int n = 0;
    for (int taken = 0; taken < BATCH_MESSAGES && bytes < BATCH_BYTES && data_take(d, &batch[n]); taken++) {
        if (dm_auth_who(d->auth, &batch[n].body, &batch[n].who) && data_within(d, &batch[n]))
            bytes += zmq_msg_size(&batch[n++].body);
        else
            data_close(&batch[n]);
    }
    if (n == 0)
        return;
    es_status s = data_answer_all(d, batch, n, &err);
    if (s != ES_OK) { /* nothing of it is on disk: say so to each */
        dm_weights_rollback(d->weights);
        es_log_error(ES_LOG_ERROR, "weights", &err);
        for (int i = 0; i < n; i++) {
            free(batch[i].reply.data);
            batch[i].reply = (dm_bytes){0};
            if (dm_weights_refusal(zmq_msg_data(&batch[i].body), zmq_msg_size(&batch[i].body), &err, &batch[i].reply,
                                   &second) != ES_OK)
                batch[i].reply = (dm_bytes){0};
        }
    }
    for (int i = 0; i < n; i++)
        data_give(d, &batch[i]);
}

static void data_collect(dm_data *d)
{
    es_error err;
    int64_t now = es_clock_steady_ms(), mono = es_clock_mono_ms(es_clock_system());
    int64_t collected = 0, left = 0, grace = atomic_load(&d->grace_ms);
    if (mono < d->collect_at_ms && grace == d->collect_grace_ms)
        return;
    d->collect_grace_ms = grace;
    es_status s = dm_weights_begin(d->weights, &err);
    if (s == ES_OK)
        s = dm_weights_collect(d->weights, now - grace, &collected, &err);
    if (s == ES_OK)
        s = dm_weights_commit(d->weights, &err);
    if (s == ES_OK && !collected)
        s = dm_weights_shrink(d->weights, &left, &err);
    if (s != ES_OK) {
        dm_weights_rollback(d->weights);
        es_log_error(ES_LOG_WARN, "collecting unused weights", &err);
    }
    int64_t every = grace / 4 > COLLECT_EVERY_MS ? COLLECT_EVERY_MS : grace / 4;
    d->collect_at_ms = mono + (collected || left ? 50 : every);
}

/* Returns false when the main thread says that it is over. */
static bool data_orders(dm_data *d)
{
    char hex[128];
    es_error err;
    int n;
    while ((n = zmq_recv(d->pair, hex, sizeof hex - 1, ZMQ_DONTWAIT)) >= 0) {
        if (n == 0)
            return false;
        hex[n < (int)sizeof hex ? n : (int)sizeof hex - 1] = 0;
        int64_t now = es_clock_steady_ms();
        es_status s = dm_weights_begin(d->weights, &err);
        if (s == ES_OK)
            s = dm_weights_drop(d->weights, hex, now - atomic_load(&d->grace_ms), now, &err);
        if (s == ES_OK)
            s = dm_weights_commit(d->weights, &err);
        if (s != ES_OK) { /* it stays: costs room, harms nothing */
            dm_weights_rollback(d->weights);
            es_log_error(ES_LOG_WARN, "dropping a weights version", &err);
        }
        zmq_send(d->pair, hex, strlen(hex), ZMQ_DONTWAIT); /* fits: there are never more than DROPS_MAX under way */
    }
    return true;
}

void dm_data_set_limits(dm_data *d, const dm_limit_options *limits, const dm_quota *quota)
{
    pthread_mutex_lock(&d->fresh_lock);
    d->fresh_limits = *limits;
    d->fresh_quota = *quota;
    d->fresh = true;
    pthread_mutex_unlock(&d->fresh_lock);
}

static void data_renew(dm_data *d)
{
    pthread_mutex_lock(&d->fresh_lock);
    if (d->fresh) {
        dm_limits_set(d->limits, &d->fresh_limits);
        dm_weights_set_quota(d->weights, &d->fresh_quota);
        d->fresh = false;
    }
    pthread_mutex_unlock(&d->fresh_lock);
}

static void *data_main(void *ctx)
{
    dm_data *d = ctx;
    bool on = true;
    while (on) {
        zmq_pollitem_t items[] = {{.socket = d->router, .events = ZMQ_POLLIN},
                                  {.socket = d->pair, .events = ZMQ_POLLIN}};
        int64_t due = d->collect_at_ms - es_clock_mono_ms(es_clock_system());
        if (zmq_poll(items, 2, due < 10 ? 10 : due > 1000 ? 1000 : (long)due) < 0 && errno == ETERM)
            break;
        on = data_orders(d);
        data_renew(d);
        data_batch(d);
        data_collect(d);
    }
    return NULL;
}

es_status dm_data_start(const dm_data_options *o, dm_data **out, es_error *err)
{
    dm_data *d = *out = es_xcalloc(1, sizeof *d);
    es_status s = ES_OK;
    bool tcp = strncmp(o->endpoint, "tcp://", 6) == 0;
    int send_hwm = 1000, receive_hwm = tcp ? TCP_RECEIVE_HWM : 1000, linger = 0, yes = 1;
    int64_t max = DM_DATA_MAX;
    void *zmq = o->zmq;
    const char *endpoint = o->endpoint;
    d->grace_ms = 600000;
    pthread_mutex_init(&d->fresh_lock, NULL);
    d->auth = o->auth;
    d->limits = dm_limits_new(&o->limits);
    ES_GOTO(dm_weights_open(o->path, &d->weights, err));
    dm_weights_set_quota(d->weights, &o->quota);
    d->router = zmq_socket(zmq, ZMQ_ROUTER);
    d->pair = zmq_socket(zmq, ZMQ_PAIR);
    d->control = zmq_socket(zmq, ZMQ_PAIR);
    if (!d->router || !d->pair || !d->control) {
        s = es_fail(err, ES_IO, endpoint, "no more sockets: %s", zmq_strerror(errno));
        goto fail;
    }
    zmq_setsockopt(d->router, ZMQ_SNDHWM, &send_hwm, sizeof send_hwm);
    zmq_setsockopt(d->router, ZMQ_RCVHWM, &receive_hwm, sizeof receive_hwm);
    zmq_setsockopt(d->router, ZMQ_ROUTER_MANDATORY, &yes, sizeof yes);
    zmq_setsockopt(d->router, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(d->control, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(d->router, ZMQ_MAXMSGSIZE, &max, sizeof max);
    ES_GOTO(dm_auth_bind(d->auth, d->router, "data", endpoint, d->endpoint, err));
    if (zmq_bind(d->pair, "inproc://data-orders") != 0 || zmq_connect(d->control, "inproc://data-orders") != 0) {
        s = es_fail(err, ES_IO, "inproc", "%s", zmq_strerror(errno));
        goto fail;
    }
    if (pthread_create(&d->thread, NULL, data_main, d) != 0) {
        s = es_fail(err, ES_NO_MEMORY, NULL, "no more threads");
        goto fail;
    }
    d->started = true;
    return ES_OK;
fail:
    dm_data_stop(out);
    return s;
}

const char *dm_data_endpoint(const dm_data *d) { return d->endpoint; }

void dm_data_set_grace(dm_data *d, int64_t ms) { atomic_store(&d->grace_ms, ms); }

/* Forgets what the thread says is done. */
static void data_acknowledged(dm_data *d)
{
    char hex[72];
    int n;
    while (d->dropping_n > 0 && (n = zmq_recv(d->control, hex, sizeof hex - 1, ZMQ_DONTWAIT)) >= 0) {
        hex[n < (int)sizeof hex ? n : (int)sizeof hex - 1] = 0;
        for (int i = 0; i < d->dropping_n; i++)
            if (strcmp(d->dropping[i], hex) == 0) {
                memcpy(d->dropping[i], d->dropping[--d->dropping_n], sizeof hex);
                break;
            }
    }
}

bool dm_data_dropping(dm_data *d, const char *hex)
{
    data_acknowledged(d);
    for (int i = 0; i < d->dropping_n; i++)
        if (strcmp(d->dropping[i], hex) == 0)
            return true;
    return false;
}

bool dm_data_drop(dm_data *d, const char *hex)
{
    if (dm_data_dropping(d, hex))
        return true;
    if (d->dropping_n == DROPS_MAX || zmq_send(d->control, hex, strlen(hex), ZMQ_DONTWAIT) < 0)
        return false;
    snprintf(d->dropping[d->dropping_n++], sizeof d->dropping[0], "%s", hex);
    return true;
}

void dm_data_stop(dm_data **pd)
{
    dm_data *d = *pd;
    if (!d)
        return;
    if (d->started) {
        zmq_send(d->control, "", 0, 0);
        pthread_join(d->thread, NULL);
    }
    if (d->router)
        zmq_close(d->router);
    if (d->pair)
        zmq_close(d->pair);
    if (d->control)
        zmq_close(d->control);
    dm_weights_close(&d->weights);
    dm_limits_free(&d->limits);
    pthread_mutex_destroy(&d->fresh_lock);
    free(d);
    *pd = NULL;
}
