#include "daemon/backup/backup.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "daemon/store/folder.h"
#include "daemon/weights/weights.h"

enum { PIECE_PAGES = 256, THREAD_PAGES = 2048, IDLE_MS = 1000, LOOK_MS = 20 };

typedef enum phase { PHASE_IDLE, PHASE_STATE, PHASE_THREAD, PHASE_ENDED } phase;

struct dm_backup {
    dm_store *store;
    char weights_path[600];
    phase phase;
    dm_copy *copy;
    char partial[620];
    int64_t now_ms, began_ms;
    pthread_t thread;
    _Atomic bool stop, copied, over; /* copied: weights.db has been read */
    dm_backup_report report;
};

dm_backup *dm_backup_new(dm_store *store, const char *weights_path)
{
    dm_backup *b = es_xcalloc(1, sizeof *b);
    b->store = store;
    snprintf(b->weights_path, sizeof b->weights_path, "%s", weights_path);
    return b;
}

bool dm_backup_busy(const dm_backup *b) { return b->phase == PHASE_STATE || b->phase == PHASE_THREAD; }

bool dm_backup_holds(const dm_backup *b)
{
    return b->phase == PHASE_STATE || (b->phase == PHASE_THREAD && !atomic_load(&b->copied));
}

static bool folder_is_empty(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    while (d && readdir(d) && n < 3)
        n++;
    if (d)
        closedir(d);
    return n < 3; /* . and .. */
}

es_status dm_backup_start(dm_backup *b, const char *to, int64_t now_ms, es_error *err)
{
    char path[700], sealed[700];
    es_status s = ES_OK;
    if (b->phase != PHASE_IDLE)
        return es_fail(err, ES_BUSY, "backup", "one is under way, into %s", b->report.path);
    if (to[0] != '/' || strlen(to) > 500)
        return es_fail(err, ES_INVALID, "backup", "\"%.80s\" is no absolute path of at most 500 bytes", to);
    ES_RETURN(dm_backup_recover(to, err));
    snprintf(sealed, sizeof sealed, "%s/backup.json", to);
    if (es_file_exists(to) && !es_file_exists(sealed) && !folder_is_empty(to))
        return es_fail(err, ES_EXISTS, to, "is neither empty nor a backup: name another folder");
    memset(&b->report, 0, sizeof b->report);
    snprintf(b->report.path, sizeof b->report.path, "%s", to);
    snprintf(b->partial, sizeof b->partial, "%s.partial", to);
    b->now_ms = now_ms;
    b->began_ms = es_clock_mono_ms(es_clock_system());
    ES_RETURN(es_file_remove_tree(b->partial, err));
    ES_RETURN(es_file_mkdirs(b->partial, err));
    snprintf(path, sizeof path, "%s/state.db", b->partial);
    s = dm_copy_begin(dm_store_db(b->store), path, &b->copy, err);
    if (s == ES_OK)
        b->phase = PHASE_STATE;
    return s;
}

/* ---- the thread */

static bool told_to_stop(void *ctx) { return atomic_load(&((dm_backup *)ctx)->stop); }

static es_status copy_weights(dm_backup *b, es_error *err)
{
    char path[700];
    dm_weights *w = NULL;
    dm_copy *c = NULL;
    bool over = false;
    es_status s = ES_OK;
    snprintf(path, sizeof path, "%s/weights.db", b->partial);
    ES_GOTO(dm_weights_open(b->weights_path, &w, err));
    ES_GOTO(dm_copy_begin(dm_weights_db(w), path, &c, err));
    ES_GOTO(dm_copy_hold(c, err));
    while (!over) {
        if (told_to_stop(b))
            ES_GOTO(es_fail(err, ES_CANCELLED, "backup", "given up: the coordinator ends"));
        ES_GOTO(dm_copy_step(c, THREAD_PAGES, &over, err));
    }
fail:
    dm_copy_end(&c);
    dm_weights_close(&w);
    atomic_store(&b->copied, true);
    return s;
}

/* There is a whole backup of that name at every moment; where two names cannot be exchanged, dm_backup_recover finds it under another. */
static es_status replace(const char *partial, const char *to, es_error *err)
{
    char old[620];
    es_status s = dm_file_exchange(partial, to, err);
    if (s == ES_OK)
        return es_file_remove_tree(partial, err);
    if (s != ES_UNSUPPORTED)
        return s;
    snprintf(old, sizeof old, "%s.old.partial", to);
    ES_RETURN(es_file_remove_tree(old, err));
    ES_RETURN(dm_file_rename(to, old, err));
    ES_RETURN(dm_file_rename(partial, to, err));
    return es_file_remove_tree(old, err);
}

static es_status thread_work(dm_backup *b, es_error *err)
{
    const char *to = b->report.path;
    ES_RETURN(copy_weights(b, err));
    ES_RETURN(dm_backup_seal(b->partial, b->now_ms, told_to_stop, b, &b->report.info, err));
    return es_file_exists(to) ? replace(b->partial, to, err) /* empty, or an older backup: it goes only now */
                              : dm_file_rename(b->partial, to, err);
}

static void *thread_main(void *ctx)
{
    dm_backup *b = ctx;
    b->report.status = thread_work(b, &b->report.err);
    atomic_store(&b->over, true);
    return NULL;
}

/* ---- the main thread's part */

static void backup_end(dm_backup *b)
{
    es_error second;
    dm_copy_end(&b->copy);
    if (b->report.status != ES_OK)
        (void)!es_file_remove_tree(b->partial, &second);
    b->report.seconds = (double)(es_clock_mono_ms(es_clock_system()) - b->began_ms) / 1000;
    b->phase = PHASE_ENDED;
}

static void backup_piece(dm_backup *b)
{
    bool over = false;
    b->report.status = dm_copy_step(b->copy, PIECE_PAGES, &over, &b->report.err);
    if (b->report.status != ES_OK) {
        backup_end(b);
        return;
    }
    if (!over)
        return;
    dm_copy_end(&b->copy);
    atomic_store(&b->copied, false);
    atomic_store(&b->over, false);
    atomic_store(&b->stop, false);
    if (pthread_create(&b->thread, NULL, thread_main, b) != 0) {
        b->report.status = es_fail(&b->report.err, ES_NO_MEMORY, "backup", "no more threads");
        backup_end(b);
        return;
    }
    b->phase = PHASE_THREAD;
}

int dm_backup_turn(dm_backup *b)
{
    switch (b->phase) {
    case PHASE_IDLE: return IDLE_MS;
    case PHASE_STATE: backup_piece(b); return 0;
    case PHASE_THREAD:
        if (!atomic_load(&b->over))
            return LOOK_MS;
        pthread_join(b->thread, NULL);
        backup_end(b);
        return 0;
    case PHASE_ENDED: return 0;
    }
    return IDLE_MS;
}

bool dm_backup_ended(dm_backup *b, dm_backup_report *out)
{
    if (b->phase != PHASE_ENDED)
        return false;
    *out = b->report;
    b->phase = PHASE_IDLE;
    return true;
}

void dm_backup_destroy(dm_backup **pb)
{
    dm_backup *b = *pb;
    if (!b)
        return;
    atomic_store(&b->stop, true);
    if (b->phase == PHASE_THREAD) {
        pthread_join(b->thread, NULL);
        backup_end(b);
    } else if (b->phase == PHASE_STATE) {
        b->report.status = ES_CANCELLED;
        backup_end(b);
    }
    free(b);
    *pb = NULL;
}
