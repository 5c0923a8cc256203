/* Every kernel of a back end against the reference, node by node, on the graphs of op_cases with gradients and second gradients.
 *
 * Each node runs alone, from the reference's inputs: with poisoned outputs and scratch; adding into a strided output for every bit of `accumulate`, a dense one for `sums`; in
 * the memory of an input for every bit of `inplace`; without an output for every bit of `skip`. Parameter slices arrive strided where the row takes
 * them, else dense, as in a plan.
 *
 * ESPALIER_TEST_DEVICE names another device than the accelerator that is tried otherwise. */
#include "tests/accelerator.h"
#include "tests/check_main.h"

#include <math.h>

#include "base/rng.h"
#include "tests/kernels/op_cases.h"

enum { GUARD = 12345 }; /* what lies between the rows of a strided output */

typedef enum mode { PLAIN, ACCUMULATE, INPLACE, SKIP } mode;
static const char *const mode_name[] = {"plain", "accumulate", "in place", "skip"};

typedef struct trial {
    kn_device *dev;
    const op_rig *r;
    const op_values *v;
    const kn_node *n;
    const kn_kernel_row *row;
    mode mode;
    int index; /* which input or output the mode is about */
    kn_call call;
    void *in[KN_IN_MAX], *out[KN_OUT_MAX]; /* device memory */
    float *before[KN_OUT_MAX];             /* what lay in the outputs, whole spans */
} trial;

static int64_t span(const kn_tensor *t)
{
    int64_t n = 1;
    for (int d = 0; d < t->shape.rank; d++)
        n += (t->shape.d[d] - 1) * t->stride[d];
    return n;
}

/* Strides with `gap` unused elements after each row of the last dim. */
static void set_strides(kn_tensor *t, int gap)
{
    int64_t stride = 1;
    for (int d = t->shape.rank - 1; d >= 0; d--) {
        t->stride[d] = stride;
        stride = stride * t->shape.d[d] + (d == t->shape.rank - 1 ? gap : 0);
    }
}

static void *upload(kn_device *dev, const void *host, int64_t count)
{
    es_error err = {0};
    void *p = NULL;
    ck_assert_ok_err(kn_device_alloc(dev, (size_t)count * sizeof(float), &p, &err), &err);
    ck_assert_ok_err(kn_device_upload(dev, p, host, (size_t)count * sizeof(float), &err), &err);
    return p;
}

static void put_input(trial *t, int i)
{
    kn_tensor *to = &t->call.in[i];
    if (t->n->in[i] == KN_NONE)
        return;
    const kn_tensor *from = &t->v->t[t->n->in[i]];
    *to = *from;
    if (kn_tensor_contiguous(from) || (t->row->strided >> i & 1)) {
        t->in[i] = upload(t->dev, from->p, span(from));
    } else {
        float *copy = malloc((size_t)kn_shape_count(&from->shape) * sizeof *copy);
        set_strides(to, 0);
        for (int64_t k = 0; k < kn_shape_count(&from->shape); k++)
            copy[k] = ((const float *)from->p)[op_nth(from, k)];
        t->in[i] = upload(t->dev, copy, kn_shape_count(&from->shape));
        free(copy);
    }
    to->p = t->in[i];
}

static void put_output(trial *t, int i)
{
    kn_tensor *to = &t->call.out[i];
    bool adds = t->mode == ACCUMULATE && t->index == i;
    es_rng rng = es_rng_make(3, ES_USE_TEST, (uint64_t)i);
    *to = t->v->t[t->n->out + (uint32_t)i];
    set_strides(to, adds && t->row->accumulate >> i & 1 ? 5 : 0);
    if (t->mode == SKIP && t->index == i) {
        to->p = NULL;
        return;
    }
    t->before[i] = malloc((size_t)span(to) * sizeof(float));
    for (int64_t k = 0; k < span(to); k++)
        t->before[i][k] = adds ? (float)GUARD : NAN;
    for (int64_t k = 0; adds && k < kn_shape_count(&to->shape); k++)
        t->before[i][op_nth(to, k)] = es_rng_normal(&rng);
    if (t->mode == INPLACE && i == 0) {
        to->p = t->call.in[t->index].p;
        return;
    }
    t->out[i] = upload(t->dev, t->before[i], span(to));
    to->p = t->out[i];
}

/* The largest error of output i as a part of the largest number expected; infinite where something was not written or a gap was. */
static double compare(const trial *t, int i)
{
    const kn_tensor *out = &t->call.out[i], *want = &t->v->t[t->n->out + (uint32_t)i];
    es_error err = {0};
    double worst = 0, largest = 0.01;
    if (!out->p)
        return 0;
    bool adds = t->mode == ACCUMULATE && t->index == i;
    float *got = malloc((size_t)span(out) * sizeof *got);
    ck_assert_ok_err(kn_device_download(t->dev, got, out->p, (size_t)span(out) * sizeof *got, &err), &err);
    for (int64_t k = 0; k < kn_shape_count(&out->shape); k++) {
        int64_t at = op_nth(out, k);
        double w = ((const float *)want->p)[op_nth(want, k)] + (adds ? (double)t->before[i][at] : 0),
               e = fabs(got[at] - w);
        largest = fmax(largest, fabs(w));
        worst = isnan(e) ? INFINITY : fmax(worst, e);
        got[at] = (float)GUARD;
    }
    for (int64_t k = 0; adds && k < span(out); k++)
        if (got[k] != (float)GUARD)
            worst = INFINITY;
    free(got);
    return worst / largest;
}

static bool run_trial(trial *t)
{
    const kn_op_info *info = &kn_op_table[t->n->op];
    es_error err = {0};
    double worst = 0;
    t->call = (kn_call){.a = &t->n->a, .n_in = t->n->n_in, .n_out = t->n->n_out, .seed = 99, .step = 7, .dev = t->dev};
    t->call.accumulate = t->mode == ACCUMULATE ? 1u << t->index : 0;
    for (int i = 0; i < t->n->n_in; i++)
        put_input(t, i);
    for (int i = 0; i < t->n->n_out; i++)
        put_output(t, i);
    size_t scratch = t->row->scratch ? t->row->scratch(&t->call) : 0;
    if (scratch) {
        void *poison = malloc(scratch);
        memset(poison, 0xff, scratch);
        ck_assert_ok_err(kn_device_alloc(t->dev, scratch, &t->call.scratch, &err), &err);
        ck_assert_ok_err(kn_device_upload(t->dev, t->call.scratch, poison, scratch, &err), &err);
        free(poison);
    }
    es_status s = t->row->run(&t->call, &err);
    if (s == ES_OK)
        s = kn_device_sync(t->dev, &err);
    for (int i = 0; i < t->n->n_out && s == ES_OK; i++)
        worst = fmax(worst, compare(t, i));
    bool good = s == ES_OK && worst <= (double)info->tolerance;
    if (!good)
        fprintf(stderr, "%s: %s on %s, %s %d: error %g, allowed %g %s\n", t->r->c->name, info->name,
                kn_device_name(t->dev), mode_name[t->mode], t->index, worst, (double)info->tolerance,
                s == ES_OK ? "" : err.text);
    kn_device_free(t->dev, t->call.scratch);
    for (int i = 0; i < t->n->n_in; i++)
        kn_device_free(t->dev, t->in[i]);
    for (int i = 0; i < t->n->n_out; i++) {
        kn_device_free(t->dev, t->out[i]);
        free(t->before[i]);
    }
    return good;
}

/* Whether output 0 may lie in input i's memory: a dense real input of the same size, not used twice. */
static bool can_share(const trial *t, int i)
{
    const kn_tensor *in = &t->v->t[t->n->in[i]], *out = &t->v->t[t->n->out];
    int uses = 0;
    for (int k = 0; k < t->n->n_in; k++)
        uses += t->n->in[k] == t->n->in[i];
    return t->n->in[i] != KN_NONE && uses == 1 && in->dtype == KN_F32 && kn_tensor_contiguous(in) &&
           kn_shape_count(&in->shape) == kn_shape_count(&out->shape);
}

static int check_node(kn_device *dev, const op_rig *r, const op_values *v, const kn_node *n, int *trials)
{
    const kn_kernel_row *row = &dev->vt->kernels[n->op];
    trial t = {.dev = dev, .r = r, .v = v, .n = n, .row = row};
    int bad = 0;
    for (mode m = PLAIN; m <= SKIP; m++) {
        int bits = m == PLAIN        ? 1
                   : m == ACCUMULATE ? row->accumulate | row->sums
                   : m == INPLACE    ? row->inplace
                                     : row->skip;
        int count = m == INPLACE ? n->n_in : n->n_out;
        for (int i = 0; i < count; i++) {
            trial one = t;
            one.mode = m;
            one.index = i;
            if (!(bits >> i & 1) || (m == INPLACE && !can_share(&t, i)))
                continue;
            bad += !run_trial(&one);
            ++*trials;
        }
    }
    return bad;
}

static bool is_kernel_op(kn_op op)
{
    static const kn_op not [] = {KN_OP_INPUT,  KN_OP_PARAM,  KN_OP_SCALAR,     KN_OP_RESHAPE,
                                 KN_OP_DETACH, KN_OP_OUTPUT, KN_OP_ACCUMULATE, KN_OP_BLEND};
    for (size_t i = 0; i < sizeof not / sizeof not [0]; i++)
        if (op == not [i])
            return false;
    return true;
}

static void check_device(kn_device *dev)
{
    int bad = 0, trials = 0, missing[KN_OP_COUNT] = {0};
    for (int i = 0; i < op_case_count; i++) {
        op_rig *r = op_rig_new(&op_cases[i], 2);
        op_values *v = op_values_new(r, OP_ALL);
        for (uint32_t k = 0; k < r->g->n_nodes; k++) {
            const kn_node *n = &r->g->nodes[k];
            if (!is_kernel_op(n->op))
                continue;
            if (dev->vt->kernels[n->op].run)
                bad += check_node(dev, r, v, n, &trials);
            else
                missing[n->op]++;
        }
        op_values_free(&v);
        op_rig_free(&r);
    }
    for (int op = 0; op < KN_OP_COUNT; op++)
        if (missing[op])
            fprintf(stderr, "%s has no kernel of its own for %s%s\n", kn_device_name(dev), kn_op_table[op].name,
                    kn_op_table[op].expand ? ", it runs expanded" : "");
    printf("%s: %d trials\n", kn_device_name(dev), trials);
    ck_assert_int_gt(trials, 0);
    ck_assert_int_eq(bad, 0);
}

START_TEST(cpu)
    {
        es_error err = {0};
        kn_device *dev = NULL;
        ck_assert_ok_err(kn_device_open("cpu:2", &dev, &err), &err);
        check_device(dev);
        kn_device_close(&dev);
    }
END_TEST

START_TEST(accelerator)
    {
        kn_device *dev = es_test_accelerator(NULL);
        if (!dev)
            return;
        check_device(dev);
        kn_device_close(&dev);
    }
END_TEST

ES_TEST_MAIN("ops_device", cpu, accelerator)
