#include "daemon/store/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

extern const char *const dm_state_sql[];

es_status dm_store_open(const char *path, const char *vfs, dm_store **out, es_error *err)
{
    dm_store *st = es_xcalloc(1, sizeof *st);
    dm_db_options o = {.path = path,
                       .schema = "state",
                       .migrations = dm_state_sql,
                       .exclusive = true,
                       .vfs = vfs,
                       .cache_kib = 48 << 10};
    es_status s = dm_db_open(&o, &st->db, err);
    if (s != ES_OK)
        dm_store_close(&st);
    *out = st;
    return s;
}

void dm_store_close(dm_store **st)
{
    if (!*st)
        return;
    dm_db_close(&(*st)->db);
    free(*st);
    *st = NULL;
}

es_status dm_store_begin(dm_store *st, es_error *err)
{
    st->counted = 0;
    st->count_failed = ES_OK;
    st->changes = dm_db_changes_ever(st->db);
    return dm_db_begin(st->db, err);
}

es_status dm_store_commit(dm_store *st, es_error *err)
{
    ES_RETURN(dm_store_flush_counts(st, err));
    return dm_db_commit(st->db, err);
}

void dm_store_rollback(dm_store *st)
{
    st->counted = 0;
    st->count_failed = ES_OK;
    dm_db_rollback(st->db);
}

bool dm_store_wrote(const dm_store *st) { return st->counted > 0 || dm_db_changes_ever(st->db) != st->changes; }
bool dm_store_in_transaction(const dm_store *st) { return dm_db_in_transaction(st->db); }

es_status dm_store_check(dm_store *st, es_error *err) { return dm_db_check(st->db, err); }

dm_db *dm_store_db(dm_store *st) { return st->db; }

void dm_store_on_move(dm_store *st, void (*fn)(void *ctx, int64_t job, int from, int to), void *ctx)
{
    st->on_move = fn;
    st->on_move_ctx = ctx;
}

void dm_store_count(dm_store *st, int64_t search, int state, int64_t by)
{
    int i = 0;
    while (i < st->counted && st->counts[i].search != search)
        i++;
    if (i == DM_COUNT_SLOTS) {
        es_status s = dm_store_flush_counts(st, NULL);
        if (st->count_failed == ES_OK)
            st->count_failed = s;
        i = st->counted = 0;
    }
    if (i == st->counted) {
        memset(&st->counts[i], 0, sizeof st->counts[i]);
        st->counts[i].search = search;
        st->counted++;
    }
    st->counts[i].delta[state] += by;
}

es_status dm_store_flush_counts(dm_store *st, es_error *err)
{
    if (st->count_failed != ES_OK)
        return es_fail(err, st->count_failed, NULL, "counting jobs failed earlier in this transaction");
    for (int i = 0; i < st->counted; i++) {
        const int64_t *d = st->counts[i].delta;
        if (!d[1] && !d[2] && !d[3] && !d[4] && !d[5] && !d[6])
            continue;
        ES_RETURN(
            dm_db_run(st->db,
                      "UPDATE search SET n_waiting = n_waiting + ?, n_ready = n_ready + ?, n_running = n_running + ?,"
                      " n_done = n_done + ?, n_failed = n_failed + ?, n_cancelled = n_cancelled + ? WHERE id = ?",
                      err, "iiiiiii", d[1], d[2], d[3], d[4], d[5], d[6], st->counts[i].search));
    }
    st->counted = 0;
    return ES_OK;
}

char *dm_store_dup(const char *text) { return text && text[0] ? es_xstrdup(text) : NULL; }

void dm_ids_add(dm_ids *l, int64_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 16;
        l->p = es_xrealloc(l->p, (size_t)l->cap * sizeof *l->p);
    }
    l->p[l->n++] = id;
}
