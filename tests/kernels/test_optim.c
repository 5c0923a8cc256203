/* The optimisers against their published formulas written out in double, one element at a time, and hand-worked first steps. */
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/optim/optim.h"

enum { STEPS = 7 };

typedef struct rig {
    kn_device *dev;
    kn_params *params;
    kn_weights *w;
    kn_param a, b, c; /* a decays, b does not, c decays and is odd-sized */
    int64_t n;
    double *value, *m, *v, *ema; /* the oracle's */
    float *grad, *host;
} rig;

static const char *device_name(void)
{
    const char *name = getenv("ESPALIER_TEST_DEVICE");
    return name ? name : "cpu";
}

static rig rig_make(const char *device)
{
    rig r = {0};
    es_error err = {0};
    ck_assert_ok_err(kn_device_open(device, &r.dev, &err), &err);
    r.params = kn_params_new();
    ck_assert_ok_err(kn_params_add(r.params, "a", KN_SHAPE(130, 33), KN_INIT_HE_IN, KN_PARAM_DECAY, &r.a, &err), &err);
    ck_assert_ok_err(kn_params_add(r.params, "b", KN_SHAPE(7), KN_INIT_ONE, 0, &r.b, &err), &err);
    ck_assert_ok_err(
        kn_params_add(r.params, "c", KN_SHAPE(5, 3, 3, 401), KN_INIT_NORMAL_002, KN_PARAM_DECAY, &r.c, &err), &err);
    kn_params_seal(r.params);
    ck_assert_ok_err(kn_weights_new(r.dev, r.params, KN_WITH_GRAD, &r.w, &err), &err);
    ck_assert_ok_err(kn_weights_init(r.w, 11, &err), &err);
    r.n = kn_params_elements(r.params);
    double **arrays[] = {&r.value, &r.m, &r.v, &r.ema};
    for (int i = 0; i < 4; i++)
        *arrays[i] = calloc((size_t)r.n, sizeof(double));
    r.grad = calloc((size_t)r.n, sizeof(float));
    r.host = calloc((size_t)r.n, sizeof(float));
    ck_assert_ok_err(kn_weights_download(r.w, r.host, &err), &err);
    for (int64_t i = 0; i < r.n; i++)
        r.value[i] = r.ema[i] = r.host[i];
    return r;
}

static void rig_free(rig *r)
{
    kn_weights_destroy(&r->w);
    kn_params_destroy(&r->params);
    kn_device_close(&r->dev);
    free(r->value), free(r->m), free(r->v), free(r->ema), free(r->grad), free(r->host);
}

/* Which parameter element i belongs to; -1: padding. */
static kn_param owner(const rig *r, int64_t i)
{
    for (kn_param id = 0; id < kn_params_count(r->params); id++) {
        const kn_param_def *d = kn_params_def(r->params, id);
        if (i >= d->offset && i < d->offset + d->count)
            return id;
    }
    return -1;
}

static void put_gradients(rig *r, int step)
{
    es_error err = {0};
    es_rng rng = es_rng_make(5, ES_USE_TEST, (uint64_t)step);
    for (int64_t i = 0; i < r->n; i++)
        r->grad[i] = owner(r, i) < 0 ? 0 : es_rng_normal(&rng) * (step == 2 ? 5.0f : 0.1f);
    ck_assert_ok_err(kn_device_upload(r->dev, kn_weights_grads(r->w), r->grad, (size_t)r->n * sizeof(float), &err),
                     &err);
}

/* One step of the oracle; the global norm of the raw gradients is returned. */
static double oracle_step(rig *r, const kn_optim_config *c, double lr, int t, kn_param frozen)
{
    double raw = 0, clipped = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < r->n; i++) {
            kn_param id = owner(r, i);
            double g = r->grad[i], w = r->value[i];
            if (id < 0 || id == frozen)
                continue;
            raw += pass ? 0 : g * g;
            if (c->clip_value > 0)
                g = fmax(-c->clip_value, fmin(c->clip_value, g));
            clipped += pass ? 0 : g * g;
            if (!pass)
                continue;
            if (c->clip_norm > 0 && sqrt(clipped) > c->clip_norm)
                g *= c->clip_norm / sqrt(clipped);
            double decay = kn_params_def(r->params, id)->flags & KN_PARAM_DECAY ? c->decay : 0;
            if (c->kind == KN_ADAMW)
                w -= lr * decay * w;
            else
                g += decay * w;
            if (c->kind == KN_SGD) {
                r->m[i] = c->momentum * r->m[i] + g;
                w -= lr * (c->nesterov ? g + c->momentum * r->m[i] : r->m[i]);
            } else {
                r->m[i] = c->beta1 * r->m[i] + (1 - (double)c->beta1) * g;
                r->v[i] = c->beta2 * r->v[i] + (1 - (double)c->beta2) * g * g;
                double mean = r->m[i] / (1 - pow(c->beta1, t)), square = r->v[i] / (1 - pow(c->beta2, t));
                w -= lr * mean / (sqrt(square) + c->eps);
            }
            r->value[i] = w;
        }
    for (int64_t i = 0; i < r->n; i++)
        r->ema[i] = c->ema * r->ema[i] + (1 - (double)c->ema) * r->value[i];
    return sqrt(raw);
}

static void compare(const rig *r, const float *got, const double *want, const char *what)
{
    for (int64_t i = 0; i < r->n; i++)
        ck_assert_msg(fabs(got[i] - want[i]) <= 2e-6 + 2e-5 * fabs(want[i]), "%s[%lld] = %.9g, expected %.9g", what,
                      (long long)i, (double)got[i], want[i]);
}

static bool not_a(void *ctx, kn_param id) { return id != *(const kn_param *)ctx; }

static void check_against_oracle(const kn_optim_config *c, bool freeze)
{
    rig r = rig_make(device_name());
    es_error err = {0};
    kn_optim *o = NULL;
    kn_param frozen = freeze ? r.a : -1;
    ck_assert_ok_err(kn_optim_new(c, r.w, &o, &err), &err);
    if (freeze)
        kn_optim_trainable(o, not_a, &frozen);
    for (int t = 1; t <= STEPS; t++) {
        double lr = 0.01 * t;
        float norm;
        put_gradients(&r, t);
        ck_assert_ok_err(kn_optim_update(o, (float)lr, &err), &err);
        double want = oracle_step(&r, c, lr, t, frozen);
        ck_assert_ok_err(kn_optim_norm(o, &norm, &err), &err);
        ck_assert_double_eq_tol(norm, want, 1e-5 * want);
    }
    ck_assert_ok_err(kn_weights_download(r.w, r.host, &err), &err);
    compare(&r, r.host, r.value, "value");
    for (int i = 0; i < kn_optim_arrays(o); i++) {
        const char *name = kn_optim_array_name(o, i);
        ck_assert_ok_err(kn_optim_save(o, i, r.host, &err), &err);
        compare(&r, r.host, strcmp(name, "v") == 0 ? r.v : strcmp(name, "ema") == 0 ? r.ema : r.m, name);
    }
    /* The trained set's gradients are zero, the others' untouched. */
    ck_assert_ok_err(kn_device_download(r.dev, r.host, kn_weights_grads(r.w), (size_t)r.n * sizeof(float), &err), &err);
    for (int64_t i = 0; i < r.n; i++)
        ck_assert_float_eq(r.host[i], freeze && owner(&r, i) == frozen ? r.grad[i] : 0.0f);
    ck_assert_uint_eq(kn_optim_count(o), STEPS);
    kn_optim_destroy(&o);
    rig_free(&r);
}

START_TEST(matches_formulas)
    {
        kn_optim_config configs[] = {
            {.kind = KN_SGD},
            {.kind = KN_SGD, .decay = 0.01f},
            {.kind = KN_SGD, .momentum = 0.9f, .decay = 1e-3f},
            {.kind = KN_SGD, .momentum = 0.9f, .nesterov = true, .decay = 1e-3f, .ema = 0.9f},
            {.kind = KN_SGD, .momentum = 0.8f, .nesterov = true, .clip_norm = 1.0f},
            {.kind = KN_SGD, .momentum = 0.8f, .clip_value = 0.15f, .clip_norm = 2.0f, .ema = 0.5f},
            {.kind = KN_ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .decay = 0.01f},
            {.kind = KN_ADAM, .beta1 = 0.5f, .beta2 = 0.99f, .eps = 1e-3f, .clip_value = 1.0f, .ema = 0.99f},
            {.kind = KN_ADAMW, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f, .clip_norm = 0.5f},
        };
        for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++)
            for (int freeze = 0; freeze < 2; freeze++)
                check_against_oracle(&configs[i], freeze);
    }
END_TEST

/* First steps worked by hand for one weight w = 1 with gradient 0.5 and learning rate 0.1. */
START_TEST(first_steps_by_hand)
    {
        struct {
            kn_optim_config c;
            double one, two;
        } cases[] = {
            {{.kind = KN_SGD}, 0.95, 0.90},
            /* v = 0.5, then 0.95 */
            {{.kind = KN_SGD, .momentum = 0.9f}, 0.95, 0.855},
            /* g + m v = 0.95, then 0.5 + 0.9 * 0.95 = 1.355 */
            {{.kind = KN_SGD, .momentum = 0.9f, .nesterov = true}, 0.905, 0.7695},
            /* Adam's corrected moments of a constant gradient are g and g^2: steps of lr */
            {{.kind = KN_ADAM}, 0.9, 0.8},
            /* AdamW: 1 (1 - 0.1 * 0.5) - 0.1 = 0.85, then 0.85 * 0.95 - 0.1 */
            {{.kind = KN_ADAMW, .decay = 0.5f}, 0.85, 0.7075},
            /* clipped to the norm 0.25, then to the value 0.125 */
            {{.kind = KN_SGD, .clip_norm = 0.25f}, 0.975, 0.95},
            {{.kind = KN_SGD, .clip_value = 0.125f}, 0.9875, 0.975},
        };
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            es_error err = {0};
            kn_device *dev = NULL;
            kn_weights *w = NULL;
            kn_optim *o = NULL;
            kn_param id;
            kn_params *p = kn_params_new();
            ck_assert_ok_err(kn_params_add(p, "w", KN_SHAPE(1), KN_INIT_ONE, KN_PARAM_DECAY, &id, &err), &err);
            kn_params_seal(p);
            ck_assert_ok_err(kn_device_open(device_name(), &dev, &err), &err);
            ck_assert_ok_err(kn_weights_new(dev, p, KN_WITH_GRAD, &w, &err), &err);
            ck_assert_ok_err(kn_weights_init(w, 1, &err), &err);
            ck_assert_ok_err(kn_optim_new(&cases[i].c, w, &o, &err), &err);
            for (int t = 0; t < 2; t++) {
                float g = 0.5f, *host = calloc((size_t)kn_params_elements(p), sizeof(float));
                ck_assert_ok_err(kn_device_upload(dev, kn_weights_grads(w), &g, sizeof g, &err), &err);
                ck_assert_ok_err(kn_optim_update(o, 0.1f, &err), &err);
                ck_assert_ok_err(kn_weights_download(w, host, &err), &err);
                ck_assert_double_eq_tol(host[0], t ? cases[i].two : cases[i].one, 1e-6);
                for (int64_t k = 1; k < kn_params_elements(p); k++)
                    ck_assert_float_eq(host[k], 0.0f); /* padding stays zero */
                free(host);
            }
            kn_optim_destroy(&o);
            kn_weights_destroy(&w);
            kn_device_close(&dev);
            kn_params_destroy(&p);
        }
    }
END_TEST

static void run_steps(rig *r, kn_optim *o, int from, int to)
{
    es_error err = {0};
    for (int t = from; t < to; t++) {
        put_gradients(r, t);
        ck_assert_ok_err(kn_optim_update(o, 0.05f, &err), &err);
    }
}

START_TEST(resumes_bit_for_bit)
    {
        kn_optim_config c = {.kind = KN_ADAMW, .decay = 0.1f, .clip_norm = 1.0f, .ema = 0.9f};
        rig a = rig_make(device_name()), b = rig_make(device_name());
        es_error err = {0};
        kn_optim *oa = NULL, *ob = NULL;
        ck_assert_ok_err(kn_optim_new(&c, a.w, &oa, &err), &err);
        run_steps(&a, oa, 0, 3);
        /* b starts from what a saves after three steps. */
        ck_assert_ok_err(kn_optim_new(&c, b.w, &ob, &err), &err);
        ck_assert_ok_err(kn_weights_download(a.w, a.host, &err), &err);
        ck_assert_ok_err(kn_weights_upload(b.w, a.host, &err), &err);
        ck_assert_int_eq(kn_optim_arrays(oa), 3);
        for (int i = 0; i < 3; i++) {
            ck_assert_str_eq(kn_optim_array_name(oa, i), ((const char *[]){"m", "v", "ema"})[i]);
            ck_assert_ok_err(kn_optim_save(oa, i, a.host, &err), &err);
            ck_assert_ok_err(kn_optim_load(ob, i, a.host, &err), &err);
        }
        kn_optim_set_count(ob, kn_optim_count(oa));
        run_steps(&a, oa, 3, 6);
        run_steps(&b, ob, 3, 6);
        ck_assert_ok_err(kn_weights_download(a.w, a.host, &err), &err);
        ck_assert_ok_err(kn_weights_download(b.w, b.host, &err), &err);
        ck_assert_mem_eq(a.host, b.host, (size_t)a.n * sizeof(float));
        kn_optim_destroy(&oa);
        kn_optim_destroy(&ob);
        rig_free(&a);
        rig_free(&b);
    }
END_TEST

START_TEST(threads_change_no_bit)
    {
        kn_optim_config c = {.kind = KN_SGD, .momentum = 0.9f, .nesterov = true, .clip_norm = 0.5f, .ema = 0.9f};
        rig a = rig_make("cpu:1"), b = rig_make("cpu:2");
        es_error err = {0};
        kn_optim *oa = NULL, *ob = NULL;
        float na, nb;
        ck_assert_ok_err(kn_optim_new(&c, a.w, &oa, &err), &err);
        ck_assert_ok_err(kn_optim_new(&c, b.w, &ob, &err), &err);
        run_steps(&a, oa, 0, 4);
        run_steps(&b, ob, 0, 4);
        ck_assert_ok_err(kn_weights_download(a.w, a.host, &err), &err);
        ck_assert_ok_err(kn_weights_download(b.w, b.host, &err), &err);
        ck_assert_mem_eq(a.host, b.host, (size_t)a.n * sizeof(float));
        ck_assert_ok_err(kn_optim_norm(oa, &na, &err), &err);
        ck_assert_ok_err(kn_optim_norm(ob, &nb, &err), &err);
        ck_assert_float_eq(na, nb);
        kn_optim_destroy(&oa);
        kn_optim_destroy(&ob);
        rig_free(&a);
        rig_free(&b);
    }
END_TEST

START_TEST(bad_configurations)
    {
        rig r = rig_make(device_name());
        struct {
            kn_optim_config c;
            const char *says;
        } bad[] = {
            {{.kind = (kn_optim_kind)9}, "allowed are sgd, adam and adamw"},
            {{.kind = KN_SGD, .momentum = 1.0f}, "allowed is 0 up to but not including 1"},
            {{.kind = KN_SGD, .momentum = NAN}, "allowed is 0 up to but not including 1"},
            {{.kind = KN_SGD, .nesterov = true}, "needs a momentum above 0"},
            {{.kind = KN_ADAM, .beta1 = 1.5f}, "1.5"},
            {{.kind = KN_ADAM, .beta1 = 0.9f, .beta2 = 0.9f}, "above 0"},
            {{.kind = KN_SGD, .decay = -1.0f}, "decay -1"},
            {{.kind = KN_SGD, .clip_norm = INFINITY}, "clip norm inf"},
            {{.kind = KN_SGD, .ema = 2.0f}, "is 2"},
        };
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            es_error err = {0};
            kn_optim *o = NULL;
            ck_assert_status(kn_optim_new(&bad[i].c, r.w, &o, &err), ES_INVALID);
            ck_assert_has(err.text, bad[i].says);
            ck_assert_has(err.where, "optimizer");
            ck_assert_ptr_null(o);
        }
        es_error err = {0};
        kn_optim *o = NULL;
        ck_assert_ok_err(kn_optim_new(&(kn_optim_config){.kind = KN_SGD}, r.w, &o, &err), &err);
        ck_assert_status(kn_optim_update(o, NAN, &err), ES_INVALID);
        ck_assert_has(err.where, "lr");
        kn_optim_destroy(&o);
        kn_weights *plain = NULL;
        ck_assert_ok_err(kn_weights_new(r.dev, r.params, 0, &plain, &err), &err);
        ck_assert_status(kn_optim_new(&(kn_optim_config){.kind = KN_SGD}, plain, &o, &err), ES_INVALID);
        ck_assert_has(err.text, "no gradients");
        kn_weights_destroy(&plain);
        rig_free(&r);
    }
END_TEST

START_TEST(schedules)
    {
        struct {
            kn_schedule s;
            uint64_t step;
            double want;
        } cases[] = {
            {{.kind = KN_CONSTANT, .lr = 0.3f}, 0, 0.3},
            {{.kind = KN_CONSTANT, .lr = 0.3f, .warmup = 3}, 0, 0.1},
            {{.kind = KN_CONSTANT, .lr = 0.3f, .warmup = 3}, 2, 0.3},
            {{.kind = KN_CONSTANT, .lr = 0.3f, .warmup = 3}, 99, 0.3},
            {{.kind = KN_COSINE, .lr = 1, .lr_min = 0.2f, .total = 100}, 0, 1.0},
            {{.kind = KN_COSINE, .lr = 1, .lr_min = 0.2f, .total = 100}, 50, 0.6},
            {{.kind = KN_COSINE, .lr = 1, .lr_min = 0, .total = 90}, 30, 0.75}, /* (1 + cos 60 degrees) / 2 */
            {{.kind = KN_COSINE, .lr = 1, .lr_min = 0.2f, .total = 100}, 100, 0.2},
            {{.kind = KN_COSINE, .lr = 1, .lr_min = 0.2f, .total = 100}, 1000, 0.2},
            {{.kind = KN_COSINE, .lr = 1, .total = 110, .warmup = 10}, 60, 0.5},
            {{.kind = KN_COSINE, .lr = 1, .lr_min = 0.1f, .total = 5, .warmup = 10}, 10, 0.1},
            {{.kind = KN_STEP, .lr = 1, .every = 10, .factor = 0.1f}, 9, 1.0},
            {{.kind = KN_STEP, .lr = 1, .every = 10, .factor = 0.1f}, 10, 0.1},
            {{.kind = KN_STEP, .lr = 1, .every = 10, .factor = 0.1f, .warmup = 4}, 33, 0.01},
            {{.kind = KN_EXPONENTIAL, .lr = 1, .every = 10, .factor = 0.25f}, 5, 0.5},
            {{.kind = KN_EXPONENTIAL, .lr = 1, .every = 10, .factor = 0.25f, .lr_min = 0.05f}, 1000, 0.05},
        };
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            ck_assert_double_eq_tol(kn_schedule_at(&cases[i].s, cases[i].step), cases[i].want, 1e-6);
    }
END_TEST

ES_TEST_MAIN("optim", matches_formulas, first_steps_by_hand, resumes_bit_for_bit, threads_change_no_bit,
             bad_configurations, schedules)
