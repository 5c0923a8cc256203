#include "supernet/train/plans.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

struct sn_plans {
    sn_kept_plan kept[SN_PLANS_MAX];
    uint64_t asked;
};

sn_plans *sn_plans_new(void) { return es_xcalloc(1, sizeof(sn_plans)); }

void sn_plans_destroy(sn_plans **pp)
{
    sn_plans *p = *pp;
    if (!p)
        return;
    for (int i = 0; i < SN_PLANS_MAX; i++) {
        kn_plan_destroy(&p->kept[i].plan);
        free(p->kept[i].arch);
    }
    free(p);
    *pp = NULL;
}

static bool same(const sn_kept_plan *k, const sn_pass *p, int batch, kn_precision precision)
{
    const sn_pass *q = &k->pass;
    return k->made && k->batch == batch && k->precision == precision && q->loss == p->loss &&
           q->teaches == p->teaches && q->regularise == p->regularise && q->reports == p->reports &&
           q->scale == p->scale && sr_arch_equal(k->arch, p->arch);
}

sn_kept_plan *sn_plans_at(sn_plans *p, const sn_pass *pass, int batch, kn_precision precision)
{
    sn_kept_plan *k = &p->kept[0];
    for (int i = 0; i < SN_PLANS_MAX; i++) {
        sn_kept_plan *c = &p->kept[i];
        if (same(c, pass, batch, precision)) {
            c->asked = ++p->asked;
            return c;
        }
        if (c->asked < k->asked)
            k = c;
    }
    size_t bytes = sizeof *k->arch + (size_t)pass->arch->n;
    k->arch = es_xrealloc(k->arch, bytes);
    memcpy(k->arch, pass->arch, bytes);
    k->made = false;
    k->pass = *pass;
    k->pass.arch = NULL;
    k->batch = batch;
    k->precision = precision;
    k->asked = ++p->asked;
    return k;
}

void sn_plans_forget(sn_plans *p)
{
    for (int i = 0; i < SN_PLANS_MAX; i++) {
        kn_plan_destroy(&p->kept[i].plan);
        p->kept[i].made = false;
        p->kept[i].asked = 0;
    }
}

int sn_plans_count(const sn_plans *p, size_t *kernels)
{
    int n = 0;
    *kernels = 0;
    for (int i = 0; i < SN_PLANS_MAX; i++)
        if (p->kept[i].made) {
            n++;
            *kernels += kn_plan_steps(p->kept[i].plan);
        }
    return n;
}
