#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *es_status_name(es_status s)
{
    switch (s) {
    case ES_OK: return "ok";
    case ES_INVALID: return "invalid";
    case ES_NOT_FOUND: return "not-found";
    case ES_EXISTS: return "exists";
    case ES_UNSUPPORTED: return "unsupported";
    case ES_NO_MEMORY: return "no-memory";
    case ES_IO: return "io";
    case ES_DISK_FULL: return "disk-full";
    case ES_CORRUPT: return "corrupt";
    case ES_BUSY: return "busy";
    case ES_TIMEOUT: return "timeout";
    case ES_CANCELLED: return "cancelled";
    case ES_DENIED: return "denied";
    case ES_VERSION: return "version";
    case ES_LOST: return "lost";
    case ES_DEVICE: return "device";
    case ES_INFEASIBLE: return "infeasible";
    case ES_STATUS_COUNT: break;
    }
    return "unknown"; /* a number from a newer peer */
}

/* Copies at most size - 1 bytes without cutting a UTF-8 sequence in two. */
static void copy_cut(char *dst, size_t size, const char *src)
{
    size_t n = strlen(src);
    if (n >= size) {
        n = size - 1;
        while (n > 0 && ((unsigned char)src[n] & 0xc0) == 0x80)
            n--;
    }
    memcpy(dst, src, n);
    dst[n] = '\0';
}

static void fill(es_error *err, es_status code, const char *where, const char *fmt, va_list ap)
{
    char text[sizeof err->text + 8]; /* `where` or an argument may point into *err: finish reading before writing */
    char place[sizeof err->where];
    vsnprintf(text, sizeof text, fmt, ap);
    copy_cut(place, sizeof place, where ? where : "");
    err->code = code;
    copy_cut(err->where, sizeof err->where, place);
    copy_cut(err->text, sizeof err->text, text);
}

es_status es_fail(es_error *err, es_status code, const char *where, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, where, fmt, ap);
        va_end(ap);
    }
    return code;
}

static es_status status_of_errno(int e)
{
    switch (e) {
    case ENOSPC:
    case EDQUOT: return ES_DISK_FULL;
    case ENOENT: return ES_NOT_FOUND;
    case ENOMEM: return ES_NO_MEMORY;
    case EACCES:
    case EPERM: return ES_DENIED;
    case EEXIST: return ES_EXISTS;
    default: return ES_IO;
    }
}

es_status es_fail_errno(es_error *err, const char *where, const char *fmt, ...)
{
    int e = errno;
    es_status code = status_of_errno(e);
    if (err) {
        char reason[128];
        const char *text = strerror_r(e, reason, sizeof reason);
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, where, fmt, ap);
        va_end(ap);
        size_t n = strlen(err->text);
        snprintf(err->text + n, sizeof err->text - n, ": %s", text);
    }
    errno = e;
    return code;
}

es_status es_at(es_error *err, es_status s, const char *place)
{
    if (!err || s == ES_OK)
        return s;
    char old[sizeof err->where];
    copy_cut(old, sizeof old, err->where);
    if (old[0] == '\0' || strlen(place) + 2 + strlen(old) >= sizeof err->where)
        copy_cut(err->where, sizeof err->where, place);
    else
        snprintf(err->where, sizeof err->where, "%s: %s", place, old);
    return s;
}

const char *es_error_line(const es_error *err, char *buf, size_t size)
{
    if (err->where[0])
        snprintf(buf, size, "%s: %s", err->where, err->text);
    else
        snprintf(buf, size, "%s", err->text);
    return buf;
}

void es_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, what);
    abort();
}
