#include "daemon/coord/turn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

es_status dm_coord_enter(dm_coord *c, es_error *err)
{
    return !dm_store_in_transaction(c->store) ? dm_store_begin(c->store, err) : ES_OK;
}

void dm_coord_reply(dm_coord *c, const dm_addr *to, uint64_t request_id, dm_to_peer *m)
{
    es_error err;
    dm_bytes b;
    m->version = DM_WIRE_VERSION;
    m->request_id = request_id;
    if (dm_encode(&m->base, DM_CONTROL_MAX, &b, &err) != ES_OK) {
        es_log_error(ES_LOG_ERROR, "answer dropped", &err);
        if (m->what_case != ESPALIER__WIRE__TO_PEER__WHAT_ERROR)
            dm_coord_refuse(c, to, request_id, &err);
        return;
    }
    if (c->out_n == c->out_cap) {
        c->out_cap = c->out_cap ? 2 * c->out_cap : 256;
        c->out = es_xrealloc(c->out, (size_t)c->out_cap * sizeof *c->out);
    }
    c->out[c->out_n++] = (dm_outgoing){.to = *to, .bytes = b.data, .n = b.n};
}

void dm_coord_refuse(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *why)
{
    Espalier__Wire__Error e = ESPALIER__WIRE__ERROR__INIT;
    e.code = dm_text(es_status_name(why->code));
    e.where = dm_text(why->where);
    e.text = dm_text(why->text);
    dm_coord_reply(c, to, request_id, &DM_TO_PEER(ERROR, error, &e));
}

es_status dm_coord_refused(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *why)
{
    dm_coord_refuse(c, to, request_id, why);
    return ES_OK;
}

void dm_coord_done(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *how)
{
    Espalier__Wire__Done d = ESPALIER__WIRE__DONE__INIT;
    if (how->code != ES_OK) {
        dm_coord_refuse(c, to, request_id, how);
        return;
    }
    d.text = dm_text(how->text);
    dm_coord_reply(c, to, request_id, &DM_TO_PEER(DONE, done, &d));
}

void dm_coord_json(dm_coord *c, const dm_addr *to, uint64_t request_id, char *json)
{
    Espalier__Wire__Answer a = ESPALIER__WIRE__ANSWER__INIT;
    a.json = json;
    dm_coord_reply(c, to, request_id, &DM_TO_PEER(ANSWER, answer, &a));
    free(json);
}

es_json *dm_event_begin(dm_coord *c, dm_event *e, const char *kind, const dm_search *s, int64_t job, bool keep)
{
    *e = (dm_event){.kind = kind, .id = keep ? ++c->event_id : 0, .search = s ? s->id : 0, .job = job};
    es_json_begin(&e->j, 0);
    es_json_object(&e->j, NULL);
    es_json_i64(&e->j, "event", e->id);
    es_json_i64(&e->j, "ms", c->wall_ms);
    es_json_str(&e->j, "kind", kind);
    if (s)
        es_json_i64(&e->j, "search", s->id);
    if (job)
        es_json_i64(&e->j, "job", job);
    return &e->j;
}

es_status dm_event_end(dm_coord *c, dm_event *e, es_error *err)
{
    es_json_end(&e->j);
    char *json = es_json_finish(&e->j);
    if (c->notices_n == c->notices_cap) {
        c->notices_cap = c->notices_cap ? 2 * c->notices_cap : 64;
        c->notices = es_xrealloc(c->notices, (size_t)c->notices_cap * sizeof *c->notices);
    }
    dm_notice *n = &c->notices[c->notices_n++];
    if (e->search)
        snprintf(n->topic, sizeof n->topic, "search.%" PRId64, e->search);
    else
        snprintf(n->topic, sizeof n->topic, "coordinator");
    n->json = json;
    return e->id ? dm_event_insert(c->store, e->id, c->wall_ms, e->search, e->job, e->kind, json, err) : ES_OK;
}

void dm_coord_drop_version(dm_coord *c, const char *hex)
{
    if (c->dropped_n == c->dropped_cap) {
        c->dropped_cap = c->dropped_cap ? 2 * c->dropped_cap : 16;
        c->dropped = es_xrealloc(c->dropped, (size_t)c->dropped_cap * sizeof *c->dropped);
    }
    snprintf(c->dropped[c->dropped_n++].hex, sizeof c->dropped[0].hex, "%s", hex);
}

void dm_coord_drop_output(dm_coord *c)
{
    for (int i = 0; i < c->out_n; i++)
        free(c->out[i].bytes);
    for (int i = 0; i < c->notices_n; i++)
        free(c->notices[i].json);
    c->out_n = c->notices_n = c->dropped_n = 0;
}

void dm_coord_flush(dm_coord *c)
{
    for (int i = 0; i < c->out_n; i++)
        c->env.send(c->env.ctx, &c->out[i].to, c->out[i].bytes, c->out[i].n);
    if (c->env.publish)
        for (int i = 0; i < c->notices_n; i++)
            c->env.publish(c->env.ctx, c->notices[i].topic, c->notices[i].json);
    for (int i = 0; i < c->dropped_n && c->env.drop_version; i++) {
        bool needed = true;
        es_error err;
        if (dm_version_needed(c->store, c->dropped[i].hex, &needed, &err) == ES_OK && !needed)
            c->env.drop_version(c->env.ctx, c->dropped[i].hex);
    }
    dm_coord_drop_output(c);
}
