/* The cases of op_cases as whole plans: what a device computes for a graph with gradients and second gradients, after fusion, expansion and with shared
 * memory, is what the reference kernels compute node by node; and parameter gradients are added into their slices and nowhere else. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/graph/autodiff.h"
#include "kernels/plan/plan.h"
#include "tests/kernels/op_cases.h"

/* Of a chain of kernels, each with its own tolerance. */
static const double TOLERANCE = 3e-4;

typedef struct job {
    kn_device *dev;
    kn_plan *plan;
    kn_workspace *ws;
    kn_weights *w;
    kn_binding b;
    void *mem[2 * KN_SLOTS];
    int n_mem;
    es_error err;
} job;

static void *take(job *j, const void *from, size_t bytes)
{
    void *p = NULL;
    ck_assert_ok_err(kn_device_alloc(j->dev, bytes, &p, &j->err), &j->err);
    ck_assert_ok_err(kn_device_upload(j->dev, p, from, bytes, &j->err), &j->err);
    j->mem[j->n_mem++] = p;
    return p;
}

/* Binds the rig's data and poisons the outputs, then runs `times`. */
static void run_job(job *j, const op_rig *r, const kn_val *outs, int n_outs, bool no_fuse, int times)
{
    es_status s = kn_plan_make(j->dev, r->g, &(kn_plan_options){.no_fuse = no_fuse}, &j->plan, &j->err);
    ck_assert_msg(s == ES_OK, "%s: %s: %s", r->c->name, j->err.where, j->err.text);
    if (!j->ws)
        ck_assert_ok_err(kn_workspace_new(j->dev, &j->ws, &j->err), &j->err);
    ck_assert_ok_err(kn_workspace_reserve(j->ws, kn_plan_workspace_bytes(j->plan), &j->err), &j->err);
    if (kn_params_count(r->params) > 0) {
        ck_assert_ok_err(kn_weights_new(j->dev, r->params, KN_WITH_GRAD, &j->w, &j->err), &j->err);
        ck_assert_ok_err(kn_weights_upload(j->w, r->flat, &j->err), &j->err);
    }
    memset(&j->b, 0, sizeof j->b);
    j->b.seed = 99;
    j->b.step = 7;
    j->b.weights[KN_SET_WEIGHTS] = j->w;
    for (uint32_t i = 0; i < r->g->n_nodes; i++) {
        const kn_node *n = &r->g->nodes[i];
        if (n->op == KN_OP_INPUT)
            j->b.in[n->a.slot] = take(j, r->slot[n->a.slot], (size_t)kn_shape_count(&n->a.shape) * sizeof(float));
    }
    for (int i = 0; i < n_outs; i++) {
        kn_shape shape = kn_shape_of(r->g, outs[i]);
        size_t bytes = (size_t)kn_shape_count(&shape) * sizeof(float);
        void *poison = malloc(bytes);
        memset(poison, 0xff, bytes);
        j->b.out[i] = take(j, poison, bytes);
        free(poison);
    }
    for (int t = 0; t < times; t++)
        ck_assert_ok_err(kn_run(j->plan, j->ws, &j->b, &j->err), &j->err);
    ck_assert_ok_err(kn_device_sync(j->dev, &j->err), &j->err);
}

static void clear_job(job *j)
{
    for (int i = 0; i < j->n_mem; i++)
        kn_device_free(j->dev, j->mem[i]);
    j->n_mem = 0;
    kn_weights_destroy(&j->w);
}

static void end_job(job *j)
{
    kn_plan_destroy(&j->plan);
    kn_workspace_destroy(&j->ws);
    kn_device_close(&j->dev);
}

static int compare(job *j, const op_rig *r, const op_values *v, const kn_val *outs, int n_outs)
{
    int bad = 0;
    for (int i = 0; i < n_outs; i++) {
        const kn_tensor *want = &v->t[outs[i]];
        int64_t n = kn_shape_count(&want->shape);
        float *got = malloc((size_t)n * sizeof *got);
        double worst = 0, largest = 0.05;
        ck_assert_ok_err(kn_device_download(j->dev, got, j->b.out[i], (size_t)n * sizeof *got, &j->err), &j->err);
        for (int64_t k = 0; k < n; k++) {
            double w = ((const float *)want->p)[op_nth(want, k)], e = fabs(got[k] - w);
            worst = isnan(e) ? INFINITY : fmax(worst, e);
            largest = fmax(largest, fabs(w));
        }
        free(got);
        if (worst > TOLERANCE * largest) {
            fprintf(stderr, "%s on %s: result %d differs by %g of %g\n", r->c->name, kn_device_name(j->dev), i, worst,
                    largest);
            bad++;
        }
    }
    return bad;
}

static void check_results(const char *device, bool no_fuse)
{
    job j = {0};
    int bad = 0;
    ck_assert_ok_err(kn_device_open(device, &j.dev, &j.err), &j.err);
    for (int i = 0; i < op_case_count; i++) {
        op_rig *r = op_rig_new(&op_cases[i], 2);
        op_values *v = op_values_new(r, OP_ALL);
        kn_val outs[KN_SLOTS] = {r->y};
        int n = 1;
        for (int k = 0; k < OP_DERIVATIVES; k++) {
            if (k < OP_INPUTS && r->d[k] != KN_NONE)
                outs[n++] = r->d[k];
            if (r->dd[k] != KN_NONE)
                outs[n++] = r->dd[k];
        }
        for (int k = 0; k < n; k++)
            kn_output(r->g, k, outs[k]);
        run_job(&j, r, outs, n, no_fuse, 2); /* twice: nothing of the first run may show in the second */
        bad += compare(&j, r, v, outs, n);
        clear_job(&j);
        op_values_free(&v);
        op_rig_free(&r);
    }
    end_job(&j);
    ck_assert_int_eq(bad, 0);
}

/* What two runs should leave in the flat gradient buffer, and how large a slice's numbers are (0: outside of every slice). */
static void expect(const op_rig *r, const op_values *v, const kn_val *d, double *want, double *scale)
{
    for (int leaf = 0; leaf < OP_INPUTS; leaf++) {
        const kn_tensor *at = &r->leaf[leaf], *from = &v->t[d[leaf]];
        double largest = 0.05;
        if (r->c->in[leaf].kind != OP_PARAM)
            continue;
        for (int64_t k = 0; k < kn_shape_count(&from->shape); k++)
            largest = fmax(largest, fabs(2.0 * ((const float *)from->p)[op_nth(from, k)]));
        for (int64_t k = 0; k < kn_shape_count(&from->shape); k++) {
            int64_t i = (float *)at->p + op_nth(at, k) - r->flat;
            want[i] = 2.0 * ((const float *)from->p)[op_nth(from, k)];
            scale[i] = largest;
        }
    }
}

static int check_accumulated(job *j, const op_case *c)
{
    op_rig *r = op_rig_new(c, 1), *p = op_rig_new(c, 0);
    op_values *v = op_values_new(r, OP_ALL);
    size_t n = (size_t)kn_params_elements(p->params);
    float *grads = malloc(n * sizeof *grads);
    double *want = calloc(n, sizeof *want), *scale = calloc(n, sizeof *scale);
    int bad = 0;
    kn_val loss = kn_reshape(p->g, kn_reduce_sum(p->g, kn_mul(p->g, p->y, p->r), KN_AXES_ALL), kn_shape_make(0, NULL));
    ck_assert_ok_err(kn_grad_params(p->g, loss, NULL, NULL, &j->err), &j->err);
    kn_output(p->g, 0, loss);
    run_job(j, p, &loss, 1, false, 2);
    expect(p, v, r->d, want, scale);
    ck_assert_ok_err(kn_device_download(j->dev, grads, kn_weights_grads(j->w), n * sizeof *grads, &j->err), &j->err);
    for (size_t i = 0; i < n && !bad; i++)
        if (!(fabs(grads[i] - want[i]) <= TOLERANCE * scale[i])) {
            fprintf(stderr, "%s: gradient %zu is %g, expected %g%s\n", c->name, i, (double)grads[i], want[i],
                    scale[i] == 0 ? " outside of the slices" : "");
            bad++;
        }
    clear_job(j);
    free(grads);
    free(want);
    free(scale);
    op_values_free(&v);
    op_rig_free(&r);
    op_rig_free(&p);
    return bad;
}

static void check_slices(const char *device)
{
    job j = {0};
    int bad = 0, cases = 0;
    ck_assert_ok_err(kn_device_open(device, &j.dev, &j.err), &j.err);
    for (int i = 0; i < op_case_count; i++) {
        bool has = false;
        for (int k = 0; k < OP_INPUTS; k++)
            has = has || op_cases[i].in[k].kind == OP_PARAM;
        if (!has || (op_cases[i].flags & OP_NO_GRAD))
            continue;
        bad += check_accumulated(&j, &op_cases[i]);
        cases++;
    }
    end_job(&j);
    ck_assert_int_gt(cases, 20);
    ck_assert_int_eq(bad, 0);
}

START_TEST(reference_results)
    {
        check_results("reference", false);
    }
END_TEST
START_TEST(cpu_results)
    {
        check_results("cpu:2", false);
    }
END_TEST
START_TEST(cpu_results_unfused)
    {
        check_results("cpu:1", true);
    }
END_TEST
START_TEST(reference_slices)
    {
        check_slices("reference");
    }
END_TEST
START_TEST(cpu_slices)
    {
        check_slices("cpu:2");
    }
END_TEST

START_TEST(accelerator_results)
    {
        const char *device = es_test_accelerator_name();
        if (device)
            check_results(device, false);
    }
END_TEST

START_TEST(accelerator_slices)
    {
        const char *device = es_test_accelerator_name();
        if (device)
            check_slices(device);
    }
END_TEST

ES_TEST_MAIN("ops_plan", reference_results, cpu_results, cpu_results_unfused, reference_slices, cpu_slices,
             accelerator_results, accelerator_slices)
