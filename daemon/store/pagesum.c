#include "daemon/store/pagesum.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { EXPECT = 0x45730001, PAGE_MAX = 65536 }; /* EXPECT: a file control of our own */

/* Our part of an open database file; the system's follows it in memory. Other files (logs, temporary ones) are the system's alone. */
typedef struct sum_file {
    sqlite3_file base;
    int page_bytes; /* 0: not known yet, or without sums */
    uint8_t *scratch;
} sum_file;

static sqlite3_vfs vfs, *root;

static sqlite3_file *real(sqlite3_file *f) { return (sqlite3_file *)((sum_file *)f + 1); }

/* Two sums of 32-bit words, as Fletcher's, modulo 2^32: one wrong bit changes both, and a page in the wrong place has another number. */
static void sum_page(const uint8_t *page, int n, uint32_t number, uint8_t out[DM_PAGESUM_BYTES])
{
    uint32_t a = number * 2654435761u + 1, b = ~number;
    for (int i = 0; i + 8 <= n; i += 8) {
        uint32_t w[2];
        memcpy(w, page + i, sizeof w);
        a += w[0] + b;
        b += w[1] + a;
    }
    memcpy(out, &a, 4);
    memcpy(out + 4, &b, 4);
}

/* The file's first bytes say how long its pages are and whether they have room for a sum. */
static void learn(sum_file *f, const uint8_t *head)
{
    int n = head[16] << 8 | head[17];
    n = n == 1 ? PAGE_MAX : n;
    if (memcmp(head, "SQLite format 3", 16) == 0 && n >= 512)
        f->page_bytes = head[20] == DM_PAGESUM_BYTES ? n : 0;
}

static bool whole_page(const sum_file *f, int n, sqlite3_int64 at)
{
    return f->page_bytes && n == f->page_bytes && at % n == 0;
}

static bool all_zero(const uint8_t *p, int n)
{
    for (int i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static int sum_read(sqlite3_file *file, void *to, int n, sqlite3_int64 at)
{
    sum_file *f = (sum_file *)file;
    uint8_t sum[DM_PAGESUM_BYTES];
    int rc = real(file)->pMethods->xRead(real(file), to, n, at);
    if (rc != SQLITE_OK)
        return rc;
    if (at == 0 && n >= 24)
        learn(f, to);
    if (!whole_page(f, n, at))
        return SQLITE_OK;
    sum_page(to, n - DM_PAGESUM_BYTES, (uint32_t)(at / n), sum);
    /* A page that was given room but never written is all zeros. */
    if (memcmp(sum, (uint8_t *)to + n - DM_PAGESUM_BYTES, sizeof sum) != 0 && !all_zero(to, n))
        return SQLITE_IOERR_DATA;
    return SQLITE_OK;
}

static int sum_write(sqlite3_file *file, const void *from, int n, sqlite3_int64 at)
{
    sum_file *f = (sum_file *)file;
    if (at == 0 && n >= 24)
        learn(f, from);
    if (!whole_page(f, n, at))
        return real(file)->pMethods->xWrite(real(file), from, n, at);
    if (!f->scratch && !(f->scratch = malloc(PAGE_MAX)))
        return SQLITE_IOERR_NOMEM;
    memcpy(f->scratch, from, (size_t)n);
    sum_page(f->scratch, n - DM_PAGESUM_BYTES, (uint32_t)(at / n), f->scratch + n - DM_PAGESUM_BYTES);
    return real(file)->pMethods->xWrite(real(file), f->scratch, n, at);
}

static int sum_control(sqlite3_file *file, int op, void *arg)
{
    if (op == EXPECT) {
        ((sum_file *)file)->page_bytes = *(int *)arg;
        return SQLITE_OK;
    }
    return real(file)->pMethods->xFileControl(real(file), op, arg);
}

static int sum_close(sqlite3_file *file)
{
    free(((sum_file *)file)->scratch);
    return real(file)->pMethods->xClose(real(file));
}

/* ---- the rest is passed on */

#define M real(f)->pMethods
static int sum_truncate(sqlite3_file *f, sqlite3_int64 n) { return M->xTruncate(real(f), n); }
static int sum_sync(sqlite3_file *f, int flags) { return M->xSync(real(f), flags); }
static int sum_size(sqlite3_file *f, sqlite3_int64 *n) { return M->xFileSize(real(f), n); }
static int sum_lock(sqlite3_file *f, int level) { return M->xLock(real(f), level); }
static int sum_unlock(sqlite3_file *f, int level) { return M->xUnlock(real(f), level); }
static int sum_reserved(sqlite3_file *f, int *out) { return M->xCheckReservedLock(real(f), out); }
static int sum_sector(sqlite3_file *f) { return M->xSectorSize(real(f)); }
static int sum_traits(sqlite3_file *f) { return M->xDeviceCharacteristics(real(f)); }
static int sum_shm_map(sqlite3_file *f, int i, int n, int more, void volatile **out)
{
    return M->xShmMap(real(f), i, n, more, out);
}
static int sum_shm_lock(sqlite3_file *f, int at, int n, int flags) { return M->xShmLock(real(f), at, n, flags); }
static void sum_shm_barrier(sqlite3_file *f) { M->xShmBarrier(real(f)); }
static int sum_shm_unmap(sqlite3_file *f, int gone) { return M->xShmUnmap(real(f), gone); }
#undef M

/* Version 2: no memory mapping, which would read past us. */
static const sqlite3_io_methods methods = {.iVersion = 2,
                                           .xClose = sum_close,
                                           .xRead = sum_read,
                                           .xWrite = sum_write,
                                           .xTruncate = sum_truncate,
                                           .xSync = sum_sync,
                                           .xFileSize = sum_size,
                                           .xLock = sum_lock,
                                           .xUnlock = sum_unlock,
                                           .xCheckReservedLock = sum_reserved,
                                           .xFileControl = sum_control,
                                           .xSectorSize = sum_sector,
                                           .xDeviceCharacteristics = sum_traits,
                                           .xShmMap = sum_shm_map,
                                           .xShmLock = sum_shm_lock,
                                           .xShmBarrier = sum_shm_barrier,
                                           .xShmUnmap = sum_shm_unmap};

static int sum_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)v;
    if (!(flags & SQLITE_OPEN_MAIN_DB))
        return root->xOpen(root, name, file, flags, out);
    memset(file, 0, sizeof(sum_file));
    int rc = root->xOpen(root, name, real(file), flags, out);
    if (real(file)->pMethods)
        file->pMethods = &methods;
    return rc;
}

/* The system's functions are handed the system's own object. */
static int sum_delete(sqlite3_vfs *v, const char *name, int sync)
{
    (void)v;
    return root->xDelete(root, name, sync);
}
static int sum_access(sqlite3_vfs *v, const char *name, int flags, int *out)
{
    (void)v;
    return root->xAccess(root, name, flags, out);
}
static int sum_full(sqlite3_vfs *v, const char *name, int n, char *out)
{
    (void)v;
    return root->xFullPathname(root, name, n, out);
}
static int sum_last_error(sqlite3_vfs *v, int n, char *out)
{
    (void)v;
    return root->xGetLastError ? root->xGetLastError(root, n, out) : 0;
}

static void make_vfs(void)
{
    root = sqlite3_vfs_find(NULL);
    vfs = *root; /* clock, randomness, libraries */
    vfs.pNext = NULL;
    vfs.zName = "espalier-pagesum";
    vfs.szOsFile = root->szOsFile + (int)sizeof(sum_file);
    vfs.xOpen = sum_open;
    vfs.xDelete = sum_delete;
    vfs.xAccess = sum_access;
    vfs.xFullPathname = sum_full;
    vfs.xGetLastError = sum_last_error;
    sqlite3_vfs_register(&vfs, 0);
}

const char *dm_pagesum_vfs(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_vfs);
    return vfs.zName;
}

void dm_pagesum_expect(sqlite3 *db, int page_bytes) { sqlite3_file_control(db, "main", EXPECT, &page_bytes); }
