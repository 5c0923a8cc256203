#include "daemon/store/db.h"

#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "daemon/store/pagesum.h"

enum { DB_STATEMENTS = 512, DB_CHECK_BYTES_MAX = 64 << 20 };

struct dm_stmt {
    dm_db *db;
    const char *sql; /* the literal's address is the key */
    sqlite3_stmt *handle;
    bool busy;
};

struct dm_db {
    sqlite3 *handle;
    char path[512], schema[16], vfs[64];
    bool in_transaction;
    int open_queries;
    dm_stmt statements[DB_STATEMENTS]; /* open addressing by address */
    int used;
};

static es_status db_fail(dm_db *db, int rc, const char *doing, es_error *err)
{
    const char *text = db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc);
    if (rc == SQLITE_IOERR_DATA || (db->handle && sqlite3_extended_errcode(db->handle) == SQLITE_IOERR_DATA))
        return es_fail(err, ES_CORRUPT, db->path,
                       "%s: the database is damaged (a page is not as it was written); restore the last backup", doing);
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return es_fail(err, ES_DISK_FULL, db->path, "%s: the disk is full; nothing was acknowledged, make room", doing);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return es_fail(err, ES_CORRUPT, db->path, "%s: the database is damaged (%s); restore the last backup", doing,
                       text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return es_fail(err, ES_BUSY, db->path, "%s: another process holds the database (%s)", doing, text);
    case SQLITE_NOMEM: return es_fail(err, ES_NO_MEMORY, db->path, "%s: out of memory", doing);
    case SQLITE_CONSTRAINT: return es_fail(err, ES_EXISTS, db->path, "%s: %s", doing, text);
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM: return es_fail(err, ES_DENIED, db->path, "%s: cannot write here (%s)", doing, text);
    default: break;
    }
    /* A write that failed for want of room may surface as an input/output error of the operating system. */
    if ((rc & 0xff) == SQLITE_IOERR && db->handle && sqlite3_system_errno(db->handle) == ENOSPC)
        return es_fail(err, ES_DISK_FULL, db->path, "%s: the disk is full; nothing was acknowledged, make room", doing);
    return es_fail(err, ES_IO, db->path, "%s: %s", doing, text);
}

static es_status db_exec(dm_db *db, const char *sql, const char *doing, es_error *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? ES_OK : db_fail(db, rc, doing, err);
}

static es_status db_pragma_i64(dm_db *db, const char *sql, int64_t *out, es_error *err)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &st, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    *out = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
    sqlite3_finalize(st);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? ES_OK : db_fail(db, rc, "opening", err);
}

static es_status db_one_pragma_text(dm_db *db, const char *sql, char *out, size_t size, es_error *err)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &st, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    const unsigned char *t = rc == SQLITE_ROW ? sqlite3_column_text(st, 0) : NULL;
    snprintf(out, size, "%s", t ? (const char *)t : "");
    sqlite3_finalize(st);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? ES_OK : db_fail(db, rc, "checking", err);
}

es_status dm_db_check(dm_db *db, es_error *err)
{
    char text[300];
    ES_RETURN(db_one_pragma_text(db, "PRAGMA integrity_check(1)", text, sizeof text, err));
    if (strcmp(text, "ok") != 0)
        return es_fail(err, ES_CORRUPT, db->path, "the database is damaged (%s); restore the last backup", text);
    return ES_OK;
}

static int32_t db_application_id(const char *schema) /* "Es" and the schema's first letters */
{
    return 0x45730000 | schema[0] << 8 | schema[1];
}

/* A file that is not ours, or damaged, is refused before anything is written to it. */
static es_status db_identify(dm_db *db, int64_t *version, es_error *err)
{
    int64_t app, pages;
    ES_RETURN(db_pragma_i64(db, "PRAGMA application_id", &app, err));
    ES_RETURN(db_pragma_i64(db, "PRAGMA user_version", version, err));
    ES_RETURN(db_pragma_i64(db, "SELECT count(*) FROM sqlite_schema", &pages, err));
    if (pages == 0 && *version == 0)
        return ES_OK;
    if (app != db_application_id(db->schema))
        return es_fail(err, ES_CORRUPT, db->path, "this is not an Espalier %s database", db->schema);
    struct stat st;
    if (db->vfs[0] == 0 && stat(db->path, &st) == 0 && st.st_size > DB_CHECK_BYTES_MAX)
        return ES_OK; /* the whole check of a large file takes minutes: `espalierd --check` does it */
    return dm_db_check(db, err);
}

static es_status db_migrate(dm_db *db, const char *const *migrations, int64_t version, es_error *err)
{
    int64_t known = 0;
    while (migrations[known])
        known++;
    if (version > known)
        return es_fail(err, ES_VERSION, db->path,
                       "the database has schema %lld, this program knows up to %lld: use a newer espalierd",
                       (long long)version, (long long)known);
    for (int64_t v = version; v < known; v++) {
        char tail[160];
        snprintf(tail, sizeof tail, "PRAGMA user_version = %lld; PRAGMA application_id = %d;", (long long)v + 1,
                 (int)db_application_id(db->schema));
        ES_RETURN(db_exec(db, "BEGIN IMMEDIATE", "migrating", err));
        es_status s = db_exec(db, migrations[v], "migrating", err);
        if (s == ES_OK)
            s = db_exec(db, tail, "migrating", err);
        if (s == ES_OK)
            s = db_exec(db, "COMMIT", "migrating", err);
        if (s != ES_OK) {
            sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
            return s;
        }
    }
    return ES_OK;
}

/* A process that was killed may have left a commit in the log that was never synced: it can be read now, and be gone after a power cut. So it is synced before anybody
 * is told of it (copying the log back begins with that). A full disk may stop the copying, not the sync. */
static es_status db_settle(dm_db *db, es_error *err)
{
    int rc = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    return rc == SQLITE_OK || rc == SQLITE_FULL || rc == SQLITE_BUSY ? ES_OK : db_fail(db, rc, "syncing the log", err);
}

static es_status db_configure(dm_db *db, const dm_db_options *o, es_error *err)
{
    char sql[160], mode[32];
    sqlite3_busy_timeout(db->handle, o->busy_ms);
    if (o->exclusive)
        ES_RETURN(db_exec(db, "PRAGMA locking_mode = EXCLUSIVE", "opening", err));
    int64_t version;
    ES_RETURN(db_identify(db, &version, err));
    int sum = DM_PAGESUM_BYTES;
    if (!o->vfs && version == 0)
        sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_RESERVE_BYTES, &sum);
    if (o->shrinks && version == 0) /* only before the first table */
        ES_RETURN(db_exec(db, "PRAGMA auto_vacuum = INCREMENTAL", "opening", err));
    ES_RETURN(db_one_pragma_text(db, "PRAGMA journal_mode = WAL", mode, sizeof mode, err));
    if (strcmp(mode, "wal") != 0)
        return es_fail(err, ES_IO, db->path, "the file system does not allow a write-ahead log (journal mode is %s)",
                       mode);
    snprintf(
        sql, sizeof sql,
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -%d;",
        o->cache_kib ? o->cache_kib : 16 << 10);
    ES_RETURN(db_exec(db, sql, "opening", err));
    /* The log is copied back in larger portions than SQLite's default: each portion costs two syncs. */
    ES_RETURN(db_exec(db, "PRAGMA wal_autocheckpoint = 4000", "opening", err));
    ES_RETURN(db_settle(db, err));
    return db_migrate(db, o->migrations, version, err);
}

es_status dm_db_open(const dm_db_options *o, dm_db **out, es_error *err)
{
    dm_db *db = es_xcalloc(1, sizeof *db);
    es_status s = ES_OK;
    *out = NULL;
    snprintf(db->path, sizeof db->path, "%s", o->path);
    snprintf(db->schema, sizeof db->schema, "%s", o->schema);
    snprintf(db->vfs, sizeof db->vfs, "%s", o->vfs ? o->vfs : "");
    int rc = sqlite3_open_v2(o->path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                             o->vfs ? o->vfs : dm_pagesum_vfs());
    if (rc != SQLITE_OK) {
        s = db_fail(db, rc, "opening", err);
        goto fail;
    }
    sqlite3_extended_result_codes(db->handle, 1);
    ES_GOTO(db_configure(db, o, err));
    *out = db;
    return ES_OK;
fail:
    dm_db_close(&db);
    return s;
}

void dm_db_close(dm_db **pdb)
{
    dm_db *db = *pdb;
    if (!db)
        return;
    for (int i = 0; i < DB_STATEMENTS; i++)
        sqlite3_finalize(db->statements[i].handle);
    sqlite3_close(db->handle);
    free(db);
    *pdb = NULL;
}

bool dm_db_in_transaction(const dm_db *db) { return db->in_transaction; }
int64_t dm_db_changes(const dm_db *db) { return sqlite3_changes64(db->handle); }
int64_t dm_db_changes_ever(const dm_db *db) { return sqlite3_total_changes64(db->handle); }
int64_t dm_db_last_id(const dm_db *db) { return sqlite3_last_insert_rowid(db->handle); }

es_status dm_db_begin(dm_db *db, es_error *err)
{
    ES_ASSERT(!db->in_transaction);
    ES_RETURN(dm_db_run(db, "BEGIN IMMEDIATE", err, ""));
    db->in_transaction = true;
    return ES_OK;
}

es_status dm_db_commit(dm_db *db, es_error *err)
{
    ES_ASSERT(db->in_transaction && db->open_queries == 0);
    ES_RETURN(dm_db_run(db, "COMMIT", err, ""));
    db->in_transaction = false;
    return ES_OK;
}

void dm_db_rollback(dm_db *db)
{
    ES_ASSERT(db->open_queries == 0);
    if (db->in_transaction && !sqlite3_get_autocommit(db->handle)) /* some failures have rolled back already */
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    db->in_transaction = false;
}

static es_status db_statement(dm_db *db, const char *sql, dm_stmt **out, es_error *err)
{
    size_t at = ((uintptr_t)sql * 0x9e3779b97f4a7c15ull >> 32) % DB_STATEMENTS;
    while (db->statements[at].sql && db->statements[at].sql != sql)
        at = (at + 1) % DB_STATEMENTS;
    dm_stmt *q = &db->statements[at];
    if (!q->sql) {
        ES_ASSERT(db->used < DB_STATEMENTS - 8);
        int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &q->handle, NULL);
        if (rc != SQLITE_OK)
            return db_fail(db, rc, sql, err);
        q->sql = sql;
        q->db = db;
        db->used++;
    }
    ES_ASSERT(!q->busy);
    *out = q;
    return ES_OK;
}

static void db_bind(dm_stmt *q, const char *types, va_list ap)
{
    for (int i = 1; *types; types++, i++) {
        const void *p;
        size_t n;
        switch (*types) {
        case 'i': sqlite3_bind_int64(q->handle, i, va_arg(ap, int64_t)); break;
        case 'd': sqlite3_bind_double(q->handle, i, va_arg(ap, double)); break; /* NaN is stored as NULL */
        case 's':
            p = va_arg(ap, const char *);
            sqlite3_bind_text(q->handle, i, p, -1, SQLITE_STATIC);
            break;
        case 'b':
            p = va_arg(ap, const void *);
            n = va_arg(ap, size_t);
            sqlite3_bind_blob(q->handle, i, p, (int)n, SQLITE_STATIC);
            break;
        default: ES_ASSERT(!"argument letter");
        }
    }
}

es_status dm_db_query(dm_db *db, dm_stmt **out, const char *sql, es_error *err, const char *types, ...)
{
    va_list ap;
    *out = NULL;
    ES_RETURN(db_statement(db, sql, out, err));
    va_start(ap, types);
    db_bind(*out, types, ap);
    va_end(ap);
    (*out)->busy = true;
    db->open_queries++;
    return ES_OK;
}

static es_status db_run_once(dm_db *db, dm_stmt *q, int64_t *value, es_error *err)
{
    int rc = sqlite3_step(q->handle);
    if (rc == SQLITE_ROW && value)
        *value = sqlite3_column_int64(q->handle, 0);
    es_status s = rc == SQLITE_DONE ? ES_OK : rc == SQLITE_ROW ? ES_OK : db_fail(db, rc, "writing", err);
    if (value && rc == SQLITE_DONE)
        s = ES_NOT_FOUND;
    sqlite3_reset(q->handle);
    return s;
}

es_status dm_db_run(dm_db *db, const char *sql, es_error *err, const char *types, ...)
{
    va_list ap;
    dm_stmt *q;
    ES_RETURN(db_statement(db, sql, &q, err));
    va_start(ap, types);
    db_bind(q, types, ap);
    va_end(ap);
    return db_run_once(db, q, NULL, err);
}

es_status dm_db_get_i64(dm_db *db, int64_t *out, const char *sql, es_error *err, const char *types, ...)
{
    va_list ap;
    dm_stmt *q;
    *out = 0;
    ES_RETURN(db_statement(db, sql, &q, err));
    va_start(ap, types);
    db_bind(q, types, ap);
    va_end(ap);
    return db_run_once(db, q, out, err);
}

es_status dm_stmt_row(dm_stmt *q, es_error *err)
{
    int rc = sqlite3_step(q->handle);
    if (rc == SQLITE_ROW)
        return ES_OK;
    return rc == SQLITE_DONE ? ES_NOT_FOUND : db_fail(q->db, rc, "reading", err);
}

bool dm_stmt_next(dm_stmt *q, es_status *s, es_error *err)
{
    *s = dm_stmt_row(q, err);
    if (*s == ES_OK)
        return true;
    if (*s == ES_NOT_FOUND)
        *s = ES_OK;
    return false;
}

int64_t dm_stmt_i64(dm_stmt *q, int column) { return sqlite3_column_int64(q->handle, column); }
bool dm_stmt_null(dm_stmt *q, int column) { return sqlite3_column_type(q->handle, column) == SQLITE_NULL; }
double dm_stmt_f64(dm_stmt *q, int column)
{
    return dm_stmt_null(q, column) ? NAN : sqlite3_column_double(q->handle, column);
}

const char *dm_stmt_text(dm_stmt *q, int column)
{
    const unsigned char *t = sqlite3_column_text(q->handle, column);
    return t ? (const char *)t : "";
}

const void *dm_stmt_blob(dm_stmt *q, int column, size_t *n)
{
    const void *p = sqlite3_column_blob(q->handle, column);
    *n = (size_t)sqlite3_column_bytes(q->handle, column);
    return p;
}

void dm_stmt_end(dm_stmt *q)
{
    if (!q)
        return;
    ES_ASSERT(q->busy);
    sqlite3_reset(q->handle);
    q->busy = false;
    q->db->open_queries--;
}

const char *dm_db_path(const dm_db *db) { return db->path; }

es_status dm_db_shrink(dm_db *db, int64_t *left, es_error *err)
{
    int64_t mode;
    *left = 0;
    ES_RETURN(db_pragma_i64(db, "PRAGMA auto_vacuum", &mode, err));
    if (mode != 2)
        return ES_OK;
    ES_RETURN(db_exec(db, "PRAGMA incremental_vacuum(1024)", "shrinking", err));
    return db_pragma_i64(db, "PRAGMA freelist_count", left, err);
}

/* ---- copying */

struct dm_copy {
    dm_db *db;
    sqlite3 *to;
    sqlite3_backup *b;
    char path[600];
    bool reading; /* a read transaction holds still what other connections write */
};

static es_status copy_fail(dm_copy *c, int rc, es_error *err)
{
    int code = c->to ? sqlite3_errcode(c->to) : rc;
    bool full = (code & 0xff) == SQLITE_FULL || (rc & 0xff) == SQLITE_FULL;
    return es_fail(err, full ? ES_DISK_FULL : ES_IO, c->path, "copying %s: %s", c->db->path,
                   full ? "the disk is full" : sqlite3_errstr(rc));
}

es_status dm_copy_begin(dm_db *db, const char *path, dm_copy **out, es_error *err)
{
    dm_copy *c = *out = es_xcalloc(1, sizeof *c);
    es_status s = ES_OK;
    c->db = db;
    snprintf(c->path, sizeof c->path, "%s", path);
    int64_t page = 0;
    int rc = sqlite3_open_v2(path, &c->to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, dm_pagesum_vfs());
    int reserved = -1; /* asks */
    sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
    if (rc == SQLITE_OK && reserved == DM_PAGESUM_BYTES && db_pragma_i64(db, "PRAGMA page_size", &page, err) == ES_OK)
        dm_pagesum_expect(c->to, (int)page); /* its first pages may be written before the one that says so */
    if (rc == SQLITE_OK)                     /* of no use before it is whole: no journal, one sync at the end */
        rc = sqlite3_exec(c->to, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        c->b = sqlite3_backup_init(c->to, "main", db->handle, "main");
    if (!c->b)
        s = copy_fail(c, rc == SQLITE_OK ? sqlite3_errcode(c->to) : rc, err);
    if (s != ES_OK)
        dm_copy_end(out);
    return s;
}

es_status dm_copy_hold(dm_copy *c, es_error *err)
{
    ES_RETURN(db_exec(c->db, "BEGIN; SELECT count(*) FROM sqlite_schema", "copying", err));
    c->reading = true;
    return ES_OK;
}

es_status dm_copy_step(dm_copy *c, int pages, bool *over, es_error *err)
{
    int rc = sqlite3_backup_step(c->b, pages);
    *over = rc == SQLITE_DONE;
    return rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_BUSY || rc == SQLITE_LOCKED ? ES_OK
                                                                                            : copy_fail(c, rc, err);
}

void dm_copy_end(dm_copy **pc)
{
    dm_copy *c = *pc;
    if (!c)
        return;
    sqlite3_backup_finish(c->b);
    sqlite3_close(c->to);
    if (c->reading)
        sqlite3_exec(c->db->handle, "COMMIT", NULL, NULL, NULL);
    free(c);
    *pc = NULL;
}
