/* plans.h - plans of passes that come again every step (the largest subnet, the smallest), kept, so that they are lowered and planned once a run.
 *
 *     sn_kept_plan *k = sn_plans_at(t->plans, pass, batch, precision);
 *     if (!k->made)
 *         ES_RETURN(make(t, pass, &k->plan, err));            // with kn_plan_options.repeats: such plans are recorded (kernels/plan/plan.h)
 *     k->made = true;
 *
 * What a plan depends on is its key: architecture, loss, what the pass hands out, scale, batch, precision. What it also depends on but does not change while a trainer runs
 * one phase alone or in one gang (the network's flags, the search file) is not: whoever changes it says sn_plans_forget.
 * At most SN_PLANS_MAX (searchfile.h) are kept; the one not asked for the longest makes room. The table owns the plans; one is valid until the next sn_plans_at.
 */
#ifndef SN_PLANS_H
#define SN_PLANS_H

#include "supernet/train/methods.h"

typedef struct sn_kept_plan {
    kn_plan *plan;
    bool made; /* set by the caller */
    sn_pass pass;
    sr_arch *arch; /* own copy; pass.arch is not looked at */
    int batch;
    kn_precision precision;
    uint64_t asked;
} sn_kept_plan;

typedef struct sn_plans sn_plans;

sn_plans *sn_plans_new(void);
void sn_plans_destroy(sn_plans **p); /* before the device is closed */
sn_kept_plan *sn_plans_at(sn_plans *p, const sn_pass *pass, int batch, kn_precision precision);
void sn_plans_forget(sn_plans *p);
int sn_plans_count(const sn_plans *p, size_t *kernels); /* kernels: of all of them */

#endif
