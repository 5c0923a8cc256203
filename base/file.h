/* file.h - whole files, safely.
 *
 * es_file_write replaces atomically: temporary file in the same directory, write, fsync, rename, fsync of the directory. A crash or a
 * full disk leaves the old content.
 */
#ifndef ES_BASE_FILE_H
#define ES_BASE_FILE_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads at most max_bytes (more is ES_INVALID with both numbers); gunzips transparently when the content is gzip. Caller frees *data, which
 * has one extra terminating zero byte. `size` may be NULL. */
es_status es_file_read(const char *path, size_t max_bytes, char **data, size_t *size, es_error *err) ES_MUST_CHECK;
es_status es_file_write(const char *path, const void *data, size_t size, es_error *err) ES_MUST_CHECK;
es_status es_file_mkdirs(const char *path, es_error *err) ES_MUST_CHECK; /* like mkdir -p */
int64_t es_file_bytes(const char *path);                                 /* -1: there is no such file */
bool es_file_exists(const char *path);
/* Like rm -rf: links are removed, not followed; what is not there is removed already. */
es_status es_file_remove_tree(const char *path, es_error *err) ES_MUST_CHECK;
/* Raises the process's limit of open files to what it may be; refuses to go on with fewer than `least`. */
es_status es_file_limit(unsigned least, es_error *err) ES_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
