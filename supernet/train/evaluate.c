#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "supernet/train/stream.h"

/* Pixels in a batch: what a processor's memory takes, and for each 16 GiB of a GPU's memory what it can score at a time. Late stages are small: the fewer launches the
 * better. */
enum { CALIBRATION_PIXELS = 256 * 32 * 32, GPU_PIXELS = 2048 * 32 * 32, GPU_SHARE_GIB = 16 };
static const size_t HOST_KEEP_MAX = (size_t)256 << 20, DEVICE_KEEP_MAX = (size_t)16 << 30;

static int batch_of(const sn_trainer *t, int pixels, int least, int most)
{
    int h, w, c;
    sn_data_shape(t->data, &h, &w, &c);
    int64_t n = pixels / ((int64_t)h * w);
    return (int)(n < least ? least : n > most ? most : n);
}

int sn_calibration_batch(const sn_trainer *t)
{
    int given = t->file->supernet.calibration_batch;
    return given > 0 ? given : batch_of(t, CALIBRATION_PIXELS, 64, 256);
}

/* Windows of tokens are long: as many as a step trains on. */
static int scoring_batch(const sn_trainer *t)
{
    if (sn_space_tokens(t->file->space))
        return t->file->supernet.batch < SN_EVAL_BATCH ? t->file->supernet.batch : SN_EVAL_BATCH;
    size_t free_bytes = 0, total = 0;
    es_error none;
    if (kn_device_backend(t->dev) != KN_BACKEND_CUDA || kn_device_memory(t->dev, &free_bytes, &total, &none) != ES_OK)
        return SN_EVAL_BATCH;
    int shares = (int)(total >> 30) / GPU_SHARE_GIB; /* of all its memory: the batch must not depend on the hour */
    return batch_of(t, GPU_PIXELS * (shares < 1 ? 1 : shares > 16 ? 16 : shares), SN_EVAL_BATCH, 1 << 16);
}

/* Whole batches of one size; none where there is no batch norm. */
static sn_batches calibration_batches(const sn_trainer *t)
{
    int64_t have = sn_data_count(t->data, SN_TRAIN_SPLIT), want = t->file->supernet.calibration;
    sn_batches b = {0};
    if (kn_params_count(sn_net_stats(t->net)) == 0)
        return b;
    want = want < have ? want : have;
    int most = sn_calibration_batch(t);
    b.count = (want + most - 1) / most;
    b.size = b.last = (int)(want / b.count);
    b.samples = b.count * b.size;
    return b;
}

es_status sn_calibrate(sn_trainer *t, const sr_arch *a, const uint8_t *flags, kn_weights *weights, kn_weights *stats,
                       es_error *err)
{
    sn_batches b = calibration_batches(t), none = {0};
    sn_link *links = NULL;
    int n = 0;
    es_status s;
    ES_GOTO(sn_net_chain(t->net, a, flags, &links, &n, err));
    ES_GOTO(sn_stream_begin(t, &b, &none, SN_TRAIN_SPLIT, 0, err));
    ES_GOTO(sn_stream_load(t, a, flags, links, n, NULL, err));
    ES_GOTO(sn_stream_calibrate(t, weights, stats, err));
fail:
    free(links);
    return s;
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

/* One subnet of many, by its chain. */
typedef struct member {
    sn_link *links;
    int n, index; /* index: in the caller's array */
    int shared;   /* links in common with the member before, without the last */
} member;

typedef struct many {
    member *m;
    int n, longest; /* longest: links */
    bool *keep;     /* of the member in hand, by link */
} many;

static int by_links(const void *x, const void *y)
{
    const member *a = x, *b = y;
    for (int k = 0; k < a->n && k < b->n; k++) {
        int c = memcmp(&a->links[k].unit, &b->links[k].unit, sizeof a->links[k].unit);
        if (c)
            return c;
    }
    return a->n != b->n ? a->n - b->n : a->index - b->index;
}

/* Chains in the order of a trie's leaves: what two members have in common, all members between them have too. */
static es_status many_open(sn_trainer *t, const sr_arch *const *archs, int n, const uint8_t *flags, many *out,
                           es_error *err)
{
    out->m = es_xcalloc((size_t)n, sizeof *out->m);
    for (; out->n < n; out->n++) {
        member *m = &out->m[out->n];
        m->index = out->n;
        ES_RETURN(sn_net_chain(t->net, archs[out->n], flags, &m->links, &m->n, err));
        out->longest = m->n > out->longest ? m->n : out->longest;
    }
    qsort(out->m, (size_t)n, sizeof *out->m, by_links);
    for (int i = 1; i < n; i++) {
        const member *a = &out->m[i - 1];
        member *b = &out->m[i];
        while (b->shared < a->n - 1 && b->shared < b->n - 1 &&
               es_hash_equal(&a->links[b->shared].unit, &b->links[b->shared].unit))
            b->shared++;
    }
    out->keep = es_xcalloc((size_t)out->longest + 1, sizeof *out->keep);
    return ES_OK;
}

static void many_close(many *all)
{
    for (int i = 0; all->m && i < all->n; i++)
        free(all->m[i].links);
    free(all->m);
    free(all->keep);
}

/* Behind which links of member i others part from it that are still to come. */
static const bool *branches(many *all, int i)
{
    int common = all->m[i].n - 1;
    memset(all->keep, 0, (size_t)all->m[i].n * sizeof *all->keep);
    for (int j = i + 1; j < all->n && common > 0; j++) {
        common = all->m[j].shared < common ? all->m[j].shared : common;
        if (common > 0)
            all->keep[common - 1] = true;
    }
    return all->keep;
}

/* What all kept values need at once, at most. */
static size_t keep_peak(const sn_trainer *t, many *all, const sn_batches *c, const sn_batches *b)
{
    size_t peak = 0;
    bool *live = es_xcalloc((size_t)all->longest + 1, sizeof *live);
    for (int i = 0; i + 1 < all->n; i++) {
        size_t sum = 0;
        const bool *keep = branches(all, i);
        for (int k = 0; k + 1 < all->m[i].n; k++) {
            live[k] = keep[k] || (live[k] && k < all->m[i].shared);
            sum += live[k] ? sn_stream_kept_bytes(t, &all->m[i].links[k], c, b) : 0;
        }
        memset(live + all->m[i].n - 1, 0, (size_t)(all->longest - all->m[i].n + 1) * sizeof *live);
        peak = sum > peak ? sum : peak;
    }
    free(live);
    return peak;
}

static size_t keep_budget(sn_trainer *t, size_t peak)
{
    size_t free_bytes = 0, total = 0, most = t->keep_bytes;
    es_error none;
    if (most == 0 || peak == 0)
        return 0;
    if (kn_device_memory(t->dev, &free_bytes, &total, &none) != ES_OK)
        return 0;
    size_t quarter = free_bytes / 4,
           fixed = kn_device_backend(t->dev) == KN_BACKEND_CUDA ? DEVICE_KEEP_MAX : HOST_KEEP_MAX;
    most = most < quarter ? most : quarter;
    most = most < fixed ? most : fixed;
    return peak < most ? peak : most;
}

/* Every batch's two sums, in its member's row; one download for all. */
static es_status take_scores(sn_trainer *t, const many *all, const sn_batches *b, sn_evaluation *out, es_error *err)
{
    size_t row = 2 * (size_t)b->count, bytes = row * (size_t)all->n * sizeof(float);
    int64_t positions = b->samples * sn_space_positions(t->file->space);
    float *host = es_xcalloc(row * (size_t)all->n, sizeof *host);
    es_status s = kn_device_download(t->dev, host, t->scores, bytes, err);
    for (int m = 0; m < all->n && s == ES_OK; m++) {
        sn_evaluation *e = &out[all->m[m].index];
        *e = (sn_evaluation){.samples = (uint64_t)positions};
        for (int64_t i = 0; i < b->count; i++) {
            e->correct += (uint64_t)llroundf(host[(size_t)m * row + 2 * (size_t)i]);
            e->loss += (double)host[(size_t)m * row + 2 * (size_t)i + 1] / (double)positions;
        }
    }
    free(host);
    return s;
}

static es_status score_all(sn_trainer *t, const sr_arch *const *archs, many *all, const uint8_t *flags, sn_split split,
                           int64_t count, const sn_hooks *h, sn_evaluation *out, es_error *err)
{
    sn_batches c = calibration_batches(t), b = sn_batches_make(count, scoring_batch(t));
    size_t row = 2 * (size_t)b.count;
    kn_weights *weights = NULL;
    ES_RETURN(sn_trainer_eval_weights(t, &weights, err));
    ES_RETURN(reserve_scores(t, row * (size_t)all->n * sizeof(float), err));
    ES_RETURN(sn_stream_begin(t, &c, &b, split, keep_budget(t, keep_peak(t, all, &c, &b)), err));
    for (int i = 0; i < all->n; i++) {
        const member *m = &all->m[i];
        if (h && h->stop && h->stop(h->ctx))
            return es_fail(err, ES_CANCELLED, NULL, "stopped after %d of %d evaluations", i, all->n);
        ES_RETURN(sn_stream_load(t, archs[m->index], flags, m->links, m->n, branches(all, i), err));
        ES_RETURN(sn_stream_calibrate(t, weights, t->eval_stats, err));
        ES_RETURN(sn_stream_score(t, weights, t->eval_stats, (float *)t->scores + (size_t)i * row, err));
        t->links_asked += m->n;
        if (h && h->progress)
            h->progress(h->ctx, (uint64_t)i + 1, (uint64_t)all->n, 0, 0);
    }
    t->links_run += sn_stream_links_run(t);
    return take_scores(t, all, &b, out, err);
}

es_status sn_evaluate_many(sn_trainer *t, const sr_arch *const *archs, int n, sn_split split, int64_t limit,
                           const sn_hooks *h, sn_evaluation *out, es_error *err)
{
    int64_t count = sn_data_count(t->data, split);
    int units = sn_net_units(t->net);
    uint8_t *flags = NULL;
    many all = {0};
    es_status s;
    if (count == 0)
        return es_fail(err, ES_INVALID, split == SN_TEST_SPLIT ? "task.data.test" : "task.data.validation",
                       "there is no %s data to evaluate on", sn_split_name(split));
    if (n < 1)
        return ES_OK;
    if (t->unit_flags) { /* the phase's network, every part of it with its own statistics */
        flags = es_xcalloc((size_t)units, 1);
        for (int i = 0; i < units; i++)
            flags[i] = t->unit_flags[i] & (uint8_t)~SN_UNIT_FROZEN;
    }
    ES_GOTO(many_open(t, archs, n, flags, &all, err));
    ES_GOTO(score_all(t, archs, &all, flags, split, limit > 0 && limit < count ? limit : count, h, out, err));
fail:
    many_close(&all);
    free(flags);
    return s;
}

es_status sn_evaluate(sn_trainer *t, const sr_arch *a, sn_split split, int64_t limit, sn_evaluation *out, es_error *err)
{
    return sn_evaluate_many(t, &a, 1, split, limit, NULL, out, err);
}

void sn_trainer_keep_bytes(sn_trainer *t, size_t bytes) { t->keep_bytes = bytes; }

void sn_trainer_sharing(const sn_trainer *t, int64_t *links_asked, int64_t *links_run)
{
    *links_asked = t->links_asked;
    *links_run = t->links_run;
}
