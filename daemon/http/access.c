#include "daemon/http/access.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "daemon/wire/keys.h"

enum { TOKEN_FILE_MAX = 4096 };

/* A token is a key's 32 random bytes in hexadecimal digits. */
static es_status token_read(const char *path, char token[DM_HTTP_TOKEN_HEX], es_error *err)
{
    char *text = NULL;
    size_t n = 0;
    uint8_t bytes[DM_KEY_BYTES];
    if (!es_file_exists(path)) {
        char line[DM_HTTP_TOKEN_HEX + 1], dir[1024];
        ES_ASSERT(sodium_init() >= 0);
        randombytes_buf(bytes, sizeof bytes);
        dm_key_hex(bytes, token);
        snprintf(line, sizeof line, "%s\n", token);
        snprintf(dir, sizeof dir, "%.*s", strrchr(path, '/') ? (int)(strrchr(path, '/') - path) : 1,
                 strrchr(path, '/') ? path : ".");
        ES_RETURN(es_file_mkdirs(dir, err));
        return dm_secret_file_write(path, line, 0600, err);
    }
    ES_RETURN(dm_secret_file_check(path, true, err));
    ES_RETURN(es_file_read(path, TOKEN_FILE_MAX, &text, &n, err));
    size_t digits = strcspn(text, "\r\n");
    es_status s = ES_OK;
    if (!dm_key_parse(text, digits, bytes))
        s = es_fail(err, ES_INVALID, path, "holds no token of 64 hexadecimal digits: remove it, and a new one is made");
    else
        dm_key_hex(bytes, token);
    free(text);
    return s;
}

es_status dm_http_rule_make(dm_http_rule *rule, const char *address, dm_http_token how, const char *token_file,
                            es_error *err)
{
    *rule = (dm_http_rule){.loopback = strncmp(address, "127.", 4) == 0};
    if (how == DM_HTTP_TOKEN_NEVER || (how == DM_HTTP_TOKEN_AUTO && rule->loopback))
        return ES_OK;
    return token_read(token_file, rule->token, err);
}

/* "127.0.0.1:5703", "localhost", "[::1]:80" and any other address in digits; not a name, which its owner can point anywhere. */
static bool host_is_here(const char *host)
{
    if (!host)
        return true; /* HTTP/1.0, which no browser speaks */
    size_t n = strcspn(host, ":");
    if (host[0] == '[')
        return strncmp(host, "[::1]", 5) == 0 && (host[5] == 0 || host[5] == ':');
    if (n == 9 && strncmp(host, "localhost", 9) == 0)
        return true;
    return n >= 7 && strspn(host, "0123456789.") == n;
}

static bool same_token(const dm_http_rule *rule, const char *given, size_t n)
{
    return n == DM_HTTP_TOKEN_HEX - 1 && sodium_memcmp(given, rule->token, n) == 0;
}

static bool has_token(const dm_http_rule *rule, const dm_http_ask *ask)
{
    static const char bearer[] = "Bearer ";
    if (ask->token)
        return same_token(rule, ask->token, strlen(ask->token));
    if (!ask->authorization || strncmp(ask->authorization, bearer, sizeof bearer - 1) != 0)
        return false;
    const char *given = ask->authorization + sizeof bearer - 1;
    return same_token(rule, given, strlen(given));
}

unsigned dm_http_access(const dm_http_rule *rule, const dm_http_ask *ask, const char **why)
{
    *why = "";
    if (strcmp(ask->method, "GET") != 0 && strcmp(ask->method, "HEAD") != 0) {
        *why = "only GET: nothing can be changed over HTTP\n";
        return 405;
    }
    if (strcmp(ask->path, "/healthz") == 0) /* says "ok" or what is wrong, for load balancers */
        return 0;
    if (rule->token[0]) {
        if (has_token(rule, ask))
            return 0;
        *why = "a token is needed: Authorization: Bearer TOKEN, or ?token=TOKEN (keys/http.token on the coordinator's "
               "host)\n";
        return 401;
    }
    if (rule->loopback && !host_is_here(ask->host)) {
        *why = "this address answers only to requests for 127.0.0.1 or localhost\n";
        return 403;
    }
    return 0;
}
