#include "daemon/coord/coord.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "daemon/coord/fair.h"
#include "daemon/coord/finish.h"
#include "daemon/coord/gang.h"
#include "daemon/coord/metrics.h"
#include "daemon/coord/preempt.h"
#include "daemon/coord/query.h"
#include "daemon/coord/retain.h"
#include "daemon/coord/retry.h"
#include "daemon/coord/sched.h"
#include "daemon/coord/search.h"
#include "daemon/coord/turn.h"
#include "daemon/coord/worker.h"

enum { RETRY_MS = 1000, IDLE_MS = 1000, NOISE_LOG_MS = 10000, PRUNE_EVERY_MS = 60000 };

dm_options dm_options_default(void)
{
    return (dm_options){.heartbeat_ms = 5000,
                        .lease_ms = 30000,
                        .failures_max = 3,
                        .losses_max = 3,
                        .drain_after = 3,
                        .backoff_ms = 1000,
                        .backoff_max_ms = 60000,
                        .hold_ms = 300000,
                        .events_kept = 1000000,
                        .client_priority_max = 100,
                        .searches_per_user = 1000,
                        .queued_bytes_per_user = 64 << 20,
                        .retain = {.checkpoints = 1,
                                   .failed_days = 30,
                                   .final_days = 90,
                                   .final_searches = 100,
                                   .worker_days = 30,
                                   .every_ms = 60000}};
}

static void coord_read_clock(dm_coord *c)
{
    c->now_ms = es_clock_mono_ms(c->env.clock);
    c->wall_ms = es_clock_wall_ms(c->env.clock);
}

/* Everything in memory is made of rows, here and only here: at the start and after a failed turn. */
static es_status coord_load(dm_coord *c, es_error *err)
{
    ES_RETURN(dm_coord_enter(c, err)); /* drivers may create jobs while they are read */
    coord_read_clock(c);
    c->expire_at_ms = c->now_ms;
    c->prune_at_ms = c->now_ms + PRUNE_EVERY_MS;
    c->sched_at_ms = INT64_MAX;
    c->retain_at_ms = c->now_ms;
    c->retain_cursor = 0;
    c->dirty = c->sweeping = true;
    ES_RETURN(dm_event_last(c->store, &c->event_id, err));
    ES_RETURN(dm_searches_load(c, err));
    ES_RETURN(dm_leases_load(c, err));
    dm_fair_loaded(c);
    c->loaded_ms = c->now_ms;
    c->loaded = true;
    return ES_OK;
}

static void coord_unload(dm_coord *c)
{
    c->retries_n = 0;
    dm_workers_free(c);
    dm_searches_free(c);
}

void dm_coord_set_options(dm_coord *c, const dm_options *o)
{
    c->o = *o;
    snprintf(c->state_path, sizeof c->state_path, "%s", o->state_path);
    snprintf(c->data_endpoint, sizeof c->data_endpoint, "%s", o->data_endpoint ? o->data_endpoint : "");
    c->o.state_path = c->state_path;
    c->o.data_endpoint = c->data_endpoint;
}

es_status dm_coord_open(const dm_options *o, const dm_env *env, dm_coord **out, es_error *err)
{
    dm_coord *c = es_xcalloc(1, sizeof *c);
    es_status s = ES_OK;
    *out = NULL;
    dm_coord_set_options(c, o);
    c->env = *env;
    c->started_ms = es_clock_mono_ms(env->clock);
    c->rng = es_rng_make(env->seed, ES_USE_BACKOFF, 0);
    ES_GOTO(dm_store_open(c->state_path, env->vfs, &c->store, err));
    ES_GOTO(coord_load(c, err));
    *out = c;
    return ES_OK;
fail:
    dm_coord_close(&c);
    return s;
}

void dm_coord_close(dm_coord **pc)
{
    dm_coord *c = *pc;
    if (!c)
        return;
    coord_unload(c);
    dm_coord_drop_output(c);
    if (c->store)
        dm_store_rollback(c->store);
    dm_store_close(&c->store);
    es_map_free(&c->workers);
    es_map_free(&c->worker_uids);
    es_map_free(&c->leases);
    free(c->searches);
    free(c->out);
    free(c->notices);
    free(c->dropped);
    free(c);
    *pc = NULL;
}

dm_store *dm_coord_store(dm_coord *c) { return c->store; }
bool dm_coord_shutdown_asked(const dm_coord *c) { return c->shutdown; }

es_status dm_coord_health(const dm_coord *c, es_error *err)
{
    if (c->health != ES_OK && err)
        *err = c->health_err;
    return c->health;
}

/* ---- messages in */

static es_status coord_dispatch(dm_coord *c, const dm_addr *from, const dm_from_peer *m, es_error *err)
{
    uint64_t id = m->request_id;
    switch (m->what_case) {
    case ESPALIER__WIRE__FROM_PEER__WHAT_HELLO: return dm_on_hello(c, from, id, m->hello, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_WANT: return dm_on_want(c, from, id, m->want, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_HEARTBEAT: return dm_on_heartbeat(c, from, id, m->heartbeat, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_FINISH: return dm_on_finish(c, from, id, m->finish, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_GOODBYE: return dm_on_goodbye(c, from, id, m->goodbye, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_GANG_OFFER: return dm_on_gang_offer(c, from, id, m->gang_offer, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_SUBMIT: return dm_on_submit(c, from, id, m->submit, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND: return dm_on_command(c, from, id, m->command, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_QUERY: return dm_on_query(c, from, id, m->query, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_ENQUEUE_NOOP: return dm_on_noops(c, from, id, m->enqueue_noop, err);
    case ESPALIER__WIRE__FROM_PEER__WHAT__NOT_SET:
    case _ESPALIER__WIRE__FROM_PEER__WHAT__CASE_IS_INT_SIZE: break;
    }
    es_error why;
    es_fail(&why, ES_UNSUPPORTED, NULL, "this coordinator does not know that request");
    return dm_coord_refused(c, from, id, &why);
}

static const ProtobufCBinaryData *worker_uid(const dm_from_peer *m)
{
    switch (m->what_case) {
    case ESPALIER__WIRE__FROM_PEER__WHAT_HELLO: return &m->hello->worker_uid;
    case ESPALIER__WIRE__FROM_PEER__WHAT_WANT: return &m->want->worker_uid;
    case ESPALIER__WIRE__FROM_PEER__WHAT_HEARTBEAT: return &m->heartbeat->worker_uid;
    case ESPALIER__WIRE__FROM_PEER__WHAT_FINISH: return &m->finish->worker_uid;
    case ESPALIER__WIRE__FROM_PEER__WHAT_GOODBYE: return &m->goodbye->worker_uid;
    case ESPALIER__WIRE__FROM_PEER__WHAT_GANG_OFFER: return &m->gang_offer->worker_uid;
    case ESPALIER__WIRE__FROM_PEER__WHAT_SUBMIT:
    case ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND:
    case ESPALIER__WIRE__FROM_PEER__WHAT_QUERY:
    case ESPALIER__WIRE__FROM_PEER__WHAT_ENQUEUE_NOOP:
    case ESPALIER__WIRE__FROM_PEER__WHAT__NOT_SET:
    case _ESPALIER__WIRE__FROM_PEER__WHAT__CASE_IS_INT_SIZE: break;
    }
    return NULL;
}

/* A worker is (uid, key): with another key the same uid names another worker, so that knowing a worker's uid is no way to take its leases or to
 * hand results in for it, before and after a restart alike. Over ipc the uid stands alone. */
static void bind_worker(const dm_who *who, const dm_from_peer *m)
{
    const ProtobufCBinaryData *uid = worker_uid(m);
    char both[16 + DM_KEY_NAME_MAX] = "";
    es_hash h;
    if (who->local || !uid || uid->len != 16)
        return;
    memcpy(both, uid->data, 16);
    snprintf(both + 16, DM_KEY_NAME_MAX, "%s", who->name);
    es_hash_bytes(both, sizeof both, &h);
    memcpy(uid->data, h.b, 16);
}

void dm_coord_deliver(dm_coord *c, const dm_addr *from, const void *bytes, size_t n)
{
    dm_who local = dm_who_local();
    dm_coord_deliver_as(c, from, &local, bytes, n);
}

void dm_coord_deliver_as(dm_coord *c, const dm_addr *from, const dm_who *who, const void *bytes, size_t n)
{
    ProtobufCMessage *base = NULL;
    es_error why;
    c->messages++;
    if (c->requests_n == 0)
        coord_read_clock(c);
    if (dm_decode(&espalier__wire__from_peer__descriptor, bytes, n, &base, &why) != ES_OK) {
        if (c->noise++ == 0 || c->now_ms - c->noise_ms >= NOISE_LOG_MS) { /* a peer cannot fill the log */
            c->noise_ms = c->now_ms;
            es_log(ES_LOG_WARN, "%s sends what is no message: %s (%" PRIu64 " so far)",
                   who->local ? "a local peer" : who->name, why.text, c->noise);
        }
        dm_coord_refuse(c, from, 0, &why);
        return;
    }
    const dm_from_peer *m = (const dm_from_peer *)base;
    if (!c->loaded) {
        dm_coord_refuse(c, from, m->request_id, &c->health_err);
        dm_message_free(&base);
        return;
    }
    ES_ASSERT(c->requests_n < DM_TURN_MESSAGES);
    c->requests[c->requests_n++] = (dm_request){.from = *from, .id = m->request_id};
    if (m->version != DM_WIRE_VERSION) {
        es_fail(&why, ES_VERSION, NULL,
                "this peer speaks protocol %u, the coordinator protocol %d: use programs of the same release",
                m->version, DM_WIRE_VERSION);
        dm_coord_refuse(c, from, m->request_id, &why);
    } else if (dm_role_may(who, m, &why) != ES_OK) {
        dm_coord_refuse(c, from, m->request_id, &why);
    } else if (c->turn == ES_OK) {
        bind_worker(who, m);
        c->who = *who;
        c->turn = dm_coord_enter(c, &c->turn_err);
        if (c->turn == ES_OK)
            c->turn = coord_dispatch(c, from, m, &c->turn_err);
    }
    dm_message_free(&base);
}

/* ---- the end of a turn */

/* Takes the turn back: its requests get the cause, memory is made again from the rows. */
static void coord_failed_turn(dm_coord *c)
{
    es_error why = c->turn_err;
    why.code = c->turn;
    c->failed_turns++;
    if (c->health != c->turn)
        es_log_error(ES_LOG_ERROR, "nothing is acknowledged until this is over", &why);
    c->health = c->turn;
    c->health_err = why;
    dm_coord_drop_output(c);
    dm_retries_refuse(c, &why);
    coord_unload(c);
    dm_store_rollback(c->store);
    for (int i = 0; i < c->requests_n; i++)
        if (c->requests[i].id != 0)
            dm_coord_refuse(c, &c->requests[i].from, c->requests[i].id, &why);
    dm_coord_flush(c);
    c->retry_ms = c->now_ms + RETRY_MS;
    c->loaded = false;
    c->turn = ES_OK;
}

static es_status coord_work(dm_coord *c, es_error *err)
{
    ES_RETURN(dm_coord_enter(c, err));
    if (c->now_ms >= c->expire_at_ms) {
        ES_RETURN(dm_workers_expire(c, err));
        int every = c->o.lease_ms / 8;
        c->expire_at_ms = c->now_ms + (every < 10 ? 10 : every > 1000 ? 1000 : every);
    }
    if (c->now_ms >= c->prune_at_ms) {
        ES_RETURN(dm_event_prune(c->store, c->o.events_kept, err));
        ES_RETURN(dm_retain_workers(c, err));
        c->prune_at_ms = c->now_ms + PRUNE_EVERY_MS;
    }
    ES_RETURN(dm_retain_turn(c, err));
    dm_fair_fade(c);
    ES_RETURN(dm_retry_turn(c, err));
    ES_RETURN(dm_searches_work(c, err));
    ES_RETURN(dm_sched_run(c, err));
    ES_RETURN(dm_sched_preempt(c, err));
    ES_RETURN(dm_fair_keep(c, err));
    int64_t t0 = es_clock_mono_ns(c->env.clock);
    ES_RETURN(dm_store_commit(c->store, err));
    dm_count_commit(c, es_clock_mono_ns(c->env.clock) - t0);
    return ES_OK;
}

static int coord_next_ms(const dm_coord *c)
{
    int64_t next = c->now_ms + IDLE_MS;
    if (c->expire_at_ms < next)
        next = c->expire_at_ms;
    if (c->sched_at_ms < next)
        next = c->sched_at_ms;
    if (c->retain_at_ms < next)
        next = c->retain_at_ms;
    for (int i = 0; i < c->searches_n; i++) {
        const dm_search *s = c->searches[i];
        if (s->busy)
            return 0;
        if (dm_sched_due(s)) /* due, and nobody wants it: a worker's message will end the wait */
            continue;
        if (s->due_ms - c->wall_ms < next - c->now_ms)
            next = c->now_ms + (s->due_ms > c->wall_ms ? s->due_ms - c->wall_ms : 0);
    }
    if (c->sweeping || c->retries_n > 0)
        return 0;
    return next > c->now_ms ? (int)(next - c->now_ms) : 0;
}

int dm_coord_turn(dm_coord *c)
{
    coord_read_clock(c);
    c->turns++;
    if (!c->loaded && c->now_ms < c->retry_ms) { /* waiting out a failure: only refusals leave */
        dm_coord_flush(c);
        return (int)(c->retry_ms - c->now_ms);
    }
    if (c->turn == ES_OK && !c->loaded)
        c->turn = coord_load(c, &c->turn_err);
    if (c->turn == ES_OK)
        c->turn = coord_work(c, &c->turn_err);
    if (c->turn != ES_OK)
        coord_failed_turn(c);
    else if (c->health != ES_OK)
        es_log(ES_LOG_INFO, "writing works again");
    c->requests_n = 0;
    if (!c->loaded)
        return RETRY_MS;
    c->health = ES_OK;
    dm_coord_flush(c);
    return coord_next_ms(c);
}
