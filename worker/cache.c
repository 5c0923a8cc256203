#include "worker/cache.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct wk_cache {
    int dir;
    pthread_mutex_t lock; /* of what follows, and of writing: jobs run side by side */
    uint64_t max, bytes;
    bool failing; /* said so already */
};

typedef struct kept {
    char name[ES_HASH_HEX];
    struct timespec used;
    uint64_t bytes;
} kept;

static int older(const void *a, const void *b)
{
    const kept *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    return x->used.tv_nsec < y->used.tv_nsec ? -1 : x->used.tv_nsec > y->used.tv_nsec;
}

/* Counts what is there, and removes the least recently used files while there is more than `allowed`. */
static void trim(wk_cache *c, uint64_t allowed)
{
    int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    size_t n = 0, cap = 0;
    kept *list = NULL;
    c->bytes = 0;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(c->dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (strlen(e->d_name) != ES_HASH_HEX - 1) { /* half a file, left by a killed worker */
            if (strlen(e->d_name) > ES_HASH_HEX - 1 && strstr(e->d_name, ".part"))
                unlinkat(c->dir, e->d_name, 0);
            continue;
        }
        if (n == cap)
            list = es_xrealloc(list, (cap = cap ? cap * 2 : 256) * sizeof *list);
        memcpy(list[n].name, e->d_name, ES_HASH_HEX);
        list[n].used = st.st_mtim;
        list[n++].bytes = (uint64_t)st.st_size;
        c->bytes += (uint64_t)st.st_size;
    }
    closedir(d);
    if (c->bytes > allowed && n)
        qsort(list, n, sizeof *list, older);
    for (size_t i = 0; i < n && c->bytes > allowed; i++) {
        if (unlinkat(c->dir, list[i].name, 0) == 0)
            c->bytes -= list[i].bytes;
    }
    free(list);
}

es_status wk_cache_open(const char *dir, uint64_t bytes_max, wk_cache **out, es_error *err)
{
    *out = NULL;
    ES_RETURN(es_file_mkdirs(dir, err));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return es_fail_errno(err, dir, "cannot open the cache directory");
    if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) != 0) {
        es_status s = es_fail_errno(err, dir, "cannot write to the cache directory");
        close(fd);
        return s;
    }
    wk_cache *c = es_xcalloc(1, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    c->dir = fd;
    c->max = bytes_max;
    trim(c, c->max);
    *out = c;
    return ES_OK;
}

void wk_cache_close(wk_cache **c)
{
    if (!*c)
        return;
    close((*c)->dir);
    pthread_mutex_destroy(&(*c)->lock);
    free(*c);
    *c = NULL;
}

uint64_t wk_cache_bytes(const wk_cache *c) { return c->bytes; }

static size_t cache_get(void *ctx, const es_hash *h, void *data, size_t max)
{
    wk_cache *c = ctx;
    char name[ES_HASH_HEX];
    es_hash_hex(h, name);
    int fd = openat(c->dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size_t n = 0;
    ssize_t r;
    while (n < max && (r = read(fd, (char *)data + n, max - n)) != 0) {
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            break;
        n += (size_t)r;
    }
    futimens(fd, (const struct timespec[2]){{0, UTIME_NOW}, {0, UTIME_NOW}});
    close(fd);
    return n;
}

static void put_locked(wk_cache *c, const es_hash *h, const void *data, size_t n)
{
    if (n > c->max / 2)
        return;
    if (c->bytes + n > c->max)
        trim(c, c->max - c->max / 10 - n);
    char name[ES_HASH_HEX], part[ES_HASH_HEX + 32];
    es_hash_hex(h, name);
    snprintf(part, sizeof part, "%s.part%d", name, (int)getpid());
    int fd = openat(c->dir, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t done = 0;
    while (fd >= 0 && done < n) {
        ssize_t w = write(fd, (const char *)data + done, n - done);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            break;
        done += (size_t)w;
    }
    int e = errno;
    if (fd >= 0)
        close(fd);
    errno = e;
    if (done < n || renameat(c->dir, part, c->dir, name) != 0) {
        es_error why;
        (void)es_fail_errno(&why, name, "chunk not kept in the cache, work goes on without");
        if (!c->failing)
            es_log_error(ES_LOG_WARN, "cache", &why);
        c->failing = true;
        unlinkat(c->dir, part, 0);
        return;
    }
    c->failing = false;
    c->bytes += n;
}

static void cache_put(void *ctx, const es_hash *h, const void *data, size_t n)
{
    wk_cache *c = ctx;
    pthread_mutex_lock(&c->lock);
    put_locked(c, h, data, n);
    pthread_mutex_unlock(&c->lock);
}

dm_chunk_cache wk_cache_chunks(wk_cache *c)
{
    return c ? (dm_chunk_cache){.ctx = c, .get = cache_get, .put = cache_put} : (dm_chunk_cache){0};
}
