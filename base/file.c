#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/gunzip.h"

static es_status too_large(const char *path, size_t max_bytes, const char *size, es_error *err)
{
    return es_fail(err, ES_INVALID, path, "the content is %s bytes, at most %zu are allowed", size, max_bytes);
}

/* Reads everything fd gives; size_hint from fstat is right for plain files and 0 for pipes and /proc. */
static es_status read_all(int fd, const char *path, size_t max_bytes, size_t size_hint, char **out, size_t *size,
                          es_error *err)
{
    es_status s = ES_OK;
    size_t cap = size_hint + 1, len = 0;
    char *buf = malloc(cap + 1);
    if (!buf)
        return es_fail(err, ES_NO_MEMORY, path, "no memory for its %zu bytes", cap);
    for (;;) {
        if (len == cap) {
            cap = cap * 2 < 4096 ? 4096 : cap * 2;
            char *more = realloc(buf, cap + 1);
            if (!more) {
                s = es_fail(err, ES_NO_MEMORY, path, "no memory for its %zu bytes", cap);
                goto fail;
            }
            buf = more;
        }
        ssize_t n = read(fd, buf + len, cap - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            s = es_fail_errno(err, path, "cannot read");
            goto fail;
        }
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > max_bytes) {
            s = too_large(path, max_bytes, "more", err);
            goto fail;
        }
    }
    buf[len] = '\0';
    *out = buf;
    *size = len;
    return ES_OK;
fail:
    free(buf);
    return s;
}

es_status es_file_read(const char *path, size_t max_bytes, char **data, size_t *size, es_error *err)
{
    es_status s = ES_OK;
    char *raw = NULL;
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return es_fail_errno(err, path, "cannot open");
    struct stat st;
    if (fstat(fd, &st) != 0) {
        s = es_fail_errno(err, path, "cannot read");
        goto fail;
    }
    if (S_ISDIR(st.st_mode)) {
        s = es_fail(err, ES_INVALID, path, "is a directory, a file is expected");
        goto fail;
    }
    if (st.st_size > 0 && (uintmax_t)st.st_size > max_bytes) {
        char text[32];
        snprintf(text, sizeof text, "%jd", (intmax_t)st.st_size);
        s = too_large(path, max_bytes, text, err);
        goto fail;
    }
    ES_GOTO(read_all(fd, path, max_bytes, (size_t)st.st_size, &raw, &n, err));
    if (es_is_gzip(raw, n)) {
        char *plain = NULL;
        size_t plain_n = 0;
        ES_GOTO(es_gunzip(path, raw, n, max_bytes, &plain, &plain_n, err));
        free(raw);
        raw = plain;
        n = plain_n;
    }
    *data = raw;
    if (size)
        *size = n;
    raw = NULL;
fail:
    free(raw);
    close(fd);
    return s;
}

/* The directory a path is in, "." when it has none. */
static void parent_of(const char *path, char *dir, size_t size)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(dir, size, ".");
    else
        snprintf(dir, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static es_status write_all(int fd, const char *path, const char *p, size_t n, es_error *err)
{
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return es_fail_errno(err, path, "cannot write");
        p += k;
        n -= (size_t)k;
    }
    return ES_OK;
}

es_status es_file_write(const char *path, const void *data, size_t size, es_error *err)
{
    es_status s = ES_OK;
    int fd = -1, dirfd = -1;
    char tmp[PATH_MAX] = "", dir[PATH_MAX];
    if (strlen(path) + 12 >= sizeof tmp)
        return es_fail(err, ES_INVALID, path, "the path is too long");
    snprintf(tmp, sizeof tmp, "%s.XXXXXX", path);
    parent_of(path, dir, sizeof dir);
    fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0) {
        tmp[0] = '\0';
        s = es_fail_errno(err, path, "cannot create a file in %s", dir);
        goto fail;
    }
    /* mkostemp makes it private; a result is as readable as any new file. */
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(fd, 0666 & ~mask) != 0) {
        s = es_fail_errno(err, path, "cannot set its mode");
        goto fail;
    }
    ES_GOTO(write_all(fd, path, data, size, err));
    /* On some file systems a full disk shows only here. */
    if (fsync(fd) != 0 || close(fd) != 0) {
        fd = -1;
        s = es_fail_errno(err, path, "cannot write");
        goto fail;
    }
    fd = -1;
    if (rename(tmp, path) != 0) {
        s = es_fail_errno(err, path, "cannot replace");
        goto fail;
    }
    tmp[0] = '\0';
    dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0 || (fsync(dirfd) != 0 && errno != EINVAL)) /* EINVAL: a file system without directory sync */
        s = es_fail_errno(err, dir, "cannot sync the directory");
fail:
    if (fd >= 0)
        close(fd);
    if (dirfd >= 0)
        close(dirfd);
    if (tmp[0])
        unlink(tmp);
    return s;
}

es_status es_file_mkdirs(const char *path, es_error *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return es_fail(err, ES_INVALID, path, "the path is %s", n ? "too long" : "empty");
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) == 0)
            continue;
        int e = errno;
        struct stat st;
        if (stat(part, &st) == 0) {
            if (S_ISDIR(st.st_mode))
                continue;
            return es_fail(err, ES_EXISTS, path, "%s exists and is not a directory", part);
        }
        errno = e;
        return es_fail_errno(err, path, "cannot make the directory %s", part);
    }
    return ES_OK;
}

int64_t es_file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

bool es_file_exists(const char *path) { return access(path, F_OK) == 0; }

/* Works on directory handles, so a path swapped for a link meanwhile cannot lead outside. Takes fd. */
static es_status remove_inside(int fd, const char *path, int depth, es_error *err)
{
    es_status s = ES_OK;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        s = es_fail_errno(err, path, "cannot read the directory");
        close(fd);
        return s;
    }
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(dir);
        if (!e) {
            if (errno)
                s = es_fail_errno(err, path, "cannot read the directory");
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || unlinkat(fd, e->d_name, 0) == 0)
            continue;
        int inner = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (inner < 0) {
            s = es_fail_errno(err, path, "cannot remove %s", e->d_name);
            break;
        }
        if (depth == 0) {
            close(inner);
            s = es_fail(err, ES_INVALID, path, "directories are nested too deeply to remove");
            break;
        }
        ES_GOTO(remove_inside(inner, path, depth - 1, err));
        if (unlinkat(fd, e->d_name, AT_REMOVEDIR) != 0) {
            s = es_fail_errno(err, path, "cannot remove %s", e->d_name);
            break;
        }
    }
fail:
    closedir(dir);
    return s;
}

es_status es_file_remove_tree(const char *path, es_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return unlink(path) == 0 ? ES_OK : es_fail_errno(err, path, "cannot remove");
    if (fd < 0)
        return errno == ENOENT ? ES_OK : es_fail_errno(err, path, "cannot open the directory");
    ES_RETURN(remove_inside(fd, path, 64, err));
    return rmdir(path) == 0 ? ES_OK : es_fail_errno(err, path, "cannot remove");
}

es_status es_file_limit(unsigned least, es_error *err)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return es_fail_errno(err, NULL, "cannot ask for the limit of open files");
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur < least)
        return es_fail(err, ES_IO, NULL,
                       "at most %llu file descriptors are allowed here, %u are needed: raise `ulimit -n`",
                       (unsigned long long)r.rlim_cur, least);
    return ES_OK;
}
