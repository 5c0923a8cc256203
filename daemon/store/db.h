/* db.h - SQLite the way the coordinator uses it: durable, owned by one process, errors as es_status, statements prepared once.
 *
 *     dm_db *db; ES_GOTO(dm_db_open(&(dm_db_options){.path = "state.db", .schema = "state", .migrations = dm_state_sql, .exclusive = true}, &db, err));
 *     ES_GOTO(dm_db_begin(db, err));
 *     ES_GOTO(dm_db_run(db, "INSERT INTO job (id, kind) VALUES (?, ?)", err, "ii", id, kind));
 *     ES_GOTO(dm_db_commit(db, err));                      // on failure: dm_db_rollback, then rebuild what memory cached
 *
 *     dm_stmt *q; ES_GOTO(dm_db_query(db, &q, sql, err, "i", id));
 *     while ((s = dm_stmt_row(q, err)) == ES_OK) use(dm_stmt_i64(q, 0));     // ES_NOT_FOUND: no more rows
 *     dm_stmt_end(q);
 *
 * Invariants: SQL text is a string literal (statements are cached by its address); every query is ended before commit (asserted); transactions do
 * not nest. WAL, synchronous=FULL, foreign keys on. SQLITE_FULL is ES_DISK_FULL, a damaged file ES_CORRUPT, a file of another owner ES_BUSY.
 * One thread per dm_db.
 */
#ifndef DM_DB_H
#define DM_DB_H

#include "base/status.h"

struct sqlite3;
typedef struct dm_db dm_db;
typedef struct dm_stmt dm_stmt;

typedef struct dm_db_options {
    const char *path;
    const char *schema;            /* "state": for messages and the application id */
    const char *const *migrations; /* NULL-terminated, append-only: entry n brings schema n to n + 1 */
    bool exclusive;                /* nobody else may open it while we hold it */
    const char *vfs;               /* NULL: the system's */
    int busy_ms;                   /* wait so long for another connection's lock */
    int cache_kib;                 /* page cache; 0: 16 MiB */
    bool shrinks;                  /* a new file can give pages back (dm_db_shrink) */
} dm_db_options;

/* Creates or opens, checks the file's form, migrates. ES_VERSION when the file is of a newer program. */
es_status dm_db_open(const dm_db_options *o, dm_db **out, es_error *err) ES_MUST_CHECK;
void dm_db_close(dm_db **db);

es_status dm_db_begin(dm_db *db, es_error *err) ES_MUST_CHECK;
es_status dm_db_commit(dm_db *db, es_error *err) ES_MUST_CHECK;
void dm_db_rollback(dm_db *db);
bool dm_db_in_transaction(const dm_db *db);

/* Arguments by letter: i int64_t, d double, s const char * (NULL: null), b (const void *, size_t) (NULL pointer: null).
 * Texts and blobs are borrowed until dm_stmt_end. */
es_status dm_db_query(dm_db *db, dm_stmt **q, const char *sql, es_error *err, const char *types, ...) ES_MUST_CHECK;
/* Runs a statement that returns no row. */
es_status dm_db_run(dm_db *db, const char *sql, es_error *err, const char *types, ...) ES_MUST_CHECK;
/* One integer of one row; ES_NOT_FOUND when there is none. NULL reads as 0. */
es_status dm_db_get_i64(dm_db *db, int64_t *out, const char *sql, es_error *err, const char *types, ...) ES_MUST_CHECK;
int64_t dm_db_changes(const dm_db *db);      /* rows changed by the last dm_db_run */
int64_t dm_db_changes_ever(const dm_db *db); /* since it was opened */
int64_t dm_db_last_id(const dm_db *db);

es_status dm_stmt_row(dm_stmt *q, es_error *err) ES_MUST_CHECK; /* ES_NOT_FOUND: no more */
/* For loops over rows: false behind the last one (*s is ES_OK then) and on a failure (*s). */
bool dm_stmt_next(dm_stmt *q, es_status *s, es_error *err);
int64_t dm_stmt_i64(dm_stmt *q, int column);
double dm_stmt_f64(dm_stmt *q, int column); /* NULL: NaN */
bool dm_stmt_null(dm_stmt *q, int column);
const char *dm_stmt_text(dm_stmt *q, int column); /* borrowed until the next row; NULL reads as "" */
const void *dm_stmt_blob(dm_stmt *q, int column, size_t *n);
void dm_stmt_end(dm_stmt *q); /* NULL-safe */

const char *dm_db_path(const dm_db *db);
/* Gives at most 1,024 free pages back to the file system; *left are still free (0 in a file that was not made with `shrinks`: there they are used again). */
es_status dm_db_shrink(dm_db *db, int64_t *left, es_error *err) ES_MUST_CHECK;
/* Copies the whole database into a new file at `path`, while it is in use: what this connection writes between two steps is in the copy, what others
 * write after the first step is not. The copy is not on disk before dm_file_sync. */
typedef struct dm_copy dm_copy;
es_status dm_copy_begin(dm_db *db, const char *path, dm_copy **out, es_error *err) ES_MUST_CHECK;
/* Of a database that other connections write to as well: everything after this is of one moment, until dm_copy_end. */
es_status dm_copy_hold(dm_copy *c, es_error *err) ES_MUST_CHECK;
es_status dm_copy_step(dm_copy *c, int pages, bool *over, es_error *err) ES_MUST_CHECK;
void dm_copy_end(dm_copy **c); /* NULL-safe; also in the middle */
/* PRAGMA integrity_check: ES_CORRUPT with SQLite's first finding. */
es_status dm_db_check(dm_db *db, es_error *err) ES_MUST_CHECK;

#endif
