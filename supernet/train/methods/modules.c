/* Deep Model Assembling: one architecture a step; which of its units are there and learn is the phase's (modules.c). */
#include "supernet/train/methods.h"

static es_status step(sn_trainer *t, uint64_t at, es_error *err)
{
    (void)at;
    return sn_trainer_pass(t,
                           &(sn_pass){.arch = t->largest,
                                      .loss = SN_LOSS_LABELS,
                                      .regularise = true,
                                      .reports = true,
                                      .repeats = true,
                                      .scale = 1},
                           err);
}

const sn_method_ops sn_method_modules = {.name = "modules", .step = step};
