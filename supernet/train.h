/* train.h - training a supernet and using it: methods behind one small interface, slices between checkpoints, evaluation and extraction.
 *
 *     sn_trainer *t; sn_trainer_new(file, dev, &t, err);               // net, data, optimiser, method by name; weights from the seed
 *     sn_trainer_load(t, version, err);                                // or from a checkpoint
 *     sn_trainer_run(t, until_step, &hooks, &report, err);             // stops early when hooks.stop() says so, at a step boundary
 *     sn_version *v; sn_trainer_save(t, &v, err);                      // values, optimiser arrays, step: everything a resumed run needs for the same bits
 *     sn_evaluate(t, arch, SN_VALIDATION_SPLIT, limit, &eval, err);    // recalibrates batch norm for this architecture, then scores; leaves training state alone
 *
 * To add a training method: one file method_<name>.c with an sn_method_ops, one line in the table in train.c. A method decides which subnets run in a step, with
 * which loss and gradient scaling; the trainer owns batches, gradients, clipping, the update and the schedule.
 */
#ifndef SN_TRAIN_H
#define SN_TRAIN_H

#include "kernels/plan.h"
#include "supernet/data.h"
#include "supernet/net.h"
#include "supernet/searchfile.h"
#include "supernet/version.h"

typedef struct sn_trainer sn_trainer;

typedef struct sn_hooks {
    void *ctx;
    bool (*stop)(void *ctx); /* asked between steps */
    void (*progress)(void *ctx, uint64_t step, uint64_t steps, double loss,
                     double images_per_s); /* about once a second */
} sn_hooks;

typedef struct sn_report {
    uint64_t step;
    double mean_loss, images_per_s, seconds;
} sn_report;

es_status sn_trainer_new(const sn_search_file *f, kn_device *dev, sn_trainer **out, es_error *err) ES_MUST_CHECK;
void sn_trainer_destroy(sn_trainer **t);
uint64_t sn_train_steps(const sn_trainer *t); /* of the whole training */
uint64_t sn_trainer_step(const sn_trainer *t);
es_status sn_trainer_run(sn_trainer *t, uint64_t until_step, const sn_hooks *h, sn_report *out,
                         es_error *err) ES_MUST_CHECK;
es_status sn_trainer_save(sn_trainer *t, sn_version **out, es_error *err) ES_MUST_CHECK;
es_status sn_trainer_load(sn_trainer *t, const sn_version *v,
                          es_error *err) ES_MUST_CHECK; /* names, shapes and the search's identity must match */
size_t sn_trainer_memory_bytes(const sn_trainer *t);

typedef struct sn_evaluation {
    uint64_t correct, samples;
    double loss;
} sn_evaluation;
es_status sn_evaluate(sn_trainer *t, const sr_arch *a, sn_split split, int64_t limit, sn_evaluation *out,
                      es_error *err) ES_MUST_CHECK;

typedef struct sn_latency {
    double median_ms, low_ms, high_ms;
    int runs;
} sn_latency; /* low, high: quartiles; one image a run */
es_status sn_measure_latency(sn_trainer *t, const sr_arch *a, sn_latency *out, es_error *err) ES_MUST_CHECK;

/* A subnet cut out to stand alone: dense tensors with its own recalibrated statistics; runs on the net of sn_space_fix with the same outputs bit for bit. */
es_status sn_extract(sn_trainer *t, const sr_arch *a, sn_version **out, es_error *err) ES_MUST_CHECK;

#endif
