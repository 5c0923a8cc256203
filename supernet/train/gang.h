/* gang.h - one supernet trained by several ranks: each computes the gradients of its share of every batch, the sums are taken while the backward pass goes on.
 *
 *     ES_GOTO(sn_trainer_join(t, collective, err));           // from the same weights at the same step on every rank
 *     ES_GOTO(sn_trainer_run(t, until, &hooks, &report, err)); // the same call on every rank; a stop asked for by any rank stops all at one boundary
 *     ES_GOTO(sn_trainer_join(t, NULL, err));                  // alone again; every rank holds the same bits
 *
 * Data. The batch of a step is the one that a single trainer would take, a function of (seed, epoch); rank r of n takes the r-th n-th of it, and samples are augmented as they would be
 * there. `supernet.batch` is therefore the whole gang's and a multiple of n.
 *
 * Gradients are divided by n and added over ranks. A loss is a mean over a rank's share, so the sum is the gradient of the mean over the batch, as if one rank had
 * computed it, up to rounding, and but for two things that are each rank's own: batch statistics of batch norm (not synchronised: fewer samples each, as in every data-parallel training
 * that does not say otherwise) and the masks of dropout, drawn from a seed of the rank.
 *
 * Subnets are the same on every rank, or (`supernet.gang_subnets: own`) drawn for each: then n times as many are seen, each by a share of the batch.
 *
 * Only touched slices. Before a step its method is rehearsed: its passes are heard, not computed, for every rank where ranks differ. Per parameter the smallest box that holds
 * all slices of the step is what is reduced. These boxes are put into buckets: first what the last pass does not reach, then the rest in reverse order of the network, which is
 * about the order in which a backward pass finishes with them. A bucket leaves as soon as its last kernel of the step's last pass is over, in the same order on every rank; the last pass
 * may be one launch all the same (kn_binding.points). Whole parameters side by side are one piece, which a GPU reduces where it lies; a sandwich has nothing else.
 *
 * Deterministic: two runs with one seed and one n give the same bits; another n gives other bits.
 */
#ifndef SN_GANG_H
#define SN_GANG_H

#include "kernels/collective/collective.h"
#include "supernet/train/train.h"

/* Takes part from here on; borrows c. NULL: alone again. */
es_status sn_trainer_join(sn_trainer *t, kn_collective *c, es_error *err) ES_MUST_CHECK;

typedef struct sn_gang_numbers {
    int64_t steps, elements, pieces, buckets,
        early; /* since joining: what was reduced; early: buckets that left before the last kernel of their step */
} sn_gang_numbers;
sn_gang_numbers sn_trainer_gang_numbers(const sn_trainer *t);

/* ---- what the trainer calls ---- */

typedef struct sn_gang sn_gang;
void sn_gang_destroy(sn_gang **g);
kn_collective *sn_gang_collective(const sn_gang *g);
uint64_t sn_gang_subnet_seed(const sn_gang *g, uint64_t seed);
uint64_t sn_gang_noise_seed(const sn_gang *g, uint64_t seed);

es_status sn_gang_begin(sn_trainer *t, uint64_t step, es_error *err) ES_MUST_CHECK; /* rehearses it */
bool sn_gang_rehearses(const sn_gang *g);
es_status sn_gang_note(sn_trainer *t, const sr_arch *a, es_error *err) ES_MUST_CHECK; /* a pass that will come */
es_status sn_gang_pass(sn_trainer *t, const kn_plan *plan, kn_binding *b,
                       es_error *err) ES_MUST_CHECK;               /* it is about to run */
es_status sn_gang_end(sn_trainer *t, es_error *err) ES_MUST_CHECK; /* the sums are there for the update */

/* Stopping: proposed before a step, agreed on after it. Also compares the ranks' step and seed. */
es_status sn_gang_propose(sn_trainer *t, bool stop, es_error *err) ES_MUST_CHECK;
es_status sn_gang_agree(sn_trainer *t, bool *stop, es_error *err) ES_MUST_CHECK;
es_status sn_gang_over(sn_trainer *t, es_error *err) ES_MUST_CHECK; /* the run is: the mean loss of all ranks */
/* A run failed: the collective's own failure where there is one, else it is ended with ours. */
es_status sn_gang_failed(sn_gang *g, es_status s, es_error *err);

#endif
