/* keep.h - the housekeeping of a running coordinator: unused weights go, backups are made when asked for and when they are due.
 *
 *     dm_keep *k = dm_keep_new(coord, weights, data, weights_path); dm_keep_set(k, &config);
 *     wait_ms = dm_keep_turn(k);                              // between turns of the coordinator
 *     dm_keep_backup(k, &from, request_id, dir, err);          // dm_env.backup: the answer comes through dm_coord_done
 *     dm_keep_destroy(&k);                                    // before what it was given
 */
#ifndef DM_KEEP_H
#define DM_KEEP_H

#include "daemon/config.h"
#include "daemon/weights/collect.h"

typedef struct dm_keep dm_keep;

dm_keep *dm_keep_new(dm_coord *coord, dm_weights *weights, dm_data *data, const char *weights_path); /* all borrowed */
void dm_keep_destroy(dm_keep **k);
void dm_keep_set(dm_keep *k, const dm_config *config); /* at the start and after a reload */
int dm_keep_turn(dm_keep *k);
void dm_keep_metrics(dm_keep *k, es_str *out);
/* Nothing that is not needed any more may go now: a backup is being read. */
bool dm_keep_holds(const dm_keep *k);
/* dir "": the folder of automatic backups. The same request again is the same backup. */
es_status dm_keep_backup(dm_keep *k, const dm_addr *from, uint64_t id, const char *dir, es_error *err) ES_MUST_CHECK;

#endif
