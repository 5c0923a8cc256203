/* log.h - structured lines on standard error: time, level, component, text, key=value pairs.
 *
 *     es_log_init("worker", ES_LOG_INFO);
 *     es_log(ES_LOG_WARN, "lease lost job=%" PRId64 " attempt=%d", job, attempt);
 *
 * Thread-safe; one write(2) a line; before es_log_init the level is INFO. The hook runs under the lock and must not log. es_log_hook lets a worker keep the last lines to send them with a failed job.
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
void es_log_hook(void (*hook)(void *ctx, es_log_level level, const char *line), void *ctx);

#ifdef __cplusplus
}
#endif
#endif
