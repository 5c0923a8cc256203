/* Results of a worker that is broken or bad: right in form, wrong in a way that the coordinator can see. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/simulate/world.h"

/* The first to say a length says that it is over already, or goes on for longer; the last, who is only to say so, too, has other weights. */
static bool spoil_ends(sim *s, work_result *w, bool first)
{
    dm_job_result *r = &w->result;
    static char seed[64], other[80];
    if (w->from == 0 && first) {
        r->steps = es_rng_below(&s->rng, 3) ? r->step : r->steps + 7;
    } else if (w->from == r->steps) {
        snprintf(seed, sizeof seed, "not trained %" PRIu32, es_rng_below(&s->rng, 1000));
        snprintf(other, sizeof other, "%s", sim_put_version(s, seed));
        r->weights = other;
    }
    return (w->from == 0 && first) || w->from == r->steps;
}

static void spoil_training(sim *s, work_result *w, bool first)
{
    dm_job_result *r = &w->result;
    static char nowhere[] = "0000000000000000000000000000000000000000000000000000000000000000", junk[] = "junk";
    if (es_rng_below(&s->rng, 2) && spoil_ends(s, w, first))
        return;
    switch (es_rng_below(&s->rng, 8)) {
    case 0: r->weights = nowhere; break;
    case 1: r->weights = junk; break;
    case 2: r->step += 1000000; break;
    case 3: r->step = 0, r->steps = 0; break;
    case 4: r->step = w->from; break;                          /* no progress */
    case 6: r->weights = w->began[0] ? w->began : junk; break; /* nor any in the weights */
    case 5:
        r->steps = w->from == 0 ? 0 : r->step < r->steps ? r->step : r->steps + 1;
        break; /* another length than before */
    default: r->steps = 0; break;
    }
}

static void spoil_evaluations(sim *s, work_result *w)
{
    dm_job_result *r = &w->result;
    size_t i = es_rng_below(&s->rng, (uint32_t)r->n_evaluations);
    static char other[] = "another architecture";
    switch (es_rng_below(&s->rng, 5)) {
    case 0: r->n_evaluations--; break;
    case 1: w->evaluation[i].architecture = other; break;
    case 2: w->evaluation[i].correct = w->evaluation[i].samples + 1; break;
    case 3: w->evaluation[i].samples = w->evaluation[i].correct = 0; break;
    default: r->n_evaluations = 0; break;
    }
}

static void spoil_latencies(sim *s, work_result *w)
{
    static const double nonsense[] = {-1, 0, NAN, INFINITY};
    size_t i = es_rng_below(&s->rng, (uint32_t)w->result.n_latencies);
    if (es_rng_below(&s->rng, 3) == 0)
        w->result.n_latencies = 0;
    else
        w->latency[i].low_ms = w->latency[i].median_ms = w->latency[i].high_ms = nonsense[es_rng_below(&s->rng, 4)];
}

void sim_spoil(sim *s, work_result *w, int kind, bool first)
{
    if (kind == ESPALIER__WIRE__JOB_KIND__JOB_TRAIN_SUPERNET)
        spoil_training(s, w, first);
    else if (w->result.n_evaluations > 0)
        spoil_evaluations(s, w);
    else if (w->result.n_latencies > 0)
        spoil_latencies(s, w);
    else if (w->result.n_exported > 0)
        w->result.n_exported--;
}
