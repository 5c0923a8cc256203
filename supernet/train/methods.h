/* methods.h - what a training method sees of the trainer, and the trainer's inside.
 *
 *     static es_status step(sn_trainer *t, uint64_t step, es_error *err)
 *     {
 *         sr_arch_random(choices, &rng, t->sampled);
 *         return sn_trainer_pass(t, &(sn_pass){.arch = t->sampled, .loss = SN_LOSS_LABELS, .reports = true, .scale = 1}, err);
 *     }
 *     const sn_method_ops sn_method_mine = {.name = "mine", .step = step};
 *
 * A step's passes add their gradients; the trainer then updates once. A pass that teaches keeps its logits (a buffer: no gradient flows back) for the passes after it.
 * A method keeps no state between steps: what it draws comes from sn_trainer_draw, keyed by the step. In a gang (gang.h) `step` is called once more before, to hear what it will do.
 */
#ifndef SN_METHODS_H
#define SN_METHODS_H

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "supernet/train/gang.h"

typedef enum sn_loss_kind {
    SN_LOSS_LABELS, /* cross-entropy with the configured smoothing */
    SN_LOSS_KL, /* soft cross-entropy with the teacher's softmax: the gradient of KL(teacher, student), arXiv:2003.11142 */
    SN_LOSS_ALPHA /* adaptive alpha-divergence from the teacher, arXiv:2102.07954: alpha -1 and 1, clipped at 5 */
} sn_loss_kind;

typedef struct sn_pass {
    const sr_arch *arch;
    sn_loss_kind loss;
    bool teaches, regularise, reports; /* reports: its loss is the step's */
    bool repeats;                      /* comes again in every step: its plan is kept (plans.h) */
    float scale;                       /* of its gradient; the loss is the mean over the batch */
} sn_pass;

typedef struct sn_method_ops {
    const char *name;
    es_status (*step)(sn_trainer *t, uint64_t step, es_error *err);
} sn_method_ops;
#define X(NAME, name, spelling, repeating) extern const sn_method_ops sn_method_##name;
SN_METHODS(X)
#undef X

enum { SN_OUT_LOSS = 0, SN_OUT_LOGITS = 1, SN_OUT_CORRECT = 2 };
enum { SN_LOSS_RING = 256, SN_PARTS_MAX = 17 };

struct sn_trainer {
    const sn_search_file *file;
    kn_device *dev;
    const sn_method_ops *method;
    sn_net *net;
    sn_data *data;
    sn_loader *loader;
    kn_weights *weights, *stats; /* stats: of the frozen parts while a part is trained */
    kn_weights *eval_stats,
        *average; /* recalibrated per evaluation; the moving average of the weights, when there is one */
    kn_optim *optim;
    kn_graph *graph;
    kn_plan *plan;                    /* of passes that do not repeat, and others that come once */
    struct sn_plans *plans;           /* of those that do */
    struct sn_link_plans *link_plans; /* of evaluations */
    bool warm, warming;               /* the first steps have been rehearsed on the device; are being */
    const sn_hooks *hooks;            /* while warming; may be NULL */
    kn_workspace *ws;
    size_t workspace_bytes;
    sr_arch *largest, *smallest, *sampled;
    void *teacher, *losses,
        *scores; /* device: [batch, classes]; SN_LOSS_RING floats and one that passes write; scores of an evaluation */
    size_t scores_bytes;
    struct sn_stream *stream; /* of evaluations; NULL until the first, and while training */
    size_t keep_bytes;
    int64_t links_asked, links_run;
    bool exact;     /* fp32 on a device that could do bf16 */
    sn_batch batch; /* of the step */
    uint64_t seed, step, steps;
    kn_schedule schedule;
    int pending; /* losses in the ring */
    double loss_sum;
    uint64_t loss_count;
    sn_gang *gang; /* NULL: alone */
    /* Modules. */
    sn_phase phase;
    int part;            /* 0-based, -1 when none */
    int *part_of;        /* by unit */
    uint8_t *unit_flags; /* of the phase's network; NULL: whole */
};

es_status sn_trainer_pass(sn_trainer *t, const sn_pass *p, es_error *err) ES_MUST_CHECK;
es_rng sn_trainer_draw(const sn_trainer *t, uint64_t step); /* random numbers for the step's subnets */
int sn_trainer_batch(const sn_trainer *t);                  /* samples in a pass: the batch, or this rank's share */
es_status sn_trainer_optim(sn_trainer *t,
                           es_error *err) ES_MUST_CHECK; /* a new optimiser of what the phase trains, its state zero */
/* Makes t->plan of t->graph and the workspace for it. */
es_status sn_trainer_plan(sn_trainer *t, es_error *err) ES_MUST_CHECK;
/* The same, to another plan, which may be one that will repeat. */
es_status sn_trainer_plan_to(sn_trainer *t, kn_plan **plan, bool repeats, es_error *err) ES_MUST_CHECK;
/* The workspace for a plan that is there already. */
es_status sn_trainer_room(sn_trainer *t, const kn_plan *plan, es_error *err) ES_MUST_CHECK;
kn_precision sn_trainer_precision(const sn_trainer *t);
/* `arch` with these unit flags: its batch norms' statistics into `stats`. */
es_status sn_calibrate(sn_trainer *t, const sr_arch *a, const uint8_t *flags, kn_weights *weights, kn_weights *stats,
                       es_error *err) ES_MUST_CHECK;
/* The weights that evaluation uses: the moving average where one is kept. */
es_status sn_trainer_eval_weights(sn_trainer *t, kn_weights **out, es_error *err) ES_MUST_CHECK;
es_status sn_trainer_upload(kn_weights *w, const sn_version *v, const char *name,
                            es_error *err) ES_MUST_CHECK; /* a flat array of a version */

uint64_t sn_trainer_steps_of(const sn_trainer *t, double epochs); /* at least 1 */
/* state.c: the version belongs to this search and space; which phase and (1-based) part it is of. */
es_status sn_trainer_check(const sn_trainer *t, const sn_version *v, int *phase, int *part,
                           es_error *err) ES_MUST_CHECK;
char *sn_trainer_assembled_meta(const sn_trainer *t); /* of a version to be fine-tuned from step 0; caller frees */

/* modules.c */
es_status sn_modules_cut(const sn_trainer *t, int *part_of, es_error *err) ES_MUST_CHECK;
bool sn_modules_trains(const sn_trainer *t, int set, kn_param id); /* in the part being trained; true outside PART */
/* The phase's first weights: from the seed, or (PART) the meta model's with the part afresh and the frozen parts' statistics. */
es_status sn_modules_start(sn_trainer *t, const sn_version *meta, es_error *err) ES_MUST_CHECK;

#endif
