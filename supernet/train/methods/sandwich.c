/* The sandwich rule with in-place distillation (BigNAS, arXiv:2003.11142; AlphaNet, arXiv:2102.07954): the largest subnet learns from the labels and alone is
 * regularised; random ones and the smallest learn from its logits. Gradients are summed, not averaged, and the weights updated once. */
#include "base/rng.h"
#include "supernet/train/methods.h"

static es_status step(sn_trainer *t, uint64_t at, es_error *err)
{
    static const sn_loss_kind losses[] = {
        [SN_DISTILL_NONE] = SN_LOSS_LABELS, [SN_DISTILL_KL] = SN_LOSS_KL, [SN_DISTILL_ALPHA] = SN_LOSS_ALPHA};
    const sn_supernet_config *c = &t->file->supernet;
    sn_pass student = {.loss = losses[c->distill], .scale = 1};
    es_rng r = sn_trainer_draw(t, at);
    ES_RETURN(sn_trainer_pass(t,
                              &(sn_pass){.arch = t->largest,
                                         .loss = SN_LOSS_LABELS,
                                         .teaches = c->distill != SN_DISTILL_NONE,
                                         .regularise = true,
                                         .reports = true,
                                         .repeats = true,
                                         .scale = 1},
                              err));
    for (int i = 0; i < c->random_subnets; i++) {
        sr_arch_random(sn_space_choices(t->file->space), &r, t->sampled);
        student.arch = t->sampled;
        ES_RETURN(sn_trainer_pass(t, &student, err));
    }
    student.arch = t->smallest;
    student.repeats = true;
    return sn_trainer_pass(t, &student, err);
}

const sn_method_ops sn_method_sandwich = {.name = "sandwich", .step = step};
