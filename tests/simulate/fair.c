/* Fair shares, checked at every lease against accounts of our own. They follow the rule that docs/protocol.md states, from what can be seen from outside: which
 * job was leased and ended when, whose it is, and what each worker said. Nothing is asked of the coordinator's accounts.
 *
 *     whoever has used least worker time is next, the user first, then his search
 *     a lease counts from its start what such a job took before (1 s before any did), and from its end what it took (one that was lost: until it was last heard)
 *     who comes new starts level with the lowest; accounts fade by half in half an hour
 *     a coordinator that was restarted finds the accounts of its last commit, less what was charged for leases that still run: those count from there
 *
 * After a crash the accounts in the rows are compared with those of the last turn that was committed. They may differ by what leases took that have ended since (a commit that
 * came through although nobody heard of it) and by fading in turns that wrote nothing else, and by nothing more.
 *
 * The bound: no lease goes to somebody while another of the same priority, with a job that could run, has used SIM_FAIR_MS less. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "daemon/store/account_rows.h"
#include "daemon/store/attempt_rows.h"
#include "daemon/store/job.h"
#include "daemon/store/search_rows.h"
#include "daemon/store/worker_rows.h"
#include "tests/simulate/world.h"

static const double FADE = 0.6931 / 30; /* a minute */
enum { SIM_FAIR_MS = 2000, UNKNOWN_MS = 1000, FADE_MS = 60000, KINDS = 16, ACCOUNTS = 32, RANKS = 2 };

typedef struct rank {
    int64_t worker, heard_ms;
    double charged_ms;
    bool left;
} rank;

typedef struct held {
    int64_t job, attempt, began_ms;
    int kind, ranks;
    struct account *of;
    rank rank[RANKS];
} held;

/* A search's; the user's is in `users`. */
typedef struct account {
    int64_t search, priority;
    int user; /* -1: free */
    double used_ms, took_ms[KINDS];
    double open_ms, kept_ms; /* charged to what runs; used less that, at the end of the last turn that was committed */
    double was_ms, faded_ms; /* used, at its end; by what has faded since something was surely written */
    double slack_ms;         /* that kept_ms may be off by, in looking at rows after a crash */
    double doubt_ms;         /* charged by turns whose commit failed, as far as was seen: a crash may bring them back */
    bool seen;
} account;

struct sim_fair {
    account search[ACCOUNTS];
    struct {
        char name[64];
        double used_ms, open_ms, kept_ms, was_ms, faded_ms, slack_ms, doubt_ms;
        int searches;
    } user[ACCOUNTS];
    es_map held;    /* by job */
    es_map greeted; /* workers that said hello since the last restart: others are told to, and not heard */
    int64_t fade_at_ms;
    double moved_ms;         /* by charges of this turn */
    bool loaded;             /* false: a restart is looked at, and accounts are as it left them */
    int64_t checks, checked; /* leases that had a rival; accounts compared after a crash */
};

void sim_fair_start(sim *s)
{
    s->fair = es_xcalloc(1, sizeof *s->fair);
    for (int i = 0; i < ACCOUNTS; i++)
        s->fair->search[i].user = -1;
}

void sim_fair_stop(sim *s)
{
    held *h;
    s->report->rivals = s->fair->checks;
    s->report->accounts = s->fair->checked;
    for (size_t i = 0; (h = es_map_next(&s->fair->held, &i)) != NULL;)
        free(h);
    es_map_free(&s->fair->held);
    es_map_free(&s->fair->greeted);
    free(s->fair);
}

static void charge(struct sim_fair *f, account *a, double ms)
{
    f->moved_ms += fabs(ms);
    a->used_ms += ms;
    a->open_ms += ms;
    f->user[a->user].used_ms += ms;
    f->user[a->user].open_ms += ms;
}

/* ---- what workers say */

/* Already in this turn, before the message that is looked at: after a long silence its time ran out first. */
static bool is_over(const sim *s, int64_t job)
{
    for (int i = 0; i < s->moves_n; i++)
        if (s->moves[i].job == job && s->moves[i].from == DM_JOB_RUNNING)
            return true;
    return false;
}

static rank *rank_of(sim *s, const dm_lease_id *id, const uint8_t uid[16], held **of)
{
    int64_t worker = 0;
    held *h = id ? es_map_get(&s->fair->held, id->job) : NULL;
    if (!h || h->attempt != (int64_t)id->attempt || is_over(s, h->job) ||
        dm_worker_find(dm_coord_store(s->c), uid, &worker, NULL) != ES_OK)
        return NULL;
    *of = h;
    for (int k = 0; k < h->ranks; k++)
        if (h->rank[k].worker == worker && !h->rank[k].left)
            return &h->rank[k];
    return NULL;
}

static void heard(sim *s, const dm_lease_id *id, const uint8_t uid[16])
{
    held *h;
    rank *r = rank_of(s, id, uid, &h);
    if (r && es_map_get(&s->fair->greeted, (uint64_t)r->worker))
        r->heard_ms = s->now_ms;
}

static void rank_ends(sim *s, held *h, rank *r)
{
    int64_t end = s->now_ms - r->heard_ms > s->options.lease_ms ? r->heard_ms : s->now_ms;
    if (r->left)
        return;
    double took = (double)(end - h->began_ms);
    charge(s->fair, h->of, took - r->charged_ms);
    h->of->open_ms -= took;
    s->fair->user[h->of->user].open_ms -= took;
    r->left = true;
}

/* The lease is over; a rank of a gang gives back its slot, unless it speaks for all (rank 0 does, and one that failed by itself). */
static void finished(sim *s, const Espalier__Wire__Finish *f, const uint8_t uid[16])
{
    held *h;
    rank *r = rank_of(s, f->lease, uid, &h);
    if (!r)
        return;
    bool failed = f->outcome == ESPALIER__WIRE__OUTCOME__OUTCOME_FAILED;
    bool lost_peer = failed && f->error_code && strcmp(f->error_code, "lost-peer") == 0;
    bool alone = h->ranks > 1 && (lost_peer || (r != &h->rank[0] && !failed));
    for (int k = 0; k < h->ranks; k++)
        if (!alone || r == &h->rank[k])
            rank_ends(s, h, &h->rank[k]);
}

void sim_fair_message(sim *s, const dm_from_peer *m)
{
    if (m->what_case == ESPALIER__WIRE__FROM_PEER__WHAT_HEARTBEAT) {
        for (size_t i = 0; i < m->heartbeat->n_progress; i++)
            heard(s, m->heartbeat->progress[i]->lease, m->heartbeat->worker_uid.data);
    } else if (m->what_case == ESPALIER__WIRE__FROM_PEER__WHAT_HELLO) {
        int64_t worker; /* a new one has no leases yet, and will be greeted with its first */
        if (dm_worker_find(dm_coord_store(s->c), m->hello->worker_uid.data, &worker, NULL) == ES_OK)
            es_map_put(&s->fair->greeted, (uint64_t)worker, s);
        for (size_t i = 0; i < m->hello->n_holding; i++)
            heard(s, m->hello->holding[i], m->hello->worker_uid.data);
    } else if (m->what_case == ESPALIER__WIRE__FROM_PEER__WHAT_GANG_OFFER) {
        heard(s, m->gang_offer->lease, m->gang_offer->worker_uid.data);
    } else if (m->what_case == ESPALIER__WIRE__FROM_PEER__WHAT_FINISH) {
        for (size_t i = 0; i < m->finish->n_finish; i++)
            finished(s, m->finish->finish[i], m->finish->worker_uid.data);
    }
}

/* ---- searches come and go */

static account *account_of(struct sim_fair *f, int64_t search)
{
    for (int i = 0; i < ACCOUNTS; i++)
        if (f->search[i].user >= 0 && f->search[i].search == search)
            return &f->search[i];
    return NULL;
}

/* Somebody new is level, at some moment of this turn, with the lowest; at which the rows say. */
static double level_with(sim *s, int64_t search, double lowest_ms, double row_ms)
{
    if (s->fair->loaded && fabs(row_ms - lowest_ms) > s->fair->moved_ms + 1e-3)
        sim_broken(s, "who comes new is not level with the lowest (search, ms)", search, (int64_t)(row_ms - lowest_ms));
    return row_ms;
}

static int user_of(sim *s, const char *name, int64_t search)
{
    struct sim_fair *f = s->fair;
    double row_ms;
    int at = -1, lowest = -1;
    for (int i = 0; i < ACCOUNTS; i++) {
        if (f->user[i].searches > 0 && strcmp(f->user[i].name, name) == 0)
            return i;
        if (f->user[i].searches > 0 && (lowest < 0 || f->user[i].used_ms < f->user[lowest].used_ms))
            lowest = i;
        if (f->user[i].searches == 0 && at < 0)
            at = i;
    }
    snprintf(f->user[at].name, sizeof f->user[at].name, "%s", name);
    if (dm_account_user(dm_coord_store(s->c), name, &row_ms, NULL) != ES_OK)
        sim_broken(s, "reading failed", search, 0);
    f->user[at].used_ms = level_with(s, search, lowest >= 0 ? f->user[lowest].used_ms : 0, row_ms);
    f->user[at].open_ms = f->user[at].slack_ms = f->user[at].was_ms = f->user[at].faded_ms = f->user[at].doubt_ms = 0;
    f->user[at].kept_ms = NAN;
    return at;
}

static bool search_row(void *ctx, const dm_search_row *r)
{
    struct sim_fair *f = ((sim *)ctx)->fair;
    account *a = account_of(f, r->id);
    if (r->state != DM_SEARCH_RUNNING && r->state != DM_SEARCH_PAUSED)
        return true;
    if (!a) {
        const account *lowest = NULL; /* of this user; may be below 0, since accounts fade while a job runs */
        int user = user_of(ctx, r->user, r->id);
        for (int i = 0; i < ACCOUNTS; i++) {
            const account *o = &f->search[i];
            if (o->user == user && (!lowest || o->used_ms < lowest->used_ms))
                lowest = o;
            if (!a && o->user < 0)
                a = &f->search[i];
        }
        double level = level_with(ctx, r->id, lowest ? lowest->used_ms : 0, r->used_ms);
        *a = (account){.search = r->id, .user = user, .used_ms = level, .kept_ms = NAN};
        f->user[user].searches++;
    }
    a->priority = r->priority;
    a->seen = true;
    return true;
}

static void searches(sim *s)
{
    struct sim_fair *f = s->fair;
    if (dm_search_each(dm_coord_store(s->c), 0, ACCOUNTS, search_row, s, NULL) != ES_OK)
        sim_broken(s, "reading failed", 0, 0);
    for (int i = 0; i < ACCOUNTS; i++) {
        account *a = &f->search[i];
        if (a->user >= 0 && !a->seen) {
            f->user[a->user].searches--;
            a->user = -1;
        }
        a->seen = false;
    }
}

/* ---- a turn */

static bool gang_rank(void *ctx, const dm_gang_row *r, const void *id, size_t n)
{
    held *h = ctx;
    (void)id;
    (void)n;
    if (h->ranks < RANKS)
        h->rank[h->ranks++].worker = r->worker;
    return true;
}

static void begins(sim *s, const dm_job_row *row)
{
    struct sim_fair *f = s->fair;
    account *a = account_of(f, row->search);
    held *h = es_xcalloc(1, sizeof *h);
    if (!a)
        sim_broken(s, "a job of a search that is over is leased", row->id, row->search);
    *h = (held){.job = row->id, .attempt = row->attempt, .began_ms = s->now_ms, .kind = row->kind, .of = a};
    if (dm_gang_each(dm_coord_store(s->c), row->id, row->attempt, gang_rank, h, NULL) != ES_OK)
        sim_broken(s, "reading failed", row->id, 0);
    if (h->ranks == 0)
        h->rank[h->ranks++].worker = row->worker;
    for (int k = 0; k < h->ranks; k++) {
        h->rank[k].heard_ms = s->now_ms;
        h->rank[k].charged_ms = a->took_ms[h->kind] > 0 ? a->took_ms[h->kind] : UNKNOWN_MS;
        charge(f, a, h->rank[k].charged_ms);
    }
    es_map_put(&f->held, (uint64_t)h->job, h);
}

/* Only who has said hello is given work. */
static void greeted(sim *s, int64_t job)
{
    const held *h = es_map_get(&s->fair->held, (uint64_t)job);
    for (int k = 0; k < h->ranks; k++)
        es_map_put(&s->fair->greeted, (uint64_t)h->rank[k].worker, s);
}

static bool running_job(void *ctx, const dm_job_row *row)
{
    begins(ctx, row);
    return true;
}

/* What runs no longer as it did has ended in a turn that was committed, though nobody heard of it: its account may have been charged by so much. */
static void lost_from_sight(sim *s, const held *h)
{
    struct sim_fair *f = s->fair;
    dm_job_row row;
    bool same = dm_job_get(dm_coord_store(s->c), h->job, &row, NULL) == ES_OK && row.state == DM_JOB_RUNNING &&
                row.attempt == h->attempt;
    for (int k = 0; k < h->ranks; k++) {
        double took = (double)(s->now_ms - h->began_ms);
        h->of->doubt_ms += took;
        f->user[h->of->user].doubt_ms += took;
        if (!same || h->rank[k].left) {
            h->of->slack_ms += took;
            f->user[h->of->user].slack_ms += took;
        }
    }
    dm_job_row_free(&row);
}

/* What a row may be off by: leases that ended unseen, and fading (of whole accounts, what runs included) that was not written, or only just. */
static double allowed(const sim *s, double slack_ms, double faded_ms, double was_ms)
{
    bool due = s->fair->fade_at_ms > 0 && s->now_ms >= s->fair->fade_at_ms;
    return slack_ms + faded_ms + (due ? FADE * (fabs(was_ms) + slack_ms) : 0) + 1e-3;
}

/* The row's account against the one of the last commit; the row is believed. */
static void adopt(sim *s, const char *what, int64_t search, double row_ms, double *used_ms, double *kept_ms,
                  double allowed_ms)
{
    if (fabs(row_ms - *kept_ms) > allowed_ms) /* false when it is new, and kept_ms no number */
        sim_broken(s, what, search, (int64_t)(row_ms - *kept_ms));
    *used_ms = *kept_ms = row_ms;
}

static bool account_row(void *ctx, const dm_search_row *r)
{
    sim *s = ctx;
    struct sim_fair *f = s->fair;
    account *a = account_of(f, r->id);
    double row_ms;
    if (!a)
        return true;
    adopt(s, "a search's account is not that of the last commit (search, ms)", r->id, r->used_ms, &a->used_ms,
          &a->kept_ms, allowed(s, a->slack_ms, a->faded_ms, a->was_ms));
    if (dm_account_user(dm_coord_store(s->c), f->user[a->user].name, &row_ms, NULL) != ES_OK)
        sim_broken(s, "reading failed", r->id, 0);
    adopt(s, "a user's account is not that of the last commit (search, ms)", r->id, row_ms, &f->user[a->user].used_ms,
          &f->user[a->user].kept_ms,
          allowed(s, f->user[a->user].slack_ms, f->user[a->user].faded_ms, f->user[a->user].was_ms));
    f->checked++;
    return true;
}

/* Its memory is gone, and made again from the rows: what jobs took is nothing, running jobs are leases that have just begun. Without a crash it was a commit that failed. */
void sim_fair_restarted(sim *s, bool crashed)
{
    struct sim_fair *f = s->fair;
    held *h;
    for (int i = 0; i < ACCOUNTS; i++) {
        f->search[i].slack_ms = f->search[i].doubt_ms;
        f->user[i].slack_ms = f->user[i].doubt_ms;
    }
    for (size_t i = 0; (h = es_map_next(&f->held, &i)) != NULL; free(h)) {
        lost_from_sight(s, h);
        es_map_remove(&f->held, (uint64_t)h->job);
    }
    es_map_free(&f->greeted);
    f->loaded = false;
    searches(s);
    f->loaded = true;
    f->moved_ms = 0;
    if (dm_search_each(dm_coord_store(s->c), 0, ACCOUNTS, account_row, s, NULL) != ES_OK)
        sim_broken(s, "reading failed", 0, 0);
    f->fade_at_ms = s->now_ms + FADE_MS;
    for (int i = 0; i < ACCOUNTS; i++) {
        f->search[i].open_ms = f->user[i].open_ms = f->search[i].slack_ms = f->user[i].slack_ms = 0;
        f->search[i].faded_ms = f->user[i].faded_ms = 0;
        if (crashed)
            f->search[i].doubt_ms = f->user[i].doubt_ms = 0;
        memset(f->search[i].took_ms, 0, sizeof f->search[i].took_ms);
    }
    if (dm_job_each_running(dm_coord_store(s->c), running_job, s, NULL) != ES_OK)
        sim_broken(s, "reading failed", 0, 0);
}

/* The turn was committed. */
static void keep(struct sim_fair *f, bool written)
{
    for (int i = 0; i < ACCOUNTS; i++) {
        f->search[i].kept_ms = f->search[i].used_ms - f->search[i].open_ms;
        f->user[i].kept_ms = f->user[i].used_ms - f->user[i].open_ms;
        f->search[i].was_ms = f->search[i].used_ms;
        f->user[i].was_ms = f->user[i].used_ms;
        if (written)
            f->search[i].faded_ms = f->user[i].faded_ms = f->search[i].doubt_ms = f->user[i].doubt_ms = 0;
    }
}

static void fade(double *used_ms, double *faded_ms)
{
    *faded_ms += FADE * fabs(*used_ms);
    *used_ms *= 1 - FADE;
}

static bool slice_row(void *ctx, const dm_attempt_row *r)
{
    held *h = ctx;
    if (r->attempt == h->attempt && r->outcome == DM_OUTCOME_SLICE)
        h->kind = -h->kind; /* a mark */
    return true;
}

static void ends(sim *s, int64_t job, int to)
{
    held *h = es_map_get(&s->fair->held, (uint64_t)job);
    bool done = to == DM_JOB_DONE;
    if (!h)
        return; /* it began in a turn that was taken back */
    if (to == DM_JOB_READY) {
        if (dm_attempt_each(dm_coord_store(s->c), job, slice_row, h, NULL) != ES_OK)
            sim_broken(s, "reading failed", job, 0);
        done = h->kind < 0;
        h->kind = abs(h->kind);
    }
    double *mean = &h->of->took_ms[h->kind], ms = (double)(s->now_ms - h->began_ms);
    if (done)
        *mean = *mean > 0 ? *mean + (ms - *mean) / 4 : ms;
    for (int k = 0; k < h->ranks; k++)
        rank_ends(s, h, &h->rank[k]);
    es_map_remove(&s->fair->held, (uint64_t)job);
    free(h);
}

static void compare(sim *s, const account *a, const account *rival)
{
    const struct sim_fair *f = s->fair;
    bool other = a->user != rival->user;
    double mine = other ? f->user[a->user].used_ms : a->used_ms;
    double his = other ? f->user[rival->user].used_ms : rival->used_ms;
    if (mine > his + SIM_FAIR_MS)
        sim_broken(s,
                   other ? "a lease goes to a user while another who has used less waits (search, ms)"
                         : "a lease goes to a search while another of its user that has used less waits (search, ms)",
                   a->search, (int64_t)(mine - his));
}

void sim_fair_turn(sim *s, bool (*waits)(sim *s, int64_t search), int above)
{
    struct sim_fair *f = s->fair;
    for (int i = 0; i < s->moves_n; i++)
        if (s->moves[i].from == DM_JOB_RUNNING)
            ends(s, s->moves[i].job, s->moves[i].to);
    if (s->now_ms >= f->fade_at_ms) {
        f->fade_at_ms = s->now_ms + FADE_MS;
        for (int i = 0; i < ACCOUNTS; i++) {
            fade(&f->search[i].used_ms, &f->search[i].faded_ms);
            fade(&f->user[i].used_ms, &f->user[i].faded_ms);
        }
    }
    searches(s);
    for (int i = 0; i < s->moves_n; i++) {
        dm_job_row row;
        if (s->moves[i].to != DM_JOB_RUNNING)
            continue;
        if (dm_job_get(dm_coord_store(s->c), s->moves[i].job, &row, NULL) != ES_OK)
            sim_broken(s, "reading failed", s->moves[i].job, 0);
        const account *a = account_of(f, row.search);
        bool rivals = false;
        for (int k = 0; k < ACCOUNTS && a; k++) {
            const account *o = &f->search[k];
            if (o->user < 0 || o == a || o->priority != a->priority || a->priority <= above || !waits(s, o->search))
                continue;
            rivals = true;
            compare(s, a, o);
        }
        f->checks += rivals;
        begins(s, &row);
        greeted(s, row.id);
        dm_job_row_free(&row);
    }
    f->moved_ms = 0;
    keep(f, s->moves_n > 0);
}
