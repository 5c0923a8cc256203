#include "daemon/keep.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/backup/backup.h"

enum { ANSWERS = 8, FAILED_AGAIN_MS = 600000 };

/* A request for a backup, until it is answered and a while longer: its peer repeats it while it waits, and again when the answer got lost. */
typedef struct asked {
    dm_addr from;
    uint64_t id; /* 0: free */
    bool answered;
    es_error why; /* of the answer; code ES_OK: done, the text is the path */
} asked;

struct dm_keep {
    dm_coord *coord;
    dm_weights *weights;
    dm_data *data;
    dm_collect collect;
    dm_backup *backup;
    char folder[DM_CONFIG_TEXT + 8];
    int64_t every_ms, due_ms; /* wall; every 0: never */
    int64_t made_ms;          /* the newest; 0: none */
    int keep;
    bool automatic; /* the one under way */
    asked asked[ANSWERS];
    int asked_next;
};

dm_keep *dm_keep_new(dm_coord *coord, dm_weights *weights, dm_data *data, const char *weights_path)
{
    dm_keep *k = es_xcalloc(1, sizeof *k);
    k->coord = coord;
    k->weights = weights;
    k->data = data;
    k->backup = dm_backup_new(dm_coord_store(coord), weights_path);
    return k;
}

void dm_keep_destroy(dm_keep **k)
{
    if (!*k)
        return;
    dm_backup_destroy(&(*k)->backup);
    free(*k);
    *k = NULL;
}

static int64_t now_ms(void) { return es_clock_wall_ms(es_clock_system()); }

void dm_keep_set(dm_keep *k, const dm_config *c)
{
    k->collect.grace_ms = (int64_t)c->weights_grace_s * 1000;
    k->collect.at_ms = 0;
    dm_data_set_grace(k->data, k->collect.grace_ms);
    snprintf(k->folder, sizeof k->folder, "%s", c->backup_dir);
    k->every_ms = c->backup_every_s * 1000;
    k->keep = c->backup_keep;
    int64_t newest = dm_backup_newest_ms(k->folder);
    k->made_ms = newest;
    k->due_ms = (newest ? newest : now_ms()) + k->every_ms;
}

bool dm_keep_holds(const dm_keep *k) { return dm_backup_holds(k->backup); }

es_status dm_keep_backup(dm_keep *k, const dm_addr *from, uint64_t id, const char *dir, es_error *err)
{
    char path[600];
    for (int i = 0; i < ANSWERS; i++) {
        asked *a = &k->asked[i];
        if (!a->id || a->id != id || a->from.n != from->n || memcmp(a->from.id, from->id, from->n) != 0)
            continue;
        if (a->answered)
            dm_coord_done(k->coord, from, id, &a->why);
        return ES_OK;
    }
    snprintf(path, sizeof path, "%s", dir);
    if (!dir[0]) {
        ES_RETURN(es_file_mkdirs(k->folder, err));
        if (!dm_backup_busy(k->backup)) /* or what that has copied so far would go, too */
            dm_backup_prune(k->folder, k->keep);
        dm_backup_name(k->folder, now_ms(), path);
    }
    ES_RETURN(dm_backup_start(k->backup, path, now_ms(), err));
    k->automatic = !dir[0];
    k->asked[k->asked_next] = (asked){.from = *from, .id = id};
    k->asked_next = (k->asked_next + 1) % ANSWERS;
    return ES_OK;
}

static void keep_due(dm_keep *k)
{
    char path[600];
    es_error err;
    if (!k->every_ms || now_ms() < k->due_ms || dm_backup_busy(k->backup))
        return;
    k->automatic = true;
    k->due_ms = now_ms() + k->every_ms;
    es_status s = es_file_mkdirs(k->folder, &err);
    if (s == ES_OK) {
        dm_backup_prune(k->folder, k->keep);
        dm_backup_name(k->folder, now_ms(), path);
        s = dm_backup_start(k->backup, path, now_ms(), &err);
    }
    if (s != ES_OK)
        es_log_error(ES_LOG_ERROR, "backup failed", &err);
}

static void keep_ended(dm_keep *k, dm_backup_report *r)
{
    bool good = r->status == ES_OK;
    if (good) {
        es_log(ES_LOG_INFO, "backup made path=%s searches=%" PRId64 " versions=%" PRId64 " bytes=%" PRId64 " s=%.2f",
               r->path, r->info.searches, r->info.versions, r->info.state_bytes + r->info.weights_bytes, r->seconds);
        k->made_ms = r->info.made_ms;
        if (k->automatic)
            dm_backup_prune(k->folder, k->keep);
    } else {
        r->err.code = r->status;
        es_log_error(ES_LOG_ERROR, "backup failed", &r->err);
        if (k->every_ms && k->due_ms > now_ms() + FAILED_AGAIN_MS)
            k->due_ms = now_ms() + FAILED_AGAIN_MS;
    }
    for (int i = 0; i < ANSWERS; i++) {
        asked *a = &k->asked[i];
        if (!a->id || a->answered)
            continue;
        a->answered = true;
        a->why = r->err;
        if (good)
            a->why.code = ES_OK, snprintf(a->why.text, sizeof a->why.text, "%s", r->path);
        dm_coord_done(k->coord, &a->from, a->id, &a->why);
    }
}

static void metric(es_str *out, const char *name, const char *type, const char *help, double value)
{
    char number[32];
    es_str_addf(out, "# HELP espalier_%s %s\n# TYPE espalier_%s %s\nespalier_%s %s\n", name, help, name, type, name,
                es_str_double(value, number));
}

void dm_keep_metrics(dm_keep *k, es_str *out)
{
    dm_weights_size z;
    if (dm_weights_sizes(k->weights, &z, NULL) == ES_OK) {
        metric(out, "weights_versions", "gauge", "Weights versions in the store.", (double)z.versions);
        metric(out, "weights_orphans", "gauge", "Chunks that no version has, not collected yet.", (double)z.orphans);
        metric(out, "weights_bytes", "gauge", "Size of weights.db.", (double)(z.pages * z.page_bytes));
        metric(out, "weights_free_bytes", "gauge", "Of it, unused.", (double)(z.free_pages * z.page_bytes));
    }
    metric(out, "weights_dropped_total", "counter", "Weights versions let go since the start.",
           (double)k->collect.dropped);
    if (k->made_ms)
        metric(out, "backup_age_seconds", "gauge", "Age of the newest automatic or plain backup.",
               (double)(now_ms() - k->made_ms) / 1000);
}

int dm_keep_turn(dm_keep *k)
{
    dm_backup_report report;
    keep_due(k);
    int wait = dm_backup_turn(k->backup);
    if (dm_backup_ended(k->backup, &report))
        keep_ended(k, &report);
    k->collect.held = dm_backup_holds(k->backup);
    int collect = dm_collect_turn(&k->collect, dm_coord_store(k->coord), k->weights, k->data, es_clock_steady_ms(),
                                  es_clock_mono_ms(es_clock_system()));
    return collect < wait ? collect : wait;
}
