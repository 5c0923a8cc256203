/* A request line and headers from a stranger: nothing is allowed that the access rule does not say, whatever the bytes, and a path of /api is a question in
 * bounds or none. */
#include <stdlib.h>
#include <string.h>

#include "daemon/http/access.h"
#include "daemon/http/api.h"

/* The next field: bytes up to a newline or the end, terminated. NULL when the input is used up. */
static char *field(const uint8_t **at, const uint8_t *end)
{
    if (*at >= end)
        return NULL;
    const uint8_t *stop = memchr(*at, '\n', (size_t)(end - *at));
    stop = stop ? stop : end;
    char *out = calloc(1, (size_t)(stop - *at) + 1);
    ES_ASSERT(out);
    memcpy(out, *at, (size_t)(stop - *at));
    *at = stop + 1;
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char token[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const uint8_t *at = data + 1, *end = data + size;
    if (size < 1)
        return 0;
    dm_http_rule rule = {.loopback = data[0] & 1};
    if (data[0] & 2)
        memcpy(rule.token, token, sizeof token);
    char *method = field(&at, end), *path = field(&at, end), *host = field(&at, end), *auth = field(&at, end),
         *given = field(&at, end);
    dm_http_ask ask = {.method = method ? method : "", .path = path ? path : "", host, auth, given};
    const char *why = NULL;
    unsigned code = dm_http_access(&rule, &ask, &why);
    ES_ASSERT(why && (code == 0 || code == 401 || code == 403 || code == 405) && (code == 0) == !why[0]);
    bool reads = !strcmp(ask.method, "GET") || !strcmp(ask.method, "HEAD");
    if (code == 0)
        ES_ASSERT(reads);
    if (code == 0 && rule.token[0] && strcmp(ask.path, "/healthz") != 0)
        ES_ASSERT((given && strstr(given, token)) || (auth && strstr(auth, token)));
    if (code == 0 && !rule.token[0] && rule.loopback && host && strcmp(ask.path, "/healthz") != 0)
        ES_ASSERT(!strpbrk(host, "/@ ") || strchr(host, ':'));
    if (reads && !strcmp(ask.path, "/healthz"))
        ES_ASSERT(code == 0);
    /* The path, and the texts of two arguments, as a question of /api. */
    dm_question q;
    if (dm_http_api_parse(ask.path, given, host, &q)) {
        ES_ASSERT(dm_http_api_takes(ask.path) && q.what && q.what[0] && q.limit >= 0 && q.after >= 0);
        ES_ASSERT(q.search <= INT64_MAX && q.job <= INT64_MAX && !(q.search && q.job));
    }
    free(method);
    free(path);
    free(host);
    free(auth);
    free(given);
    return 0;
}
