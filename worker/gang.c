#include "worker/gang.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool cancelled(void *ctx) { return wk_job_stopping(ctx) == WK_CANCEL; }

es_status wk_gang_open(wk_job *j, kn_collective **out, es_error *err)
{
    kn_rendezvous *meet = NULL;
    kn_gang_id offer, id;
    es_status s = ES_OK;
    *out = NULL;
    if (j->rank == 0)
        ES_GOTO(kn_rendezvous_open(j->address, &meet, &offer, err));
    ES_GOTO(j->gang_id(j->ctx, j->rank == 0 ? &offer : NULL, &id, err));
    const kn_collective_options o = {.rank = j->rank,
                                     .size = j->size,
                                     .id = &id,
                                     .meet = meet,
                                     .address = j->address,
                                     .limit_ms = WK_GANG_LIMIT_MS,
                                     .stop = cancelled,
                                     .ctx = j};
    ES_GOTO(kn_collective_open(j->dev, &o, out, err));
fail:
    kn_rendezvous_close(&meet);
    return s;
}

/* "tcp://HOST:PORT" or "tcp://[HOST]:PORT": its two parts. */
static bool split(const char *endpoint, char *host, size_t size, const char **port)
{
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return false;
    const char *from = endpoint + 6, *colon = strrchr(from, ':');
    if (!colon || colon == from)
        return false;
    size_t n = (size_t)(colon - from);
    if (n >= 2 && from[0] == '[' && from[n - 1] == ']') {
        from++;
        n -= 2;
    }
    if (n >= size)
        return false;
    memcpy(host, from, n);
    host[n] = 0;
    *port = colon + 1;
    return true;
}

es_status wk_gang_address(const char *given, const char *endpoint, char *out, size_t size, es_error *err)
{
    char host[256];
    const char *port;
    struct addrinfo *list = NULL;
    uint8_t parsed[16];
    snprintf(out, size, "%s", given ? given : "127.0.0.1");
    if (given && inet_pton(AF_INET, given, parsed) != 1 && inet_pton(AF_INET6, given, parsed) != 1)
        return es_fail(err, ES_INVALID, "--address", "\"%s\" is no numeric IPv4 or IPv6 address", given);
    if (given || !split(endpoint, host, sizeof host, &port) ||
        getaddrinfo(host, port, &(struct addrinfo){.ai_socktype = SOCK_DGRAM}, &list) != 0)
        return ES_OK;
    for (const struct addrinfo *a = list; a;
         a = a->ai_next) { /* connecting a datagram socket sends nothing, but chooses the way */
        struct sockaddr_storage own;
        socklen_t n = sizeof own;
        int fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        bool found = fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0 &&
                     getsockname(fd, (struct sockaddr *)&own, &n) == 0 &&
                     getnameinfo((struct sockaddr *)&own, n, out, (socklen_t)size, NULL, 0, NI_NUMERICHOST) == 0;
        if (fd >= 0)
            close(fd);
        if (found && !strchr(out, '%')) /* not a link-local address */
            break;
        snprintf(out, size, "127.0.0.1");
    }
    freeaddrinfo(list);
    return ES_OK;
}
