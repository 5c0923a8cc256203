#include "supernet/data/set.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"

static const char *const split_names[SN_SPLITS] = {"train", "validation", "test"};

const char *sn_split_name(sn_split s) { return split_names[s]; }

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static es_status data_split(sn_data *d, const sn_data_config *c, uint64_t seed, es_error *err)
{
    int64_t n = d->train.n, held = c->validation;
    if (n > UINT32_MAX)
        return es_fail(err, ES_UNSUPPORTED, c->train, "%" PRId64 " samples: at most %u", n, UINT32_MAX);
    if (held < 0 || held >= n)
        return es_fail(err, ES_INVALID, "task.data.validation",
                       "%" PRId64 " samples cannot be held out of the %" PRId64 " in %s: allowed are 0 to %" PRId64,
                       held, n, c->train, n - 1);
    uint32_t *all = es_xcalloc((size_t)n, sizeof *all);
    for (int64_t i = 0; i < n; i++)
        all[i] = (uint32_t)i;
    if (held > 0) {
        es_rng r = es_rng_make(seed, ES_USE_SPLIT, 0);
        es_rng_shuffle(&r, all, (size_t)n);
        qsort(all, (size_t)held, sizeof *all, by_value);
        qsort(all + held, (size_t)(n - held), sizeof *all, by_value);
    }
    d->count[SN_VALIDATION_SPLIT] = held;
    d->count[SN_TRAIN_SPLIT] = c->limit > 0 && c->limit < n - held ? c->limit : n - held;
    d->count[SN_TEST_SPLIT] = d->test.n;
    for (int i = 0; i < SN_SPLITS; i++)
        d->index[i] = es_xcalloc((size_t)d->count[i] + 1, sizeof *all);
    memcpy(d->index[SN_VALIDATION_SPLIT], all, (size_t)held * sizeof *all);
    memcpy(d->index[SN_TRAIN_SPLIT], all + held, (size_t)d->count[SN_TRAIN_SPLIT] * sizeof *all);
    for (int64_t i = 0; i < d->test.n; i++)
        d->index[SN_TEST_SPLIT][i] = (uint32_t)i;
    free(all);
    return ES_OK;
}

/* Mean and standard deviation a channel: for bytes from exact integer sums, for floats in double and in the order of the file. A channel that never changes is
 * only centred. */
static void data_statistics(sn_data *d)
{
    const sn_images *im = &d->train;
    int64_t pixels = (int64_t)im->h * im->w;
    for (int c = 0; c < im->c; c++) {
        double sum = 0, square = 0;
        uint64_t isum = 0, isquare = 0;
        for (int64_t k = 0; k < d->count[SN_TRAIN_SPLIT]; k++) {
            int64_t at = (int64_t)d->index[SN_TRAIN_SPLIT][k] * pixels * im->c + c;
            for (int64_t p = 0; p < pixels; p++, at += im->c) {
                if (im->u8) {
                    isum += im->u8[at];
                    isquare += (uint64_t)im->u8[at] * im->u8[at];
                } else {
                    sum += (double)im->f32[at];
                    square += (double)im->f32[at] * (double)im->f32[at];
                }
            }
        }
        double n = (double)d->count[SN_TRAIN_SPLIT] * (double)pixels;
        double mean = (sum + (double)isum) / n, var = (square + (double)isquare) / n - mean * mean;
        d->mean[c] = (float)mean;
        d->inverse[c] = var > 1e-12 * (mean * mean + 1e-30) ? (float)(1 / sqrt(var)) : 1;
    }
}

/* Windows as samples, in the order of the text. */
static es_status open_tokens(sn_data *d, const sn_data_config *c, const sn_expect *e, es_error *err)
{
    ES_RETURN(sn_tokens_open(c, e->tokens, e->classes, d->text, err));
    d->tokens = e->tokens;
    for (int i = 0; i < SN_SPLITS; i++) {
        d->count[i] = sn_tokens_windows(&d->text[i], e->tokens, i == SN_TRAIN_SPLIT);
        if (d->count[i] > UINT32_MAX)
            return es_fail(err, ES_UNSUPPORTED, c->train, "%" PRId64 " windows: at most %u", d->count[i], UINT32_MAX);
        d->index[i] = es_xcalloc((size_t)d->count[i] + 1, sizeof *d->index[i]);
        for (int64_t k = 0; k < d->count[i]; k++)
            d->index[i][k] = (uint32_t)k;
    }
    return ES_OK;
}

es_status sn_data_open(const sn_data_config *c, uint64_t seed, const sn_expect *e, sn_data **out, es_error *err)
{
    sn_data *d = es_xcalloc(1, sizeof *d);
    es_status s;
    if (e->tokens) {
        ES_GOTO(open_tokens(d, c, e, err));
        *out = d;
        return ES_OK;
    }
    ES_GOTO(sn_images_read(c->format, c->train, true, e, &d->train, err));
    if (c->test[0]) {
        sn_expect same = {.h = d->train.h, .w = d->train.w, .c = d->train.c, .classes = e->classes};
        ES_GOTO(sn_images_read(c->format, c->test, false, &same, &d->test, err));
        if (!d->test.u8 != !d->train.u8) /* one in bytes, one in floats: they would be scaled differently */
            ES_GOTO(es_fail(err, ES_INVALID, c->test, "%s, but those of %s are %s",
                            d->test.u8 ? "pixels are bytes" : "pixels are real numbers", c->train,
                            d->train.u8 ? "bytes" : "real numbers"));
    }
    ES_GOTO(data_split(d, c, seed, err));
    data_statistics(d);
    *out = d;
    return ES_OK;
fail:
    sn_data_close(&d);
    return s;
}

void sn_data_close(sn_data **d)
{
    if (!*d)
        return;
    sn_images_free(&(*d)->train);
    sn_images_free(&(*d)->test);
    for (int i = 0; i < SN_SPLITS; i++) {
        free((*d)->index[i]);
        sn_tokens_free(&(*d)->text[i]);
    }
    free(*d);
    *d = NULL;
}

int64_t sn_data_count(const sn_data *d, sn_split s) { return d->count[s]; }

void sn_data_shape(const sn_data *d, int *h, int *w, int *c)
{
    *h = d->tokens ? 1 : d->train.h;
    *w = d->tokens ? d->tokens : d->train.w;
    *c = d->tokens ? 1 : d->train.c;
}

size_t sn_data_bytes(const sn_data *d)
{
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        const sn_images *im = i ? &d->test : &d->train;
        n += (size_t)im->n *
             ((size_t)im->h * (size_t)im->w * (size_t)im->c * (im->u8 ? 1 : sizeof(float)) + sizeof(int32_t));
    }
    for (int i = 0; i < SN_SPLITS; i++)
        n += (size_t)d->count[i] * sizeof(uint32_t) + (size_t)d->text[i].n * (size_t)d->text[i].item;
    return n;
}
