/* access.h - who may ask over HTTP: one rule for every path, old and new.
 *
 *     dm_http_rule rule; dm_http_rule_make(&rule, "127.0.0.1:5703", DM_HTTP_TOKEN_AUTO, "DIR/keys/http.token", err);
 *     unsigned refused = dm_http_access(&rule, &(dm_http_ask){.method = "GET", .path = "/api", .host = "127.0.0.1:5703"}, &why);
 *     if (refused) answer with that status and the text `why`
 *
 * Without a token (the default on loopback) whoever can reach the address may read; the Host header must then name this host by number or as
 * localhost, so that a web page in somebody's browser cannot reach it under a name of its own (DNS rebinding). With a token (the default on any
 * other address) every path but /healthz needs it: `Authorization: Bearer TOKEN`, or `?token=TOKEN` for browsers. The token is made
 * at the first start (keys/http.token, 0600) and compared in constant time. Only GET and HEAD exist: nothing can be changed over HTTP.
 */
#ifndef DM_HTTP_ACCESS_H
#define DM_HTTP_ACCESS_H

#include "base/status.h"

enum { DM_HTTP_TOKEN_HEX = 65 };
typedef enum dm_http_token { DM_HTTP_TOKEN_AUTO, DM_HTTP_TOKEN_ALWAYS, DM_HTTP_TOKEN_NEVER } dm_http_token;

typedef struct dm_http_rule {
    char token[DM_HTTP_TOKEN_HEX]; /* "": none is needed */
    bool loopback;
} dm_http_rule;

/* What a request says; any but method and path may be NULL. */
typedef struct dm_http_ask {
    const char *method, *path, *host, *authorization, *token;
} dm_http_ask;

/* Reads the token file, or makes it, when the rule needs one. */
es_status dm_http_rule_make(dm_http_rule *rule, const char *address, dm_http_token how, const char *token_file,
                            es_error *err) ES_MUST_CHECK;
/* 0: allowed. Otherwise the HTTP status of the refusal, and its text. */
unsigned dm_http_access(const dm_http_rule *rule, const dm_http_ask *ask, const char **why);

#endif
