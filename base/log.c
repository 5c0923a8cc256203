#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048 }; /* under PIPE_BUF, so a line written to a shared pipe stays whole */

static const char *const LEVELS[] = {"debug", "info", "warn", "error", "off"};

static struct {
    pthread_mutex_t lock; /* guards the rest but `least` */
    _Atomic int least;
    char component[32];
    void (*hook)(void *ctx, es_log_level level, const char *line);
    void *hook_ctx;
} logger = {.lock = PTHREAD_MUTEX_INITIALIZER, .least = ES_LOG_INFO, .component = "espalier"};

void es_log_init(const char *component, es_log_level least)
{
    pthread_mutex_lock(&logger.lock);
    snprintf(logger.component, sizeof logger.component, "%s", component);
    pthread_mutex_unlock(&logger.lock);
    atomic_store(&logger.least, (int)least);
}

bool es_log_level_parse(const char *name, es_log_level *out)
{
    for (int i = 0; i <= ES_LOG_OFF; i++)
        if (strcmp(name, LEVELS[i]) == 0) {
            *out = (es_log_level)i;
            return true;
        }
    return false;
}

/* Control characters would let a hostile name forge a line or drive a terminal. */
static void make_printable(char *line)
{
    for (unsigned char *p = (unsigned char *)line; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            *p = ' ';
}

void es_log(es_log_level level, const char *fmt, ...)
{
    if ((int)level < atomic_load(&logger.least) || level >= ES_LOG_OFF)
        return;
    int saved = errno;
    char line[LINE_MAX_BYTES];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    pthread_mutex_lock(&logger.lock);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s %s: ", now.tv_nsec / 1000000, LEVELS[level],
                          logger.component);
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(line + n, sizeof line - n - 1, fmt, ap); /* one byte kept for the newline */
    va_end(ap);
    make_printable(line);
    if (logger.hook)
        logger.hook(logger.hook_ctx, level, line);
    n += k < 0 ? 0 : (size_t)k;
    if (n > sizeof line - 2)
        n = sizeof line - 2;
    line[n++] = '\n';
    /* A log that cannot be written has nobody to tell. */
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored;
    pthread_mutex_unlock(&logger.lock);
    errno = saved;
}

void es_log_error(es_log_level level, const char *what, const es_error *err)
{
    char line[sizeof err->where + sizeof err->text + 4];
    es_log(level, "%s: %s status=%s", what, es_error_line(err, line, sizeof line), es_status_name(err->code));
}

void es_log_hook(void (*hook)(void *ctx, es_log_level level, const char *line), void *ctx)
{
    pthread_mutex_lock(&logger.lock);
    logger.hook = hook;
    logger.hook_ctx = ctx;
    pthread_mutex_unlock(&logger.lock);
}
