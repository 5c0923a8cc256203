/* gunzip.h - gzip content that is in memory, inflated into memory, with a limit.
 *
 *     char *plain; size_t n;
 *     if (es_is_gzip(bytes, size))
 *         ES_RETURN(es_gunzip("train.gz", bytes, size, 64 << 20, &plain, &n, err));      // the name is what messages begin with
 *
 * Members one behind the other are one content, as gzip(1) has it. What ends early, is damaged or is larger than max_bytes is refused.
 */
#ifndef ES_GUNZIP_H
#define ES_GUNZIP_H

#include "base/status.h"

bool es_is_gzip(const void *bytes, size_t n);
/* Caller frees *out, which has a zero byte behind its *size bytes. */
es_status es_gunzip(const char *name, const void *bytes, size_t n, size_t max_bytes, char **out, size_t *size,
                    es_error *err) ES_MUST_CHECK;

#endif
