/* folder.h - the folder of the databases: who owns it, and whole files in it.
 *
 *     int lock; dm_folder_lock(dir, &lock, err);            // ES_BUSY, with the process: another coordinator owns it; close(lock) gives it back
 */
#ifndef DM_FOLDER_H
#define DM_FOLDER_H

#include "base/hash.h"

/* One coordinator a folder. The lock goes with the process, however it ends. */
es_status dm_folder_lock(const char *dir, int *fd, es_error *err) ES_MUST_CHECK;
/* On disk, with its name: also after a power cut. Folders too. */
es_status dm_file_sync(const char *path, es_error *err) ES_MUST_CHECK;
/* `to` may be NULL: only the hash. Neither is kept in memory. */
es_status dm_file_copy(const char *from, const char *to, es_hash *hash, int64_t *bytes, es_error *err) ES_MUST_CHECK;
/* Two names of one folder, at once: nobody sees one of them gone. ES_UNSUPPORTED: not on this filesystem. */
es_status dm_file_exchange(const char *a, const char *b, es_error *err) ES_MUST_CHECK;
es_status dm_file_rename(const char *from, const char *to,
                         es_error *err) ES_MUST_CHECK; /* and syncs the folder of `to` */

#endif
