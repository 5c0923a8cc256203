#include "worker/loglines.h"

#include "base/arena.h"
#include "base/log.h"

#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char kept[WK_LOG_BYTES];
static size_t used;
static bool fresh; /* since the last wk_loglines_tail */

static void keep(void *ctx, es_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    size_t n = strlen(line);
    bool ended = n && line[n - 1] == '\n';
    size_t need = n + !ended;
    if (need > sizeof kept / 2)
        return;
    pthread_mutex_lock(&lock);
    if (used + need > sizeof kept) { /* forget the older half, up to a line's end */
        size_t from = used + need - sizeof kept;
        const char *end = memchr(kept + from, '\n', used - from);
        from = end ? (size_t)(end - kept) + 1 : used;
        memmove(kept, kept + from, used - from);
        used -= from;
    }
    memcpy(kept + used, line, n);
    used += n;
    if (!ended)
        kept[used++] = '\n';
    fresh = true;
    pthread_mutex_unlock(&lock);
}

void wk_loglines_start(void) { es_log_hook(keep, NULL); }

char *wk_loglines_take(void)
{
    pthread_mutex_lock(&lock);
    char *out = es_xcalloc(1, used + 1);
    memcpy(out, kept, used);
    pthread_mutex_unlock(&lock);
    return out;
}

void wk_loglines_tail(char *out, size_t size)
{
    pthread_mutex_lock(&lock);
    size_t from = used >= size ? used - size + 1 : 0;
    if (from > 0) {
        const char *end = memchr(kept + from, '\n', used - from);
        from = end ? (size_t)(end - kept) + 1 : used;
    }
    size_t n = fresh ? used - from : 0;
    memcpy(out, kept + from, n);
    out[n] = 0;
    fresh = false;
    pthread_mutex_unlock(&lock);
}
