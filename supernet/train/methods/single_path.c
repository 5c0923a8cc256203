/* Single path, uniform (SPOS, arXiv:1904.00420): one subnet a step, every choice drawn uniformly, trained on the labels. */
#include "base/rng.h"
#include "supernet/train/methods.h"

static es_status step(sn_trainer *t, uint64_t at, es_error *err)
{
    es_rng r = sn_trainer_draw(t, at);
    sr_arch_random(sn_space_choices(t->file->space), &r, t->sampled);
    return sn_trainer_pass(
        t, &(sn_pass){.arch = t->sampled, .loss = SN_LOSS_LABELS, .regularise = true, .reports = true, .scale = 1},
        err);
}

const sn_method_ops sn_method_single_path = {.name = "single-path", .step = step};
