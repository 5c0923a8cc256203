/* Token sequences: plain text, whose bytes are the tokens, and files of token ids (NPY, or raw little-endian numbers as other trainers write them). */
#include "supernet/data/tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"

static const size_t TOKEN_FILE_BYTES_MAX = (size_t)8 << 30;

void sn_tokens_free(sn_tokens *t)
{
    free(t->ids);
    memset(t, 0, sizeof *t);
}

int32_t sn_token(const sn_tokens *t, int64_t i)
{
    uint16_t two;
    uint32_t four;
    switch (t->item) {
    case 1: return t->ids[i];
    case 2: memcpy(&two, t->ids + 2 * i, 2); return two;
    default: memcpy(&four, t->ids + 4 * i, 4); return (int32_t)four;
    }
}

static es_status check_ids(const char *name, const sn_tokens *t, int vocabulary, es_error *err)
{
    for (int64_t i = 0; i < t->n; i++) {
        int32_t id = sn_token(t, i);
        if (id < 0 || id >= vocabulary)
            return es_fail(err, ES_INVALID, name,
                           "token %" PRIu32 " at position %" PRId64
                           " is out of range: the space's vocabulary has %d (0 to %d)",
                           (uint32_t)id, i, vocabulary, vocabulary - 1);
    }
    return ES_OK;
}

es_status sn_tokens_parse(const char *name, const void *bytes, size_t size, bool text, int raw_item, int vocabulary,
                          sn_tokens *out, es_error *err)
{
    sn_tokens t = {.item = text ? 1 : raw_item};
    const uint8_t *from = bytes;
    memset(out, 0, sizeof *out);
    if (!text && size >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0) {
        sn_npy a;
        ES_RETURN(sn_npy_parse(name, bytes, size, &a, err));
        if (a.rank != 1 || a.kind != 'u' || a.item > 4)
            return es_fail(err, ES_INVALID, name,
                           "an NPY array of type %c%d and %d dimensions: tokens are one row of uint8, uint16 or uint32",
                           a.kind, a.item, a.rank);
        t.item = a.item;
        t.n = a.count;
        from = a.data;
    } else {
        t.n = (int64_t)(size / (size_t)t.item);
        if (size % (size_t)t.item)
            return es_fail(err, ES_INVALID, name, "%zu bytes are no whole number of tokens of %d bytes", size, t.item);
    }
    if (t.n == 0)
        return es_fail(err, ES_INVALID, name, "the file is empty: it has no token");
    size_t n = (size_t)t.n * (size_t)t.item;
    t.ids = malloc(n);
    if (!t.ids)
        return es_fail(err, ES_NO_MEMORY, name, "%zu bytes for its tokens", n);
    memcpy(t.ids, from, n);
    es_status s = check_ids(name, &t, vocabulary, err);
    if (s != ES_OK)
        sn_tokens_free(&t);
    *out = t;
    return s;
}

es_status sn_tokens_read(const sn_data_config *c, const char *path, int vocabulary, sn_tokens *out, es_error *err)
{
    char *bytes = NULL;
    size_t size = 0;
    memset(out, 0, sizeof *out);
    ES_RETURN(es_file_read(path, TOKEN_FILE_BYTES_MAX, &bytes, &size, err));
    es_status s = sn_tokens_parse(path, bytes, size, c->format == SN_DATA_TEXT, c->token_bytes, vocabulary, out, err);
    free(bytes);
    return s;
}

static es_status need(const char *name, const char *what, int64_t n, int window, es_error *err)
{
    if (n > window)
        return ES_OK;
    return es_fail(err, ES_INVALID, name,
                   "%" PRId64 " tokens %s: one window of the space needs %d, and the one after it", n, what, window);
}

/* The end of the training tokens becomes the validation split. */
static es_status hold_out(const sn_data_config *c, int window, sn_tokens split[SN_SPLITS], es_error *err)
{
    sn_tokens *train = &split[SN_TRAIN_SPLIT], *held = &split[SN_VALIDATION_SPLIT];
    int64_t n = c->validation < 0 ? train->n / 10 : c->validation;
    if (n == 0)
        return ES_OK;
    if (n >= train->n)
        return es_fail(err, ES_INVALID, "task.data.validation",
                       "%" PRId64 " tokens cannot be held out of the %" PRId64 " in %s", n, train->n, c->train);
    ES_RETURN(need(c->train, "held out at its end", n, window, err));
    size_t bytes = (size_t)n * (size_t)train->item;
    *held = (sn_tokens){.n = n, .item = train->item, .ids = malloc(bytes)};
    if (!held->ids)
        return es_fail(err, ES_NO_MEMORY, c->train, "%zu bytes for its tokens", bytes);
    train->n -= n;
    memcpy(held->ids, train->ids + (size_t)train->n * (size_t)train->item, bytes);
    return ES_OK;
}

es_status sn_tokens_open(const sn_data_config *c, int window, int vocabulary, sn_tokens split[SN_SPLITS], es_error *err)
{
    sn_tokens *train = &split[SN_TRAIN_SPLIT];
    ES_RETURN(sn_tokens_read(c, c->train, vocabulary, train, err));
    if (c->validation_file[0]) {
        ES_RETURN(sn_tokens_read(c, c->validation_file, vocabulary, &split[SN_VALIDATION_SPLIT], err));
        ES_RETURN(need(c->validation_file, "in the file", split[SN_VALIDATION_SPLIT].n, window, err));
    } else {
        ES_RETURN(hold_out(c, window, split, err));
    }
    if (c->test[0]) {
        ES_RETURN(sn_tokens_read(c, c->test, vocabulary, &split[SN_TEST_SPLIT], err));
        ES_RETURN(need(c->test, "in the file", split[SN_TEST_SPLIT].n, window, err));
    }
    if (c->limit > 0 && c->limit < train->n)
        train->n = c->limit;
    return need(c->train, "to train on", train->n, window, err);
}

int64_t sn_tokens_windows(const sn_tokens *t, int window, bool training)
{
    int64_t whole = t->n > 0 ? (t->n - 1) / window : 0;
    return training && whole > 1 ? whole - 1 : whole;
}

int64_t sn_tokens_offset(const sn_tokens *t, int window, uint64_t seed, uint64_t epoch)
{
    int64_t slack = t->n - 1 - sn_tokens_windows(t, window, true) * window;
    es_rng r = es_rng_make(seed, ES_USE_AUGMENT, epoch);
    return es_rng_below(&r, (uint32_t)(slack < window ? slack + 1 : window));
}

void sn_tokens_window(const sn_tokens *t, int window, int64_t at, int32_t *x, int32_t *next)
{
    ES_ASSERT(at >= 0 && at + window < t->n);
    for (int i = 0; i < window; i++) {
        x[i] = sn_token(t, at + i);
        next[i] = sn_token(t, at + i + 1);
    }
}
