/* session.h - what a worker keeps between jobs of one search: the parsed search file and a trainer with weights in it.
 *
 *     wk_session *s; wk_session_get(all, search_text, &s, err);                    // parsed once, data set opened once
 *     wk_session_load(all, s, data_peer, &want, &transfer, err);                   // fetches and loads only when the trainer holds another version
 *     wk_session_dirty(s); sn_trainer_run(s->trainer, ...); ...; wk_session_holds(s, id);
 *
 * Bounded: at most `max` sessions, the least recently used one goes. Belongs to the compute thread.
 */
#ifndef WK_SESSION_H
#define WK_SESSION_H

#include "daemon/wire/transfer.h"
#include "supernet/table.h"
#include "supernet/train/train.h"

typedef struct wk_session {
    es_hash key; /* of the search's text */
    sn_search_file *file;
    sn_trainer *trainer; /* NULL until weights are needed */
    sn_table *table;     /* of a search against a table; NULL until asked for */
    sn_phase phase;      /* what the trainer is set up as */
    int part;
    char weights[ES_HASH_HEX]; /* the version in the trainer; "" as initialised; "?" unknown */
    uint64_t used;
} wk_session;

/* What a job needs the trainer to be. */
typedef struct wk_want {
    sn_phase phase;
    int part;            /* 1-based, of PART */
    const char *meta;    /* PART from its first step: version of the meta model */
    const char *weights; /* "": as the phase begins */
} wk_want;

typedef struct wk_sessions wk_sessions;
wk_sessions *wk_sessions_new(kn_device *dev, int max); /* borrows dev */
void wk_sessions_destroy(wk_sessions **all);
es_status wk_session_get(wk_sessions *all, const char *search_text, wk_session **out, es_error *err) ES_MUST_CHECK;
es_status wk_session_load(wk_sessions *all, wk_session *s, dm_peer *data, const wk_want *want,
                          const dm_transfer_options *t, es_error *err) ES_MUST_CHECK;
es_status wk_session_table(wk_session *s, es_error *err) ES_MUST_CHECK; /* s->table is there */
void wk_session_dirty(wk_session *s);                                   /* the trainer is about to leave its version */
void wk_session_holds(wk_session *s, const char *weights);

#endif
