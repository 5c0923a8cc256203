#include "daemon/driver/hunt.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/coord/turn.h"

static uint64_t id_key(const es_id *id)
{
    uint64_t k;
    memcpy(&k, id->b, sizeof k);
    return k ? k : 1;
}

int64_t dm_hunt_ticket(const dm_hunt *h, const es_id *id)
{
    int64_t t = (int64_t)(intptr_t)es_map_get(&h->tickets, id_key(id)) - 1;
    return t >= 0 && es_id_equal(&h->found[t].id, id) ? t : -1;
}

static dm_found *hunt_add(dm_hunt *h, const es_id *id)
{
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 256;
        h->found = es_xrealloc(h->found, (size_t)h->cap * sizeof *h->found);
    }
    dm_found *f = &h->found[h->n++];
    memset(f, 0, sizeof *f);
    f->id = *id;
    f->accuracy = f->latency_ms = f->test_accuracy = f->bits = f->test_bits = NAN;
    es_map_put(&h->tickets, id_key(id), (void *)(intptr_t)h->n);
    return f;
}

static bool open_candidate(void *ctx, const dm_candidate *c)
{
    dm_found *f = hunt_add(ctx, &c->id);
    f->cost = (sn_cost){.params = c->params, .macs = c->macs, .activation_bytes = c->activation_bytes};
    return true;
}

static void hunt_note(dm_hunt *h, const dm_result *r)
{
    int64_t t = dm_hunt_ticket(h, &r->id);
    if (t < 0)
        return; /* of an architecture that was not asked: nobody waits for it */
    dm_found *f = &h->found[t];
    bool validation = r->split == DM_SPLIT_VALIDATION;
    if (!r->ok) /* it may be on the front already: that is made anew */
        h->front_told = h->front_n = 0;
    switch (r->measure) {
    case DM_MEASURE_ACCURACY:
    case DM_MEASURE_TABLE:
        if (!r->ok) {
            f->failed = true;
        } else if (validation) {
            f->accuracy_known = true;
            f->accuracy = r->value;
            f->bits = r->loss / M_LN2;
            f->correct = r->correct;
            f->samples = r->samples;
        } else {
            f->test_known = true;
            f->test_accuracy = r->value;
            f->test_bits = r->loss / M_LN2;
            f->test_correct = r->correct;
            f->test_samples = r->samples;
        }
        break;
    case DM_MEASURE_LATENCY:
        f->failed = f->failed || !r->ok;
        f->latency_known = r->ok;
        f->latency_ms = r->value;
        f->latency_low = r->low;
        f->latency_high = r->high;
        break;
    case DM_MEASURE_EXPORT: snprintf(f->exported, sizeof f->exported, "%s", r->text ? r->text : ""); break;
    }
}

static bool open_result(void *ctx, const dm_result *r)
{
    hunt_note(ctx, r);
    return true;
}

es_status dm_hunt_open(dm_search *s,
                       es_status (*batch)(dm_hunt *h, int64_t number, int64_t first, int count, es_error *err),
                       dm_hunt **out, es_error *err)
{
    dm_hunt *h = *out = es_xcalloc(1, sizeof *h); /* the driver's close frees it, also when this fails */
    const sn_search_file *f = s->file;
    h->s = s;
    h->batch = batch;
    sn_search_file_problem(f, &h->problem);
    for (int i = 0; i < f->objectives; i++)
        h->needs_latency = h->needs_latency || f->objective[i].measure == SN_MEASURE_LATENCY_MS;
    for (int i = 0; i < f->limits; i++)
        h->needs_latency = h->needs_latency || f->limit[i].measure == SN_MEASURE_LATENCY_MS;
    h->arch = sr_arch_new(sn_space_choices(f->space));
    ES_RETURN(sr_search_new(f->algorithm, &f->options, &h->problem, f->seed, &h->search, err));
    ES_RETURN(dm_candidate_each(s->c->store, s->id, 0, INT64_MAX, open_candidate, h, err));
    return dm_result_each(s->c->store, s->id, open_result, h, err);
}

void dm_hunt_close(dm_hunt **ph)
{
    dm_hunt *h = *ph;
    if (!h)
        return;
    sr_search_destroy(&h->search);
    es_map_free(&h->tickets);
    free(h->found);
    free(h->front);
    free(h->arch);
    free(h);
    *ph = NULL;
}

double dm_found_value(const dm_found *f, sn_measure m)
{
    switch (m) {
    case SN_MEASURE_ACCURACY: return f->accuracy;
    case SN_MEASURE_PARAMS: return (double)f->cost.params;
    case SN_MEASURE_MACS: return (double)f->cost.macs;
    case SN_MEASURE_ACTIVATION_BYTES: return (double)f->cost.activation_bytes;
    case SN_MEASURE_LATENCY_MS: return f->latency_ms;
    case SN_MEASURE_BITS: return f->bits;
    case SN_MEASURES: break;
    }
    return NAN;
}

char *dm_hunt_text(const dm_hunt *h, int64_t ticket)
{
    return sn_arch_format(h->s->file->space, sr_asked_arch(h->search, ticket));
}

es_status dm_hunt_result(dm_hunt *h, const dm_result *r, es_error *err)
{
    bool fresh;
    ES_RETURN(dm_result_insert(h->s->c->store, h->s->id, r, &fresh, err));
    if (fresh)
        hunt_note(h, r);
    return ES_OK;
}

/* ---- asking */

static es_status hunt_ask(dm_hunt *h, es_error *err)
{
    const sn_search_file *f = h->s->file;
    int64_t ticket;
    es_id id;
    es_status status = sr_ask(h->search, &ticket, h->arch, err);
    if (status == ES_NOT_FOUND) { /* the space holds nothing new */
        h->exhausted = true;
        return ES_OK;
    }
    ES_RETURN(status);
    sr_arch_id(sn_space_choices(f->space), h->arch, &id);
    if (ticket < h->n) {
        if (!es_id_equal(&h->found[ticket].id, &id))
            return es_fail(err, ES_VERSION, "replay",
                           "evaluation %" PRId64
                           " was of another architecture before the restart: this program searches differently",
                           ticket);
        return ES_OK;
    }
    char *text = sn_arch_format(f->space, h->arch);
    dm_candidate c = {.ticket = ticket, .id = id, .architecture = text};
    sn_cost cost;
    status = sn_space_cost(f->space, h->arch, &cost, err);
    if (status == ES_OK) {
        c.params = cost.params;
        c.macs = cost.macs;
        c.activation_bytes = cost.activation_bytes;
        status = dm_candidate_insert(h->s->c->store, h->s->id, &c, err);
    }
    free(text);
    ES_RETURN(status);
    hunt_add(h, &id)->cost = cost;
    return ES_OK;
}

static bool hunt_all_asked(const dm_hunt *h) { return h->exhausted || sr_asked(h->search) >= h->problem.evaluations; }

static bool hunt_complete(const dm_hunt *h, const dm_found *f)
{
    return f->failed || (f->accuracy_known && (f->latency_known || !h->needs_latency));
}

/* *stands: the search is paused, and this would be new work. */
static es_status hunt_hand_out(dm_hunt *h, int count, bool *stands, es_error *err)
{
    int64_t first = h->batched;
    for (int i = 0; i < count && h->s->state == DM_SEARCH_PAUSED; i++)
        *stands = *stands || !hunt_complete(h, &h->found[first + i]);
    if (*stands)
        return ES_OK;
    h->batched += count;
    return h->batch(h, h->batches++, first, count, err);
}

/* Asks as far ahead as the algorithm allows; whole batches leave at once, a part of one only where nothing can complete it: each rule depends on the
 * numbers asked and told alone. So a paused search goes on where it was read again up to what it knows, and then *stands: it asks nothing, and tells nothing,
 * as what it is told decides what it asks. */
static es_status hunt_ask_ahead(dm_hunt *h, bool *stands, es_error *err)
{
    int64_t told = sr_told(h->search);
    *stands = false;
    while (!hunt_all_asked(h) && sr_lookahead(h->search) > 0 && sr_asked(h->search) - told < DM_HUNT_LOOKAHEAD) {
        *stands = h->s->state == DM_SEARCH_PAUSED && sr_asked(h->search) >= h->n;
        if (*stands)
            return ES_OK;
        ES_RETURN(hunt_ask(h, err));
    }
    if (sr_lookahead(h->search) == 0 && told == sr_asked(h->search))
        h->exhausted = true; /* nothing is outstanding that could change the algorithm's mind */
    while (sr_asked(h->search) - h->batched >= DM_HUNT_BATCH && !*stands)
        ES_RETURN(hunt_hand_out(h, DM_HUNT_BATCH, stands, err));
    int64_t rest = sr_asked(h->search) - h->batched;
    if (rest > 0 && !*stands && (hunt_all_asked(h) || told % DM_HUNT_BATCH == 0 || told == h->batched))
        ES_RETURN(hunt_hand_out(h, (int)rest, stands, err));
    return ES_OK;
}

static es_status hunt_event(dm_hunt *h, int64_t ticket, es_error *err)
{
    dm_event e;
    es_json *j = dm_event_begin(h->s->c, &e, "evaluation", h->s, 0, false);
    const dm_found *f = &h->found[ticket];
    char *text = dm_hunt_text(h, ticket);
    es_json_i64(j, "ticket", ticket);
    es_json_i64(j, "total", h->problem.evaluations);
    es_json_str(j, "architecture", text);
    es_json_bool(j, "ok", !f->failed);
    es_json_f64(j, "accuracy", f->accuracy);
    if (h->s->file->task == SN_TASK_LANGUAGE)
        es_json_f64(j, "bits_per_character", f->bits);
    es_json_i64(j, "params", f->cost.params);
    es_json_i64(j, "macs", f->cost.macs);
    es_json_f64(j, "latency_ms", f->latency_ms);
    free(text);
    return dm_event_end(h->s->c, &e, err);
}

es_status dm_hunt_advance(dm_hunt *h, es_error *err)
{
    const sn_search_file *f = h->s->file;
    es_clock *clock = h->s->c->env.clock;
    int64_t began_ns = es_clock_mono_ns(clock);
    for (int tells = 0;; tells++) {
        bool stands;
        ES_RETURN(hunt_ask_ahead(h, &stands, err));
        int64_t t = sr_told(h->search);
        if (stands || t >= h->batched || !hunt_complete(h, &h->found[t]))
            return ES_OK;
        if (tells >= DM_HUNT_TELLS || (tells > 0 && es_clock_mono_ns(clock) - began_ns >= DM_HUNT_TURN_NS)) {
            h->s->busy = true;
            return ES_OK;
        }
        double values[SN_OBJECTIVES_MAX + SR_OBJECTIVES_MAX] = {0};
        for (int k = 0; k < f->objectives; k++)
            values[k] = dm_found_value(&h->found[t], f->objective[k].measure);
        sr_tell(h->search, t, values, !h->found[t].failed);
        if (h->first_told_ms == 0) {
            h->first_told_ms = h->s->c->wall_ms;
            h->told_since = t + 1;
        }
        ES_RETURN(hunt_event(h, t, err));
    }
}

bool dm_hunt_over(const dm_hunt *h) { return hunt_all_asked(h) && sr_told(h->search) == sr_asked(h->search); }

static bool hunt_feasible(const dm_hunt *h, const dm_found *f)
{
    const sn_search_file *file = h->s->file;
    if (f->failed)
        return false;
    for (int i = 0; i < file->limits; i++) {
        double v = dm_found_value(f, file->limit[i].measure);
        if (!(v >= file->limit[i].min && v <= file->limit[i].max))
            return false;
    }
    return true;
}

static const dm_hunt *sorting; /* qsort has no context; the coordinator has one thread */

static int by_first_objective(const void *pa, const void *pb)
{
    int64_t a = *(const int64_t *)pa, b = *(const int64_t *)pb;
    const sn_search_file *f = sorting->s->file;
    double x = dm_found_value(&sorting->found[a], f->objective[0].measure),
           y = dm_found_value(&sorting->found[b], f->objective[0].measure);
    if (x != y)
        return (x < y) == f->objective[0].maximise ? 1 : -1;
    return a < b ? -1 : a > b;
}

/* Objectives of a ticket, all to be made small; false when one is not known. */
static bool front_values(const dm_hunt *h, int64_t ticket, double *values)
{
    const sn_search_file *f = h->s->file;
    for (int k = 0; k < f->objectives; k++) {
        double v = dm_found_value(&h->found[ticket], f->objective[k].measure);
        if (isnan(v))
            return false;
        values[k] = f->objective[k].maximise ? -v : v;
    }
    return true;
}

/* The front grows with what was told, so that asking for it costs the same however much that is. */
static void front_extend(dm_hunt *h)
{
    int m = h->s->file->objectives;
    double v[SN_OBJECTIVES_MAX + 1], other[SN_OBJECTIVES_MAX + 1];
    for (; h->front_told < sr_told(h->search); h->front_told++) {
        int64_t t = h->front_told;
        bool beaten = !hunt_feasible(h, &h->found[t]) || !front_values(h, t, v);
        int left = 0;
        for (int i = 0; i < h->front_n && !beaten; i++)
            beaten = front_values(h, h->front[i], other) && sr_dominates(other, v, m);
        if (beaten)
            continue;
        for (int i = 0; i < h->front_n; i++)
            if (front_values(h, h->front[i], other) && !sr_dominates(v, other, m))
                h->front[left++] = h->front[i];
        if (left == h->front_cap) {
            h->front_cap = h->front_cap ? 2 * h->front_cap : 64;
            h->front = es_xrealloc(h->front, (size_t)h->front_cap * sizeof *h->front);
        }
        h->front[left++] = t;
        h->front_n = left;
    }
}

int dm_hunt_front(dm_hunt *h, int64_t **out)
{
    front_extend(h);
    int64_t *tickets = es_xcalloc((size_t)h->front_n + 1, sizeof *tickets);
    if (h->front_n)
        memcpy(tickets, h->front, (size_t)h->front_n * sizeof *tickets);
    sorting = h;
    qsort(tickets, (size_t)h->front_n, sizeof *tickets, by_first_objective);
    *out = tickets;
    return h->front_n;
}
