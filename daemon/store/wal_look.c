#include "daemon/store/wal_look.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

enum { HEADER = 32, FRAME = 24, PAGE_MIN = 512, PAGE_MAX = 65536 };
#define WAL_MAGIC 0x377f0682u /* its last bit: checksums are of big-endian words */

typedef struct sums {
    uint32_t a, b;
} sums;

typedef struct wal {
    FILE *f;
    bool big;
    uint32_t page;
    uint8_t salts[8];
    uint8_t *frame;
} wal;

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t word(const wal *w, const uint8_t *p)
{
    return w->big ? be32(p) : (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static sums add(const wal *w, sums s, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i + 8 <= n; i += 8) {
        s.a += word(w, p + i) + s.b;
        s.b += word(w, p + i + 4) + s.a;
    }
    return s;
}

static bool same(sums s, const uint8_t *stored) { return s.a == be32(stored) && s.b == be32(stored + 4); }

/* False: it is no header of a log, or a damaged one. */
static bool read_header(wal *w, sums *seed)
{
    uint8_t h[HEADER];
    if (fread(h, 1, sizeof h, w->f) != sizeof h || (be32(h) & ~1u) != WAL_MAGIC)
        return false;
    w->big = be32(h) & 1;
    w->page = be32(h + 8);
    memcpy(w->salts, h + 16, sizeof w->salts);
    *seed = add(w, (sums){0, 0}, h, 24);
    return same(*seed, h + 24) && w->page >= PAGE_MIN && w->page <= PAGE_MAX && (w->page & (w->page - 1)) == 0;
}

/* Frames behind the first bad one, in runs without a gap. */
typedef struct run {
    bool open, commit; /* a commit ended in it */
} run;

static void run_add(run *r, bool commit, dm_wal_report *out)
{
    out->damaged = out->damaged || r->commit; /* written after that commit was synced */
    r->commit = r->commit || commit;
    out->lost_frames++;
    out->lost_commits += commit;
}

static void look_at_frames(wal *w, sums seed, dm_wal_report *out)
{
    run r = {0};
    bool before_commits = false; /* the frame before says so: true if this one goes on from its checksum */
    for (; fread(w->frame, 1, FRAME + w->page, w->f) == FRAME + w->page; out->frames++) {
        const uint8_t *h = w->frame;
        sums s = add(w, add(w, seed, h, 8), h + FRAME, w->page);
        bool commit = be32(h + 4) != 0;
        bool good = memcmp(h + 8, w->salts, sizeof w->salts) == 0 && same(s, h + 16);
        if (!good && !out->bad_frame)
            out->bad_frame = out->frames + 1;
        if (good && !out->bad_frame && commit)
            out->used = out->frames + 1;
        if (good && out->bad_frame) {
            if (!r.open)
                r = (run){.open = true, .commit = before_commits};
            run_add(&r, commit, out);
        }
        r.open = good;
        before_commits = commit;
        seed = (sums){be32(h + 16), be32(h + 20)};
    }
}

es_status dm_wal_look(const char *path, dm_wal_report *out, es_error *err)
{
    wal w = {0};
    sums seed;
    memset(out, 0, sizeof *out);
    w.f = fopen(path, "rbe");
    if (!w.f)
        return errno == ENOENT ? ES_OK : es_fail_errno(err, path, "cannot read the log");
    fseek(w.f, 0, SEEK_END);
    out->bytes = ftell(w.f);
    rewind(w.f);
    if (out->bytes > HEADER) {
        out->header_bad = !read_header(&w, &seed);
        if (!out->header_bad) {
            w.frame = es_xcalloc(1, FRAME + w.page);
            look_at_frames(&w, seed, out);
            free(w.frame);
        }
    }
    es_status s = ferror(w.f) ? es_fail(err, ES_IO, path, "cannot read the log") : ES_OK;
    fclose(w.f);
    if (!out->damaged)
        out->lost_frames = out->lost_commits = 0;
    return s;
}
