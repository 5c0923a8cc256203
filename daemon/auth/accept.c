#include "daemon/auth/accept.h"
#include "daemon/auth/backlog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic int usable = 1 << 30; /* descriptors below it may be peers */
static int limit;

void dm_accept_keep(int spare)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return;
    limit = r.rlim_cur > 1 << 30 ? 1 << 30 : (int)r.rlim_cur;
    atomic_store(&usable, limit - spare);
}

int dm_accept_limit(void) { return limit; }

/* The kernel gives the lowest free number. */
bool dm_accept_short(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? errno == EMFILE : fd >= atomic_load(&usable);
}

int accept4(int socket, struct sockaddr *restrict address, socklen_t *restrict n, int flags)
{
    int fd = (int)syscall(SYS_accept4, socket, address, n, flags);
    if (fd >= atomic_load(&usable)) {
        close(fd);
        errno = ECONNABORTED;
        return -1;
    }
    if (fd < 0 && errno == EMFILE) /* which ZeroMQ does not expect; the other one it does */
        errno = ENFILE;
    dm_backlog_accepted(fd);
    return fd;
}
