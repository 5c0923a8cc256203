#include "daemon/wire/ipc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *ipc_path(const char *endpoint)
{
    return strncmp(endpoint, "ipc://", 6) == 0 && endpoint[6] != '@' ? endpoint + 6 : NULL; /* @: no file, abstract */
}

es_status dm_ipc_check(const char *endpoint, es_error *err)
{
    const char *path = ipc_path(endpoint), *slash = path ? strrchr(path, '/') : NULL;
    char dir[256] = ".";
    struct stat st;
    uid_t us = geteuid();
    if (strncmp(endpoint, "ipc://@", 7) == 0) /* any user may connect to it, and listen there in our place */
        return es_fail(err, ES_DENIED, endpoint, "an abstract socket has no owner and no mode: name a path");
    if (!path)
        return ES_OK;
    if (slash)
        snprintf(dir, sizeof dir, "%.*s", slash > path ? (int)(slash - path) : 1, path);
    if (stat(dir, &st) != 0)
        return errno == ENOENT ? ES_OK : es_fail_errno(err, dir, "cannot look at the socket's folder");
    bool others = (st.st_mode & S_IWOTH) || ((st.st_mode & S_IWGRP) && st.st_gid != getegid() && st.st_gid != 0);
    if (others && !(st.st_mode & S_ISVTX))
        return es_fail(
            err, ES_DENIED, dir,
            "others may write in the folder of the socket (mode %03o) and could put their own there: chmod 700 "
            "it, or choose another folder",
            (unsigned)st.st_mode & 0777);
    if (us != 0 && st.st_uid != us && st.st_uid != 0 && !(st.st_mode & S_ISVTX))
        return es_fail(err, ES_DENIED, dir, "the folder of the socket belongs to another user (%u)",
                       (unsigned)st.st_uid);
    if (us != 0 && stat(path, &st) == 0 && st.st_uid != us && st.st_uid != 0)
        return es_fail(err, ES_DENIED, path, "the socket is another user's (%u): ipc:// is for programs of one user",
                       (unsigned)st.st_uid);
    return ES_OK;
}

es_status dm_ipc_guard(const char *endpoint, es_error *err)
{
    const char *path = ipc_path(endpoint);
    if (path && chmod(path, 0600) != 0)
        return es_fail_errno(err, path, "cannot close the socket to others");
    return ES_OK;
}

bool dm_ipc_peer_is_us(const char *address)
{
    static const char here[] = "localhost:";
    char *end = NULL;
    if (!address || strncmp(address, here, sizeof here - 1) != 0)
        return false;
    const char *digits = address + sizeof here - 1;
    errno = 0;
    unsigned long uid = strtoul(digits, &end, 10);
    return errno == 0 && end != digits && *end == ':' && (uid == geteuid() || uid == 0);
}
