#include "daemon/coord/fair.h"

#include <stdlib.h>
#include <string.h>

enum { FADE_EVERY_MS = 60000, FADE_HALF_MS = 1800000, UNKNOWN_MS = 1000 };

/* An account of a search or user that comes new, or back with its row. */
static dm_account level_with(const dm_coord *c, double used_ms)
{
    return (dm_account){.used_ms = used_ms, .changed = c->loaded};
}

static dm_user *user_new(dm_coord *c, const char *name, es_status *status, es_error *err)
{
    const dm_user *lowest = NULL;
    double kept = 0;
    for (const dm_user *x = c->users; x; x = x->next)
        if (!lowest || x->account.used_ms < lowest->account.used_ms)
            lowest = x;
    *status = c->loaded ? ES_OK : dm_account_user(c->store, name, &kept, err);
    dm_user *u = es_xcalloc(1, sizeof *u);
    u->name = es_xstrdup(name);
    u->account = level_with(c, !c->loaded ? kept : lowest ? lowest->account.used_ms : 0);
    u->next = c->users;
    c->users = u;
    return u;
}

es_status dm_user_join(dm_coord *c, dm_search *s, const dm_search_row *r, es_error *err)
{
    es_status status = ES_OK;
    dm_user *u = c->users;
    const dm_search *other = NULL;
    while (u && strcmp(u->name, r->user) != 0)
        u = u->next;
    if (!u)
        u = user_new(c, r->user, &status, err);
    for (int i = 0; i < c->searches_n; i++)
        if (c->searches[i] != s && c->searches[i]->user == u &&
            (!other || c->searches[i]->account.used_ms < other->account.used_ms))
            other = c->searches[i];
    s->account = level_with(c, !c->loaded ? r->used_ms : other ? other->account.used_ms : 0);
    s->user = u;
    u->searches++;
    return status;
}

void dm_user_leave(dm_coord *c, dm_search *s)
{
    dm_user **at = &c->users, *u = s->user;
    if (--u->searches > 0)
        return;
    while (*at != u)
        at = &(*at)->next;
    *at = u->next;
    free(u->name);
    free(u);
}

es_status dm_fair_over(dm_coord *c, const dm_search *s, es_error *err)
{
    return s->user->searches > 1 ? ES_OK : dm_account_drop_user(c->store, s->user->name, err);
}

static void charge(dm_account *a, double ms)
{
    a->used_ms += ms;
    a->open_ms += ms;
}

static void charge_lease(dm_lease *l, double ms)
{
    l->charged_ms += ms;
    charge(&l->search->account, ms);
    charge(&l->search->user->account, ms);
}

static void settle(dm_account *a, double ms)
{
    a->open_ms -= ms;
    a->changed = true;
}

void dm_fair_charge(dm_lease *l)
{
    double took = l->kind >= 0 && l->kind < 16 ? l->search->took_ms[l->kind] : 0;
    charge_lease(l, took > 0 ? took : UNKNOWN_MS);
}

void dm_fair_settle(dm_lease *l)
{
    const dm_coord *c = l->search->c;
    int64_t end = c->now_ms - l->heard_ms > c->o.lease_ms ? l->heard_ms : c->now_ms;
    charge_lease(l, (double)(end - l->began_ms) - l->charged_ms);
    settle(&l->search->account, l->charged_ms);
    settle(&l->search->user->account, l->charged_ms);
}

static void fade(dm_account *a)
{
    a->used_ms *= 1 - 0.6931 * FADE_EVERY_MS / FADE_HALF_MS;
    a->changed = true;
}

void dm_fair_fade(dm_coord *c)
{
    if (c->now_ms < c->fade_at_ms)
        return;
    c->fade_at_ms = c->now_ms + FADE_EVERY_MS;
    for (dm_user *u = c->users; u; u = u->next)
        fade(&u->account);
    for (int i = 0; i < c->searches_n; i++)
        fade(&c->searches[i]->account);
}

void dm_fair_loaded(dm_coord *c) { c->fade_at_ms = c->now_ms + FADE_EVERY_MS; }

es_status dm_fair_keep(dm_coord *c, es_error *err)
{
    if (!dm_store_wrote(c->store))
        return ES_OK;
    for (dm_user *u = c->users; u; u = u->next) {
        dm_account *a = &u->account;
        if (a->changed)
            ES_RETURN(dm_account_set_user(c->store, u->name, a->used_ms - a->open_ms, err));
        a->changed = false;
    }
    for (int i = 0; i < c->searches_n; i++) {
        dm_account *a = &c->searches[i]->account;
        if (a->changed)
            ES_RETURN(dm_account_set_search(c->store, c->searches[i]->id, a->used_ms - a->open_ms, err));
        a->changed = false;
    }
    return ES_OK;
}

bool dm_fair_before(const dm_search *a, const dm_search *b)
{
    double mine = a->user->account.used_ms, his = b->user->account.used_ms;
    if (a->user != b->user && mine != his)
        return mine < his;
    if (a->user == b->user && a->account.used_ms != b->account.used_ms)
        return a->account.used_ms < b->account.used_ms;
    return a->served != b->served ? a->served < b->served : a->id < b->id;
}
