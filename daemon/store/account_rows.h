/* account_rows.h - worker time used, of searches and of users that have any (coord/fair.h).
 *
 *     dm_account_set_user(st, "anna", 81250, err);
 *     dm_account_user(st, "anna", &ms, err);                // 0: there is none
 *     dm_account_set_search(st, 17, 40125, err);            // read with the search's row
 */
#ifndef DM_ACCOUNT_ROWS_H
#define DM_ACCOUNT_ROWS_H

#include "daemon/store/store.h"

es_status dm_account_user(dm_store *st, const char *user, double *used_ms, es_error *err) ES_MUST_CHECK;
es_status dm_account_set_user(dm_store *st, const char *user, double used_ms, es_error *err) ES_MUST_CHECK;
es_status dm_account_drop_user(dm_store *st, const char *user, es_error *err) ES_MUST_CHECK;
es_status dm_account_set_search(dm_store *st, int64_t search, double used_ms, es_error *err) ES_MUST_CHECK;

#endif
