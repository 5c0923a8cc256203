#include "daemon/notify.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"

static void notify_send(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, n);
    if (path[0] == '@') /* an abstract name */
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

void dm_notify(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    notify_send(text);
}

void dm_notify_reloading(void)
{
    dm_notify("RELOADING=1\nMONOTONIC_USEC=%" PRId64, es_clock_mono_ns(es_clock_system()) / 1000);
}

int dm_notify_alive(void)
{
    static int64_t every_ms = -1, due_ms; /* the main thread's */
    int64_t now = es_clock_mono_ms(es_clock_system()), usec, pid;
    if (every_ms < 0) {
        const char *text = getenv("WATCHDOG_USEC"), *whose = getenv("WATCHDOG_PID");
        bool ours = !whose || (es_str_to_i64(whose, false, &pid) && pid == getpid());
        every_ms = text && ours && es_str_to_i64(text, false, &usec) && usec > 2000 ? usec / 2000 : 0;
    }
    if (!every_ms)
        return INT_MAX;
    if (now >= due_ms) {
        notify_send("WATCHDOG=1");
        due_ms = now + every_ms;
    }
    return (int)(due_ms - now);
}
