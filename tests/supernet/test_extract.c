#include "supernet/train/methods.h"
#include "tests/check_main.h"
#include "tests/supernet/lab.h"

enum { N = 37, CLASSES = 4 };

/* Logits of N test images from any net; weights and statistics as given. */
static void logits(kn_device *dev, const sn_net *net, const sr_arch *a, kn_weights *w, kn_weights *stats,
                   const float *images, float *out)
{
    es_error err = {0};
    const kn_params *sets[KN_SETS] = {sn_net_params(net), sn_net_stats(net)};
    kn_graph *g = kn_graph_new(sets);
    kn_plan *plan = NULL;
    kn_workspace *ws = NULL;
    sn_lowered low;
    ck_assert_ok_err(sn_net_lower(net, a, &(sn_lower_options){.batch = N, .mode = SN_INFER}, g, &low, &err), &err);
    kn_output(g, SN_OUT_LOGITS, low.logits);
    ck_assert_ok_err(kn_graph_status(g, &err), &err);
    ck_assert_ok_err(kn_plan_make(dev, g, &(kn_plan_options){.precision = KN_PRECISION_F32}, &plan, &err), &err);
    ck_assert_ok_err(kn_workspace_new(dev, &ws, &err), &err);
    ck_assert_ok_err(kn_workspace_reserve(ws, kn_plan_workspace_bytes(plan), &err), &err);
    kn_binding b = {.in = {images}, .out = {[SN_OUT_LOGITS] = out}, .weights = {w, stats}};
    ck_assert_ok_err(kn_run(plan, ws, &b, &err), &err);
    kn_plan_destroy(&plan);
    kn_workspace_destroy(&ws);
    kn_graph_destroy(&g);
}

static void stands_alone(lab *l, sn_trainer *t, const sr_arch *a)
{
    es_error err = {0};
    sn_version *v = NULL, *read = NULL;
    sn_space *fixed = NULL;
    sn_net *net = NULL;
    kn_weights *w = NULL, *stats = NULL;
    sn_batch b;
    float shared[N * CLASSES], alone[N * CLASSES];
    ck_assert_ok_err(sn_extract(t, a, &v, &err), &err);
    /* Through a file, as a user has it. */
    const char *path = es_test_join(es_test_dir(), "subnet.safetensors");
    ck_assert_ok_err(sn_version_write_safetensors(v, path, &err), &err);
    ck_assert_ok_err(sn_version_read_safetensors(path, &read, &err), &err);
    ck_assert_ok_err(sn_space_fix(l->file.space, a, &fixed, &err), &err);
    ck_assert_ok_err(sn_net_new(fixed, &net, &err), &err);
    ck_assert_ok_err(kn_weights_new(l->dev, sn_net_params(net), 0, &w, &err), &err);
    ck_assert_ok_err(kn_weights_new(l->dev, sn_net_stats(net), 0, &stats, &err), &err);
    ck_assert_ok_err(sn_subnet_load(read, w, stats, &err), &err);
    sr_arch *only = sr_arch_new(sn_space_choices(fixed));
    sr_arch_largest(sn_space_choices(fixed), only);
    ck_assert_ok_err(sn_loader_eval(t->loader, SN_TEST_SPLIT, 0, N, &b, &err), &err);
    logits(l->dev, t->net, a, t->weights, t->eval_stats, b.images, shared);
    logits(l->dev, net, only, w, stats, b.images, alone);
    ck_assert_mem_eq(shared, alone, sizeof shared);
    ck_assert_float_ne(alone[0], alone[CLASSES]);
    /* Its tensors are exactly its parameters. */
    sn_cost cost;
    int64_t elements = 0;
    ck_assert_ok_err(sn_space_cost(l->file.space, a, &cost, &err), &err);
    for (int i = 0; i < kn_params_count(sn_net_params(net)); i++)
        elements += kn_params_def(sn_net_params(net), i)->count;
    ck_assert_int_eq(elements, cost.params);
    ck_assert_int_eq(v->count, kn_params_count(sn_net_params(net)) + kn_params_count(sn_net_stats(net)));
    /* A missing or misshapen tensor is named. */
    snprintf(read->arrays[0].name, sizeof read->arrays[0].name, "!");
    ck_assert_status(sn_subnet_load(read, w, stats, &err), ES_INVALID);
    ck_assert_has(err.text, "no such array in the version");
    free(only);
    kn_weights_destroy(&w);
    kn_weights_destroy(&stats);
    sn_net_destroy(&net);
    sn_space_destroy(&fixed);
    sn_version_destroy(&v);
    sn_version_destroy(&read);
}

START_TEST(same_outputs_bit_for_bit)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH);
        sn_trainer *t = lab_trainer(l);
        lab_run(t, 6);
        stands_alone(l, t, t->largest);
        stands_alone(l, t, t->smallest);
        for (uint64_t i = 0; i < 6; i++) {
            sr_arch *a = lab_arch(l, i);
            stands_alone(l, t, a);
            free(a);
        }
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

/* With a moving average, that is what is scored and what is taken home. */
START_TEST(the_average_is_extracted)
    {
        lab *l = lab_new("cpu", SN_METHOD_SANDWICH);
        es_error err = {0};
        l->file.supernet.optimizer.ema = 0.9f;
        sn_trainer *t = lab_trainer(l);
        lab_run(t, 4);
        sn_version *v = NULL, *state = lab_save(t);
        ck_assert_ok_err(sn_extract(t, t->largest, &v, &err), &err);
        const kn_param_def *d = kn_params_def(sn_net_params(t->net), 0);
        const float *average = (const float *)sn_version_find(state, "ema")->data + d->offset;
        const float *values = (const float *)sn_version_find(state, "values")->data + d->offset;
        ck_assert_mem_eq(sn_version_find(v, d->name)->data, average, (size_t)d->count * sizeof(float));
        ck_assert(memcmp(values, average, (size_t)d->count * sizeof(float)) != 0);
        sn_version_destroy(&v);
        sn_version_destroy(&state);
        sn_trainer_destroy(&t);
        lab_destroy(&l);
    }
END_TEST

ES_TEST_MAIN("extract", same_outputs_bit_for_bit, the_average_is_extracted)
