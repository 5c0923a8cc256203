/* hunt.h - asking and telling, shared by the drivers that search: candidates in ticket order, batches, and where each stands.
 *
 *     dm_hunt_open(s, on_batch, &h, err);           // reads candidates and results
 *     dm_hunt_advance(h, err);                      // asks, hands out batches, tells; stops at the first ticket without a result
 *     if (dm_hunt_over(h)) ... dm_hunt_front(h) ...
 *
 * What is asked when, and which tickets form a batch, depend only on how many were told: one worker or three, fast or slow, restarted or not, the
 * algorithm sees the same sequence. A candidate asked again in a replay must equal its row; otherwise the search fails and says so.
 */
#ifndef DM_DRIVER_HUNT_H
#define DM_DRIVER_HUNT_H

#include "daemon/coord/driver.h"
#include "search/algorithm.h"

enum {
    DM_HUNT_BATCH = 8,
    DM_HUNT_LOOKAHEAD = 256,
    DM_HUNT_TELLS = 100,
    DM_HUNT_TURN_NS = 2000000 /* of one turn: whoever asks waits */
};

typedef struct dm_found {
    es_id id;
    sn_cost cost;
    bool accuracy_known, latency_known, failed, test_known;
    double accuracy, latency_ms, latency_low, latency_high, test_accuracy;
    double bits, test_bits;                               /* mean cross-entropy, in bits */
    int64_t correct, samples, test_correct, test_samples; /* samples 0: a table's value, without a count */
    char exported[72];                                    /* weights version of the subnet */
} dm_found;

typedef struct dm_hunt dm_hunt;
struct dm_hunt {
    dm_search *s;
    sr_search *search;
    sr_problem problem;
    dm_found *found; /* by ticket */
    int64_t n, cap;  /* known: asked, or in rows from before a restart */
    int64_t batched; /* tickets below it have been handed out */
    es_map tickets;  /* id -> ticket */
    sr_arch *arch;   /* scratch */
    bool needs_latency, exhausted;
    int64_t first_told_ms, told_since; /* for the estimate of time left; 0 after a restart until the next one */
    /* Hands out tickets first .. first + count - 1. */
    es_status (*batch)(dm_hunt *h, int64_t number, int64_t first, int count, es_error *err);
    int64_t batches;
    int64_t *front, front_told; /* non-dominated tickets below front_told; dm_hunt_front's */
    int front_n, front_cap;
};

es_status dm_hunt_open(dm_search *s,
                       es_status (*batch)(dm_hunt *h, int64_t number, int64_t first, int count, es_error *err),
                       dm_hunt **out, es_error *err) ES_MUST_CHECK;
void dm_hunt_close(dm_hunt **h);
es_status dm_hunt_advance(dm_hunt *h, es_error *err)
    ES_MUST_CHECK; /* sets s->busy when it stopped for having done enough at once; nothing new while paused */
bool dm_hunt_over(const dm_hunt *h); /* everything is asked and told */

char *dm_hunt_text(const dm_hunt *h, int64_t ticket);      /* caller owns */
int64_t dm_hunt_ticket(const dm_hunt *h, const es_id *id); /* -1: never asked */
/* Stores a result, once; a second one for the same key is ignored. */
es_status dm_hunt_result(dm_hunt *h, const dm_result *r, es_error *err) ES_MUST_CHECK;
/* Tickets of the non-dominated among those told that meet every constraint, best first objective first; caller frees. */
int dm_hunt_front(dm_hunt *h, int64_t **tickets);
/* The value of an objective or limit; NaN when not known. */
double dm_found_value(const dm_found *f, sn_measure m);

/* ---- report.c: JSON of what was found */
void dm_report_objectives(const dm_search *s, es_json *j);
void dm_report_member(const dm_hunt *h, int64_t ticket, bool final, es_json *j); /* one MEMBER of schemas/status.md */
char *dm_report_result(dm_hunt *h, const char *weights);                         /* RESULT; caller owns */

#endif
