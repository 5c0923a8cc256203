/* log.h - structured lines on standard error: every line has time, level, component, event, and what it is about as key=value.
 *
 *     es_log_init("worker", ES_LOG_INFO);
 *     es_log(ES_LOG_WARN, "lease lost job=%" PRId64 " attempt=%d: %s", job, attempt, why);
 *     // time=2026-11-22T23:16:18.123Z level=warn component=worker event="lease lost" job=7 attempt=2 detail="silent for 15 s"
 *     // {"time":"...","level":"warn","component":"worker","event":"lease lost","job":7,"attempt":2,"detail":"silent for 15 s"}   (es_log_json)
 *
 * The text of a call is its event, `key=value` pairs (lower case, no spaces in the value) anywhere in it, and after the first word that ends in a colon the
 * detail. Ids are named job, attempt, search, worker. A thread that works for a job says so once: es_log_context; its lines carry that, whoever writes them.
 *
 * Thread-safe; one write(2) a line, so that a file may be rotated by copying and truncating, or by renaming and a restart; under systemd's journal lines begin
 * with its priority. Before es_log_init the level is INFO. The hook runs under the lock and must not log. es_log_hook lets a worker keep the last
 * lines to send them with a failed job.
 */
#ifndef ES_BASE_LOG_H
#define ES_BASE_LOG_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum es_log_level { ES_LOG_DEBUG, ES_LOG_INFO, ES_LOG_WARN, ES_LOG_ERROR, ES_LOG_OFF } es_log_level;

void es_log_init(const char *component, es_log_level least);
bool es_log_level_parse(const char *name, es_log_level *out);
void es_log(es_log_level level, const char *fmt, ...) ES_PRINTF(2, 3);
void es_log_error(es_log_level level, const char *what, const es_error *err);
void es_log_json(bool yes);
/* Pairs for every later line of this thread ("job=7 search=2"); NULL or "": none. */
void es_log_context(const char *fmt, ...) ES_PRINTF(1, 2);
void es_log_hook(void (*hook)(void *ctx, es_log_level level, const char *line), void *ctx);

#ifdef __cplusplus
}
#endif
#endif
