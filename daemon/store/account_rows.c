#include "daemon/store/account_rows.h"

#include "daemon/store/internal.h"

es_status dm_account_user(dm_store *st, const char *user, double *used_ms, es_error *err)
{
    dm_stmt *q = NULL;
    *used_ms = 0;
    ES_RETURN(dm_db_query(st->db, &q, "SELECT used_ms FROM account WHERE user = ?", err, "s", user));
    es_status s = dm_stmt_row(q, err);
    if (s == ES_OK)
        *used_ms = dm_stmt_f64(q, 0);
    dm_stmt_end(q);
    return s == ES_NOT_FOUND ? ES_OK : s;
}

es_status dm_account_set_user(dm_store *st, const char *user, double used_ms, es_error *err)
{
    return dm_db_run(st->db,
                     "INSERT INTO account (user, used_ms) VALUES (?, ?)"
                     " ON CONFLICT (user) DO UPDATE SET used_ms = excluded.used_ms",
                     err, "sd", user, used_ms);
}

es_status dm_account_drop_user(dm_store *st, const char *user, es_error *err)
{
    return dm_db_run(st->db, "DELETE FROM account WHERE user = ?", err, "s", user);
}

es_status dm_account_set_search(dm_store *st, int64_t search, double used_ms, es_error *err)
{
    return dm_db_run(st->db, "UPDATE search SET used_ms = ? WHERE id = ?", err, "di", used_ms, search);
}
