/* roles.h - what a role may ask for: the one table, looked at before any request is looked into.
 *
 *     es_error why;
 *     if (dm_role_may(&who, message, &why) != ES_OK) dm_coord_refuse(c, from, id, &why);      // code "denied": names the role and what it may
 *
 * `who` is what the transport knows (auth.h), never what a message says. A `local` one came over ipc from this very user, or over plain TCP of a coordinator
 * started with --insecure: it may do everything, and its Submit.user is believed.
 */
#ifndef DM_AUTH_ROLES_H
#define DM_AUTH_ROLES_H

#include "daemon/wire/codec.h"
#include "daemon/wire/keys.h"

typedef struct dm_who {
    dm_role role;
    bool local;
    char name[DM_KEY_NAME_MAX]; /* of the key; "" when local */
} dm_who;

dm_who dm_who_local(void);

/* ES_DENIED, or ES_OK. A client's command on a search is allowed here; whose search it is, coord/search.c looks at. */
es_status dm_role_may(const dm_who *who, const dm_from_peer *m, es_error *err) ES_MUST_CHECK;
es_status dm_role_may_data(const dm_who *who, const dm_data_request *m, es_error *err) ES_MUST_CHECK;
bool dm_role_may_watch(dm_role role); /* the status socket */

#endif
