#include "daemon/store/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/arena.h"

enum { COPY_BYTES = 1 << 20 };

es_status dm_folder_lock(const char *dir, int *fd, es_error *err)
{
    char path[600], pid[32] = "";
    snprintf(path, sizeof path, "%s/espalierd.lock", dir);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0)
        return es_fail_errno(err, path, "cannot write in the folder of the databases");
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t n = pread(*fd, pid, sizeof pid - 1, 0);
        if (n > 0 && pid[n - 1] == '\n')
            pid[n - 1] = 0;
        close(*fd);
        *fd = -1;
        return es_fail(err, ES_BUSY, dir, "another espalierd (process %s) owns this folder", pid[0] ? pid : "unknown");
    }
    snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(*fd, 0) != 0 || pwrite(*fd, pid, strlen(pid), 0) < 0)
        return es_fail_errno(err, path, "cannot write in the folder of the databases");
    return ES_OK;
}

es_status dm_file_sync(const char *path, es_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return es_fail_errno(err, path, "cannot open");
    int rc = fsync(fd);
    es_status s = rc == 0 ? ES_OK : es_fail_errno(err, path, "cannot write");
    close(fd);
    return s;
}

static es_status copy_out(int fd, const char *to, const char *p, size_t n, es_error *err)
{
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0)
            return es_fail_errno(err, to, "cannot write");
        p += k;
        n -= (size_t)k;
    }
    return ES_OK;
}

es_status dm_file_copy(const char *from, const char *to, es_hash *hash, int64_t *bytes, es_error *err)
{
    char *buffer = es_xcalloc(1, COPY_BYTES);
    es_hasher *h = es_hasher_new();
    es_status s = ES_OK;
    ssize_t n = 0;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    *bytes = 0;
    if (in < 0)
        s = es_fail_errno(err, from, "cannot open");
    if (s == ES_OK && to && (out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0)
        s = es_fail_errno(err, to, "cannot create");
    while (s == ES_OK && (n = read(in, buffer, COPY_BYTES)) > 0) {
        es_hasher_add(h, buffer, (size_t)n);
        *bytes += n;
        if (to)
            s = copy_out(out, to, buffer, (size_t)n, err);
    }
    if (s == ES_OK && n < 0)
        s = es_fail_errno(err, from, "cannot read");
    if (s == ES_OK && to && fsync(out) != 0)
        s = es_fail_errno(err, to, "cannot write");
    es_hasher_end(&h, hash);
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    free(buffer);
    return s;
}

static es_status sync_folder_of(const char *path, es_error *err)
{
    char folder[600];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash && slash > path ? (int)(slash - path) : 1, slash ? path : ".");
    return dm_file_sync(folder, err);
}

es_status dm_file_rename(const char *from, const char *to, es_error *err)
{
    if (rename(from, to) != 0)
        return es_fail_errno(err, to, "cannot rename to it");
    return sync_folder_of(to, err);
}

es_status dm_file_exchange(const char *a, const char *b, es_error *err)
{
    if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0)
        return sync_folder_of(b, err);
    if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP)
        return es_fail(err, ES_UNSUPPORTED, b, "this filesystem cannot exchange two names");
    return es_fail_errno(err, b, "cannot exchange it with what replaces it");
}
