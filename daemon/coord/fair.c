#include "daemon/coord/fair.h"

#include <stdlib.h>
#include <string.h>

enum { FADE_EVERY_MS = 60000, FADE_HALF_MS = 1800000, UNKNOWN_MS = 1000 };

void dm_user_join(dm_coord *c, dm_search *s, const char *name)
{
    dm_user *u = c->users, *lowest = NULL;
    const dm_search *other = NULL;
    while (u && strcmp(u->name, name) != 0)
        u = u->next;
    if (!u) {
        for (dm_user *x = c->users; x; x = x->next)
            if (!lowest || x->used_ms < lowest->used_ms)
                lowest = x;
        u = es_xcalloc(1, sizeof *u);
        u->name = es_xstrdup(name);
        u->used_ms = lowest ? lowest->used_ms : 0;
        u->next = c->users;
        c->users = u;
    }
    for (int i = 0; i < c->searches_n; i++)
        if (c->searches[i] != s && c->searches[i]->user == u && (!other || c->searches[i]->used_ms < other->used_ms))
            other = c->searches[i];
    s->used_ms = other ? other->used_ms : 0;
    s->user = u;
    u->searches++;
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

static void charge(dm_lease *l, double ms)
{
    l->charged_ms += ms;
    l->search->used_ms += ms;
    l->search->user->used_ms += ms;
}

void dm_fair_charge(dm_lease *l)
{
    double took = l->kind >= 0 && l->kind < 16 ? l->search->took_ms[l->kind] : 0;
    charge(l, took > 0 ? took : UNKNOWN_MS);
}

void dm_fair_settle(dm_lease *l)
{
    const dm_coord *c = l->search->c;
    int64_t end = c->now_ms - l->heard_ms > c->o.lease_ms ? l->heard_ms : c->now_ms;
    charge(l, (double)(end - l->began_ms) - l->charged_ms);
}

void dm_fair_fade(dm_coord *c)
{
    if (c->now_ms < c->fade_at_ms)
        return;
    c->fade_at_ms = c->now_ms + FADE_EVERY_MS;
    static const double keep = 1 - 0.6931 * FADE_EVERY_MS / FADE_HALF_MS;
    for (dm_user *u = c->users; u; u = u->next)
        u->used_ms *= keep;
    for (int i = 0; i < c->searches_n; i++)
        c->searches[i]->used_ms *= keep;
}

bool dm_fair_before(const dm_search *a, const dm_search *b)
{
    if (a->user != b->user && a->user->used_ms != b->user->used_ms)
        return a->user->used_ms < b->user->used_ms;
    if (a->user == b->user && a->used_ms != b->used_ms)
        return a->used_ms < b->used_ms;
    return a->served != b->served ? a->served < b->served : a->id < b->id;
}
