#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "supernet/methods.h"

/* Lowers `a` for `batch` images into t->graph; flags as in sn_lower_options. */
static es_status lower(sn_trainer *t, const sr_arch *a, const uint8_t *flags, int batch, sn_mode mode, sn_lowered *net,
                       es_error *err)
{
    sn_lower_options o = {.batch = batch, .mode = mode, .unit_flags = flags};
    kn_graph_reset(t->graph);
    return sn_net_lower(t->net, a, &o, t->graph, net, err);
}

es_status sn_calibrate(sn_trainer *t, const sr_arch *a, const uint8_t *flags, kn_weights *weights, kn_weights *stats,
                       es_error *err)
{
    int64_t have = sn_data_count(t->data, SN_TRAIN_SPLIT), want = t->file->supernet.calibration;
    int batch = (int)(have < SN_EVAL_BATCH ? have : SN_EVAL_BATCH);
    int64_t batches = (want < have ? want : have) / batch;
    sn_lowered net;
    if (kn_params_count(sn_net_stats(t->net)) == 0)
        return ES_OK;
    ES_RETURN(lower(t, a, flags, batch, SN_CALIBRATE, &net, err));
    ES_RETURN(sn_trainer_plan(t, err));
    for (int64_t i = 0; i < (batches > 0 ? batches : 1); i++) {
        sn_batch b;
        ES_RETURN(sn_loader_calibration(t->loader, i * batch, batch, &b, err));
        kn_binding bind = {
            .in = {[SN_IN_IMAGES] = b.images},
            .scalar = {[SN_SCALAR_BLEND] =
                           1.0f / (float)(i + 1)}, /* the first assigns, the n-th moves by 1/n: their average */
            .weights = {weights, stats},
            .seed = t->seed};
        ES_RETURN(kn_run(t->plan, t->ws, &bind, err));
    }
    return kn_weights_changed(stats, err);
}

es_status sn_trainer_eval_weights(sn_trainer *t, kn_weights **out, es_error *err)
{
    float *host = NULL;
    es_status s = ES_OK;
    *out = t->weights;
    for (int i = 0; i < kn_optim_arrays(t->optim); i++) {
        if (strcmp(kn_optim_array_name(t->optim, i), "ema") != 0 || kn_optim_count(t->optim) == 0)
            continue;
        if (!t->average)
            ES_GOTO(kn_weights_new(t->dev, sn_net_params(t->net), 0, &t->average, err));
        host = es_xcalloc((size_t)kn_params_elements(sn_net_params(t->net)), sizeof *host);
        ES_GOTO(kn_optim_save(t->optim, i, host, err));
        ES_GOTO(kn_weights_upload(t->average, host, err));
        ES_GOTO(kn_weights_changed(t->average, err));
        *out = t->average;
    }
fail:
    free(host);
    return s;
}

static es_status reserve_scores(sn_trainer *t, size_t bytes, es_error *err)
{
    if (bytes <= t->scores_bytes)
        return ES_OK;
    kn_device_free(t->dev, t->scores);
    t->scores = NULL;
    t->scores_bytes = 0;
    ES_RETURN(kn_device_alloc(t->dev, bytes, &t->scores, err));
    t->scores_bytes = bytes;
    return ES_OK;
}

/* Samples scored at once: windows of tokens are long, so as many as a step trains on. */
static int eval_batch(const sn_trainer *t)
{
    int most = sn_space_tokens(t->file->space) ? t->file->supernet.batch : SN_EVAL_BATCH;
    return most < SN_EVAL_BATCH ? most : SN_EVAL_BATCH;
}

/* The plan that scores `batch` samples: sums of correct answers and of cross-entropies. */
static es_status plan_score(sn_trainer *t, const sr_arch *a, const uint8_t *flags, int batch, es_error *err)
{
    sn_lowered net;
    ES_RETURN(lower(t, a, flags, batch, SN_INFER, &net, err));
    kn_val labels = kn_input(t->graph, SN_IN_LABELS, KN_SHAPE(kn_shape_of(t->graph, net.logits).d[0]), KN_I32);
    kn_output(t->graph, SN_OUT_CORRECT, kn_reduce_sum(t->graph, kn_correct(t->graph, net.logits, labels), KN_AXES_ALL));
    kn_output(t->graph, SN_OUT_LOSS,
              kn_reduce_sum(t->graph, kn_cross_entropy(t->graph, net.logits, labels, 0), KN_AXES_ALL));
    return sn_trainer_plan(t, err);
}

static es_status score(sn_trainer *t, const sr_arch *a, const uint8_t *flags, kn_weights *weights, sn_split split,
                       int64_t count, sn_evaluation *out, es_error *err)
{
    const int64_t most = eval_batch(t), batches = (count + most - 1) / most;
    const int64_t positions = sn_space_positions(t->file->space);
    int planned = 0;
    float *host = es_xcalloc(2 * (size_t)batches, sizeof *host);
    es_status s;
    ES_GOTO(reserve_scores(t, 2 * (size_t)batches * sizeof(float), err));
    for (int64_t i = 0; i < batches; i++) {
        int64_t left = count - i * most;
        int n = (int)(left < most ? left : most);
        sn_batch b;
        if (n != planned) {
            ES_GOTO(plan_score(t, a, flags, n, err));
            planned = n;
        }
        ES_GOTO(sn_loader_eval(t->loader, split, i * most, n, &b, err));
        float *to = (float *)t->scores + 2 * i;
        kn_binding bind = {.in = {[SN_IN_IMAGES] = b.images, [SN_IN_LABELS] = b.labels},
                           .out = {[SN_OUT_CORRECT] = to, [SN_OUT_LOSS] = to + 1},
                           .weights = {weights, t->eval_stats},
                           .seed = t->seed};
        ES_GOTO(kn_run(t->plan, t->ws, &bind, err));
    }
    ES_GOTO(kn_device_sync(t->dev, err));
    ES_GOTO(kn_device_download(t->dev, host, t->scores, 2 * (size_t)batches * sizeof(float), err));
    memset(out, 0, sizeof *out);
    for (int64_t i = 0; i < batches; i++) {
        out->correct += (uint64_t)llroundf(host[2 * i]);
        out->loss += (double)host[2 * i + 1] / (double)(count * positions);
    }
    out->samples = (uint64_t)(count * positions);
fail:
    free(host);
    return s;
}

es_status sn_evaluate(sn_trainer *t, const sr_arch *a, sn_split split, int64_t limit, sn_evaluation *out, es_error *err)
{
    int64_t count = sn_data_count(t->data, split);
    int units = sn_net_units(t->net);
    uint8_t *flags = NULL;
    kn_weights *weights = NULL;
    es_status s;
    if (count == 0)
        return es_fail(err, ES_INVALID, split == SN_TEST_SPLIT ? "task.data.test" : "task.data.validation",
                       "there is no %s data to evaluate on", sn_split_name(split));
    if (t->unit_flags) { /* the phase's network, every part of it with its own statistics */
        flags = es_xcalloc((size_t)units, 1);
        for (int i = 0; i < units; i++)
            flags[i] = t->unit_flags[i] & (uint8_t)~SN_UNIT_FROZEN;
    }
    ES_GOTO(sn_trainer_eval_weights(t, &weights, err));
    ES_GOTO(sn_calibrate(t, a, flags, weights, t->eval_stats, err));
    ES_GOTO(score(t, a, flags, weights, split, limit > 0 && limit < count ? limit : count, out, err));
fail:
    free(flags);
    return s;
}
