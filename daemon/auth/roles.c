#include "daemon/auth/roles.h"

enum { CLIENT = 1 << DM_ROLE_CLIENT, WORKER = 1 << DM_ROLE_WORKER, ADMIN = 1 << DM_ROLE_ADMIN };

dm_who dm_who_local(void) { return (dm_who){.role = DM_ROLE_ADMIN, .local = true}; }

static const char *may_do(dm_role r)
{
    switch (r) {
    case DM_ROLE_CLIENT: return "submit searches, command its own, ask, and fetch weights";
    case DM_ROLE_WORKER: return "take jobs, hand in their results, and fetch and store weights";
    case DM_ROLE_ADMIN: return "do everything";
    case DM_ROLE_NONE:
    case DM_ROLE_SERVER: break;
    }
    return "do nothing here";
}

static es_status judge(const dm_who *who, unsigned allowed, const char *what, es_error *err)
{
    if (who->local || (allowed >> who->role & 1))
        return ES_OK;
    if (who->role == DM_ROLE_NONE)
        return es_fail(err, ES_DENIED, what, "this key was taken out of the coordinator's authorized_keys");
    return es_fail(err, ES_DENIED, what, "the key of %s has the role %s, which may %s; this needs the role %s",
                   who->name, dm_role_name(who->role), may_do(who->role),
                   allowed & CLIENT   ? "client or admin"
                   : allowed & WORKER ? "worker or admin"
                                      : "admin");
}

static unsigned verb_roles(Espalier__Wire__Verb v)
{
    switch (v) {
    case ESPALIER__WIRE__VERB__VERB_CANCEL:
    case ESPALIER__WIRE__VERB__VERB_PAUSE:
    case ESPALIER__WIRE__VERB__VERB_RESUME:
    case ESPALIER__WIRE__VERB__VERB_PRIORITY:
    case ESPALIER__WIRE__VERB__VERB_DELETE:
    case ESPALIER__WIRE__VERB__VERB_PIN:
    case ESPALIER__WIRE__VERB__VERB_UNPIN:
    case ESPALIER__WIRE__VERB__VERB_RETRY: return CLIENT | ADMIN; /* of its own searches */
    case ESPALIER__WIRE__VERB__VERB_NONE:
    case ESPALIER__WIRE__VERB__VERB_SHUTDOWN:
    case ESPALIER__WIRE__VERB__VERB_BACKUP:
    case ESPALIER__WIRE__VERB__VERB_RELOAD:
    case _ESPALIER__WIRE__VERB_IS_INT_SIZE: break;
    }
    return ADMIN;
}

/* A request that is new here is for admins until this table says otherwise: the compiler asks for a line. */
es_status dm_role_may(const dm_who *who, const dm_from_peer *m, es_error *err)
{
    switch (m->what_case) {
    case ESPALIER__WIRE__FROM_PEER__WHAT_HELLO: return judge(who, WORKER | ADMIN, "hello", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_WANT: return judge(who, WORKER | ADMIN, "want", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_HEARTBEAT: return judge(who, WORKER | ADMIN, "heartbeat", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_FINISH: return judge(who, WORKER | ADMIN, "finish", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_GOODBYE: return judge(who, WORKER | ADMIN, "goodbye", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_GANG_OFFER: return judge(who, WORKER | ADMIN, "gang_offer", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_SUBMIT: return judge(who, CLIENT | ADMIN, "submit", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_COMMAND: return judge(who, verb_roles(m->command->verb), "command", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_QUERY: return judge(who, CLIENT | ADMIN, "query", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT_ENQUEUE_NOOP: return judge(who, ADMIN, "enqueue_noop", err);
    case ESPALIER__WIRE__FROM_PEER__WHAT__NOT_SET:
    case _ESPALIER__WIRE__FROM_PEER__WHAT__CASE_IS_INT_SIZE: break;
    }
    return judge(who, ADMIN, "request", err);
}

es_status dm_role_may_data(const dm_who *who, const dm_data_request *m, es_error *err)
{
    switch (m->what_case) {
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_MANIFEST:
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_GET_CHUNK: return judge(who, CLIENT | WORKER | ADMIN, "get", err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_MISSING: return judge(who, WORKER | ADMIN, "missing", err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_CHUNK: return judge(who, WORKER | ADMIN, "put_chunk", err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT_PUT_MANIFEST: return judge(who, WORKER | ADMIN, "put_manifest", err);
    case ESPALIER__WIRE__DATA_REQUEST__WHAT__NOT_SET:
    case _ESPALIER__WIRE__DATA_REQUEST__WHAT__CASE_IS_INT_SIZE: break;
    }
    return judge(who, ADMIN, "request", err);
}

bool dm_role_may_watch(dm_role role) { return role == DM_ROLE_CLIENT || role == DM_ROLE_ADMIN; }
