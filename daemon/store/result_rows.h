/* result_rows.h - what searches found: candidates by ticket, and what was measured of each.
 *
 *     dm_candidate c = {.ticket = 7, .id = id, .architecture = text}; dm_candidate_insert(st, search, &c, err);
 *     dm_result r = {.id = id, .weights = hex, .split = DM_SPLIT_VALIDATION, .measure = DM_MEASURE_ACCURACY, .ok = true, .value = 0.93};
 *     dm_result_insert(st, search, &r, &fresh, err);
 *
 * A result's key is (search, architecture, weights, split, measure), and the first one for a key stays.
 */
#ifndef DM_RESULT_ROWS_H
#define DM_RESULT_ROWS_H

#include "daemon/store/store.h"

typedef struct dm_candidate {
    int64_t ticket, params, macs, activation_bytes;
    es_id id;
    const char *architecture;
} dm_candidate;
es_status dm_candidate_insert(dm_store *st, int64_t search, const dm_candidate *c, es_error *err) ES_MUST_CHECK;
es_status dm_candidate_each(dm_store *st, int64_t search, int64_t from, int64_t limit,
                            bool (*fn)(void *ctx, const dm_candidate *c), void *ctx, es_error *err) ES_MUST_CHECK;

/* In the database: fixed for ever. */
typedef enum dm_split { DM_SPLIT_NONE = 0, DM_SPLIT_VALIDATION = 1, DM_SPLIT_TEST = 2 } dm_split;
typedef enum dm_measure {
    DM_MEASURE_ACCURACY = 1,
    DM_MEASURE_LATENCY = 2,
    DM_MEASURE_TABLE = 3,
    DM_MEASURE_EXPORT = 4
} dm_measure;

typedef struct dm_result {
    es_id id;
    const char *weights; /* "" when it does not depend on them */
    dm_split split;
    dm_measure measure;
    int64_t job; /* 0: none */
    bool ok;
    double value, low, high, loss;
    int64_t correct, samples;
    const char *text;
} dm_result;
/* A second result for the same key changes nothing: *fresh tells. */
es_status dm_result_insert(dm_store *st, int64_t search, const dm_result *r, bool *fresh, es_error *err) ES_MUST_CHECK;
es_status dm_result_get(dm_store *st, int64_t search, const es_id *id, const char *weights, dm_split split,
                        dm_measure measure, dm_result *out, char text[256], es_error *err) ES_MUST_CHECK;
es_status dm_result_each(dm_store *st, int64_t search, bool (*fn)(void *ctx, const dm_result *r), void *ctx,
                         es_error *err) ES_MUST_CHECK;

/* What candidates scored on the validation set, by ticket, from `from` on. Of a candidate fn gets ticket, params and macs. */
es_status dm_candidate_curve(dm_store *st, int64_t search, int64_t from, int64_t limit,
                             bool (*fn)(void *ctx, const dm_candidate *c, double accuracy), void *ctx,
                             es_error *err) ES_MUST_CHECK;

#endif
