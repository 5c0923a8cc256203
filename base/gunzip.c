#include "base/gunzip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

typedef struct inflation {
    z_stream z;
    size_t left; /* of the input */
    char *buf;
    size_t len, cap, max; /* of the output: made, has room for, may have room for */
} inflation;

/* As much as zlib's counters can say at once, into `room` bytes at `to`. Returns inflate's code. */
static int inflate_some(inflation *f, void *to, size_t room, size_t *made)
{
    uInt give = f->left > INT_MAX ? INT_MAX : (uInt)f->left, take = room > INT_MAX ? INT_MAX : (uInt)room;
    f->z.avail_in = give;
    f->z.avail_out = take;
    f->z.next_out = to;
    int rc = inflate(&f->z, Z_NO_FLUSH);
    f->left -= give - f->z.avail_in;
    *made = take - f->z.avail_out;
    return rc;
}

static bool grow(inflation *f)
{
    size_t cap = f->cap * 2 > f->max ? f->max : f->cap * 2;
    char *more = realloc(f->buf, cap + 1);
    if (!more)
        return false;
    f->buf = more;
    f->cap = cap;
    return true;
}

/* The buffer is full and may not grow; the content still fits if its end comes without another byte. */
static bool ends_here(inflation *f)
{
    char spare;
    size_t made;
    return inflate_some(f, &spare, 1, &made) == Z_STREAM_END && made == 0 && f->left == 0;
}

static es_status inflate_all(inflation *f, const char *name, es_error *err)
{
    for (;;) {
        size_t made;
        int rc = inflate_some(f, f->buf + f->len, f->cap - f->len, &made);
        f->len += made;
        if (rc == Z_STREAM_END && f->left == 0)
            return ES_OK;
        if (rc == Z_STREAM_END)
            inflateReset(&f->z); /* another member */
        else if (rc != Z_OK && rc != Z_BUF_ERROR)
            return es_fail(err, ES_CORRUPT, name, "damaged gzip content after %zu bytes: %s", f->len,
                           f->z.msg ? f->z.msg : "bad data");
        else if (f->len < f->cap && f->left == 0)
            return es_fail(err, ES_CORRUPT, name, "truncated gzip content: it ends after %zu decompressed bytes",
                           f->len);
        else if (f->len == f->cap && f->cap == f->max)
            return ends_here(f) ? ES_OK
                                : es_fail(err, ES_INVALID, name,
                                          "the content is more decompressed bytes, at most %zu are allowed", f->max);
        else if (f->len == f->cap && !grow(f))
            return es_fail(err, ES_NO_MEMORY, name, "no memory for %zu decompressed bytes", f->cap * 2);
    }
}

bool es_is_gzip(const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    return n >= 2 && b[0] == 0x1f && b[1] == 0x8b;
}

es_status es_gunzip(const char *name, const void *bytes, size_t n, size_t max_bytes, char **out, size_t *size,
                    es_error *err)
{
    inflation f = {.left = n, .cap = n * 4 + 64 < max_bytes ? n * 4 + 64 : max_bytes, .max = max_bytes};
    es_status s = ES_OK;
    *out = NULL;
    f.z.next_in = (Bytef *)(uintptr_t)bytes; /* zlib does not write to it */
    if (inflateInit2(&f.z, 15 + 16) != Z_OK)
        return es_fail(err, ES_NO_MEMORY, name, "cannot start decompression");
    f.buf = malloc(f.cap + 1);
    if (!f.buf) {
        s = es_fail(err, ES_NO_MEMORY, name, "no memory for %zu decompressed bytes", f.cap);
        goto fail;
    }
    ES_GOTO(inflate_all(&f, name, err));
    f.buf[f.len] = '\0';
    *out = f.buf;
    *size = f.len;
    f.buf = NULL;
fail:
    inflateEnd(&f.z);
    free(f.buf);
    return s;
}
