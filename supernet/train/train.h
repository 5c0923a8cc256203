/* train.h - training a supernet and using it: methods behind one small interface, slices between checkpoints, evaluation and extraction.
 *
 *     sn_trainer *t; sn_trainer_new(file, dev, &t, err);               // net, data, optimiser, method by name; weights from the seed
 *     sn_trainer_load(t, version, err);                                // or from a checkpoint
 *     sn_trainer_run(t, until_step, &hooks, &report, err);             // stops early when hooks.stop() says so, at a step boundary
 *     sn_version *v; sn_trainer_save(t, &v, err);                      // values, optimiser arrays, step: everything a resumed run needs for the same bits
 *     sn_evaluate(t, arch, SN_VALIDATION_SPLIT, limit, &eval, err);    // recalibrates batch norm for this architecture, then scores; leaves training state alone
 *
 * To add a training method: one file methods/<name>.c with an sn_method_ops (methods.h) and one line in SN_METHODS (searchfile/searchfile.h). A method decides which subnets run in a
 * step, with which loss and gradient scaling; the trainer owns batches, gradients, clipping, the update and the schedule.
 *
 * State: everything random in a step (its batch, its augmentation, its subnets, its dropout) is a function of (seed, step), so weights, optimiser arrays and the
 * step number are the whole state, and a version holds exactly them (arrays "values", one per optimiser array, and "stats" while a part is trained).
 *
 * Modules (Deep Model Assembling, arXiv:2212.04129; `supernet: {method: modules}`) train one architecture, the largest of the space, as separate jobs, each startable
 * from versions alone:
 *
 *     sn_trainer_phase(t, SN_PHASE_META, 0, NULL, err);                       // then run; its version is `meta`
 *     sn_trainer_phase(t, SN_PHASE_PART, k, meta, err);                       // k = 1 .. parts; or NULL and sn_trainer_load of an earlier slice of the part
 *     sn_modules_assemble(t, part_versions, parts, &assembled, err);          // copies every part's parameters
 *     sn_trainer_phase(t, SN_PHASE_FINETUNE, 0, NULL, err); sn_trainer_load(t, assembled, err);
 *     sn_trainer_phase(t, SN_PHASE_END_TO_END, 0, NULL, err);                 // the comparison: as many multiply-adds spent on the whole network
 */
#ifndef SN_TRAIN_H
#define SN_TRAIN_H

#include "kernels/device/clocks.h"
#include "kernels/plan/plan.h"
#include "supernet/data/data.h"
#include "supernet/net/net.h"
#include "supernet/searchfile/searchfile.h"
#include "supernet/version/version.h"

typedef struct sn_trainer sn_trainer;

typedef struct sn_hooks {
    void *ctx;
    bool (*stop)(void *ctx); /* asked between steps, and between the passes of the rehearsal; once true, it holds */
    void (*progress)(void *ctx, uint64_t step, uint64_t steps, double loss,
                     double images_per_s); /* about once a second */
} sn_hooks;

typedef struct sn_report {
    uint64_t step;
    double mean_loss, images_per_s, seconds;
    /* Of the seconds: before the first step (memory; on a GPU also code and product algorithms, by a rehearsal of two steps). */
    double prepare_s;
} sn_report;

es_status sn_trainer_new(const sn_search_file *f, kn_device *dev, sn_trainer **out,
                         es_error *err) ES_MUST_CHECK; /* borrows both */
void sn_trainer_destroy(sn_trainer **t);
uint64_t sn_train_steps(const sn_trainer *t); /* of the whole training (of this phase) */
uint64_t sn_trainer_step(const sn_trainer *t);
/* ES_INVALID when the loss is no longer a finite number: the text names the step and the learning rate. */
es_status sn_trainer_run(sn_trainer *t, uint64_t until_step, const sn_hooks *h, sn_report *out,
                         es_error *err) ES_MUST_CHECK;
es_status sn_trainer_save(sn_trainer *t, sn_version **out, es_error *err) ES_MUST_CHECK;
es_status sn_trainer_load(sn_trainer *t, const sn_version *v,
                          es_error *err) ES_MUST_CHECK; /* layout, phase and the search's identity must match */
/* Weights, optimiser, data and the workspace as far as it has grown. */
size_t sn_trainer_memory_bytes(const sn_trainer *t);

/* The numbers are those of the wire's Phase. SUPERNET is every method but modules, and (for modules) evaluation of assembled weights. */
typedef enum sn_phase {
    SN_PHASE_SUPERNET,
    SN_PHASE_META,
    SN_PHASE_PART,
    SN_PHASE_FINETUNE,
    SN_PHASE_END_TO_END,
    SN_PHASES
} sn_phase;
/* Restarts the trainer as that phase at step 0. part: 1-based, only for PART. */
es_status sn_trainer_phase(sn_trainer *t, sn_phase phase, int part, const sn_version *meta,
                           es_error *err) ES_MUST_CHECK;
es_status sn_modules_assemble(sn_trainer *t, const sn_version *const *parts, int n, sn_version **out,
                              es_error *err) ES_MUST_CHECK;

/* What the phases of `method: modules` do and cost; multiply-adds of training: forward 1, gradient of inputs 1, gradient of weights 1 each. */
typedef struct sn_modules_plan {
    int parts, blocks, units;
    int first_block[18];       /* of each part, and the end */
    uint64_t steps[SN_PHASES]; /* PART: of each part */
    double macs[SN_PHASES];    /* a whole phase; PART: all parts together */
    double part_macs[17],
        critical_macs; /* each part; meta + dearest part + fine-tuning: what remains when parts train at once */
} sn_modules_plan;
es_status sn_modules_describe(const sn_trainer *t, sn_modules_plan *out, es_error *err) ES_MUST_CHECK;

/* Batch norm is recalibrated for every evaluated subnet: the average, over batches of sn_calibration_batch samples, of batch statistics on `supernet.calibration` training
 * samples, drawn once per seed (sn_loader_calibration) and not augmented: what is scored is not augmented either. limit: the first so many of the split; 0 all.
 * A sample of tokens is a window; every position of it is scored. */
typedef struct sn_evaluation {
    uint64_t correct, samples; /* of tokens: positions */
    double loss;               /* mean cross-entropy, nats */
} sn_evaluation;
/* `supernet.calibration_batch`; else 256, for images larger than 32x32 as many pixels, at least 64. */
int sn_calibration_batch(const sn_trainer *t);
es_status sn_evaluate(sn_trainer *t, const sr_arch *a, sn_split split, int64_t limit, sn_evaluation *out,
                      es_error *err) ES_MUST_CHECK;

/* Many subnets of one weights version: what some have in common from the images on is computed once (stream.h), its calibration included. The results are those of
 * sn_evaluate, bit for bit: in calibration every batch norm normalises with its batch's own statistics, so what a unit sees, and the statistics it gets, depend on the units
 * before it and on the weights alone, never on what comes behind. (It would not be exact if statistics were calibrated with those of the units behind, if a batch were
 * drawn anew for each subnet, or with drop-out on; none of that happens here.) h: asked to stop before each subnet (ES_CANCELLED), told after each; may be NULL. */
es_status sn_evaluate_many(sn_trainer *t, const sr_arch *const *archs, int n, sn_split split, int64_t limit,
                           const sn_hooks *h, sn_evaluation *out, es_error *err) ES_MUST_CHECK;
/* Memory for values in common: at most so many bytes, besides a quarter of what is free and 256 MiB (a GPU: 16 GiB). What does not fit is computed again. 0: none. */
void sn_trainer_keep_bytes(sn_trainer *t, size_t bytes);
/* Since the trainer was made: units of all subnets evaluated, and those of them that were computed. */
void sn_trainer_sharing(const sn_trainer *t, int64_t *links_asked, int64_t *links_run);
/* fp32 where bf16 is the rule (a GPU): for comparing. */
void sn_trainer_exact(sn_trainer *t);

typedef struct sn_latency {
    double median_ms, low_ms, high_ms;
    int runs;
    kn_clocks clocks; /* of the device, right after the last run */
} sn_latency;         /* low, high: quartiles; one image a run */
es_status sn_measure_latency(sn_trainer *t, const sr_arch *a, sn_latency *out, es_error *err) ES_MUST_CHECK;

/* A subnet cut out to stand alone: dense tensors with its own recalibrated statistics; runs on the net of sn_space_fix with the same outputs bit for bit. Kind "subnet";
 * its meta names the architecture. */
es_status sn_extract(sn_trainer *t, const sr_arch *a, sn_version **out, es_error *err) ES_MUST_CHECK;
/* Extracted tensors into the weights of a stand-alone net: every parameter of both sets must be there with its shape. */
es_status sn_subnet_load(const sn_version *v, kn_weights *weights, kn_weights *stats, es_error *err) ES_MUST_CHECK;

#endif
