#include "daemon/coord/gang.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/coord/failure.h"
#include "daemon/coord/turn.h"
#include "daemon/coord/worker.h"
#include "supernet/searchfile/searchfile.h"

enum { BROKEN_MAX = 8 }; /* then each further time is a failed attempt */

int dm_gang_size(const dm_search *s, int kind)
{
    return kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET && s->file && s->file->gpus > 1 ? s->file->gpus : 1;
}

static dm_gang *gang_new(int size)
{
    dm_gang *g = es_xcalloc(1, sizeof *g + (size_t)size * sizeof g->rank[0]);
    g->size = size;
    return g;
}

static dm_lease *gang_link(dm_coord *c, dm_search *s, dm_gang *g, dm_worker *w, int rank, const dm_ready *r,
                           int64_t attempt)
{
    dm_lease *l = dm_lease_link(c, s, w, r, attempt);
    l->rank = rank;
    l->gang = g;
    g->rank[rank] = l;
    g->left++;
    return l;
}

/* The map has the lowest rank that is held. */
static void gang_map(dm_coord *c, dm_gang *g)
{
    for (int i = 0; i < g->size; i++)
        if (g->rank[i]) {
            es_map_put(&c->leases, (uint64_t)g->rank[i]->job, g->rank[i]);
            return;
        }
}

es_status dm_gang_add(dm_coord *c, dm_search *s, dm_worker **w, int size, const dm_ready *r, int64_t attempt,
                      dm_lease **rank0, es_error *err)
{
    dm_gang *g = gang_new(size);
    for (int i = 0; i < size; i++)
        gang_link(c, s, g, w[i], i, r, attempt);
    gang_map(c, g);
    *rank0 = g->rank[0];
    for (int i = 0; i < size; i++)
        ES_RETURN(dm_gang_insert(
            c->store, &(dm_gang_row){.job = r->id, .attempt = attempt, .worker = w[i]->id, .rank = i, .size = size},
            err));
    return ES_OK;
}

void dm_gang_drop(dm_coord *c, dm_gang *g)
{
    for (int i = 0; i < g->size; i++) {
        dm_lease *l = g->rank[i];
        if (!l)
            continue;
        if (i > 0) {
            l->worker->left_job = l->job;
            l->worker->left_attempt = l->attempt;
        }
        dm_lease_unlink(c, l);
    }
    free(g);
}

/* ---- after a restart */

typedef struct gang_rows {
    dm_gang_row *rows;
    int n;
    uint8_t id[DM_GANG_ID_MAX];
    size_t id_n;
} gang_rows;

static bool gang_row(void *ctx, const dm_gang_row *r, const void *id, size_t n)
{
    gang_rows *x = ctx;
    x->rows = es_xrealloc(x->rows, (size_t)(x->n + 1) * sizeof *x->rows);
    x->rows[x->n++] = *r;
    if (r->rank == 0 && id && n <= sizeof x->id) {
        memcpy(x->id, id, n);
        x->id_n = n;
    }
    return true;
}

/* Every rank has a whole lease time to be heard again; one that is not takes the attempt with it. */
es_status dm_gang_load(dm_coord *c, dm_search *s, const dm_ready *r, int64_t leased_ms, bool *found, es_error *err)
{
    gang_rows x = {0};
    int64_t attempt = r->attempt;
    dm_gang *g = NULL;
    es_status status = dm_gang_each(c->store, r->id, attempt, gang_row, &x, err);
    for (int i = 0; i < x.n && status == ES_OK; i++) {
        const dm_gang_row *row = &x.rows[i];
        if (row->size != x.rows[0].size || row->rank < 0 || row->rank >= row->size) {
            status = es_fail(err, ES_CORRUPT, c->state_path, "job %" PRId64 " has rank %d in a gang of %d", r->id,
                             row->rank, row->size);
            break;
        }
        dm_worker *w = dm_worker_load(c, r->id, row->worker, &status, err);
        if (!w)
            break;
        if (!g)
            g = gang_new(row->size);
        gang_link(c, s, g, w, row->rank, r, attempt)->leased_ms = leased_ms;
    }
    if (g) {
        g->broken = !g->rank[0]; /* its result cannot come any more */
        g->id_n = (int)x.id_n;
        memcpy(g->id, x.id, x.id_n);
        gang_map(c, g);
    }
    *found = x.n > 0;
    free(x.rows);
    return status;
}

/* ---- the id */

void dm_gang_send_id(dm_coord *c, const dm_lease *l)
{
    if (!l->gang || l->gang->id_n == 0 || l->gang->broken || !l->worker->online)
        return;
    Espalier__Wire__GangId g = ESPALIER__WIRE__GANG_ID__INIT;
    dm_lease_id id = ESPALIER__WIRE__LEASE__INIT;
    id.job = (uint64_t)l->job;
    id.attempt = (uint32_t)l->attempt;
    g.lease = &id;
    g.id = (ProtobufCBinaryData){.len = (size_t)l->gang->id_n, .data = l->gang->id};
    dm_coord_reply(c, &l->worker->addr, 0, &DM_TO_PEER(GANG_ID, gang_id, &g));
}

es_status dm_on_gang_offer(dm_coord *c, const dm_addr *from, uint64_t id, const Espalier__Wire__GangOffer *m,
                           es_error *err)
{
    es_error why;
    dm_worker *w = dm_worker_by_uid(c, &m->worker_uid);
    if (!w || w->slots == 0) {
        dm_worker_tell_unknown(c, from, id);
        return ES_OK;
    }
    dm_worker_heard(c, w, from);
    dm_lease *l = m->lease ? dm_lease_held(c, w, m->lease) : NULL;
    if (m->id.len < 1 || m->id.len > DM_GANG_ID_MAX)
        es_fail(&why, ES_INVALID, "gang_offer.id", "has %zu bytes, allowed are 1 to %d", m->id.len, DM_GANG_ID_MAX);
    else if (!l || !l->gang || l->rank != 0)
        es_fail(&why, ES_LOST, "gang_offer.lease", "is not held by this worker as rank 0 of a gang");
    else
        why.code = ES_OK;
    if (why.code != ES_OK)
        return dm_coord_refused(c, from, id, &why);
    dm_gang *g = l->gang;
    l->heard_ms = c->now_ms;
    l->confirmed = true;
    g->id_n = (int)m->id.len;
    memcpy(g->id, m->id.data, m->id.len);
    ES_RETURN(dm_gang_set_id(c->store, l->job, g->id, m->id.len, err));
    for (int i = 0; i < g->size; i++)
        if (g->rank[i])
            dm_gang_send_id(c, g->rank[i]);
    return ES_OK;
}

/* ---- the end */

static es_status gang_leave(dm_coord *c, dm_lease *l, es_error *err)
{
    dm_gang *g = l->gang;
    ES_RETURN(dm_gang_leave(c->store, l->job, l->rank, err));
    l->worker->left_job = l->job;
    l->worker->left_attempt = l->attempt;
    g->rank[l->rank] = NULL;
    g->left--;
    dm_lease_unlink(c, l);
    gang_map(c, g);
    return ES_OK;
}

es_status dm_gang_finish(dm_coord *c, dm_lease *l, const Espalier__Wire__Finish *f, bool *handled, es_error *err)
{
    bool failed = f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED;
    bool lost_peer = failed && f->error_code && strcmp(f->error_code, "lost-peer") == 0;
    bool gives_back = f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_DONE ||
                      f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_PREEMPTED ||
                      f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED;
    *handled = lost_peer || (l->rank != 0 && gives_back);
    if (!*handled)
        return ES_OK;
    dm_gang *g = l->gang;
    if (lost_peer || f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_CANCELLED) {
        if (!g->broken)
            es_log(ES_LOG_WARN, "gang broken job=%" PRId64 " attempt=%" PRId64 " rank=%d of %d: %s", l->job, l->attempt,
                   l->rank, g->size, f->error && f->error[0] ? f->error : "stopped");
        g->broken = true;
    }
    if (g->left > 1)
        return gang_leave(c, l, err);
    /* All have answered, nobody died: nobody's fault, but not at once again; and not for ever, as workers that cannot reach each other never will. */
    if (++l->search->broken_in_row > BROKEN_MAX) {
        char why[200];
        snprintf(why, sizeof why,
                 "the ranks of the gang lost one another %d times in a row, with nothing done in between: can the "
                 "workers reach each other (--address)?",
                 l->search->broken_in_row);
        return dm_lease_failed(c, l, ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED, "lost-peer", why, f->log, err);
    }
    return dm_lease_return(c, l, DM_OUTCOME_LOST, "the ranks of the gang lost one another",
                           c->wall_ms + dm_backoff_ms(c, l->search->broken_in_row), err);
}
