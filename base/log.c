#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAIRS_MAX = 24, LINE_MAX_BYTES = 2048 }; /* under PIPE_BUF, so a line written to a shared pipe stays whole */

static const char *const LEVELS[] = {"debug", "info", "warn", "error", "off"};

static struct {
    pthread_mutex_t lock; /* guards the rest but `least` */
    _Atomic int least;
    bool json, journal; /* journal: standard error is systemd's */
    char component[32];
    void (*hook)(void *ctx, es_log_level level, const char *line);
    void *hook_ctx;
} logger = {.lock = PTHREAD_MUTEX_INITIALIZER, .least = ES_LOG_INFO, .component = "espalier"};

/* Whether standard error is the journal's (systemd.exec(5): JOURNAL_STREAM is its device and inode). */
static bool is_journal(void)
{
    struct stat st;
    char own[64];
    const char *told = getenv("JOURNAL_STREAM");
    if (!told || fstat(STDERR_FILENO, &st) != 0)
        return false;
    snprintf(own, sizeof own, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(own, told) == 0;
}

void es_log_init(const char *component, es_log_level least)
{
    pthread_mutex_lock(&logger.lock);
    snprintf(logger.component, sizeof logger.component, "%s", component);
    logger.journal = is_journal();
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

void es_log_json(bool yes)
{
    pthread_mutex_lock(&logger.lock);
    logger.json = yes;
    pthread_mutex_unlock(&logger.lock);
}

static _Thread_local char context[160];

void es_log_context(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt ? fmt : "", ap);
    va_end(ap);
}

/* ---- a text into event, pairs, detail */

typedef struct pair {
    const char *key, *value;
    int key_n, value_n;
} pair;

typedef struct parts {
    char event[512];
    const char *detail; /* NULL: none */
    pair pairs[PAIRS_MAX];
    int n;
} parts;

/* Control characters would let a hostile name forge a line or drive a terminal. */
static void make_printable(char *line)
{
    for (unsigned char *p = (unsigned char *)line; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            *p = ' ';
}

static bool word_is_pair(const char *w, int n, pair *out)
{
    int k = 0;
    while (k < n && ((w[k] >= 'a' && w[k] <= 'z') || w[k] == '_' || (k > 0 && w[k] >= '0' && w[k] <= '9')))
        k++;
    if (k == 0 || k >= n - 1 || w[k] != '=')
        return false;
    *out = (pair){.key = w, .key_n = k, .value = w + k + 1, .value_n = n - k - 1};
    return true;
}

static bool has_key(const parts *p, const pair *x)
{
    for (int i = 0; i < p->n; i++)
        if (p->pairs[i].key_n == x->key_n && memcmp(p->pairs[i].key, x->key, (size_t)x->key_n) == 0)
            return true;
    return false;
}

static void split(const char *text, bool event, parts *p)
{
    size_t used = strlen(p->event);
    while (*text) {
        pair x;
        int n = (int)strcspn(text, " ");
        bool colon = event && n > 1 && text[n - 1] == ':', last = text[n] == 0;
        int m = n - (colon || (n > 1 && text[n - 1] == ','));
        if (word_is_pair(text, m, &x) && p->n < PAIRS_MAX) {
            if (!has_key(p, &x))
                p->pairs[p->n++] = x;
        } else if (event) {
            int k = snprintf(p->event + used, sizeof p->event - used, "%s%.*s", used ? " " : "", n - colon, text);
            used = used + (size_t)k < sizeof p->event ? used + (size_t)k : sizeof p->event - 1;
        }
        text += n + !last;
        if (colon && !last) {
            p->detail = text;
            return;
        }
    }
}

/* ---- parts into a line */

typedef struct line {
    char text[LINE_MAX_BYTES];
    size_t n;
} line;

static void put(line *l, const char *fmt, ...) ES_PRINTF(2, 3);
static void put(line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(l->text + l->n, sizeof l->text - l->n, fmt, ap);
    va_end(ap);
    l->n = k > 0 && l->n + (size_t)k < sizeof l->text ? l->n + (size_t)k : l->n + strlen(l->text + l->n);
}

/* In quotes, and cut so that the line still ends as it should. */
static void put_quoted(line *l, const char *text, int n)
{
    put(l, "\"");
    for (int i = 0; i < n && l->n < sizeof l->text - 16; i++)
        put(l, text[i] == '"' || text[i] == '\\' ? "\\%c" : "%c", text[i]);
    put(l, "\"");
}

static bool whole_number(const char *text, int n)
{
    int i = n > 1 && text[0] == '-';
    if (n > 18 || (text[i] == '0' && n > i + 1))
        return false;
    for (; i < n; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return true;
}

static void put_pair(line *l, bool json, const pair *x)
{
    if (l->n + (size_t)x->key_n + (size_t)x->value_n > sizeof l->text - 64)
        return;
    if (!json) {
        put(l, " %.*s=%.*s", x->key_n, x->key, x->value_n, x->value);
        return;
    }
    put(l, ",\"%.*s\":", x->key_n, x->key);
    if (whole_number(x->value, x->value_n))
        put(l, "%.*s", x->value_n, x->value);
    else
        put_quoted(l, x->value, x->value_n);
}

static void put_head(line *l, es_log_level level)
{
    static const char *const priority[] = {"<7>", "<6>", "<4>", "<3>"};
    struct timespec now;
    struct tm tm;
    char time[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &tm);
    if (logger.journal)
        put(l, "%s", priority[level]);
    put(l,
        logger.json ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"component\":\"%s\",\"event\":"
                    : "time=%s.%03ldZ level=%s component=%s event=",
        time, now.tv_nsec / 1000000, LEVELS[level], logger.component);
}

static void log_line(es_log_level level, char *text, const char *detail, const char *status)
{
    int saved = errno;
    line l = {.n = 0};
    parts p = {.detail = detail};
    make_printable(text);
    split(text, true, &p);
    split(context, false, &p);
    pthread_mutex_lock(&logger.lock);
    put_head(&l, level);
    put_quoted(&l, p.event, (int)strlen(p.event));
    for (int i = 0; i < p.n; i++)
        put_pair(&l, logger.json, &p.pairs[i]);
    if (status)
        put_pair(&l, logger.json,
                 &(pair){.key = "status", .key_n = 6, .value = status, .value_n = (int)strlen(status)});
    if (p.detail && p.detail[0] && l.n < sizeof l.text - 64) {
        put(&l, logger.json ? ",\"detail\":" : " detail=");
        put_quoted(&l, p.detail, (int)strlen(p.detail));
    }
    if (logger.json)
        put(&l, "}");
    if (logger.hook)
        logger.hook(logger.hook_ctx, level, logger.journal ? l.text + 3 : l.text);
    put(&l, "\n");
    /* A log that cannot be written has nobody to tell. */
    ssize_t ignored = write(STDERR_FILENO, l.text, l.n);
    (void)ignored;
    pthread_mutex_unlock(&logger.lock);
    errno = saved;
}

void es_log(es_log_level level, const char *fmt, ...)
{
    if ((int)level < atomic_load(&logger.least) || level >= ES_LOG_OFF)
        return;
    char text[LINE_MAX_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_line(level, text, NULL, NULL);
}

void es_log_error(es_log_level level, const char *what, const es_error *err)
{
    if ((int)level < atomic_load(&logger.least) || level >= ES_LOG_OFF)
        return;
    char text[256], detail[sizeof err->where + sizeof err->text + 4];
    snprintf(text, sizeof text, "%s", what);
    es_error_line(err, detail, sizeof detail);
    make_printable(detail);
    log_line(level, text, detail, es_status_name(err->code));
}

void es_log_hook(void (*hook)(void *ctx, es_log_level level, const char *line), void *ctx)
{
    pthread_mutex_lock(&logger.lock);
    logger.hook = hook;
    logger.hook_ctx = ctx;
    pthread_mutex_unlock(&logger.lock);
}
