/* The `supernet:` section: how the shared weights are trained. */
#include <math.h>
#include <string.h>

#include "supernet/searchfile/internal.h"

static const char *const methods[] = {
#define X(NAME, name, spelling, repeating) spelling,
    SN_METHODS(X)
#undef X
        NULL};
static const char *const distills[] = {"none", "kl", "alpha", NULL};
static const char *const optimizers[] = {"sgd", "adam", "adamw", NULL};
static const char *const schedules[] = {"constant", "cosine", "step", "exponential", NULL};

es_status sn_searchfile_int(const es_yaml_node *n, const char *key, int min, int max, int *out, es_error *err)
{
    int64_t v = *out;
    ES_RETURN(es_yaml_get_i64(n, key, min, max, &v, err));
    *out = (int)v;
    return ES_OK;
}

es_status sn_searchfile_float(const es_yaml_node *n, const char *key, double min, double max, float *out, es_error *err)
{
    double v = *out;
    ES_RETURN(es_yaml_get_f64(n, key, min, max, &v, err));
    *out = (float)v;
    return ES_OK;
}

void sn_searchfile_supernet_defaults(sn_supernet_config *c)
{
    *c = (sn_supernet_config){.method = SN_METHOD_SANDWICH,
                              .random_subnets = 2,
                              .distill = SN_DISTILL_KL,
                              .epochs = 10,
                              .batch = 128,
                              .slice_seconds = 60,
                              .slice_steps = 200,
                              .calibration = 2048};
    c->optimizer = (kn_optim_config){.kind = KN_SGD, .momentum = 0.9f, .nesterov = true, .decay = 1e-5f};
    c->schedule = (kn_schedule){.kind = KN_COSINE, .lr = 0.1f, .every = 1000, .factor = 0.97f};
    c->modules = (sn_modules_config){.parts = 2};
}

static es_status read_optimizer(const es_yaml_node *n, sn_supernet_config *c, es_error *err)
{
    static const char *const keys[] = {"kind",    "lr",    "momentum",  "nesterov",   "beta1", "beta2",
                                       "epsilon", "decay", "clip_norm", "clip_value", "ema",   NULL};
    kn_optim_config *o = &c->optimizer;
    int kind = (int)o->kind;
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_enum(n, "kind", optimizers, &kind, err));
    o->kind = (kn_optim_kind)kind;
    if (o->kind != KN_SGD) {
        static const char *const sgd_only[] = {"momentum", "nesterov"};
        for (int i = 0; i < 2; i++)
            if (es_yaml_find(n, sgd_only[i]))
                return es_yaml_fail(es_yaml_find(n, sgd_only[i]), err, "%s is for `kind: sgd`; %s has beta1 and beta2",
                                    sgd_only[i], optimizers[kind]);
        o->momentum = 0;
        o->nesterov = false;
        o->beta1 = 0.9f;
        o->beta2 = 0.999f;
        o->eps = 1e-8f;
        c->schedule.lr = 1e-3f;
    }
    ES_RETURN(sn_searchfile_float(n, "lr", 0, 100, &c->schedule.lr, err));
    ES_RETURN(sn_searchfile_float(n, "momentum", 0, 0.9999, &o->momentum, err));
    ES_RETURN(es_yaml_get_bool(n, "nesterov", &o->nesterov, err));
    ES_RETURN(sn_searchfile_float(n, "beta1", 0, 0.9999, &o->beta1, err));
    ES_RETURN(sn_searchfile_float(n, "beta2", 0, 0.99999, &o->beta2, err));
    ES_RETURN(sn_searchfile_float(n, "epsilon", 1e-12, 1, &o->eps, err));
    ES_RETURN(sn_searchfile_float(n, "decay", 0, 1, &o->decay, err));
    ES_RETURN(sn_searchfile_float(n, "clip_norm", 0, 1e6, &o->clip_norm, err));
    ES_RETURN(sn_searchfile_float(n, "clip_value", 0, 1e6, &o->clip_value, err));
    return sn_searchfile_float(n, "ema", 0, 0.99999, &o->ema, err);
}

static es_status read_schedule(const es_yaml_node *n, sn_supernet_config *c, es_error *err)
{
    static const char *const keys[] = {"kind", "lr_min", "warmup_epochs", "every", "factor", NULL};
    int kind = (int)c->schedule.kind;
    int64_t every = (int64_t)c->schedule.every;
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_enum(n, "kind", schedules, &kind, err));
    c->schedule.kind = (kn_schedule_kind)kind;
    ES_RETURN(sn_searchfile_float(n, "lr_min", 0, c->schedule.lr, &c->schedule.lr_min, err));
    ES_RETURN(es_yaml_get_f64(n, "warmup_epochs", 0, c->epochs, &c->warmup_epochs, err));
    ES_RETURN(es_yaml_get_i64(n, "every", 1, 1000000000, &every, err));
    c->schedule.every = (uint64_t)every;
    ES_RETURN(sn_searchfile_float(n, "factor", 0, 1, &c->schedule.factor, err));
    static const char *const stepped[] = {"every", "factor"};
    for (int i = 0; i < 2; i++)
        if (es_yaml_find(n, stepped[i]) && kind != KN_STEP && kind != KN_EXPONENTIAL)
            return es_yaml_fail(es_yaml_find(n, stepped[i]), err, "%s is for `kind: step` and `kind: exponential`",
                                stepped[i]);
    return ES_OK;
}

static es_status read_modules(const es_yaml_node *n, sn_supernet_config *c, es_error *err)
{
    static const char *const keys[] = {"parts",           "cuts",       "epochs_meta", "epochs_part",
                                       "epochs_finetune", "end_to_end", NULL};
    sn_modules_config *m = &c->modules;
    enum { CUTS_MAX = sizeof m->cut / sizeof m->cut[0] };
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(sn_searchfile_int(n, "parts", 2, CUTS_MAX + 1, &m->parts, err));
    ES_RETURN(es_yaml_get_f64(n, "epochs_meta", 0.001, 1e5, &m->epochs_meta, err));
    ES_RETURN(es_yaml_get_f64(n, "epochs_part", 0.001, 1e5, &m->epochs_part, err));
    ES_RETURN(es_yaml_get_f64(n, "epochs_finetune", 0, 1e5, &m->epochs_finetune, err));
    ES_RETURN(es_yaml_get_bool(n, "end_to_end", &m->end_to_end, err));
    const es_yaml_node *cuts = es_yaml_find(n, "cuts");
    if (!cuts)
        return ES_OK;
    ES_RETURN(es_yaml_expect(cuts, ES_YAML_LIST, err));
    if (cuts->count < 1 || cuts->count > CUTS_MAX || (es_yaml_find(n, "parts") && (int)cuts->count != m->parts - 1))
        return es_yaml_fail(cuts, err, "%zu cuts; allowed: one less than `parts`, at most %d", cuts->count, CUTS_MAX);
    for (size_t i = 0; i < cuts->count; i++) {
        int64_t v;
        ES_RETURN(es_yaml_i64(cuts->items[i], 1, 1000, &v, err));
        if (i > 0 && v <= m->cut[i - 1])
            return es_yaml_fail(cuts->items[i], err, "cuts are rising block numbers; %d is not above %d", (int)v,
                                m->cut[i - 1]);
        m->cut[i] = (int)v;
    }
    m->cuts = (int)cuts->count;
    m->parts = m->cuts + 1;
    return ES_OK;
}

es_status sn_searchfile_read_supernet(const es_yaml_node *n, sn_supernet_config *c, es_error *err)
{
    static const char *const keys[] = {"method",        "random_subnets",    "distill",     "epochs",
                                       "batch",         "smoothing",         "optimizer",   "schedule",
                                       "slice_seconds", "slice_steps",       "calibration", "modules",
                                       "gang_subnets",  "calibration_batch", NULL};
    static const char *const gang_subnets[] = {"same", "own", NULL};
    int method = (int)c->method, distill, own = 0;
    ES_RETURN(es_yaml_check_keys(n, keys, err));
    ES_RETURN(es_yaml_get_enum(n, "method", methods, &method, err));
    c->method = (sn_method)method;
    distill = c->method == SN_METHOD_SANDWICH ? SN_DISTILL_KL : SN_DISTILL_NONE;
    ES_RETURN(es_yaml_get_enum(n, "distill", distills, &distill, err));
    c->distill = (sn_distill)distill;
    if (c->distill != SN_DISTILL_NONE && c->method != SN_METHOD_SANDWICH)
        return es_yaml_fail(es_yaml_find(n, "distill"), err,
                            "only `method: sandwich` has a teacher to distill from; allowed here: none");
    const es_yaml_node *random = es_yaml_find(n, "random_subnets"), *modules = es_yaml_find(n, "modules");
    if (random && c->method != SN_METHOD_SANDWICH)
        return es_yaml_fail(random, err, "is for `method: sandwich`");
    if (modules && c->method != SN_METHOD_MODULES)
        return es_yaml_fail(modules, err, "is for `method: modules`");
    ES_RETURN(sn_searchfile_int(n, "random_subnets", 0, 64, &c->random_subnets, err));
    ES_RETURN(es_yaml_get_f64(n, "epochs", 0.001, 100000, &c->epochs, err));
    ES_RETURN(sn_searchfile_int(n, "batch", 2, 65536, &c->batch, err));
    ES_RETURN(es_yaml_get_enum(n, "gang_subnets", gang_subnets, &own, err));
    c->own_subnets = own == 1;
    ES_RETURN(sn_searchfile_float(n, "smoothing", 0, 0.9, &c->smoothing, err));
    ES_RETURN(es_yaml_get_f64(n, "slice_seconds", 0, 86400, &c->slice_seconds, err));
    ES_RETURN(es_yaml_get_i64(n, "slice_steps", 1, 1000000000, &c->slice_steps, err));
    ES_RETURN(es_yaml_get_i64(n, "calibration", 1, 10000000, &c->calibration, err));
    ES_RETURN(sn_searchfile_int(n, "calibration_batch", 1, 65536, &c->calibration_batch, err));
    const es_yaml_node *o = es_yaml_find(n, "optimizer"), *s = es_yaml_find(n, "schedule");
    if (o)
        ES_RETURN(read_optimizer(o, c, err));
    if (s)
        ES_RETURN(read_schedule(s, c, err));
    /* Epochs of modules: what an end-to-end run would get, in the proportions of the paper (300 : 100 : 100). */
    c->modules.epochs_meta = c->epochs;
    c->modules.epochs_part = c->modules.epochs_finetune = c->epochs / 3;
    return modules ? read_modules(modules, c, err) : ES_OK;
}
