/* turn.h - inside a turn: its transaction, and what leaves after its commit: answers, events, weights versions let go. */
#ifndef DM_COORD_TURN_H
#define DM_COORD_TURN_H

#include "daemon/coord/state.h"

es_status dm_coord_enter(dm_coord *c,
                         es_error *err) ES_MUST_CHECK; /* begins the turn's transaction when it has not begun */
void dm_coord_reply(dm_coord *c, const dm_addr *to, uint64_t request_id, dm_to_peer *m); /* leaves after the commit */
void dm_coord_refuse(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *why);
/* The same, as the end of a handler: ES_OK, since nothing is wrong with the turn. */
es_status dm_coord_refused(dm_coord *c, const dm_addr *to, uint64_t request_id, const es_error *why);
void dm_coord_json(dm_coord *c, const dm_addr *to, uint64_t request_id, char *json); /* takes json */
/* An event of schemas/status.md: published after the commit, and stored when it has an id (keep). */
typedef struct dm_event {
    es_json j;
    const char *kind;
    int64_t id, search, job;
} dm_event;
es_json *dm_event_begin(dm_coord *c, dm_event *e, const char *kind, const dm_search *s, int64_t job, bool keep);
es_status dm_event_end(dm_coord *c, dm_event *e, es_error *err) ES_MUST_CHECK;
void dm_coord_drop_version(dm_coord *c, const char *hex); /* after the commit, if no row needs it then */
/* At the end of the turn: all of it leaves; or, of a turn that is taken back, is forgotten. */
void dm_coord_flush(dm_coord *c);
void dm_coord_drop_output(dm_coord *c);

#endif
