#include "worker/session.h"

#include "base/arena.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wk_sessions {
    kn_device *dev;
    int max, count;
    uint64_t clock;
    wk_session **list;
};

wk_sessions *wk_sessions_new(kn_device *dev, int max)
{
    wk_sessions *all = es_xcalloc(1, sizeof *all);
    all->dev = dev;
    all->max = max;
    all->list = es_xcalloc((size_t)max, sizeof *all->list);
    return all;
}

static void session_free(wk_session *s)
{
    sn_trainer_destroy(&s->trainer);
    sn_table_close(&s->table);
    sn_search_file_destroy(&s->file);
    free(s);
}

void wk_sessions_destroy(wk_sessions **all)
{
    if (!*all)
        return;
    for (int i = 0; i < (*all)->count; i++)
        session_free((*all)->list[i]);
    free((*all)->list);
    free(*all);
    *all = NULL;
}

static void drop_oldest(wk_sessions *all)
{
    int oldest = 0;
    for (int i = 1; i < all->count; i++)
        if (all->list[i]->used < all->list[oldest]->used)
            oldest = i;
    session_free(all->list[oldest]);
    all->list[oldest] = all->list[--all->count];
}

es_status wk_session_get(wk_sessions *all, const char *search_text, wk_session **out, es_error *err)
{
    es_hash key;
    es_hash_bytes(search_text, strlen(search_text), &key);
    for (int i = 0; i < all->count; i++) {
        if (es_hash_equal(&all->list[i]->key, &key)) {
            *out = all->list[i];
            (*out)->used = ++all->clock;
            return ES_OK;
        }
    }
    sn_search_file *file = NULL;
    ES_RETURN(sn_search_file_parse("search", search_text, strlen(search_text), "/", &file, err));
    if (all->count == all->max)
        drop_oldest(all);
    wk_session *s = es_xcalloc(1, sizeof *s);
    s->key = key;
    s->file = file;
    s->used = ++all->clock;
    all->list[all->count++] = s;
    *out = s;
    return ES_OK;
}

void wk_session_dirty(wk_session *s) { snprintf(s->weights, sizeof s->weights, "?"); }

void wk_session_holds(wk_session *s, const char *weights) { snprintf(s->weights, sizeof s->weights, "%s", weights); }

es_status wk_session_table(wk_session *s, es_error *err)
{
    return s->table ? ES_OK : sn_table_open(&s->file->table, s->file->space, &s->table, err);
}

/* The trainer at the first step of a phase. */
static es_status start_phase(wk_sessions *all, wk_session *s, dm_peer *data, const wk_want *want,
                             const dm_transfer_options *t, es_error *err)
{
    bool modules = s->file->supernet.method == SN_METHOD_MODULES;
    if (!modules) /* without phases, only a new trainer is at the first step */
        sn_trainer_destroy(&s->trainer);
    if (!s->trainer)
        ES_RETURN(sn_trainer_new(s->file, all->dev, &s->trainer, err));
    if (modules) {
        sn_version *meta = NULL;
        wk_session_dirty(s);
        /* A part that goes on from a slice of its own has in it what it took of the meta model. */
        if (want->phase == SN_PHASE_PART && !want->weights[0])
            ES_RETURN(dm_weights_get(data, want->meta, t, &meta, err));
        es_status status = sn_trainer_phase(s->trainer, want->phase, want->part, meta, err);
        sn_version_destroy(&meta);
        ES_RETURN(status);
    }
    s->phase = want->phase;
    s->part = want->part;
    wk_session_holds(s, "");
    return ES_OK;
}

es_status wk_session_load(wk_sessions *all, wk_session *s, dm_peer *data, const wk_want *want,
                          const dm_transfer_options *t, es_error *err)
{
    bool same = s->trainer && s->phase == want->phase && s->part == want->part;
    if (same && !strcmp(s->weights, want->weights))
        return ES_OK;
    if (!same || !want->weights[0])
        ES_RETURN(start_phase(all, s, data, want, t, err));
    if (!want->weights[0])
        return ES_OK;
    sn_version *v = NULL;
    ES_RETURN(dm_weights_get(data, want->weights, t, &v, err));
    wk_session_dirty(s);
    es_status status = sn_trainer_load(s->trainer, v, err);
    sn_version_destroy(&v);
    if (status == ES_OK)
        wk_session_holds(s, want->weights);
    return status;
}
