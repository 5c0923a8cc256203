#include "tests/simulate/disk.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

enum { BLOCK = 4096, SECTOR = 512, FILES = 8, NAME = 160 };

typedef struct sim_file {
    char name[NAME];
    bool exists;
    uint8_t *now, *safe; /* as the process sees it; as it survives */
    uint8_t *dirty;      /* per block */
    int64_t size, safe_size, cap;
} sim_file;

struct sim_disk {
    sqlite3_vfs vfs;
    char name[64];
    es_rng *rng;
    sim_file files[FILES];
    bool full;
    int fail_writes;
    int64_t die_in; /* operations left; -1: lives */
    int64_t torn, syncs;
};

typedef struct sim_handle {
    sqlite3_file base;
    sim_disk *disk;
    sim_file *file;
} sim_handle;

static bool disk_alive(sim_disk *d)
{
    if (d->die_in > 0)
        d->die_in--;
    return d->die_in != 0;
}

static void file_reserve(sim_file *f, int64_t size)
{
    if (size <= f->cap)
        return;
    int64_t cap = f->cap ? f->cap : 64 * BLOCK;
    while (cap < size)
        cap *= 2;
    f->now = es_xrealloc(f->now, (size_t)cap);
    f->safe = es_xrealloc(f->safe, (size_t)cap);
    f->dirty = es_xrealloc(f->dirty, (size_t)(cap / BLOCK));
    memset(f->now + f->cap, 0, (size_t)(cap - f->cap));
    memset(f->safe + f->cap, 0, (size_t)(cap - f->cap));
    memset(f->dirty + f->cap / BLOCK, 0, (size_t)((cap - f->cap) / BLOCK));
    f->cap = cap;
}

static sim_file *disk_find(sim_disk *d, const char *name)
{
    for (int i = 0; i < FILES; i++)
        if (d->files[i].exists && strcmp(d->files[i].name, name) == 0)
            return &d->files[i];
    return NULL;
}

/* ---- files */

static int sim_close(sqlite3_file *base)
{
    (void)base;
    return SQLITE_OK;
}

static int sim_read(sqlite3_file *base, void *out, int n, sqlite3_int64 at)
{
    sim_handle *h = (sim_handle *)base;
    if (h->disk->die_in == 0)
        return SQLITE_IOERR_READ;
    int64_t have = h->file->size > at ? h->file->size - at : 0;
    if (have >= n) {
        memcpy(out, h->file->now + at, (size_t)n);
        return SQLITE_OK;
    }
    if (have > 0)
        memcpy(out, h->file->now + at, (size_t)have);
    memset((char *)out + have, 0, (size_t)(n - have));
    return SQLITE_IOERR_SHORT_READ;
}

static int sim_write(sqlite3_file *base, const void *data, int n, sqlite3_int64 at)
{
    sim_handle *h = (sim_handle *)base;
    sim_file *f = h->file;
    if (!disk_alive(h->disk))
        return SQLITE_IOERR_WRITE;
    if (h->disk->full && at + n > f->size)
        return SQLITE_FULL;
    if (h->disk->fail_writes > 0) {
        h->disk->fail_writes--;
        return SQLITE_IOERR_WRITE;
    }
    file_reserve(f, at + n);
    memcpy(f->now + at, data, (size_t)n);
    for (int64_t b = at / BLOCK; b <= (at + n - 1) / BLOCK; b++)
        f->dirty[b] = 1;
    if (at + n > f->size)
        f->size = at + n;
    return SQLITE_OK;
}

static int sim_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    sim_handle *h = (sim_handle *)base;
    if (!disk_alive(h->disk))
        return SQLITE_IOERR_TRUNCATE;
    if (size < h->file->size) {
        memset(h->file->now + size, 0, (size_t)(h->file->size - size));
        for (int64_t b = size / BLOCK; b * BLOCK < h->file->size; b++)
            h->file->dirty[b] = 1;
        h->file->size = size;
    }
    return SQLITE_OK;
}

static int sim_sync(sqlite3_file *base, int flags)
{
    sim_handle *h = (sim_handle *)base;
    sim_file *f = h->file;
    (void)flags;
    if (!disk_alive(h->disk))
        return SQLITE_IOERR_FSYNC;
    int64_t end = f->size > f->safe_size ? f->size : f->safe_size;
    for (int64_t b = 0; b * BLOCK < end; b++)
        if (f->dirty[b]) {
            memcpy(f->safe + b * BLOCK, f->now + b * BLOCK, BLOCK);
            f->dirty[b] = 0;
        }
    f->safe_size = f->size;
    h->disk->syncs++;
    return SQLITE_OK;
}

static int sim_size(sqlite3_file *base, sqlite3_int64 *out)
{
    *out = ((sim_handle *)base)->file->size;
    return SQLITE_OK;
}

static int sim_lock(sqlite3_file *base, int level)
{
    (void)base;
    (void)level;
    return SQLITE_OK;
}

static int sim_reserved(sqlite3_file *base, int *out)
{
    (void)base;
    *out = 0;
    return SQLITE_OK;
}

static int sim_control(sqlite3_file *base, int op, void *arg)
{
    (void)base;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int sim_sector(sqlite3_file *base)
{
    (void)base;
    return SECTOR;
}

static int sim_characteristics(sqlite3_file *base)
{
    (void)base;
    return 0; /* promises nothing: no atomic writes, no safe appends */
}

/* Version 1: no shared memory, which the coordinator's exclusive mode does without. */
static const sqlite3_io_methods methods = {
    1,        sim_close,    sim_read,    sim_write,  sim_truncate,        sim_sync, sim_size, sim_lock,
    sim_lock, sim_reserved, sim_control, sim_sector, sim_characteristics, NULL,     NULL,     NULL,
    NULL,     NULL,         NULL};

/* ---- the file system */

static int sim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out_flags)
{
    sim_disk *d = vfs->pAppData;
    sim_handle *h = (sim_handle *)base;
    memset(h, 0, sizeof *h);
    if (d->die_in == 0)
        return SQLITE_CANTOPEN;
    sim_file *f = disk_find(d, name ? name : "temporary");
    for (int i = 0; !f && i < FILES && (flags & SQLITE_OPEN_CREATE); i++)
        if (!d->files[i].exists) {
            f = &d->files[i];
            snprintf(f->name, sizeof f->name, "%s", name ? name : "temporary");
            f->exists = true;
            file_reserve(f, 1);
        }
    if (!f)
        return SQLITE_CANTOPEN;
    h->base.pMethods = &methods;
    h->disk = d;
    h->file = f;
    if (out_flags)
        *out_flags = flags;
    return SQLITE_OK;
}

static void file_clear(sim_file *f)
{
    free(f->now);
    free(f->safe);
    free(f->dirty);
    memset(f, 0, sizeof *f);
}

static int sim_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    sim_disk *d = vfs->pAppData;
    (void)sync;
    if (!disk_alive(d))
        return SQLITE_IOERR_DELETE;
    sim_file *f = disk_find(d, name);
    if (!f)
        return SQLITE_IOERR_DELETE_NOENT;
    file_clear(f);
    return SQLITE_OK;
}

static int sim_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)flags;
    sim_file *f = disk_find(vfs->pAppData, name);
    *out = f && f->size > 0;
    return SQLITE_OK;
}

static int sim_path(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
    (void)vfs;
    snprintf(out, (size_t)n, "%s", name);
    return SQLITE_OK;
}

static int sim_randomness(sqlite3_vfs *vfs, int n, char *out)
{
    sim_disk *d = vfs->pAppData;
    for (int i = 0; i < n; i++)
        out[i] = (char)es_rng_u32(d->rng);
    return n;
}

static int sim_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int sim_time(sqlite3_vfs *vfs, double *out)
{
    (void)vfs;
    *out = 2460000.5;
    return SQLITE_OK;
}

static int sim_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    if (n > 0)
        out[0] = 0;
    return 0;
}

sim_disk *sim_disk_new(es_rng *rng, const char *vfs)
{
    sim_disk *d = es_xcalloc(1, sizeof *d);
    snprintf(d->name, sizeof d->name, "%s", vfs);
    d->rng = rng;
    d->die_in = -1;
    d->vfs = (sqlite3_vfs){.iVersion = 1,
                           .szOsFile = sizeof(sim_handle),
                           .mxPathname = NAME - 20,
                           .zName = d->name,
                           .pAppData = d,
                           .xOpen = sim_open,
                           .xDelete = sim_delete,
                           .xAccess = sim_access,
                           .xFullPathname = sim_path,
                           .xRandomness = sim_randomness,
                           .xSleep = sim_sleep,
                           .xCurrentTime = sim_time,
                           .xGetLastError = sim_last_error};
    sqlite3_vfs_register(&d->vfs, 0);
    return d;
}

void sim_disk_free(sim_disk **pd)
{
    sim_disk *d = *pd;
    sqlite3_vfs_unregister(&d->vfs);
    for (int i = 0; i < FILES; i++)
        file_clear(&d->files[i]);
    free(d);
    *pd = NULL;
}

void sim_disk_full(sim_disk *d, bool full) { d->full = full; }
void sim_disk_fail_writes(sim_disk *d, int count) { d->fail_writes = count; }
void sim_disk_die_after(sim_disk *d, int64_t operations) { d->die_in = operations; }
bool sim_disk_dead(const sim_disk *d) { return d->die_in == 0; }
int64_t sim_disk_torn(const sim_disk *d) { return d->torn; }
int64_t sim_disk_syncs(const sim_disk *d) { return d->syncs; }

/* Each block that was not synced: new, old, or some of its sectors new. The file's length: old or new. */
static void file_crash(sim_disk *d, sim_file *f)
{
    int64_t end = f->size > f->safe_size ? f->size : f->safe_size;
    for (int64_t b = 0; b * BLOCK < end; b++) {
        if (!f->dirty[b])
            continue;
        uint32_t fate = es_rng_below(d->rng, 3);
        d->torn += fate != 0;
        for (int s = 0; s < BLOCK / SECTOR; s++) {
            bool fresh = fate == 0 || (fate == 2 && es_rng_below(d->rng, 2));
            uint8_t *now = f->now + b * BLOCK + s * SECTOR, *safe = f->safe + b * BLOCK + s * SECTOR;
            memcpy(fresh ? safe : now, fresh ? now : safe, SECTOR);
        }
        f->dirty[b] = 0;
    }
    if (f->safe_size != f->size && es_rng_below(d->rng, 2))
        f->size = f->safe_size;
    f->safe_size = f->size;
    if (f->size < f->cap) {
        memset(f->now + f->size, 0, (size_t)(f->cap - f->size));
        memset(f->safe + f->size, 0, (size_t)(f->cap - f->size));
    }
}

void sim_disk_crash(sim_disk *d, bool power)
{
    d->die_in = -1;
    d->full = false;
    d->fail_writes = 0;
    for (int i = 0; power && i < FILES; i++)
        if (d->files[i].exists)
            file_crash(d, &d->files[i]);
}
