/* ZIP, as far as NPZ files need it: the directory at the end, members stored or deflated, below 4 GiB. APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16. */
#include "supernet/data/formats.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { END_SIZE = 22, DIRECTORY_SIZE = 46, LOCAL_SIZE = 30, STORED = 0, DEFLATED = 8 };
static const size_t MEMBER_BYTES_MAX = (size_t)4 << 30;

static uint32_t u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }

/* The end record is the last thing but for a comment of at most 65,535 bytes. */
static const uint8_t *zip_end(const uint8_t *p, size_t size)
{
    if (size < END_SIZE)
        return NULL;
    for (size_t back = END_SIZE; back <= size && back <= END_SIZE + 65535; back++)
        if (u32(p + size - back) == 0x06054b50 && u16(p + size - back + 20) == back - END_SIZE)
            return p + size - back;
    return NULL;
}

static es_status zip_unpack(const char *name, const char *member, const uint8_t *packed, size_t packed_size, int method,
                            uint8_t *to, size_t size, es_error *err)
{
    if (method == STORED) {
        memcpy(to, packed, size);
        return ES_OK;
    }
    z_stream z;
    memset(&z, 0, sizeof z);
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return es_fail(err, ES_NO_MEMORY, name, "zlib");
    z.next_in = (z_const Bytef *)(uintptr_t)packed;
    z.avail_in = (uInt)packed_size;
    z.next_out = to;
    z.avail_out = (uInt)size;
    int r = inflate(&z, Z_FINISH);
    size_t got = size - z.avail_out;
    inflateEnd(&z);
    if (r != Z_STREAM_END || got != size)
        return es_fail(err, ES_CORRUPT, name, "member %s: its compressed data end after %zu of %zu bytes", member, got,
                       size);
    return ES_OK;
}

/* entry: the member's place in the directory. */
static es_status zip_extract(const char *name, const char *member, const uint8_t *p, size_t size, const uint8_t *entry,
                             uint8_t **data, size_t *n, es_error *err)
{
    int method = (int)u16(entry + 10);
    size_t packed = u32(entry + 20), full = u32(entry + 24), local = u32(entry + 42);
    es_status s;
    if (u16(entry + 8) & 1 || (method != STORED && method != DEFLATED))
        return es_fail(err, ES_UNSUPPORTED, name, "member %s: encrypted, or compressed by a method other than deflate",
                       member);
    if (packed == 0xffffffff || full == 0xffffffff || local == 0xffffffff || full > MEMBER_BYTES_MAX)
        return es_fail(err, ES_UNSUPPORTED, name, "member %s: larger than 4 GiB", member);
    if (size < LOCAL_SIZE || local > size - LOCAL_SIZE || u32(p + local) != 0x04034b50)
        return es_fail(err, ES_CORRUPT, name, "member %s: its place lies outside the file: truncated", member);
    size_t start = local + LOCAL_SIZE + u16(p + local + 26) + u16(p + local + 28);
    if (start > size || packed > size - start)
        return es_fail(err, ES_CORRUPT, name, "member %s: its data lie outside the file: truncated", member);
    /* Checked before memory is asked for: deflate never does better than 1032 : 1. */
    if (method == STORED ? packed != full : full / 1032 > packed)
        return es_fail(err, ES_CORRUPT, name, "member %s: %zu bytes cannot unpack to %zu", member, packed, full);
    ES_RETURN(sn_images_alloc(name, full, data, err));
    ES_GOTO(zip_unpack(name, member, p + start, packed, method, *data, full, err));
    if (crc32(crc32(0, NULL, 0), *data, (uInt)full) != u32(entry + 16))
        s = es_fail(err, ES_CORRUPT, name, "member %s: its checksum does not match its data", member);
    *n = full;
fail:
    if (s != ES_OK) {
        free(*data);
        *data = NULL;
    }
    return s;
}

es_status sn_zip_member(const char *name, const void *bytes, size_t size, const char *member, uint8_t **data, size_t *n,
                        es_error *err)
{
    const uint8_t *p = bytes, *end = zip_end(p, size);
    size_t wanted = strlen(member);
    *data = NULL;
    *n = 0;
    if (!end)
        return es_fail(err, ES_CORRUPT, name, "no ZIP directory at its end: truncated");
    size_t at = u32(end + 16), stop = (size_t)(end - p);
    for (uint32_t i = 0; i < u16(end + 10); i++) {
        if (stop < DIRECTORY_SIZE || at > stop - DIRECTORY_SIZE || u32(p + at) != 0x02014b50)
            return es_fail(err, ES_CORRUPT, name, "its ZIP directory is damaged at entry %u", i);
        size_t name_size = u16(p + at + 28), entry = DIRECTORY_SIZE + name_size + u16(p + at + 30) + u16(p + at + 32);
        if (entry > stop - at)
            return es_fail(err, ES_CORRUPT, name, "its ZIP directory is damaged at entry %u", i);
        if (name_size == wanted && memcmp(p + at + DIRECTORY_SIZE, member, wanted) == 0)
            return zip_extract(name, member, p, size, p + at, data, n, err);
        at += entry;
    }
    return es_fail(err, ES_NOT_FOUND, name, "no member %s", member);
}
